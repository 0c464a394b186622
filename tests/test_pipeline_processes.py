"""Laws of the pipeline with worker processes, and of their violent ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.pipeline_cases import Records, same, take
from vdm_jax.data.pipeline import DataError

ROOT = os.path.dirname(os.path.dirname(__file__))


class Processes(Records):
  """The caption is the process that made the clip, and if it uses jax."""

  def clip(self, index, rng):
    example = super().clip(index, rng)
    bridge = sys.modules.get('jax._src.xla_bridge')  # grain imports jax
    uses_jax = bridge is not None and bridge.backends_are_initialized()
    return {**example, 'caption': f'{os.getpid()} {uses_jax}'}


@pytest.mark.fault(11)
def test_workers_do_not_matter():
  source = Processes(10, bad=[3, 4])
  plain, expected = take(6, source, start=7)
  with_workers, data = take(6, source, start=7, num_workers=2)
  processes = set(data.pop('caption'))
  here = set(expected.pop('caption'))
  same(data, expected)
  assert with_workers.skipped == plain.skipped
  assert set(plain.skipped) == {'3.mp4', '4.mp4'}
  assert len(processes) == 2
  assert not processes & here
  # No worker may take the accelerator, or wait for it.
  assert {process.split()[1] for process in processes} == {'False'}


def test_reading_needs_no_jax():
  names = 'vdm_jax.video, vdm_jax.data.folder, vdm_jax.data.pipeline'
  code = f"import sys; sys.modules['jax'] = None; import {names}"
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


KILLED = """
import sys
from tests.test_pipeline_processes import Processes
from vdm_jax.data.pipeline import Pipeline

if __name__ == '__main__':
  source = Processes(10)
  batches = iter(Pipeline(source, batch_size=4, seed=0, num_workers=2))
  print(*next(batches)['caption'], flush=True)
  next(iter(sys.stdin))
"""


LEFT_OPEN = KILLED.replace('next(iter(sys.stdin))', '')


def run(tmp_path, code):
  """Starts a program that can import this file."""
  script = tmp_path / 'program.py'
  script.write_text(code)
  return subprocess.Popen(
    [sys.executable, str(script)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': ROOT},
  )


class Deadly(Processes):
  """A record that ends the process which reads it."""

  def __init__(self, size, number):
    super().__init__(size)
    self.number = number

  def clip(self, index, rng):
    if index == 7:
      os.kill(os.getpid(), self.number)
    return super().clip(index, rng)


@pytest.mark.slow
@pytest.mark.fault(21, 26)
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_told_and_the_others_go(number):
  began = time.monotonic()
  with pytest.raises(DataError, match=f'exit code {-number}.*the same command'):
    take(5, Deadly(10, number), num_workers=2)
  assert time.monotonic() < began + 60  # starting two workers included
  while multiprocessing.active_children():
    assert time.monotonic() < began + 90
    time.sleep(0.1)


@pytest.mark.slow
def test_a_program_may_end_in_the_middle(tmp_path):
  with run(tmp_path, LEFT_OPEN) as program:
    output, errors = program.communicate(timeout=600)
  assert program.returncode == 0
  assert len(output.split()) == 8
  assert 'Exception' not in errors
  assert 'leaked' not in errors


def alive(pid):
  try:
    with open(f'/proc/{pid}/stat') as file:
      return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
  except FileNotFoundError:
    return False


@pytest.mark.fault(27)
@pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='needs /proc')
def test_workers_die_with_a_killed_program(tmp_path):
  with run(tmp_path, KILLED) as program:
    words = program.stdout.readline().split()
    workers = {int(word) for word in words if word.isdigit()}
    assert len(workers) == 2
    assert all(alive(pid) for pid in workers)
    program.send_signal(signal.SIGKILL)
    end = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
      time.sleep(0.05)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
      os.kill(pid, signal.SIGKILL)
  assert not left
