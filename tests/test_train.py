"""Runs: resumed ones equal undisturbed ones, broken ones say why."""

import contextlib
import dataclasses
import json
import logging
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_step import SHAPE, Line
from vdm_jax.data.pipeline import Pipeline
from vdm_jax.training.checkpoint import CheckpointError
from vdm_jax.training.finite import NonFiniteError
from vdm_jax.training.loop import TrainSettings, train
from vdm_jax.training.optimizer import Adam
from vdm_jax.training.restore import restore
from vdm_jax.training.sharding import MeshShape

SETTINGS = TrainSettings(
  num_steps=6, batch_size=8, ema_decay=0.9, log_every=2, save_every=4
)


class Numbers:
  """A source whose clips are all different and known."""

  def __init__(self, size=21, poison=()):
    self.size, self.poison, self.drawn = size, poison, []

  def __len__(self):
    return self.size

  def fingerprint(self):
    return f'numbers {self.size}'

  def clip(self, index, rng):
    self.drawn.append(index)
    value = rng.normal(index / self.size, 0.1, SHAPE).astype(np.float32)
    if index in self.poison:
      value[:] = np.nan
    return {'video': value}


def run(workdir, source=None, settings=SETTINGS, **options):
  usual = {
    'optimizer': Adam(learning_rate=0.01, warmup_steps=2),
    'mesh': MeshShape().build(),
    'seed': 0,
  }
  return train(
    Line(dropout=0.2),
    source or Numbers(),
    video_shape=SHAPE,
    settings=settings,
    workdir=workdir,
    **usual | options,
  )


def assert_equal_states(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def metrics(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  return workdir, run(workdir)


def stop_at(step, number=signal.SIGTERM):
  """A look that sends a signal to this process, as a scheduler would."""

  def look(now, params):
    del params
    if now == step:
      os.kill(os.getpid(), number)

  return look


@pytest.mark.fault(7)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed_equals_undisturbed(
  tmp_path, undisturbed, number, caplog
):
  looking = dataclasses.replace(SETTINGS, look_every=1)
  with caplog.at_level(logging.WARNING):
    first = run(tmp_path, settings=looking, look=stop_at(2, number))
  assert first.step == 3  # the step after the signal is finished and saved
  assert 'the same command goes on' in caplog.text
  assert signal.Signals(number).name in caplog.text
  second = run(tmp_path)
  workdir, whole = undisturbed
  assert second.step == whole.step == 6
  assert_equal_states(second.state, whole.state)
  assert [line['step'] for line in metrics(tmp_path)] == [2, 4, 6]
  # The line that the stop did not cut in two is the same; times aside.
  assert metrics(tmp_path)[0]['loss'] == metrics(workdir)[0]['loss']
  # Handlers are given back.
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.fault(2)
def test_lost_steps_are_done_again_and_logged_once(tmp_path, undisturbed):
  """Killed after step 6 was logged but with step 4 the last one saved."""
  run(tmp_path)
  latest = tmp_path / 'checkpoints' / '6'
  assert latest.exists()
  for path in sorted(latest.rglob('*'), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()
  latest.rmdir()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "lo')  # cut off in the middle of a line
  again = run(tmp_path)
  assert_equal_states(again.state, undisturbed[1].state)
  assert [line['step'] for line in metrics(tmp_path)] == [2, 4, 6]


@pytest.mark.fault(3)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
  tmp_path, undisturbed, caplog
):
  run(tmp_path)
  files = [p for p in (tmp_path / 'checkpoints/6').rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-20])
  with caplog.at_level(logging.WARNING):
    again = run(tmp_path)
  assert 'falling back to step 4' in caplog.text
  assert_equal_states(again.state, undisturbed[1].state)


@pytest.mark.fault(2)
def test_a_resumed_run_reads_what_was_still_to_come(tmp_path):
  """By clips that occur once, and order by a reader with a single thread."""
  order, second = Numbers(1000), Numbers(1000)
  pipeline = Pipeline(order, batch_size=8, seed=0, start=0, num_threads=1)
  with contextlib.closing(iter(pipeline)) as batches:
    for _ in range(6):
      next(batches)
  short = dataclasses.replace(SETTINGS, num_steps=3)
  run(tmp_path, Numbers(1000), short)
  run(tmp_path, second)
  assert not set(order.drawn[:24]) & set(second.drawn)
  assert set(order.drawn[24:48]) <= set(second.drawn)


@pytest.mark.fault(12)
def test_other_data_is_refused_on_resume(tmp_path):
  run(tmp_path, settings=dataclasses.replace(SETTINGS, num_steps=1))
  with pytest.raises(
    ValueError, match='numbers 22, the checkpoint has numbers 21'
  ):
    run(tmp_path, Numbers(22))


@pytest.mark.fault(22)
def test_bad_batches_are_skipped_and_counted(tmp_path):
  result = run(tmp_path, Numbers(64, poison={5}))
  assert int(result.state.skipped) == 1  # 48 of 64 clips, one of them bad
  assert np.all(np.isfinite(result.state.params['kernel']))
  assert metrics(tmp_path)[-1]['skipped'] == 1
  assert all(np.isfinite(line['loss']) for line in metrics(tmp_path))


@pytest.mark.fault(22)
def test_too_many_bad_batches_in_a_row_stop_the_run(tmp_path):
  settings = dataclasses.replace(SETTINGS, num_steps=50, max_skipped=3)
  run(tmp_path, settings=dataclasses.replace(SETTINGS, num_steps=4))
  with pytest.raises(NonFiniteError, match='not finite in 3 batches in a row'):
    run(tmp_path, Numbers(poison=range(21)), settings)
  # The last good state is still there, and nothing was saved after it.
  like = jax.eval_shape(lambda: Line().init(jax.random.key(0), SHAPE))
  restored = restore(tmp_path / 'checkpoints', like, only='ema')
  assert restored is not None
  assert restored.step == 4
  assert np.all(np.isfinite(restored.state['kernel']))


def test_resolution_and_batch_are_checked_before_anything_else(tmp_path):
  bad = dataclasses.replace(SETTINGS, batch_size=9)
  with pytest.raises(ValueError, match='batch_size=9 does not divide by 8'):
    run(tmp_path / 'never', settings=bad)
  assert not (tmp_path / 'never').exists()
  with pytest.raises(ValueError, match=r'config\.train\.save_every=0'):
    dataclasses.replace(SETTINGS, save_every=0)


@pytest.mark.fault(8)
def test_a_full_disk_is_noticed_before_training(tmp_path, monkeypatch):
  usage = os.statvfs(tmp_path)
  full = type('Full', (), {'f_bavail': 0, 'f_frsize': usage.f_frsize})
  monkeypatch.setattr(os, 'statvfs', lambda path: full)
  monkeypatch.setattr(
    'shutil.disk_usage', lambda path: type('U', (), {'free': 0, 'total': 1})
  )
  with pytest.raises(CheckpointError, match=r'[Ff]ree|space'):
    run(tmp_path)


def test_parameters_do_not_depend_on_how_often_a_run_is_watched(
  tmp_path, undisturbed
):
  settings = dataclasses.replace(SETTINGS, log_every=1, save_every=1)
  watched = run(tmp_path, settings=settings)
  assert_equal_states(watched.state.params, undisturbed[1].state.params)
  assert jnp.isfinite(watched.state.params['kernel']).all()
