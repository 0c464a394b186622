"""Videos of TFDS: tiny builders of the real layouts, and its own mock data."""

import contextlib
import pickle

import numpy as np
import pytest

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.prompts import TEMPLATES, UCF101
from vdm_jax.data.registry import build_source
from vdm_jax.data.tfds import TFDS

tfds = pytest.importorskip('tensorflow_datasets')
pytestmark = pytest.mark.filterwarnings('ignore')  # of TensorFlow

LENGTHS = (12, 9, 20, 3, 15)


def level(record, frame):
  return 20 + 40 * record + 2 * frame


def frames_of(record, height=16, width=24):
  levels = [level(record, frame) for frame in range(LENGTHS[record])]
  frames = np.array(levels, np.uint8)[:, None, None, None]
  return np.tile(frames, (1, height, width, 3))


class TinyUcf(tfds.core.GeneratorBasedBuilder):
  """The features of UCF101."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    names = ['ApplyEyeMakeup', 'YoYo']
    features = {
      'video': tfds.features.Video(shape=(None, 16, 24, 3)),
      'label': tfds.features.ClassLabel(names=names),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(range(3)),
      'test': self._generate_examples(range(3, 5)),
    }

  def _generate_examples(self, records):
    for record in records:
      yield record, {'video': frames_of(record), 'label': record % 2}


class TinyBair(tfds.core.GeneratorBasedBuilder):
  """The features of BAIR."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    image = tfds.features.Image(shape=(16, 16, 3))
    features = {
      'image_main': image,
      'image_aux1': image,
      'action': tfds.features.Tensor(shape=(4,), dtype=np.float32),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.Sequence(features, length=30)
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for record in range(2):
      pixels = [
        np.full((16, 16, 3), 4 * f + record, np.uint8) for f in range(30)
      ]
      yield (
        record,
        {
          'image_main': [np.zeros((16, 16, 3), np.uint8)] * 30,
          'image_aux1': pixels,
          'action': np.zeros((30, 4), np.float32),
        },
      )


@pytest.fixture(scope='module', params=['array_record', 'tfrecord'])
def prepared(request, tmp_path_factory):
  path = tmp_path_factory.mktemp(request.param)
  for builder in (TinyUcf, TinyBair):
    builder(data_dir=path, file_format=request.param).download_and_prepare()
  return str(path)


def ucf(prepared, **options):
  return TFDS(
    'tiny_ucf', data_dir=prepared, num_frames=4, height=16, width=16, **options
  )


def read(clip):
  """(record, frame numbers) of a clip."""
  levels = clip['video'].mean((1, 2, 3)) - 20
  record = int(levels[0] // 40)
  return record, ((levels - 40 * record) / 2).tolist()


def test_clips_are_the_frames_of_their_record(prepared):
  source = ucf(prepared, frameskip=2)
  seen = set()
  for index in range(len(source)):
    for seed in range(30):
      clip = source.clip(index, np.random.default_rng(seed))
      record, frames = read(clip)
      assert frames == [frames[0] + 2 * i for i in range(4)]
      assert frames[-1] < LENGTHS[record]
      assert clip['label'] == record % 2
      assert clip['video'].shape == (4, 16, 16, 3)
      assert clip['video'].dtype == np.uint8
      seen.add((record, frames[0]))
  assert {record for record, _ in seen} == {0, 1, 2}
  # Every place of every record: 12 - 6, 9 - 6 and 20 - 6.
  assert len(seen) == pytest.approx(6 + 3 + 14, abs=3)


def test_splits_add_up(prepared):
  whole = ucf(prepared, split='train+test', short='loop')
  assert len(whole) == 5
  records = {read(whole.clip(i, np.random.default_rng(0)))[0] for i in range(5)}
  assert records == set(range(5))
  assert len(ucf(prepared, split='train[:2]')) == 2
  with pytest.raises(ValueError, match="no split 'validation'; it has"):
    ucf(prepared, split='validation')


def test_short_records_are_named_or_looped(prepared):
  source = ucf(prepared, split='test')
  records = {}
  for index in range(2):
    with contextlib.suppress(UnreadableClip):
      clip = source.clip(index, np.random.default_rng(0))
      records[index] = read(clip)[0]
  assert list(records.values()) == [4]
  (short,) = {0, 1} - set(records)
  match = f'tiny_ucf, test, record {short} .* too short: 3 of 4 frames'
  with pytest.raises(UnreadableClip, match=match):
    source.clip(short, np.random.default_rng(0))
  looped = ucf(prepared, split='test', short='loop')
  frames = [read(looped.clip(i, np.random.default_rng(0))) for i in range(2)]
  assert (3, [0, 1, 2, 0]) in frames


def test_steps_with_images_are_videos(prepared):
  options = {'data_dir': prepared, 'height': 16, 'width': 16}
  with pytest.raises(ValueError, match='image_aux1, image_main: name one'):
    TFDS('tiny_bair', **options)
  source = TFDS('tiny_bair', frames='image_aux1', **options)
  assert source.num_classes == 0
  clip = source.clip(1, np.random.default_rng(0))
  levels = clip['video'].mean((1, 2, 3))
  assert np.diff(levels).tolist() == [4] * 15
  assert 'label' not in clip


def test_a_worker_process_reads_the_same(prepared):
  source = ucf(prepared)
  copy = pickle.loads(pickle.dumps(source))
  for index in range(3):
    a, b = (s.clip(index, np.random.default_rng(7)) for s in (source, copy))
    np.testing.assert_array_equal(a['video'], b['video'])
  assert copy.fingerprint() == source.fingerprint()
  assert ucf(prepared, frameskip=2).fingerprint() != source.fingerprint()


def test_captions_are_sentences_of_the_class(prepared):
  source = ucf(prepared, captions='templates')
  texts = set(source.texts())
  assert len(texts) == 2 * len(TEMPLATES)
  seen = {
    source.clip(i, np.random.default_rng(s))['caption']
    for i in range(3)
    for s in range(60)
  }
  assert seen == texts
  assert 'a kid is doing apply eye makeup.' in texts
  assert ucf(prepared, captions='prompt').texts() == [
    'a kid playing Yo-Yo',
    'applying eye makeup',
  ]


def test_what_is_not_there_is_one_sentence(prepared, tmp_path):
  with pytest.raises(FileNotFoundError, match="no builder 'nothing_of_it'"):
    TFDS('nothing_of_it', data_dir=prepared)
  with pytest.raises(FileNotFoundError, match='not prepared in .*tfds build'):
    TFDS('tiny_ucf', data_dir=str(tmp_path))
  with pytest.raises(ValueError, match='captions'):
    ucf(prepared, captions='poem')


def test_a_cut_file_is_found_before_training(tmp_path):
  builder = TinyUcf(data_dir=tmp_path, file_format='tfrecord')
  builder.download_and_prepare()
  path = next(tmp_path.rglob('*train.tfrecord*'))
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(ValueError, match='truncated'):
    TFDS('tiny_ucf', data_dir=str(tmp_path))


@pytest.mark.parametrize(
  ('name', 'frames'),
  [('ucf101/ucf101_1', ''), ('bair_robot_pushing_small', 'image_aux1')],
)
def test_the_real_builders_with_mock_data(name, frames):
  with tfds.testing.mock_data(num_examples=2):
    source = TFDS(
      name, num_frames=4, height=16, width=16, frames=frames, short='loop'
    )
    assert len(source) == 2
    clip = source.clip(1, np.random.default_rng(0))
  assert clip['video'].shape == (4, 16, 16, 3)
  assert clip['video'].std() > 0
  assert ('label' in clip) == name.startswith('ucf101')
  assert source.num_classes == (101 if name.startswith('ucf101') else 0)
  if source.num_classes:
    names = [source.class_names(i) for i in range(101)]
    assert names == list(UCF101)


def test_a_config_names_the_builder(prepared):
  source = build_source(
    {
      'name': 'tfds',
      'builder': 'tiny_ucf',
      'data_dir': prepared,
      'num_frames': 4,
      'height': 8,
      'width': 8,
    }
  )
  clip = source.clip(0, np.random.default_rng(0))
  assert clip['video'].shape == (4, 8, 8, 3)


def test_prompts_are_in_the_order_of_the_classes():
  assert len(UCF101) == len(set(UCF101.values())) == 101
  assert list(UCF101) == sorted(UCF101, key=str.lower)
