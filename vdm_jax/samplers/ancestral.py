"""The ancestral sampler, VDM eq. (3) and (4).

    z_s = mean_{s|t}(z_t, x_hat) + sqrt((var_{s|t})^{1-g} (sigma_{t|s}^2)^g) eps

var_{s|t} and sigma_{t|s}^2 are the lower and upper bounds on the variance of
the true reverse step; g = `variance_mix` interpolates their logarithms.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn


@dataclasses.dataclass(frozen=True)
class Ancestral(Sampler):
  """Draws z_s from the reverse process.

  Attributes:
    variance_mix: VDM's gamma, in [0, 1]: 0 is the lower bound on the step's
      variance, 1 the upper one.
  """

  variance_mix: float = 0.0

  def __post_init__(self):
    if not 0 <= self.variance_mix <= 1:
      raise ValueError(
        f'variance_mix={self.variance_mix} is not allowed: give a number '
        'from 0 (lower bound of the variance) to 1 (upper bound).'
      )

  def step(
    self,
    key: Array,
    denoise: DenoiseFn,
    z: Array,
    memory: Any,
    *,
    logsnr_t: Array,
    logsnr_s: Array,
    noise: NoisePrior,
  ) -> tuple[Array, Array, Any]:
    """Returns (z_s, x_hat, memory), eq. (4)."""
    x_hat = denoise(z, logsnr_t)
    mean = gaussian.reverse_mean(z, x_hat, logsnr_t=logsnr_t, logsnr_s=logsnr_s)
    low = gaussian.reverse_variance(logsnr_t, logsnr_s)
    high = gaussian.forward_variance(logsnr_t, logsnr_s)
    mix = self.variance_mix
    std = jnp.sqrt(low) ** (1 - mix) * jnp.sqrt(high) ** mix
    return mean + std * noise.sample(key, z.shape), x_hat, memory
