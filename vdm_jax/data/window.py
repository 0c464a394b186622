"""Which frames of a video make a clip."""

import dataclasses

import numpy as np

SHORT = ('skip', 'loop')


@dataclasses.dataclass(frozen=True)
class Window:
  """A clip: `num_frames` frames, every `frameskip`-th one.

  Attributes:
    num_frames: frames of a clip, F.
    frameskip: distance of the frames that are taken, in frames of the video.
    short: what becomes of a video that is too short: 'skip' it, or 'loop' from
      its last frame to its first.
  """

  num_frames: int
  frameskip: int = 1
  short: str = 'skip'

  def __post_init__(self):
    for name in ('num_frames', 'frameskip'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'{name} is {getattr(self, name)}; it must be 1 or more.'
        )
    if self.short not in SHORT:
      raise ValueError(f'short is {self.short!r}; it must be one of {SHORT}.')

  def of_one_frame(self) -> 'Window':
    """A window of one frame of the same videos."""
    return dataclasses.replace(self, num_frames=1)

  @property
  def span(self) -> int:
    """Frames of the video from the first to the last of a clip."""
    return (self.num_frames - 1) * self.frameskip + 1

  def too_short(self, total: int) -> str:
    """Why a video of `total` frames gives no clip, or ''."""
    if total >= self.span or (self.short == 'loop' and total > 0):
      return ''
    return f'too short: {total} of {self.span} frames'

  def draw(self, total: int, rng: np.random.Generator) -> np.ndarray:
    """Frame numbers of a clip at a random place of `total` frames, [F]."""
    start = int(rng.integers(max(total - self.span, 0) + 1))
    return (start + self.frameskip * np.arange(self.num_frames)) % total
