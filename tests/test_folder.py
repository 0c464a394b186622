"""Laws of the folder source: random clips, the same ones always."""

import concurrent.futures
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.video_files import (
  CODECS,
  make,
  numbered,
  numbers,
  real,
  rng,
  write,
)
from vdm_jax.data import decode, folder
from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.pixels import Framing


@pytest.mark.parametrize('name', CODECS)
def test_a_video_of_one_frame(tmp_path, name):
  path = make(tmp_path / name, 1)
  assert decode.scan(path).num_frames == 1
  assert len(VideoFolder(tmp_path, 1)) == 1


@pytest.mark.parametrize(
  'name', ['a.png', 'a.JPG', 'a.jpeg', 'a.webp', 'a.bmp']
)
def test_every_kind_of_image(tmp_path, name):
  pixels = np.full((64, 64, 3), (200, 90, 30), np.uint8)
  Image.fromarray(pixels).save(tmp_path / name)
  video = VideoFolder(tmp_path, 1, 8, 8).clip(0, rng())['video']
  assert video.shape == (1, 8, 8, 3)
  assert np.abs(video - np.array([200.0, 90, 30])).max() < 4


def test_an_image_is_a_video_of_one_frame(tmp_path):
  Image.fromarray(numbered(4)[3]).save(tmp_path / 'i.png')
  write(tmp_path / 'v.mp4', numbered(20))
  single = VideoFolder(tmp_path, 1)
  assert len(single) == 2
  assert numbers(single.clip(0, rng())['video']) == [3]
  seen = {int(numbers(single.clip(1, rng(i))['video'])[0]) for i in range(200)}
  assert seen == set(range(20))
  several = VideoFolder(tmp_path, 5)
  assert several.skipped == [('i.png', 'too short: 1 of 5 frames')]
  assert len(several) == 1
  looped = VideoFolder(tmp_path, 5, short='loop')
  assert (numbers(looped.clip(0, rng())['video']) == 3).all()


@pytest.mark.parametrize('cache_mb', [0, 64])
def test_clips_are_every_kth_frame_from_any_start(tmp_path, cache_mb):
  write(tmp_path / 'a.mp4', numbered(20))
  source = VideoFolder(tmp_path, 4, 16, 16, frameskip=3, cache_mb=cache_mb)
  starts = set()
  for seed in range(100):
    found = numbers(source.clip(0, rng(seed))['video'])
    assert (np.diff(found) == 3).all()
    starts.add(int(found[0]))
  assert starts == set(range(11))  # 10 is the last that leaves 10 frames


@pytest.mark.fault(18)
@pytest.mark.parametrize('cache_mb', [0, 64])
def test_short_videos_loop_or_are_left_out(tmp_path, cache_mb):
  write(tmp_path / 'long.mp4', numbered(7))
  write(tmp_path / 'short.mp4', numbered(6))
  options = {'frameskip': 2, 'cache_mb': cache_mb}
  source = VideoFolder(tmp_path, 4, 16, 16, **options)
  assert source.skipped == [('short.mp4', 'too short: 6 of 7 frames')]
  assert len(source) == 1
  looped = VideoFolder(tmp_path, 4, 16, 16, short='loop', **options)
  assert not looped.skipped
  assert numbers(looped.clip(0, rng())['video']).tolist() == [0, 2, 4, 6]
  assert numbers(looped.clip(1, rng())['video']).tolist() == [0, 2, 4, 0]


@pytest.fixture
def coordinates(tmp_path):
  """An image whose red is the column and whose green is the row."""
  y, x = np.mgrid[:20, :50].astype(np.uint8)
  Image.fromarray(np.dstack([x, y, 0 * x])).save(tmp_path / 'a.png')
  return tmp_path


def corner(video):
  x, y, _ = video[0, 0, 0].astype(int)
  return int(x), int(y)


@pytest.mark.parametrize(('height', 'width'), [(20, 30), (20, 50)])
def test_random_crops_are_cuts_from_everywhere(coordinates, height, width):
  source = VideoFolder(coordinates, 1, height, width, fit='crop')
  corners = set()
  for seed in range(300):
    video = source.clip(0, rng(seed))['video']
    x, y = corner(video)
    assert (video[0, ..., 0] == x + np.arange(width)).all()
    assert (y + np.arange(height) == video[0, ..., 1].T).all()
    corners.add((x, y))
  assert corners == {(x, 0) for x in range(50 - width + 1)}


def test_patches_are_cuts_from_everywhere_of_a_larger_frame(coordinates):
  """A frame of 20 x 50 covers 2 x (10 x 25) as it is."""
  source = VideoFolder(coordinates, 1, 10, 25, fit='patch2')
  corners = {corner(source.clip(0, rng(seed))['video']) for seed in range(3000)}
  assert corners == {(x, y) for x in range(26) for y in range(11)}
  twice = VideoFolder(coordinates, 1, 20, 50, fit='patch2').clip(0, rng())
  columns = twice['video'][0, 5, :, 0].astype(int)
  assert 20 <= columns[45] - columns[5] <= 21  # 40 columns of a doubled frame


def test_centre_crop_and_mirror(coordinates):
  source = VideoFolder(coordinates, 1, 20, 30, fit='center')
  plain = source.clip(0, rng())['video']
  assert corner(plain) == (10, 0)
  flipping = VideoFolder(coordinates, 1, 20, 30, fit='center', flip=True)
  mirrored = 0
  for seed in range(200):
    video = flipping.clip(0, rng(seed))['video']
    same = (video == plain).all()
    assert same or (video == plain[:, :, ::-1]).all()
    mirrored += not same
  assert 70 < mirrored < 130


def test_pad_shows_all_between_black_bars(coordinates):
  video = VideoFolder(coordinates, 1, 40, 50, fit='pad').clip(0, rng())['video']
  with Image.open(coordinates / 'a.png') as image:
    np.testing.assert_array_equal(video[0, 10:30], np.asarray(image))
  assert not video[0, :10].any()
  assert not video[0, 30:].any()


def test_squash_uses_the_whole_frame(coordinates):
  video = VideoFolder(coordinates, 1, 10, 10, fit='squash').clip(0, rng())
  columns = video['video'][0, 5, :, 0]
  np.testing.assert_allclose(columns[1:-1], 2 + 5 * np.arange(1, 9), atol=1)


@pytest.mark.parametrize('fit', ['crop', 'center', 'pad', 'squash', 'patch3'])
def test_framing_always_ends_at_the_target(fit):
  framing = Framing(fit, 24, 32)
  for seed in range(200):
    height, width = rng(seed).integers(1, 300, 2)
    scaled = framing.scaled(height, width)
    video = framing.bars(np.zeros((1, *scaled, 3), np.uint8))
    assert framing.cut(video, rng()).shape == (1, 24, 32, 3)
    ratio = scaled[0] / height, scaled[1] / width
    if fit != 'squash' and min(scaled) > 20:
      assert abs(ratio[0] / ratio[1] - 1) < 0.06


def test_captions(tmp_path):
  for name in ('a', 'b.c'):
    Image.fromarray(numbered(1)[0]).save(tmp_path / f'{name}.png')
  (tmp_path / 'b.c.txt').write_text('ein Hündchen rennt', 'utf-8')
  source = VideoFolder(tmp_path, 1, captions=True)
  assert [source.clip(i, rng())['caption'] for i in (0, 1)] == [
    '',
    'ein Hündchen rennt',
  ]
  assert 'caption' not in VideoFolder(tmp_path, 1).clip(0, rng())


def test_files_are_found_at_all_levels_in_any_case(tmp_path):
  (tmp_path / 'sub' / '.git').mkdir(parents=True)
  for name in ('b.PNG', 'sub/a.png', '.hidden.png', 'sub/.git/x.png'):
    Image.fromarray(numbered(1)[0]).save(tmp_path / name)
  (tmp_path / 'notes.md').write_text('not data')
  (tmp_path / 'sub' / 'circle').symlink_to(tmp_path)
  source = VideoFolder(tmp_path, 1)
  assert [file.name for file in source._files] == ['b.PNG', 'sub/a.png']
  assert not source.skipped


def test_clips_depend_on_index_and_rng_alone():
  options = {'num_frames': 4, 'height': 24, 'width': 24, 'flip': True}
  cached = VideoFolder(real(), **options)
  plain = VideoFolder(real(), **options, cache_mb=0)
  cached.clip(3, rng())
  pickled = pickle.dumps(cached)
  assert len(pickled) < 5000  # frames stay here
  again = pickle.loads(pickled)
  for seed in range(3):
    for index in (2, 3):
      expected = plain.clip(index, rng(seed))['video']
      for source in (cached, again, cached):
        got = source.clip(index, rng(seed))['video']
        np.testing.assert_array_equal(got, expected)


def test_a_clip_can_be_written_to_without_harm(tmp_path):
  write(tmp_path / 'a.mp4', numbered(8))
  source = VideoFolder(tmp_path, 8, 48, 64)
  source.clip(0, rng())['video'][:] = 0
  assert numbers(source.clip(0, rng())['video']).tolist() == list(range(8))


def test_files_in_the_cache_are_decoded_once(tmp_path, monkeypatch):
  for name in ('a.mp4', 'b.mp4', 'c.mp4'):
    write(tmp_path / name, numbered(12))
  source = VideoFolder(tmp_path, 4, 16, 16)
  read, reads = decode.read, []
  monkeypatch.setattr(
    decode,
    'read',
    lambda path, *a, **k: reads.append(path) or read(path, *a, **k),
  )
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda i: source.clip(i % 3, rng(i)), range(60)))
  assert sorted(path.name for path in reads) == ['a.mp4', 'b.mp4', 'c.mp4']


def test_the_cache_keeps_to_its_size(tmp_path):
  for name in 'abc':
    write(tmp_path / f'{name}.mp4', numbered(40, 96, 96))
  source = VideoFolder(tmp_path, 4, 96, 96, cache_mb=2)
  for i in range(12):
    source.clip(i % 3, rng(i))
  assert (
    sum(frames.nbytes for frames in source._cache.values()) == 40 * 96**2 * 3
  )
  assert not source._resident - {0}


@pytest.mark.fault(12)
def test_fingerprint_follows_the_content(tmp_path):
  here, there = tmp_path / 'here', tmp_path / 'there'
  here.mkdir()
  write(here / 'a.mp4', numbered(9))
  write(here / 'b.mp4', numbered(9))
  (here / 'bad.mp4').write_bytes(b'')
  shutil.copytree(here, there)
  os.utime(there / 'a.mp4', (1, 1))
  first = VideoFolder(here, 2).fingerprint()
  assert first == VideoFolder(there, 2, cache_mb=0).fingerprint()
  (there / 'bad.mp4').unlink()  # never was part of the data
  assert first == VideoFolder(there, 2).fingerprint()

  variants = [{'num_frames': 3}, {'height': 32}, {'width': 32}]
  variants += [{'frameskip': 2}, {'short': 'loop'}, {'flip': True}]
  variants += [{'fit': fit} for fit in ('center', 'pad', 'squash')]
  variants += [{'captions': True}]
  prints = [
    VideoFolder(there, **{'num_frames': 2, **variant}).fingerprint()
    for variant in variants
  ]
  (there / 'a.txt').write_text('words')
  prints.append(VideoFolder(there, 2, captions=True).fingerprint())
  write(there / 'a.mp4', numbered(10))
  prints.append(VideoFolder(there, 2).fingerprint())
  shutil.move(there / 'b.mp4', there / 'c.mp4')
  prints.append(VideoFolder(there, 2).fingerprint())
  assert len({first, *prints}) == 1 + len(prints)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'num_frames': 0}, 'num_frames is 0'),
    ({'height': -1}, 'height is -1'),
    ({'frameskip': 0}, 'frameskip is 0'),
    ({'fit': 'stretch'}, "'crop', 'center', 'pad', 'squash'"),
    ({'short': 'pad'}, "'skip', 'loop'"),
    ({'cache_mb': -1}, 'cache_mb is -1'),
  ],
)
def test_arguments_out_of_range(coordinates, options, words):
  with pytest.raises(ValueError, match=words):
    VideoFolder(coordinates, **{'num_frames': 1, **options})


@pytest.mark.parametrize('index', [-1, 1])
def test_index_out_of_range(coordinates, index):
  with pytest.raises(IndexError, match=f'clip {index} was asked for'):
    VideoFolder(coordinates, 1).clip(index, rng())


def test_progress_is_shown_for_slow_folders(coordinates, monkeypatch, capsys):
  clock = iter(range(0, 1000, 10))
  monkeypatch.setattr(folder.time, 'monotonic', lambda: next(clock))
  VideoFolder(coordinates, 1)
  assert 'Examined 1 of 1 files.' in capsys.readouterr().err
