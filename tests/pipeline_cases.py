"""Sources and comparisons for tests of the pipeline."""

import itertools
import time

import numpy as np

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pipeline import Pipeline


class Records:
  """Record i has the label i; the pixels are what `rng` says first."""

  def __init__(self, size, bad=()):
    self.size, self.bad = size, set(bad)

  def __len__(self):
    return self.size

  def clip(self, index, rng):
    video = rng.integers(0, 256, (1, 2, 2, 3), np.uint8)
    time.sleep(float(rng.random()) * 1e-3)  # threads finish in any order
    if index in self.bad:
      raise UnreadableClip(f'{index}.mp4', 'corrupt: on purpose')
    return {'video': video, 'label': index, 'caption': f'number {index}'}


def take(count, source, **options):
  """One dict of `count` batches, joined."""
  pipeline = Pipeline(source, **{'batch_size': 4, 'seed': 0, **options})
  batches = list(itertools.islice(pipeline, count))
  assert len(batches) == count
  joined = {
    key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
  }
  return pipeline, joined


def same(one, other):
  assert one.keys() == other.keys()
  for key, value in one.items():
    np.testing.assert_array_equal(value, other[key])
