"""What may be known of a video, as differentiable maps for guidance.

    frames(places)          some frames: extension, interpolation
    region(mask)            some pixels: inpainting
    lower_resolution(k)     means of k x k pixels: super-resolution, eq. (8)
    grey()                  means of the colours: colourisation
    together(m_1, m_2, ..)  several at once

Reconstruction guidance (`samplers.conditional`) pulls a video towards what
measures the same.  Its norm is a sum over the numbers of a measurement, each
taken to be as uncertain as a pixel; a mean of n pixels is known n times more
precisely than one and pulls n times less: measure `sqrt(n) * mean`, or give n
times the weight.  Where pixels are measured, weights above 2 overshoot.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Measure = Callable[[Array], Any]
"""x [B, F, H, W, C] -> what is known of it, an array or a tree of arrays."""


def frames(places: Sequence[int]) -> Measure:
  """Returns the measurement of frames: [B, len(places), H, W, C]."""

  def measure(x: Array) -> Array:
    if not all(0 <= place < x.shape[1] for place in places):
      raise ValueError(
        f'frames {list(places)} cannot be measured: the video has '
        f'{x.shape[1]}, from 0.'
      )
    return x[:, jnp.asarray(places)]

  return measure


def region(mask: ArrayLike) -> Measure:
  """Returns the measurement of the pixels where `mask` is 1, 0 elsewhere.

  Args:
    mask: broadcastable to [B, F, H, W, C].
  """
  known = jnp.asarray(mask, bool)
  return lambda x: jnp.where(known, x, 0.0)


def lower_resolution(factor: int) -> Measure:
  """Returns the measurement of eq. (8): means of factor x factor pixels."""

  def measure(x: Array) -> Array:
    *lead, height, width, channels = x.shape
    if height % factor or width % factor:
      raise ValueError(
        f'a video of {height}x{width} has no lower resolution by {factor}: '
        'give a factor that divides both.'
      )
    cells = height // factor, factor, width // factor, factor
    return x.reshape(*lead, *cells, channels).mean((-4, -2))

  return measure


def grey() -> Measure:
  """Returns the measurement of brightness, the mean colour: [B, F, H, W, 1]."""
  return lambda x: x.mean(-1, keepdims=True)


def together(*measures: Measure) -> Measure:
  """Returns the measurement of a tuple of all `measures`."""
  return lambda x: tuple(measure(x) for measure in measures)


def check_value(measure: Measure, value: Any, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless `value` is shaped like a video's measurement.

  Args:
    measure: the measurement.
    value: what it should give.
    shape: of the video.
  """
  video = jax.ShapeDtypeStruct(shape, jnp.float32)
  try:
    measured = jax.eval_shape(measure, video)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'the measure does not fit videos of {shape}: {error}'
    ) from error
  expected = jax.tree.map(lambda a: a.shape, measured)
  found = jax.tree.map(jnp.shape, value)
  if found != expected:
    raise ValueError(
      f'the value has shape {found}, but measuring a video of {shape} gives '
      f'{expected}.'
    )
