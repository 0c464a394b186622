"""An oracle: videos that are Gaussian, with everything known in closed form.

x ~ N(mean, K) over frames, independent over pixels.  With noise of covariance
N over frames, z = alpha x + sigma eps is Gaussian too and the optimal denoiser
is linear:

    E[x | z] = mean + alpha K (alpha^2 K + sigma^2 N)^{-1} (z - alpha mean)
"""

import jax.numpy as jnp
import numpy as np

from vdm_jax.diffusion import gaussian


def exponential_covariance(num_frames, correlation=0.9, scale=0.5):
  """scale^2 correlation^|i - j|, [F, F] float64."""
  frame = np.arange(num_frames)
  return scale**2 * correlation ** np.abs(frame[:, None] - frame[None])


def exact_denoiser(mean, covariance, noise_covariance=None, dtype=jnp.float32):
  """DenoiseFn of x ~ N(mean [F], covariance [F, F]) for each pixel."""
  size = len(mean)
  noise = np.eye(size) if noise_covariance is None else noise_covariance
  mean = jnp.asarray(mean, dtype).reshape(1, -1, 1, 1, 1)
  k = jnp.asarray(covariance, dtype)
  n = jnp.asarray(noise, dtype)

  def denoise(z, logsnr):
    a, s = gaussian.alpha(logsnr), gaussian.sigma(logsnr)
    gain = a * jnp.linalg.solve(a**2 * k + s**2 * n, k).T
    return mean + jnp.einsum('ij,bjhwc->bihwc', gain, z - a * mean)

  return denoise


def moments(videos):
  """Mean [F] and covariance [F, F] over videos and pixels, float64."""
  frames = np.moveaxis(np.asarray(videos, np.float64), 1, 0)
  flat = frames.reshape(frames.shape[0], -1)
  return flat.mean(1), np.cov(flat)
