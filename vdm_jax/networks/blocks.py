"""Residual blocks of the U-Net, and the stage that follows each with attention.

    h = conv(resample(SiLU(norm(x))))
    h = conv(dropout(SiLU(norm(h) * (1 + scale) + shift)))
    x = shortcut(resample(x)) + h

`scale` and `shift` come from the conditioning embedding.  The last convolution
starts at zero, so that every block starts as its shortcut.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.attention import (
  CrossAttention,
  SpatialAttention,
  TemporalAttention,
)
from vdm_jax.networks.convolution import Conv
from vdm_jax.networks.dropout import dropout
from vdm_jax.networks.materialization import materialize
from vdm_jax.networks.normalization import GroupNorm

Resize = Literal['keep', 'down', 'up']


def average_pool(x: Array) -> Array:
  """Halves the height and width of [..., H, W, C]."""
  *lead, height, width, channels = x.shape
  blocks = x.reshape(*lead, height // 2, 2, width // 2, 2, channels)
  return blocks.mean((-4, -2))


def nearest_upsample(x: Array) -> Array:
  """Doubles the height and width of [..., H, W, C] by repetition."""
  return x.repeat(2, axis=-3).repeat(2, axis=-2)


_RESIZE = {
  'keep': lambda x: x,
  'down': average_pool,
  'up': nearest_upsample,
}


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions on every frame, modulated by an embedding.

  Attributes:
    features: output channels.
    resize: halve or double the resolution inside the block.
    dropout: rate before the second convolution.
    train: whether dropout is on.
    dtype: compute type.
  """

  features: int
  resize: Resize = 'keep'
  dropout: float = 0.0
  train: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, embedding: Array) -> Array:
    """Transforms [B, F, H, W, C], given an embedding [B, 1 or F, E]."""
    x = materialize(x)
    resize = _RESIZE[self.resize]
    h = jax.nn.silu(GroupNorm(dtype=self.dtype, name='norm_1')(x))
    h = Conv(self.features, dtype=self.dtype, name='conv_1')(resize(h))
    modulation = nn.Dense(
      2 * self.features, dtype=self.dtype, name='modulation'
    )(jax.nn.silu(embedding))
    scale, shift = jnp.split(modulation[:, :, None, None], 2, axis=-1)
    h = GroupNorm(dtype=self.dtype, name='norm_2')(h, (scale, shift))
    h = jax.nn.silu(h)
    if self.train and self.dropout:
      h = dropout(h, self.dropout, self.make_rng('dropout'))
    h = Conv(
      self.features,
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      name='conv_2',
    )(h)
    x = resize(x)
    if x.shape[-1] != self.features:
      x = Conv(self.features, 1, dtype=self.dtype, name='shortcut')(x)
    return x + h


class TemporalConvolutions(nn.Module):
  """A residual branch of convolutions over three frames of each pixel.

  Norm, SiLU and convolution over and over; the last one starts at zero.

  Attributes:
    count: convolutions.
    num_images: trailing frames that are independent images.
    dtype: compute type.
  """

  count: int
  num_images: int = 0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [B, F, H, W, C] plus what the neighbouring frames add."""
    h = x = materialize(x)
    features, num_frames = x.shape[-1], x.shape[1] - self.num_images

    def shifted(h, first, last, by):
      """Frames of the video `by` places later; zeros elsewhere."""
      place = first + by, x.shape[1] - last - by
      return jnp.pad(h[:, first:last], [(0, 0), place, *[(0, 0)] * 3])

    for i in range(self.count):
      h = jax.nn.silu(GroupNorm(dtype=self.dtype, name=f'norm_{i}')(h))
      before = shifted(h, 0, num_frames - 1, 1)
      after = shifted(h, 1, num_frames, -1)
      init = nn.initializers.lecun_normal()
      h = nn.Dense(
        features,
        dtype=self.dtype,
        kernel_init=nn.initializers.zeros if i == self.count - 1 else init,
        name=f'conv_{i}',
      )(jnp.concatenate([before, h, after], -1))
    return x + h


class FeedForward(nn.Module):
  """A norm, and a perceptron of one hidden layer on each pixel.

  Attributes:
    factor: hidden channels over those of x.
    dtype: compute type.
  """

  factor: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns x plus its transform, same shape; x itself at the start."""
    features = x.shape[-1]
    h = GroupNorm(dtype=self.dtype, name='norm')(x)
    h = Conv(self.factor * features, 1, dtype=self.dtype, name='hidden')(h)
    zeros = nn.initializers.zeros
    out = Conv(features, 1, dtype=self.dtype, kernel_init=zeros, name='out')
    return x + out(jax.nn.gelu(h))


class Stage(nn.Module):
  """A residual block, then what mixes frames, pixels and tokens.

  Attributes:
    features: output channels.
    head_dim: channels of an attention head.
    attention: whether attention over space and tokens follows the residual
      block.
    temporal: whether attention over time does.
    temporal_convolutions: convolutions over time after the residual block.
    feed_forward: channels of a perceptron behind the attention to tokens, over
      `features`; 0 for none.
    num_images: trailing frames that are independent images.
    dropout: rate inside the residual block.
    train: whether dropout is on.
    dtype: compute type.
  """

  features: int
  head_dim: int = 64
  attention: bool = False
  temporal: bool = True
  temporal_convolutions: int = 0
  feed_forward: int = 0
  num_images: int = 0
  dropout: float = 0.0
  train: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    embedding: Array,
    tokens: Array | None = None,
    token_mask: Array | None = None,
  ) -> Array:
    """Transforms [B, F, H, W, C], given an embedding [B, 1 or F, E]."""
    x = ResidualBlock(
      self.features,
      dropout=self.dropout,
      train=self.train,
      dtype=self.dtype,
      name='block',
    )(x, embedding)
    if self.temporal_convolutions:
      x = TemporalConvolutions(
        self.temporal_convolutions,
        self.num_images,
        dtype=self.dtype,
        name='over_time',
      )(x)
    if self.attention:
      x = SpatialAttention(self.head_dim, dtype=self.dtype, name='spatial')(x)
    if self.attention and tokens is not None and token_mask is not None:
      x = CrossAttention(self.head_dim, dtype=self.dtype, name='cross')(
        x, tokens, token_mask
      )
      if self.feed_forward:
        x = FeedForward(self.feed_forward, dtype=self.dtype, name='forward')(x)
    if self.temporal:
      x = TemporalAttention(
        self.head_dim, self.num_images, dtype=self.dtype, name='temporal'
      )(x)
    return x
