"""Systems from configs: the names that a config may use."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vdm_jax.config import ConfigError, construct, nearest
from vdm_jax.diffusion import noise, parameterization, schedules
from vdm_jax.networks.efficient import EfficientUNet
from vdm_jax.networks.prior import Prior
from vdm_jax.networks.unet import UNet
from vdm_jax.samplers import (
  DDIM,
  DEIS,
  Ancestral,
  Churn,
  Corrector,
  Heun,
  Kutta,
  Langevin,
  Sampler,
)
from vdm_jax.systems.interpolation import Interpolation
from vdm_jax.systems.prior import EmbeddingPrior
from vdm_jax.systems.protocol import System
from vdm_jax.systems.super_resolution import SuperResolution
from vdm_jax.systems.vdm import VDM
from vdm_jax.systems.videofusion import VideoFusion

SYSTEMS = {
  'vdm': VDM,
  'super_resolution': SuperResolution,
  'interpolation': Interpolation,
  'videofusion': VideoFusion,
}
NETWORKS = {'unet': UNet, 'efficient_unet': EfficientUNet, 'prior': Prior}
SCHEDULES = {
  'cosine': schedules.Cosine,
  'log_normal': schedules.LogNormal,
  'karras': schedules.Karras,
}
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
  'edm': parameterization.EDM,
}
SAMPLERS = {
  'ancestral': Ancestral,
  'ddim': DDIM,
  'heun': Heun,
  'deis': DEIS,
  'kutta': Kutta,
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
  fused = values.get('name') == 'videofusion'
  for name in ('content', 'motion', 'place'):
    if name in values.get('noise', {}):
      raise ConfigError(
        f'config.system.noise.{name} is not for a config: it says which videos '
        'share noise, draw by draw.'
      )
  if 'tiling' in values:
    raise ConfigError(
      'config.system.tiling is not for a config: tiles have the size of '
      'config.data.'
    )
  parts = {
    'schedule': (SCHEDULES, 'cosine'),
    'noise': (NOISE, 'base_residual' if fused else 'independent'),
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
  for name in ('sample_schedule', 'augmentation'):
    section = values.pop(name, None)
    if section is not None:
      built[name] = construct(SCHEDULES, section, f'config.system.{name}')
  if fused:
    built |= _generators(network, values.pop('prior', {}))
  else:
    built['network'] = construct(NETWORKS, network, 'config.network')
  whole = construct(SYSTEMS, values, 'config.system', **built)
  if whole.num_classes and whole.text_dim:
    raise ConfigError(
      'config.network.classes and .text_dim are both set: condition on one of '
      'them, the other () or 0.'
    )
  return whole


def _generators(
  network: Mapping[str, Any], prior: Mapping[str, Any]
) -> dict[str, Any]:
  """The networks of VideoFusion, each a section of `config.network`."""
  allowed = ('base', 'residual', 'prior')
  for name in network:
    if name not in allowed:
      raise ConfigError(
        f'config.network.{name} is not a network of VideoFusion.'
        f'{nearest(name, allowed)} Allowed: {", ".join(allowed)}.'
      )
  for name in ('base', 'residual'):
    if name not in network:
      raise ConfigError(f'config.network.{name} is missing.')
  built = {
    name: construct(NETWORKS, section, f'config.network.{name}')
    for name, section in network.items()
  }
  if 'prior' in built:
    built['prior'] = construct(
      EmbeddingPrior, prior, 'config.system.prior', network=built['prior']
    )
  elif prior:
    raise ConfigError(
      'config.system.prior is set, but config.network.prior is missing.'
    )
  return built


def build_sampler(section: Mapping[str, Any]) -> Sampler:
  """Returns the sampler of the section `config.sample.sampler`.

  Fields of `Churn` beside a sampler's own make it stochastic.
  """
  path = 'config.sample.sampler'
  names = {field.name for field in dataclasses.fields(Churn)} - {'sampler'}
  churn = {k: v for k, v in section.items() if k in names}
  rest = {k: v for k, v in section.items() if k not in names}
  kind = SAMPLERS.get(section.get('name', ''))
  if kind is not None:
    allowed = names | {field.name for field in dataclasses.fields(kind)}
    for name in rest.keys() - allowed - {'name'}:
      raise ConfigError(
        f'{path}.{name} is not a field of {kind.__name__}.'
        f'{nearest(name, allowed)} Allowed: {", ".join(sorted(allowed))}.'
      )
  sampler = construct(SAMPLERS, rest, path)
  return construct(Churn, churn, path, sampler=sampler) if churn else sampler


def build_corrector(section: Mapping[str, Any]) -> Corrector:
  """Returns the corrector of the section `config.sample.corrector`."""
  return construct(CORRECTORS, section, 'config.sample.corrector')
