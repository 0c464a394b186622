"""From videos back to the noise that a deterministic sampler makes them of.

    z_0 = alpha_0 x,    then the probability flow from t = 0 to t = 1

The result, sampled from, gives x again, up to the steps' error.  An image model
that sees each frame alone so says what noise the frames of a video would need:
PYoCo's Figure 2 and Table 1, "running a diffusion ODE ... in the opposite
direction of image synthesis".
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import Independent
from vdm_jax.diffusion.schedules import Schedule
from vdm_jax.samplers.ddim import DDIM
from vdm_jax.samplers.heun import Heun
from vdm_jax.samplers.kutta import Kutta
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn, Video


def invert(
  denoise: DenoiseFn,
  x: Video,
  *,
  schedule: Schedule,
  sampler: Sampler = Heun(),
  num_steps: int = 64,
) -> Video:
  """Returns the noise z_1, of about unit variance, of videos x.

  Args:
    denoise: (z [B, F, H, W, C], logsnr []) -> x_hat, as it samples.
    x: [B, F, H, W, C] in [-1, 1].
    schedule: t -> logsnr, as it samples.
    sampler: `DDIM`, `Heun` or `Kutta`, whose steps have no direction.
    num_steps: number of steps, at least 1.

  Raises:
    ValueError: for another sampler, or `num_steps` < 1.
  """
  if not isinstance(sampler, DDIM | Heun | Kutta):
    raise ValueError(
      f'{type(sampler).__name__} cannot go back to the noise: choose ddim, '
      'heun or kutta, which draw and remember nothing.'
    )
  if num_steps < 1:
    raise ValueError(f'invert got num_steps={num_steps}; give at least 1.')
  logsnrs = schedule(jnp.linspace(0.0, 1.0, num_steps + 1))

  def advance(z: Array, step: Any) -> tuple[Array, None]:
    logsnr_t, logsnr_s = step
    z, _, _ = sampler.step(
      jax.random.key(0),  # draws nothing
      denoise,
      z,
      sampler.init(z),
      logsnr_t=logsnr_t,
      logsnr_s=logsnr_s,
      noise=Independent(),
    )
    return z, None

  start = gaussian.alpha(logsnrs[0]) * jnp.asarray(x, jnp.float32)
  return jax.lax.scan(advance, start, (logsnrs[:-1], logsnrs[1:]))[0]
