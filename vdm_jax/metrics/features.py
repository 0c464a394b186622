"""From pixels to features: which network, and which pixels it sees.

An `Extractor` is one path that published numbers took.  Those of the same
network differ in how frames are resized and in the eps of a norm, and so do
their distances: a number carries the name of its extractor.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from vdm_jax.metrics import resize, weights
from vdm_jax.metrics.layers import Path

Features = dict[str, np.ndarray]
"""By name, [B, D] of videos or [B, F, D] of frames, float32."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """A published file of weights.

  Attributes:
    name: what it is called.
    origin: where it was published.
    beside: another file that it is useless without, or ''.
    sha256: how its hash begins, where its publisher says so.
  """

  name: str
  origin: str
  beside: str = ''
  sha256: str = ''


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A feature network and the pixels that it sees.

  Attributes:
    network: a flax module.
    lookup: finds its parameters in a file.
    size: rows and columns that it takes.
    resize: one of `resize.GRIDS`, or 'pil_bicubic': the shorter side to `size`
      with antialiasing, then the middle.
    files: where its weights are published.
    per_frame: whether it sees frames one by one.
    frames: fewest and most frames of a video, None without a limit.
  """

  network: Any
  lookup: Callable[..., np.ndarray]
  size: int
  resize: str
  files: tuple[WeightFile, ...]
  per_frame: bool = False
  frames: tuple[int, int | None] = (1, None)

  def shapes(self) -> dict[str, Any]:
    """Shapes of the parameters."""
    lead = (1,) if self.per_frame else (1, self.frames[0])
    return weights.shapes_of(self.network, (*lead, self.size, self.size, 3))

  def check(self, num_frames: int) -> None:
    """Refuses videos of a length that the network does not take.

    Raises:
      ValueError: there are too few or too many frames.
    """
    low, high = self.frames
    if num_frames < low or (high is not None and num_frames > high):
      allowed = f'{low}' if low == high else f'at least {low}'
      raise ValueError(
        f'{type(self.network).__name__} takes {allowed} frames; the videos '
        f'have {num_frames}: --num_frames makes them longer.'
      )


class Network:
  """An extractor with weights, compiled once for each shape of videos."""

  def __init__(self, extractor: Extractor, params: Any, batch_size: int = 4):
    """Puts the weights on the device.

    Args:
      extractor: what they are of.
      params: nested dictionaries of arrays.
      batch_size: videos, or frames if it sees these, of one call.
    """
    self.extractor = extractor
    self._params = jax.device_put(params)
    self._batch_size = batch_size
    self._apply = jax.jit(self._forward)

  def _forward(self, params: Any, pixels: Array) -> dict[str, Array]:
    x = pixels.astype(jnp.float32) / 127.5 - 1
    if self.extractor.resize != 'pil_bicubic':
      size = self.extractor.size
      x = resize.bilinear(x, size, size, self.extractor.resize)
    return self.extractor.network.apply({'params': params}, x)

  def __call__(self, videos: np.ndarray) -> Features:
    """Features of videos, uint8 [B, F, H, W, 3].

    Raises:
      ValueError: for videos of another type or of too few or many frames.
    """
    if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
      raise ValueError(
        f'videos are {videos.dtype} {videos.shape}; give uint8 [B, F, H, W, 3].'
      )
    self.extractor.check(videos.shape[1])
    count, frames = videos.shape[:2]
    if self.extractor.resize == 'pil_bicubic':
      videos = _pil_bicubic(videos, self.extractor.size)
    if self.extractor.per_frame:
      videos = videos.reshape(-1, *videos.shape[2:])
    parts = [
      self._padded(videos[first : first + self._batch_size])
      for first in range(0, len(videos), self._batch_size)
    ]
    features = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    if self.extractor.per_frame:
      return {k: v.reshape(count, frames, -1) for k, v in features.items()}
    return features

  def _padded(self, part: np.ndarray) -> Features:
    """Fills a last, smaller part up, so that nothing is compiled again."""
    missing = self._batch_size - len(part)
    pad = [(0, missing)] + [(0, 0)] * (part.ndim - 1)
    features = self._apply(self._params, np.pad(part, pad))
    return {k: np.asarray(v)[: len(part)] for k, v in features.items()}


def _pil_bicubic(videos: np.ndarray, size: int) -> np.ndarray:
  """Frames with the shorter side `size`, bicubic, and of these the middle."""
  height, width = videos.shape[2:4]
  short = min(height, width)
  target = size * width // short, size * height // short
  # Half a pixel is rounded to an even one, as torchvision does.
  left, top = (round((side - size) / 2) for side in target)
  box = left, top, left + size, top + size
  frames = [
    np.asarray(
      Image.fromarray(frame).resize(target, Image.Resampling.BICUBIC).crop(box)
    )
    for frame in videos.reshape(-1, height, width, 3)
  ]
  return np.stack(frames).reshape(*videos.shape[:2], size, size, 3)


def random_params(extractor: Extractor, seed: int = 0) -> dict[str, Any]:
  """Weights that know nothing: to try a protocol, not to compare models.

  Kernels keep the size of signals through ReLUs (He et al. 2015), which the
  usual initialisation does not: its last features would be all but constant.
  """
  rng = np.random.default_rng(seed)

  def draw(path: Path, leaf: Any) -> np.ndarray:
    if path[-1] in ('gain', 'scale', 'variance'):
      return np.ones(leaf.shape, np.float32)
    if path[-1] != 'kernel':
      return np.zeros(leaf.shape, np.float32)
    spread = np.float32((2 / np.prod(leaf.shape[:-1])) ** 0.5)
    return rng.standard_normal(leaf.shape, np.float32) * spread

  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: draw(tuple(p.key for p in path), leaf),
    extractor.shapes(),
  )
