"""A value that is stored is the same value, and is computed once."""

import jax
import jax.numpy as jnp
import numpy as np

from vdm_jax.networks.materialization import materialize


def test_values_and_gradients_are_untouched():
  tree = {
    'a': jax.random.normal(jax.random.key(0), (3, 4)),
    'b': jax.random.normal(jax.random.key(1), (2,)),
  }

  def loss(tree, keep):
    tree = keep(jax.tree.map(jnp.sin, tree))
    return jnp.sum(tree['a'] ** 3) + jnp.prod(tree['b'])

  plain = jax.jit(jax.grad(lambda t: loss(t, lambda x: x)))(tree)
  stored = jax.jit(jax.grad(lambda t: loss(t, materialize)))(tree)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain, stored
  )


def loops_that_compute_and_move(keep):
  """Compiled loops in which a chain and its shifted readers are fused."""

  def readers(x):
    y = keep(jnp.sqrt(x) + 1)
    return sum(jnp.pad(y, (i, 2 - i)) for i in range(3))

  program = jax.jit(readers).lower(jnp.ones(500)).compile().as_text()
  loops = program.split('\n}')
  return [x for x in loops if ' sqrt(' in x and ' pad(' in x]


def test_a_chain_is_stored_before_it_is_read():
  """XLA alone computes the chain in the loop of its readers, for each anew.

  If XLA's CPU backend ever stores it by itself, this fails, and `materialize`
  can go.
  """
  assert loops_that_compute_and_move(lambda x: x)
  assert not loops_that_compute_and_move(materialize)


def test_what_is_not_finite_stays_so():
  for bad in (jnp.nan, jnp.inf, -jnp.inf):
    for place in (0, 1):
      x = jax.jit(materialize)(jnp.zeros(2).at[place].set(bad))
      assert not np.isfinite(x).all()
