"""Videos to and from files: gif, mp4, png contact sheets and npy."""

import fractions
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vdm_jax.data import decode
from vdm_jax.data.pixels import to_float, to_uint8

WRITES = ('.gif', '.mp4', '.png', '.npy')
READS = (*decode.CONTAINERS, *decode.IMAGES, '.npy')


def save(path: str | Path, video, fps: float = 8) -> None:
  """Writes one video [F, H, W, C] or several [N, F, H, W, C] to a file.

  The suffix decides: `.gif` (loops, 256 colours a frame) and `.mp4` show
  several videos as a grid, `.png` is a contact sheet with a row for each video
  and a column for each frame, `.npy` keeps the array as it is. An mp4 of odd
  height or width repeats the last row or column, as its format needs even ones.
  The file appears complete or not at all; missing folders are made.

  Args:
    path: where to write.
    video: float in [-1, 1] or uint8, with 1 or 3 channels.
    fps: frames per second of gif and mp4.

  Raises:
    ValueError: an unknown suffix, a wrong shape, values outside of [-1.5, 1.5]
      (those beyond [-1, 1] are clipped) or not finite, or fps not above 0.
    TypeError: neither float nor uint8.
  """
  path, array = Path(path), np.asarray(video)
  suffix = path.suffix.lower()
  if suffix not in WRITES:
    raise ValueError(
      f'{path.name} ends in {suffix!r}; save writes {", ".join(WRITES)}.'
    )
  if not fps > 0:
    raise ValueError(f'fps is {fps}; it must be above 0.')
  _check(array, path.name)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.stem}.{os.getpid()}.part{suffix}')
  try:
    if suffix == '.npy':
      np.save(part, array, allow_pickle=False)
    else:
      videos = _frames(array)
      if suffix == '.png':
        Image.fromarray(_sheet(videos)).save(part)
      else:
        _write(part, _grid(videos), fps)
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def load(path: str | Path) -> np.ndarray:
  """Reads a video, an image (one frame) or what `save` wrote as .npy.

  Returns:
    float32 [F, H, W, 3] in [-1, 1]; from .npy the shape that was saved.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: an unknown suffix, or an array that is not a video.
    UnreadableClip: the file is damaged or not what its suffix says (this is a
      ValueError too).
  """
  path = Path(path)
  suffix = path.suffix.lower()
  if suffix not in READS:
    raise ValueError(
      f'{path.name} ends in {suffix!r}; load reads {", ".join(READS)}.'
    )
  if not path.is_file():
    raise FileNotFoundError(f'There is no file {path}.')
  if suffix == '.npy':
    array = np.load(path, allow_pickle=False)
    _check(array, path.name)
    return to_float(array) if array.dtype == np.uint8 else array.astype('f4')
  return to_float(decode.read(path, decode.scan(path)))


def _check(array: np.ndarray, name: str) -> None:
  if array.ndim not in (4, 5) or array.shape[-1] not in (1, 3):
    raise ValueError(
      f'The video for {name} has the shape {array.shape}; it must be '
      '[F, H, W, C] or [N, F, H, W, C] with 1 or 3 channels C.'
    )
  if not array.size:
    raise ValueError(f'The video for {name} is empty: shape {array.shape}.')
  if array.dtype == np.uint8:
    return
  if array.dtype.kind != 'f' and array.dtype.name != 'bfloat16':
    raise TypeError(
      f'The video for {name} is {array.dtype}; it must be float in [-1, 1] or '
      'uint8.'
    )
  low, high = float(array.min()), float(array.max())
  if not (low >= -1.5 and high <= 1.5):  # NaN fails both
    raise ValueError(
      f'The video for {name} has values from {low:g} to {high:g}; float videos '
      'are in [-1, 1], and uint8 ones in [0, 255].'
    )


def _frames(array: np.ndarray) -> np.ndarray:
  """uint8 [N, F, H, W, 3]."""
  if array.dtype != np.uint8:
    array = to_uint8(np.asarray(array, np.float32))
  if array.ndim == 4:
    array = array[None]
  return np.broadcast_to(array, (*array.shape[:-1], 3))


def _border(videos: np.ndarray, width: int) -> np.ndarray:
  """A grey line on the right and below, that cells can be told apart."""
  sides = (0, 0), (0, 0), (0, width), (0, width), (0, 0)
  return np.pad(videos, sides, constant_values=128)


def _grid(videos: np.ndarray) -> np.ndarray:
  """One video [F, rows H, columns W, 3] of N videos [N, F, H, W, 3]."""
  count = len(videos)
  if count == 1:
    return videos[0]
  columns = int(np.ceil(np.sqrt(count)))
  rows = -(-count // columns)
  videos = _border(videos, 1)
  empty = np.zeros((rows * columns - count, *videos.shape[1:]), np.uint8)
  cells = np.concatenate([videos, empty])
  _, frames, height, width, _ = cells.shape
  cells = cells.reshape(rows, columns, frames, height, width, 3)
  cells = cells.transpose(2, 0, 3, 1, 4, 5)
  return cells.reshape(frames, rows * height, columns * width, 3)[:, :-1, :-1]


def _sheet(videos: np.ndarray) -> np.ndarray:
  """One image of all frames, magnified until small ones can be seen."""
  _, frames, height, width, _ = videos.shape
  scale = max(1, min(128 // max(height, width), 8192 // (frames * width)))
  cells = _border(videos.repeat(scale, 2).repeat(scale, 3), 2)
  count, frames, height, width, _ = cells.shape
  sheet = cells.transpose(0, 2, 1, 3, 4)
  return sheet.reshape(count * height, frames * width, 3)[:-2, :-2]


def _write(path: Path, video: np.ndarray, fps: float) -> None:
  options, codec, pix_fmt = {}, 'gif', 'pal8'
  if path.suffix == '.mp4':
    _, height, width, _ = video.shape
    even = (0, 0), (0, height % 2), (0, width % 2), (0, 0)
    video = np.pad(video, even, mode='edge')
    codec, pix_fmt = 'mpeg4', 'yuv420p'
    options = {'qmin': '1', 'qmax': '3'}
    if 'libx264' in av.codecs_available:
      codec, options = 'libx264', {'crf': '12'}
  rate = fractions.Fraction(fps).limit_denominator(1001)
  with av.open(str(path), 'w') as container:
    stream: Any = container.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width = video.shape[1:3]
    stream.pix_fmt = pix_fmt
    for frame in _encodable(video, pix_fmt):
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _encodable(video: np.ndarray, pix_fmt: str) -> Iterator[av.VideoFrame]:
  for frame in video:
    if pix_fmt != 'pal8':
      colour = av.VideoFrame.from_ndarray(frame, format='rgb24')
      yield colour.reformat(format=pix_fmt, interpolation=decode.SCALER)
      continue
    image = Image.fromarray(frame).quantize(256)
    colours = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    colours[: len(palette), 1:] = palette
    paletted: Any = np.asarray(image), colours
    yield av.VideoFrame.from_ndarray(paletted, format='pal8')
