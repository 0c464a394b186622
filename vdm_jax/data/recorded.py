"""What sources of recorded videos share: the rule of a clip, and its bounds."""

from typing import Any

import numpy as np

from vdm_jax.data.pixels import Framing
from vdm_jax.data.window import Window


class Recorded:
  """Random access to clips, each a window of a video, framed and mirrored.

  A source gives `__len__` and `_example(index, rng, window)`.
  """

  def __init__(self, window: Window, framing: Framing, flip: bool):
    self.window, self.framing, self.flip = window, framing, flip

  def __len__(self) -> int:
    raise TypeError(f'{type(self).__name__} must say how many videos it has.')

  def _example(
    self, index: int, rng: np.random.Generator, window: Window
  ) -> dict[str, Any]:
    raise TypeError(f'{type(self).__name__} must read its videos.')

  def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random clip of video `index`; all choices are drawn from `rng`.

    Returns:
      'video' uint8 [F, H, W, 3]; 'label' int32 where there are classes, and
      'caption' where it is asked for.

    Raises:
      IndexError: `index` is outside of [0, len(self)).
      UnreadableClip: the video is missing, damaged or too short.
    """
    return self._within(index, rng, self.window)

  def image(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random frame of video `index`, as a clip of one frame; see `clip`."""
    return self._within(index, rng, self.window.of_one_frame())

  def _within(
    self, index: int, rng: np.random.Generator, window: Window
  ) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'clip {index} was asked for; there are {len(self)}.')
    return self._example(index, rng, window)
