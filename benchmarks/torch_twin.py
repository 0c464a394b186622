"""The network of `vdm_jax.networks.unet`, in PyTorch: a peer to time against.

Same blocks, widths, attention and resampling ('conv'), channels first as is
usual there, frames folded into the batch, attention through PyTorch's fused
`scaled_dot_product_attention`.  Relative positions enter as a learned bias.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

POSITIONS = 32


def norm(channels):
  return nn.GroupNorm(min(32, max(1, channels // 4)), channels)


class Residual(nn.Module):
  def __init__(self, inputs, outputs, embedding):
    super().__init__()
    self.norm_1 = norm(inputs)
    self.conv_1 = nn.Conv2d(inputs, outputs, 3, padding=1)
    self.modulation = nn.Linear(embedding, 2 * outputs)
    self.norm_2 = norm(outputs)
    self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1)
    self.shortcut = (
      nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
    )

  def forward(self, x, e, frames):
    h = self.conv_1(F.silu(self.norm_1(x)))
    m = self.modulation(F.silu(e)).repeat_interleave(frames, 0)
    scale, shift = m[:, :, None, None].chunk(2, 1)
    h = self.conv_2(F.silu(self.norm_2(h) * (1 + scale) + shift))
    return self.shortcut(x) + h


class Attention(nn.Module):
  def __init__(self, channels, head_dim, temporal):
    super().__init__()
    self.heads, self.temporal = max(1, channels // head_dim), temporal
    self.norm = norm(channels)
    self.qkv = nn.Linear(channels, 3 * channels)
    self.out = nn.Linear(channels, channels)
    if temporal:
      self.positions = nn.Parameter(torch.zeros(self.heads, 2 * POSITIONS + 1))

  def forward(self, x, frames):
    images, channels, height, width = x.shape
    tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B F, H W, C]
    if self.temporal:
      tokens = tokens.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
    q, k, v = (
      t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for t in self.qkv(tokens).chunk(3, -1)
    )
    bias = None
    if self.temporal:
      i = torch.arange(frames)
      distance = (i[None] - i[:, None]).clamp(-POSITIONS, POSITIONS)
      bias = self.positions[:, distance + POSITIONS].to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    out = self.out(out.transpose(1, 2).flatten(2))
    if self.temporal:
      out = out.unflatten(0, (-1, height * width)).transpose(1, 2).flatten(0, 1)
    return x + out.transpose(1, 2).reshape(images, channels, height, width)


class Stage(nn.Module):
  def __init__(self, inputs, outputs, embedding, head_dim, attention):
    super().__init__()
    self.block = Residual(inputs, outputs, embedding)
    self.attention = nn.ModuleList(
      [Attention(outputs, head_dim, t) for t in (False, True)]
      if attention
      else []
    )

  def forward(self, x, e, frames):
    x = self.block(x, e, frames)
    for attention in self.attention:
      x = attention(x, frames)
    return x


class Twin(nn.Module):
  """Maps [B, F, C, H, W] and logsnr [B] to [B, F, C, H, W]."""

  def __init__(
    self,
    width,
    multipliers,
    num_blocks,
    attention_resolutions,
    head_dim,
    embedding_dim,
    size,
  ):
    super().__init__()
    self.width = width
    self.embed = nn.Sequential(
      nn.Linear(width, embedding_dim),
      nn.SiLU(),
      nn.Linear(embedding_dim, embedding_dim),
    )

    def stage(inputs, outputs, attention):
      return Stage(inputs, outputs, embedding_dim, head_dim, attention)

    self.first = nn.Conv2d(3, width, 3, padding=1)
    channels, skips = width, [width]
    self.down = nn.ModuleList()
    for level, multiplier in enumerate(multipliers):
      attention = size in attention_resolutions
      for _ in range(num_blocks):
        self.down.append(stage(channels, width * multiplier, attention))
        channels = width * multiplier
        skips.append(channels)
      if level < len(multipliers) - 1:
        self.down.append(nn.Conv2d(channels, channels, 3, 2, padding=1))
        skips.append(channels)
        size //= 2
    self.middle = nn.ModuleList(
      [stage(channels, channels, True), stage(channels, channels, False)]
    )
    self.up = nn.ModuleList()
    for level in reversed(range(len(multipliers))):
      attention = size in attention_resolutions
      outputs = width * multipliers[level]
      for _ in range(num_blocks + 1):
        self.up.append(stage(channels + skips.pop(), outputs, attention))
        channels = outputs
      if level:
        self.up.append(nn.Conv2d(channels, channels, 3, padding=1))
        size *= 2
    self.last_norm = norm(channels)
    self.last = nn.Conv2d(channels, 3, 3, padding=1)

  def forward(self, z, logsnr):
    frames, half = z.shape[1], self.width // 2
    frequency = torch.exp(-math.log(1e4) * torch.arange(half) / half)
    angle = 25 * logsnr[:, None] * frequency
    e = self.embed(torch.cat([angle.sin(), angle.cos()], -1))
    x = self.first(z.flatten(0, 1))
    skips = [x]
    for part in self.down:
      x = part(x, e, frames) if isinstance(part, Stage) else part(x)
      skips.append(x)
    for part in self.middle:
      x = part(x, e, frames)
    for part in self.up:
      if isinstance(part, Stage):
        x = part(torch.cat([x, skips.pop()], 1), e, frames)
      else:
        x = part(F.interpolate(x, scale_factor=2, mode='nearest'))
    return self.last(F.silu(self.last_norm(x))).unflatten(0, (-1, frames))
