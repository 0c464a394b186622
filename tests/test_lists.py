"""Lists of videos: every layout, times of variable frame rate, bad rows."""

import json
import pickle
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.video_files import numbered, numbers, write
from vdm_jax.data import decode, lists
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.listed import VideoList
from vdm_jax.data.pipeline import Pipeline


def rng(seed=0):
  return np.random.default_rng(seed)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Ten frames a second; the level of a frame says its number."""
  path = tmp_path_factory.mktemp('videos')
  for name in ('a', 'b'):
    write(path / f'{name}.mp4', numbered(30))
  return path


def listed(folder, text, name='list.csv', **options):
  (folder / name).write_text(text)
  sizes = {'num_frames': 3, 'height': 24, 'width': 32}
  return VideoList(str(folder / name), str(folder), **{**sizes, **options})


def starts(source, index=0, tries=60):
  """First frames of many clips, and the distance of their frames."""
  clips = [numbers(source.clip(index, rng(s))['video']) for s in range(tries)]
  return {int(clip[0]) for clip in clips}, {tuple(np.diff(c)) for c in clips}


def test_a_row_is_a_part_of_a_file(folder):
  source = listed(folder, 'path,start,end\na.mp4,0.5,1.2\nb.mp4,,\n')
  first, steps = starts(source)
  assert first == {5, 6, 7, 8, 9}  # frames 5 to 11 are shown before 1.2 s
  assert steps == {(1, 1)}
  first, _ = starts(source, 1, 300)
  assert first == set(range(28))


def test_frames_are_skipped_within_the_part(folder):
  source = listed(folder, 'path,start,end\na.mp4,0.5,1.2\n', frameskip=3)
  assert starts(source) == ({5}, {(3, 3)})
  looped = listed(
    folder, 'path,start,end\na.mp4,0.5,0.7\n', short='loop', num_frames=5
  )
  frames = numbers(looped.clip(0, rng())['video']).tolist()
  assert frames == [5, 6, 5, 6, 5]


@pytest.mark.fault(19)
def test_times_are_those_at_which_frames_are_shown(tmp_path):
  # Five frames in the first half second, then one each second.
  path, frames = tmp_path / 'phone.mp4', numbered(10)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=10)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.time_base = Fraction(1, 1000)
    stream.codec_context.time_base = Fraction(1, 1000)
    for i, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts = 100 * i if i < 5 else 500 + 1000 * (i - 5)
      frame.time_base = Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  timeline = decode.scan(path)
  expected = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 2.5, 3.5, 4.5]
  np.testing.assert_allclose(timeline.times, expected, atol=1e-3)
  assert timeline.between(0.25, 2.0) == (3, 7)
  source = listed(tmp_path, 'path,start,end\nphone.mp4,0.25,3.0\n')
  assert starts(source)[0] == {3, 4, 5}


def test_labels_and_captions_come_along(folder):
  source = listed(
    folder,
    'path,label,caption\na.mp4,run,"a dog, running"\nb.mp4,jump,\n',
    captions=True,
  )
  assert source.num_classes == 2
  assert [source.class_names(i) for i in range(2)] == ['jump', 'run']
  clips = [source.clip(i, rng()) for i in range(2)]
  assert [int(c['label']) for c in clips] == [1, 0]
  assert [c['caption'] for c in clips] == ['a dog, running', '']
  assert source.texts() == ['a dog, running']


def test_kinetics(folder):
  # The times are of the whole video on the web; the files are cut already.
  (folder / 'train' / 'golf').mkdir(parents=True, exist_ok=True)
  write(folder / 'train' / 'golf' / 'x_000005_000015.mp4', numbered(12))
  write(folder / 'y_000000_000010.mp4', numbered(8))
  text = (
    'label,youtube_id,time_start,time_end,split\n'
    'golf,x,5,15,train\nyoga,y,0,10,train\nyoga,z,0,10,test\n'
  )
  source = listed(folder, text, layout='kinetics', split='train')
  assert len(source) == 2
  assert source.num_classes == 2
  assert starts(source, 0, 100)[0] == set(range(10))
  assert starts(source, 1, 100)[0] == set(range(6))
  missing = listed(folder, text, layout='kinetics', split='test')
  with pytest.raises(UnreadableClip, match=r'z_000000_000010.*missing file'):
    missing.clip(0, rng())


def test_msrvtt(folder):
  content = {
    'videos': [
      {'video_id': 'a', 'category': 3, 'split': 'train'},
      {'video_id': 'b', 'category': 1, 'split': 'test'},
    ],
    'sentences': [
      {'video_id': 'b', 'caption': 'one'},
      {'video_id': 'a', 'caption': 'two'},
      {'video_id': 'b', 'caption': 'three'},
    ],
  }
  source = listed(
    folder,
    json.dumps(content),
    'msrvtt.json',
    layout='msrvtt',
    split='test',
    captions=True,
  )
  seen = {source.clip(0, rng(s))['caption'] for s in range(20)}
  assert seen == {'one', 'three'}
  assert len(source) == 1


def test_webvid(folder):
  (folder / 'p1').mkdir(exist_ok=True)
  write(folder / 'p1' / '77.mp4', numbered(9))
  text = 'videoid,contentUrl,duration,page_dir,name\n77,u,PT1S,p1,A cat\n'
  source = listed(folder, text, layout='webvid', captions=True)
  assert source.clip(0, rng())['caption'] == 'A cat'
  assert source.num_classes == 0


@pytest.mark.fault(25)
@pytest.mark.parametrize(
  ('text', 'match'),
  [
    ('path\n../secret.mp4\n', "row 1: '../secret.mp4' leads outside"),
    ('path\na.mp4\n/etc/passwd\n', "row 2: '/etc/passwd' leads outside"),
    ('path\na/../../b.mp4\n', 'leads outside'),
    ('path\n"a\\..\\..\\b.mp4"\n', 'leads outside'),
    ('path\nhttp://x/y.mp4\n', 'leads outside'),
    ('name\na.mp4\n', 'lacks the columns path; it has name'),
    ('path,start\na.mp4,soon\n', "row 1: 'soon' is not a number"),
    ('path,start,end\na.mp4,2,1\n', 'the end 1 s is not after the start 2 s'),
    ('path\n', 'has no rows'),
    ('path,label\na.mp4,run\nb.mp4,\n', 'rows without a label'),
  ],
)
def test_bad_lists_are_one_sentence(folder, text, match):
  with pytest.raises(ValueError, match=match):
    listed(folder, text)


def test_what_is_not_there_is_said(folder):
  with pytest.raises(ValueError, match="split 'tset' among its 1"):
    listed(folder, 'path,split\na.mp4,test\n', split='tset')
  with pytest.raises(ValueError, match='layout'):
    listed(folder, 'path\na.mp4\n', layout='excel')
  with pytest.raises(FileNotFoundError, match='no list'):
    lists.read(folder / 'nothing.csv', 'plain')
  with pytest.raises(FileNotFoundError, match='no folder'):
    VideoList(str(folder / 'list.csv'), str(folder / 'nowhere'))


@pytest.mark.fault(25)
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
  secret = write(tmp_path / 'secret.mp4', numbered(9))
  inside = tmp_path / 'inside'
  inside.mkdir()
  (inside / 'x.mp4').symlink_to(secret)
  source = listed(inside, 'path\nx.mp4\n')
  with pytest.raises(UnreadableClip, match='outside of the folder'):
    source.clip(0, rng())


def test_parts_that_are_too_short_are_named(folder):
  source = listed(folder, 'path,start,end\na.mp4,0.5,0.6\n')
  with pytest.raises(UnreadableClip, match='too short: 1 of 3 frames'):
    source.clip(0, rng())


def test_a_pipeline_replaces_and_names_missing_files(folder):
  source = listed(folder, 'path\na.mp4\ngone.mp4\nb.mp4\n')
  stream = Pipeline(source, batch_size=3, seed=0)
  batch = next(iter(stream))
  assert batch['video'].shape == (3, 3, 24, 32, 3)
  (path,) = stream.skipped
  assert path.endswith('gone.mp4')


def test_hosts_and_workers_see_the_same(folder):
  source = listed(folder, 'path,start\na.mp4,0\na.mp4,1\nb.mp4,0\nb.mp4,1\n')
  whole = next(iter(Pipeline(source, batch_size=4, seed=3)))['video']
  halves = [
    next(iter(Pipeline(source, batch_size=4, seed=3, host=h, num_hosts=2)))
    for h in range(2)
  ]
  parts = np.concatenate([half['video'] for half in halves])
  np.testing.assert_array_equal(parts, whole)
  copy = pickle.loads(pickle.dumps(source))
  assert copy.fingerprint() == source.fingerprint()
  np.testing.assert_array_equal(
    copy.clip(1, rng())['video'], source.clip(1, rng())['video']
  )
