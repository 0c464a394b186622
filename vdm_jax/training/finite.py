"""No state with a value that is not finite is saved, or gone on from."""

from typing import Any

import jax
import jax.numpy as jnp

from vdm_jax.training import array_store


class NonFiniteError(RuntimeError):
  """Values that are not finite; the message says which and what to do."""


@jax.jit
def _finite(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
  return {name: jnp.isfinite(leaf).all() for name, leaf in leaves.items()}


def check_finite(state: Any, what: str, advice: str) -> None:
  """Raises `NonFiniteError` if a leaf of `state` holds NaN or infinity.

  Args:
    state: a pytree of arrays.
    what: the state in words, for the message.
    advice: what to do.
  """
  finite = jax.device_get(_finite(array_store.named(state)))
  bad = [name for name, fine in finite.items() if not fine]
  if bad:
    more = f' and {len(bad) - 3} more' if len(bad) > 3 else ''
    raise NonFiniteError(
      f'{what} has values that are not finite, in {", ".join(bad[:3])}{more}: '
      f'{advice}.'
    )
