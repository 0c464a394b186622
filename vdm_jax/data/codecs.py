"""Videos as bytes, for packed records.

raw    pixels as they are: the fastest to read, the largest
jpeg   a JPEG of quality 95 for each frame: a tenth, and any frame by itself
av1    one AV1 stream: the smallest, and slow; all frames are decoded
"""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

QUALITY = 95


class Codec(NamedTuple):
  """A way to store [F, H, W, 3].

  Attributes:
    encode: uint8 [F, H, W, 3] -> pieces of bytes.
    decode: (pieces, shape, frame numbers) -> these frames.
  """

  encode: Callable[[np.ndarray], list[bytes]]
  decode: Callable[[Sequence[bytes], tuple[int, ...], np.ndarray], np.ndarray]


def _raw_encode(video: np.ndarray) -> list[bytes]:
  return [video.tobytes()]


def _raw_decode(pieces, shape, frames):
  return np.frombuffer(pieces[0], np.uint8).reshape(shape)[frames]


def _jpeg_encode(video: np.ndarray) -> list[bytes]:
  pieces = []
  for frame in video:
    file = io.BytesIO()
    # Colours at full resolution: half of it would blur small videos.
    Image.fromarray(frame).save(file, 'JPEG', quality=QUALITY, subsampling=0)
    pieces.append(file.getvalue())
  return pieces


def _jpeg_decode(pieces, shape, frames):
  del shape
  images = [Image.open(io.BytesIO(pieces[i]), formats=['JPEG']) for i in frames]
  return np.stack([np.asarray(image) for image in images])


def _av1_encode(video: np.ndarray) -> list[bytes]:
  file = io.BytesIO()
  with av.open(file, 'w', format='ivf') as container:
    stream = container.add_stream('libsvtav1', rate=25)
    stream.height, stream.width = video.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.options = {'crf': '20', 'preset': '6', 'svtav1-params': 'lp=1'}
    for pixels in video:
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return [file.getvalue()]


def _av1_decode(pieces, shape, frames):
  with av.open(io.BytesIO(pieces[0]), 'r', format='ivf') as container:
    container.streams.video[0].thread_type = 'NONE'  # clips run side by side
    decoded = container.decode(video=0)
    video = [frame.to_ndarray(format='rgb24') for frame in decoded]
  if len(video) != shape[0]:
    raise ValueError(f'{len(video)} of {shape[0]} frames')
  return np.stack([video[i] for i in frames])


CODECS = {
  'raw': Codec(_raw_encode, _raw_decode),
  'jpeg': Codec(_jpeg_encode, _jpeg_decode),
  'av1': Codec(_av1_encode, _av1_decode),
}
