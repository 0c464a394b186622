"""Dropout whose mask is drawn once (Srivastava et al. 2014).

XLA fuses cheap producers into their consumers, and takes random bits for cheap:
it would draw the mask in the convolution that reads the result, and again in
the gradient of that convolution's kernel, slowing both.  Behind a barrier the
mask is stored, a byte for each value.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


def check_dropout(rate: float) -> None:
  """Raises ValueError for a rate that is none, or leaves nothing."""
  if not 0 <= rate < 1:
    raise ValueError(
      f'dropout={rate} is not allowed; give 0 or more and less than 1.'
    )


def dropout(x: Array, rate: float, key: Array) -> Array:
  """Returns x, of any shape, with some values 0 and its mean kept.

  Args:
    x: values.
    rate: probability of 0, in [0, 1); the other values are divided by 1 - rate.
    key: random key.
  """
  kept = jax.random.bernoulli(key, 1 - rate, x.shape)
  kept = lax.optimization_barrier(kept)
  return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
