"""Files of weights: what is in them arrives, and nothing in them runs."""

import hashlib
import io
import os
import pathlib
import pickle
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from vdm_jax.metrics import weights

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.mark.parametrize('name', ['small.pth', 'small_script.pt'])
def test_tensors_of_pytorch_arrive_without_it(name):
  numbers = np.arange(24, dtype=np.float32)  # see `reference_networks.Small`
  expected = {
    'inner.weight': numbers[:6].reshape(2, 3),
    'inner.bias': numbers[6:8],
    'turned': numbers.reshape(4, 6).T,
    'part': numbers[8:12],
    'halved': numbers[:4].astype(np.float16),
    'count': np.array(7),
  }
  read = weights.read(GOLDEN / name)
  for key, value in expected.items():
    np.testing.assert_array_equal(read[key], value)
    assert read[key].dtype == value.dtype


def test_other_formats_round_trip(tmp_path):
  arrays = {'a/b': np.arange(6.0).reshape(2, 3), 'c': np.ones(4, np.float32)}
  np.savez(tmp_path / 'x.npz', **arrays)
  save_file(arrays, tmp_path / 'x.safetensors')
  tree = traverse_util.unflatten_dict(arrays, sep='/')
  (tmp_path / 'x.flax').write_bytes(serialization.msgpack_serialize(tree))
  for suffix in ('npz', 'safetensors', 'flax'):
    read = weights.read(tmp_path / f'x.{suffix}')
    assert read.keys() == arrays.keys()
    for key, value in arrays.items():
      np.testing.assert_array_equal(read[key], value)


class Trap:
  """Pickled, it makes a file when it is loaded."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def write_pt(path, content, **members):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', content)
    for name, data in members.items():
      archive.writestr(f'archive/data/{name}', data)


@pytest.mark.fault(25)
@pytest.mark.parametrize('suffix', ['.pt', '.pth', '.npz'])
def test_code_in_a_file_does_not_run(tmp_path, suffix):
  sentinel, path = tmp_path / 'sentinel', tmp_path / f'x{suffix}'
  if suffix == '.npz':
    np.savez(path, x=np.array([Trap(sentinel)], object))
    with pytest.raises(ValueError, match='cannot be read'):
      dict(weights.read(path))
  else:
    write_pt(path, pickle.dumps({'w': Trap(sentinel)}))
    with pytest.raises(ValueError, match='mkdir, which is not part of a'):
      weights.read(path)
  assert not sentinel.exists()


def write_tensor(path, monkeypatch, size, stride, offset):
  """Writes a tensor over a storage of four numbers, as PyTorch would."""
  torch, functions = types.ModuleType('torch'), types.ModuleType('torch._utils')
  torch.FloatStorage = type('FloatStorage', (), {'__module__': 'torch'})
  rebuild = types.FunctionType((lambda: 0).__code__, {}, '_rebuild_tensor_v2')
  rebuild.__module__, rebuild.__qualname__ = (
    functions.__name__,
    rebuild.__name__,
  )
  functions._rebuild_tensor_v2 = rebuild

  class Tensor:
    pass

  class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
      if obj is Tensor:
        return 'storage', torch.FloatStorage, '0', 'cpu', 4

    def reducer_override(self, obj):
      if isinstance(obj, Tensor):
        return rebuild, (Tensor, offset, size, stride, False, None)
      return NotImplemented

  content = io.BytesIO()
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, 'torch', torch)
    patch.setitem(sys.modules, 'torch._utils', functions)
    Pickler(content).dump({'w': Tensor()})
  numbers = np.arange(4, dtype=np.float32)
  write_pt(path, content.getvalue(), **{'0': numbers.tobytes()})


@pytest.mark.fault(25)
def test_tensors_cannot_reach_beyond_their_storage(tmp_path, monkeypatch):
  path = tmp_path / 'x.pt'
  write_tensor(path, monkeypatch, (2, 2), (1, 2), 0)
  np.testing.assert_array_equal(weights.read(path)['w'], [[0, 2], [1, 3]])
  for size, stride, offset in (
    ((1000,), (1,), 0),
    ((2, 2), (1000, 1), 0),
    ((2,), (1,), 3),
    ((2,), (-1,), 1),
    ((2,), (1,), -1),
  ):
    write_tensor(path, monkeypatch, size, stride, offset)
    with pytest.raises(ValueError, match='beyond its storage'):
      weights.read(path)


@pytest.mark.fault(24)
def test_damaged_and_foreign_files_are_one_sentence(tmp_path):
  cut = tmp_path / 'cut.pth'
  cut.write_bytes((GOLDEN / 'small.pth').read_bytes()[:500])
  page = tmp_path / 'page.pth'
  page.write_text('<html>Not found</html>')
  pointer = tmp_path / 'pointer.safetensors'
  pointer.write_text('version https://git-lfs.github.com/spec/v1\noid x\n')
  other = tmp_path / 'x.ckpt'
  shutil.copy(GOLDEN / 'small.pth', other)
  empty = tmp_path / 'empty.safetensors'
  empty.touch()
  archive = tmp_path / 'archive.pt'
  with zipfile.ZipFile(archive, 'w') as file:
    file.writestr('readme', 'hello')
  for path, match in (
    (cut, 'truncated'),
    (page, 'page of text'),
    (pointer, 'pointer of git-lfs'),
    (other, 'is not .safetensors'),
    (empty, 'cannot be read'),
    (archive, 'no tensors'),
  ):
    with pytest.raises(ValueError, match=match) as raised:
      weights.read(path)
    assert str(path) in str(raised.value)
  with pytest.raises(FileNotFoundError, match='no file'):
    weights.read(tmp_path / 'missing.pt')


def lookup(arrays, path):
  return arrays['.'.join(path)]


@pytest.mark.fault(24)
def test_weights_of_another_network_are_refused():
  like = {'a': {'kernel': np.zeros((2, 3))}}
  good = {'a.kernel': np.ones((2, 3))}
  np.testing.assert_array_equal(
    weights.fill(like, good, lookup)['a']['kernel'], good['a.kernel']
  )
  for arrays, match in (
    ({'b.kernel': np.ones(3)}, "'a.kernel' is missing, for a/kernel"),
    ({'a.kernel': np.ones((3, 2))}, r'\(3, 2\) in the file; .* \(2, 3\)'),
    ({'a.kernel': np.full((2, 3), np.nan)}, 'not finite'),
  ):
    with pytest.raises(ValueError, match=match):
      weights.fill(like, arrays, lookup)


def test_digest_is_that_of_the_file(tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(b'weights' * 100_000)
  expected = hashlib.sha256(path.read_bytes()).hexdigest()
  assert weights.digest(path) == expected
