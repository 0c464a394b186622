"""What a U-Net makes of captions and embeddings, frame by frame.

One encoder may read a caption, or two at once (PYoCo, Appendix A.1: "our model
uses both T5 text embeddings and CLIP text embeddings").  Of two, pooled
vectors are summed, and tokens are one sequence under one softmax:

    keys and values from [W_1 t_1, W_2 t_2],    t_i the tokens of encoder i

Their widths differ, so each is brought to a common one, by a matrix alone: a
null embedding of zeros stays zeros.

The functions make layers, and are parts of a module's compact call.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.text import (
  AttentionPooling,
  Null,
  NullText,
  VisualTokens,
  side_by_side,
)


class Caption(NamedTuple):
  """Captions as one encoder gives them.

  Attributes:
    name: of the layers that read them.
    dim: width of a token; 0 where the network has no such encoder.
    tokens: [B, L, dim], or also of those of the images, [B, 1 + K, L, dim];
      None is no caption.
    mask: [B, L] or [B, 1 + K, L], False where a token is padding; None is no
      padding.
  """

  name: str
  dim: int
  tokens: Array | None
  mask: Array | None


def by_frame(values: Array, num_frames: int) -> Array:
  """Returns [B, F + K, ...] of values of a video and its images, [B, 1 + K].

  Those of a video alone stay [B, 1, ...].
  """
  times = num_frames if values.shape[1] > 1 else 1
  video = jnp.repeat(values[:, :1], times, axis=1)
  return jnp.concatenate([video, values[:, 1:]], axis=1)


def read_captions(
  captions: Sequence[Caption],
  num: int,
  num_frames: int,
  *,
  how: Literal['pool', 'cross'],
  null: Null,
  features: int,
  dtype: DTypeLike,
) -> tuple[Array | None, Array | None, Array | None]:
  """Returns captions as vectors, or as tokens to attend to and their mask.

  Args:
    captions: of each encoder.
    num: B.
    num_frames: F, those of the video.
    how: 'pool' or 'cross', see `UNet`.
    null: what stands for no caption, see `NullText`.
    features: width of the vectors, and of the tokens of two encoders.
    dtype: compute type.

  Returns:
    [B, 1 or F + K, features], None, None for 'pool'; None, [B, 1 or F + K, L,
    D], [B, 1 or F + K, L] for 'cross'; None for captions of no encoder.
  """
  captions = [caption for caption in captions if caption.dim]
  vectors, sequences = [], []
  for name, dim, tokens, mask in captions:
    tokens, mask = NullText(dim, null, name=f'no_{name}')(tokens, mask, num)
    if tokens.ndim == 3:
      tokens, mask = tokens[:, None], mask[:, None]
    if how == 'pool':
      pool = AttentionPooling(features, dtype=dtype, name=name)
      vectors.append(by_frame(pool(tokens, mask), num_frames))
      continue
    if len(captions) > 1:
      tokens = nn.Dense(
        features, use_bias=False, dtype=dtype, name=f'{name}_tokens'
      )(tokens)
    sequences.append((by_frame(tokens, num_frames), by_frame(mask, num_frames)))
  pooled = sum(vectors[1:], start=vectors[0]) if vectors else None
  joined, mask = side_by_side(sequences) if sequences else (None, None)
  return pooled, joined, mask


def see(
  visual: Array | None,
  tokens: Array | None,
  mask: Array | None,
  num: int,
  num_frames: int,
  *,
  how: Literal['pool', 'cross'],
  dim: int,
  dtype: DTypeLike,
) -> tuple[Array, Array | None, Array | None]:
  """Returns visual embeddings by frame, and tokens with those made of them.

  Args:
    visual: [B, dim] or [B, 1 + K, dim]; None is no embedding.
    tokens: of the text, [B, 1 or F + K, L, D]; None without.
    mask: [B, 1 or F + K, L].
    num: B.
    num_frames: F, those of the video.
    how: 'pool' leaves the tokens as they are; 'cross' see `VisualTokens`.
    dim: width of an embedding.
    dtype: compute type.
  """
  if visual is None:
    visual = jnp.zeros((num, dim))
  if visual.ndim == 2:
    visual = visual[:, None]
  visual = by_frame(visual, num_frames)
  if how == 'cross':
    beside = VisualTokens(dtype, name='visual_text')
    tokens, mask = beside(visual, tokens, mask)
  return visual, tokens, mask
