"""Captions as tokens: encoded once, stored, and given along with the clips.

A store is a folder:

    store.json    format, encoder, width of a token, number of captions
    keys.npy      sorted 64-bit hashes of the captions, [N]
    ends.npy      where the tokens of each caption end, [N]
    tokens.f16    tokens of all captions, one after another, float16 [T, D]
    captions.txt  the captions, one JSON string a line, in the order of the keys

Lookups touch a few pages of mapped files, so a store of many millions of
captions costs no memory in any worker.  It appears complete or not at all, and
encoding goes on where it was stopped.

Two encoders may read the same captions: each has a section of the config and a
store of its own, and a prefix of the names of its tokens, see `PREFIXES`.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from vdm_jax.data.resumable import Arrays, Unfinished, read_about
from vdm_jax.data.wrapper import Wrapper

FORMAT = 1
_BATCH = 64  # captions encoded at once
_CHUNK = 4096  # captions that a kill can cost

PREFIXES = {'text': '', 'clip_text': 'clip_'}
"""Of 'tokens' and 'token_mask' by each text encoder's section of a config."""

Encode = Callable[[Sequence[str]], list[np.ndarray]]
"""Captions -> tokens of each, [l, D] with l >= 1."""


@dataclasses.dataclass(frozen=True)
class TextSettings:
  """Where tokens come from, the section `config.text`.

  Attributes:
    section: name of the section.
    encoder: folder of a text encoder, as transformers saves it; needed to
      encode captions, and at sampling for prompts that are not in the store.
    store: folder of the encoded captions; '' is one of the section's name, e.g.
      `text`, in the workdir.
    max_length: tokens of a caption; the rest is cut off.
  """

  section: ClassVar[str] = 'text'
  encoder: str = ''
  store: str = ''
  max_length: int = 64

  def __post_init__(self):
    if self.max_length < 1:
      raise ValueError(
        f'config.{self.section}.max_length={self.max_length} is not allowed: '
        'give at least 1.'
      )


class ClipTextSettings(TextSettings):
  """Where those of a second encoder do, the section `config.clip_text`."""

  section = 'clip_text'


def _key(caption: str) -> int:
  digest = hashlib.blake2b(caption.strip().encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'little')


class Store:
  """Tokens by caption; opens what `write` wrote.

  Attributes:
    dim: width of a token, D.
    encoder: fingerprint of the encoder.
  """

  def __init__(self, path: str | Path):
    """Opens a store.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it was written in another format.
    """
    self.path = Path(path)
    about = read_about(self.path, FORMAT, 'encoded captions')
    self.dim, self.encoder = about['dim'], about['encoder']
    self._digest = about['digest']
    self._keys = np.load(self.path / 'keys.npy', mmap_mode='r')
    self._ends = np.load(self.path / 'ends.npy', mmap_mode='r')
    self._tokens = np.memmap(self.path / 'tokens.f16', np.float16, 'r')
    self._tokens = self._tokens.reshape(-1, self.dim)

  def __getstate__(self) -> Path:
    return self.path  # a worker process maps the files anew

  def __setstate__(self, path: Path):
    self.__init__(path)

  def __len__(self) -> int:
    return len(self._keys)

  def _place(self, caption: str) -> int | None:
    place = int(np.searchsorted(self._keys, np.uint64(_key(caption))))
    found = place < len(self) and self._keys[place] == _key(caption)
    return place if found else None

  def __contains__(self, caption: str) -> bool:
    return self._place(caption) is not None

  def __getitem__(self, caption: str) -> np.ndarray:
    """Tokens [l, D], float16; KeyError for a caption that is not there."""
    place = self._place(caption)
    if place is None:
      raise KeyError(caption)
    first = self._ends[place - 1] if place else 0
    return np.asarray(self._tokens[first : self._ends[place]])

  def captions(self, num: int) -> list[str]:
    """The first `num` captions, fewer if there are fewer."""
    with (self.path / 'captions.txt').open(encoding='utf-8') as lines:
      return [json.loads(line) for line in itertools.islice(lines, num)]

  def fingerprint(self) -> str:
    """Short hash of the captions and of their encoder."""
    return f'{self.encoder}-{self._digest}'


def write(
  path: str | Path, captions: Iterable[str], encode: Encode, encoder: str
) -> Store:
  """Encodes captions, each once, and writes a store.

  Args:
    path: the folder to write; an existing store is replaced at the end.
    captions: in any order; empty ones, which are "no condition", are left out.
    encode: gives the tokens.
    encoder: its fingerprint.

  Raises:
    ValueError: there is no caption.
    FileExistsError: `path` is something else than a store.
  """
  path = Path(path)
  by_key = {_key(c): c.strip() for c in captions if c.strip()}
  if not by_key:
    raise ValueError('There are no captions to encode: is captions=True set?')
  keys = sorted(by_key)
  lines = ''.join(json.dumps(by_key[key]) + '\n' for key in keys)
  about = {
    'format': FORMAT,
    'encoder': encoder,
    'digest': hashlib.sha256(lines.encode()).hexdigest()[:16],
  }
  unfinished = Unfinished(path, about)
  with tqdm(
    total=len(keys), desc='encoding', unit='caption', disable=None
  ) as bar:
    for first in range(0, len(keys), _CHUNK):
      chunk = [by_key[key] for key in keys[first : first + _CHUNK]]
      unfinished.part(first, functools.partial(_encode_all, chunk, encode))
      bar.update(len(chunk))
  dim = _join(unfinished, keys, lines)
  unfinished.finish({**about, 'dim': dim})
  return Store(path)


def _encode_all(captions: Sequence[str], encode: Encode) -> Arrays:
  tokens: list[np.ndarray] = []
  for first in range(0, len(captions), _BATCH):
    tokens += encode(captions[first : first + _BATCH])
  return {
    'tokens': np.concatenate(tokens).astype(np.float16),
    'lengths': np.array([len(each) for each in tokens]),
  }


def _join(unfinished: Unfinished, keys: list[int], lines: str) -> int:
  """Makes the files of a store of its parts; returns the width of a token."""
  lengths, dim, folder = [], 0, unfinished.folder
  with (folder / 'tokens.f16').open('wb') as file:
    for arrays in unfinished.parts():
      dim = arrays['tokens'].shape[1]
      lengths.append(arrays['lengths'])
      file.write(np.ascontiguousarray(arrays['tokens']).tobytes())
  np.save(folder / 'keys.npy', np.array(keys, np.uint64))
  np.save(folder / 'ends.npy', np.concatenate(lengths).cumsum())
  (folder / 'captions.txt').write_text(lines, encoding='utf-8')
  return dim


def pad(
  sequences: Sequence[np.ndarray], length: int, section: str = 'text'
) -> dict[str, np.ndarray]:
  """'tokens' [N, length, D] and 'token_mask' [N, length] of N sequences.

  Named so with the prefix of a section.
  """
  dim = sequences[0].shape[1]
  tokens = np.zeros((len(sequences), length, dim), np.float16)
  mask = np.zeros((len(sequences), length), bool)
  for row, sequence in enumerate(sequences):
    cut = sequence[:length]
    tokens[row, : len(cut)] = cut
    mask[row, : len(cut)] = True
  prefix = PREFIXES[section]
  return {f'{prefix}tokens': tokens, f'{prefix}token_mask': mask}


class Captioned(Wrapper):
  """A source whose clips carry the tokens of their captions.

  Attributes:
    source: gives clips with 'caption'.
    store: has the tokens of every caption.
    section: of the encoder.
  """

  def __init__(
    self, source: Any, store: Store, max_length: int, section: str = 'text'
  ):
    """Checks that the store covers the source.

    Raises:
      ValueError: the source has no captions, or the store lacks one.
    """
    if not getattr(source, 'captions', False):
      raise ValueError(
        'a model of text needs captions: set config.data.captions to True.'
      )
    missing = [c for c in source.texts() if c.strip() and c not in store]
    if missing:
      raise ValueError(
        f'{store.path} lacks {len(missing)} captions of the data, e.g. '
        f'{missing[0]!r}: run --mode=encode again.'
      )
    super().__init__(source)
    self.store, self.max_length, self.section = store, max_length, section

  @property
  def text_dim(self) -> int:
    """Width of a token of the first encoder."""
    return self.store.dim if self.section == 'text' else super().text_dim

  @property
  def clip_text_dim(self) -> int:
    """Width of a token of the second."""
    own = self.section == 'clip_text'
    return self.store.dim if own else super().clip_text_dim

  def fingerprint(self) -> str:
    """The source's and the store's."""
    text = f'{self.store.fingerprint()}-{self.max_length}'
    return f'{self.source.fingerprint()}+{PREFIXES[self.section]}{text}'

  def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Clip `index`, with 'tokens' [L, D] and 'token_mask' [L], see `pad`."""
    return self._with_tokens(self.source.clip(index, rng))

  def image(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Image `index` of the source, likewise."""
    return self._with_tokens(self.source.image(index, rng))

  def _with_tokens(self, example: dict[str, Any]) -> dict[str, Any]:
    caption = example['caption']
    tokens = np.zeros((0, self.store.dim), np.float16)
    if caption.strip():
      tokens = self.store[caption]
    padded = pad([tokens], self.max_length, self.section)
    return {**example, **{name: rows[0] for name, rows in padded.items()}}
