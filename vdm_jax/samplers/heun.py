"""Heun's method: second order, two network calls a step.

With edm_sigma = e^{-logsnr / 2} and z / alpha in place of z, the probability
flow is dz_edm / d edm_sigma = eps_hat, and a step from t to s is

    z'      = alpha_s x_hat(z_t) + sigma_s eps_hat(z_t)          Euler: DDIM
    z_s     = z' + (alpha_s / 2) (edm_sigma_s - edm_sigma_t)
                   (eps_hat(z') - eps_hat(z_t))                  trapezoid

Source: Karras et al. 2022 (EDM), Algorithm 1, in log-SNR coordinates.
"""

import dataclasses
from typing import Any

from jax import Array

from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.diffusion.parameterization import eps_from_x
from vdm_jax.samplers.ddim import ddim_step, flow_step
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn


@dataclasses.dataclass(frozen=True)
class Heun(Sampler):
  """Moves along the probability flow by the mean of its two ends."""

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
    """Returns (z_s, x_hat at z_t, memory)."""
    del key, noise
    euler, x_hat, eps_t = ddim_step(denoise, z, logsnr_t, logsnr_s)
    eps_s = eps_from_x(denoise(euler, logsnr_s), euler, logsnr_s)
    half = 0.5 * (eps_s - eps_t)
    z_s = flow_step(x_hat, eps_t, half, logsnr_t=logsnr_t, logsnr_s=logsnr_s)
    return z_s, x_hat, memory
