"""What a U-Net makes of captions and embeddings, frame by frame.

One encoder may read a caption, or two at once (PYoCo, Appendix A.1: "our model
uses both T5 text embeddings and CLIP text embeddings").  Of two, pooled
vectors are summed, and tokens are one sequence under one softmax:

    keys and values from [t_1, W t_2],    t_i the tokens of encoder i

Their widths differ, so those of the second are brought to that of the first, by
a matrix alone: a null embedding of zeros stays zeros.

The functions make layers, and are parts of a module's compact call.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.embeddings import ConditionEmbedding, NoiseLevel, count
from vdm_jax.networks.text import (
  AttentionPooling,
  Null,
  NullText,
  VisualTokens,
  side_by_side,
)

TextForm = Literal['pool', 'cross']


class Conditioned(nn.Module, kw_only=True):
  """A network with the conditions of a U-Net.

  Attributes:
    width: channels of the first level ("base channels").
    embedding_dim: width of the conditioning embedding.
    embedding_layers: layers of its MLP.
    noise_level: how the network is told it, see `embeddings.position`; 'linear'
      and 'cosine' are for networks of other libraries, see `foreign`.
    classes: sizes of the attributes that make up `label`, see
      `ConditionEmbedding`; () for none.
    text_dim: width of the text encoder's tokens; 0 for no text.
    clip_text_dim: width of those of a second encoder beside it, see
      `conditions`; 0 for none.
    visual_dim: width of the visual embeddings; 0 for none.
    visual: how these enter: 'pool' adds them to the conditioning embedding,
      'cross' also makes four tokens of each to attend to (DALL-E 2).
    text: how tokens enter: 'pool' into the conditioning embedding (VDM), or
      'cross', attention from the pixels after each spatial attention.
    null_text: what stands for no caption: a token that is 'learned', or zeros.
    dtype: compute type, e.g. bfloat16; parameters are float32.
  """

  width: int = 256
  embedding_dim: int = 1024
  embedding_layers: int = 4
  noise_level: NoiseLevel = 'logsnr'
  classes: tuple[int, ...] = ()
  text_dim: int = 0
  clip_text_dim: int = 0
  visual_dim: int = 0
  text: TextForm = 'pool'
  null_text: Null = 'learned'
  visual: TextForm = 'pool'
  dtype: DTypeLike = jnp.float32

  @property
  def num_classes(self) -> int:
    """Number of classes of `label`; 0 for an unconditional network."""
    return count(self.classes)

  def check_conditions(self) -> None:
    """Raises ValueError for a second text encoder without a first."""
    if self.clip_text_dim and not self.text_dim:
      raise ValueError(
        f'clip_text_dim={self.clip_text_dim} is of a second text encoder: set '
        'text_dim to the width of the first one too, or use only text_dim.'
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
    features: width of the vectors.
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
    if sequences:
      tokens = nn.Dense(
        captions[0].dim, use_bias=False, dtype=dtype, name=f'{name}_tokens'
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


def condition(
  network: Conditioned,
  logsnr: Array,
  num_frames: int,
  *,
  label: Array | None = None,
  cond: Array | None = None,
  tokens: Array | None = None,
  token_mask: Array | None = None,
  clip_tokens: Array | None = None,
  clip_token_mask: Array | None = None,
  visual: Array | None = None,
) -> tuple[Array, Array | None, Array | None]:
  """Returns the embedding of a network's conditions, and tokens and their mask.

  Args:
    network: its attributes say which conditions it takes, see `UNet`.
    logsnr: [B].
    num_frames: F, those of the video.
    label: see `UNet`, and so are the others.
    cond: likewise.
    tokens: likewise.
    token_mask: likewise.
    clip_tokens: likewise.
    clip_token_mask: likewise.
    visual: likewise.

  Raises:
    ValueError: for tokens or embeddings that the network does not take.
  """
  captions = (
    Caption('text', network.text_dim, tokens, token_mask),
    Caption('clip_text', network.clip_text_dim, clip_tokens, clip_token_mask),
  )
  for caption in captions:
    if caption.tokens is not None and not caption.dim:
      raise ValueError(
        f'tokens were given to a network of {caption.name}_dim=0.'
      )
  if visual is not None and not network.visual_dim:
    raise ValueError('visual was given to a network of visual_dim=0.')
  frames = len(logsnr), num_frames
  if label is not None and label.ndim == 2:
    label = by_frame(label, num_frames)
  pooled, tokens, token_mask = read_captions(
    captions,
    *frames,
    how=network.text,
    null=network.null_text,
    features=network.embedding_dim,
    dtype=network.dtype,
  )
  if network.visual_dim:
    visual, tokens, token_mask = see(
      visual,
      tokens,
      token_mask,
      *frames,
      how=network.visual,
      dim=network.visual_dim,
      dtype=network.dtype,
    )
  embedding = ConditionEmbedding(
    network.embedding_dim,
    network.embedding_layers,
    sinusoid_dim=network.width,
    noise_level=network.noise_level,
    classes=network.classes,
    dtype=network.dtype,
    name='embedding',
  )(logsnr, label, pooled, visual, cond)
  return embedding, tokens, token_mask
