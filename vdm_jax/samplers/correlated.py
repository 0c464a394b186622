"""Reconstruction guidance under noise that frames share, N(0, K) over frames.

There E[x | z] = (z + sigma^2 K score(z)) / alpha, and what is known of some
frames is as uncertain as their noise, q(x^a | z) ~ N(x_hat^a, sigma^2/alpha^2
K_aa).  Both papers together thus say

    x~ = x_hat - (w alpha / 2) K grad_z |K_aa^{-1/2} (x^a - x_hat^a)|^2

which is VDM's eq. (7) where K is the identity.  K alone, without its inverse,
overshoots: what all frames share would be pulled by each of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_JITTER = 1e-5  # frames may share all of their noise


def over_frames(matrix: Array, x: Array) -> Array:
  """Multiplies the frames of x [B, F, H, W, C] by [F, F] or [B, F, F]."""
  return jnp.einsum(
    '...ij,...jhwc->...ihwc', matrix, x, precision=jax.lax.Precision.HIGHEST
  )


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


def squared(error: Array, precision: Array) -> Array:
  """Returns error^T K_aa^{-1} error, summed over all pixels: a scalar."""
  error = jnp.moveaxis(error, 1, -1)
  weighed = jnp.einsum(
    '...ij,...j->...i', precision, error, precision=jax.lax.Precision.HIGHEST
  )
  return jnp.sum(error * weighed)


def check_measure(values: Any, num_frames: int) -> None:
  """Raises ValueError for a measurement that lacks frames."""
  for leaf in jax.tree.leaves(values):
    shape = jnp.shape(leaf)
    if len(shape) != 5 or shape[1] != num_frames:
      raise ValueError(
        f'a measurement of shape {shape} does not say which frames it is of, '
        f'which noise that frames share needs: give all {num_frames} frames, '
        'with zeros where nothing is known, and say where by `measured`.'
      )
