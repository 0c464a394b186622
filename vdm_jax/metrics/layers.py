"""What the feature networks are made of, and how PyTorch names it.

Everything is float32 with the highest precision of matrix products: on a TPU
the default would round the inputs to bfloat16 and move every distance.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np
from jax import Array

ones, zeros = nn.initializers.ones, nn.initializers.zeros

Path = tuple[str, ...]
"""Where a parameter is: names of modules, then 'kernel', 'bias', ..."""


class ConvNorm(nn.Module):
  """Convolution without bias, batch norm with stored statistics, ReLU.

  Attributes:
    features: channels.
    kernel: its size along each axis between batch and channels.
    stride: along all of these axes.
    padding: 'VALID', or 'SAME' as TensorFlow means it: it depends on the size.
    eps: added to the stored variance.
  """

  features: int
  kernel: tuple[int, ...]
  stride: int = 1
  padding: str = 'SAME'
  eps: float = 1e-3

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps [B, ..., C] to [B, ..., features]."""
    x = nn.Conv(
      self.features,
      self.kernel,
      strides=(self.stride,) * len(self.kernel),
      padding=self.padding,
      use_bias=False,
      precision='highest',
      name='conv',
    )(x)
    gain = self.param('gain', ones, (self.features,))
    bias = self.param('bias', zeros, (self.features,))
    mean = self.param('mean', zeros, (self.features,))
    variance = self.param('variance', ones, (self.features,))
    scale = gain * jax.lax.rsqrt(variance + self.eps)
    last = (1,) * (x.ndim - 1) + (-1,)
    shift = bias - mean * scale
    return nn.relu(x * scale.reshape(last) + shift.reshape(last))


_NORM = {
  'gain': 'bn.weight',
  'bias': 'bn.bias',
  'mean': 'bn.running_mean',
  'variance': 'bn.running_var',
}


def from_torch(
  weights: Mapping[str, np.ndarray], path: Path, conv: str = 'conv'
) -> np.ndarray:
  """A parameter of `ConvNorm` or `Dense` as PyTorch's ports store it.

  Args:
    weights: arrays by name.
    path: of the parameter here; modules have the same names there.
    conv: what convolutions are called there.

  Raises:
    KeyError: names the weight that is missing.
  """
  *modules, leaf = path
  if modules[-1] == 'conv':
    return kernel(weights['.'.join((*modules[:-1], conv, 'weight'))])
  name = '.'.join(modules)
  dense = f'{name}.{conv}' if f'{name}.{conv}.bias' in weights else name
  if f'{dense}.bias' in weights:
    value = weights[f'{dense}.{leaf.replace("kernel", "weight")}']
    return value if leaf == 'bias' else value.reshape(len(value), -1).T
  return weights[f'{name}.{_NORM[leaf]}']


def kernel(weight: np.ndarray) -> np.ndarray:
  """[out, in, ...] of PyTorch and Chainer as [..., in, out]."""
  return np.moveaxis(weight, (1, 0), (-2, -1))
