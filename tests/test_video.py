"""Laws of vdm_jax.video: what was saved is what is loaded."""

import os

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vdm_jax import video
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_float, to_uint8


def waves(frames=6, height=48, width=64):
  """A smooth moving video, uint8."""
  t, y, x = np.ogrid[:frames, :height, :width]
  red = 128 + 100 * np.sin(x / 9 + t / 3 + 0 * y)
  green = 128 + 100 * np.cos(y / 11 - t / 4 + 0 * x)
  blue = 128 + 90 * np.sin((x + y) / 14 + 0 * t)
  return np.stack([red, green, blue], -1).round().astype(np.uint8)


def few_colours(frames=5, height=9, width=7):
  """Noise of 8 colours, so that a palette can hold it; frame 3 repeats 2."""
  rng = np.random.default_rng(0)
  noise = 255 * rng.integers(0, 2, (frames, height, width, 3), np.uint8)
  noise[3] = noise[2]
  return noise


def error(loaded, expected):
  return np.abs(loaded - to_float(expected)).max() * 127.5


def test_levels_survive_the_way_to_float_and_back():
  levels = np.arange(256, dtype=np.uint8)
  values = to_float(levels)
  assert values.dtype == np.float32
  assert (values[0], values[-1]) == (-1, 1)
  assert (to_uint8(values) == levels).all()
  np.testing.assert_allclose(values, np.linspace(-1, 1, 256), atol=1e-7)


@pytest.mark.parametrize(('codec', 'bias'), [('libx264', 0.5), ('mpeg4', 1)])
def test_mp4_is_close_and_keeps_every_frame(tmp_path, monkeypatch, codec, bias):
  if codec == 'mpeg4':
    monkeypatch.setattr(av, 'codecs_available', {'mpeg4'})
  path, frames = tmp_path / 'a.mp4', waves()
  video.save(path, to_float(frames), fps=12.5)
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    assert stream.average_rate == 12.5
    assert (stream.codec_context.name == 'h264') == (codec == 'libx264')
    assert stream.pix_fmt == 'yuv420p'
  loaded = video.load(path)
  assert loaded.dtype == np.float32
  assert loaded.shape == frames.shape
  difference = 127.5 * (loaded - to_float(frames))
  assert difference.std() < 4  # neighbouring frames differ by 20
  assert np.abs(difference.mean(axis=(0, 1, 2))).max() < bias


def test_grey_levels_of_mp4_are_exact(tmp_path):
  frames = np.empty((8, 32, 32, 3), np.uint8)
  frames[:] = np.linspace(0, 255, 8).round().astype(int)[:, None, None, None]
  video.save(tmp_path / 'a.mp4', frames)
  assert error(video.load(tmp_path / 'a.mp4'), frames) < 1.5


def test_odd_sides_of_mp4_repeat_the_last_line(tmp_path):
  frames = waves(height=33, width=47)
  video.save(tmp_path / 'a.mp4', frames)
  loaded = video.load(tmp_path / 'a.mp4')
  expected = np.pad(frames, ((0, 0), (0, 1), (0, 1), (0, 0)), mode='edge')
  assert loaded.shape == expected.shape
  assert error(loaded, expected) < 20


def test_gif_is_exact_for_few_colours_and_keeps_equal_frames(tmp_path):
  path, frames = tmp_path / 'a.gif', few_colours()
  video.save(path, frames, fps=5)
  np.testing.assert_array_equal(to_uint8(video.load(path)), frames)
  with Image.open(path) as image:  # another reader agrees
    assert image.info['loop'] == 0  # for ever
    assert image.n_frames == len(frames)
    for number, frame in enumerate(frames):
      image.seek(number)
      assert image.info['duration'] == 200
      np.testing.assert_array_equal(np.asarray(image.convert('RGB')), frame)


def test_gif_of_many_colours_is_close(tmp_path):
  frames = waves()
  video.save(tmp_path / 'a.gif', frames)
  difference = video.load(tmp_path / 'a.gif') - to_float(frames)
  assert 127.5 * difference.std() < 12


@pytest.mark.parametrize('shape', [(3, 4, 5, 3), (2, 3, 4, 5, 1)])
def test_npy_is_exact(tmp_path, shape):
  array = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  video.save(tmp_path / 'a.npy', array)
  loaded = video.load(tmp_path / 'a.npy')
  assert loaded.dtype == np.float32
  np.testing.assert_array_equal(loaded, array)


def test_uint8_npy_loads_as_float(tmp_path):
  video.save(tmp_path / 'a.npy', waves())
  np.testing.assert_array_equal(
    video.load(tmp_path / 'a.npy'), to_float(waves())
  )


def test_jax_arrays_of_any_float_and_one_channel(tmp_path):
  grey = few_colours()[..., :1]
  video.save(tmp_path / 'a.gif', jnp.asarray(to_float(grey), jnp.bfloat16))
  loaded = to_uint8(video.load(tmp_path / 'a.gif'))
  np.testing.assert_array_equal(loaded, np.repeat(grey, 3, -1))


def test_values_slightly_out_of_range_are_clipped(tmp_path):
  frames = few_colours()
  video.save(tmp_path / 'a.gif', 1.4 * to_float(frames))
  np.testing.assert_array_equal(
    to_uint8(video.load(tmp_path / 'a.gif')), frames
  )


def test_batch_is_a_grid_that_holds_every_video(tmp_path):
  frames = np.stack([np.roll(few_colours(), i, 2) for i in range(5)])
  video.save(tmp_path / 'a.gif', frames)
  loaded = to_uint8(video.load(tmp_path / 'a.gif'))
  assert loaded.shape == (5, 2 * 10 - 1, 3 * 8 - 1, 3)
  for number, expected in enumerate(frames):
    y, x = 10 * (number // 3), 8 * (number % 3)
    np.testing.assert_array_equal(loaded[:, y : y + 9, x : x + 7], expected)


def test_contact_sheet_has_rows_of_videos_and_columns_of_frames(tmp_path):
  frames = np.stack([few_colours(4, 32, 16), few_colours(4, 32, 16)[::-1]])
  video.save(tmp_path / 'a.png', frames)
  sheet = to_uint8(video.load(tmp_path / 'a.png'))[0]
  assert sheet.shape == (2 * 130 - 2, 4 * 66 - 2, 3)
  for row in range(2):
    for column in range(4):
      y, x = 130 * row, 66 * column
      cell = sheet[y : y + 128, x : x + 64]
      np.testing.assert_array_equal(cell[::4, ::4], frames[row, column])
      np.testing.assert_array_equal(cell[3::4, 3::4], frames[row, column])


def test_image_is_a_video_of_one_frame(tmp_path):
  frame = few_colours()[0]
  Image.fromarray(frame).save(tmp_path / 'a.bmp')
  loaded = video.load(tmp_path / 'a.bmp')
  np.testing.assert_array_equal(to_uint8(loaded), frame[None])


@pytest.mark.parametrize(
  ('array', 'kind', 'words'),
  [
    (np.zeros((4, 8, 8)), ValueError, r'shape \(4, 8, 8\)'),
    (np.zeros((4, 8, 8, 4)), ValueError, '1 or 3 channels'),
    (np.zeros((0, 8, 8, 3)), ValueError, 'empty'),
    (np.full((4, 8, 8, 3), 200.0), ValueError, 'from 200 to 200'),
    (np.full((4, 8, 8, 3), np.nan), ValueError, 'from nan to nan'),
    (np.full((4, 8, 8, 3), -np.inf), ValueError, 'from -inf'),
    (np.zeros((4, 8, 8, 3), int), TypeError, 'int64'),
  ],
)
@pytest.mark.parametrize('suffix', ['.gif', '.npy'])
def test_what_is_not_a_video_is_refused(tmp_path, array, kind, words, suffix):
  with pytest.raises(kind, match=words):
    video.save(tmp_path / f'a{suffix}', array)
  assert not os.listdir(tmp_path)


def test_unknown_suffix_and_fps(tmp_path):
  with pytest.raises(ValueError, match=r'\.gif, \.mp4, \.png, \.npy'):
    video.save(tmp_path / 'a.avi', waves())
  with pytest.raises(ValueError, match='fps is 0'):
    video.save(tmp_path / 'a.gif', waves(), fps=0)
  with pytest.raises(ValueError, match=r"ends in '\.txt'"):
    video.load(tmp_path / 'a.txt')


def test_suffix_in_capitals_and_new_folders(tmp_path):
  path = tmp_path / 'new' / 'er' / 'A.GIF'
  video.save(path, few_colours())
  np.testing.assert_array_equal(to_uint8(video.load(path)), few_colours())


@pytest.mark.parametrize('suffix', ['.gif', '.mp4', '.png', '.npy'])
def test_failed_save_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch, suffix
):
  path = tmp_path / f'a{suffix}'
  video.save(path, waves())
  before = path.read_bytes()

  def fail(*args, **kwargs):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    video.save(path, waves()[::-1])
  assert os.listdir(tmp_path) == [path.name]
  assert path.read_bytes() == before


def test_unreadable_files(tmp_path):
  with pytest.raises(FileNotFoundError, match='no file'):
    video.load(tmp_path / 'a.mp4')
  (tmp_path / 'a.mp4').write_text('hello')
  with pytest.raises(UnreadableClip, match='not a video'):
    video.load(tmp_path / 'a.mp4')
  np.save(tmp_path / 'a.npy', np.array([print]), allow_pickle=True)
  with pytest.raises(ValueError, match='allow_pickle=False'):
    video.load(tmp_path / 'a.npy')
  np.save(tmp_path / 'b.npy', np.zeros((4, 4)))
  with pytest.raises(ValueError, match=r'shape \(4, 4\)'):
    video.load(tmp_path / 'b.npy')
