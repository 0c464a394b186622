"""Values that XLA computes once, on a CPU.

XLA fuses cheap elementwise producers into each of their consumers.  Its CPU
backend does so without counting: the gradient of a chain of residual blocks is
computed anew for every consumer along the chain, and a per-channel scale for
every pixel.  `jax.lax.optimization_barrier` does not help, because that
backend removes barriers before it fuses.  What it never fuses across is a
branch that depends on a value.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer


def _store(values: Any) -> Any:
  """values, out of a branch; the other one is taken at an inf or NaN."""
  first = jax.tree.leaves(values)[0]
  return lax.cond(
    first.ravel()[0] < jnp.inf,
    lambda values: values,
    lambda values: jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), values),
    values,
  )


@jax.custom_vjp
def _materialize(values: Any) -> Any:
  return lax.platform_dependent(values, cpu=_store, default=lambda x: x)


_materialize.defvjp(
  lambda values: (_materialize(values), None),
  lambda _, gradients: (_materialize(gradients),),
)


def materialize(values: Any) -> Any:
  """Returns a tree of arrays; on a CPU, computed once and stored.

  So are their gradients.  Where the first value of the first array is not
  finite, all become NaN.
  """
  if not any(isinstance(x, Tracer) for x in jax.tree.leaves(values)):
    return values  # outside of a program every value is stored
  return _materialize(values)
