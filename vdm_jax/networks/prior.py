"""A transformer from captions to visual embeddings, DALL-E 2's prior.

    text tokens | noise level and class | noisy embedding | query
    -> causal transformer -> the query's output is the estimate

VideoFusion, section 4.1: "a prior is also trained to generate latent embedding"
from captions, from classes, or from empty text.  Ramesh et al. 2022, section
2.2, describe it: a decoder-only transformer over this sequence that predicts
the clean embedding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.attention import heads_of
from vdm_jax.networks.embeddings import ConditionEmbedding, count
from vdm_jax.networks.softmax_attention import attend
from vdm_jax.networks.text import NullText


class Prior(nn.Module):
  """Maps a noisy embedding and a condition to an estimate of the embedding.

  Attributes:
    width: channels of the transformer.
    depth: its layers.
    head_dim: channels of a head.
    classes: sizes of the attributes that make up `label`; () for none.
    text_dim: width of the tokens of a caption; 0 for no text.
    dtype: compute type.
  """

  width: int = 512
  depth: int = 6
  head_dim: int = 64
  classes: tuple[int, ...] = ()
  text_dim: int = 0
  dtype: DTypeLike = jnp.float32

  @property
  def num_classes(self) -> int:
    """Number of classes of `label`; 0 for none."""
    return count(self.classes)

  @nn.compact
  def __call__(
    self,
    z: Array,
    logsnr: Array,
    *,
    label: Array | None = None,
    tokens: Array | None = None,
    token_mask: Array | None = None,
  ) -> Array:
    """Estimates embeddings.

    Args:
      z: noisy embeddings, as videos of one pixel, [B, 1, 1, 1, D].
      logsnr: [B].
      label: [B]; None or the number of classes is no class.
      tokens: [B, L, text_dim]; None is no caption.
      token_mask: [B, L], False where a token is padding.

    Returns:
      [B, 1, 1, 1, D], float32.
    """

    def dense(features, name, **options):
      return nn.Dense(features, dtype=self.dtype, name=name, **options)

    batch, dim = len(z), z.shape[-1]
    level = ConditionEmbedding(
      self.width,
      2,
      sinusoid_dim=64,
      classes=self.classes,
      dtype=self.dtype,
      name='embedding',
    )(logsnr, label)
    noisy = dense(self.width, 'in')(z.reshape(batch, 1, dim))
    query = self.param('query', nn.initializers.normal(0.02), (self.width,))
    query = jnp.broadcast_to(query, (batch, 1, self.width))
    # Tokens know their places from their encoder; these three are told.
    places = self.param('places', nn.initializers.normal(0.02), (3, self.width))
    parts = [jnp.concatenate([level, noisy, query], 1) + places[None]]
    mask = jnp.ones((batch, 3), bool)
    if self.text_dim:
      tokens, token_mask = NullText(self.text_dim, name='no_text')(
        tokens, token_mask, batch
      )
      parts = [dense(self.width, 'text')(tokens), *parts]
      mask = jnp.concatenate([token_mask, mask], 1)
    x = jnp.concatenate(parts, 1).astype(self.dtype)
    for layer in range(self.depth):
      x = _Layer(self.head_dim, self.dtype, name=f'layer_{layer}')(x, mask)
    x = nn.LayerNorm(dtype=self.dtype, name='norm')(x[:, -1])
    x = dense(dim, 'out', kernel_init=nn.initializers.zeros)(x)
    return x.astype(jnp.float32).reshape(z.shape)


class _Layer(nn.Module):
  """Causal attention, then a perceptron, each added to what came in."""

  head_dim: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Array, mask: Array) -> Array:
    """Transforms [B, T, C]; nothing attends where `mask` [B, T] is False."""
    width = x.shape[-1]
    heads = heads_of(width, self.head_dim)

    def dense(features, name, **options):
      return nn.Dense(features, dtype=self.dtype, name=name, **options)

    y = nn.LayerNorm(dtype=self.dtype, name='norm_1')(x)
    q, k, v = (
      rearrange(a, 'b t (h d) -> b t h d', h=heads)
      for a in jnp.split(dense(3 * width, 'qkv')(y), 3, -1)
    )
    earlier = jnp.tril(jnp.ones((1, x.shape[1], x.shape[1]), bool))
    # A padded token sees itself: no softmax is over nothing.
    itself = jnp.eye(x.shape[1], dtype=bool)[None]
    seen = (earlier & mask[:, None]) | itself
    y = rearrange(attend(q, k, v, mask=seen[:, None]), 'b t h d -> b t (h d)')
    x += dense(width, 'out', kernel_init=nn.initializers.zeros)(y)
    y = nn.LayerNorm(dtype=self.dtype, name='norm_2')(x)
    y = jax.nn.gelu(dense(4 * width, 'up')(y))
    return x + dense(width, 'down', kernel_init=nn.initializers.zeros)(y)
