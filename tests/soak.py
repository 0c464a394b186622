"""One training run that is killed, cut short and damaged, again and again.

Every cycle goes on with the run in a new process and does one harm to it, drawn
at random. In the end the run is finished and compared, bit for bit, with one
that nothing has happened to. On the way every restart must find the last step
that was whole, and the steps that are lost are counted.
"""

import collections
import json
import os
import signal
import statistics
import time

import numpy as np

from tests.checkpoint_cases import (
  FORK,
  PHASES,
  bits,
  files,
  flip_bit,
  start,
  truncate,
)
from tests.soak_run import SAVE_EVERY, Watch, like, run
from vdm_jax.training import manifest
from vdm_jax.training.restore import restore
from vdm_jax.training.step_directory import StepDirectory

KILLED, STOPPED, AGAIN = -signal.SIGKILL, -signal.SIGTERM, os.EX_TEMPFAIL
ENDS = {  # how a process may end, by what is done to it
  'SIGKILL at any time': (KILLED,),
  'SIGKILL inside a save': (KILLED,),
  'SIGTERM': (AGAIN, STOPPED),  # the latter before the first step
  'SIGTERM twice': (AGAIN, STOPPED),
  'full disk': (1, KILLED),  # the latter if it did not come to a save
  'newest checkpoint cut in half': (KILLED,),
  'newest checkpoint with a flipped bit': (KILLED,),
  'newest checkpoint without manifest': (KILLED,),
  'remains of other kills': (KILLED,),
}
DAMAGES = tuple(name for name in ENDS if name.startswith('newest'))


def _wait(child, until=lambda: False):
  """Waits for the end of a process, or for something else."""
  end = time.monotonic() + 300
  while child.is_alive() and not until():
    assert time.monotonic() < end, 'the run hangs'
    time.sleep(0.001)


def _disturb(child, watch, harm, draw):
  """Ends a run from outside, at a random moment; returns its exit code."""
  if draw.random() < 0.8:
    _wait(child, lambda: watch.ready)
    child.join(draw.uniform(0, 0.6))
  else:  # also while it starts
    child.join(draw.uniform(0, 2))
  if harm.startswith('SIGTERM'):
    child.terminate()
    if harm == 'SIGTERM twice':
      child.join(draw.uniform(0, 0.05))
      child.terminate()
  else:
    if harm in ('SIGKILL inside a save', 'full disk'):  # comes from inside
      _wait(child, lambda: watch.reached > watch.first + 8 * SAVE_EVERY)
    child.kill()
  _wait(child)
  child.join()
  return child.exitcode


def _damage(directory, harm, draw):
  """Does what a bad disk, a person or an earlier kill may have done."""
  newest = directory / str(StepDirectory(directory).newest())
  if harm == 'newest checkpoint without manifest':
    (newest / manifest.NAME).unlink()
  elif harm == 'newest checkpoint cut in half':
    truncate(draw.choice(files(newest)))
  elif harm == 'newest checkpoint with a flipped bit':
    # Not in the manifest, where a blank may turn into another one.
    path = max(files(newest), key=lambda path: path.stat().st_size)
    flip_bit(path, int(draw.integers(8 * path.stat().st_size)))
  elif harm == 'remains of other kills':
    step = int(newest.name) + SAVE_EVERY
    for ending in ('saving', 'saving.orbax-checkpoint-tmp', 'deleting'):
      remains = directory / f'{step}.{ending}'
      remains.mkdir(exist_ok=True)
      (remains / 'half').write_bytes(draw.bytes(1000))
    with (directory.parent / 'metrics.jsonl').open('a') as metrics:
      metrics.write('{"step": 7, "lo')


def _finished(workdir, num_steps):
  """All that must be equal of a run that is gone on with until its end."""
  child = start(run, workdir, num_steps, FORK.Value(Watch, lock=False))
  _wait(child)
  assert child.exitcode == 0
  found = restore(workdir / 'checkpoints', like())
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  kept = [(m['step'], m['loss'], m['grad_norm'], m['skipped']) for m in lines]
  return found.step, bits(found.state), found.metadata, kept


def soak(place, cycles, seed, say=lambda line: None):
  """Runs the cycles in the folder `place`; returns the summary."""
  draw, began = np.random.default_rng(seed), time.monotonic()
  workdir, watch = place / 'disturbed', FORK.Value(Watch, lock=False)
  directory, log = workdir / 'checkpoints', place / 'stderr.txt'
  lost, worst = collections.defaultdict(list), collections.defaultdict(list)
  restarts: list[float] = []
  since: list[tuple[str, int]] = []  # what was done since the last restore
  for cycle in range(cycles):
    harm = str(draw.choice(list(ENDS)))
    hook = str(draw.choice(list(PHASES))), int(draw.integers(1, 4))
    begun, whole = watch.begun, watch.whole
    watch.ready, watch.lost = 0, -1
    log.unlink(missing_ok=True)
    started = time.monotonic()
    child = start(run, workdir, 10**9, watch, harm, *hook, stderr=log)
    code = _disturb(child, watch, harm, draw)
    assert code in ENDS[harm], (harm, code, log.read_text())
    if code == 1:
      said = log.read_text()
      assert 'could not be saved' in said or 'cannot be written' in said, said
    if watch.ready:
      restarts.append(watch.ready - started)
    if watch.lost >= 0:  # this run has restored what those before had left
      damages = sum(name in DAMAGES for name, _ in since)
      assert damages or watch.first >= whole, (since, whole, watch.first)
      # A save that was under way when the process died is lost as well.
      allowed = SAVE_EVERY * (1 + (begun > whole) + damages)
      assert watch.lost <= allowed, (since, watch.lost)
      assert not (watch.lost and since[-1:] == [('SIGTERM', AGAIN)])
      worst[allowed].append(watch.lost)
      for name, ended in since:  # the first had steps to lose
        lost[name].append((watch.lost, ended))
        watch.lost = 0
      since = []
    steps = [p for p in directory.glob('*') if p.name.isdecimal()]
    if harm in DAMAGES and (since or len(steps) < 2):
      harm = 'SIGKILL at any time'  # no second one, which is whole, is left
    if steps:
      _damage(directory, harm, draw)
    since.append((harm, code))
    say(f'{cycle:3d} {harm}, ended {code}, at step {watch.reached}')
  num_steps = watch.reached + SAVE_EVERY
  disturbed = _finished(workdir, num_steps)
  undisturbed = _finished(place / 'undisturbed', num_steps)
  for one, other in zip(disturbed, undisturbed, strict=True):
    assert one == other
  assert [line[0] for line in disturbed[-1]] == list(range(1, num_steps + 1))
  return {
    'cycles': cycles,
    'seed': seed,
    'steps': num_steps,
    'save_every': SAVE_EVERY,
    'bit_equal': True,
    'seconds': round(time.monotonic() - began),
    'restart_s': {
      'median': round(statistics.median(restarts), 2),
      'max': round(max(restarts), 2),
    },
    'restarts_by_steps_allowed_to_lose': {
      allowed: {'restarts': len(values), 'most_lost': max(values)}
      for allowed, values in sorted(worst.items())
    },
    'harms': {
      name: {
        'cycles': len(values),
        'exit_codes': sorted({code for _, code in values}),
        'mean_lost': round(statistics.mean(v for v, _ in values), 1),
        'most_lost': max(v for v, _ in values),
      }
      for name, values in sorted(lost.items())
    },
  }
