"""States, faults and helpers shared by the tests of checkpoints."""

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vdm_jax.training.checkpoint import Checkpointer

# A server that has imported JAX but not started it forks a fresh process in
# milliseconds, where a new interpreter takes seconds.
FORK = multiprocessing.get_context('forkserver')
FORK.set_forkserver_preload(
  ['tests.checkpoint_cases', 'vdm_jax.training.checkpoint']
)


def start(target, *args, devices=1, stderr=None):
  process = FORK.Process(target=_child, args=(stderr, devices, target, *args))
  process.start()
  return process


def _child(stderr, devices, target, *args):
  if stderr is not None:
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
  flag = '--xla_force_host_platform_device_count'
  os.environ['XLA_FLAGS'] = f'{flag}={devices}'
  target(*args)


def ends_well(child):
  child.join(60)
  return child.exitcode == 0


@flax.struct.dataclass
class State:
  step: Any
  params: Any
  ema: Any
  opt_state: Any
  key: Any


def make(seed):
  """A train state with every awkward kind of leaf, a function of `seed`."""
  draw = np.random.default_rng(seed).normal

  def params():  # no JAX arithmetic: it would compile in every child process
    return {
      'blocks': [{'w': draw(size=(32, 16)).astype(np.float32)} for _ in 'ab'],
      'half': draw(size=(5,)).astype(jnp.bfloat16),
      'a.b/c': np.array([np.nan, -0.0, np.inf, 1e-40], np.float32),
    }

  adam = optax.ScaleByAdamState(np.int32(seed), params(), params())
  state = State(
    step=np.int32(seed),
    params=params(),
    ema=params(),
    opt_state=(optax.EmptyState(), (adam, optax.EmptyState())),
    key=np.array([0, seed], np.uint32),
  )
  state = jax.device_put(state)
  return state.replace(key=jax.random.wrap_key_data(state.key))


def like():
  return jax.eval_shape(lambda: make(0))


def bits(tree):
  """Everything that must survive: structure, dtypes, shapes and bytes."""

  def raw(a):
    dtype, shape = a.dtype, a.shape
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
      a = jax.random.key_data(a)
    return str(dtype), shape, np.asarray(a).tobytes()

  return jax.tree.structure(tree), [raw(a) for a in jax.tree.leaves(tree)]


def is_step(restored, step):
  """Whether a result of `restore` is exactly the saved `make(step)`."""
  return restored.step == step and bits(restored.state) == bits(make(step))


def names(directory):
  return sorted(name for name in os.listdir(directory) if name != 'lock')


def files(directory):
  return sorted(
    p for p in directory.rglob('*') if p.is_file() and p.name != 'lock'
  )


def find_bytes(directory, raw):
  """The file and the offset where `raw` is stored."""
  for path in files(directory):
    offset = path.read_bytes().find(raw)
    if offset >= 0:
      return path, offset
  raise AssertionError(f'{raw[:9]}... is not in {directory}')


def find_array(directory, step):
  """The file and offset where the weights of `make(step)` are stored."""
  weights = np.asarray(make(step).params['blocks'][0]['w'])
  return find_bytes(directory, weights.tobytes())


def data_file(directory):
  return find_array(directory, int(directory.name))[0]


def flip_weight(directory):
  """Flips one bit of one weight; the same call undoes it."""
  path, offset = find_array(directory, int(directory.name))
  flip_bit(path, 8 * offset + 77)


def flip_bit(path, position):
  data = bytearray(path.read_bytes())
  data[position // 8] ^= 1 << (position % 8)
  path.write_bytes(data)


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


PHASES = {  # of a save: what is killed on the way in, and the step that stays
  'array_store.ArrayWriter.wait': 1,  # Orbax has just begun
  'manifest.write': 1,  # Orbax has finished, nothing is hashed
  'manifest.os.replace': 1,  # the manifest still has a temporary name
  'step_directory.StepDirectory.publish': 2,  # all but the last rename
  'step_directory.StepDirectory.prune': 2,  # done, one step too many
  'step_directory.shutil.rmtree': 2,  # while the old step goes
}


def die(*paths, **_):
  for path in paths[:1]:  # `rmtree` dies half way
    if Path(str(path)).is_dir():
      files(path)[0].unlink()
  os.kill(os.getpid(), signal.SIGKILL)


def opened(*args, **kwargs):
  return contextlib.closing(Checkpointer(*args, **kwargs))
