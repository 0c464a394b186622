"""Files that cannot be used are named, and never taken for whole ones."""

import pickle
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from tests.video_files import (
  CODECS,
  bikes,
  cut,
  damage,
  numbered,
  rng,
  small,
  write,
  write_gif,
)
from vdm_jax.data import decode
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.folder import VideoFolder


def audio_only(path):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=8000)
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), 'fltp', 'mono'
    )
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def playlist(path):
  write(path.with_name('.other.mp4'), numbered(9))
  path.write_text('ffconcat version 1.0\nfile .other.mp4\n')
  with av.open(str(path), options={'safe': '0'}) as container:  # a real danger
    assert len(list(container.decode(video=0))) == 9


def web_playlist(path):
  write(path.with_name('.other.mp4'), numbered(9))
  path.write_text('#EXTM3U\n#EXTINF:9,\n.other.mp4\n#EXT-X-ENDLIST\n')


def other_container(path):
  write(path.with_name('.other.mkv'), numbered(9))
  path.with_name('.other.mkv').rename(path)


def thin(path):
  write(path, numbered(9, 16, 144))


def deep_image(path):
  Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)


def cut_image(path):
  Image.fromarray(rng().integers(0, 256, (32, 32, 3), np.uint8)).save(path)
  cut(path, 0.5)


def no_index(path):
  write(path, numbered(9))
  cut(path, 0.9)


BAD = [
  ('bad.mp4', lambda path: path.touch(), 'empty file'),
  ('bad.png', lambda path: path.touch(), 'empty file'),
  ('bad.mp4', lambda path: path.write_bytes(rng().bytes(9999)), 'not a video'),
  ('bad.avi', lambda path: path.write_bytes(rng().bytes(9999)), 'not a video'),
  ('bad.webm', lambda path: path.write_text('hello ' * 99), 'not a video'),
  ('bad.gif', lambda path: path.write_text('hello ' * 99), 'not a video'),
  ('bad.mp4', lambda path: path.mkdir(), None),
  ('bad.mp4', no_index, 'not a video'),
  ('bad.mp4', playlist, 'not a video'),
  ('bad.mp4', web_playlist, 'not a video'),
  ('bad.mp4', other_container, 'not a video'),
  ('bad.mp4', audio_only, 'no video stream'),
  ('bad.mp4', lambda path: write(path, numbered(4)), 'too short'),
  ('bad.mp4', thin, 'too elongated'),
  ('bad.jpg', lambda path: path.write_text('hello'), 'not an image'),
  ('bad.png', cut_image, 'corrupt'),
  ('bad.png', deep_image, 'not 8 bits'),
]


@pytest.mark.fault(16, 18, 25)
@pytest.mark.parametrize(('name', 'spoil', 'code'), BAD)
def test_bad_files_are_left_out_and_named(tmp_path, name, spoil, code):
  write(tmp_path / 'good.mp4', numbered(9))
  spoil(tmp_path / name)
  source = VideoFolder(tmp_path, 1 if code in ('corrupt', 'not 8 bits') else 5)
  assert [file.name for file in source._files] == ['good.mp4']
  if code is None:  # a folder of that name is no file
    assert not source.skipped
    return
  [(skipped, reason)] = source.skipped
  assert (skipped, reason.split(':')[0]) == (name, code)
  if code == 'not a video':  # no other container was even opened
    assert reason.startswith(f'not a video: no {name[4:]} inside')


@pytest.mark.fault(18)
@pytest.mark.parametrize('limit', ['MAX_PIXELS', 'MAX_FRAMES'])
def test_too_large_files(tmp_path, monkeypatch, limit):
  write(tmp_path / 'a.mp4', numbered(5))
  write(tmp_path / 'b.mkv', numbered(5))
  Image.fromarray(numbered(1)[0]).save(tmp_path / 'c.png')
  monkeypatch.setattr(decode, limit, 4)
  with pytest.raises(ValueError, match='too large'):
    VideoFolder(tmp_path, 5)


@pytest.mark.fault(17)
@pytest.mark.parametrize('name', CODECS)
def test_files_cut_in_half_never_pass_as_whole(tmp_path, name):
  """Most of them without any error from FFmpeg."""
  path = tmp_path / name
  if path.suffix == '.gif':
    write_gif(path, 32)
  else:
    noise = rng().integers(0, 256, (32, 64, 64, 3), np.uint8)
    flags = {'movflags': 'faststart'} if path.suffix in ('.mp4', '.mov') else {}
    write(path, noise, CODECS[name], **flags)
  VideoFolder(tmp_path, 16).clip(0, rng())
  cut(path, 0.5)
  try:
    source = VideoFolder(tmp_path, 5)
  except ValueError as error:
    reason = str(error)
  else:
    with pytest.raises(UnreadableClip) as caught:
      source.clip(0, rng())
    reason = caught.value.reason
  assert 'truncated' in reason


@pytest.mark.fault(16)
def test_frames_of_a_damaged_file_are_those_of_the_whole_one(tmp_path):
  """Damage in the middle: clips before and after it are as they were."""
  path, frames, keys = bikes()
  bad = tmp_path / 'bikes.mp4'
  shutil.copy(path, bad)
  with av.open(str(path)) as container:
    places = [p.pos for p in container.demux(video=0) if p.pos is not None]
  size = path.stat().st_size
  damage(bad, places[keys[2] + 9] / size, places[keys[2] + 20] / size)
  timeline = decode.scan(bad)
  for start in (0, keys[2] - 4, keys[2], keys[3], keys[4], 246):
    got = decode.read(bad, timeline, start, 4, fit=small)
    np.testing.assert_array_equal(got, frames[start : start + 4])
  for start in (keys[2] + 8, keys[2] + 20, keys[3] - 4):
    with pytest.raises(UnreadableClip, match='corrupt: near'):
      decode.read(bad, timeline, start, 4, fit=small)

  # The same from the source, whether it keeps the file in memory or not.
  options = {'num_frames': 4, 'height': 24, 'width': 32, 'fit': 'squash'}
  outcomes = []
  for cache_mb in (0, 64):
    source, seen = VideoFolder(tmp_path, **options, cache_mb=cache_mb), []
    for seed in range(6):
      try:
        seen.append(source.clip(0, rng(seed))['video'].tobytes())
      except UnreadableClip as error:
        seen.append((error.path, error.reason))
    outcomes.append(seen)
  assert outcomes[0] == outcomes[1]
  assert {type(outcome) for outcome in outcomes[0]} == {bytes, tuple}


def test_unreadable_clip_survives_pickling():
  error = pickle.loads(pickle.dumps(UnreadableClip('a.mp4', 'corrupt: x')))
  assert (error.path, error.reason) == ('a.mp4', 'corrupt: x')
  assert str(error) == 'a.mp4 cannot be read: corrupt: x.'


@pytest.mark.fault(20)
def test_folders_without_a_usable_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder'):
    VideoFolder(tmp_path / 'none')
  with pytest.raises(ValueError, match=r'0 were found .* Accepted are \.mp4'):
    VideoFolder(tmp_path)
  (tmp_path / 'a.mp4').touch()
  write(tmp_path / 'b.mp4', numbered(4))
  words = r'2 were found .* a\.mp4 \(empty file\)\. b\.mp4 \(too short: 4 of 16'
  with pytest.raises(ValueError, match=words):
    VideoFolder(tmp_path)
  with pytest.raises(NotADirectoryError, match=r'b\.mp4 is a file'):
    VideoFolder(tmp_path / 'b.mp4')
