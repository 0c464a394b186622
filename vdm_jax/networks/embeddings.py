"""Conditioning vectors: noise level, class, text and free ones, by one MLP.

    e_0 = W_n sinusoid(place of logsnr) + sum_i E_i[attribute i of label] + text
          + W_v visual + W_c c
    e_{k+1} = W_k SiLU(e_k)

VDM, section 3: conditioning is "an embedding vector added into each residual
block", processed by several MLP layers before.  A visual
embedding of zeros means "nothing known": a learned one stands in its place.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

NoiseLevel = Literal['logsnr', 'linear', 'cosine']

# The frequencies below are the usual ones.  With 8 positions the fastest turns
# once in 0.8 of log SNR; the usual 1000 positions over the paper's [-20, 20]
# would be finer than a noise level needs to be told, and learn more slowly.
_POSITIONS_PER_LOGSNR = 8.0


def _discrete(betas: np.ndarray) -> np.ndarray:
  """log SNR of each step of a discrete schedule, decreasing."""
  kept = np.cumprod(1 - betas)
  return np.log(kept) - np.log1p(-kept)


def _cosine_betas(steps: int) -> np.ndarray:
  t = np.arange(steps + 1) / steps
  kept = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
  return np.minimum(1 - kept[1:] / kept[:-1], 0.999)


_STEPS = {
  'linear': _discrete(np.linspace(1e-4, 0.02, 1000)),  # Ho et al. 2020
  'cosine': _discrete(_cosine_betas(1000)),  # Nichol and Dhariwal 2021
}


def position(logsnr: Array, noise_level: NoiseLevel) -> Array:
  """Returns the place of a log SNR in a network's sinusoid.

  Args:
    logsnr: any shape.
    noise_level: 'logsnr' is 8 places for each unit of it; 'linear' and 'cosine'
      are the steps, from 0 to 999, of a discrete schedule, between them too.
  """
  if noise_level == 'logsnr':
    return _POSITIONS_PER_LOGSNR * logsnr
  known = _STEPS[noise_level]
  return jnp.interp(-logsnr, -known, np.arange(len(known), dtype=np.float32))


def sinusoid(position: Array, dim: int) -> Array:
  """Returns [..., dim] sines and cosines of places [...], float32."""
  half = dim // 2
  frequency = jnp.exp(-math.log(1e4) * jnp.arange(half) / half)
  angle = position[..., None] * frequency.reshape((1,) * position.ndim + (-1,))
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def count(classes: tuple[int, ...]) -> int:
  """Returns the number of classes that attributes of these sizes make."""
  return math.prod(classes) if classes else 0


class ConditionEmbedding(nn.Module):
  """Embeds the conditions of a video, [B, 1 or F, features].

  Attributes:
    features: width of the embedding and of the MLP.
    num_layers: dense layers from the sinusoid to the result, at least 1.
    sinusoid_dim: number of sines and cosines of the noise level.
    noise_level: what these are of, see `position`.
    classes: sizes of the attributes that make up a class, e.g. (4, 6) for 4
      shapes in 6 colours, where label 6 s + c is shape s in colour c; (101,)
      for plain classes; () for none.  Each attribute has its own table, so
      that what is learned of a colour serves all shapes.  A label equal to
      the number of classes is the null class, "no condition".
    dtype: compute type; parameters are float32.
  """

  features: int
  num_layers: int
  sinusoid_dim: int
  noise_level: NoiseLevel = 'logsnr'
  classes: tuple[int, ...] = ()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    logsnr: Array,
    label: Array | None = None,
    text: Array | None = None,
    visual: Array | None = None,
    cond: Array | None = None,
  ) -> Array:
    """Returns the embedding of a video or of each of its frames.

    Args:
      logsnr: [B].
      label: [B] or [B, F].
      text: [B, 1 or F, features], pooled from captions.
      visual: [B, 1 or F, D].
      cond: [B, D] or [B, F, D].
    """

    def dense(name):
      return nn.Dense(self.features, dtype=self.dtype, name=name)

    place = position(logsnr, self.noise_level)
    e = dense('noise_level')(sinusoid(place, self.sinusoid_dim))[:, None]
    if self.classes:
      num_classes = count(self.classes)
      if label is None:
        label = jnp.full(logsnr.shape, num_classes)
      values = jnp.unravel_index(label, self.classes)
      for i, size in enumerate(self.classes):
        value = jnp.where(label < num_classes, values[i], size)
        table = nn.Embed(
          size + 1, self.features, dtype=self.dtype, name=f'label_{i}'
        )
        e = e + (table(value) if label.ndim == 2 else table(value)[:, None])
    if text is not None:
      e = e + text
    if visual is not None:
      nothing = self.param(
        'no_visual', nn.initializers.normal(1.0), visual.shape[-1:]
      )
      known = (visual != 0).any(-1, keepdims=True)
      e = e + dense('visual')(jnp.where(known, visual, nothing))
    if cond is not None:
      cond = cond if cond.ndim == 3 else cond[:, None]
      e = e + dense('cond')(cond)
    for layer in range(1, self.num_layers):
      e = dense(f'layer_{layer}')(jax.nn.silu(e))
    return e
