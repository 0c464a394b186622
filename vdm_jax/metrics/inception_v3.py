"""InceptionV3 of 2015-12-05, the feature network of FID (Szegedy et al. 2016).

The network that FID was published with, not the one of image libraries: 1008
logits, average pools that leave out the padding, and a max pool in the last
block.  It sees 299 x 299; FID is of the 2048 numbers of its last pool, the
inception score of its logits.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdm_jax.metrics.layers import ConvNorm, Path, from_torch

SIZE = 299
CLASSES = 1008

# A convolution is (name, channels, kernel), or (name, channels, kernel, stride)
# without padding; the rest are pools.  Several in one place run side by side.
_STEM = (
  ('Conv2d_1a_3x3', 32, (3, 3), 2),
  ('Conv2d_2a_3x3', 32, (3, 3), 1),
  ('Conv2d_2b_3x3', 64, (3, 3)),
  'max',
  ('Conv2d_3b_1x1', 80, (1, 1)),
  ('Conv2d_4a_3x3', 192, (3, 3), 1),
  'max',
)


def _a(pooled):
  return (
    (('branch1x1', 64, (1, 1)),),
    (('branch5x5_1', 48, (1, 1)), ('branch5x5_2', 64, (5, 5))),
    (
      ('branch3x3dbl_1', 64, (1, 1)),
      ('branch3x3dbl_2', 96, (3, 3)),
      ('branch3x3dbl_3', 96, (3, 3)),
    ),
    ('mean', ('branch_pool', pooled, (1, 1))),
  )


def _c(size):
  return (
    (('branch1x1', 192, (1, 1)),),
    (
      ('branch7x7_1', size, (1, 1)),
      ('branch7x7_2', size, (1, 7)),
      ('branch7x7_3', 192, (7, 1)),
    ),
    (
      ('branch7x7dbl_1', size, (1, 1)),
      ('branch7x7dbl_2', size, (7, 1)),
      ('branch7x7dbl_3', size, (1, 7)),
      ('branch7x7dbl_4', size, (7, 1)),
      ('branch7x7dbl_5', 192, (1, 7)),
    ),
    ('mean', ('branch_pool', 192, (1, 1))),
  )


def _e(pool):
  return (
    (('branch1x1', 320, (1, 1)),),
    (
      ('branch3x3_1', 384, (1, 1)),
      (('branch3x3_2a', 384, (1, 3)), ('branch3x3_2b', 384, (3, 1))),
    ),
    (
      ('branch3x3dbl_1', 448, (1, 1)),
      ('branch3x3dbl_2', 384, (3, 3)),
      (('branch3x3dbl_3a', 384, (1, 3)), ('branch3x3dbl_3b', 384, (3, 1))),
    ),
    (pool, ('branch_pool', 192, (1, 1))),
  )


_BLOCKS = {
  'Mixed_5b': _a(32),
  'Mixed_5c': _a(64),
  'Mixed_5d': _a(64),
  'Mixed_6a': (
    (('branch3x3', 384, (3, 3), 2),),
    (
      ('branch3x3dbl_1', 64, (1, 1)),
      ('branch3x3dbl_2', 96, (3, 3)),
      ('branch3x3dbl_3', 96, (3, 3), 2),
    ),
    ('max',),
  ),
  'Mixed_6b': _c(128),
  'Mixed_6c': _c(160),
  'Mixed_6d': _c(160),
  'Mixed_6e': _c(192),
  'Mixed_7a': (
    (('branch3x3_1', 192, (1, 1)), ('branch3x3_2', 320, (3, 3), 2)),
    (
      ('branch7x7x3_1', 192, (1, 1)),
      ('branch7x7x3_2', 192, (1, 7)),
      ('branch7x7x3_3', 192, (7, 1)),
      ('branch7x7x3_4', 192, (3, 3), 2),
    ),
    ('max',),
  ),
  'Mixed_7b': _e('mean'),
  'Mixed_7c': _e('max_same'),
}


class InceptionV3(nn.Module):
  """Images to features and logits."""

  @nn.compact
  def __call__(self, image: Array) -> dict[str, Array]:
    """Maps [B, 299, 299, 3] in [-1, 1] to features.

    Returns:
      'features' [B, 2048], 'logits' [B, 1008].

    Raises:
      ValueError: for another shape.
    """
    if image.shape[1:] != (SIZE, SIZE, 3):
      raise ValueError(
        f'InceptionV3 takes [B, {SIZE}, {SIZE}, 3]; it was given {image.shape}.'
      )
    x = ((image + 1) * 127.5 - 128) / 128  # as it was trained
    x = _run(_STEM, x)
    for name, branches in _BLOCKS.items():
      x = _Block(branches, name=name)(x)
    features = x.mean((1, 2))
    logits = nn.Dense(CLASSES, precision='highest', name='fc')
    return {'features': features, 'logits': logits(features)}


class _Block(nn.Module):
  """Branches side by side."""

  branches: Sequence

  @nn.compact
  def __call__(self, x):
    return jnp.concatenate([_run(branch, x) for branch in self.branches], -1)


def _run(steps, x):
  """Applies pools and convolutions one after another."""
  for step in steps:
    if isinstance(step, str):
      x = _pool(step, x)
    elif isinstance(step[0], tuple):
      x = jnp.concatenate([_run((each,), x) for each in step], -1)
    else:
      name, features, kernel, *rest = step
      stride = rest[0] if rest else 1
      padding = 'VALID' if rest else 'SAME'
      x = ConvNorm(features, kernel, stride, padding, name=name)(x)
  return x


def _pool(kind, x):
  if kind == 'max':
    return nn.max_pool(x, (3, 3), (2, 2))
  if kind == 'max_same':
    return nn.max_pool(x, (3, 3), (1, 1), 'SAME')
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)


def lookup(weights: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
  """The weights at `path`, of PyTorch's copy ('Conv2d_1a_3x3.conv.weight').

  Raises:
    KeyError: names the weight that is missing.
  """
  return from_torch(weights, path)
