"""Standard normal numbers that come again where they are asked for again."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vdm_jax.shapes import PRNGKey, Video


def normal(
  key: PRNGKey,
  shape: tuple[int, ...],
  *,
  numbers: ArrayLike | None = None,
  place: ArrayLike | None = None,
) -> Video:
  """Returns standard normal numbers [B, F, H, W, C].

  Args:
    key: random key.
    shape: (B, F, H, W, C).
    numbers: [B]; videos of the same number are the same.  None gives each its
      own.
    place: of the first frame in a longer video; a frame of the same place is
      the same, whichever part it is drawn in.  None is no such video.
  """
  if numbers is None and place is None:
    return jax.random.normal(key, shape)
  if numbers is None:
    numbers = jnp.arange(shape[0])
  frames = jnp.arange(shape[1]) + (0 if place is None else place)

  def frame(number: Array, frame: Array) -> Array:
    own = jax.random.fold_in(jax.random.fold_in(key, number), frame)
    return jax.random.normal(own, shape[2:])

  of_video = jax.vmap(frame, (None, 0))
  return jax.vmap(of_video, (0, None))(jnp.asarray(numbers), frames)
