"""Convolution over the two space axes of a video, frames folded into the batch.

The kernel covers space only, so a video [B, F, H, W, C] is convolved as B * F
images: a 2D convolution runs several times nearer to the peak of a TPU, a GPU
and a CPU than the same work written as a 3D one.

Values are those of `jax.lax.conv_general_dilated` everywhere, and so is the
program on an accelerator.  XLA's CPU backend computes the kernel's gradient of
a 3x3 convolution at a third of its speed for matrix products, so on a CPU that
one gradient is written as one matrix product:

  dK[i, j] = sum over n, h, w of x[n, h + i - 1, w + j - 1]^T g[n, h, w]
           = sum over n, h, w of x[n, h + i - 1, w]^T g[n, h, w - j + 1]

the three x moved by rows side by side, against the three g moved by columns
side by side: all nine (i, j) at once, and each array is copied three times
instead of one of them nine times.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vdm_jax.networks.materialization import materialize

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """Convolves [..., H, W, Cin] with [k, k, Cin, Cout], zeros outside.

  k is 1 or 3 and the padding (k - 1) / 2 on each side, so stride 2 gives
  ceil(H / 2) x ceil(W / 2).  Any number of leading axes is folded into one
  batch axis.

  Raises:
    ValueError: for a kernel that is not 1x1 or 3x3, a stride below 1, an
      array without H, W and C, or channels that differ.
  """
  if kernel.ndim != 4 or kernel.shape[:2] not in ((1, 1), (3, 3)):
    raise ValueError(
      f'The kernel has shape {kernel.shape}; conv2d takes'
      ' [1, 1, in, out] or [3, 3, in, out].'
    )
  if x.ndim < 3 or x.shape[-1] != kernel.shape[2]:
    raise ValueError(
      f'The input has shape {x.shape}; a kernel of shape {kernel.shape}'
      f' needs [..., H, W, {kernel.shape[2]}].'
    )
  if stride < 1:
    raise ValueError(f'The stride is {stride}; it must be 1 or more.')
  if kernel.shape[0] == 1:
    x = x[..., ::stride, ::stride, :]
    pixels = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return pixels.reshape(*x.shape[:-1], -1)
  images = x.reshape(-1, *x.shape[-3:])
  y = _conv3x3(stride, images, kernel)
  return y.reshape(*x.shape[:-3], *y.shape[1:])


def _plain(stride: int, x: Any, kernel: Any) -> Any:
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
  )


_conv3x3 = jax.custom_vjp(_plain, nondiff_argnums=(0,))


def _forward(stride: int, x: Any, kernel: Any):
  return _plain(stride, x, kernel), (x, kernel)


def _backward(stride: int, residuals: Any, g: Any):
  x, kernel = residuals
  if stride == 1:
    # Inside a loop XLA would fold this transposition into the convolution,
    # which its CPU backend then runs six times slower.
    turned = materialize(kernel[::-1, ::-1].swapaxes(2, 3))
    dx = _plain(1, g, turned)
  else:
    dx = jax.vjp(lambda x: _plain(stride, x, kernel), x)[1](g)[0]

  def plain(x: jax.Array, g: jax.Array) -> jax.Array:
    return jax.vjp(lambda k: _plain(stride, x, k), kernel)[1](g)[0]

  if stride != 1:
    return dx, plain(x, g)
  return dx, lax.platform_dependent(
    x, g, cpu=_kernel_gradient_by_product, default=plain
  )


_conv3x3.defvjp(_forward, _backward)


def _kernel_gradient_by_product(x: jax.Array, g: jax.Array) -> jax.Array:
  """dK [3, 3, Cin, Cout] at stride 1 as one matrix product."""
  x, g = materialize((x, g))
  product = lax.dot_general(
    _three_moved(x, axis=1, step=1),
    _three_moved(g, axis=2, step=-1),
    (((0,), (0,)), ((), ())),
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )
  by_row = product.reshape(3, x.shape[-1], 3, g.shape[-1])
  return by_row.transpose(0, 2, 1, 3).astype(x.dtype)


def _three_moved(x: jax.Array, *, axis: int, step: int) -> jax.Array:
  """[N H W, 3 C]: x moved by step, 0 and -step along an axis, side by side.

  A sum of pads, because XLA's CPU backend fuses that into one loop and copies
  a concatenation piece by piece, four times slower.
  """
  channels = x.shape[-1]
  total = jnp.zeros((), x.dtype)
  for i in range(3):
    low = step * (1 - i)
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (low, -low, 0)
    config[-1] = (i * channels, (2 - i) * channels, 0)
    total = total + lax.pad(x, jnp.zeros((), x.dtype), config)
  return total.reshape(-1, 3 * channels)


class Conv(nn.Module):
  """A space-only convolution of [..., H, W, Cin] to [..., H', W', features].

  Attributes:
    features: channels of the result.
    kernel_size: 1 or 3.
    stride: 2 halves the height and the width.
    dtype: of the computation; parameters are float32.
    kernel_init: initializer of the kernel [k, k, Cin, features].
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  dtype: Any = jnp.float32
  kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [..., H', W', features] of [..., H, W, Cin]."""
    kernel = self.param(
      'kernel',
      self.kernel_init,
      (self.kernel_size, self.kernel_size, x.shape[-1], self.features),
      jnp.float32,
    )
    bias = self.param(
      'bias', nn.initializers.zeros_init(), (self.features,), jnp.float32
    )
    y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
    return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
