"""Kills, full disks and places that cannot be written."""

import gc
import itertools
import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.checkpoint_cases import (
  FORK,
  PHASES,
  bits,
  die,
  ends_well,
  files,
  is_step,
  like,
  make,
  names,
  opened,
  start,
)
from vdm_jax.training import manifest
from vdm_jax.training.checkpoint import (
  Checkpointer,
  CheckpointError,
  check_space,
)
from vdm_jax.training.interrupt import Interrupt
from vdm_jax.training.restore import restore
from vdm_jax.training.step_directory import StepDirectory


def all_whole(directory):
  for name in names(directory):
    step = directory / name
    manifest.verify(step, manifest.read(step), 'full')
  return True


def _save_and_die(directory, second, where):
  ckpt = Checkpointer(directory, keep=1)
  ckpt.save(1, make(1), {})
  ckpt.wait()
  owner, name = where.rsplit('.', 1)
  setattr(pkgutil.resolve_name(f'vdm_jax.training.{owner}'), name, die)
  ckpt.save(second, make(2), {})
  ckpt.wait()


@pytest.mark.fault(1)
@pytest.mark.parametrize(('where', 'newest'), PHASES.items())
def test_kill_at_each_phase_of_a_save(tmp_path, where, newest):
  child = start(_save_and_die, tmp_path, 2, where)
  child.join(60)
  assert child.exitcode == -signal.SIGKILL
  with opened(tmp_path) as ckpt:
    assert is_step(ckpt.restore(like()), newest)
    assert set(names(tmp_path)) <= {'1', '2'}
    assert all_whole(tmp_path)


@pytest.mark.fault(1)
def test_kill_while_a_step_is_replaced(tmp_path):
  child = start(_save_and_die, tmp_path, 1, 'step_directory.shutil.rmtree')
  child.join(60)
  assert child.exitcode == -signal.SIGKILL
  assert names(tmp_path) == ['1.deleting', '1.saving']
  with opened(tmp_path) as ckpt:
    assert bits(ckpt.restore(like()).state) == bits(make(2))
    assert names(tmp_path) == ['1']


def _save_on_and_on(directory, finished):
  ckpt = Checkpointer(directory, keep=2)
  restored = ckpt.restore(like())
  first = restored.step + 1 if restored else 1
  for step in itertools.count(first):
    ckpt.save(step, make(step), {'seen': 8 * step})
    if step % 2:
      ckpt.wait()
      finished.value = step


@pytest.mark.fault(1)
@pytest.mark.parametrize('kills', [3, pytest.param(40, marks=pytest.mark.slow)])
def test_kill_at_random_times(tmp_path, kills):
  draw = np.random.default_rng(0).uniform
  finished = FORK.Value('q', 0, lock=False)
  for _ in range(kills):
    before = finished.value
    child = start(_save_on_and_on, tmp_path, finished)
    while child.is_alive() and finished.value == before:
      time.sleep(0.001)
    time.sleep(draw(0, 0.3))
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with opened(tmp_path) as ckpt:
      assert all_whole(tmp_path)
      restored = ckpt.restore(like())
    assert restored.step >= finished.value
    assert is_step(restored, restored.step)
    assert restored.metadata == {'seen': 8 * restored.step}


class FileSizeLimit:
  """As on a full disk, no file of more than 1000 bytes can be written."""

  def __init__(self, place):
    del place

  def fill(self):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

  def free(self):
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


class SmallDisk:
  """A disk filled by another file, but for 30 kB."""

  def __init__(self, place):
    self._filler = place / 'filler'

  def fill(self):
    free = shutil.disk_usage(self._filler.parent).free
    self._filler.write_bytes(bytes(free - 30_000))

  def free(self):
    self._filler.unlink()


def _fail_and_recover(place, disk, surface):
  disk, run = disk(place), place / 'run'
  ckpt = Checkpointer(run)
  ckpt.save(1, make(1), {})
  ckpt.wait()
  before = [(path, path.stat().st_size) for path in files(run)]
  disk.fill()
  ckpt.save(2, make(2), {})
  call = {
    'wait': ckpt.wait,
    'save': lambda: ckpt.save(3, make(3), {}),
    'close': ckpt.close,
  }[surface]
  with pytest.raises(CheckpointError, match='Step 2 could not be saved') as e:
    call()
  for word in (str(run), 'bytes free', 'needed', 'finished steps are'):
    assert word in str(e.value)
  assert '\n' not in str(e.value)
  # What the failed save took is free again, what was there is intact.
  assert [(path, path.stat().st_size) for path in files(run)] == before
  assert names(run) == ['1']
  assert is_step(restore(run, like()), 1)
  disk.free()
  if surface != 'close':
    ckpt.save(3, make(3), {})
    assert is_step(ckpt.restore(like()), 3)
    ckpt.close()
  gc.collect()  # Orbax's remains complain when they go


@pytest.mark.fault(8)
@pytest.mark.parametrize(
  ('disk', 'surface'),
  [
    (FileSizeLimit, 'wait'),
    (FileSizeLimit, 'save'),
    (FileSizeLimit, 'close'),
    (SmallDisk, 'wait'),
  ],
)
def test_full_disk(tmp_path, disk, surface):
  place = tmp_path / 'disk'
  place.mkdir()
  if disk is SmallDisk:
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
      pytest.skip('only an administrator may mount; FileSizeLimit has run')
  stderr = tmp_path / 'stderr'
  try:
    child = start(_fail_and_recover, place, disk, surface, stderr=stderr)
    ended_well = ends_well(child)
  finally:
    if disk is SmallDisk:
      subprocess.run(['umount', '-l', str(place)], check=True)
  assert ended_well, stderr.read_text()
  # The exception has said it all. (Writers cut short may print that an event
  # loop is closed; nothing can be done about that.)
  assert 'orbax' not in stderr.read_text()


def _save_while_the_clock_leaps(directory):
  now, looks = time.time, []

  def leaping():
    looks.append(1)
    return now() + 3600 * len(looks)

  ckpt = Checkpointer(directory)
  ckpt.save(1, make(1), {})
  ckpt.wait()
  time.time = leaping
  ckpt.save(2, make(2), {})
  with pytest.raises(CheckpointError, match='Step 2 .* be saved .Timeout'):
    ckpt.wait()
  time.time = now
  assert is_step(ckpt.restore(like()), 1)
  ckpt.save(3, make(3), {})
  ckpt.close()


@pytest.mark.fault(28)
def test_a_clock_that_leaps_during_a_save_fails_that_save_alone(tmp_path):
  """By the 20 minutes that Orbax waits for a write; the error says so."""
  stderr = tmp_path / 'stderr'
  directory = tmp_path / 'run'
  child = start(_save_while_the_clock_leaps, directory, stderr=stderr)
  assert ends_well(child), stderr.read_text()
  assert names(directory) == ['1', '3']


def _wait_for_signals(ready):
  with Interrupt() as interrupt:
    ready.set()
    while not interrupt.requested(1):
      time.sleep(0.001)
    ready.set()
    time.sleep(600)  # in the middle of a long step, say


@pytest.mark.fault(7)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once(number):
  ready = FORK.Event()
  child = start(_wait_for_signals, ready)
  try:
    for _ in range(2):
      assert ready.wait(60)
      ready.clear()
      os.kill(child.pid, number)
    child.join(2)
    assert child.exitcode == -number
  finally:
    child.kill()


@pytest.mark.fault(8)
def test_preflight_tells_free_and_needed_bytes(tmp_path, monkeypatch):
  check_space(tmp_path / 'not' / 'yet' / 'there', 1)
  needed = shutil.disk_usage(tmp_path).total + 1
  with pytest.raises(CheckpointError, match=f'bytes free and {needed:,} are'):
    check_space(tmp_path / 'not' / 'yet' / 'there', needed)
  with opened(tmp_path) as ckpt:
    ckpt.save(1, {'w': np.ones(1000, np.float32)}, {})
    ckpt.wait()
    monkeypatch.setattr(StepDirectory, 'free_bytes', lambda _: 3999)
    with pytest.raises(CheckpointError, match='3,999 bytes free and 4,000 are'):
      ckpt.save(2, {'w': np.ones(1000, np.float32)}, {})
    assert names(tmp_path) == ['1']
    monkeypatch.setattr(StepDirectory, 'free_bytes', lambda _: 4000)
    ckpt.save(2, {'w': np.ones(1000, np.float32)}, {})
  assert names(tmp_path) == ['1', '2']


@pytest.mark.fault(9)
@pytest.mark.parametrize('place', ['/proc', '/proc/run', 'file', 'file/run'])
def test_place_that_cannot_be_written(tmp_path, place):
  (tmp_path / 'file').write_text('in the way')  # stops even an administrator
  with pytest.raises(CheckpointError, match='that this user may write to') as e:
    Checkpointer(tmp_path / place)
  assert str(tmp_path / place) in str(e.value)


@pytest.mark.fault(9)
def test_directory_that_vanishes_is_not_made_again(tmp_path):
  with opened(tmp_path / 'run') as ckpt:
    shutil.rmtree(tmp_path / 'run')
    with pytest.raises(CheckpointError, match='Step 1 could not be saved'):
      ckpt.save(1, make(1), {})
  assert names(tmp_path) == []


def _hold(directory, ready, leave):
  with opened(directory) as ckpt:
    ckpt.save(1, make(1), {})
    ckpt.wait()
    (directory / '2.saving').mkdir()
    ready.set()
    leave.wait(600)


@pytest.mark.fault(29)
def test_a_second_run_is_kept_out_until_the_first_has_ended(tmp_path):
  ready, leave = FORK.Event(), FORK.Event()
  child = start(_hold, tmp_path, ready, leave)
  assert ready.wait(600)
  with pytest.raises(
    CheckpointError, match=f'in use by process {child.pid} on .*--workdir'
  ):
    Checkpointer(tmp_path)
  assert names(tmp_path) == ['1', '2.saving']  # the other's work is untouched
  child.kill()
  child.join(60)
  with opened(tmp_path) as ckpt:
    assert is_step(ckpt.restore(like()), 1)
    assert names(tmp_path) == ['1']
