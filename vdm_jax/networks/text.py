"""Text conditions: what a network makes of the tokens of a caption.

    pooled = W_out sum_l softmax_l(q . k_l / sqrt(d)) v_l

with one learned query q for each head, and keys and values from the tokens
(VDM section 4.3: "BERT-large embeddings processed using attention pooling").

The null text, "no condition", is a caption without tokens: one token stands in
its place, learned, with gradient wherever training hides a caption, or zeros.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.attention import heads_of
from vdm_jax.networks.softmax_attention import attend

Null = Literal['learned', 'zero']


class NullText(nn.Module):
  """Puts a token where a caption has none, or is not given.

  Attributes:
    dim: width of a token.
    null: whether it is learned, or zeros for ever.
  """

  dim: int
  null: Null = 'learned'

  @nn.compact
  def __call__(
    self, tokens: Array | None, mask: Array | None, num: int
  ) -> tuple[Array, Array]:
    """Returns tokens and their mask, one token real at least.

    Args:
      tokens: [B, ..., L, D]; None is no caption.
      mask: [B, ..., L], False where a token is padding; None is no padding.
      num: B.
    """
    if tokens is None:
      tokens, mask = jnp.zeros((num, 1, self.dim)), jnp.zeros((num, 1), bool)
    elif mask is None:
      mask = jnp.ones(tokens.shape[:-1], bool)
    null = jnp.zeros(self.dim)
    if self.null == 'learned':
      null = self.param('token', nn.initializers.normal(1.0), (self.dim,))
    empty = ~mask.any(-1)
    tokens = tokens.astype(null.dtype)
    first = jnp.where(empty[..., None], null, tokens[..., 0, :])
    tokens = tokens.at[..., 0, :].set(first)
    return tokens, mask.at[..., 0].set(mask[..., 0] | empty)


def side_by_side(
  sequences: Sequence[tuple[Array, Array]],
) -> tuple[Array, Array]:
  """Joins sequences of tokens [B, 1 or N, L, D] and their masks along L."""
  frames = max(tokens.shape[1] for tokens, _ in sequences)

  def spread(a):
    return jnp.broadcast_to(a, (a.shape[0], frames, *a.shape[2:]))

  tokens, masks = zip(*sequences, strict=True)
  return (
    jnp.concatenate([spread(each) for each in tokens], 2),
    jnp.concatenate([spread(each) for each in masks], 2),
  )


class AttentionPooling(nn.Module):
  """One vector from a sequence of tokens.

  Attributes:
    features: size of the vector.
    head_dim: channels of a head.
    dtype: compute type; parameters are float32.
  """

  features: int
  head_dim: int = 64
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, tokens: Array, mask: Array) -> Array:
    """Returns [..., features] of tokens [..., L, D].

    They are padding where mask [..., L] is False; one at least must be real.
    """
    heads = heads_of(self.features, self.head_dim)
    kv = nn.Dense(2 * self.features, dtype=self.dtype, name='key_value')(
      nn.LayerNorm(dtype=self.dtype, name='norm')(tokens)
    )
    k, v = (
      rearrange(a, '... l (h d) -> ... l h d', h=heads)
      for a in jnp.split(kv, 2, axis=-1)
    )
    query = self.param(
      'query', nn.initializers.normal(1.0), (heads, k.shape[-1])
    )
    q = jnp.broadcast_to(
      query.astype(self.dtype), (*k.shape[:-3], 1, *query.shape)
    )
    pooled = attend(q, k, v, mask=mask[..., None, None, :])
    pooled = rearrange(pooled, '... 1 h d -> ... (h d)')
    return nn.Dense(self.features, dtype=self.dtype, name='out')(pooled)


class VisualTokens(nn.Module):
  """Makes four tokens of a visual embedding, behind those of the text.

  Ramesh et al. 2022, section 2.1: "projecting CLIP embeddings into four extra
  tokens of context that are concatenated to the sequence".

  Attributes:
    dtype: compute type; parameters are float32.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, visual: Array, tokens: Array | None, mask: Array | None
  ) -> tuple[Array, Array]:
    """Returns tokens [B, N, L + 4, D] and their mask.

    Args:
      visual: [B, N, D]; zeros are four tokens that say so.
      tokens: [B, 1 or N, L, D'], made as wide as the embedding; None without.
      mask: [B, 1 or N, L].
    """
    dim = visual.shape[-1]
    made = nn.Dense(4 * dim, dtype=self.dtype, name='tokens')(visual)
    made = made.reshape(*visual.shape[:-1], 4, dim)
    whole = jnp.ones(made.shape[:-1], bool)
    if tokens is None or mask is None:
      return made, whole
    text: Array = tokens
    if tokens.shape[-1] != dim:
      text = nn.Dense(dim, dtype=self.dtype, name='text')(tokens)
    return side_by_side([(text, mask), (made, whole)])
