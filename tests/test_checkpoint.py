"""Laws of checkpoints: what was saved comes back bit for bit, or not at all."""

import contextlib
import logging
import os
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoint_cases import (
  bits,
  data_file,
  files,
  find_array,
  flip_bit,
  flip_weight,
  is_step,
  like,
  make,
  names,
  truncate,
)
from vdm_jax.training import manifest
from vdm_jax.training.checkpoint import Checkpointer, CheckpointError
from vdm_jax.training.restore import restore


@pytest.fixture
def run(tmp_path):
  return tmp_path / 'run'


@pytest.fixture
def opened(run):
  """Opens a checkpointer; the one before, if any, has ended its run."""
  last = contextlib.ExitStack()

  def open_(directory=run, **options):
    last.close()
    ckpt = Checkpointer(directory, **options)
    return last.enter_context(contextlib.closing(ckpt))

  with last:
    yield open_


@pytest.fixture
def ckpt(opened):
  """A checkpointer whose directory holds the whole steps 1, 2 and 3."""
  ckpt = opened()
  for step in (1, 2, 3):
    ckpt.save(step, make(step), {'seen': step})
  ckpt.wait()
  return ckpt


def test_round_trip_is_exact(opened):
  ckpt = opened()
  assert ckpt.restore(like()) is None
  metadata = {'seen': 7, 'data': {'hash': 'ab', 'sizes': [1, 2]}, 'x': 0.1}
  ckpt.save(3, make(3), metadata)
  metadata['seen'] = 8  # later changes belong to later steps
  restored = ckpt.restore(like())
  assert is_step(restored, 3)
  assert restored.metadata == {**metadata, 'seen': 7}
  assert bits(ckpt.restore(make(5)).state) == bits(make(3))


@pytest.mark.parametrize(('part', 'cut'), [(2**16, True), (2**16 - 4, False)])
def test_devices_write_parts_of_what_they_share_unless_it_is_small(
  opened, caplog, part, cut
):
  """Each part takes a compilation: not for arrays of a few bytes."""
  mesh = jax.make_mesh((8,), ('data',))
  everywhere = jax.NamedSharding(mesh, jax.P())
  array = np.arange(8 * part // 4, dtype=np.float32)
  ckpt = opened()
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    ckpt.save(1, {'w': jax.device_put(array, everywhere)}, {})
  assert ('Compiling jit(slice)' in caplog.text) is cut
  like = {'w': jax.ShapeDtypeStruct(array.shape, array.dtype)}
  np.testing.assert_array_equal(ckpt.restore(like).state['w'], array)


def test_save_returns_early_and_survives_donation_and_interrupt(
  opened, run, monkeypatch
):
  ckpt, gate, write = opened(), threading.Event(), manifest.write

  def slow_write(*args):
    gate.wait(30)
    write(*args)

  monkeypatch.setattr(manifest, 'write', slow_write)
  state = {'w': jnp.arange(1e5)}
  expected = bits({'w': jnp.arange(1e5)})
  step = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
  ckpt.save(1, state, {})
  for _ in range(10):
    state = step(state)  # the train loop goes on in the same memory
  assert restore(run, state) is None

  def interrupt(*_):
    raise KeyboardInterrupt

  previous = signal.signal(signal.SIGALRM, interrupt)
  signal.setitimer(signal.ITIMER_REAL, 0.1)
  with pytest.raises(KeyboardInterrupt):
    ckpt.wait()
  signal.signal(signal.SIGALRM, previous)
  gate.set()
  ckpt.wait()  # the interrupt did not make it forget the save
  assert names(run) == ['1']
  assert bits(ckpt.restore(state).state) == expected


def test_all_is_on_disk_before_the_step_gets_its_name(opened, run, monkeypatch):
  ckpt, synced, fsync = opened(), [], os.fsync

  def record(descriptor):
    synced.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    fsync(descriptor)

  monkeypatch.setattr(os, 'fsync', record)
  ckpt.save(1, make(1), {})
  ckpt.wait()
  saving, step = run / '1.saving', run / '1'
  expected = [path.relative_to(step) for path in step.rglob('*')]
  expected.remove(Path(manifest.NAME))
  expected.append(Path(f'{manifest.NAME}.tmp'))
  assert {str(saving / path) for path in expected} < set(synced)
  assert synced[-2:] == [str(saving), str(run)]


def test_a_part_is_restored_without_reading_the_rest(ckpt, opened, run):
  ema = ckpt.restore(like().ema, only='ema')
  assert bits(ema.state) == bits(make(3).ema)
  assert ema.metadata == {'seen': 3}
  assert bits(ckpt.restore(like().key, only='key').state) == bits(make(3).key)
  with pytest.raises(CheckpointError, match='em/w is absent in the checkpoint'):
    ckpt.restore({'w': jnp.ones(3)}, only='em')

  def bytes_read():
    return int(Path('/proc/self/io').read_text().split()[1])

  big = {'ema': jnp.ones(10), 'ema_2': jnp.ones(9), 'opt': jnp.arange(1e6)}
  ckpt.save(4, big, {})
  ckpt.wait()
  before = bytes_read()
  restore(run, big['ema'], only='ema', verify='off')
  assert bytes_read() - before < big['opt'].nbytes / 10


@pytest.mark.fault(3, 4, 5)
@pytest.mark.parametrize(
  ('damage', 'reason'),
  [
    (lambda d: flip_weight(d), 'altered content'),
    (lambda d: truncate(data_file(d)), 'bytes'),
    (lambda d: data_file(d).write_bytes(b''), 'has 0 of'),
    (lambda d: data_file(d).unlink(), 'is missing'),
    (lambda d: (d / '_METADATA').unlink(), '_METADATA is missing'),
    (lambda d: (d / manifest.NAME).unlink(), f'{manifest.NAME} is missing'),
    (lambda d: truncate(d / manifest.NAME), f'{manifest.NAME} is not'),
    (lambda d: (d / '_METADATA').write_text('{}'), '_METADATA has 2 of'),
  ],
)
def test_damage_is_told_set_aside_and_passed_over(
  ckpt, run, caplog, damage, reason
):
  damage(run / '3')
  left = {p.name: p.read_bytes() for p in files(run / '3')}
  beside = restore(run, like())  # a sampler reads on but renames nothing
  assert is_step(beside, 2)
  assert names(run) == ['1', '2', '3']
  caplog.clear()
  restored = ckpt.restore(like())
  assert is_step(restored, 2)
  assert restored.metadata == {'seen': 2}
  (said,) = [r.getMessage() for r in caplog.records]
  for word in (str(run), 'step 3:', reason, '3.corrupt', 'back to step 2'):
    assert word in said
  assert names(run) == ['1', '2', '3.corrupt']
  kept = {p.name: p.read_bytes() for p in files(run / '3.corrupt')}
  assert kept == left
  ckpt.save(3, make(3), {})
  flip_weight(run / '1')
  assert is_step(ckpt.restore(like()), 3)
  flip_weight(run / '3')  # again: the first one is not overwritten
  assert is_step(ckpt.restore(like()), 2)
  assert names(run) == ['1', '2', '3.corrupt', '3.corrupt_']


@pytest.mark.fault(6)
def test_never_from_scratch_when_all_steps_are_damaged(ckpt, opened, run):
  path, offset = find_array(run / '2', 2)
  for step in (1, 2, 3):
    flip_weight(run / str(step))
  with pytest.raises(CheckpointError, match=r'step 3: .* 2: .* 1: ') as error:
    ckpt.restore(like())
  assert path.name in str(error.value)
  with pytest.raises(CheckpointError, match=r'1\.corrupt; 2\.corrupt'):
    opened().restore(like())  # nor at the next start
  (run / '2.corrupt').rename(run / '2')
  flip_bit(path, 8 * offset + 77)  # a person repairs it
  assert is_step(opened().restore(like()), 2)


@pytest.mark.fault(4)
def test_every_flipped_bit_is_found(ckpt, run):
  step, body = run / '3', manifest.read(run / '3')
  manifest.verify(step, body, 'full')
  draw = np.random.default_rng(0).integers
  for path in files(step):
    position = int(draw(8 * path.stat().st_size))
    if path.name != manifest.NAME:
      flip_bit(path, position)
      with pytest.raises(manifest.DamagedError, match=f'{path.name} has'):
        manifest.verify(step, body, 'full')
      flip_bit(path, position)
  path = step / manifest.NAME
  for position in draw(8 * path.stat().st_size, size=50):
    flip_bit(path, position)
    with contextlib.suppress(manifest.DamagedError):
      assert manifest.read(step) == body  # only blanks may change unseen
    flip_bit(path, position)


def test_verify_level_size_sees_lengths_only(ckpt, opened, run):
  truncate(data_file(run / '3'))
  assert is_step(opened(verify='size').restore(like()), 2)
  flip_weight(run / '2')
  loose = opened(verify='size').restore(like())
  assert loose.step == 2
  assert not is_step(loose, 2)  # Orbax does not see it


def test_old_steps_go_but_never_the_last_whole_one(opened, run, monkeypatch):
  ckpt = opened(keep=2)
  for step in (1, 2, 3, 4):
    ckpt.save(step, make(step), {})
  ckpt.wait()
  assert names(run) == ['3', '4']
  monkeypatch.setattr(manifest, 'write', lambda *_: 1 / 0)
  ckpt = opened(keep=1)
  ckpt.save(5, make(5), {})
  with pytest.raises(CheckpointError, match='Step 5 could not be saved'):
    ckpt.wait()
  assert names(run) == ['3', '4']
  assert is_step(ckpt.restore(like()), 4)


@pytest.mark.fault(28)
def test_a_lower_step_after_a_rollback_counts(ckpt, opened, run, caplog):
  ckpt = opened(keep=2)
  ckpt.save(1, make(10), {'again': True})
  ckpt.wait()
  assert 'holds step 3: step 1 now counts as the newest' in caplog.text
  assert names(run) == ['1', '3']  # the first saved are the first to go
  ckpt = opened(keep=2)
  restored = ckpt.restore(like())
  assert restored.step == 1
  assert restored.metadata == {'again': True}
  assert bits(restored.state) == bits(make(10))
  ckpt.save(2, make(2), {})
  ckpt.wait()
  assert names(run) == ['1', '2']
  assert is_step(ckpt.restore(like()), 2)


def test_orbax_does_not_talk(opened, caplog):
  caplog.set_level(logging.INFO, 'absl')
  logging.getLogger('absl').info('others do')
  ckpt = opened()
  ckpt.save(1, make(1), {})
  ckpt.restore(like())
  assert [r.getMessage() for r in caplog.records] == ['others do']


def test_wrong_arguments_say_what_is_allowed(opened, run):
  ckpt = opened()
  with pytest.raises(TypeError, match=r'Leaf a/b of the state is a int'):
    ckpt.save(1, {'a': {'b': 3}}, {})
  with pytest.raises(
    ValueError, match='Two leaves of the state are called a/b'
  ):
    ckpt.save(1, {'a': {'b': np.ones(2)}, 'a/b': np.ones(2)}, {})
  with pytest.raises(TypeError, match='not JSON'):
    ckpt.save(1, make(1), {'a': np.ones(2)})
  with pytest.raises(ValueError, match='count from 0'):
    ckpt.save(-1, make(1), {})
  assert names(run) == []
  with pytest.raises(ValueError, match='at least 1'):
    opened(keep=0)
  with pytest.raises(ValueError, match='full, size or off'):
    opened(verify='on').restore(like())
  with pytest.raises(ValueError, match='mount the bucket'):
    opened('gs://bucket/run')
