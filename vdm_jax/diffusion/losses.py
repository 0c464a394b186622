"""The denoising loss and its weight, VDM eq. (2).

    E_{eps, t} [ w(logsnr_t) |x_hat(z_t) - x|^2 ]

A weight is a function logsnr -> log w(logsnr).  The named ones:

    x          w = 1                    plain error of x_hat
    eps        w = SNR                  |eps - eps_hat|^2: the paper's choice
    v          w = 1 + SNR              |v - v_hat|^2
    truncated  w = max(SNR, 1)          Salimans and Ho 2022, section 4
    min_snr    w = min(SNR, 5)          Hang et al. 2023, section 3.4
    bounded_v  w = (1 + SNR) / (1 + SNR / 20)
                                        as v in noise, at most 20 near the data:
                                        for short runs, which learn structure
                                        before grain
    output     w = |target - output|^2 / |x - x_hat|^2
                                        plain error of the output; of EDM's it
                                        is lambda(sigma), PYoCo eq. (1)

Any weight goes with any parameterization.  The error is computed in the space
of the network's output, where it is well scaled at every noise level, and the
two logarithms are added before one exponential: training eps with weight eps
is exactly the mean squared error of the output.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vdm_jax.diffusion.parameterization import Parameterization
from vdm_jax.shapes import LogSNR, Video

LogWeight = Callable[[Array], Array]

MIN_SNR_GAMMA = 5.0
V_BOUND = 20.0

LOG_WEIGHTS: dict[str, LogWeight] = {
  'x': jnp.zeros_like,
  'eps': lambda logsnr: logsnr,
  'v': jax.nn.softplus,
  'truncated': lambda logsnr: jnp.maximum(logsnr, 0.0),
  'min_snr': lambda logsnr: jnp.minimum(logsnr, math.log(MIN_SNR_GAMMA)),
  'bounded_v': lambda logsnr: (
    jax.nn.softplus(logsnr) - jax.nn.softplus(logsnr - math.log(V_BOUND))
  ),
}


def log_weight(name: str, parameterization: Parameterization) -> LogWeight:
  """Returns log w of a name, 'output' or one of `LOG_WEIGHTS`.

  Raises:
    ValueError: for another name.
  """
  if name == 'output':
    return lambda logsnr: -parameterization.log_x_error(logsnr)
  if name not in LOG_WEIGHTS:
    raise ValueError(
      f'loss_weight={name!r} is unknown: choose one of '
      f'{sorted([*LOG_WEIGHTS, "output"])}.'
    )
  return LOG_WEIGHTS[name]


def denoising_loss(
  output: Video,
  x: Video,
  eps: Video,
  logsnr: LogSNR,
  *,
  parameterization: Parameterization,
  log_weight: LogWeight,
) -> Float[Array, 'b f']:
  """Returns w(logsnr) |x_hat - x|^2 for each frame, a mean over its pixels.

  Args:
    output: what the network returned at z = alpha x + sigma eps.
    x: clean videos.
    eps: the noise in z.
    logsnr: the noise level of z.
    parameterization: the meaning of `output`.
    log_weight: log w of eq. (2), one of `LOG_WEIGHTS` or another function.
  """
  target = parameterization.target(x, eps, logsnr)
  error = jnp.square(output.astype(jnp.float32) - target).mean((2, 3, 4))
  log_scale = log_weight(logsnr) + parameterization.log_x_error(logsnr)
  return jnp.exp(log_scale).reshape(-1, 1) * error
