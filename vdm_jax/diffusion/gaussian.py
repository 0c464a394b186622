"""The Gaussian diffusion process in log-SNR coordinates.

With logsnr = log(alpha^2 / sigma^2) and alpha^2 + sigma^2 = 1, and s < t:

    q(z_t | x)      = N(alpha_t x, sigma_t^2 K)                            (1)
    q(z_t | z_s)    = N((alpha_t / alpha_s) z_s, sigma_{t|s}^2 K)          (1)
    q(z_s | z_t, x) = N(mean_{s|t}(z_t, x), var_{s|t} K)                   (3)

    sigma_{t|s}^2 = (1 - e^{logsnr_t - logsnr_s}) sigma_t^2
    mean_{s|t}    = e^{logsnr_t - logsnr_s} (alpha_s / alpha_t) z_t
                    + (1 - e^{logsnr_t - logsnr_s}) alpha_s x
    var_{s|t}     = (1 - e^{logsnr_t - logsnr_s}) sigma_s^2

K is the covariance of the noise prior over frames (`diffusion.noise`), the
identity in VDM.  The scalars above do not depend on it: a linear Gaussian
process keeps the same coefficients when its noise is correlated.

Every function takes one logsnr for the batch, or one for each video, and is
written with log_sigmoid and expm1, so that float32 holds at both ends.

Source: Video Diffusion Models (Ho et al. 2022), section 2.
"""

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.shapes import LogSNR, Video


def expand(logsnr: Array, like: Array) -> Array:
  """Appends axes of size one until `logsnr` broadcasts against `like`."""
  if logsnr.ndim == 0:
    return logsnr.reshape((1,) * like.ndim)
  return logsnr.reshape(logsnr.shape + (1,) * (like.ndim - logsnr.ndim))


def alpha(logsnr: Array) -> Array:
  """Signal coefficient: alpha^2 = sigmoid(logsnr)."""
  return jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr))


def sigma(logsnr: Array) -> Array:
  """Noise coefficient: sigma^2 = sigmoid(-logsnr)."""
  return jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr))


def corrupt(x: Video, eps: Video, logsnr: LogSNR) -> Video:
  """Draws z_t ~ q(z_t | x) given the noise: z = alpha x + sigma eps, eq. (1).

  Args:
    x: clean videos.
    eps: a draw of the noise prior.
    logsnr: how much signal to keep.
  """
  logsnr = expand(logsnr, x)
  return alpha(logsnr) * x + sigma(logsnr) * eps


def forward_variance(logsnr_t: Array, logsnr_s: Array) -> Array:
  """sigma_{t|s}^2, the variance of q(z_t | z_s), eq. (1).  Needs s <= t."""
  return -jnp.expm1(logsnr_t - logsnr_s) * jax.nn.sigmoid(-logsnr_t)


def reverse_variance(logsnr_t: Array, logsnr_s: Array) -> Array:
  """The variance of q(z_s | z_t, x), eq. (3).  Needs s <= t."""
  return -jnp.expm1(logsnr_t - logsnr_s) * jax.nn.sigmoid(-logsnr_s)


def reverse_mean(
  z_t: Video, x: Video, *, logsnr_t: LogSNR, logsnr_s: LogSNR
) -> Video:
  """The mean of q(z_s | z_t, x), eq. (3).  Needs s <= t."""
  logsnr_t, logsnr_s = expand(logsnr_t, z_t), expand(logsnr_s, z_t)
  # e^{logsnr_t - logsnr_s} alpha_s / alpha_t, as one exponential.
  log_keep = (logsnr_t - logsnr_s) + 0.5 * (
    jax.nn.log_sigmoid(logsnr_s) - jax.nn.log_sigmoid(logsnr_t)
  )
  gain = -jnp.expm1(logsnr_t - logsnr_s) * alpha(logsnr_s)
  return jnp.exp(log_keep) * z_t + gain * x
