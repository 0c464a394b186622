"""DEIS's "3kutta": third order from three network calls, nothing remembered.

In y = z / alpha and edm_sigma the probability flow is dy / d edm_sigma =
eps_hat(y, edm_sigma), without a stiff linear part: any Runge-Kutta method fits.
Kutta's of third order, with h = edm_sigma_s - edm_sigma_t < 0,

    k_1 = eps_hat(y_t,                     edm_sigma_t)
    k_2 = eps_hat(y_t + h / 2 k_1,         edm_sigma_t + h / 2)
    k_3 = eps_hat(y_t + h (2 k_2 - k_1),   edm_sigma_s)
    y_s = y_t + h / 6 (k_1 + 4 k_2 + k_3)

Source: Zhang and Chen 2023 (DEIS), rho RK-DEIS; PYoCo, Appendix A.3, Table F.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.diffusion.parameterization import eps_from_x
from vdm_jax.samplers.ddim import flow_step
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn


@dataclasses.dataclass(frozen=True)
class Kutta(Sampler):
  """Moves along the probability flow by Kutta's third-order method."""

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
    middle = jnp.logaddexp(-0.5 * logsnr_t, -0.5 * logsnr_s) - math.log(2)
    logsnr_m = -2 * middle  # of the mean edm_sigma
    x_hat = denoise(z, logsnr_t)
    k_1 = eps_from_x(x_hat, z, logsnr_t)

    def moved(correction: Array, logsnr: Array) -> Array:
      return flow_step(
        x_hat, k_1, correction, logsnr_t=logsnr_t, logsnr_s=logsnr
      )

    z_m = moved(jnp.zeros_like(z), logsnr_m)
    k_2 = eps_from_x(denoise(z_m, logsnr_m), z_m, logsnr_m)
    z_3 = moved(2 * (k_2 - k_1), logsnr_s)
    k_3 = eps_from_x(denoise(z_3, logsnr_s), z_3, logsnr_s)
    step = (4 * (k_2 - k_1) + (k_3 - k_1)) / 6
    return moved(step, logsnr_s), x_hat, memory
