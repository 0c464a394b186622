"""The run that a soak disturbs: `loop.train` in a process of its own."""

import ctypes
import os
import pkgutil
import resource
import sys
import time
from typing import ClassVar

import jax

from tests.checkpoint_cases import FORK, die
from tests.test_step import SHAPE, Line
from tests.test_train import Numbers
from vdm_jax.errors import FAILURES
from vdm_jax.training.array_store import ArrayWriter
from vdm_jax.training.checkpoint import Checkpointer
from vdm_jax.training.loop import TrainSettings, abstract_state, train
from vdm_jax.training.optimizer import Adam
from vdm_jax.training.sharding import MeshShape
from vdm_jax.training.step_directory import StepDirectory

FORK.set_forkserver_preload(['tests.soak_run'])  # all that a run imports

SAVE_EVERY = 20
OPTIMIZER = Adam(learning_rate=0.01, warmup_steps=2)


class Watch(ctypes.Structure):
  """What a run says of itself to the one who kills it, in shared memory."""

  _fields_: ClassVar = [
    ('first', ctypes.c_int),  # the step that was restored
    ('reached', ctypes.c_int),  # the last one done
    ('lost', ctypes.c_int),  # those that were not restored; -1: not known yet
    ('begun', ctypes.c_int),  # the last one whose save has begun
    ('whole', ctypes.c_int),  # the last one saved
    ('ready', ctypes.c_double),  # when the first step was done; 0: not yet
  ]


def like():
  mesh = MeshShape().build(jax.devices()[:1])
  return abstract_state(Line(), OPTIMIZER.transformation(), SHAPE, mesh)


def run(workdir, num_steps, watch, harm=None, place='', count=0):
  """Trains up to `num_steps`, on one device, and ends as the commands do."""
  cache = workdir.parent / 'compiled'
  jax.config.update('jax_compilation_cache_dir', str(cache))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  _arrange(harm, place, count)
  _tell(watch)

  def look(step, params):
    del params
    watch.ready = watch.ready or time.monotonic()
    watch.reached = step
    time.sleep(0.005)  # a save takes about as long as its interval

  try:
    result = train(
      Line(dropout=0.2),
      Numbers(),
      video_shape=SHAPE,
      settings=TrainSettings(
        num_steps=num_steps,
        batch_size=8,
        ema_decay=0.9,
        log_every=1,
        save_every=SAVE_EVERY,
        look_every=1,
      ),
      optimizer=OPTIMIZER,
      mesh=MeshShape().build(),
      seed=0,
      workdir=workdir,
      look=look,
    )
  except FAILURES as error:
    _limit_files(resource.RLIM_INFINITY)  # stderr is a file too
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)
  sys.exit(os.EX_TEMPFAIL if result.stopped else 0)


def _tell(watch):
  """Lets checkpoints tell what was restored, begun and made whole."""
  restore, save = Checkpointer.restore, Checkpointer.save
  publish = StepDirectory.publish

  def restoring(self, *args, **options):
    found = restore(self, *args, **options)
    first = found.step if found else 0
    watch.lost = max(watch.reached - first, 0)
    watch.first = watch.reached = watch.begun = watch.whole = first
    return found

  def saving(self, step, *args):
    watch.begun = step
    save(self, step, *args)

  def publishing(self, step):
    publish(self, step)
    watch.whole = step

  Checkpointer.restore, Checkpointer.save = restoring, saving
  StepDirectory.publish = publishing


def _arrange(harm, place, count):
  """Prepares for harm from inside, at the `count`-th call of a function."""
  if harm == 'SIGKILL inside a save':
    owner, name = place.rsplit('.', 1)
    owner = pkgutil.resolve_name(f'vdm_jax.training.{owner}')
  elif harm == 'full disk':
    owner, name = ArrayWriter, 'write'
  else:
    return
  whole, calls = getattr(owner, name), [0]

  def harmed(*args, **options):
    calls[0] += 1
    if calls[0] == count and harm == 'full disk':
      _limit_files(1000)
    elif calls[0] == count:
      die(*args)
    return whole(*args, **options)

  setattr(owner, name, harmed)


def _limit_files(size):
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
