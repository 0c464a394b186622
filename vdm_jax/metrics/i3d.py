"""I3D, the feature network of FVD and KVD (Carreira and Zisserman 2017).

The network of Kinetics-400 as the original FVD uses it: frames of 224 x 224 in
[-1, 1], the 400 logits averaged over time, before any softmax.  Its batch norm
has no gain and eps = 1e-3.  'SAME' padding is TensorFlow's, which depends on
the number of frames; at least 9 are needed, as the last pool covers two of
every eight.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdm_jax.metrics.layers import ConvNorm, Path, from_torch

SIZE = 224
MIN_FRAMES = 9
CLASSES = 400

# Channels of the six convolutions of each block; max pools between them.
_BLOCKS = {
  'Mixed_3b': (64, 96, 128, 16, 32, 32),
  'Mixed_3c': (128, 128, 192, 32, 96, 64),
  'MaxPool3d_4a_3x3': (3, 3, 3),
  'Mixed_4b': (192, 96, 208, 16, 48, 64),
  'Mixed_4c': (160, 112, 224, 24, 64, 64),
  'Mixed_4d': (128, 128, 256, 24, 64, 64),
  'Mixed_4e': (112, 144, 288, 32, 64, 64),
  'Mixed_4f': (256, 160, 320, 32, 128, 128),
  'MaxPool3d_5a_2x2': (2, 2, 2),
  'Mixed_5b': (256, 160, 320, 32, 128, 128),
  'Mixed_5c': (384, 192, 384, 48, 128, 128),
}

# Convolutions of a block, with their names in the checkpoint of TensorFlow.
_CONVOLUTIONS = {
  'b0': 'Branch_0/Conv3d_0a_1x1',
  'b1a': 'Branch_1/Conv3d_0a_1x1',
  'b1b': 'Branch_1/Conv3d_0b_3x3',
  'b2a': 'Branch_2/Conv3d_0a_1x1',
  'b2b': 'Branch_2/Conv3d_0b_3x3',
  'b3b': 'Branch_3/Conv3d_0b_1x1',
}


class I3D(nn.Module):
  """Video to logits.

  Attributes:
    eps: of the batch norm; PyTorch ports of the weights use 1e-5, which is not
      what they were trained with.
  """

  eps: float = 1e-3

  @nn.compact
  def __call__(self, video: Array) -> dict[str, Array]:
    """Maps [B, F, 224, 224, 3] in [-1, 1] to 'logits' [B, 400].

    Raises:
      ValueError: for fewer than 9 frames or another size.
    """
    if video.shape[1] < MIN_FRAMES or video.shape[2:] != (SIZE, SIZE, 3):
      raise ValueError(
        f'I3D takes [B, F, {SIZE}, {SIZE}, 3] with F >= {MIN_FRAMES}; it was '
        f'given {video.shape}.'
      )

    def conv(name, features, kernel, x, stride=1):
      size = (kernel,) * 3
      return ConvNorm(features, size, stride, eps=self.eps, name=name)(x)

    x = conv('Conv3d_1a_7x7', 64, 7, video, stride=2)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    x = conv('Conv3d_2b_1x1', 64, 1, x)
    x = conv('Conv3d_2c_3x3', 192, 3, x)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    for name, sizes in _BLOCKS.items():
      if name.startswith('Mixed'):
        x = _Mixed(sizes, self.eps, name=name)(x)
      else:
        x = _max_pool(x, sizes, (2, 2, 2))
    x = nn.avg_pool(x, (2, 7, 7), (1, 1, 1), 'VALID')
    logits = nn.Dense(CLASSES, precision='highest', name='logits')
    return {'logits': logits(x[:, :, 0, 0]).mean(1)}


class _Mixed(nn.Module):
  """Four branches side by side."""

  sizes: tuple[int, ...]
  eps: float

  @nn.compact
  def __call__(self, x):
    sizes = dict(zip(_CONVOLUTIONS, self.sizes, strict=True))

    def conv(name, kernel, x):
      return ConvNorm(sizes[name], (kernel,) * 3, eps=self.eps, name=name)(x)

    pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
    branches = (
      conv('b0', 1, x),
      conv('b1b', 3, conv('b1a', 1, x)),
      conv('b2b', 3, conv('b2a', 1, x)),
      conv('b3b', 1, pooled),
    )
    return jnp.concatenate(branches, -1)


def _max_pool(x, window, strides):
  return nn.max_pool(x, window, strides, 'SAME')


def lookup(weights: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
  """The weights at `path`, from any published form of them.

  Args:
    weights: arrays by name, of the checkpoint of TensorFlow Hub
      ('RGB/inception_i3d/Conv3d_1a_7x7/...'), of its Flax copy
      ('params/Conv3d_1a_7x7/...'), or of its PyTorch copy
      ('Conv3d_1a_7x7.conv3d.weight').
    path: of the parameter in `I3D`.

  Raises:
    KeyError: names the weight that is missing.
  """
  if 'logits.conv3d.weight' in weights:
    return from_torch(weights, path, conv='conv3d')
  flax = any(name.startswith('params/') for name in weights)
  root, joint = ('params/', '.') if flax else ('RGB/inception_i3d/', '/')
  *modules, leaf = path
  if modules == ['logits']:
    theirs = leaf if flax else leaf[0].replace('k', 'w')
    value = weights[f'{root}Logits{joint}Conv3d_0c_1x1/conv_3d/{theirs}']
    return value[0, 0, 0] if leaf == 'kernel' else value
  if modules[-1] == 'conv':
    name = _name(modules[:-1], joint)
    return weights[f'{root}{name}/conv_3d/{"kernel" if flax else "w"}']
  name = f'{root}{_name(modules, joint)}/batch_norm'
  if leaf == 'gain':  # there is none
    return np.ones_like(np.ravel(weights[f'{name}/beta']))
  theirs = 'beta' if leaf == 'bias' else f'moving_{leaf}'
  return np.ravel(weights[f'{name}/{theirs}'])


def _name(modules: Sequence[str], joint: str) -> str:
  """A convolution's name in TensorFlow ('/') or its Flax copy ('.')."""
  if len(modules) == 1:
    return modules[0]
  if joint == '/' and modules == ['Mixed_5b', 'b2b']:
    return 'Mixed_5b/Branch_2/Conv3d_0a_3x3'  # a misnomer of the original
  block, conv = modules
  return f'{block}/{_CONVOLUTIONS[conv].replace("/", joint)}'
