"""Weights of feature networks: files that users bring, and what they must hold.

Nothing is downloaded, and no file is executed: .safetensors, .npz and .msgpack
are data by nature, and of .pt and .pth only tensors are read (`torch_file`).
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization, traverse_util
from safetensors.numpy import load_file

from vdm_jax.metrics import torch_file

Lookup = Callable[[Mapping[str, np.ndarray], tuple[str, ...]], np.ndarray]
"""(arrays of a file by name, path of a parameter) -> its value."""


def read(path: str | Path) -> Mapping[str, Any]:
  """Returns the arrays of a file by name.

  Args:
    path: .safetensors, .npz, .msgpack or .flax, .pt or .pth, or the .index of a
      checkpoint of TensorFlow (that needs tensorflow).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: for another format, or a file that is damaged.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'there is no file {path}.')
  _refuse_pointer(path)
  try:
    if path.suffix == '.safetensors':
      return load_file(path)
    if path.suffix == '.npz':
      with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
    if path.suffix in ('.msgpack', '.flax'):
      tree = serialization.msgpack_restore(path.read_bytes())
      return dict(traverse_util.flatten_dict(tree, sep='/'))
    if path.suffix in ('.pt', '.pth'):
      return torch_file.read(path)
    if path.suffix == '.index':
      return _read_tensorflow(path)
  except FileNotFoundError:
    raise
  except Exception as error:  # every format has errors of its own
    raise ValueError(f'{path} cannot be read: {error}') from error
  raise ValueError(
    f'{path} is not .safetensors, .npz, .msgpack, .flax, .pt, .pth or .index.'
  )


def _refuse_pointer(path: Path) -> None:
  with path.open('rb') as file:
    if file.read(40).startswith(b'version https://git-lfs'):
      raise ValueError(
        f'{path} is a pointer of git-lfs, not the weights: fetch the file '
        'itself.'
      )


def _read_tensorflow(path: Path) -> dict[str, np.ndarray]:
  import tensorflow as tf  # pyright: ignore

  reader = tf.train.load_checkpoint(str(path.with_suffix('')))
  shapes = reader.get_variable_to_shape_map()
  return {name: reader.get_tensor(name) for name in shapes}


def digest(path: str | Path) -> str:
  """SHA-256 of a file, in hexadecimal."""
  with Path(path).open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def fill(
  like: Any, weights: Mapping[str, np.ndarray], lookup: Lookup
) -> dict[str, Any]:
  """Returns parameters of the structure and shapes of `like`.

  Args:
    like: nested dictionaries of anything with a shape.
    weights: arrays of a file by name.
    lookup: finds the value of a parameter among them.

  Raises:
    ValueError: a weight is missing, has another shape or is not finite.
  """
  flat = {}
  wanted: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(like))
  for path, leaf in wanted.items():
    name = '/'.join(path)
    try:
      value = np.asarray(lookup(weights, path), np.float32)
    except KeyError as error:
      known = ', '.join(sorted(weights)[:3])
      raise ValueError(
        f'the weight {error} is missing, for {name}; the file has '
        f'{len(weights)} arrays, the first are {known}: it is of another '
        'network.'
      ) from None
    if value.shape != leaf.shape:
      raise ValueError(
        f'{name} has shape {value.shape} in the file; the network has '
        f'{leaf.shape}.'
      )
    if not np.isfinite(value).all():
      raise ValueError(f'{name} has values in the file that are not finite.')
    flat[path] = value
  return traverse_util.unflatten_dict(flat)


def shapes_of(network: Any, shape: tuple[int, ...]) -> dict[str, Any]:
  """Shapes of the parameters of a network for inputs of `shape`."""
  example = jax.ShapeDtypeStruct(shape, np.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), example)
  return variables['params']
