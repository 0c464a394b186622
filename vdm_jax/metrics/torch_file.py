"""Arrays out of a PyTorch file, without PyTorch and without running its code.

A .pt or .pth file is a zip: a pickle of the structure and one member of raw
numbers for each storage.  A pickle may call any function that Python has, so
this reader knows three: the two that rebuild a tensor and the ordered
dictionary.  Whatever else a file names, it is refused; modules of TorchScript
are read as plain dictionaries, and their code is not looked at.
"""

import collections
import dataclasses
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'ByteStorage': np.uint8,
  'IntStorage': np.int32,
  'LongStorage': np.int64,
  'BoolStorage': np.bool_,
}


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a file by their dotted names.

  Raises:
    ValueError: the file is no such zip, or names anything but tensors.
  """
  try:
    archive = zipfile.ZipFile(path)
  except zipfile.BadZipFile:
    raise ValueError(
      f'{path} is not a PyTorch file of version 1.6 or later: it may be '
      'truncated, or hold a page of text in place of the weights.'
    ) from None
  with archive:
    names = [n for n in archive.namelist() if n.endswith('/data.pkl')]
    if len(names) != 1:
      raise ValueError(f'{path} holds no tensors (no data.pkl).')
    with archive.open(names[0]) as file:
      root = names[0].removesuffix('data.pkl')
      content = _Tensors(file, archive, root, str(path)).load()
  return dict(_flatten(content))


class _Module(dict):
  """A module of TorchScript: its attributes and nothing of its code."""

  def __setstate__(self, state):
    self.update(state)


@dataclasses.dataclass(frozen=True)
class _Storage:
  dtype: Any


class _Tensors(pickle.Unpickler):
  """Reads tensors, dictionaries and plain values."""

  def __init__(self, file, archive: zipfile.ZipFile, root: str, path: str):
    super().__init__(file)
    self._archive, self._root, self._path = archive, root, path
    self._read: dict[str, np.ndarray] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Only what tensors are made of."""
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if module == 'torch._utils' and name == '_rebuild_tensor_v2':
      return _rebuild
    if module == 'torch._utils' and name == '_rebuild_parameter':
      return lambda data, *rest: data
    if module == 'torch' and name in _TYPES:
      return _Storage(_TYPES[name])
    if module.startswith('__torch__'):
      return _Module
    raise ValueError(
      f'{self._path} asks for {module}.{name}, which is not part of a tensor: '
      'it is not read.'
    )

  def persistent_load(self, pid: Any) -> np.ndarray:
    """The numbers of a storage."""
    kind, storage, key, _, size = pid
    if kind != 'storage':
      raise ValueError(f'{self._path} refers to a {kind!r}: it is not read.')
    if key not in self._read:
      data = self._archive.read(f'{self._root}data/{key}')
      self._read[key] = np.frombuffer(data, storage.dtype, count=size)
    return self._read[key]


def _rebuild(storage, offset, size, stride, *rest) -> np.ndarray:
  """A view of a storage, within its bounds."""
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if min((offset, *size, *stride), default=0) < 0 or last >= max(
    len(storage), 1
  ):
    raise ValueError(f'a tensor of {size} reaches beyond its storage.')
  steps = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(
    storage[offset:], size, steps, writeable=False
  )


def _flatten(content: Any, path: tuple[str, ...] = ()):
  """(dotted name, array) of everything nested in dictionaries."""
  if isinstance(content, np.ndarray):
    yield '.'.join(path), content
  elif isinstance(content, dict):
    for key, value in content.items():
      yield from _flatten(value, (*path, str(key)))
