"""How far x_hat is from what is known, and where that pulls a video.

    independent noise, `White`:     |x^a - x_hat^a|^2

Under noise that frames share, N(0, K) over frames (`Shared`), there is
E[x | z] = (z + sigma^2 K score(z)) / alpha, and what is known of some frames is
as uncertain as their noise, q(x^a | z) ~ N(x_hat^a, sigma^2 / alpha^2 K_aa).
VDM's eq. (7) and VideoFusion's eq. (7) together thus say

    x~ = x_hat - (w alpha / 2) K grad_z |K_aa^{-1/2} (x^a - x_hat^a)|^2

which is the former alone where K is the identity.  K without its inverse
overshoots: what all frames share would be pulled by each of them.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_JITTER = 1e-5  # frames may share all of their noise


@runtime_checkable
class Misfit(Protocol):
  """How far measurements are from their values."""

  def __call__(self, errors: Any) -> Array:
    """Returns a scalar, of a tree of errors."""
    ...

  def step(self, gradient: Array) -> Array:
    """Returns the direction in which a video moves, of the gradient by z."""
    ...


@dataclasses.dataclass(frozen=True)
class White:
  """Every number is as uncertain as every other: a sum of squares."""

  def __call__(self, errors: Any) -> Array:
    """Returns the sum of squares."""
    squares = jax.tree.map(lambda error: jnp.sum(error**2), errors)
    return jax.tree.reduce(jnp.add, squares)

  def step(self, gradient: Array) -> Array:
    """Returns the gradient."""
    return gradient


@dataclasses.dataclass(frozen=True)
class Shared:
  """Frames share noise, and so what is uncertain about them.

  Attributes:
    covariance: K, [F, F] or [B, F, F].
    precisions: K_aa^{-1} of each array that is measured, see `precision`.
  """

  covariance: Array
  precisions: Any

  @classmethod
  def of(cls, covariance: Array, value: Any, known: Any = True) -> 'Shared':
    """Returns the misfit of a measurement.

    Args:
      covariance: K, [F, F] or [B, F, F].
      value: the measurement, a tree of [B, F, h, w, c].
      known: which of its numbers are known, a tree like it, each broadcastable
        to it; True is all.

    Raises:
      ValueError: for a measurement that lacks frames.
    """
    num_frames = covariance.shape[-1]
    for leaf in jax.tree.leaves(value):
      shape = jnp.shape(leaf)
      if len(shape) != 5 or shape[1] != num_frames:
        raise ValueError(
          f'a measurement of shape {shape} does not say which frames it is of, '
          f'which noise that frames share needs: give all {num_frames} frames, '
          'with zeros where nothing is known, and say where by `measured`.'
        )
    if known is True:
      known = jax.tree.map(lambda _: True, value)
    precisions = jax.tree.map(
      lambda _, known: precision(covariance, known), value, known
    )
    return cls(covariance, precisions)

  def __call__(self, errors: Any) -> Array:
    """Returns error^T K_aa^{-1} error, summed over all pixels."""

    def squared(error, precision):
      error = jnp.moveaxis(error, 1, -1)
      return jnp.sum(error * _product('...ij,...j->...i', precision, error))

    squares = jax.tree.map(squared, errors, self.precisions)
    return jax.tree.reduce(jnp.add, squares)

  def step(self, gradient: Array) -> Array:
    """Returns K times the frames of the gradient [B, F, H, W, C]."""
    return _product('...ij,...jhwc->...ihwc', self.covariance, gradient)


def precision(covariance: Array, known: ArrayLike) -> Array:
  """Returns K_aa^{-1} of the known frames a of each pixel, zeros elsewhere.

  Args:
    covariance: K, [F, F] or [B, F, F].
    known: broadcastable to [B, F, H, W, C].

  Returns:
    [B, H, W, C, F, F], axes of size 1 where `known` and K have none.
  """
  size = covariance.shape[-1]
  known = jnp.asarray(known, jnp.float32)
  lead = (1,) * (5 - known.ndim) + known.shape
  known = known.reshape(lead)
  known = jnp.broadcast_to(known, (lead[0], size, *lead[2:]))
  a = jnp.moveaxis(known, 1, -1)
  both = a[..., :, None] * a[..., None, :]
  k = covariance.reshape(-1, 1, 1, 1, size, size)
  identity = jnp.eye(size).reshape(1, 1, 1, 1, size, size)
  alone = (1 - a + _JITTER)[..., None] * identity
  return both * jnp.linalg.inv(both * k + alone)


def _product(axes: str, matrix: Array, x: Array) -> Array:
  return jnp.einsum(axes, matrix, x, precision=jax.lax.Precision.HIGHEST)
