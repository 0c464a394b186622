"""A trainer killed at any moment goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from vdm_jax.job import build, read_config
from vdm_jax.training.restore import restore
from vdm_jax.training.state import TrainState

NUM_STEPS = 60


def start(workdir):
  command = [
    *(sys.executable, '-m', 'vdm_jax.main', f'--workdir={workdir}'),
    '--config=configs/moving_shapes.py:smoke',
    f'--config.train.num_steps={NUM_STEPS}',
    '--config.train.save_every=20',
    '--config.train.log_every=10',
  ]
  quick_to_compile = {'XLA_FLAGS': '--xla_backend_optimization_level=0'}
  with workdir.with_suffix('.log').open('a') as log:
    return subprocess.Popen(
      command, env=os.environ | quick_to_compile, stdout=log, stderr=log
    )


def last_state(workdir):
  job = build(read_config(workdir))
  like = jax.eval_shape(
    lambda key: TrainState.create(
      job.system.init(key, job.video_shape), job.optimizer.transformation()
    ),
    jax.random.key(0),
  )
  restored = restore(workdir / 'checkpoints', like)
  assert restored is not None
  return restored


def losses(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [(line['step'], line['loss']) for line in map(json.loads, lines)]


@pytest.mark.slow  # CI runs it; the default run has faster ones
@pytest.mark.fault(2)
def test_sigkill_of_a_trainer_changes_nothing(tmp_path):
  """Parameters, EMA, optimizer and losses, to the last bit."""
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  undisturbed = start(whole)
  victim = start(killed)
  while not (killed / 'checkpoints' / '20').exists():
    assert victim.poll() is None, (tmp_path / 'killed.log').read_text()
    time.sleep(0.01)
  victim.send_signal(signal.SIGKILL)
  assert victim.wait(600) == -signal.SIGKILL
  assert not (killed / 'checkpoints' / str(NUM_STEPS)).exists()

  assert start(killed).wait(1800) == 0
  assert undisturbed.wait(1800) == 0
  a, b = last_state(whole), last_state(killed)
  assert a.step == b.step == NUM_STEPS
  assert a.metadata == b.metadata
  jax.tree.map(np.testing.assert_array_equal, a.state, b.state)
  assert losses(whole) == losses(killed)
  assert [step for step, _ in losses(whole)] == list(range(10, 61, 10))


@pytest.mark.slow
@pytest.mark.fault(7, 29)
def test_a_second_trainer_is_kept_out_and_sigterm_of_the_first_says_again(
  tmp_path,
):
  workdir, log = tmp_path / 'run', tmp_path / 'run.log'
  first = start(workdir)
  while not (workdir / 'checkpoints' / '20').exists():
    assert first.poll() is None, log.read_text()
    time.sleep(0.01)
  first.send_signal(signal.SIGSTOP)  # so that it does not finish meanwhile
  assert start(workdir).wait(600) == 2
  said = log.read_text().splitlines()[-1]
  assert said.startswith('error: ')
  assert f'in use by process {first.pid} on ' in said
  first.send_signal(signal.SIGTERM)
  first.send_signal(signal.SIGCONT)
  assert first.wait(600) == os.EX_TEMPFAIL
  assert 'the same command goes on' in log.read_text()
  assert not (workdir / 'samples').exists()
  assert start(workdir).wait(1800) == 0
  assert last_state(workdir).step == NUM_STEPS
