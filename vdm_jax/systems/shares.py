"""How much of its noise a video shares, and with whom: VideoFusion.

Within a video, section 5 ("adaptively generate l_i for each video and even
each frame"), fitted to eq. (5): if the residual has nothing in common with the
base frame and frames are equally strong, then

    sqrt(l_i) = correlation(x^i, x^0),        code_i = logit(l_i) / 2

The prior learns the codes of the training videos and makes those of new ones.

Between videos, section 4.7: those of one identity share the base noise, those
of one action the residual noise.  Both are attributes of the label.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

LOWEST, HIGHEST = 0.05, 0.95


def fit(video: Array, base_frame: int) -> Array:
  """Returns base shares [B, F] of videos [B, F, H, W, C], in [0.05, 0.95].

  Correlations are over the pixels of a frame, each channel about its mean; a
  frame without contrast is as the base frame.
  """
  frames = video - video.mean((2, 3), keepdims=True)
  base = frames[:, base_frame : base_frame + 1]
  product = (frames * base).sum((2, 3, 4))
  power = jnp.square(frames).sum((2, 3, 4)) * jnp.square(base).sum((2, 3, 4))
  flat = power <= 1e-12
  correlation = product / jnp.sqrt(jnp.where(flat, 1.0, power))
  share = jnp.where(flat, HIGHEST, jnp.square(jnp.maximum(correlation, 0.0)))
  return jnp.clip(share, LOWEST, HIGHEST)


def encode(share: Array) -> Array:
  """Returns the codes of shares, about as large as standard normal numbers."""
  return jax.scipy.special.logit(share) / 2


def decode(code: Array) -> Array:
  """The inverse of `encode`, in [0.05, 0.95] for any code."""
  return jnp.clip(jax.nn.sigmoid(2 * code), LOWEST, HIGHEST)


def numbers(label: Array, sizes: Sequence[int], chosen: Sequence[int]) -> Array:
  """Returns numbers [B] that are equal where the chosen attributes are.

  Args:
    label: [B], of attributes of `sizes`, the last counting fastest.
    sizes: how many values each attribute has.
    chosen: indices of attributes.
  """
  values = jnp.unravel_index(label, tuple(sizes))
  picked = tuple(values[i] for i in chosen)
  return jnp.ravel_multi_index(
    picked, tuple(sizes[i] for i in chosen), mode='clip'
  )


def check_attributes(
  sizes: Sequence[int], content: Sequence[int], motion: Sequence[int]
) -> None:
  """Raises ValueError for attributes that labels do not have."""
  for name, chosen in (('content', content), ('motion', motion)):
    if not all(0 <= i < len(sizes) for i in chosen):
      raise ValueError(
        f'{name}={tuple(chosen)} names attributes of labels that have '
        f'{len(sizes)}: set attributes to their sizes, and give indices below '
        'their number.'
      )


def check_labels(sizes: Sequence[int], num_classes: int) -> None:
  """Raises ValueError if the data has other classes than attributes make."""
  made = math.prod(sizes)
  if sizes and made != num_classes:
    raise ValueError(
      f'config.system.attributes={tuple(sizes)} make {made} classes, but the '
      f'data has {num_classes}.'
    )
