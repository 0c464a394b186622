"""Text conditions: what a network makes of the tokens of a caption.

    pooled = W_out sum_l softmax_l(q . k_l / sqrt(d)) v_l

with one learned query q for each head, and keys and values from the tokens
(VDM section 4.3: "BERT-large embeddings processed using attention pooling").

The null text, "no condition", is a caption without tokens: one learned token
stands in its place, and receives gradient wherever training hides a caption.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.attention import attend, heads_of


class NullText(nn.Module):
  """Puts a learned token where a caption has none.

  Attributes:
    dim: width of a token.
  """

  dim: int

  @nn.compact
  def __call__(self, tokens: Array, mask: Array) -> tuple[Array, Array]:
    """Returns tokens [..., L, D] and mask [..., L], one token real at least."""
    null = self.param('token', nn.initializers.normal(1.0), (self.dim,))
    empty = ~mask.any(-1)
    tokens = tokens.astype(null.dtype)
    first = jnp.where(empty[..., None], null, tokens[..., 0, :])
    tokens = tokens.at[..., 0, :].set(first)
    return tokens, mask.at[..., 0].set(mask[..., 0] | empty)


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
