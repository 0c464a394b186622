"""Videos of a list: Kinetics-600, MSR-VTT, WebVid, and lists of one's own.

Nothing is opened before it is asked for: a list may have millions of rows, and
a file that cannot be used is replaced by the pipeline and named at the end.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from vdm_jax.data import decode, lists
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import Framing
from vdm_jax.data.recorded import Recorded
from vdm_jax.data.window import Window

FORMAT = 1  # counts every change that alters a clip


class VideoList(Recorded):
  """Random access to clips of the videos of a list.

  Attributes:
    num_classes: names of classes in the list; 0 without.
    captions: whether clips carry captions.
  """

  def __init__(
    self,
    file: str,
    path: str,
    layout: str = 'plain',
    split: str = '',
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    *,
    frameskip: int = 1,
    fit: str = 'crop',
    short: str = 'skip',
    flip: bool = False,
    captions: bool = False,
  ):
    """Reads the list.

    Args:
      file: csv or json list.
      path: folder of the videos.
      layout: one of `lists.LAYOUTS`.
      split: only rows of this split; '' is all.
      num_frames: frames of a clip, F.
      height: rows of a frame, H.
      width: columns of a frame, W.
      frameskip: distance of the frames that are taken.
      fit: how a frame becomes [H, W]; see `Framing`.
      short: see `Window`.
      flip: mirror half of the clips left to right.
      captions: add 'caption', one of the video's at random, '' for none.

    Raises:
      FileNotFoundError: there is no such list or folder.
      ValueError: from `lists.read`, or an argument out of range.
    """
    self.path = Path(path).absolute()
    if not self.path.is_dir():
      raise FileNotFoundError(f'There is no folder {self.path}.')
    self._rows = lists.read(file, layout, split)
    names = sorted({row.label for row in self._rows if row.label})
    self._classes = {name: number for number, name in enumerate(names)}
    self.num_classes = len(names)
    if names and not all(row.label for row in self._rows):
      raise ValueError(f'{file} has rows without a label beside rows with one.')
    window = Window(num_frames, frameskip, short)
    super().__init__(window, Framing(fit, height, width), flip)
    self.captions = captions
    self._forget()

  def _forget(self) -> None:
    # Times of the files read last: an epoch of clips asks for each file once.
    self._timeline = functools.lru_cache(maxsize=256)(decode.scan)

  def __getstate__(self) -> dict:
    """What goes to worker processes: all but the cache."""
    return {k: v for k, v in self.__dict__.items() if k != '_timeline'}

  def __setstate__(self, state: dict):
    self.__dict__.update(state)
    self._forget()

  def __len__(self) -> int:
    return len(self._rows)

  def fingerprint(self) -> str:
    """Short hash of the rows and of the clip rule; not of the files."""
    framing = self.framing.fit, self.framing.height, self.framing.width
    window = self.window.num_frames, self.window.frameskip, self.window.short
    rule = FORMAT, framing, window, self.flip, self.captions, self._rows
    return hashlib.sha256(json.dumps(rule).encode()).hexdigest()[:16]

  def class_names(self, label: int) -> str:
    """The name of a class."""
    return list(self._classes)[label]

  def texts(self) -> list[str]:
    """Every caption of the list."""
    return sorted({text for row in self._rows for text in row.captions})

  def _example(
    self, index: int, rng: np.random.Generator, window: Window
  ) -> dict[str, Any]:
    row = self._rows[index]
    file = self._file(row)
    timeline = self._timeline(file)
    first, stop = timeline.between(row.start, row.end)
    if reason := self.window.too_short(stop - first):
      raise UnreadableClip(file, reason)
    chosen = first + window.draw(stop - first, rng)
    step = window.frameskip
    if chosen[-1] - chosen[0] == window.span - 1:  # no loop
      frames = decode.read(
        file,
        timeline,
        int(chosen[0]),
        len(chosen),
        step,
        fit=self.framing.scaled,
      )
    else:
      whole = decode.read(
        file, timeline, first, stop - first, fit=self.framing.scaled
      )
      frames = whole[chosen - first]
    video = self.framing.finish(frames, rng, self.flip)
    clip: dict[str, Any] = {'video': video}
    if self._classes:
      clip['label'] = np.int32(self._classes[row.label])
    if self.captions:
      some = row.captions
      clip['caption'] = some[int(rng.integers(len(some)))] if some else ''
    return clip

  def _file(self, row: lists.Row) -> Path:
    for name in row.paths:
      if (file := self.path / name).is_file():
        if not file.resolve().is_relative_to(self.path.resolve()):
          raise UnreadableClip(file, 'a link that leads outside of the folder')
        return file
    raise UnreadableClip(self.path / row.paths[0], 'missing file')
