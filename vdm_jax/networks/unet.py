"""The factorized space-time U-Net, VDM section 3, Figure 1 and Appendix A.

    in     3x3 convolution; with `patch` > 1 it sees patches as pixels
    down   at each level: num_blocks stages; between levels a halving
    mid    a stage with attention, a residual block
    up     at each level: num_blocks + 1 stages, each fed the activation of
           the way down that it mirrors; between levels a doubling
    out    norm, SiLU, 3x3 convolution that starts at zero

A stage is a residual block, followed by spatial, cross and temporal attention
at the resolutions that ask for it.  Convolutions and norms see single frames;
only temporal attention mixes them.

Resolutions are halved and doubled in one of two forms: 'conv' is a strided
convolution, and a nearest-neighbour doubling followed by a convolution (VDM);
'block' is a residual block around an average pool or a doubling (PYoCo,
VideoFusion).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array

from vdm_jax.networks.blocks import (
  ResidualBlock,
  Stage,
  TemporalConvolutions,
  nearest_upsample,
)
from vdm_jax.networks.conditions import Conditioned, condition
from vdm_jax.networks.convolution import Conv
from vdm_jax.networks.dropout import check_dropout
from vdm_jax.networks.normalization import GroupNorm


class UNet(Conditioned):
  """Maps a noisy video to a video-shaped prediction.

  Conditions and compute type are attributes of `Conditioned`.

  Attributes:
    width: channels of the first level ("base channels").
    multipliers: channels of each level over `width`.
    num_blocks: residual blocks of a level on the way down.
    attention_resolutions: heights of feature maps that get attention; the
      middle always does.
    head_dim: channels of an attention head.
    temporal: whether frames see each other; False is an image network.
    temporal_resolutions: heights of feature maps that get attention over time
      without attention over space, which costs much more there.
    temporal_convolutions: convolutions over three frames after each residual
      block, those of resampling too; 0 is VDM.
    feed_forward: channels of a perceptron behind the attention to tokens, over
      those of the pixels, as in a transformer; 0 for none.
    resample: 'conv' or 'block', see above.
    dropout: rate inside the residual blocks.
    patch: side of the square patches whose pixels become channels before the
      first convolution and pixels again after the last (Hoogeboom et al.
      2023, Simple Diffusion, section 3.3): a cheap way to larger frames.  All
      resolutions above are those after patching.  1 is the paper's network.
    out_channels: channels of the prediction.
    remat: recompute each stage's activations in the backward pass, which
      trades a third more compute for most of the memory.
  """

  width: int = 256
  multipliers: tuple[int, ...] = (1, 2, 4, 8)
  num_blocks: int = 2
  attention_resolutions: tuple[int, ...] = (8, 16, 32)
  head_dim: int = 64
  temporal: bool = True
  temporal_resolutions: tuple[int, ...] = ()
  temporal_convolutions: int = 0
  feed_forward: int = 0
  resample: Literal['conv', 'block'] = 'conv'
  dropout: float = 0.0
  patch: int = 1
  out_channels: int = 3
  remat: bool = False

  def check(self, height: int, width: int) -> None:
    """Raises ValueError unless the network can take this resolution."""
    self.check_conditions()
    check_dropout(self.dropout)
    text = self.text_dim > 0 and self.text == 'cross'
    visual = self.visual_dim > 0 and self.visual == 'cross'
    if self.feed_forward and not (text or visual):
      raise ValueError(
        f'feed_forward={self.feed_forward} is of layers behind the attention '
        "to tokens, and there are none: give text_dim and text='cross', or "
        'feed_forward=0.'
      )
    factor = self.patch * 2 ** (len(self.multipliers) - 1)
    if height % factor or width % factor:
      raise ValueError(
        f'a resolution of {height}x{width} does not fit a U-Net of '
        f'{len(self.multipliers)} levels and patch={self.patch}: height and '
        f'width must be divisible by {factor}.'
      )

  @nn.compact
  def __call__(
    self,
    z: Array,
    logsnr: Array,
    *,
    label: Array | None = None,
    cond: Array | None = None,
    tokens: Array | None = None,
    token_mask: Array | None = None,
    clip_tokens: Array | None = None,
    clip_token_mask: Array | None = None,
    visual: Array | None = None,
    num_images: int = 0,
    train: bool = False,
  ) -> Array:
    """Predicts a video from a noisy one.

    Args:
      z: [B, F, H, W, C].
      logsnr: noise level of each video, [B].
      label: class of each video, [B], or of each video and of its images,
        [B, 1 + K]; None or the number of classes is no class.
      cond: conditioning vectors, [B, D] or one for each frame, [B, F, D].
      tokens: tokens of each caption, [B, L, text_dim], or also of those of the
        images, [B, 1 + K, L, text_dim]; None is no caption.
      token_mask: [B, L] or [B, 1 + K, L], False where a token is padding; a
        caption of padding alone is no caption.  None is no padding.
      clip_tokens: those of the second encoder, with clip_text_dim, likewise.
      clip_token_mask: likewise.
      visual: visual embedding of each video, [B, D], or also of its images,
        [B, 1 + K, D]; None or zeros are no embedding.
      num_images: K, how many of the last frames are independent images.
      train: turns dropout on; needs the rng stream 'dropout'.

    Returns:
      [B, F, H, W, out_channels], float32.

    Raises:
      ValueError: if height or width is not divisible by the network's factor,
        or for tokens or embeddings that the network does not take.
    """
    self.check(z.shape[-3], z.shape[-2])
    embedding, tokens, token_mask = condition(
      self,
      logsnr,
      z.shape[1] - num_images,
      label=label,
      cond=cond,
      tokens=tokens,
      token_mask=token_mask,
      clip_tokens=clip_tokens,
      clip_token_mask=clip_token_mask,
      visual=visual,
    )
    stage_class = nn.remat(Stage) if self.remat else Stage
    block_class = nn.remat(ResidualBlock) if self.remat else ResidualBlock
    regular = {'dropout': self.dropout, 'train': train, 'dtype': self.dtype}

    def stage(x, multiplier, name, *, attention=None):
      if attention is None:
        attention = x.shape[-3] in self.attention_resolutions
      return stage_class(
        multiplier * self.width,
        head_dim=self.head_dim,
        attention=attention,
        temporal=self.temporal
        and (attention or x.shape[-3] in self.temporal_resolutions),
        temporal_convolutions=self.temporal_convolutions,
        feed_forward=self.feed_forward,
        num_images=num_images,
        name=name,
        **regular,
      )(x, embedding, tokens, token_mask)

    def resized(x, way, name):
      """By a block."""
      block = block_class(x.shape[-1], resize=way, name=name, **regular)
      x = block(x, embedding)
      if not self.temporal_convolutions:
        return x
      return TemporalConvolutions(
        self.temporal_convolutions,
        num_images,
        dtype=self.dtype,
        name=f'{name}_over_time',
      )(x)

    def down(x, name):
      if self.resample == 'block':
        return resized(x, 'down', name)
      return Conv(x.shape[-1], stride=2, dtype=self.dtype, name=name)(x)

    def up(x, name):
      if self.resample == 'block':
        return resized(x, 'up', name)
      return Conv(x.shape[-1], dtype=self.dtype, name=name)(nearest_upsample(x))

    z = rearrange(
      z.astype(self.dtype),
      'b f (y p) (x q) c -> b f y x (p q c)',
      p=self.patch,
      q=self.patch,
    )
    x = Conv(self.width, dtype=self.dtype, name='in')(z)

    skips = [x]
    last = len(self.multipliers) - 1
    for level, multiplier in enumerate(self.multipliers):
      for block in range(self.num_blocks):
        x = stage(x, multiplier, f'down_{level}_{block}')
        skips.append(x)
      if level < last:
        x = down(x, f'down_{level}')
        skips.append(x)

    x = stage(x, self.multipliers[-1], 'mid_0', attention=True)
    x = stage(x, self.multipliers[-1], 'mid_1', attention=False)

    for level in range(last, -1, -1):
      for block in range(self.num_blocks + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = stage(x, self.multipliers[level], f'up_{level}_{block}')
      if level:
        x = up(x, f'up_{level}')

    x = jax.nn.silu(GroupNorm(dtype=self.dtype, name='out_norm')(x))
    x = Conv(
      self.patch**2 * self.out_channels,
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      name='out',
    )(x)
    return rearrange(
      x.astype(jnp.float32),
      'b f y x (p q c) -> b f (y p) (x q) c',
      p=self.patch,
      q=self.patch,
    )
