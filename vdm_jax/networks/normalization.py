"""Group normalization of single frames.

Statistics are taken over the pixels of one frame and the channels of one
group, never over time: images that ride along with a video stay independent
of it (VDM, section 3), and a video network starts with the statistics of the
image network that it may grow from (PYoCo, Appendix A.1 (5)).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

_MAX_GROUPS = 32
_MIN_CHANNELS_PER_GROUP = 4


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
  def __call__(self, x: Array) -> Array:
    """Returns x, normalized, scaled and shifted by channel."""
    return nn.GroupNorm(
      num_groups=num_groups(x.shape[-1]),
      reduction_axes=(-3, -2, -1),
      dtype=self.dtype,
    )(x)
