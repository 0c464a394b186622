"""Conditioning vectors: noise level, class label and free vectors, one MLP.

    e_0 = W_n sinusoid(logsnr) + E[label] + W_c cond
    e_{k+1} = W_k SiLU(e_k)

VDM, section 3: conditioning is "an embedding vector added into each residual
block", processed by several MLP layers before.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

# The frequencies below are the usual ones.  With 8 positions the fastest turns
# once in 0.8 of log SNR; the usual 1000 positions over the paper's [-20, 20]
# would be finer than a noise level needs to be told, and learn more slowly.
_POSITIONS_PER_LOGSNR = 8.0


def sinusoid(logsnr: Array, dim: int) -> Array:
  """Returns [..., dim] sines and cosines of `logsnr` [...], float32."""
  half = dim // 2
  frequency = jnp.exp(-math.log(1e4) * jnp.arange(half) / half)
  angle = (
    _POSITIONS_PER_LOGSNR
    * logsnr[..., None]
    * frequency.reshape((1,) * logsnr.ndim + (-1,))
  )
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class ConditionEmbedding(nn.Module):
  """Embeds the conditions of a video, [B, 1 or F, features].

  Attributes:
    features: width of the embedding and of the MLP.
    num_layers: dense layers from the sinusoid to the result, at least 1.
    sinusoid_dim: number of sines and cosines of the noise level.
    num_classes: classes of `label`; 0 for none.  Label `num_classes` is the
      null class, "no condition".
    dtype: compute type; parameters are float32.
  """

  features: int
  num_layers: int
  sinusoid_dim: int
  num_classes: int = 0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, logsnr: Array, label: Array | None = None, cond: Array | None = None
  ) -> Array:
    """Embeds noise levels [B], labels [B], vectors [B, D] or [B, F, D]."""

    def dense(name):
      return nn.Dense(self.features, dtype=self.dtype, name=name)

    e = dense('noise_level')(sinusoid(logsnr, self.sinusoid_dim))[:, None]
    if self.num_classes:
      if label is None:
        label = jnp.full(logsnr.shape, self.num_classes)
      table = nn.Embed(
        self.num_classes + 1, self.features, dtype=self.dtype, name='label'
      )
      e = e + table(label)[:, None]
    if cond is not None:
      cond = cond if cond.ndim == 3 else cond[:, None]
      e = e + dense('cond')(cond)
    for layer in range(1, self.num_layers):
      e = dense(f'layer_{layer}')(jax.nn.silu(e))
    return e
