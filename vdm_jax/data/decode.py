"""Decoding of video files and images: exact frames, or a reason why not.

Files come from anywhere, so nothing here trusts them. A file is opened as the
one container that its suffix promises (FFmpeg would otherwise also play a
playlist named x.mp4, with the files that it names), and over the `file`
protocol only. FFmpeg hides much damage: a cut AVI just ends early, a broken
frame is patched up and marked. Both are errors here.

Frames are counted as shown. `scan` finds the keyframes without decoding;
`read` starts at the last one before the frames that are wanted, or, where that
place is not certain, at the first frame.
"""

import array
import bisect
import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image, ImageOps

from vdm_jax.data.timeline import Header, Keyframe, Timeline

CONTAINERS = {  # suffix -> FFmpeg's demuxer
  '.mp4': 'mov',
  '.mov': 'mov',
  '.avi': 'avi',
  '.mkv': 'matroska',
  '.webm': 'matroska',
  '.gif': 'gif',
}
IMAGES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
MAX_PIXELS = 2**26  # of one frame, 8192 x 8192
MAX_FRAMES = 10**6  # of one file, nine hours at 30 frames per second

# One packet is one frame here; elsewhere (invisible frames) decoding counts.
_PACKET_IS_FRAME = {'h264', 'hevc', 'vp9', 'av1', 'mpeg4', 'mjpeg'}
# Without the last three FFmpeg's colours are one or two levels too dark.
SCALER = (
  Interpolation.BICUBIC
  | Interpolation.ACCURATE_RND
  | Interpolation.FULL_CHR_H_INT
  | Interpolation.BITEXACT
)

Fit = Callable[[int, int], tuple[int, int]]  # (height, width) -> the same


class UnreadableClip(ValueError):
  """A file that cannot give the frames that were asked of it.

  Attributes:
    path: the file.
    reason: a code, or 'code: detail'. The codes: empty file, not a video, not
      an image, no video stream, not 8 bits, too short, too large, truncated,
      corrupt.
  """

  def __init__(self, path: str | Path, reason: str):
    super().__init__(str(path), reason)
    self.path, self.reason = str(path), reason

  def __str__(self) -> str:
    return f'{self.path} cannot be read: {self.reason}.'


def as_is(height: int, width: int) -> tuple[int, int]:
  """The `Fit` that keeps the size."""
  return height, width


def is_image(path: str | Path) -> bool:
  """Whether the suffix is that of an image, a video of one frame."""
  return Path(path).suffix.lower() in IMAGES


def probe(path: str | Path) -> Header:
  """Opens a file and decodes its first frame.

  Raises:
    UnreadableClip: no frame can be had, or the limits above are passed.
  """
  if is_image(path):
    return Header(*_image(path).shape[:3])
  with _opened(path) as (container, stream):
    _check_size(path, stream.width, stream.height)
    frame = next(container.decode(stream), None)
    if frame is None:
      raise UnreadableClip(path, 'truncated: no frame')
    if frame.is_corrupt:
      raise UnreadableClip(path, 'corrupt: frame 0')
    num_frames = stream.frames or None
    size = frame.height, frame.width
  _check_size(path, num_frames=num_frames or 0)
  height, width = size[::-1] if frame.rotation % 180 else size
  return Header(num_frames, height, width)


def scan(path: str | Path) -> Timeline:
  """Counts the frames of a file exactly.

  Reads the whole file; decodes it only where packets do not tell.

  Raises:
    UnreadableClip: the file is damaged, or ends before the time its header
      gives by more than one part in ten.
  """
  if is_image(path):
    return Timeline(1, times=array.array('f', [0.0]))
  times, keys, end = [], [], 0
  with _opened(path) as (container, stream):
    for packet in container.demux(stream):
      if packet.size and not packet.is_discard:
        times.append(packet.pts)
        time = packet.dts if packet.pts is None else packet.pts
        end = max(end, (time or 0) + (packet.duration or 0))
        if packet.is_keyframe:
          keys.append(packet.pts)
    seconds = float(end * stream.time_base)
    promised = float((stream.duration or 0) * stream.time_base)
    promised = promised or (container.duration or 0) / av.time_base
    exact = stream.codec_context.codec.canonical_name in _PACKET_IS_FRAME
    unit = float(stream.time_base)
  _check_size(path, num_frames=len(times))
  if seconds < 0.9 * promised:
    reason = f'truncated: {seconds:.2f} of {promised:.2f} seconds'
    raise UnreadableClip(path, reason)
  if Path(path).suffix.lower() == '.gif' and b';' not in _tail(path):
    raise UnreadableClip(path, 'truncated: no end mark')
  if exact and None not in times and len(set(times)) == len(times):
    times.sort()
    number = {pts: i for i, pts in enumerate(times)}
    if keys and number[keys[0]] == 0:
      keyframes = tuple(Keyframe(number[pts], pts) for pts in keys)
      return Timeline(len(times), keyframes, _seconds(times, unit))
  shown = [frame.pts or 0 for frame in _decoded(path)]
  return Timeline(len(shown), times=_seconds(shown, unit))


def _seconds(times: Sequence[int], unit: float) -> array.array:
  return array.array('f', [(time - times[0]) * unit for time in times])


def read(
  path: str | Path,
  timeline: Timeline,
  start: int = 0,
  num_frames: int | None = None,
  frameskip: int = 1,
  *,
  fit: Fit = as_is,
) -> np.ndarray:
  """Frames start, start + frameskip, ... as uint8 [num_frames, h, w, 3].

  Args:
    path: the file.
    timeline: what `scan` says of the file.
    start: number of the first frame.
    num_frames: how many; by default all there are.
    frameskip: every `frameskip`-th frame is taken.
    fit: gives the size [h, w] from that of the file.

  Raises:
    UnreadableClip: there are not that many frames, or one on the way to them
      from the last keyframe is damaged.
  """
  if num_frames is None:
    num_frames = len(range(start, timeline.num_frames, frameskip))
  if is_image(path):
    return _image(path, fit)
  nearest = bisect.bisect(timeline.keyframes, (start, np.inf)) - 1
  key = timeline.keyframes[nearest] if nearest > 0 else None
  number, frames, scaler = key.number if key else 0, [], VideoReformatter()
  for frame in _decoded(path, key):
    if number >= start and (number - start) % frameskip == 0:
      frames.append(_pixels(frame, scaler, fit))
      if len(frames) == num_frames:
        return np.stack(frames)
    number += 1
  present = f'{len(frames)} of {num_frames} frames from frame {start}'
  raise UnreadableClip(path, f'truncated: {present}')


def _image(path: str | Path, fit: Fit = as_is) -> np.ndarray:
  """An image file as a video of one frame, uint8 [1, h, w, 3].

  Turned upright as EXIF says; transparent parts become white.
  """
  if not Path(path).stat().st_size:
    raise UnreadableClip(path, 'empty file')
  try:
    with Image.open(path, formats=('PNG', 'JPEG', 'WEBP', 'BMP')) as image:
      _check_size(path, *image.size)
      if image.mode[0] in 'IF':
        raise UnreadableClip(path, f'not 8 bits: mode {image.mode}')
      upright = ImageOps.exif_transpose(image)
      if upright.has_transparency_data:
        white = Image.new('RGBA', upright.size, 'white')
        upright = Image.alpha_composite(white, upright.convert('RGBA'))
      height, width = fit(upright.height, upright.width)
      upright = upright.convert('RGB').resize((width, height))
      return np.asarray(upright)[None]
  except UnreadableClip:
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
    raise UnreadableClip(path, f'too large: {e}') from e
  except Image.UnidentifiedImageError as e:
    raise UnreadableClip(path, 'not an image') from e
  except (OSError, SyntaxError, ValueError, struct.error) as e:
    raise UnreadableClip(path, f'corrupt: {e}') from e


def _check_size(path, width: int = 0, height: int = 0, num_frames: int = 0):
  if width * height > MAX_PIXELS:
    raise UnreadableClip(path, f'too large: {width} x {height} pixels')
  if num_frames > MAX_FRAMES:
    raise UnreadableClip(path, f'too large: {num_frames} frames')


def _tail(path: str | Path) -> bytes:
  with open(path, 'rb') as file:
    file.seek(max(0, Path(path).stat().st_size - 16))
    return file.read()


def _pixels(frame, scaler: VideoReformatter, fit: Fit) -> np.ndarray:
  turns = round(frame.rotation / 90) % 4  # counterclockwise
  upright = (frame.height, frame.width)[:: -1 if turns % 2 else 1]
  height, width = fit(*upright)[:: -1 if turns % 2 else 1]
  frame = scaler.reformat(frame, width, height, 'rgb24', interpolation=SCALER)
  return np.rot90(frame.to_ndarray(), turns)


def _decoded(path: str | Path, key: Keyframe | None = None) -> Iterator:
  """Frames from a keyframe on (None: from the first frame), all whole.

  Damage seldom marks the frames that depend on it, so a marked frame ends all.
  """
  with _opened(path) as (container, stream):
    frames = container.decode(stream)
    if key:
      container.seek(key.pts, stream=stream)
      first = next((f for f in frames if (f.pts or 0) >= key.pts), None)
      if first is None or first.pts != key.pts or first.is_corrupt:
        # The seek went elsewhere: count from the first frame.
        yield from itertools.islice(_decoded(path), key.number, None)
        return
      yield first
    for frame in frames:
      if frame.is_corrupt:
        raise UnreadableClip(path, f'corrupt: near {frame.time or 0:.2f} s')
      yield frame


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
  """(container, video stream) of a file; all errors become UnreadableClip."""
  path = Path(path).absolute()
  if path.is_file() and not path.stat().st_size:
    raise UnreadableClip(path, 'empty file')
  demuxer = CONTAINERS[path.suffix.lower()]
  try:
    container = av.open(
      str(path),
      format=demuxer,
      container_options={'protocol_whitelist': 'file'},
    )
  except FFmpegError as e:
    reason = f'no {path.suffix[1:].lower()} inside ({e.strerror})'
    raise UnreadableClip(path, f'not a video: {reason}') from e
  with container:
    if demuxer not in container.format.name:
      raise UnreadableClip(path, f'not a video: {container.format.name} inside')
    stream: Any = container.streams.best('video')  # and not a cover picture
    if stream is None:
      raise UnreadableClip(path, 'no video stream')
    stream.thread_type = 'NONE'  # many files are read at a time instead
    try:
      yield container, stream
    except FFmpegError as e:
      raise UnreadableClip(path, f'corrupt: {e.strerror}') from e
