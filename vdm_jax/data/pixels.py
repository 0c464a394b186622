"""Pixels as numbers, and frames of any size as frames of one size."""

import dataclasses
import re

import numpy as np

FITS = ('crop', 'center', 'pad', 'squash')
_PATCH = re.compile('patch([2-9]|[1-9][0-9]+)')


def to_float(video: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
  """Maps uint8 to float32 in [-1, 1]; 0 and 255 become -1 and 1 exactly."""
  if out is None:
    out = np.empty(video.shape, np.float32)
  np.subtract(video, np.float32(127.5), out=out)
  out /= np.float32(127.5)
  return out


def to_uint8(video: np.ndarray) -> np.ndarray:
  """The inverse of `to_float`; values beyond [-1, 1] are clipped."""
  return np.rint(np.clip(video, -1, 1) * 127.5 + 127.5).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Framing:
  """How a frame of any size becomes one of [height, width].

  First it is scaled to `scaled(...)`, then `bars` and `cut` do the rest.
  'crop' scales it to cover the target and cuts at a random place, 'center'
  cuts in the middle, 'pad' shows all of it between black bars, 'squash'
  changes its proportions.  'patch2', 'patch3' and so on cut at a random place
  out of a frame that covers a target as many times larger.
  """

  fit: str
  height: int
  width: int

  def __post_init__(self):
    if self.fit not in FITS and not _PATCH.fullmatch(self.fit):
      raise ValueError(
        f"fit is {self.fit!r}; it must be one of {FITS}, or 'patch2' and so on."
      )
    for name in ('height', 'width'):
      count = getattr(self, name)
      if count < 1:
        raise ValueError(f'{name} is {count}; it must be 1 or more.')

  def scaled(self, height: int, width: int) -> tuple[int, int]:
    """The size to scale a frame of [height, width] to."""
    if self.fit == 'squash':
      return self.height, self.width
    target = [self._times * side for side in (self.height, self.width)]
    ratios = target[0] / height, target[1] / width
    scale = min(ratios) if self.fit == 'pad' else max(ratios)
    height, width = round(scale * height), round(scale * width)
    if self.fit == 'pad':
      return max(1, height), max(1, width)
    return max(target[0], height), max(target[1], width)

  @property
  def _times(self) -> int:
    """How many times larger than the target a frame is, before it is cut."""
    patch = _PATCH.fullmatch(self.fit)
    return int(patch[1]) if patch else 1

  def bars(self, video: np.ndarray) -> np.ndarray:
    """Fills up [F, h, w, 3] with black where it is smaller than the target."""
    y = max(0, self.height - video.shape[1])
    x = max(0, self.width - video.shape[2])
    if not y and not x:
      return video
    sides = (0, 0), (y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0)
    return np.pad(video, sides)

  def cut(self, video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cuts [F, height, width, 3] out of [F, h, w, 3]; a view."""
    y, x = video.shape[1] - self.height, video.shape[2] - self.width
    if self.fit == 'crop' or self._times > 1:
      y, x = int(rng.integers(y + 1)), int(rng.integers(x + 1))
    else:
      y, x = y // 2, x // 2
    return video[:, y : y + self.height, x : x + self.width]

  def finish(
    self, video: np.ndarray, rng: np.random.Generator, flip: bool
  ) -> np.ndarray:
    """What is left after scaling: bars, the cut, and mirrored halves.

    Args:
      video: scaled frames, [F, h, w, 3].
      rng: chooses the place of the cut, and whether to mirror.
      flip: mirror half of the clips left to right.

    Returns:
      [F, height, width, 3], contiguous.
    """
    video = self.cut(self.bars(video), rng)
    if flip and rng.integers(2):
      video = video[:, :, ::-1]
    return np.ascontiguousarray(video)
