"""Laws of decoding: exact frames, upright and in the right colours."""

import av
import numpy as np
import pytest
from PIL import Image

from tests.video_files import (
  CHROMA,
  CODECS,
  bikes,
  make,
  numbered,
  numbers,
  real,
  rng,
  small,
  write,
)
from vdm_jax.data import decode
from vdm_jax.data.decode import UnreadableClip


def test_seeking_gives_the_frames_of_a_full_decode(monkeypatch):
  path, frames, keys = bikes()
  timeline = decode.scan(path)
  assert timeline.num_frames == len(frames) == 250
  assert [key.number for key in timeline.keyframes] == keys
  assert len(keys) > 3

  opened, open_ = [], av.open
  monkeypatch.setattr(
    av, 'open', lambda *a, **k: opened.append(a) or open_(*a, **k)
  )
  starts = [0, *(key + d for key in keys[1:-1] for d in (-1, 0, 1)), 245]
  for start in starts:
    got = decode.read(path, timeline, start, 3, 2, fit=small)
    np.testing.assert_array_equal(got, frames[start : start + 6 : 2])
  assert len(opened) == len(starts)  # no seek missed its keyframe


@pytest.mark.parametrize('name', ['carphone_distorted', 'carphone_pristine'])
def test_real_clips_without_keyframes(name):
  path = real() / f'{name}.mp4'
  timeline = decode.scan(path)
  assert timeline.num_frames == decode.probe(path).num_frames == 120
  whole = decode.read(path, timeline)
  with av.open(str(path)) as container:
    plain = [frame.to_ndarray()[:144] for frame in container.decode(video=0)]
  # The luma plane of each frame, which no scaler touched.
  luma = whole @ np.array([0.299, 0.587, 0.114])
  plain = (np.stack(plain) - 16.0) * 255 / 219
  inside = (whole > 0).all(-1) & (whole < 255).all(-1)
  assert np.abs(luma - plain)[inside].max() < 2
  part = decode.read(path, timeline, 50, 4, 20)
  np.testing.assert_array_equal(part, whole[50:111:20])


@pytest.mark.fault(19)
@pytest.mark.parametrize('name', CODECS)
def test_every_container_counts_frames_as_they_are_shown(tmp_path, name):
  path = make(tmp_path / name)
  timeline = decode.scan(path)
  assert timeline.num_frames == 32
  np.testing.assert_array_equal(
    numbers(decode.read(path, timeline)), np.arange(32)
  )
  for start in (0, 7, 8, 9, 20, 30):
    got = decode.read(path, timeline, start, 2)
    np.testing.assert_array_equal(numbers(got), [start, start + 1])


def test_nothing_before_the_keyframe_is_decoded(tmp_path):
  path, frames, keys = bikes()
  timeline = decode.scan(path)
  with av.open(str(path)) as container:
    places = [p.pos for p in container.demux(video=0) if p.pos is not None]
  data = bytearray(path.read_bytes())
  data[places[0] : places[keys[2]]] = bytes(places[keys[2]] - places[0])
  blank = tmp_path / 'blank.mp4'
  blank.write_bytes(data)
  got = decode.read(blank, timeline, keys[2], 4, fit=small)
  np.testing.assert_array_equal(got, frames[keys[2] : keys[2] + 4])
  with pytest.raises(UnreadableClip, match='corrupt'):
    decode.read(blank, timeline, keys[1], 4, fit=small)


def test_a_cover_picture_is_not_the_video(tmp_path):
  path = tmp_path / 'a.mkv'
  with av.open(str(path), 'w') as container:
    streams = [container.add_stream(c, rate=10) for c in ('mjpeg', 'libx264')]
    pictures = [np.full((1, 48, 64, 3), 250, np.uint8), numbered(9)]
    for stream in streams:
      stream.height, stream.width = 48, 64
      stream.pix_fmt = CHROMA.get(stream.codec_context.name, 'yuv420p')
    for stream, frames in zip(streams, pictures, strict=True):
      for frame in frames:
        frame = av.VideoFrame.from_ndarray(frame, format='rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  got = decode.read(path, decode.scan(path))
  np.testing.assert_array_equal(numbers(got), np.arange(9))


def test_a_missed_seek_falls_back_to_counting(tmp_path):
  path = make(tmp_path / 'a.mp4')
  timeline = decode.scan(path)
  wrong = [key._replace(pts=key.pts + 1) for key in timeline.keyframes]
  got = decode.read(path, timeline._replace(keyframes=tuple(wrong)), 17, 3)
  np.testing.assert_array_equal(numbers(got), [17, 18, 19])


def test_frames_cut_off_by_an_edit_list_do_not_count(tmp_path):
  path, frames, _ = bikes()
  trimmed = tmp_path / 'trimmed.mp4'
  with av.open(str(path)) as source, av.open(str(trimmed), 'w') as target:
    old = source.streams.video[0]
    new = target.add_stream_from_template(old)
    for packet in source.demux(old):
      if packet.dts is not None:
        packet.pts -= 40 * 512
        packet.dts -= 40 * 512
        packet.stream = new
        target.mux(packet)
  timeline = decode.scan(trimmed)
  assert timeline.num_frames == 210
  got = decode.read(trimmed, timeline, 100, 3, fit=small)
  np.testing.assert_array_equal(got, frames[140:143])


def test_colours_follow_the_standard():
  """BT.601 by hand against what comes out, on the pixels of a real frame."""
  path = real() / 'bikes.mp4'
  got = decode.read(path, decode.Timeline(1))[0].astype(float)
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
    planes = frame.to_ndarray(format='yuv420p').astype(float)
  height, width = frame.height, frame.width
  y = (planes[:height] - 16) * 255 / 219
  u, v = (planes[height:] - 128).reshape(2, height // 2, width // 2) * 255 / 224
  u, v = (np.kron(c, np.ones((2, 2))) for c in (u, v))
  green = y - 0.344136 * u - 0.714136 * v
  expected = np.stack([y + 1.402 * v, green, y + 1.772 * u], -1).clip(0, 255)
  assert np.abs((got - expected).mean(axis=(0, 1))).max() < 0.1
  assert np.abs(got - expected).mean() < 1


def test_phone_videos_are_turned_upright(tmp_path):
  frames = numbered(4, 32, 48)
  frames[:, :16, :24] = 250  # the left upper quarter
  path = write(tmp_path / 'a.mp4', frames)
  upright = decode.read(path, decode.scan(path))
  data = bytearray(path.read_bytes())
  matrix = data.index(b'tkhd') + 44
  one, minus = (1 << 16).to_bytes(4), (2**32 - (1 << 16)).to_bytes(4)
  data[matrix : matrix + 20] = bytes(4) + one + bytes(4) + minus + bytes(4)
  path.write_bytes(data)
  header = decode.probe(path)
  assert (header.height, header.width) == (48, 32)
  turned = decode.read(path, decode.scan(path))
  np.testing.assert_array_equal(turned, np.rot90(upright, -1, (1, 2)))
  half = decode.read(path, decode.scan(path), fit=lambda h, w: (h // 2, w // 2))
  assert half.shape == (4, 24, 16, 3)
  assert half[0, :10, 10:].min() > 220  # now the right upper quarter


def test_images_are_turned_upright_and_get_a_white_ground(tmp_path):
  pixels = rng().integers(0, 256, (6, 9, 3), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned clockwise
  Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
  got = decode.read(tmp_path / 'a.png', decode.Timeline(1))
  np.testing.assert_array_equal(got[0], np.rot90(pixels, -1))
  assert decode.probe(tmp_path / 'a.png') == (1, 9, 6)

  alpha = np.dstack([pixels, np.full((6, 9), 255, np.uint8)])
  alpha[:3, ..., 3] = 0
  Image.fromarray(alpha).save(tmp_path / 'b.png')
  got = decode.read(tmp_path / 'b.png', decode.Timeline(1))[0]
  np.testing.assert_array_equal(got[3:], pixels[3:])
  assert (got[:3] == 255).all()
