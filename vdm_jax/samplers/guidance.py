"""Functions from denoisers to denoisers.

    clip                      x_hat stays in the range of the data
    classifier_free           x_hat is pushed away from the unconditional one
    classifier_free_together  the same from one call of twice as many videos

They compose: `clip(classifier_free(conditional, unconditional, 2.0))`.

Source: VDM, section 2, eq. (6); Classifier-Free Diffusion Guidance (Ho and
Salimans 2021).
"""

import jax.numpy as jnp
from jax import Array

from vdm_jax.shapes import DenoiseFn, LogSNR, Video


def clip(denoise: DenoiseFn, low: float = -1.0, high: float = 1.0) -> DenoiseFn:
  """Clips x_hat to [low, high].

  At low SNR a network that predicts eps has its error divided by alpha, so
  without clipping the first steps may leave the range of the data for good.
  """

  def clipped(z: Video, logsnr: LogSNR) -> Video:
    return jnp.clip(denoise(z, logsnr), low, high)

  return clipped


def classifier_free(
  denoise: DenoiseFn, denoise_uncond: DenoiseFn, scale: float
) -> DenoiseFn:
  """Extrapolates from the unconditional to the conditional estimate, eq. (6).

  eps = (1 + w) eps_cond - w eps_uncond with w = scale - 1; as eps_hat is
  affine in x_hat at fixed z, the same combination of x_hat says the same:

    x_hat = x_uncond + scale (x_cond - x_uncond)

  Args:
    denoise: estimates given the condition.
    denoise_uncond: estimates without it.
    scale: 1 is no guidance, 0 no condition.
  """

  def guided(z: Video, logsnr: LogSNR) -> Video:
    return _extrapolate(denoise(z, logsnr), denoise_uncond(z, logsnr), scale)

  return guided


def classifier_free_together(denoise: DenoiseFn, scale: float) -> DenoiseFn:
  """`classifier_free` with one network call, which fills a device better.

  Args:
    denoise: takes [2 B, F, H, W, C], the first half given the condition, the
      second half without it.
    scale: 1 is no guidance, 0 no condition.
  """

  def guided(z: Video, logsnr: LogSNR) -> Video:
    if logsnr.ndim:
      logsnr = jnp.concatenate([logsnr, logsnr])
    given, without = jnp.split(denoise(jnp.concatenate([z, z]), logsnr), 2)
    return _extrapolate(given, without, scale)

  return guided


def _extrapolate(given: Array, without: Array, scale: float) -> Array:
  """Eq. (6) with w = scale - 1."""
  return without + scale * (given - without)
