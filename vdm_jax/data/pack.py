"""Any source of clips as a folder of ArrayRecord shards, read fast later.

    packed.json           what it is, and the checksums of all shards; last
    00000.array_record    clips as msgpack: what a clip carries
    00000.json            of a finished shard: its clips, bytes and SHA-256

A shard is written under another name and renamed when it is whole and on disk;
the same command goes on after a kill, verifies what is there by its checksum,
and writes again what is damaged.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from vdm_jax.data.codecs import CODECS
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_uint8
from vdm_jax.data.text import PREFIXES

FORMAT = 2
INDEX = 'packed.json'


class _Unfinished(Exception):
  """A shard that is not there, or not whole."""


def pack(
  source: Any,
  folder: str | Path,
  *,
  codec: str = 'jpeg',
  clips_per_video: int = 1,
  shard_size: int = 1024,
  seed: int = 0,
) -> dict[str, Any]:
  """Writes every video of a source, and returns the index.

  Args:
    source: gives the clips; their length is what is stored of a video, of which
      training may take shorter windows.
    folder: where to; an unfinished pack there is continued.
    codec: one of `codecs.CODECS`.
    clips_per_video: clips that are taken of each.
    shard_size: clips of a shard.
    seed: of the choice of clips.

  Raises:
    ValueError: for an argument out of range, no readable clip, or a folder that
      holds another pack.
    OSError: the folder cannot be written.
  """
  if codec not in CODECS:
    raise ValueError(f'codec is {codec!r}; it must be one of {list(CODECS)}.')
  for name, count in (
    ('clips_per_video', clips_per_video),
    ('shard_size', shard_size),
  ):
    if count < 1:
      raise ValueError(f'{name} is {count}; it must be 1 or more.')
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  total = len(source) * clips_per_video
  about = {
    'format': FORMAT,
    'codec': codec,
    'source': source.fingerprint(),
    'clips_per_video': clips_per_video,
    'shard_size': shard_size,
    'seed': seed,
    'text_dim': getattr(source, 'text_dim', 0),
    'visual_dim': getattr(source, 'visual_dim', 0),
    'classes': [
      ' '.join(np.atleast_1d(source.class_names(label)))
      for label in range(getattr(source, 'num_classes', 0))
    ],
  }
  if clip_text_dim := getattr(source, 'clip_text_dim', 0):
    about['clip_text_dim'] = clip_text_dim  # absent from older packs
  _claim(folder, about)
  for leftover in folder.glob('*.tmp'):
    leftover.unlink()
  shards = []
  with tqdm(total=total, desc='packing', unit='clip', disable=None) as bar:
    for number, first in enumerate(range(0, total, shard_size)):
      count = min(shard_size, total - first)
      try:
        shard = _finished(folder, number)
      except _Unfinished:
        examples = _examples(source, first, count, clips_per_video, seed)
        shard = _write(folder, number, examples, codec)
      shards.append(shard)
      bar.update(count)
  if not any(shard['clips'] for shard in shards):
    raise ValueError(f'{folder}: none of {total} clips could be read.')
  index = {**about, 'complete': True, 'shards': shards}
  _save(folder / INDEX, json.dumps(index, indent=2).encode())
  return index


def _claim(folder: Path, about: dict[str, Any]) -> None:
  """Makes the folder this pack's own."""
  path = folder / INDEX
  if path.exists():
    stored = json.loads(path.read_text(encoding='utf-8'))
    changed = [name for name in about if stored.get(name) != about[name]]
    if changed:
      raise ValueError(
        f'{folder} holds another pack ({", ".join(changed)} differ): give '
        'another folder.'
      )
    return
  if any(folder.glob('*.array_record')):
    raise ValueError(f'{folder} holds shards without {INDEX}: use another.')
  _save(path, json.dumps({**about, 'complete': False}, indent=2).encode())


def _examples(
  source: Any, first: int, count: int, per_video: int, seed: int
) -> Iterator[dict[str, Any] | UnreadableClip]:
  for index in range(first, first + count):
    try:
      rng = np.random.default_rng((seed, index))
      yield source.clip(index // per_video, rng)
    except UnreadableClip as error:
      yield error


def _finished(folder: Path, number: int) -> dict[str, Any]:
  """The word of a shard that is whole by its checksum."""
  word, shard = folder / f'{number:05d}.json', _shard(folder, number)
  try:
    said = json.loads(word.read_text(encoding='utf-8'))
    with shard.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except (OSError, ValueError):
    raise _Unfinished from None
  if digest != said.get('sha256'):
    raise _Unfinished
  return said


def _shard(folder: Path, number: int) -> Path:
  return folder / f'{number:05d}.array_record'


def _write(
  folder: Path, number: int, examples: Iterator[Any], codec: str
) -> dict[str, Any]:
  """Writes a shard, whole or not at all."""
  final, clips = _shard(folder, number), 0
  skipped: dict[str, str] = {}
  temporary = final.with_suffix('.tmp')
  # A clip in each group: any one is read without its neighbours.
  writer = ArrayRecordWriter(str(temporary), 'group_size:1')
  try:
    for example in examples:
      if isinstance(example, UnreadableClip):
        skipped[example.path] = example.reason
      else:
        writer.write(_serialize(example, codec))
        clips += 1
  finally:
    writer.close()
  with temporary.open('rb+') as file:
    os.fsync(file.fileno())
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  os.replace(temporary, final)
  said = {
    'file': final.name,
    'clips': clips,
    'bytes': final.stat().st_size,
    'sha256': digest,
    'skipped': skipped,
  }
  _save(folder / f'{number:05d}.json', json.dumps(said).encode())
  return said


def _serialize(example: dict[str, Any], codec: str) -> bytes:
  video = example['video']
  video = video if video.dtype == np.uint8 else to_uint8(video)
  record: dict[str, Any] = {
    'shape': video.shape,
    'frames': CODECS[codec].encode(video),
  }
  if 'label' in example:
    record['label'] = int(example['label'])
  if 'caption' in example:
    record['caption'] = example['caption']
  for prefix in PREFIXES.values():
    if f'{prefix}tokens' not in example:
      continue
    padded = example[f'{prefix}tokens']
    length = int(example[f'{prefix}token_mask'].sum())
    tokens = np.ascontiguousarray(padded[:length], np.float16)
    record[f'{prefix}tokens'] = tokens.tobytes()
    record[f'{prefix}token_dim'] = tokens.shape[1]
    record[f'{prefix}max_length'] = len(padded)
  if 'visual' in example:
    record['visual'] = np.asarray(example['visual'], np.float16).tobytes()
  return msgpack.Packer().pack(record)


def _save(path: Path, content: bytes) -> None:
  """Writes a small file, whole or not at all."""
  temporary = path.with_name(f'{path.name}.tmp')
  with temporary.open('wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
