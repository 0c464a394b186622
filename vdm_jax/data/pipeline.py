"""From a source of clips to an endless stream of batches.

The order depends on the seed and the global number g of an example alone:

    epoch, position = divmod(g, N)
    record = order(seed, epoch)[position]       rng = Philox(seed, g)

so any number of hosts, workers and threads sees the same examples, and the
place in the data is one integer. grain reads ahead in threads and processes.
"""

import contextlib
import functools
import math
import multiprocessing
import os
import threading
import weakref
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags
from grain.experimental import index_shuffle

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_float


class DataError(RuntimeError):
  """No more clips can be had; the message says why."""


class Source(Protocol):
  """Random access to clips."""

  def __len__(self) -> int: ...

  def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """'video' uint8 or float32 [F, H, W, C]; 'label' and 'caption' may be.

    So may 'tokens' [L, D] and 'token_mask' [L], by a second encoder also
    'clip_tokens' [L2, D2] and 'clip_token_mask' [L2] (`data.text`), 'images'
    [K, H, W, C], and with the same fields for each of them (`data.joint`).
    """
    ...


class Pipeline:
  """Endless host batches of a source; iterate over it.

  A batch is a dict of 'video' float32 [b, F, H, W, C] in [-1, 1] and, if the
  source gives them, 'label' int32 [b], 'caption', a list of b strings,
  'tokens' [b, L, D], 'token_mask' bool [b, L], likewise 'clip_tokens' and
  'clip_token_mask', 'images' float32 [b, K, H, W, C] and 'image_label' int32
  [b, K] and so on, with b = batch_size / num_hosts. Each record comes once in
  each epoch; batches run across the ends of epochs. Rows of all hosts, one
  after another, are the batch of a single host. Iterating again begins at
  `start` again.

  A clip that cannot be read is replaced by that of the next record, under the
  same random numbers.

  Attributes:
    skipped: reasons by path for the clips in the batches so far.
  """

  def __init__(
    self,
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    host: int = 0,
    num_hosts: int = 1,
    num_workers: int = 0,
    num_threads: int = 8,
  ):
    """Sets up the stream; reading begins with the iteration.

    Args:
      source: gives the clips; with workers it must pickle.
      batch_size: examples of a batch on all hosts together.
      seed: of the order and of the random numbers for each clip.
      start: examples seen so far, on all hosts together.
      host: which host this is.
      num_hosts: how many hosts there are.
      num_workers: processes that read; 0 reads in this one. A program that
        uses them must keep its main part under `if __name__ == '__main__'`.
      num_threads: threads that read in each of these processes.

    Raises:
      ValueError: an empty source, a number out of range, or a batch that the
        hosts cannot share equally.
    """
    if not 0 < len(source) <= 2**32:
      raise ValueError(
        f'The source has {len(source)} records; it must have 1 to 2^32.'
      )
    if num_hosts < 1 or batch_size < 1 or batch_size % num_hosts:
      raise ValueError(
        f'batch_size {batch_size} does not divide among {num_hosts} hosts; it '
        'must be a positive multiple of their number.'
      )
    if not 0 <= host < num_hosts:
      raise ValueError(f'host is {host}; it must be 0 to {num_hosts - 1}.')
    for name, count in (('start', start), ('num_workers', num_workers)):
      if count < 0:
        raise ValueError(f'{name} is {count}; it must be 0 or more.')
    if num_threads < 1:
      raise ValueError(f'num_threads is {num_threads}; it must be 1 or more.')
    if not 0 <= seed < 2**64:
      raise ValueError(f'seed is {seed}; it must be 0 or more, below 2^64.')
    self._rows = _Rows(source, seed, start, batch_size, host, num_hosts)
    self._num_workers, self._num_threads = num_workers, num_threads
    self.skipped: dict[str, str] = {}

  def __iter__(self) -> Generator[dict[str, Any], None, None]:
    rows, workers = self._rows.per_host, self._num_workers
    ahead = math.ceil(2 * rows / max(workers, 1))  # two batches
    dataset = grain.MapDataset.source(self._rows).to_iter_dataset(
      grain.ReadOptions(self._num_threads, max(ahead, self._num_threads))
    )
    if workers:
      if not flags.FLAGS.is_parsed():  # grain reads its own flags
        flags.FLAGS.mark_as_parsed()
      options = grain.MultiprocessingOptions(workers, ahead)
      dataset = dataset.mp_prefetch(options, _die_with_parent)
    dataset = dataset.batch(rows, batch_fn=self._collate)
    batches = _closing(iter(dataset))
    # When a program ends, grain by itself cleans up too late.
    weakref.finalize(batches, _close, weakref.ref(batches))
    return batches

  def _collate(self, rows: Sequence[tuple[dict, dict]]) -> dict[str, Any]:
    examples, skipped = zip(*rows, strict=True)
    for reasons in skipped:
      self.skipped.update(reasons)
    batch: dict[str, Any] = {}
    for key in examples[0]:
      values = [example[key] for example in examples]
      if key in ('video', 'images'):
        batch[key] = _stack(values)
      elif key == 'caption':
        batch[key] = values
      else:
        array = np.array(values)
        counts = np.issubdtype(array.dtype, np.integer)
        batch[key] = array.astype(np.int32) if counts else array
    return batch


def _stack(videos: Sequence[np.ndarray]) -> np.ndarray:
  """One float32 array of videos, uint8 ones scaled to [-1, 1]."""
  stacked = np.empty((len(videos), *videos[0].shape), np.float32)
  for row, one in enumerate(videos):
    if one.dtype == np.uint8:
      to_float(one, out=stacked[row])
    else:
      stacked[row] = one
  return stacked


def _closing(iterator) -> Generator[dict[str, Any], None, None]:
  try:
    yield from iterator
  except RuntimeError as error:
    if 'terminated unexpectedly' not in str(error):
      raise
    raise DataError(
      f'A process that reads data has died ({str(error).split(". ")[0]}): look '
      'at the memory of this machine, or read in threads to see the error, '
      'config.train.num_workers=0; the same command goes on from the last '
      'checkpoint.'
    ) from error
  finally:
    iterator.close()


def _close(batches: weakref.ref) -> None:
  if (generator := batches()) is not None:
    with contextlib.suppress(ValueError):  # another thread is reading
      generator.close()


class _Rows:
  """The rows of one host's batches, one after another, as grain reads them."""

  def __init__(self, source, seed, start, batch_size, host, num_hosts):
    self._source, self._seed = source, seed
    self._batch_size = batch_size
    self.per_host = batch_size // num_hosts
    self._first = start + host * self.per_host

  def __len__(self) -> int:
    return 2**62

  def __getitem__(self, index: int) -> tuple[dict, dict]:
    """(example, reasons by path of the records it stands in for)."""
    batch, offset = divmod(int(index), self.per_host)
    number = self._first + batch * self._batch_size + offset
    size = len(self._source)
    record = shuffled(number, size, self._seed)
    skipped = {}
    for candidate in range(record, record + size):
      key = np.array([self._seed, number], np.uint64)
      rng = np.random.Generator(np.random.Philox(key=key))
      try:
        return self._source.clip(candidate % size, rng), skipped
      except UnreadableClip as error:
        skipped[error.path] = error.reason
    raise DataError(
      f'None of the {size} records can be read; the first are '
      f'{dict(list(skipped.items())[:3])}.'
    )


def shuffled(number: int, size: int, seed: int) -> int:
  """The record of global example `number` among `size` records."""
  epoch, position = divmod(number, size)
  if size <= 2**20:
    return int(_order(size, seed, epoch)[position])
  # No list of that length. (For short ones index_shuffle takes milliseconds.)
  salt = int(_philox(seed, epoch).random_raw() & 0xFFFFFFFF)
  return index_shuffle(position, max_index=size - 1, seed=salt, rounds=4)


@functools.lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
  # Sorting raw bits, as numpy may change `permutation`, but not these.
  return np.argsort(_philox(seed, epoch).random_raw(size), kind='stable')


def _philox(seed: int, epoch: int) -> np.random.Philox:
  # The counter keeps it apart from the stream of example number `epoch`.
  key = np.array([seed, epoch], np.uint64)
  return np.random.Philox(key=key, counter=[0, 0, 0, 1])


def _die_with_parent(worker: int, num_workers: int) -> None:
  """Ends this worker when the program that started it is gone, even killed."""
  del worker, num_workers
  parent = multiprocessing.parent_process()
  if parent is None:
    return

  def wait():
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
