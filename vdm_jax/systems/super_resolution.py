"""Super-resolution by diffusion: from small frames to large ones.

VideoFusion goes from 64 to 128 by "DPM-based SR models" (section 4.1), PYoCo
from 64 to 256 and on to 1024 (section 4, Tables L and M).
"""

import dataclasses

import jax
from jax import Array

from vdm_jax.samplers.measurements import lower_resolution
from vdm_jax.systems.refined import Refined, Shape


@dataclasses.dataclass(frozen=True)
class SuperResolution(Refined):
  """A model that is given means of factor x factor pixels."""

  @property
  def refines(self) -> tuple[int, int]:
    """Larger frames."""
    return 1, self.factor

  def check(self, video_shape: Shape) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit."""
    super().check(video_shape)
    height, width = video_shape[-3:-1]
    if height % self.factor or width % self.factor:
      raise ValueError(
        f'{height}x{width} is not {self.factor} times a whole resolution: '
        'change config.data or config.system.factor.'
      )

  def coarse_shape(self, shape: Shape, num_images: int = 0) -> Shape:
    """Returns [B, F, H / k, W / k, C]; images have small ones too."""
    del num_images
    rows, frames, height, width, channels = shape
    k = self.factor
    return rows, frames, height // k, width // k, channels

  def coarse(self, x: Array, num_images: int = 0) -> Array:
    """Returns means of blocks of pixels."""
    del num_images
    return lower_resolution(self.factor)(x)

  def shown(self, low: Array, shape: Shape, num_images: int = 0) -> Array:
    """Returns the small videos enlarged, bilinear."""
    del num_images
    return jax.image.resize(low, shape, 'bilinear')
