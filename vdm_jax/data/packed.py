"""Clips of a folder that `pack` wrote."""

import bisect
import functools
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from grain.sources import ArrayRecordDataSource
from PIL import Image

from vdm_jax.data.codecs import CODECS
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pack import FORMAT, INDEX
from vdm_jax.data.pixels import Framing
from vdm_jax.data.recorded import Recorded
from vdm_jax.data.text import PREFIXES, pad
from vdm_jax.data.window import Window


class Packed(Recorded):
  """Random access to clips of packed videos.

  A clip is a random window of a stored one, decoded as far as the codec allows.

  Attributes:
    num_classes: classes of the packed source.
    captions: whether clips carry captions.
    text_dim: width of the tokens that they carry; 0 for none.
    clip_text_dim: width of those of a second encoder; 0 for none.
    visual_dim: width of the embeddings that they carry; 0 for none.
  """

  def __init__(
    self,
    path: str,
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
    """Opens a finished pack.

    Args:
      path: its folder.
      num_frames: frames of a clip, F, at most those of the stored ones.
      height: rows of a frame, H.
      width: columns of a frame, W.
      frameskip: distance of the frames, in frames of the stored clip.
      fit: how a stored frame becomes [H, W]; see `Framing`.
      short: see `Window`.
      flip: mirror half of the clips left to right.
      captions: add 'caption'.

    Raises:
      FileNotFoundError: there is no pack.
      ValueError: it is unfinished, a shard is missing or has another size, or
        it is of another format.
    """
    self.path = Path(path).absolute()
    if not (self.path / INDEX).is_file():
      raise FileNotFoundError(f'{self.path} is no pack: it has no {INDEX}.')
    content = (self.path / INDEX).read_bytes()
    index = json.loads(content)
    if index['format'] != FORMAT:
      raise ValueError(
        f'{self.path} has format {index["format"]}; this version reads '
        f'{FORMAT}: pack the data again.'
      )
    if not index['complete']:
      raise ValueError(
        f'{self.path} is unfinished: run --mode=pack again, it goes on.'
      )
    for shard in index['shards']:
      file = self.path / shard['file']
      size = file.stat().st_size if file.is_file() else 0
      if size != shard['bytes']:
        raise ValueError(
          f'{file} has {size} bytes, not {shard["bytes"]}: run --mode=pack '
          'again, it writes damaged shards anew.'
        )
    self._shards = [shard['file'] for shard in index['shards']]
    self._ends = list(
      itertools.accumulate(shard['clips'] for shard in index['shards'])
    )
    self._codec, self._names = index['codec'], index['classes']
    self.text_dim, self.visual_dim = index['text_dim'], index['visual_dim']
    self.clip_text_dim = index.get('clip_text_dim', 0)
    self._digest = hashlib.sha256(content).hexdigest()
    self.num_classes, self.captions = len(self._names), captions
    window = Window(num_frames, frameskip, short)
    super().__init__(window, Framing(fit, height, width), flip)

  def __getstate__(self) -> dict:
    """What goes to worker processes: all but the open files."""
    return {k: v for k, v in self.__dict__.items() if k != '_records'}

  @functools.cached_property
  def _records(self) -> list[ArrayRecordDataSource]:
    return [ArrayRecordDataSource([str(self.path / f)]) for f in self._shards]

  def __len__(self) -> int:
    return self._ends[-1]

  def fingerprint(self) -> str:
    """Short hash of the pack and of the clip rule."""
    framing = self.framing.fit, self.framing.height, self.framing.width
    window = self.window.num_frames, self.window.frameskip, self.window.short
    rule = self._digest, framing, window, self.flip, self.captions
    return hashlib.sha256(json.dumps(rule).encode()).hexdigest()[:16]

  def class_names(self, label: int) -> str:
    """The name of a class."""
    return self._names[label]

  def texts(self) -> list[str]:
    """Every caption; reads all records."""
    return sorted(
      {self._record(i).get('caption', '') for i in range(len(self))}
    )

  def _record(self, index: int) -> dict[str, Any]:
    shard = bisect.bisect_right(self._ends, index)
    before = self._ends[shard - 1] if shard else 0
    return msgpack.unpackb(self._records[shard][index - before])

  def _example(
    self, index: int, rng: np.random.Generator, window: Window
  ) -> dict[str, Any]:
    record = self._record(index)
    where = f'{self.path}, record {index}'
    total = record['shape'][0]
    if reason := self.window.too_short(total):
      raise UnreadableClip(where, reason)
    try:
      video = CODECS[self._codec].decode(
        record['frames'], tuple(record['shape']), window.draw(total, rng)
      )
    except (OSError, ValueError) as error:
      raise UnreadableClip(where, f'corrupt: {error}') from None
    video = self.framing.finish(self._scaled(video), rng, self.flip)
    clip: dict[str, Any] = {'video': video}
    if 'label' in record:
      clip['label'] = np.int32(record['label'])
    if self.captions:
      clip['caption'] = record.get('caption', '')
    for section, prefix in PREFIXES.items():
      if f'{prefix}tokens' in record:
        clip |= _padded(record, section)
    if 'visual' in record:
      stored = np.frombuffer(record['visual'], np.float16)
      clip['visual'] = stored.astype(np.float32)
    return clip

  def _scaled(self, video: np.ndarray) -> np.ndarray:
    rows, columns = self.framing.scaled(*video.shape[1:3])
    if (rows, columns) == video.shape[1:3]:
      return video
    size, bicubic = (columns, rows), Image.Resampling.BICUBIC
    frames = [Image.fromarray(frame).resize(size, bicubic) for frame in video]
    return np.stack([np.asarray(frame) for frame in frames])


def _padded(record: dict[str, Any], section: str) -> dict[str, np.ndarray]:
  """Tokens of a record at their full length."""
  prefix = PREFIXES[section]
  stored = np.frombuffer(record[f'{prefix}tokens'], np.float16)
  stored = stored.reshape(-1, record[f'{prefix}token_dim'])
  padded = pad([stored], record[f'{prefix}max_length'], section)
  return {name: rows[0] for name, rows in padded.items()}
