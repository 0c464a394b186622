"""Systems from configs: the names that a config may use."""

from collections.abc import Mapping
from typing import Any

from vdm_jax.config import construct
from vdm_jax.diffusion import noise, parameterization, schedules
from vdm_jax.networks.unet import UNet
from vdm_jax.samplers import (
  DDIM,
  DEIS,
  Ancestral,
  Corrector,
  Heun,
  Langevin,
  Sampler,
)
from vdm_jax.systems.protocol import System
from vdm_jax.systems.vdm import VDM

SYSTEMS = {'vdm': VDM}
NETWORKS = {'unet': UNet}
SCHEDULES = {'cosine': schedules.Cosine}
NOISE = {
  'independent': noise.Independent,
  'mixed': noise.Mixed,
  'progressive': noise.Progressive,
  'base_residual': noise.BaseResidual,
}
PARAMETERIZATIONS = {
  'eps': parameterization.Eps,
  'x': parameterization.X,
  'v': parameterization.V,
}
SAMPLERS = {
  'ancestral': Ancestral,
  'ddim': DDIM,
  'heun': Heun,
  'deis': DEIS,
}
CORRECTORS = {'langevin': Langevin}


def build_system(
  system: Mapping[str, Any], network: Mapping[str, Any]
) -> System:
  """Returns the system of the sections `config.system` and `config.network`.

  Raises:
    ConfigError: for a field or value that is not allowed.
    ValueError: from a part's own checks.
  """
  values = dict(system)
  parts = {
    'schedule': (SCHEDULES, 'cosine'),
    'noise': (NOISE, 'independent'),
    'parameterization': (PARAMETERIZATIONS, 'eps'),
  }
  built = {
    part: construct(
      choices,
      values.pop(part, {'name': default}),
      f'config.system.{part}',
    )
    for part, (choices, default) in parts.items()
  }
  built['network'] = construct(NETWORKS, network, 'config.network')
  return construct(SYSTEMS, values, 'config.system', **built)


def build_sampler(section: Mapping[str, Any]) -> Sampler:
  """Returns the sampler of the section `config.sample.sampler`."""
  return construct(SAMPLERS, section, 'config.sample.sampler')


def build_corrector(section: Mapping[str, Any]) -> Corrector:
  """Returns the corrector of the section `config.sample.corrector`."""
  return construct(CORRECTORS, section, 'config.sample.corrector')
