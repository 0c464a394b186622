"""The papers' own experiments: their tables, their sizes, two steps of each."""

import dataclasses
import inspect
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.parameters import moved
from tests.text_cases import encode_words, write_store
from tests.video_files import numbered, write
from vdm_jax import cascade
from vdm_jax.config import choose
from vdm_jax.data import text
from vdm_jax.data.pipeline import Pipeline
from vdm_jax.data.registry import SOURCES
from vdm_jax.diffusion.noise import Mixed, Progressive
from vdm_jax.diffusion.parameterization import EDM
from vdm_jax.diffusion.schedules import Karras, LogNormal
from vdm_jax.job import build
from vdm_jax.model import Model
from vdm_jax.samplers import Churn, Kutta
from vdm_jax.training.state import TrainState
from vdm_jax.training.step import make_step
from vdm_jax.training.transfer import transfer

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'

# VDM, Appendix A, column by column.
FIELDS = (
  *('network.width', 'network.multipliers', 'network.num_blocks'),
  *('network.head_dim', 'network.embedding_dim', 'network.embedding_layers'),
  *('network.dropout', 'optimizer.learning_rate', 'optimizer.beta1'),
  *('optimizer.beta2', 'optimizer.weight_decay', 'train.batch_size'),
  *('train.ema_decay', 'train.num_steps', 'train.num_images'),
  *('data.num_frames', 'data.height', 'data.frameskip', 'sample.num_steps'),
  *('sample.sampler.variance_mix', 'system.parameterization.name'),
)
FOUR, FIVE = (1, 2, 4, 8), (1, 2, 4, 8, 16)
TABLES = {
  'ucf101': (
    *(256, FOUR, 2, 64, 1024, 4, 0.1, 3e-4, 0.9, 0.99, 0.0, 128, 0.9999),
    *(60_000, 8, 16, 64, 1, 256, 0.1, 'eps'),
  ),
  'bair': (
    *(128, (1, 2, 3, 4), 3, 64, 1024, 2, 0.1, 2e-4, 0.9, 0.999, 0.01, 128),
    *(0.999, 660_000, 8, 16, 64, 1, 256, 0.0, 'v'),
  ),
  'kinetics600': (
    *(256, FOUR, 2, 64, 1024, 2, 0.1, 2e-4, 0.9, 0.99, 0.0, 256, 0.9999),
    *(220_000, 8, 16, 64, 1, 128, 0.0, 'v'),
  ),
  'text_to_video:small': (
    *(128, FOUR, 2, 64, 1024, 4, 0.0, 3e-4, 0.9, 0.99, 0.0, 128, 0.9999),
    *(200_000, 8, 16, 64, 1, 256, 0.3, 'eps'),
  ),
  'text_to_video:large': (
    *(256, FOUR, 2, 64, 1024, 4, 0.0, 3e-4, 0.9, 0.99, 0.0, 128, 0.9999),
    *(700_000, 8, 16, 64, 1, 256, 0.3, 'eps'),
  ),
  'text_to_video:large,frameskip4': (
    *(256, FOUR, 2, 64, 1024, 4, 0.0, 3e-4, 0.9, 0.99, 0.0, 128, 0.9999),
    *(700_000, 8, 16, 64, 4, 256, 0.3, 'eps'),
  ),
  'text_to_video:upsampler': (
    *(128, FIVE, 2, 128, 1024, 4, 0.0, 2e-4, 0.9, 0.99, 0.0, 128, 0.9999),
    *(800_000, 7, 9, 128, 1, 256, 0.3, 'eps'),
  ),
}
STAGES = 'base', 'interpolation', 'sr256', 'sr1024'
# Weight of the guidance and whether Langevin moves follow the steps.
CONDITIONAL = {'bair': (50, True), 'kinetics600': (9, True)}


def config_of(name, *more):
  file, _, variant = name.partition(':')
  choice = ','.join(part for part in (variant, *more) if part)
  return runpy.run_path(str(CONFIGS / f'{file}.py'))['get_config'](choice)


@pytest.mark.parametrize('name', TABLES)
def test_every_hyperparameter_is_the_papers(name):
  config = config_of(name)
  for field, value in zip(FIELDS, TABLES[name], strict=True):
    found = config
    for part in field.split('.'):
      found = found[part]
    assert found == value, field
  assert config.data.height == config.data.width
  assert config.network.attention_resolutions == (8, 16, 32)
  assert config.optimizer.name == 'adam'
  schedule = config.system.schedule
  assert schedule.name == 'cosine'
  assert (schedule.logsnr_min, schedule.logsnr_max) == (-20, 20)
  assert config.system.loss_weight == config.system.parameterization.name
  assert config.data.flip == (name == 'bair')
  weight, langevin = CONDITIONAL.get(name, (None, False))
  assert config.sample.get('reconstruction_weight') == weight
  assert (config.sample.get('corrector') is not None) == langevin
  if langevin:
    assert config.sample.corrector.step_size == 0.1
  if name.startswith('text'):
    assert config.network.text == 'pool'
    assert config.network.text_dim == 1024  # BERT-large


@pytest.mark.parametrize(
  ('name', 'millions'),
  [
    ('ucf101', 1168),
    # Kinetics differs from UCF101 in two layers of the embedding's MLP,
    ('kinetics600', 1168 - 2 * 1024 * 1025 / 1e6),
    # text in the three matrices that pool it.
    ('text_to_video:large', 1168 + 3 * 1024**2 / 1e6),
  ],
)
def test_networks_have_the_size_of_the_paper(name, millions):
  job = build(config_of(name).to_dict())
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes_of(job))) / 1e6
  assert count == pytest.approx(millions, rel=0.001)


@pytest.mark.parametrize(
  ('size', 'width', 'multipliers', 'millions'),
  [
    ('small', 128, (1, 2, 2, 3), 69),
    ('medium', 128, (1, 2, 3, 4), 112),
    ('large', 192, (1, 2, 3, 4), 253),
  ],
)
def test_pyoco_is_the_papers(size, width, multipliers, millions):
  """Tables G, H and I, Appendix A.3, section 3; a film grows from frames."""
  config = config_of('pyoco', size)
  network, optimizer = config.network, config.optimizer
  assert (network.width, network.multipliers) == (width, multipliers)
  assert (network.dropout, network.num_blocks, network.head_dim) == (0.1, 2, 64)
  assert network.attention_resolutions == (8, 16, 32)
  assert (optimizer.learning_rate, optimizer.warmup_steps) == (1e-4, 5000)
  assert config.sample.num_steps == 25
  job = build(config.to_dict())
  assert job.sample.sampler == Churn(Kutta(), 0.1)
  assert job.system.parameterization == EDM(0.5)
  assert job.system.noise == Progressive(2.0)
  assert job.system.schedule == LogNormal(-1.2, 1.2)
  assert job.system.sample_schedule == Karras(0.002, 80.0, 7.0)
  mixed = build(config_of('pyoco', size, 'mixed').to_dict())
  assert mixed.system.noise == Mixed(1.0)
  whole = shapes_of(job)
  count = sum(leaf.size for leaf in jax.tree.leaves(whole)) / 1e6
  assert count == pytest.approx(millions, rel=0.01)
  frames = config_of('pyoco', size, 'image')
  assert (frames.optimizer.learning_rate, frames.data.num_frames) == (2e-4, 1)
  own = traverse_util.flatten_dict(shapes_of(build(frames.to_dict())))
  grown = traverse_util.flatten_dict(whole)
  assert all(grown[name].shape == leaf.shape for name, leaf in own.items())
  new = {name for name in grown if name not in own}
  assert all('temporal' in name for name in new)
  with pytest.raises(ValueError, match='small and large: give one'):
    config_of('pyoco', 'small', 'large')


@pytest.mark.parametrize(
  ('stage', 'table', 'millions'),
  [
    ('base', (256, (1, 2, 4, 4), (8, 16, 32), (8, 16, 32)), (None, 1080)),
    (
      'interpolation',
      (256, (1, 2, 4, 4), (8, 16, 32), (8, 16, 32)),
      (None, 1080),
    ),
    # eDiff-I's image model, and with convolutions over time: section 5.1.
    ('sr256', (128, (1, 2, 4, 8), (32,), (32,)), (300, 313)),
    ('sr1024', (128, (1, 2, 4, 4), (), (32,)), (170, 170)),
  ],
)
def test_pyocos_cascade_is_the_papers(stage, table, millions):
  """Tables F and J to M; what they leave open is in docs/pyoco.md."""
  config = config_of('pyoco_text_to_video', stage)
  network = config.network
  attended = network.attention_resolutions
  crossed = network.get('cross_resolutions', attended)
  found = network.width, network.multipliers, attended, crossed
  assert found == table
  assert (network.head_dim, network.dropout) == (64, 0.0)
  adam = config.optimizer
  assert (adam.learning_rate, adam.weight_decay) == (1e-4, 0.01)
  assert (adam.beta1, adam.beta2, config.train.ema_decay) == (
    0.9,
    0.999,
    0.9999,
  )
  assert (config.system.cond_dropout, config.system.clip_dropout) == (0.25, 0.2)
  assert network.remat  # gradient checkpointing
  enlarges = stage.startswith('sr')
  steps = config.train.num_steps, config.sample.num_steps
  assert steps == ((220_000, 20) if enlarges else (150_000, 60))
  job = build(config.to_dict())
  assert job.sample.sampler == (Kutta() if enlarges else Churn(Kutta(), 0.1))
  assert job.system.noise == Progressive(2.0)
  assert job.video_shape == (16, *[256 if enlarges else 64] * 2, 3)
  image = dataclasses.replace(
    job.system, network=job.system.network.clone(temporal=False)
  )
  for system, expected in zip((image, job.system), millions, strict=True):
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes(system, job)))
    assert expected is None or count / 1e6 == pytest.approx(expected, rel=0.03)


def test_stages_of_pyocos_cascade_fit_each_other():
  """Section 4: 16 x 64 x 64 to 76 x 64 x 64, 76 x 256 x 256 and 76 x 1024."""
  jobs = [build(config_of('pyoco_text_to_video', s).to_dict()) for s in STAGES]
  models = [
    Model(
      job.system,
      {},
      job.video_shape,
      job.sample,
      frameskip=float(job.config['data']['frameskip']),
    )
    for job in jobs
  ]
  assert cascade.shapes(models) == [
    (16, 64, 64, 3),
    (76, 64, 64, 3),
    (76, 256, 256, 3),
    (76, 1024, 1024, 3),
  ]
  slow = dataclasses.replace(models[0], frameskip=4.0)
  small = dataclasses.replace(models[0], video_shape=(16, 32, 32, 3))
  with pytest.raises(ValueError, match='stage 1 .* from frameskip 5, but is'):
    cascade.shapes([slow, models[1]])
  with pytest.raises(ValueError, match='the first model .* only refines'):
    cascade.shapes(models[1:])
  with pytest.raises(ValueError, match='stage 1 .* tiles of 256 rows'):
    cascade.shapes([small, models[2]])
  with pytest.raises(ValueError, match='base and sr256 are two stages'):
    config_of('pyoco_text_to_video', 'base', 'sr256')


@pytest.mark.slow
def test_interpolation_starts_from_the_base_model_and_overlooks_what_it_knows():
  """Appendix A.1 (6): at the start it is the base model."""
  base, finer = (
    build(config_of('pyoco_text_to_video', stage, 'smoke').to_dict())
    for stage in ('base', 'interpolation')
  )
  shape = finer.video_shape
  rng = np.random.default_rng(0)
  trained = moved(shapes_of(base))
  fresh = jax.jit(lambda key: finer.system.init(key, shape))(jax.random.key(0))
  adapted = finer.system.adapted(trained, fresh)
  params, report = transfer(fresh, {'': adapted})
  assert 'fresh' not in report
  z = jnp.asarray(rng.normal(size=(1, *shape)), jnp.float32)
  low = finer.system.coarse(z)
  cond = {'low': low, 'low_logsnr': jnp.ones(1)}
  one = jax.jit(lambda z: base.system.denoise(trained, {})(z, jnp.zeros(1)))
  two = jax.jit(lambda z: finer.system.denoise(params, cond)(z, jnp.zeros(1)))
  np.testing.assert_allclose(two(z), one(z), rtol=1e-4, atol=1e-4)


def test_pyoco_at_a_toy_size_grows_from_its_image_model():
  job = build(config_of('moving_shapes', 'pyoco').to_dict())
  assert job.system.noise == Progressive(2.0)
  assert job.system.sample_schedule == Karras()
  frames = config_of('moving_shapes', 'pyoco', 'image')
  assert frames.data.num_frames == 1
  own = traverse_util.flatten_dict(shapes_of(build(frames.to_dict())))
  grown = traverse_util.flatten_dict(shapes_of(job))
  assert all(grown[name].shape == leaf.shape for name, leaf in own.items())
  assert all('temporal' in name for name in grown.keys() - own.keys())
  assert len(own) < len(grown)


def shapes(system, job):
  key = jax.random.key(0)
  return jax.eval_shape(lambda k: system.init(k, job.video_shape), key)


def shapes_of(job):
  return shapes(job.system, job)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    *TABLES,
    'pyoco:small',
    *(f'pyoco_text_to_video:{stage}' for stage in STAGES),
  ],
)
def test_a_small_copy_trains(name, tmp_path):
  captions = ['a dog', 'two birds', '']
  for index, caption in enumerate(captions):
    write(tmp_path / f'{index}.mp4', numbered(16 + index))
    (tmp_path / f'{index}.txt').write_text(caption)
  write_store(tmp_path / 'text', captions)
  text.write(
    tmp_path / 'clip_text', captions, lambda c: encode_words(c, 6), 'words'
  )
  files = ('folder',) if name in ('ucf101', 'bair', 'pyoco:small') else ()
  config = config_of(name, 'smoke', *files)
  config.data.path = str(tmp_path)
  if config.data.num_frames > 4:  # as many as there are
    config.data.frameskip = 1
  job = build(config.to_dict())
  source = job.source(tmp_path)
  data = Pipeline(source, batch_size=job.train.batch_size, seed=0)
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
    assert batch['images'].shape[:2] == (2, config.train.num_images)
    arrays = {k: v for k, v in batch.items() if isinstance(v, np.ndarray)}
    state, metrics = step(state, jax.tree.map(jnp.asarray, arrays))
    assert np.isfinite(metrics['loss'])
  assert state.skipped == 0
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, state.params)
  assert moved['out']['kernel']


@pytest.mark.parametrize(
  'name', ['ucf101', 'bair', 'kinetics600', 'folder', 'pyoco:small']
)
def test_other_data_is_cut_in_the_same_way(name):
  plain, packed = config_of(name), config_of(name, 'packed')
  assert packed.data.name == 'packed'
  for field in ('num_frames', 'height', 'width', 'frameskip', 'fit', 'flip'):
    assert packed.data[field] == plain.data[field]
  for section in ('system', 'network', 'optimizer', 'train', 'sample'):
    assert packed[section] == plain[section]
  # Every field is one of the source's, and none that it needs is missing.
  parameters = inspect.signature(SOURCES['packed']).parameters
  assert set(packed.data) - {'name'} <= set(parameters)


def test_a_variant_that_is_not_there():
  assert choose('', 'smoke') == set()
  assert choose('a,smoke', 'smoke', 'a') == {'a', 'smoke'}
  with pytest.raises(ValueError, match=r"'smok' is unknown.*mean 'smoke'"):
    config_of('ucf101', 'smok')
  with pytest.raises(ValueError, match='more than one model'):
    config_of('text_to_video:large,small')
