"""Starting from trained parameters, and learning at several rates."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vdm_jax
from tests.command_line import EIGHT, SHAPES, command, saved_by
from tests.parameters import moved_of
from tests.test_main_videofusion import pictured
from tests.test_networks import TINY, random_variables
from tests.test_videofusion import SHAPE, Small, system
from vdm_jax import main
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.pictures import Pictured
from vdm_jax.training import loop
from vdm_jax.training.optimizer import Adam, Muon
from vdm_jax.training.sharding import MeshShape
from vdm_jax.training.transfer import transfer


def tree(seed, **leaves):
  rng = np.random.default_rng(seed)
  return {
    name: {'kernel': rng.normal(size=shape)} for name, shape in leaves.items()
  }


def test_what_matches_is_taken_and_said():
  fresh = {'base': tree(0, a=(2, 3), b=(3,)), 'residual': tree(1, a=(2, 3))}
  trained = tree(2, a=(2, 3), c=(4,))
  params, report = transfer(fresh, {'base': trained})
  np.testing.assert_array_equal(
    params['base']['a']['kernel'], trained['a']['kernel']
  )
  np.testing.assert_array_equal(
    params['base']['b']['kernel'], fresh['base']['b']['kernel']
  )
  assert params['residual'] is fresh['residual']
  assert report == (
    'base: 1 of 2 arrays (6 numbers) taken; fresh: 1 (b); left out: 1 (c).'
  )
  whole, report = transfer(trained, {'': trained})
  assert report == 'all: 2 of 2 arrays (10 numbers) taken.'
  np.testing.assert_array_equal(whole['c']['kernel'], trained['c']['kernel'])


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'bas': tree(0, a=(2,))}, r'init\.bas names no part.*base, residual'),
    (
      {'base': tree(0, a=(2, 4))},
      r'a/kernel is \(2, 4\), not \(2, 3\)\): give it the same width',
    ),
    ({'base': tree(0, z=(2,))}, 'has no parameter of that network, but e.g. z'),
  ],
)
def test_what_does_not_fit_is_refused(given, message):
  fresh = {'base': tree(0, a=(2, 3)), 'residual': tree(1, a=(2, 3))}
  with pytest.raises(ValueError, match=message):
    transfer(fresh, given)


@pytest.mark.parametrize('kind', [Adam, Muon])
def test_each_part_learns_at_its_own_rate(kind):
  """0.1 takes a tenth of the step, 0 none, whatever the optimizer remembers."""
  scales = {'slow': 0.1, 'still': 0.0}
  optimizer = kind(
    warmup_steps=0, weight_decay=0.1, clip_norm=1e9, scales=scales
  ).transformation()
  kernel = {'kernel': jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))}
  params = dict.fromkeys(('fast', 'slow', 'still'), kernel)
  state = optimizer.init(params)
  start = params
  for step in range(2):
    gradient = jax.tree.map(lambda x, s=step: jnp.cos(x + s), start)
    updates, state = optimizer.update(gradient, state, start)
  params = optax.apply_updates(start, updates)
  moved = {k: params[k]['kernel'] - start[k]['kernel'] for k in params}
  assert np.abs(moved['fast']).max() > 1e-5
  np.testing.assert_allclose(
    moved['slow'], 0.1 * moved['fast'], rtol=1e-2, atol=1e-6
  )
  np.testing.assert_array_equal(moved['still'], 0)
  with pytest.raises(ValueError, match='names bse; .*fast, slow, still'):
    kind(scales={'bse': 1.0}).transformation().init(params)
  with pytest.raises(ValueError, match='give 0 or more'):
    kind(scales={'base': -1.0})


@pytest.mark.slow
def test_a_fixed_base_generator_is_the_one_that_was_given(tmp_path):
  """Through the training loop: weights, moving average and optimizer."""
  fused = system(
    base=Small(temporal=False, visual_dim=48),
    residual=Small(visual_dim=48),
    training='fixed',
  )
  source = Pictured(MovingShapes(num_clips=8, num_frames=6, height=8, width=8))
  base = jax.device_get(moved_of(fused, SHAPE)['base'])
  result = loop.train(
    fused,
    source,
    video_shape=SHAPE,
    settings=loop.TrainSettings(num_steps=2, batch_size=8, save_every=2),
    optimizer=Adam(warmup_steps=0, scales=dict.fromkeys(fused.frozen, 0.0)),
    mesh=MeshShape().build(),
    seed=0,
    workdir=tmp_path,
    initial={'base': base},
  )
  assert result.step == 2
  jax.tree.map(np.testing.assert_array_equal, result.state.params['base'], base)
  # The average of equal numbers rounds.
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    result.state.ema['base'],
    base,
  )


FUSED = SHAPES.replace(':smoke', ':videofusion,smoke')
FRAMES = SHAPES.replace(':smoke', ':image,smoke')


@pytest.fixture(scope='module')
def fused(tmp_path_factory):
  """A base generator trained on frames, and a VideoFusion that starts there."""
  folder = tmp_path_factory.mktemp('fused')
  command(folder / 'image', FRAMES, *EIGHT)
  command(
    folder / 'video',
    FUSED,
    f'--config.init.base={folder / "image"}',
    '--config.system.training=fixed',
    *EIGHT,
  )
  return folder


@pytest.mark.slow
def test_videofusion_starts_from_an_image_model_and_can_leave_it_alone(fused):
  """Two steps later, 'fixed', the base generator is still that one."""
  image, video = (vdm_jax.load(fused / name) for name in ('image', 'video'))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    video.params['base'],
    image.params,
  )
  fresh = jax.jit(lambda k: video.system.init(k, video.video_shape))(
    jax.random.key(0)
  )
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()),
    fresh['residual'],
    video.params['residual'],
  )
  assert moved['out']['kernel']
  videos = video.sample(jax.random.key(0), 2, label=[0, 1])
  assert videos.shape == (2, *video.video_shape)
  assert np.isfinite(videos).all()


@pytest.mark.slow
def test_what_started_there_is_said_and_goes_on_without(fused, capsys):
  arguments = (
    FUSED,
    f'--config.init.base={fused / "image"}',
    '--config.system.training=fixed',
    *EIGHT,
  )
  command(fused / 'again', *arguments, '--config.train.num_steps=1')
  said = capsys.readouterr().out
  assert 'base: ' in said
  assert 'taken.' in said
  other = json.loads((fused / 'again' / 'config.json').read_text())
  assert other['init'] == {'base': str(fused / 'image')}
  command(fused / 'again', *arguments)  # resumes: nothing is taken again
  assert 'taken.' not in capsys.readouterr().out


@pytest.mark.slow
def test_a_base_of_another_width_is_refused(fused, capsys):
  with pytest.raises(SystemExit):
    command(
      fused / 'wide',
      FUSED,
      f'--config.init.base={fused / "image"}',
      '--config.network.base.width=16',
      *EIGHT,
    )
  error = capsys.readouterr().err
  assert 'does not fit the network (' in error
  assert 'not (' in error
  assert not (fused / 'wide' / 'config.json').exists()


@pytest.mark.slow
def test_a_trained_model_extends_as_it_is_told(fused, tmp_path, monkeypatch):
  """Its parameters are moved: two steps of training leave hardly a trace."""

  def far(workdir, encoder=None):
    model = vdm_jax.load(workdir, encoder)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda x: x + 0.1 * rng.normal(size=x.shape).astype(x.dtype), model.params
    )
    return dataclasses.replace(model, params=params)

  monkeypatch.setattr(main, 'load', far)
  given = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 2, 16, 16, 3))
  given = given.astype(np.float32)
  np.save(tmp_path / 'given.npy', given)
  images, flag = pictured(tmp_path, 16)
  flag += ['--block_noise=shared', '--method=replacement', '--seed=3']
  flag += [f'--video={tmp_path / "given.npy"}', '--num_frames=6']
  videos = saved_by(fused / 'video', '--mode=extend', *flag)
  asked = {'block_noise': 'shared', 'method': 'replacement'}
  model, key = far(fused / 'video'), jax.random.key(3)
  expected = model.extend(key, given, 6, image=images, **asked)
  np.testing.assert_array_equal(videos, expected)
  other = model.extend(key, given, 6, image=images[::-1], **asked)
  assert np.abs(other - videos)[:, 2:].max((1, 2, 3, 4)).min() > 1e-3


@pytest.mark.parametrize(
  'image',
  [
    {'multipliers': (1,)},
    pytest.param(
      {'resample': 'block', 'text_dim': 6, 'text': 'cross'},
      marks=pytest.mark.slow,
    ),
  ],
  ids=str,
)
def test_an_inflated_image_model_is_that_model_frame_by_frame(image):
  """PYoCo, Appendix A.1: at step 0, to the bit; what mixes frames is new."""
  own = TINY.clone(temporal=False, **image)
  grown = TINY.clone(**image)
  z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3)), 'f4')
  logsnr = jnp.array([0.3, -2.0])
  trained = random_variables(own, z, logsnr)['params']
  fresh = jax.jit(lambda key: grown.init(key, z, logsnr))(jax.random.key(0))
  params, report = transfer(fresh['params'], {'': trained})
  count, more = (len(jax.tree.leaves(t)) for t in (trained, params))
  assert report.startswith(f'all: {count} of {more} arrays (')
  assert f'; fresh: {more - count} (' in report
  assert 'left out' not in report
  assert all('temporal' in m for m in report.split('(')[-1].split(', ')[:4])
  frames = jax.jit(lambda z: own.apply({'params': trained}, z, logsnr))(z)
  video = jax.jit(lambda z: grown.apply({'params': params}, z, logsnr))(z)
  np.testing.assert_array_equal(video, frames)
  alone = jax.jit(own.apply)({'params': trained}, z[:, 2:3], logsnr)
  np.testing.assert_allclose(frames[:, 2:3], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_video_model_starts_from_an_image_model(tmp_path, capsys):
  """moving_shapes:pyoco; what sees other frames is all that is fresh."""
  image, video = (
    SHAPES.replace(':smoke', f':{name},smoke')
    for name in ('pyoco,image', 'pyoco')
  )
  command(tmp_path / 'image', image, *EIGHT)
  capsys.readouterr()
  start = f'--config.init.all={tmp_path / "image"}'
  share = '--config.system.noise.correlation=inf'
  command(tmp_path / 'video', video, start, share, *EIGHT)
  own = vdm_jax.load(tmp_path / 'image')
  count = len(jax.tree.leaves(own.params))
  (report,) = re.findall(
    r'^all: (\d+) of \d+.*$', capsys.readouterr().out, re.M
  )
  assert int(report) == count
  model = vdm_jax.load(tmp_path / 'video')
  assert model.system.noise.correlation == float('inf')
  videos = model.sample(jax.random.key(0), 2, label=[0, 1])
  assert videos.shape == (2, *model.video_shape)
  assert np.isfinite(videos).all()
