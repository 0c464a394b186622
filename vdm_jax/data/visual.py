"""What the middle frame of a clip shows, as an embedding: VideoFusion 4.1.

    visual = sqrt(D) e / |e|,   e = encoder(frame floor(F / 2)), counted from 1

An embedding of zeros means "nothing known".  Those of an encoder are computed
once, ahead of training, and belong to certain clips: of every video, those that
`clips_per_video` fixed seeds choose.  Training sees these clips and no others,
so that an embedding is always that of the very clip it comes with.  A store is
a folder:

    store.json       format, encoder, source, clips of a video, width D
    embeddings.npy   float16 [videos * clips_per_video, D], NaN where unreadable
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_uint8
from vdm_jax.data.resumable import Arrays, Unfinished, read_about

FORMAT = 1
_CHUNK = 256  # clips that a kill can cost
_BATCH = 32  # frames encoded at once
_SIDE = 4  # of a thumbnail
THUMBNAIL, THUMBNAIL_DIM = 'thumbnail', 3 * _SIDE**2

Encode = Callable[[np.ndarray], np.ndarray]
"""Images, uint8 [N, H, W, 3] -> embeddings of any length, float [N, D]."""


@dataclasses.dataclass(frozen=True)
class VisualSettings:
  """Where visual embeddings come from, the section `config.visual`.

  Attributes:
    encoder: folder of a CLIP model, as transformers saves it, or 'thumbnail'
      for `thumbnail`, which needs neither a folder nor a store; '' for a run
      that reads its store alone.
    store: folder of the embeddings; '' is `visual` in the workdir.
    clips_per_video: clips that are embedded of each video.
  """

  encoder: str = ''
  store: str = ''
  clips_per_video: int = 1

  def __post_init__(self):
    if self.clips_per_video < 1:
      raise ValueError(
        f'config.visual.clips_per_video={self.clips_per_video} is not allowed: '
        'give at least 1.'
      )


def middle(num_frames: int) -> int:
  """Index of frame floor(F / 2), counted from 1, of a video; from 0."""
  return max(num_frames // 2 - 1, 0)


def normalize(embeddings: np.ndarray) -> np.ndarray:
  """Gives embeddings [..., D] the length sqrt(D); zeros stay zeros."""
  length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
  return embeddings * embeddings.shape[-1] ** 0.5 / np.maximum(length, 1e-12)


def thumbnail(images: np.ndarray) -> np.ndarray:
  """Embeds images, uint8 [N, H, W, 3], as 4 x 4 mean colours, [N, 48].

  Where things are and what colour they have: enough for small videos, and
  nothing has to be fetched for it.
  """
  count, height, width = images.shape[:3]
  if height % _SIDE or width % _SIDE:
    raise ValueError(
      f'thumbnails need height and width divisible by {_SIDE}, not '
      f'{height}x{width}.'
    )
  cells = images.reshape(
    count, _SIDE, height // _SIDE, _SIDE, width // _SIDE, 3
  ).mean((2, 4), dtype=np.float32)
  return cells.reshape(count, -1) / 127.5 - 1


def middle_frame(clip: dict[str, Any]) -> np.ndarray:
  """Returns the middle frame of a clip, uint8 [H, W, 3]."""
  video = clip['video']
  frame = video[middle(len(video))]
  return frame if frame.dtype == np.uint8 else to_uint8(frame)


def fixed_clip(source: Any, index: int, draw: int) -> dict[str, Any]:
  """Returns clip number `draw` of those of video `index` that are embedded."""
  return source.clip(index, np.random.default_rng((index, draw)))


class VisualStore:
  """Embeddings of the clips of one source; opens what `write` wrote.

  Attributes:
    dim: width of an embedding, D.
    encoder: fingerprint of the encoder.
    source: fingerprint of the source.
    clips_per_video: clips that were embedded of each video.
  """

  def __init__(self, path: str | Path):
    """Opens a store.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it was written in another format.
    """
    self.path = Path(path)
    about = read_about(self.path, FORMAT, 'visual embeddings')
    self.encoder, self.source = about['encoder'], about['source']
    self.clips_per_video = about['clips_per_video']
    self._embeddings = np.load(self.path / 'embeddings.npy', mmap_mode='r')
    self.dim = self._embeddings.shape[1]

  def __getstate__(self) -> Path:
    return self.path  # a worker process maps the file anew

  def __setstate__(self, path: Path):
    self.__init__(path)

  def __len__(self) -> int:
    return len(self._embeddings)

  def __getitem__(self, place: int) -> np.ndarray:
    """Embedding [D], float32, of a clip."""
    return np.asarray(self._embeddings[place], np.float32)

  def fingerprint(self) -> str:
    """Short name of the encoder and of the clips."""
    return f'{self.encoder}-{self.clips_per_video}'


def write(
  path: str | Path,
  source: Any,
  encode: Encode,
  encoder: str,
  clips_per_video: int = 1,
) -> VisualStore:
  """Embeds the middle frames of a source's clips, and writes a store.

  Args:
    path: the folder to write; an existing store is replaced at the end, and an
      unfinished one continued.
    source: gives the clips.
    encode: gives the embeddings.
    encoder: its fingerprint.
    clips_per_video: clips of each video, chosen by fixed seeds.

  Raises:
    ValueError: no clip can be read, or an embedding is not finite.
    FileExistsError: `path` is something else than a store.
  """
  path = Path(path)
  about = {
    'format': FORMAT,
    'encoder': encoder,
    'source': source.fingerprint(),
    'clips_per_video': clips_per_video,
  }
  total = len(source) * clips_per_video
  unfinished = Unfinished(path, about)
  with tqdm(total=total, desc='encoding', unit='clip', disable=None) as bar:
    for first in range(0, total, _CHUNK):
      places = range(first, min(first + _CHUNK, total))
      make = functools.partial(_embed, source, places, encode, clips_per_video)
      unfinished.part(first, make)
      bar.update(len(places))
  # Parts without a readable clip do not know the width.
  dim = max(part['embeddings'].shape[1] for part in unfinished.parts())
  whole = np.lib.format.open_memmap(
    unfinished.folder / 'embeddings.npy', 'w+', np.float16, (total, dim)
  )
  done = 0
  for part in unfinished.parts():
    rows = part['embeddings']
    whole[done : done + len(rows)] = rows
    done += len(rows)
  whole.flush()
  if np.isnan(whole[:, 0]).all():
    raise ValueError(f'none of {total} clips can be read: nothing to encode.')
  unfinished.finish(about)
  return VisualStore(path)


def _embed(
  source: Any, places: range, encode: Encode, clips_per_video: int
) -> Arrays:
  """Embeddings of some clips, NaN for those that cannot be read."""
  frames: dict[int, np.ndarray] = {}
  for place in places:
    try:
      clip = fixed_clip(source, *divmod(place, clips_per_video))
      frames[place - places.start] = middle_frame(clip)
    except UnreadableClip:
      continue
  rows = list(frames)
  embeddings = np.full((len(places), 1), np.nan, np.float16)
  for first in range(0, len(rows), _BATCH):
    some = rows[first : first + _BATCH]
    made = normalize(encode(np.stack([frames[row] for row in some])))
    if not np.isfinite(made).all():
      raise ValueError('the visual encoder gave numbers that are not finite.')
    if not first:
      embeddings = np.full((len(places), made.shape[1]), np.nan, np.float16)
    embeddings[some] = made
  return {'embeddings': embeddings}
