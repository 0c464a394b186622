"""DEIS: a multistep exponential integrator, one network call a step.

With l = log edm_sigma = -logsnr / 2, the probability flow is exactly

    z_s / alpha_s = z_t / alpha_t + integral from l_t to l_s of e^l eps_hat dl

DEIS replaces eps_hat(l) by the polynomial P through its last `order` values and
integrates that exactly.  In u = l - l_t, with Newton's divided differences D_k,

    P(u) = D_0 + D_1 u + D_2 u (u - u_1)              u_1: the step before, > 0
    M_k  = integral from 0 to h of u^k e^u du         h = l_s - l_t < 0
    z_s / alpha_s = z_t / alpha_t
                    + edm_sigma_t (D_0 M_0 + D_1 M_1 + D_2 (M_2 - u_1 M_1))

The first term alone is DDIM, which is also the first step: the values that it
lacks are put so far away that they have no weight.

Source: Zhang and Chen 2023 (DEIS), the Adams-Bashforth form ("tAB") with
polynomials in log edm_sigma.
"""

import dataclasses
import itertools
from typing import Any

import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.samplers.ddim import ddim_step
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn

FAR = 1e15  # where values that do not exist yet are put, in l


@dataclasses.dataclass(frozen=True)
class DEIS(Sampler):
  """Moves along the probability flow, remembering the last values of eps_hat.

  Attributes:
    order: values used, 1 to 3; 1 is DDIM.
  """

  order: int = 2

  def __post_init__(self):
    if self.order not in (1, 2, 3):
      raise ValueError(f'order={self.order} is not allowed: give 1, 2 or 3.')

  def init(self, z: Array) -> Any:
    """Earlier (l, eps_hat), the latest first."""
    return [(jnp.asarray(FAR * k, z.dtype), z) for k in range(1, self.order)]

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
    z_s, x_hat, eps = ddim_step(denoise, z, logsnr_t, logsnr_s)  # D_0's term
    l_t = -0.5 * logsnr_t
    h = -0.5 * logsnr_s - l_t
    m_0 = jnp.expm1(h)
    m_1 = h * jnp.exp(h) - m_0
    m_2 = h**2 * jnp.exp(h) - 2 * m_1
    differences = _divided_differences([(l_t, eps), *memory])
    scale = gaussian.alpha(logsnr_s) * jnp.exp(l_t)
    if self.order >= 2:
      z_s += scale * m_1 * differences[1]
    if self.order >= 3:
      u_1 = memory[0][0] - l_t
      z_s += scale * (m_2 - u_1 * m_1) * differences[2]
    return z_s, x_hat, [(l_t, eps), *memory][: self.order - 1]


def _divided_differences(points: list[tuple[Array, Array]]) -> list[Array]:
  """Newton's D_0, D_1, ... of the polynomial through (node, value)."""
  nodes, column = [list(part) for part in zip(*points, strict=True)]
  result = [column[0]]
  for k in range(1, len(nodes)):
    column = [
      (after - before) / (nodes[i + k] - nodes[i])
      for i, (before, after) in enumerate(itertools.pairwise(column))
    ]
    result.append(column[0])
  return result
