"""Videos larger than a network's, from overlapping tiles.

    f(a) = sum_k w_k f(a at tile k) / sum_k w_k

Tiles cover time, height and width.  The weight w of a tile falls to zero over
the middle half of each overlap; the outer quarter next to a border inside the
video counts for nothing, as there the network lacked neighbours.  What looks no
farther than this quarter is so computed exactly as without tiles, and what
looks farther changes gradually from one tile to the next: no seams.  Tiles are
parts of every step of a sampler, not of its result, and all have the noise of
one video.

Source: PYoCo, section 4 (a model of 256 x 256 patches makes 1024 x 1024, one
of 16 frames makes 76); the paper does not say how.
"""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

AXES = ('frames', 'rows', 'columns')
Three = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Tiling:
  """Where tiles are.

  Attributes:
    size: frames, rows and columns of a tile.
    overlap: how many of them two neighbours share, at least.
    multiple: what the places of tiles are multiples of.
  """

  size: Three
  overlap: Three
  multiple: Three = (1, 1, 1)

  def starts(self, shape: tuple[int, ...]) -> list[list[int]]:
    """Returns where tiles of a video [F, H, W] begin, for each axis.

    Raises:
      ValueError: if no such tiles cover it.
    """
    return [
      _starts(*numbers)
      for numbers in zip(
        AXES, shape, self.size, self.overlap, self.multiple, strict=True
      )
    ]


def _starts(
  axis: str, total: int, size: int, overlap: int, multiple: int
) -> list[int]:
  stride = (size - overlap) // multiple * multiple
  if not 0 <= overlap < size or (stride < 1 and total > size):
    raise ValueError(
      f'tiles of {size} {axis} cannot share {overlap} of them: give 0 or more, '
      f'and at most {size - multiple}.'
    )
  last = total - size
  if last < 0 or last % multiple:
    raise ValueError(
      f'tiles of {size} {axis} do not cover {total}: give {size}, or as many '
      + (f'and a multiple of {multiple} more.' if multiple > 1 else 'or more.')
    )
  return [*range(0, last, stride), last] if last else [0]


def _weights(starts: list[int], size: int, overlap: int) -> np.ndarray:
  """Weights along one axis, [tiles, size], float32."""
  ramp = np.clip(2 * (np.arange(overlap) + 0.5) / max(overlap, 1) - 0.5, 0, 1)
  weights = np.ones((len(starts), size), np.float32)
  weights[1:, :overlap] *= ramp
  weights[:-1, size - overlap :] *= ramp[::-1]
  return weights


def tiled(
  function: Callable[..., Array], tiling: Tiling, *arrays: Array
) -> Array:
  """Returns function(*arrays), computed tile by tile.

  One tile is on its way at a time: memory is that of the arrays and one call.

  Args:
    function: from arrays [B, f, h, w, C_i] to [B, f, h, w, C].
    tiling: where tiles are.
    *arrays: [B, F, H, W, C_i].

  Raises:
    ValueError: if no such tiles cover the arrays.
  """
  shape = arrays[0].shape
  starts = tiling.starts(shape[1:4])
  if all(len(places) == 1 for places in starts):
    return function(*arrays)
  along = [
    _weights(*numbers)
    for numbers in zip(starts, tiling.size, tiling.overlap, strict=True)
  ]
  places = np.array(list(itertools.product(*starts)))
  rows = itertools.product(*(range(len(each)) for each in starts))
  chosen = [
    np.stack(x) for x in zip(*(_rows(along, r) for r in rows), strict=True)
  ]

  def cut(array: Array, place: Array) -> Array:
    sizes = array.shape[0], *tiling.size, array.shape[4]
    return jax.lax.dynamic_slice(array, _corner(place), sizes)

  def add(sums, tile):
    place, (f, h, w) = tile
    value = function(*(cut(array, place) for array in arrays))
    weight = jnp.einsum('f,h,w->fhw', f, h, w)[None, ..., None]

    def more(total, part):
      part = part + cut(total, place)
      return jax.lax.dynamic_update_slice(total, part, _corner(place))

    total, weights = sums
    return (more(total, weight * value), more(weights, weight)), None

  one = jax.eval_shape(function, *(cut(a, jnp.zeros(3, int)) for a in arrays))
  zero = jnp.zeros((*shape[:4], one.shape[4]), one.dtype)
  none = jnp.zeros((1, *shape[1:4], 1))
  (total, weights), _ = jax.lax.scan(add, (zero, none), (places, chosen))
  return total / weights


def _rows(
  along: list[np.ndarray], numbers: tuple[int, ...]
) -> list[np.ndarray]:
  return [each[number] for each, number in zip(along, numbers, strict=True)]


def _corner(place: Array) -> tuple[Array, ...]:
  zero = jnp.zeros((), place.dtype)
  return zero, place[0], place[1], place[2], zero
