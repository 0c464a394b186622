"""Stochastic sampling: fresh noise before every step of any one-step method.

    edm_sigma_hat = (1 + gamma) edm_sigma_t
    z_hat ~ q(z_hat | z_t)                     the forward process, VDM eq. (1)
    z_s   = the method's step from z_hat

Errors of earlier steps are forgotten with the noise that held them.  With
Heun's method it is EDM's Algorithm 2, with `Kutta` PYoCo's stochastic DEIS.
The noise comes from the noise prior, as all does.

Source: Karras et al. 2022 (EDM), Algorithm 2; PYoCo, section 3, Table F.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn


@dataclasses.dataclass(frozen=True)
class Churn(Sampler):
  """A sampler that first goes back a little.

  Attributes:
    sampler: the method; it must remember nothing between steps, as what it
      remembers would be of another path.
    churn: gamma, the growth of edm_sigma before each step, S_churn / num_steps
      in EDM; at most sqrt(2) - 1, as there.
    lowest: edm_sigma below which there is none, S_tmin.
    highest: edm_sigma above which there is none, S_tmax.
    inflation: of the noise's standard deviation, S_noise: a little above 1
      makes up for the detail that estimates lack.
  """

  sampler: Sampler
  churn: float = 0.0
  lowest: float = 0.0
  highest: float = math.inf
  inflation: float = 1.0

  def __post_init__(self):
    if not 0 <= self.churn <= math.sqrt(2) - 1 + 1e-6:
      raise ValueError(
        f'churn={self.churn} is not allowed: give the growth of the noise '
        'level before each step, from 0 to 0.414.'
      )
    if jax.tree.leaves(self.sampler.init(jnp.zeros(()))):
      raise ValueError(
        f'{self.sampler} remembers earlier steps, which fresh noise makes '
        'worthless: use churn with ddim, heun or kutta.'
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
    """Returns (z_s, x_hat at z_hat, memory)."""
    edm_sigma = jnp.exp(-0.5 * logsnr_t)
    within = (self.lowest <= edm_sigma) & (edm_sigma <= self.highest)
    growth = jnp.where(within, self.churn, 0.0)
    logsnr = logsnr_t - 2 * jnp.log1p(growth)
    keep = gaussian.alpha(logsnr) / gaussian.alpha(logsnr_t)
    fresh = jnp.sqrt(gaussian.forward_variance(logsnr, logsnr_t))
    noise_key, step_key = jax.random.split(key)
    eps = self.inflation * noise.sample(noise_key, z.shape)
    return self.sampler.step(
      step_key,
      denoise,
      keep * z + fresh * eps,
      memory,
      logsnr_t=logsnr,
      logsnr_s=logsnr_s,
      noise=noise,
    )
