"""Attention over space, over time, and from pixels to tokens.

    Spatial    each frame alone: H W queries, keys and values
    Temporal   each pixel alone: F queries, keys and values, with relative
               positions (VDM section 3; Shaw et al. 2018, eq. (5)):

                 logit_ij = q_i . (k_j + r_{j - i}) / sqrt(d)

               Independent images ride along as trailing frames.  VDM fixes
               their attention matrix to the identity: each attends to itself
               alone, so its result is its own value.
    Cross      H W queries, keys and values from a sequence of tokens

Every block is residual, x + W_out attention(norm(x)), and starts as the
identity: W_out is zero.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.convolution import Conv, conv2d
from vdm_jax.networks.materialization import materialize
from vdm_jax.networks.normalization import GroupNorm
from vdm_jax.networks.softmax_attention import (
  attend,
  attend_in_frames,
  attend_over_time,
)


def heads_of(features: int, head_dim: int) -> int:
  """Returns how many heads of `head_dim` channels share `features`."""
  heads = max(1, features // head_dim)
  if features % heads:
    raise ValueError(
      f'{features} channels do not split into heads of head_dim={head_dim}: '
      'choose a head_dim that divides width * multiplier at every level with '
      'attention.'
    )
  return heads


class Projections(nn.Module):
  """Queries, keys and values of [B, F, H, W, C], from one kernel.

  Attributes:
    dtype: compute type.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, num_frames: int) -> tuple[Array, Array, Array]:
    """Returns those of the first frames, and the values of all of them."""
    features = x.shape[-1]
    init = nn.initializers.lecun_normal()
    kernel = self.param('kernel', init, (1, 1, features, 3 * features))
    bias = self.param('bias', nn.initializers.zeros, (3 * features,))
    bias = bias.reshape(1, 1, 1, 1, -1)

    def projected(x, part):
      # Cutting the kernel costs less than cutting what comes out.
      part = slice(part * features, (part + 1) * features)
      y = conv2d(x, kernel[..., part].astype(self.dtype))
      return y + bias[..., part].astype(self.dtype)

    asking = x[:, :num_frames]
    return projected(asking, 0), projected(asking, 1), projected(x, 2)


def _output(features: int, dtype: DTypeLike) -> Conv:
  return Conv(
    features,
    kernel_size=1,
    dtype=dtype,
    kernel_init=nn.initializers.zeros,
    name='out',
  )


class SpatialAttention(nn.Module):
  """Self-attention within each frame of [B, F, H, W, C].

  Attributes:
    head_dim: channels of a head.
    dtype: compute type.
  """

  head_dim: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns x plus its attention, same shape."""
    x = materialize(x)
    features = x.shape[-1]
    y = GroupNorm(dtype=self.dtype, name='norm')(x)
    q, k, v = Projections(self.dtype, name='qkv')(y, x.shape[1])
    out = attend_in_frames(q, k, v, heads_of(features, self.head_dim))
    return x + _output(features, self.dtype)(out)


class TemporalAttention(nn.Module):
  """Self-attention over the frames of each pixel of [B, F, H, W, C].

  Attributes:
    head_dim: channels of a head.
    num_images: trailing frames that are independent images.
    max_distance: frames further apart than this share one position.
    dtype: compute type.
  """

  head_dim: int
  num_images: int = 0
  max_distance: int = 32
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns x plus its attention, same shape."""
    x = materialize(x)
    features = x.shape[-1]
    num_frames = x.shape[1] - self.num_images
    y = GroupNorm(dtype=self.dtype, name='norm')(x)
    q, k, v = Projections(self.dtype, name='qkv')(y, num_frames)
    width = features // heads_of(features, self.head_dim)
    positions = self.param(
      'positions',
      nn.initializers.normal(0.02),
      (2 * self.max_distance + 1, width),
    )
    frame = jnp.arange(num_frames)
    distance = jnp.clip(
      frame[None] - frame[:, None], -self.max_distance, self.max_distance
    )
    relative = positions[distance + self.max_distance].astype(self.dtype)
    out = attend_over_time(q, k, v[:, :num_frames], relative)
    out = jnp.concatenate([out, v[:, num_frames:]], 1)
    return x + _output(features, self.dtype)(out)


class CrossAttention(nn.Module):
  """Attention from the pixels of [B, F, H, W, C] to tokens.

  Attributes:
    head_dim: channels of a head.
    dtype: compute type.
  """

  head_dim: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, tokens: Array, token_mask: Array) -> Array:
    """Returns x plus what it finds in `tokens`.

    Args:
      x: [B, F, H, W, C].
      tokens: [B, 1 or F, L, D].
      token_mask: [B, 1 or F, L], False where a token is padding; at least one
        token of each sequence must be real.
    """
    features = x.shape[-1]
    heads = heads_of(features, self.head_dim)
    q = Conv(features, 1, dtype=self.dtype, name='query')(
      GroupNorm(dtype=self.dtype, name='norm')(x)
    )
    kv = nn.Dense(2 * features, dtype=self.dtype, name='key_value')(
      nn.LayerNorm(dtype=self.dtype, name='token_norm')(tokens)
    )
    q = rearrange(q, 'b f y x (h d) -> b f (y x) h d', h=heads)
    k, v = (
      rearrange(a, 'b f l (h d) -> b f l h d', h=heads)
      for a in jnp.split(kv, 2, axis=-1)
    )
    mask = token_mask[:, :, None, None, :]
    out = attend(q, k, v, mask=mask).reshape(x.shape)
    return x + _output(features, self.dtype)(out)
