"""Training on a folder of one's own videos and images.

Every file under the folder with a known suffix is examined once at the start
(header, first frame, number of frames). Files that cannot be used are left
out, counted and named; what only shows while decoding raises `UnreadableClip`
from `clip`, always for the same (index, rng).
"""

import concurrent.futures
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vdm_jax.data import decode
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import Framing
from vdm_jax.data.recorded import Recorded
from vdm_jax.data.window import Window

FORMAT = 1  # counts every change that alters a clip
MAX_ASPECT = 8  # a longer frame would leave next to nothing in a crop


class _File(NamedTuple):
  name: str  # relative, with forward slashes
  num_frames: int  # the header's word
  height: int
  width: int
  num_bytes: tuple[int, int]  # of the file and of its caption


class VideoFolder(Recorded):
  """Random access to clips of the videos and images in a folder.

  A clip is `num_frames` frames, every `frameskip`-th one, from a random place
  of the file. An image is a video of one frame. Files are sorted by their
  relative name, so a copy of the folder is the same data set.

  Attributes:
    skipped: (relative name, reason) of each file that was left out.
  """

  def __init__(
    self,
    path: str | Path,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    *,
    frameskip: int = 1,
    fit: str = 'crop',
    short: str = 'skip',
    flip: bool = False,
    captions: bool = False,
    cache_mb: int = 512,
  ):
    """Finds the files and examines them.

    Args:
      path: the folder; searched through all levels, without hidden files.
      num_frames: frames of a clip, F.
      height: rows of a frame, H.
      width: columns of a frame, W.
      frameskip: distance of the frames that are taken, in frames of the file.
      fit: how a frame becomes [H, W]: 'crop' (at a random place), 'center',
        'pad', 'squash' or a 'patch4'; see `Framing`.
      short: what to do with a file that has too few frames for a clip: 'skip'
        it, or 'loop' from its last frame to its first.
      flip: mirror half of the clips left to right.
      captions: add 'caption', the text of the .txt file of the same name, ''
        where there is none.
      cache_mb: as many files as fit into this memory are decoded only once
        (by each worker process). Clips are the same with any value.

    Raises:
      FileNotFoundError: there is no such folder.
      NotADirectoryError: it is a file.
      ValueError: an argument out of range, or no usable file.
    """
    if cache_mb < 0:
      raise ValueError(f'cache_mb is {cache_mb}; it must be 0 or more.')
    self.path = Path(path).absolute()
    window = Window(num_frames, frameskip, short)
    super().__init__(window, Framing(fit, height, width), flip)
    self.captions = captions
    self._files, self.skipped = self._examine_all()
    self._resident = self._choose_resident(cache_mb * 2**20)
    self._forget()

  def _forget(self):
    self._locks = [threading.Lock() for _ in range(64)]
    self._timelines: dict[int, decode.Timeline | UnreadableClip] = {}
    self._cache: dict[int, np.ndarray] = {}

  def __getstate__(self) -> dict:
    """What goes to worker processes: all but the locks and the cache."""
    local = '_locks', '_timelines', '_cache'
    return {k: v for k, v in self.__dict__.items() if k not in local}

  def __setstate__(self, state: dict):
    self.__dict__.update(state)
    self._forget()

  def __len__(self) -> int:
    return len(self._files)

  def fingerprint(self) -> str:
    """Short hash of the usable files (names, sizes) and of the clip rule.

    Neither the place of the folder nor the age of its files counts.
    """
    framing = self.framing.fit, self.framing.height, self.framing.width
    window = self.window.num_frames, self.window.frameskip
    rule = FORMAT, *window, framing, self.window.short
    files = [(file.name, file.num_bytes) for file in self._files]
    whole = json.dumps((rule, self.flip, self.captions, files))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]

  def _example(
    self, index: int, rng: np.random.Generator, window: Window
  ) -> dict:
    file = self.path / self._files[index].name
    frames = self._frames(index, file, rng, window)
    video = self.framing.finish(frames, rng, self.flip)
    example: dict = {'video': video}
    if self.captions:
      example['caption'] = _caption(file)
    return example

  def texts(self) -> Iterator[str]:
    """The caption of every file, '' where there is none."""
    return (_caption(self.path / file.name) for file in self._files)

  def _frames(
    self, index: int, file: Path, rng: np.random.Generator, window: Window
  ) -> np.ndarray:
    """The frames of a clip before the spatial cut, [F, h, w, 3]."""
    with self._locks[index % len(self._locks)]:
      timeline = self._timeline(index, file)
      whole = self._whole(index, file, timeline)
    if reason := self.window.too_short(timeline.num_frames):
      raise UnreadableClip(file, reason)
    chosen = window.draw(timeline.num_frames, rng)
    if whole is None and window.span <= timeline.num_frames:
      start, step = int(chosen[0]), window.frameskip
      return self._read(file, timeline, start, window.num_frames, step)
    if whole is None:
      whole = self._read(file, timeline)
    return whole[chosen]

  def _timeline(self, index: int, file: Path) -> decode.Timeline:
    if index not in self._timelines:
      try:
        self._timelines[index] = decode.scan(file)
      except UnreadableClip as error:
        self._timelines[index] = error
    timeline = self._timelines[index]
    if isinstance(timeline, UnreadableClip):
      raise UnreadableClip(timeline.path, timeline.reason)
    return timeline

  def _whole(self, index: int, file: Path, timeline: decode.Timeline):
    """All frames of a file that has its place in memory, or None."""
    if index in self._resident and index not in self._cache:
      try:
        self._cache[index] = self._read(file, timeline)
      except UnreadableClip:  # other clips of the file may be whole
        self._resident.discard(index)
    return self._cache.get(index)

  def _read(self, file: Path, timeline: decode.Timeline, *which) -> np.ndarray:
    frames = decode.read(file, timeline, *which, fit=self.framing.scaled)
    return self.framing.bars(frames)

  def _choose_resident(self, budget: int) -> set[int]:
    """The first files whose scaled frames fit into `budget` bytes."""
    resident = set()
    for index, file in enumerate(self._files):
      height, width = self.framing.scaled(file.height, file.width)
      budget -= 3 * file.num_frames * height * width
      if budget < 0:
        break
      resident.add(index)
    return resident

  def _examine(self, name: str) -> _File | str:
    """The file, or the reason why it cannot be used."""
    file = self.path / name
    try:
      header = decode.probe(file)
      num_frames = header.num_frames or decode.scan(file).num_frames
    except UnreadableClip as error:
      return error.reason
    height, width = header.height, header.width
    if max(height, width) > MAX_ASPECT * min(height, width):
      return f'too elongated: {width} x {height} pixels'
    text = file.with_suffix('.txt')
    caption = text.stat().st_size if self.captions and text.is_file() else 0
    num_bytes = file.stat().st_size, caption
    usable = _File(name, num_frames, height, width, num_bytes)
    return self.window.too_short(num_frames) or usable

  def _examine_all(self) -> tuple[list[_File], list[tuple[str, str]]]:
    names = _find(self.path)
    files, skipped, shown = [], [], time.monotonic()
    with concurrent.futures.ThreadPoolExecutor() as pool:
      results = pool.map(self._examine, names)
      for name, result in zip(names, results, strict=True):
        if isinstance(result, str):
          skipped.append((name, result))
        else:
          files.append(result)
        if time.monotonic() > shown + 5:
          shown = time.monotonic()
          done = len(files) + len(skipped)
          print(f'Examined {done} of {len(names)} files.', file=sys.stderr)
    if files:
      return files, skipped
    first = ''.join(f' {name} ({reason}).' for name, reason in skipped[:3])
    accepted = ', '.join((*decode.CONTAINERS, *decode.IMAGES))
    raise ValueError(
      f'{self.path} has no usable file: {len(names)} were found and all left '
      f'out.{first} Accepted are {accepted} with at least {self.window.span} '
      "frames, or shorter ones with short='loop'."
    )


def _caption(file: Path) -> str:
  text = file.with_suffix('.txt')
  return text.read_text('utf-8', 'replace') if text.is_file() else ''


def _find(folder: Path) -> list[str]:
  """Relative names of all files with a known suffix, sorted."""
  if not folder.exists():
    raise FileNotFoundError(f'There is no folder {folder}.')
  if not folder.is_dir():
    raise NotADirectoryError(f'{folder} is a file; give the folder it is in.')
  known = {*decode.CONTAINERS, *decode.IMAGES}
  names, seen = [], set()
  for here, folders, files in os.walk(folder, followlinks=True):
    if (real := os.path.realpath(here)) in seen:  # links can make a circle
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if name[0] != '.')
    place = Path(here).relative_to(folder)
    names += [
      (place / name).as_posix()
      for name in files
      if name[0] != '.' and Path(name).suffix.lower() in known
    ]
  return sorted(names)
