"""Real clips to compare with: a fixed choice, the same at every call.

    clip i of stream s = source.clip(order(seed)[i + s N], rng(seed, s, i))

for N clips in a stream.  A second stream is of other videos where the source
has enough of them.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from grain.experimental import index_shuffle

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_uint8
from vdm_jax.data.registry import SOURCES, build_source

CLIPS = ('random', 'first')
_TRIES = 100  # unreadable clips in a row


class RealClips:
  """A fixed choice of clips.

  Attributes:
    total: clips of a stream, N.
    has_split: whether the source knows splits; else it is all of one.
    has_more: whether two streams share no video.
    skipped: reasons by path for clips that could not be read.
  """

  def __init__(
    self,
    data: Mapping[str, Any],
    *,
    num: int,
    split: str | None,
    clips: str = 'random',
    replacement: bool = False,
    seed: int = 0,
  ):
    """Opens the data, with frames cut in the middle and not mirrored.

    Args:
      data: the section `config.data`.
      num: clips of a stream; 0 is as many as the source has videos.
      split: of the source, where it knows splits; None is that of `data`.
      clips: 'random', or 'first', those that a video begins with.
      replacement: whether a video may come again before all have come once.
      seed: of the choice.

    Raises:
      ConfigError, ValueError, OSError: from the source's own checks.
    """
    if clips not in CLIPS:
      raise ValueError(f'clips is {clips!r}; it must be one of {CLIPS}.')
    fields = inspect.signature(SOURCES[data['name']]).parameters
    self.has_split = 'split' in fields
    section = dict(data)
    if self.has_split and split is not None:
      section['split'] = split
    if 'flip' in fields:
      section['flip'] = False
    if section.get('fit', 'crop') == 'crop' and 'fit' in fields:
      section['fit'] = 'center'
    self._source = build_source(section)
    self.total = num or len(self._source)
    self.has_more = len(self._source) >= 2 * self.total
    self._clips, self._replacement, self._seed = clips, replacement, seed
    self.skipped: dict[str, str] = {}

  def __call__(self, first: int, count: int, stream: int = 0) -> np.ndarray:
    """Clips first, first + 1, ... of a stream, uint8 [count, F, H, W, 3].

    Raises:
      UnreadableClip: for too many damaged files in a row.
    """
    indices = range(first, first + count)
    return np.stack([self._clip(index, stream) for index in indices])

  def _clip(self, index: int, stream: int) -> np.ndarray:
    rng = np.random.default_rng((self._seed, stream, index))
    size = len(self._source)
    place = index + stream * self.total
    if self._replacement:
      place = int(rng.integers(size))
    for attempt in range(_TRIES):
      epoch, position = divmod(place + attempt, size)
      video = index_shuffle(
        position, max_index=size - 1, seed=self._seed + epoch, rounds=4
      )
      choice: Any = _First() if self._clips == 'first' else rng
      try:
        clip = self._source.clip(video, choice)['video']
      except UnreadableClip as error:
        self.skipped[str(error.path)] = error.reason
        if attempt + 1 == _TRIES:
          raise
        continue
      return clip if clip.dtype == np.uint8 else to_uint8(clip)
    raise AssertionError('unreachable')


class _First:
  """Random numbers that always say the first."""

  def integers(self, *_: Any) -> int:
    return 0
