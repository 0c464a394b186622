"""A folder of arrays that is computed in parts, and outlives a kill.

    NAME.partial/begun.json         what is being made
    NAME.partial/0000000000.npz     the parts that are done
    NAME/                           the whole, once it is whole
    NAME/store.json                 what it is

The same call goes on where it was stopped; what was begun for something else
is thrown away.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def read_about(path: Path, version: int, holds: str) -> dict[str, Any]:
  """Returns what a whole folder says of itself.

  Args:
    path: the folder.
    version: the format that can be read.
    holds: what it should hold, for the error.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it has another format.
  """
  said = path / 'store.json'
  if not said.exists():
    raise FileNotFoundError(
      f'{path} holds no {holds}: run --mode=encode with the same --config and '
      '--workdir first.'
    )
  about = json.loads(said.read_text(encoding='utf-8'))
  if about['format'] != version:
    raise ValueError(
      f'{path} has format {about["format"]}; this version reads {version}: run '
      '--mode=encode again, into another folder.'
    )
  return about


class Unfinished:
  """The folder where a whole is made of its parts.

  Attributes:
    folder: where its files may be written.
  """

  def __init__(self, path: Path, about: Mapping[str, Any]):
    """Takes up what an earlier run began, if it was about the same.

    Raises:
      FileExistsError: `path` is something else than a whole folder.
    """
    if path.exists() and not (path / 'store.json').exists():
      raise FileExistsError(
        f'{path} exists and is no store of --mode=encode: give another folder.'
      )
    self._path = path
    self.folder = path.with_name(f'{path.name}.partial')
    said = self.folder / 'begun.json'
    if not said.exists() or json.loads(said.read_text('utf-8')) != about:
      shutil.rmtree(self.folder, ignore_errors=True)
      self.folder.mkdir(parents=True)
      said.write_text(json.dumps(about), encoding='utf-8')

  def part(self, number: int, make: Callable[[], Arrays]) -> None:
    """Makes and stores a part, unless it is there already."""
    path = self.folder / f'{number:010d}.npz'
    if path.exists():
      return
    arrays = make()
    temporary = path.with_suffix('.tmp')
    with temporary.open('wb') as file:
      np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(temporary, path)

  def parts(self) -> Iterator[Arrays]:
    """The parts in the order of their numbers."""
    for path in sorted(self.folder.glob('*.npz')):
      with np.load(path, allow_pickle=False) as arrays:
        yield dict(arrays)

  def finish(self, about: Mapping[str, Any]) -> None:
    """Puts the folder in the place of what was there, then drops the parts."""
    said = self.folder / 'store.json'
    said.write_text(json.dumps(about), encoding='utf-8')
    replaced = self._path.with_name(f'{self._path.name}.old')
    if self._path.exists():
      self._path.rename(replaced)
    self.folder.rename(self._path)
    shutil.rmtree(replaced, ignore_errors=True)
    for left in (*self._path.glob('*.npz'), self._path / 'begun.json'):
      left.unlink()
