"""Weights that exercise every part of a network, the same on every machine."""

import numpy as np


def fill(shapes, seed=0):
  """Random weights for names and shapes as a published file has them.

  Signals keep their size through the layers, and no norm is trivial: with means
  of 0 and variances of 1 a converter that mixes them up would pass.
  """
  rng = np.random.default_rng(seed)
  return {
    name: _value(rng, name, tuple(shape)) for name, shape in shapes.items()
  }


def _value(rng, name, shape):
  if name.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  normal = rng.standard_normal(shape, dtype=np.float32)
  if 'var' in name.rsplit('.', 1)[-1]:
    return np.exp(normal / 4)
  if 'embedding' in name and 'patch' not in name:
    return normal
  if len(shape) > 1:
    return normal * np.float32((2 / np.prod(shape[1:])) ** 0.5)
  gain = name.endswith('weight')
  return normal * np.float32(0.1) + np.float32(gain)


def sports_mean():
  """Stands for the mean of C3D's videos, blue first, [1, 3, 16, 128, 171]."""
  rng = np.random.default_rng(7)
  return rng.uniform(80, 120, (1, 3, 16, 128, 171)).astype(np.float32)
