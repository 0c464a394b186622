"""What is known of a video file before its frames are decoded."""

import array
import bisect
from typing import NamedTuple


class Header(NamedTuple):
  """What a file says of itself: frames, and pixels as they are shown."""

  num_frames: int | None  # None where the header does not tell
  height: int
  width: int


class Keyframe(NamedTuple):
  """Where decoding can start: frame number, and time in the file's unit."""

  number: int
  pts: int


class Timeline(NamedTuple):
  """The true number of frames, and where the keyframes are if that is sure.

  With `times`, seconds from the first frame at which each is shown: frames of
  phones and screens are not equally far apart.
  """

  num_frames: int
  keyframes: tuple[Keyframe, ...] = ()
  times: array.array = array.array('f')

  def between(self, start: float, end: float | None) -> tuple[int, int]:
    """Frames [first, stop) that are shown from `start` to before `end`.

    Half a millisecond is allowed for: lists have times of three decimals.
    """
    first = bisect.bisect_left(self.times, start - 5e-4)
    if end is None:
      return first, self.num_frames
    return first, bisect.bisect_left(self.times, end - 5e-4)
