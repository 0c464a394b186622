"""Sources from configs: the names that a config may use."""

from collections.abc import Mapping
from typing import Any

from vdm_jax.config import construct
from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.listed import VideoList
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.packed import Packed
from vdm_jax.data.tfds import TFDS

SOURCES = {
  'moving_shapes': MovingShapes,
  'folder': VideoFolder,
  'list': VideoList,
  'packed': Packed,
  'tfds': TFDS,
}


def build_source(section: Mapping[str, Any]) -> Any:
  """Returns the source of the section `config.data`.

  Raises:
    ConfigError: for a field or value that is not allowed.
    ValueError, OSError: from the source's own checks.
  """
  return construct(SOURCES, section, 'config.data')


def video_shape(section: Mapping[str, Any]) -> tuple[int, int, int, int]:
  """Returns (F, H, W, C) of the clips of `config.data`."""
  frames, height, width = (
    section[name] for name in ('num_frames', 'height', 'width')
  )
  return frames, height, width, 3
