"""How frames become the size that a feature network was trained on.

Linear interpolation along each axis, output pixel i reading the input at

    tf1_legacy   i n / m                      TensorFlow 1, FVD and FID as
                                              first published
    half_pixel   (i + 1/2) n / m - 1/2        TensorFlow 2, PyTorch
    corners      i (n - 1) / (m - 1)          Chainer, C3D of TGAN

for n input and m output pixels, clamped to the image, without antialiasing.
The choice moves an FVD more than two thousand samples more or fewer do, so it
is part of every number's name.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

GRIDS = ('tf1_legacy', 'half_pixel', 'corners')


def positions(size: int, target: int, grid: str) -> np.ndarray:
  """Where each of `target` pixels reads among `size`, float32 [target]."""
  # float32 as in the original implementations: for a ratio that is no binary
  # fraction a position decides which pixel it falls on.
  place = np.arange(target, dtype=np.float32)
  if grid == 'tf1_legacy':
    return place * np.float32(size / target)
  if grid == 'half_pixel':
    middle = (place + np.float32(0.5)) * np.float32(size / target)
    return np.maximum(middle - np.float32(0.5), np.float32(0))
  if grid == 'corners':
    return place * np.float32((size - 1) / max(target - 1, 1))
  raise ValueError(f'grid is {grid!r}; it must be one of {GRIDS}.')


def bilinear(video: Array, height: int, width: int, grid: str) -> Array:
  """Resizes [..., h, w, C] to [..., height, width, C].

  Args:
    video: values of any range; it stays the same.
    height: rows wanted.
    width: columns wanted.
    grid: one of GRIDS.

  Raises:
    ValueError: for an unknown grid.
  """
  return _linear(_linear(video, -3, height, grid), -2, width, grid)


def _linear(video: Array, axis: int, target: int, grid: str) -> Array:
  size = video.shape[axis]
  place = positions(size, target, grid)
  low = np.clip(np.floor(place).astype(int), 0, size - 1)
  high = np.minimum(low + 1, size - 1)
  shape = [1] * video.ndim
  shape[axis] = target
  share = (place - low.astype(np.float32)).reshape(shape)
  low, high = jnp.take(video, low, axis), jnp.take(video, high, axis)
  return low + (high - low) * share
