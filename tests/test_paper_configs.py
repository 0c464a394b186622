"""The papers' own experiments: their sizes, and two steps of each."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.video_files import numbered, write
from vdm_jax.config import choose
from vdm_jax.data.pipeline import Pipeline
from vdm_jax.job import build
from vdm_jax.training.state import TrainState
from vdm_jax.training.step import make_step

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
NAMES = ['ucf101', 'bair', 'kinetics600']


def read(name, variant='', **data):
  config = runpy.run_path(str(CONFIGS / f'{name}.py'))['get_config'](variant)
  config.data.update(data)
  return build(config.to_dict())


@pytest.mark.parametrize(
  ('name', 'millions'),
  # Kinetics differs from UCF101 in two layers of the embedding's MLP.
  [('ucf101', 1168), ('kinetics600', 1168 - 2 * 1024 * 1025 / 1e6)],
)
def test_networks_have_the_size_of_the_paper(name, millions):
  job = read(name)
  params = jax.eval_shape(
    lambda key: job.system.init(key, job.video_shape), jax.random.key(0)
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
  assert count == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize('name', NAMES)
def test_a_small_copy_trains(name, tmp_path):
  for index in range(3):
    write(tmp_path / f'{index}.mp4', numbered(6 + index))
  job = read(name, 'smoke', path=str(tmp_path))
  data = Pipeline(job.source(tmp_path), batch_size=job.train.batch_size, seed=0)
  optimizer = job.optimizer.transformation()
  state = jax.jit(
    lambda key: TrainState.create(
      job.system.init(key, job.video_shape), optimizer
    )
  )(jax.random.key(0))
  step = jax.jit(
    make_step(job.system, optimizer, seed=0, decay=job.train.ema_decay)
  )
  before = state.params
  for _, batch in zip(range(job.train.num_steps), data, strict=False):
    assert batch['images'].shape[:2] == (2, 8)
    state, metrics = step(state, jax.tree.map(jnp.asarray, batch))
    assert np.isfinite(metrics['loss'])
  assert state.skipped == 0
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, state.params)
  assert moved['out']['kernel']


def test_a_variant_that_is_not_there():
  assert choose('', 'smoke') == set()
  assert choose('a,smoke', 'smoke', 'a') == {'a', 'smoke'}
  with pytest.raises(ValueError, match=r"'smok' is unknown.*mean 'smoke'"):
    read('ucf101', 'smok')
