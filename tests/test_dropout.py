"""Dropout keeps the mean, and its gradient has the mask of its value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm_jax.networks.dropout import dropout
from vdm_jax.planning.program import Program


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_values_are_dropped_at_the_rate_and_the_mean_stays(rate):
  x = jnp.full(40_000, 3.0, jnp.bfloat16)
  y = np.asarray(dropout(x, rate, jax.random.key(0)), np.float32)
  dropped = y == 0
  error = 4 * np.sqrt(rate * (1 - rate) / x.size)
  assert abs(dropped.mean() - rate) < error
  np.testing.assert_allclose(y[~dropped], 3 / (1 - rate), rtol=2**-8)


def test_the_gradient_passes_where_the_value_does():
  x, g = jax.random.normal(jax.random.key(0), (2, 1000))
  y, back = jax.vjp(lambda x: dropout(x, 0.25, jax.random.key(1)), x)
  np.testing.assert_allclose(back(g)[0], jnp.where(y == 0, 0, g / 0.75))


def test_the_mask_is_drawn_once_and_stored_in_a_byte_each():
  """By the program that a plan is made of."""
  x, weight = jnp.zeros(2**16), jnp.zeros(())

  def loss(weight, x, key, rate):
    h = x * weight
    h = dropout(h, rate, key) if rate else h
    return jax.lax.dot(h, h)

  def alive(rate):
    program = Program.trace(
      jax.grad(lambda w, x, k: loss(w, x, k, rate)),
      weight,
      x,
      jax.random.key(0),
    )
    draws = [
      kernel
      for kernel in program.kernels
      if kernel.equation and kernel.equation.name == 'random_bits'
    ]
    assert len(draws) == bool(rate)
    return program.alive()

  assert alive(0.5) - alive(0.0) == x.size
