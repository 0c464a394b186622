"""Restoring: another structure, other devices, several processes."""

import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from tests.checkpoint_cases import (
  bits,
  data_file,
  ends_well,
  find_bytes,
  flip_bit,
  is_step,
  like,
  make,
  names,
  opened,
  start,
  truncate,
)
from vdm_jax.training import manifest
from vdm_jax.training.checkpoint import Checkpointer, CheckpointError
from vdm_jax.training.restore import together
from vdm_jax.training.step_directory import StepDirectory


def _other(change):
  tree = {'step': like().step, 'params': dict(like().params)}
  change(tree['params'])
  return tree


@pytest.mark.fault(13)
@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda p: p.update(half=jax.ShapeDtypeStruct((6,), jnp.bfloat16)),
      ['params/half is bfloat16[5] in', 'bfloat16[6] in the request'],
    ),
    (
      lambda p: p.update(half=jax.ShapeDtypeStruct((5,), jnp.float32)),
      ['params/half is bfloat16[5] in', 'float32[5] in the request'],
    ),
    (
      lambda p: p.pop('half'),
      ['params/half is bfloat16[5] in', 'absent in the request'],
    ),
    (
      lambda p: p.update(new=jax.ShapeDtypeStruct((), jnp.int32)),
      ['params/new is absent in', 'int32[] in the request'],
    ),
  ],
)
def test_other_structure_is_no_damage(tmp_path, change, words):
  state = make(1)
  with opened(tmp_path) as ckpt:
    ckpt.save(1, {'step': state.step, 'params': state.params}, {})
    ckpt.wait()
    data_file(tmp_path / '1').write_bytes(b'')  # told before arrays are read
    with pytest.raises(CheckpointError) as error:
      ckpt.restore(_other(change))
  for word in [*words, 'Step 1', str(tmp_path)]:
    assert word in str(error.value)
  assert 'blocks' not in str(error.value)
  assert names(tmp_path) == ['1']


def _restore_unverified(directory):
  with opened(directory, verify='off') as ckpt:
    assert is_step(ckpt.restore(like()), 1)


def test_failed_read_leads_to_a_look_at_the_files(tmp_path):
  with opened(tmp_path) as ckpt:
    ckpt.save(1, make(1), {})
    ckpt.save(2, make(2), {})
  truncate(data_file(tmp_path / '2'))
  child = start(_restore_unverified, tmp_path)  # takes Orbax's remains along
  assert ends_well(child)
  assert names(tmp_path) == ['1', '2.corrupt']


SHAPES = {'rows': (8, 400), 'columns': (5, 8), 'everywhere': (3,)}


def _on_a_mesh(devices):
  assert jax.device_count() == devices
  mesh = jax.make_mesh((devices,), ('d',))
  specs = {'rows': ('d',), 'columns': (None, 'd'), 'everywhere': ()}
  return {
    name: jax.ShapeDtypeStruct(
      SHAPES[name],
      jnp.float32,
      sharding=jax.NamedSharding(mesh, jax.P(*spec)),
    )
    for name, spec in specs.items()
  }


def _values():
  draw = np.random.default_rng(0).normal
  return {k: draw(size=v).astype(np.float32) for k, v in SHAPES.items()}


def _save_on_mesh(directory, devices):
  placed = {
    k: jax.device_put(_values()[k], v.sharding)
    for k, v in _on_a_mesh(devices).items()
  }
  with opened(directory) as ckpt:
    ckpt.save(1, placed, {})


def _restore_on_mesh(directory, devices):
  with opened(directory) as ckpt:
    target = _on_a_mesh(devices)
    state = ckpt.restore(target).state
  assert all(state[k].sharding == v.sharding for k, v in target.items())
  assert bits(state) == bits(_values())


def _fail_on_mesh(directory, devices):
  with (
    opened(directory) as ckpt,
    pytest.raises(CheckpointError, match='its files are whole'),
  ):
    ckpt.restore(_on_a_mesh(devices))


@pytest.mark.fault(10)
def test_restore_on_fewer_and_more_devices(tmp_path):
  for act, devices in [
    (_save_on_mesh, 8),
    (_fail_on_mesh, 3),  # 8 rows do not divide: not the checkpoint's fault
    (_restore_on_mesh, 4),
    (_restore_on_mesh, 1),
    (_save_on_mesh, 1),
    (_restore_on_mesh, 8),
  ]:
    child = start(act, tmp_path, devices, devices=devices)
    assert ends_well(child), (act.__name__, devices)
    assert names(tmp_path) == ['1']


def _one_of_two(rank, port, directory):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, rank)
  target = _on_a_mesh(4)
  placed = {
    k: jax.make_array_from_callback(
      v.shape, v.sharding, lambda index, k=k: _values()[k][index]
    )
    for k, v in target.items()
  }

  def fail_on_first():
    if rank == 0:
      raise manifest.DamagedError('here')

  with pytest.raises(manifest.DamagedError):  # on the other one as well
    together(fail_on_first)
  ckpt = Checkpointer(directory)
  assert ckpt.restore(target) is None
  for step in (1, 2, 3):
    ckpt.save(step, placed, {'seen': step})
  ckpt.wait()
  multihost_utils.sync_global_devices('saved')
  if rank == 0:
    path, offset = find_bytes(directory / '3', _values()['rows'][:2].tobytes())
    flip_bit(path, 8 * offset)  # seen by the first process only
  else:  # a network file system may show the second one old names
    StepDirectory.newest = lambda *_: 1
  multihost_utils.sync_global_devices('damaged')
  restored = ckpt.restore(target)
  assert restored.step == 2
  assert restored.metadata == {'seen': 2}
  for name, array in restored.state.items():
    assert array.sharding == target[name].sharding
    for shard in array.addressable_shards:
      expected = _values()[name][shard.index]
      assert np.asarray(shard.data).tobytes() == expected.tobytes()
  ckpt.close()


@pytest.mark.fault(31)
def test_two_processes_agree(tmp_path):
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  children = [
    start(_one_of_two, rank, port, tmp_path, devices=2) for rank in (0, 1)
  ]
  assert all([ends_well(child) for child in children])
  assert names(tmp_path) == ['1', '2', '3.corrupt']
