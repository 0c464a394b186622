"""Samplers: from noise to videos through any denoiser.

    x = sample(key, denoise, shape, schedule=..., sampler=..., num_steps=...)

`denoise` is any function (z, logsnr) -> x_hat; nothing here knows networks.
"""

from vdm_jax.samplers import (
  blocks,
  conditional,
  guidance,
  inversion,
  measurements,
  tiles,
)
from vdm_jax.samplers.ancestral import Ancestral
from vdm_jax.samplers.churn import Churn
from vdm_jax.samplers.ddim import DDIM
from vdm_jax.samplers.deis import DEIS
from vdm_jax.samplers.heun import Heun
from vdm_jax.samplers.kutta import Kutta
from vdm_jax.samplers.langevin import Langevin
from vdm_jax.samplers.loop import Corrector, Sampler, State, sample

__all__ = [
  'DDIM',
  'DEIS',
  'Ancestral',
  'Churn',
  'Corrector',
  'Heun',
  'Kutta',
  'Langevin',
  'Sampler',
  'State',
  'blocks',
  'conditional',
  'guidance',
  'inversion',
  'measurements',
  'sample',
  'tiles',
]
