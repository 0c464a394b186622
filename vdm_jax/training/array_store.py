"""The arrays of one checkpoint on disk: all that we ask of Orbax.

A tree is stored as a flat dictionary {'ema/conv/kernel': array}. The names do
not depend on the containers, so that a part can be read without rebuilding the
whole, and a mismatch can be told leaf by leaf. Orbax itself casts dtypes
without a word; compare `describe` before `read`.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

VERSION = ocp.__version__
# Arrays that devices hold in common are written by all of them, a part each,
# but for parts below this: each device and shape takes a compilation to cut.
_MIN_PART = 2**16  # bytes


def named(tree: Any, prefix: str | None = None) -> dict[str, Any]:
  """Returns the leaves of a pytree by name.

  Raises:
    TypeError: a leaf is no array.
    ValueError: two leaves share a name.
  """
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    name = '/'.join(part for part in (prefix, name) if part)
    if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
      raise TypeError(
        f'Leaf {name} of the state is a {type(leaf).__name__}; make it an '
        'array, as in jnp.asarray(value).'
      )
    if name in leaves:
      raise ValueError(
        f'Two leaves of the state are called {name}; rename one.'
      )
    leaves[name] = leaf
  return leaves


def num_bytes(tree: Any) -> int:
  """Returns the bytes of all arrays of a pytree: what one checkpoint takes."""
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(v.shape) * v.dtype.itemsize for v in leaves)


def describe(leaves: Mapping[str, Any]) -> dict[str, str]:
  """Returns {name: dtype and shape} in words."""
  return {k: f'{v.dtype}{list(v.shape)}' for k, v in leaves.items()}


def differences(
  stored: Mapping[str, str], wanted: Mapping[str, str]
) -> list[str]:
  """Says leaf by leaf where two results of `describe` differ."""
  return [
    f'{name} is {stored.get(name, "absent")} in the checkpoint and '
    f'{wanted.get(name, "absent")} in the request'
    for name in sorted(set(stored) | set(wanted))
    if stored.get(name) != wanted.get(name)
  ]


class ArrayWriter:
  """Writes named arrays, of any sharding, in the background."""

  def __init__(self):
    _quiet()
    handlers = ocp.type_handlers
    arrays = handlers.ArrayHandler(
      min_slice_bytes_for_replica_parallel=_MIN_PART
    )
    handler = ocp.PyTreeCheckpointHandler(
      # Float32 weights shrink by 8 % only, for twice the CPU time.
      use_compression=False,
      type_handler_registry=handlers.create_type_handler_registry(
        (jax.Array, arrays), (np.ndarray, handlers.NumpyHandler())
      ),
    )
    self._orbax = ocp.AsyncCheckpointer(handler)

  def write(self, path: Path, leaves: Mapping[str, jax.Array]) -> None:
    """Starts writing; returns once the arrays may be overwritten."""
    plain = {
      name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
      for name, leaf in leaves.items()
    }
    self._orbax.save(path, args=ocp.args.PyTreeSave(plain), force=True)

  def wait(self) -> None:
    """Blocks until `path` is complete; raises what went wrong."""
    self._orbax.wait_until_finished()

  def close(self) -> None:
    """Lets go of the threads."""
    self._orbax.close()


def read(path: Path, wanted: Mapping[str, Any]) -> list[jax.Array]:
  """Reads some arrays of a checkpoint, in the order of `wanted`.

  Args:
    path: what `ArrayWriter.write` was given, or where it was moved to.
    wanted: {name: jax.ShapeDtypeStruct or array}; without a sharding the array
      goes to the first device.
  """
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  plain = {
    name: jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    for name, leaf in wanted.items()
  }
  arguments = {
    name: ocp.ArrayRestoreArgs(
      restore_type=jax.Array,
      sharding=getattr(leaf, 'sharding', None) or here,
      dtype=plain[name].dtype,
    )
    for name, leaf in wanted.items()
  }
  request = ocp.args.PyTreeRestore(
    plain, restore_args=arguments, partial_restore=True
  )
  _quiet()
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
    leaves = orbax.restore(path, args=request)
  return [
    _as_key(leaves[name], leaf) if _is_key(leaf) else leaves[name]
    for name, leaf in wanted.items()
  ]


def _is_key(leaf: Any) -> bool:
  """Says whether a leaf is a random key: stored as the numbers in it."""
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_key(data: jax.Array, like: Any) -> jax.Array:
  impl = jax.random.key_impl(jnp.empty((), like.dtype))
  return jax.random.wrap_key_data(data, impl=impl)


def _quiet() -> None:
  # Orbax logs each save at length, and each failure as tracebacks: its own and
  # those of its abandoned asyncio tasks. Failures reach our caller anyway.
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_not_from_orbax)


def _not_from_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in f'{record.pathname} {record.getMessage()}'
