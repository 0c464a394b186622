"""vdm_jax: video diffusion in JAX/Flax, native to TPU pods.

    model = vdm_jax.load('runs/moving_shapes')
    videos = model.sample(jax.random.key(0), num=4)      # [4, F, H, W, C]
    vdm_jax.video.save('samples.gif', videos)

Nothing is imported until it is used: processes that only read data must not
wait for jax.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from vdm_jax import video
  from vdm_jax.loading import export, load
  from vdm_jax.model import Model

__all__ = ['Model', 'export', 'load', 'video']
__version__ = '0.1.0'

_HOME = {
  'export': 'vdm_jax.loading',
  'load': 'vdm_jax.loading',
  'Model': 'vdm_jax.model',
}


def __getattr__(name: str):
  if name in _HOME:
    return getattr(importlib.import_module(_HOME[name]), name)
  try:
    return importlib.import_module(f'vdm_jax.{name}')
  except ModuleNotFoundError as error:
    raise AttributeError(f'vdm_jax has no attribute {name!r}') from error
