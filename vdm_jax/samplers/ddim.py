"""DDIM: the deterministic sampler.

    z_s = alpha_s x_hat + sigma_s eps_hat
    eps_hat = (z_t - alpha_t x_hat) / sigma_t

the first-order exponential integrator of the probability-flow ODE: exact when
x_hat does not change between t and s.

Source: Song et al. 2021 (DDIM), eq. (12) with eta = 0, in log-SNR coordinates
as in Salimans and Ho 2022, eq. (8).
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian, parameterization
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn


@dataclasses.dataclass(frozen=True)
class DDIM(Sampler):
  """Moves along the probability flow; draws no noise after the first z."""

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
    """Returns (z_s, x_hat, memory)."""
    del key, noise
    z_s, x_hat, _ = ddim_step(denoise, z, logsnr_t, logsnr_s)
    return z_s, x_hat, memory


def ddim_step(
  denoise: DenoiseFn, z: Array, logsnr_t: Array, logsnr_s: Array
) -> tuple[Array, Array, Array]:
  """Returns (z_s, x_hat, eps_hat): the step that better methods correct."""
  x_hat = denoise(z, logsnr_t)
  eps_hat = parameterization.eps_from_x(x_hat, z, logsnr_t)
  return gaussian.corrupt(x_hat, eps_hat, logsnr_s), x_hat, eps_hat


def flow_step(
  x_hat: Array,
  eps_hat: Array,
  correction: Array,
  *,
  logsnr_t: Array,
  logsnr_s: Array,
) -> Array:
  """Returns z_s by the slope eps_hat + correction: what methods of steps share.

  x_hat and eps_hat are those at z_t; written so that no large numbers cancel.
  """
  # alpha_s (edm_sigma_s - edm_sigma_t), both of which may be in the thousands
  span = gaussian.sigma(logsnr_s) * -jnp.expm1((logsnr_s - logsnr_t) / 2)
  return gaussian.corrupt(x_hat, eps_hat, logsnr_s) + span * correction
