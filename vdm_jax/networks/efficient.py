"""The efficient U-Net of super-resolution: most layers where frames are small.

    in     3x3 convolution
    down   at each level but the first: a strided 3x3 convolution; num_blocks x
           block_multipliers residual blocks
    up     at each level: plus the activation of the way down / sqrt(2);
           up_blocks x block_multipliers residual blocks; then a 3x3 convolution
           that starts at zero, and only then a doubling
    out    norm, SiLU, 3x3 convolution that starts at zero

A level is "an efficient block": after its residual blocks come attention over
space and to tokens, once, at the resolutions that ask for it, and one 3x1x1
convolution, which alone mixes frames (PYoCo, Appendix A.1 (4)).

What comes up from a level is added to the way down, not put beside it, so it
starts at zero, as residual branches do (not in the papers): features of random
weights would hide z's detail from the layers above for hundreds of steps.

Source: Imagen (Saharia et al. 2022), Appendix F.1 and Figure A.30; PYoCo,
Tables L and M.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.attention import CrossAttention, SpatialAttention
from vdm_jax.networks.blocks import (
  ResidualBlock,
  TemporalConvolutions,
  nearest_upsample,
)
from vdm_jax.networks.conditions import Conditioned, TextForm, condition
from vdm_jax.networks.convolution import Conv
from vdm_jax.networks.dropout import check_dropout
from vdm_jax.networks.normalization import GroupNorm


class Level(nn.Module):
  """Residual blocks of one resolution, then what mixes pixels and frames.

  Attributes:
    features: output channels.
    num_blocks: residual blocks.
    attention: whether pixels attend to pixels.
    cross: whether they attend to tokens.
    temporal: whether frames see each other.
    head_dim: channels of an attention head.
    num_images: trailing frames that are independent images.
    dropout: rate inside the residual blocks.
    train: whether dropout is on.
    dtype: compute type.
  """

  features: int
  num_blocks: int
  attention: bool
  cross: bool
  temporal: bool
  head_dim: int
  num_images: int
  dropout: float
  train: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    x: Array,
    embedding: Array,
    tokens: Array | None,
    token_mask: Array | None,
  ) -> Array:
    """Transforms [B, F, H, W, C], given an embedding [B, 1 or F, E]."""
    regular = {'dropout': self.dropout, 'train': self.train}
    for block in range(self.num_blocks):
      x = ResidualBlock(
        self.features, dtype=self.dtype, name=f'block_{block}', **regular
      )(x, embedding)
    if self.attention:
      x = SpatialAttention(self.head_dim, dtype=self.dtype, name='spatial')(x)
    if self.cross and tokens is not None and token_mask is not None:
      x = CrossAttention(self.head_dim, dtype=self.dtype, name='cross')(
        x, tokens, token_mask
      )
    if self.temporal:
      x = TemporalConvolutions(
        1, self.num_images, dtype=self.dtype, name='over_time'
      )(x)
    return x


class EfficientUNet(Conditioned):
  """Maps a noisy video, and channels beside it, to a prediction.

  Conditions and compute type are attributes of `Conditioned`.

  Attributes:
    width: channels of the first level.
    multipliers: channels of each level over `width`.
    num_blocks: residual blocks of a level on the way down, times
      `block_multipliers`.
    up_blocks: those on the way up, likewise.
    block_multipliers: of each level.
    attention_resolutions: heights of feature maps with attention over space, of
      training; () for none.
    cross_resolutions: likewise of attention to tokens.
    head_dim: channels of an attention head.
    temporal: whether frames see each other; False is an image network.
    dropout: rate inside the residual blocks.
    out_channels: channels of the prediction.
    remat: recompute each level's activations in the backward pass.
  """

  width: int = 128
  multipliers: tuple[int, ...] = (1, 2, 4, 8)
  num_blocks: int = 2
  up_blocks: int = 2
  block_multipliers: tuple[int, ...] = (1, 2, 4, 4)
  attention_resolutions: tuple[int, ...] = ()
  cross_resolutions: tuple[int, ...] = ()
  head_dim: int = 64
  temporal: bool = True
  embedding_layers: int = 2
  text: TextForm = 'cross'
  dropout: float = 0.0
  out_channels: int = 3
  remat: bool = False

  def check(self, height: int, width: int) -> None:
    """Raises ValueError unless the network can take this resolution."""
    self.check_conditions()
    check_dropout(self.dropout)
    if len(self.multipliers) != len(self.block_multipliers):
      raise ValueError(
        f'multipliers={self.multipliers} and block_multipliers='
        f'{self.block_multipliers} are of different levels: give one of each '
        'for every level.'
      )
    factor = 2 ** (len(self.multipliers) - 1)
    if height % factor or width % factor:
      raise ValueError(
        f'a resolution of {height}x{width} does not fit a U-Net of '
        f'{len(self.multipliers)} levels: height and width must be divisible '
        f'by {factor}.'
      )

  @nn.compact
  def __call__(
    self,
    z: Array,
    logsnr: Array,
    *,
    cond: Array | None = None,
    num_images: int = 0,
    train: bool = False,
    **given: Array,
  ) -> Array:
    """Predicts a video from a noisy one; see `UNet` for all arguments.

    Returns:
      [B, F, H, W, out_channels], float32.

    Raises:
      ValueError: for a resolution or a condition that does not fit.
    """
    self.check(z.shape[-3], z.shape[-2])
    frames = z.shape[1] - num_images
    told = condition(self, logsnr, frames, cond=cond, **given)
    level_class = nn.remat(Level) if self.remat else Level
    channels = [self.width * m for m in self.multipliers]

    def level(x, number, way, blocks):
      height = x.shape[-3]
      return level_class(
        channels[number],
        blocks * self.block_multipliers[number],
        attention=height in self.attention_resolutions,
        cross=height in self.cross_resolutions,
        temporal=self.temporal,
        head_dim=self.head_dim,
        num_images=num_images,
        dropout=self.dropout,
        train=train,
        dtype=self.dtype,
        name=f'{way}_{number}',
      )(x, *told)

    def conv(features, name, **options):
      return Conv(features, dtype=self.dtype, name=name, **options)

    x = conv(self.width, 'in')(z.astype(self.dtype))
    zeros = nn.initializers.zeros
    skips = []
    last = len(channels) - 1
    for number in range(last + 1):
      if number:
        x = conv(channels[number], f'smaller_{number}', stride=2)(x)
      x = level(x, number, 'down', self.num_blocks)
      skips.append(x)
    for number in range(last, -1, -1):
      skip = skips.pop()
      x = skip if number == last else x + skip / math.sqrt(2)
      x = level(x, number, 'up', self.up_blocks)
      if number:
        name = f'larger_{number}'
        x = conv(channels[number - 1], name, kernel_init=zeros)(x)
        x = nearest_upsample(x)
    x = jax.nn.silu(GroupNorm(dtype=self.dtype, name='out_norm')(x))
    x = conv(self.out_channels, 'out', kernel_init=zeros)(x)
    return x.astype(jnp.float32)
