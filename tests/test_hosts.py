"""Several hosts: the same job, the same numbers, one set of files."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import vdm_jax
from tests import checkpoint_cases
from tests.test_step import SHAPE, Line
from tests.test_train import SETTINGS, run
from vdm_jax.training.loop import abstract_state
from vdm_jax.training.optimizer import Adam
from vdm_jax.training.restore import restore
from vdm_jax.training.sharding import MeshShape

NUM_STEPS = 6
ARGUMENTS = (
  '--config=configs/moving_shapes.py:smoke',
  f'--config.train.num_steps={NUM_STEPS}',
  '--config.train.batch_size=4',
  '--config.train.save_every=2',
  '--config.mesh.fsdp=2',
  '--config.sample.batch_size=4',
)


def free_port():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def start(workdir, num_hosts, arguments=ARGUMENTS):
  """Starts a job of four devices, shared out over `num_hosts` processes."""
  port = free_port()
  hosts = []
  for host in range(num_hosts):
    flags = f'--xla_force_host_platform_device_count={4 // num_hosts}'
    environment = os.environ | {
      'XLA_FLAGS': f'{flags} --xla_backend_optimization_level=0',
    }
    command = [
      *(sys.executable, '-m', 'vdm_jax.main', f'--workdir={workdir}'),
      *arguments,
    ]
    if num_hosts > 1:
      command += [
        '--distributed',
        f'--coordinator=127.0.0.1:{port}',
        f'--num_hosts={num_hosts}',
        f'--host={host}',
      ]
    with log_of(workdir, num_hosts, host).open('w') as log:
      hosts.append(
        subprocess.Popen(command, env=environment, stdout=log, stderr=log)
      )
  return hosts


def log_of(workdir, num_hosts, host):
  return workdir.with_suffix(f'.{host}_of_{num_hosts}.log')


def losses(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return {line['step']: line['loss'] for line in map(json.loads, lines)}


def finish(workdir, hosts):
  codes = [host.wait(1800) for host in hosts]
  logs = [log_of(workdir, len(hosts), i).read_text() for i in range(len(hosts))]
  assert codes == [0] * len(hosts), '\n'.join(logs)
  return logs


@pytest.mark.slow
def test_two_hosts_train_as_one(tmp_path):
  alone, together = tmp_path / 'alone', tmp_path / 'together'
  logs = finish(together, start(together, 2))
  finish(alone, start(alone, 1))
  assert losses(alone).keys() == losses(together).keys()
  for step, loss in losses(alone).items():
    # The order of sums over devices may differ, no more.
    np.testing.assert_allclose(losses(together)[step], loss, rtol=1e-4)
  assert 'Exact evaluation' in logs[0]
  assert 'Exact evaluation' not in logs[1]
  # Six videos in batches of four; then the exact evaluation of as many.
  for mode in ('sample', 'evaluate'):
    arguments = f'--mode={mode}', '--num=6', '--seed=1'
    logs = finish(alone, start(alone, 2, arguments))
    alone_once = pictures(alone)
    finish(alone, start(alone, 1, arguments))
    assert pictures(alone) == alone_once
  assert 'Exact evaluation of 6 videos' in logs[0]
  assert 'Exact evaluation' not in logs[1]
  assert pictures(together).keys() == pictures(alone).keys() - {
    'sample_0000006_seed_1.png'
  }


def pictures(workdir):
  """Contact sheets of a workdir, as bytes by name."""
  return {p.name: p.read_bytes() for p in (workdir / 'samples').glob('*.png')}


def _draws_its_own(rank, port, path):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, rank)
  model = vdm_jax.load('moving_shapes')
  key = jax.random.fold_in(jax.random.key(0), rank)
  # As many calls as a host has videos to judge: not the same for both.
  for call in range(1 + rank):
    videos = model.sample(key, 3, batch_size=2, num_steps=2)
    np.save(path / f'{rank}_{call}.npy', videos)
  jax.distributed.shutdown()  # waits for the other one


@pytest.mark.slow
def test_hosts_may_draw_different_videos(tmp_path):
  """An evaluation shares its videos out: each host draws its own."""
  port = free_port()
  children = [
    checkpoint_cases.start(_draws_its_own, rank, port, tmp_path)
    for rank in (0, 1)
  ]
  for child in children:
    child.join(300)
  assert [child.exitcode for child in children] == [0, 0]
  model = vdm_jax.load('moving_shapes')
  for rank in (0, 1):
    key = jax.random.fold_in(jax.random.key(0), rank)
    videos = model.sample(key, 3, batch_size=2, num_steps=2)
    for call in range(1 + rank):
      drawn = np.load(tmp_path / f'{rank}_{call}.npy')
      np.testing.assert_allclose(drawn, videos, atol=1e-4)


def _one_of_two(rank, port, workdir, dies_at):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, rank)

  def look(step, params):
    del params
    if (rank, step) == (1, dies_at):
      os.kill(os.getpid(), signal.SIGKILL)

  settings = dataclasses.replace(SETTINGS, save_every=2, look_every=1)
  run(workdir, settings=settings, look=look)


def both(workdir, dies_at):
  """Exit codes of two hosts, of which the second may die on the way."""
  port = free_port()
  children = [
    checkpoint_cases.start(
      *(_one_of_two, rank, port, workdir, dies_at), devices=2
    )
    for rank in (0, 1)
  ]
  for child in reversed(children):
    child.join(300)
  codes = [child.exitcode for child in children]
  for child in children:
    child.kill()
  return codes


def last_bits(workdir):
  like = abstract_state(
    *(Line(), Adam(learning_rate=0.01).transformation(), SHAPE),
    MeshShape().build(),
  )
  restored = restore(workdir / 'checkpoints', like)
  return restored.step, checkpoint_cases.bits(restored.state)


@pytest.mark.slow
@pytest.mark.fault(31)
def test_a_host_that_dies_ends_the_others_and_all_go_on(tmp_path):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  assert both(whole, dies_at=0) == [0, 0]
  survivor, dead = both(broken, dies_at=5)
  assert dead == -signal.SIGKILL
  assert survivor not in (0, None)  # neither done nor waiting for ever
  assert last_bits(broken)[0] in (2, 4)
  assert both(broken, dies_at=0) == [0, 0]
  assert last_bits(broken) == last_bits(whole)
  assert losses(broken) == losses(whole)
