"""Features on disk, shard by shard: an evaluation goes on where it stopped.

A store is a folder of one set of videos, measured in one way:

    about.json      what the features are of; another evaluation is refused
    00000256.npz    features of videos 256, 257, ..., by extractor and output

A shard appears complete or not at all, so a killed evaluation loses at most the
shard that it was at.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vdm_jax.metrics.features import Network

Draw = Callable[[int, int], np.ndarray]
"""(first, count) -> these videos, uint8 [count, F, H, W, 3]."""


class FeatureStore:
  """Features of videos 0, 1, ... of one set.

  Attributes:
    path: the folder.
    total: videos in the whole set.
    size: videos of a shard.
  """

  def __init__(
    self, path: str | Path, about: Mapping[str, Any], total: int, size: int
  ):
    """Opens a store, or makes it.

    Args:
      path: the folder.
      about: everything that the features depend on, plain values.
      total: videos in the whole set.
      size: videos of a shard.

    Raises:
      ValueError: the folder holds features of something else.
    """
    self.path, self.total, self.size = Path(path), total, size
    self.path.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({**about, 'shard': size}, indent=2, sort_keys=True)
    index = self.path / 'about.json'
    if not index.exists():
      _write(index, whole.encode())
    elif index.read_text(encoding='utf-8') != whole:
      raise ValueError(
        f'{self.path} holds features of another evaluation: remove it, or '
        'evaluate as before.'
      )

  def _shards(self) -> Iterator[tuple[int, Path]]:
    for first in range(0, self.total, self.size):
      yield first, self.path / f'{first:08d}.npz'

  def fill(
    self,
    videos: Draw,
    networks: Mapping[str, Network],
    title: str,
    host: int = 0,
    num_hosts: int = 1,
  ) -> None:
    """Computes the features that are not there yet.

    Args:
      videos: gives any of the set.
      networks: by extractor.
      title: of the progress bar.
      host: which of the hosts this is; they take shards in turn, and share the
        folder.
      num_hosts: how many there are.
    """
    with tqdm(total=self.total, desc=title, unit='video', disable=None) as bar:
      for number, (first, path) in enumerate(self._shards()):
        count = min(self.size, self.total - first)
        mine = number % num_hosts == host
        if mine and not self._has(path, networks):
          drawn = videos(first, count)
          arrays = {
            f'{name}/{output}': value
            for name, network in networks.items()
            for output, value in network(drawn).items()
          }
          _write(path, arrays)
        bar.update(count)

  def _has(self, path: Path, networks: Mapping[str, Network]) -> bool:
    if not path.exists():
      return False
    with np.load(path, allow_pickle=False) as arrays:
      present = {name.split('/')[0] for name in arrays.files}
    return present >= set(networks)

  def features(self, extractor: str, output: str) -> Iterator[np.ndarray]:
    """Features of all videos in order, a shard at a time, float32."""
    for _, path in self._shards():
      with np.load(path, allow_pickle=False) as arrays:
        yield arrays[f'{extractor}/{output}']


def _write(path: Path, content: bytes | Mapping[str, np.ndarray]) -> None:
  """Writes a file, complete or not at all."""
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  with temporary.open('wb') as file:
    if isinstance(content, bytes):
      file.write(content)
    else:
      np.savez(file, **content)  # pyright: ignore[reportArgumentType]
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
