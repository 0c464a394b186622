"""C3D of UCF101, the feature network of IS and "FID" there (Tran et al. 2015).

Trained on Sports-1M, then on UCF101.  It sees 16 frames of 112 x 112, blue
first, in [0, 255] with the mean of Sports-1M taken off.  Inception scores of
UCF101 are of its 101 logits, and what VDM calls FID there is the Fréchet
distance of its second hidden layer, 4096 numbers after the ReLU: that has a
scale of thousands and is not the FID of images.

Its last pool covers 7 x 7 with windows of 2 and counts the ragged edge, so it
gives 4 x 4; numbers are flattened channels first.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdm_jax.metrics.layers import Path, kernel, zeros

SIZE = 112
FRAMES = 16
CLASSES = 101

# Channels of the convolutions, with the window of the pool that follows.
_LAYERS = (
  ({'conv1a': 64}, (1, 2, 2)),
  ({'conv2a': 128}, (2, 2, 2)),
  ({'conv3a': 256, 'conv3b': 256}, (2, 2, 2)),
  ({'conv4a': 512, 'conv4b': 512}, (2, 2, 2)),
  ({'conv5a': 512, 'conv5b': 512}, (2, 2, 2)),
)


class C3D(nn.Module):
  """Video to features and logits."""

  @nn.compact
  def __call__(self, video: Array) -> dict[str, Array]:
    """Maps [B, 16, 112, 112, 3], RGB in [-1, 1], to features.

    Returns:
      'features' [B, 4096] after the ReLU, 'logits' [B, 101].

    Raises:
      ValueError: for another shape.
    """
    if video.shape[1:] != (FRAMES, SIZE, SIZE, 3):
      raise ValueError(
        f'C3D takes [B, {FRAMES}, {SIZE}, {SIZE}, 3]; it was given '
        f'{video.shape}.'
      )
    mean = self.param('mean', zeros, (FRAMES, SIZE, SIZE, 3))
    x = (video[..., ::-1] + 1) * 127.5 - mean[None]
    for convolutions, window in _LAYERS:
      for name, features in convolutions.items():
        x = nn.Conv(features, (3, 3, 3), precision='highest', name=name)(x)
        x = nn.relu(x)
      # The ragged edge of 7 x 7 counts; earlier sizes are even.
      x = nn.max_pool(x, window, window, 'SAME')
    x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)

    def dense(name, features, x):
      return nn.Dense(features, precision='highest', name=name)(x)

    x = nn.relu(dense('fc6', 4096, x))
    x = nn.relu(dense('fc7', 4096, x))
    return {'features': x, 'logits': dense('fc8', CLASSES, x)}


def lookup(weights: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
  """The weights at `path`, from any published form of them.

  Args:
    weights: arrays by name, of Chainer's file ('conv1a/W', 'conv1a/b', ...,
      with 'mean' of the file beside it), or of its Flax copy
      ('params/conv1a/kernel', ..., 'params/x_offset').
    path: of the parameter in `C3D`.

  Raises:
    KeyError: names the weight that is missing.
  """
  if 'params/x_offset' in weights:
    if path == ('mean',):
      return -weights['params/x_offset']
    return weights['/'.join(('params', *path))]
  if path == ('mean',):  # of Sports-1M, [1, 3, 16, 128, 171], blue first
    mean = weights['mean'].reshape(3, FRAMES, 128, 171)
    return mean[:, :, 8:120, 8:120].transpose(1, 2, 3, 0)  # as TGAN cuts it
  name, leaf = path
  return (
    weights[f'{name}/b'] if leaf == 'bias' else kernel(weights[f'{name}/W'])
  )
