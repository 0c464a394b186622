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

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.convolution import Conv
from vdm_jax.networks.materialization import materialize
from vdm_jax.networks.normalization import GroupNorm


def attend(
  q: Array,
  k: Array,
  v: Array,
  *,
  relative: Array | None = None,
  mask: Array | None = None,
) -> Array:
  """Softmax attention over the third last axis.

  Args:
    q: queries, [..., n, heads, d].
    k: keys, [..., m, heads, d].
    v: values, [..., m, heads, d].
    relative: [n, m, d], added to the keys that query i sees.
    mask: broadcastable to [..., heads, n, m], False where a query may not
      look.

  Returns:
    [..., n, heads, d].  Logits and softmax are float32.
  """
  q = q / math.sqrt(q.shape[-1])
  logits = jnp.einsum(
    '...nhd,...mhd->...hnm', q, k, preferred_element_type=jnp.float32
  )
  if relative is not None:
    logits += jnp.einsum(
      '...nhd,nmd->...hnm', q, relative, preferred_element_type=jnp.float32
    )
  if mask is not None:
    logits = jnp.where(mask, logits, -jnp.inf)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum('...hnm,...mhd->...nhd', weights, v)


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


def _queries_keys_values(
  x: Array, head_dim: int, layout: str, dtype: DTypeLike
) -> list[Array]:
  """Projects [B, F, H, W, C]; `layout` says which axes become a sequence."""
  features = x.shape[-1]
  heads = heads_of(features, head_dim)
  x = GroupNorm(dtype=dtype, name='norm')(x)
  qkv = Conv(3 * features, 1, dtype=dtype, name='qkv')(x)
  return [rearrange(a, layout, h=heads) for a in jnp.split(qkv, 3, axis=-1)]


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
    height, features = x.shape[-3], x.shape[-1]
    q, k, v = _queries_keys_values(
      x, self.head_dim, 'b f y x (h d) -> b f (y x) h d', self.dtype
    )
    out = rearrange(attend(q, k, v), 'b f (y x) h d -> b f y x (h d)', y=height)
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
    height, features = x.shape[-3], x.shape[-1]
    q, k, v = _queries_keys_values(
      x, self.head_dim, 'b f y x (h d) -> b (y x) f h d', self.dtype
    )
    positions = self.param(
      'positions',
      nn.initializers.normal(0.02),
      (2 * self.max_distance + 1, q.shape[-1]),
    )
    num_frames = x.shape[1] - self.num_images
    frame = jnp.arange(num_frames)
    distance = jnp.clip(
      frame[None] - frame[:, None], -self.max_distance, self.max_distance
    )
    relative = positions[distance + self.max_distance].astype(self.dtype)
    if not self.num_images:
      out = attend(q, k, v, relative=relative)
    else:
      video = (a[:, :, :num_frames] for a in (q, k, v))
      images = v[:, :, num_frames:]
      out = jnp.concatenate([attend(*video, relative=relative), images], 2)
    out = rearrange(out, 'b (y x) f h d -> b f y x (h d)', y=height)
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
