"""A model measured by a protocol: which clips, which numbers, which errors."""

import dataclasses
import json
import os
import signal
import types

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.checkpoint_cases import start
from tests.video_files import write
from vdm_jax import fidelity
from vdm_jax.conditions import Conditions
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_float
from vdm_jax.data.reference import CLIPS, RealClips
from vdm_jax.metrics import extractors
from vdm_jax.metrics.features import Extractor, Network, WeightFile
from vdm_jax.metrics.measure import Videos, measure
from vdm_jax.metrics.protocol import METRICS, PROTOCOLS, Metric
from vdm_jax.metrics.report import table
from vdm_jax.metrics.store import FeatureStore
from vdm_jax.training.sampling import SampleSettings

SHAPES = {
  'name': 'moving_shapes',
  'num_frames': 4,
  'height': 8,
  'width': 8,
}


class Linear(nn.Module):
  """Three numbers of a video: sums of its pixels with fixed weights."""

  @nn.compact
  def __call__(self, video):
    kernel = self.param('kernel', nn.initializers.ones, (3, 3))
    return {'logits': video.mean((1, 2, 3)) @ kernel}


TINY = Extractor(
  Linear(),
  lambda arrays, path: arrays['.'.join(path)],
  size=8,
  resize='half_pixel',
  files=(WeightFile('tiny.npz', 'this test', sha256=''),),
  frames=(2, None),
)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
  return use_tiny(monkeypatch, tmp_path)


def use_tiny(monkeypatch, folder):
  """Every protocol with one small network, whose weights are in a folder."""
  monkeypatch.setattr(fidelity, 'EXTRACTORS', {'i3d': TINY})
  monkeypatch.setattr(extractors, 'EXTRACTORS', {'i3d': TINY})
  only = {
    name: dataclasses.replace(known, metrics=('fvd',))
    for name, known in PROTOCOLS.items()
  }
  monkeypatch.setattr(fidelity, 'PROTOCOLS', only)
  rng = np.random.default_rng(0)
  np.savez(folder / 'tiny.npz', kernel=rng.standard_normal((3, 3)))
  return str(folder)


class Model:
  """Draws noise about a brightness, and counts what it draws."""

  video_shape = (4, 8, 8, 3)
  conditions = Conditions(5)
  system = types.SimpleNamespace(refines=(1, 1))
  step, fingerprint = 7, 'one'

  def __init__(self, batch_size=8, fail_after=None):
    self.settings = SampleSettings(batch_size=batch_size)
    self.labels, self.known = [], []
    self._left = fail_after

  def sample(self, key, num, *, batch_size, label):
    if self._left is not None:
      self._left -= 1
      if self._left < 0:
        raise KeyboardInterrupt
    self.labels += list(label)
    del batch_size
    noise = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    shape = num, *self.video_shape
    return np.clip(noise.normal(0.2, 0.3, shape), -1, 1).astype(np.float32)

  def extend(self, key, videos, num_frames, *, label):
    del key, label
    self.known += list(videos)
    rest = num_frames - videos.shape[1]
    return np.pad(videos, [(0, 0), (0, rest), (0, 0), (0, 0), (0, 0)])


@pytest.mark.fault(32)
def test_a_killed_evaluation_goes_on_to_the_same_numbers(tmp_path, tiny):
  options = {'weights': tiny, 'num_real': 20, 'num_generated': 30}
  whole = fidelity.evaluate(Model(), SHAPES, tmp_path / 'a', **options)
  with pytest.raises(KeyboardInterrupt):
    fidelity.evaluate(Model(fail_after=2), SHAPES, tmp_path / 'b', **options)
  rest = Model()
  again = fidelity.evaluate(rest, SHAPES, tmp_path / 'b', **options)
  assert again['metrics'] == whole['metrics']
  assert len(rest.labels) == 30 - 16  # two shards of 8 were there
  assert not list((tmp_path / 'b').rglob('*.tmp'))


def _evaluate_and_die(folder, options, flags):
  os.environ['XLA_FLAGS'] = flags  # other ones round in another way
  use_tiny(pytest.MonkeyPatch(), folder)
  shards, replace = [], os.replace

  def dying(source, target):  # a shard is written, but not in its place
    shards.extend([target] if 'generated' in str(target) else [])
    if len(shards) == 4:  # what the features are of, and two shards
      os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

  os.replace = dying
  fidelity.evaluate(Model(), SHAPES, folder / 'b', **options)


@pytest.mark.slow
@pytest.mark.fault(32)
def test_sigkill_of_an_evaluation_changes_no_number(tmp_path, tiny):
  options = {'weights': tiny, 'num_real': 20, 'num_generated': 30}
  whole = fidelity.evaluate(Model(), SHAPES, tmp_path / 'a', **options)
  child = start(_evaluate_and_die, tmp_path, options, os.environ['XLA_FLAGS'])
  child.join(300)
  assert child.exitcode == -signal.SIGKILL
  rest = Model()
  again = fidelity.evaluate(rest, SHAPES, tmp_path / 'b', **options)
  assert again['metrics'] == whole['metrics']
  assert len(rest.labels) == 30 - 16  # two shards of 8 were there


def test_the_report_is_written_with_everything_that_moves_its_numbers(
  tmp_path, tiny
):
  model = Model()
  report = fidelity.evaluate(
    model, SHAPES, tmp_path, weights=tiny, num_real=20, num_generated=30
  )
  stored = json.loads((tmp_path / 'evaluation' / 'own.json').read_text())
  assert stored == {k: v for k, v in report.items() if k != 'path'}
  assert stored['step'] == 7
  assert stored['protocol']['seed'] == 0
  assert stored['sample']['num_steps'] == '256'
  assert len(stored['weights']['i3d']['sha256']) == 64
  assert stored['metrics']['fvd']['floor_counts'] == [20, 20]
  assert model.labels == list(Conditions(5).labels_in_turn(30))
  text = table(report)
  for word in (
    '30 videos of 4 frames',
    '20 real clips',
    'frechet, 1/(N-1)',
    'NOT COMPARABLE',
  ):
    assert word in text


@pytest.mark.parametrize('change', [{'step': 8}, {'fingerprint': 'two'}])
def test_another_model_or_protocol_shares_no_features(tmp_path, tiny, change):
  options = {'weights': tiny, 'num_real': 8, 'num_generated': 8}
  fidelity.evaluate(Model(), SHAPES, tmp_path, **options)
  later = Model()
  vars(later).update(change)
  fidelity.evaluate(later, SHAPES, tmp_path, **options)
  assert len(later.labels) == 8  # drawn again
  folders = [p.name.rsplit('_', 1)[0] for p in tmp_path.glob('evaluation/*_*')]
  assert sorted(folders) == ['generated', 'generated', 'other_real', 'real']


def test_a_model_that_only_refines_is_refused_before_anything(tmp_path, tiny):
  model = Model()
  model.system = types.SimpleNamespace(refines=(1, 2))
  with pytest.raises(ValueError, match='use it for upsample'):
    fidelity.evaluate(model, SHAPES, tmp_path, weights=tiny)
  assert not list(tmp_path.glob('evaluation*'))


@pytest.mark.fault(33)
def test_what_differs_from_the_paper_is_said(tmp_path, tiny):
  report = fidelity.evaluate(
    Model(),
    SHAPES,
    tmp_path,
    protocol='vdm_ucf101',
    weights=tiny,
    num_real=8,
    num_generated=8,
  )
  assert report['not_comparable'] == [
    'data is moving_shapes, not ucf101',
    'height is 8, not 64',
    'width is 8, not 64',
    'num_real is 8, not 95370',
    'num_generated is 8, not 10000',
  ]
  report = fidelity.evaluate(
    Model(), SHAPES, tmp_path, weights='random', num_real=8, num_generated=8
  )
  assert 'the feature networks have random weights' in report['not_comparable']
  assert report['path'].endswith('own_random_weights.json')


def test_nothing_differs_where_nothing_differs():
  shape = 16, 64, 64, 3
  data = {'name': 'tfds', 'builder': 'ucf101/ucf101_1', 'frameskip': 1}
  assert not PROTOCOLS['vdm_ucf101'].differences(data, shape)
  data = {'name': 'list', 'layout': 'kinetics'}
  assert not PROTOCOLS['vdm_kinetics600'].differences(data, shape)
  (found,) = PROTOCOLS['vdm_bair'].differences(data, shape)
  assert found == 'data is list, not bair_robot_pushing_small'
  (found,) = PROTOCOLS['vdm_kinetics600'].differences(
    {**data, 'frameskip': 2}, shape
  )
  assert found == 'frameskip is 2, not 1'


@pytest.mark.fault(24)
@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({}, 'give the folder of their weights as --weights=DIR'),
    ({'weights': 'nowhere'}, r'nowhere lacks .* tiny.npz \(this test\)'),
    ({'protocol': 'vdm_ucf'}, "Did you mean 'vdm_ucf101'"),
    (
      {'weights': 'random', 'num_generated': 3},
      'is 3: give at least 4',
    ),
  ],
)
def test_nothing_is_drawn_before_everything_is_there(
  tmp_path, tiny, options, match
):
  model = Model()
  with pytest.raises((ValueError, OSError), match=match):
    fidelity.evaluate(model, SHAPES, tmp_path, **options)
  assert not model.labels
  assert not list(tmp_path.glob('evaluation'))


@pytest.mark.fault(33)
def test_a_network_that_cannot_take_the_videos_is_refused_first(tmp_path, tiny):
  model = Model()
  model.video_shape = (1, 8, 8, 3)
  with pytest.raises(ValueError, match='takes at least 2 frames'):
    fidelity.evaluate(model, SHAPES, tmp_path, weights=tiny)


@pytest.mark.fault(24)
def test_a_file_that_is_not_the_published_one_is_refused(tiny, monkeypatch):
  file = WeightFile('tiny.npz', 'this test', sha256='0000')
  changed = dataclasses.replace(TINY, files=(file,))
  monkeypatch.setattr(extractors, 'EXTRACTORS', {'i3d': changed})
  with pytest.raises(ValueError, match='begins with 0000: it is damaged'):
    extractors.load('i3d', tiny)


def test_features_that_are_not_finite_are_an_error(tmp_path, tiny):
  np.savez(f'{tiny}/tiny.npz', kernel=np.full((3, 3), 3e38))
  with pytest.raises(ValueError, match='not finite'):
    fidelity.evaluate(
      Model(), SHAPES, tmp_path, weights=tiny, num_real=8, num_generated=8
    )


def test_videos_of_another_length_are_extended_or_cut(tmp_path, tiny):
  model, seen = Model(), []
  extend = model.extend

  def watched(key, videos, num_frames, **options):
    seen.append((videos.shape[1], num_frames))
    return extend(key, videos, num_frames, **options)

  model.extend = watched
  report = fidelity.evaluate(
    model,
    SHAPES,
    tmp_path,
    weights=tiny,
    num_real=8,
    num_generated=8,
    num_frames=6,
  )
  assert seen == [(4, 6)]
  assert (report['frames'], report['frames_at_once']) == (6, 4)
  seen.clear()
  fewer = fidelity.evaluate(
    model,
    SHAPES,
    tmp_path,
    weights=tiny,
    num_real=8,
    num_generated=8,
    num_frames=3,
  )
  assert not seen
  assert fewer['frames'] == 3


def test_continued_videos_begin_as_the_real_clips_do(tmp_path, tiny):
  # BAIR: one frame is known, and every clip is continued per_clip times.
  chosen = dataclasses.replace(fidelity.PROTOCOLS['vdm_bair'], per_clip=3)
  fidelity.PROTOCOLS['vdm_bair'] = chosen
  model = Model(batch_size=4)
  data = {**SHAPES, 'split': 'validation'}
  options = {'protocol': 'vdm_bair', 'weights': tiny}
  with pytest.raises(ValueError, match='split'):
    fidelity.evaluate(model, data, tmp_path, **options)
  fidelity.PROTOCOLS['vdm_bair'] = dataclasses.replace(
    chosen, split='validation', num_real=4, num_generated=12
  )
  fidelity.evaluate(model, data, tmp_path, **options)
  real = RealClips(data, num=4, split='validation', clips='first')
  expected = to_float(real(0, 4))[:, :1].repeat(3, 0)
  np.testing.assert_array_equal(np.stack(model.known), expected)


def test_features_do_not_depend_on_the_batch():
  videos = np.random.default_rng(0).integers(0, 256, (5, 4, 8, 8, 3), np.uint8)
  params = {'kernel': np.eye(3, dtype=np.float32)}
  whole = Network(TINY, params, batch_size=8)(videos)['logits']
  np.testing.assert_allclose(whole, to_float(videos).mean((1, 2, 3)), atol=1e-6)
  for size in (1, 2, 5):
    part = Network(TINY, params, batch_size=size)(videos)['logits']
    np.testing.assert_allclose(part, whole, atol=1e-6)


def test_frames_of_images_come_back_in_their_videos(monkeypatch):
  class Mean(nn.Module):
    @nn.compact
    def __call__(self, image):
      return {'features': image.mean((1, 2))}

  image = dataclasses.replace(TINY, network=Mean(), per_frame=True)
  videos = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 3), np.uint8)
  features = Network(image, {}, batch_size=5)(videos)['features']
  np.testing.assert_allclose(features, to_float(videos).mean((2, 3)), atol=1e-6)


def store_of(path, features, metric, size=7):
  """A store of given features."""
  store = FeatureStore(path, {}, len(features), size)
  key = f'{metric.extractor}/{metric.output}'

  class Given:
    def __call__(self, part):
      return {metric.output: part}

  store.fill(
    lambda first, count: features[first : first + count],
    {metric.extractor: Given()},
    key,
  )
  return store


FVD = METRICS['fvd']


def test_the_error_is_the_spread_over_new_samples(tmp_path):
  rng = np.random.default_rng(0)
  real = rng.normal(0, 1, (5000, 2))
  real = Videos(store_of(tmp_path / 'real', real, FVD, size=5000))
  values, errors = [], []
  for repeat in range(40):
    drawn = rng.normal(1, 2, (100, 2))
    videos = Videos(store_of(tmp_path / f'{repeat}', drawn, FVD, size=100))
    result = measure(FVD, real, videos)
    values.append(result.value)
    errors.append(result.error)
  # The closed form: a shift of 1 and twice the spread, in two dimensions.
  assert np.mean(values) == pytest.approx(2 * (1 + 1), rel=0.1)
  # The spread of 40 numbers is itself known to 11 %.
  assert np.mean(errors) == pytest.approx(np.std(values), rel=0.35)


@pytest.mark.parametrize('name', ['fvd', 'kvd', 'is_i3d'])
def test_numbers_do_not_depend_on_shards(tmp_path, name):
  rng = np.random.default_rng(0)
  real, generated = rng.normal(0, 1, (2, 23, 3))
  results = [
    measure(
      METRICS[name],
      Videos(store_of(tmp_path / f'r{size}', real, METRICS[name], size)),
      Videos(store_of(tmp_path / f'g{size}', generated, METRICS[name], size)),
      resamples=3,
    )
    for size in (4, 23)
  ]
  for a, b in zip(*map(dataclasses.astuple, results), strict=True):
    assert a == pytest.approx(b, rel=1e-9)


def test_hosts_share_the_shards_of_a_set(tmp_path):
  features = np.random.default_rng(0).normal(0, 1, (23, 3))
  asked = []

  def videos(first, count):
    asked.append(first)
    return features[first : first + count]

  network = {'i3d': lambda part: {'logits': part}}
  for host in (2, 0, 1):
    store = FeatureStore(tmp_path, {}, 23, 5)
    store.fill(videos, network, 'test', host, 3)
  assert asked == [10, 0, 15, 5, 20]
  read = np.concatenate(list(store.features('i3d', 'logits')))
  np.testing.assert_array_equal(read, features)


def test_videos_of_one_real_clip_are_drawn_together(tmp_path):
  features = np.random.default_rng(0).normal(0, 1, (12, 2))
  videos = Videos(store_of(tmp_path, features, FVD), group=4)
  times = videos.resample(np.random.default_rng(1)).reshape(3, 4)
  assert (times == times[:, :1]).all()
  assert times.sum() == 12
  halves = [dataclasses.replace(videos, half=half) for half in (0, 1)]
  assert [len(half) for half in halves] == [8, 4]


def test_frames_are_averaged_taken_first_or_taken_all(tmp_path):
  features = np.random.default_rng(0).normal(0, 1, (9, 5, 3)).astype(np.float32)
  base = Metric('inception', 'features', 'frechet', 'all')
  videos = Videos(store_of(tmp_path, features, base))
  expected = {
    'all': features.reshape(-1, 3),
    'mean': features.mean(1, dtype=np.float64),
    'first': features[:, 0],
  }
  for frames, wanted in expected.items():
    moments = videos.moments(dataclasses.replace(base, frames=frames))
    assert moments.count == len(wanted)
    np.testing.assert_allclose(
      moments.covariance(), np.cov(wanted.T.astype(np.float64)), rtol=1e-9
    )


@pytest.mark.fault(33)
def test_a_store_of_something_else_is_refused(tmp_path):
  FeatureStore(tmp_path, {'step': 1}, 4, 2)
  with pytest.raises(ValueError, match='another evaluation'):
    FeatureStore(tmp_path, {'step': 2}, 4, 2)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Six videos; every frame's brightness says which video and frame it is."""
  path = tmp_path_factory.mktemp('videos')
  for video in range(6):
    levels = 20 + 3 * (12 * video + np.arange(12, dtype=np.uint8))
    frames = np.tile(levels[:, None, None, None], (1, 24, 32, 3))
    write(path / f'{video}.mp4', frames)
  return path


def clips_of(folder, **options):
  data = {
    'name': 'folder',
    'path': str(folder),
    'num_frames': 4,
    'height': 8,
    'width': 8,
    'flip': True,
  }
  return RealClips(data, **{'split': 'train', 'num': 0, **options})


def videos_of(clips):
  """Which of the six videos each clip is of, and its first frame."""
  brightness = clips[:, 0].mean((1, 2, 3))
  return np.divmod(np.rint((brightness - 20) / 3).astype(int), 12)


def test_every_video_comes_once_and_always_the_same(folder):
  real = clips_of(folder)
  assert real.total == 6
  assert not real.has_split
  clips = real(0, 6)
  np.testing.assert_array_equal(real(2, 3), clips[2:5])
  assert sorted(videos_of(clips)[0]) == list(range(6))
  assert len(set(videos_of(clips_of(folder, seed=1)(0, 6))[0])) == 6
  assert (clips_of(folder, seed=1)(0, 6) != clips).any()


def test_a_second_stream_is_of_other_videos(folder):
  real = clips_of(folder, num=3)
  assert real.has_more
  first, second = (set(videos_of(real(0, 3, s))[0]) for s in (0, 1))
  assert not first & second
  assert not clips_of(folder, num=4).has_more


def test_more_clips_than_videos_are_other_clips_of_them(folder):
  videos, frames = videos_of(clips_of(folder, num=36)(0, 36))
  assert np.bincount(videos).tolist() == [6] * 6
  assert len(set(frames)) > 4


def test_with_replacement_videos_come_again(folder):
  real = clips_of(folder, replacement=True)
  counts = np.bincount(videos_of(real(0, 6))[0], minlength=6)
  assert counts.max() > 1


def test_first_clips_begin_with_the_video(folder):
  _, frames = videos_of(clips_of(folder, clips='first')(0, 6))
  assert not frames.any()


def test_a_damaged_video_is_replaced_and_named(folder, monkeypatch):
  real = clips_of(folder)
  whole = real._source.clip

  def clip(index, rng):
    if index == 3:
      raise UnreadableClip('3.mp4', 'damaged')
    return whole(index, rng)

  monkeypatch.setattr(real._source, 'clip', clip)
  assert set(videos_of(real(0, 6))[0]) == {0, 1, 2, 4, 5}
  assert real.skipped == {'3.mp4': 'damaged'}


def test_protocols_are_those_of_the_papers():
  # VDM sections 4.1 and 4.2, PYoCo section 5.1: counts and conditions.
  numbers = {
    name: (p.num_generated, p.num_real, p.known_frames, p.per_clip)
    for name, p in PROTOCOLS.items()
  }
  assert numbers['vdm_ucf101'][0] == 10_000
  assert numbers['vdm_bair'] == (100 * 256, 256, 1, 100)
  assert numbers['vdm_kinetics600'] == (50_000, 50_000, 5, 1)
  assert numbers['videofusion_ucf101'][:2] == (2048, 2048)
  assert numbers['vdm_text_train'][0] == 4096
  assert numbers['pyoco_msrvtt'][0] == 59_794
  assert not PROTOCOLS['vdm_kinetics600'].replacement
  assert PROTOCOLS['vdm_kinetics600_replacement'].replacement
  for known in PROTOCOLS.values():
    assert known.clips in CLIPS
    assert set(known.metrics) <= set(METRICS)
    assert {METRICS[m].extractor for m in known.metrics} <= set(
      extractors.EXTRACTORS
    )
