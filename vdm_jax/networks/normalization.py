"""Group normalization of single frames, and the modulation that follows it.

    mean_g, var_g   over the pixels of one frame and the channels of group g
    y = (x - mean_g) / sqrt(var_g + 1e-6) * gamma + beta
    y = y * (1 + scale) + shift                 where a block is conditioned

Statistics are never taken over time: images that ride along with a video stay
independent of it (VDM, section 3), and a video network starts with the
statistics of the image network that it may grow from (PYoCo, Appendix A.1 (5)).

Both lines are affine in x for each channel, so they are computed as one,
y = a x + b: the memory traffic of a norm is what it costs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from vdm_jax.networks.materialization import materialize

_MAX_GROUPS = 32
_MIN_CHANNELS_PER_GROUP = 4
_EPSILON = 1e-6


def num_groups(channels: int) -> int:
  """The most groups, up to 32, of equal size and at least 4 channels."""
  most = min(_MAX_GROUPS, channels // _MIN_CHANNELS_PER_GROUP)
  return max((g for g in range(1, most + 1) if channels % g == 0), default=1)


class GroupNorm(nn.Module):
  """GroupNorm over [..., H, W, C], statistics for each frame in float32.

  Attributes:
    dtype: type of the result.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, modulation: tuple[Array, Array] | None = None
  ) -> Array:
    """Returns x normalized, scaled and shifted by channel.

    Args:
      x: [..., H, W, C].
      modulation: (scale, shift), each broadcastable to [..., 1, 1, C].
    """
    channels = x.shape[-1]
    one_each = (1,) * (x.ndim - 1) + (channels,)
    gamma = self.param('scale', nn.initializers.ones, (channels,))
    beta = self.param('bias', nn.initializers.zeros, (channels,))
    x = x.astype(jnp.float32)
    mean = _group_mean(x)
    variance = jnp.maximum(_group_mean(x * x) - mean * mean, 0.0)
    a = gamma.reshape(one_each) * jax.lax.rsqrt(variance + _EPSILON)
    b = beta.reshape(one_each) - mean * a
    if modulation is not None:
      scale, shift = modulation
      a, b = a * (1 + scale), b * (1 + scale) + shift
    a, b = materialize((a, b))
    return (x * a + b).astype(self.dtype)


def _group_mean(x: Array) -> Array:
  """Mean of each frame and group, for each of its channels: [..., 1, 1, C].

  Pixels first: a reduction that leaves channels alone keeps memory order.
  """
  channels = x.shape[-1]
  by_channel = x.mean((-3, -2))
  groups = num_groups(channels)
  split = by_channel.reshape(*by_channel.shape[:-1], groups, channels // groups)
  mean = jnp.broadcast_to(split.mean(-1, keepdims=True), split.shape)
  return mean.reshape(*by_channel.shape[:-1], 1, 1, channels)
