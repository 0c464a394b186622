"""Video Diffusion Models (Ho et al. 2022), assembled.

Training, eq. (2): t ~ U[0, 1], eps ~ noise prior, z = alpha x + sigma eps,
and a weighted squared error of the network's prediction.  Sampling, eq. (4):
from z_1 ~ noise prior through any sampler.  What makes this VDM is the choice
of defaults: cosine schedule, independent noise, ancestral sampler.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vdm_jax.systems.draw import dropout
from vdm_jax.systems.protocol import Params
from vdm_jax.systems.sampled import Sampled


@dataclasses.dataclass(frozen=True)
class VDM(Sampled):
  """A diffusion model of videos with one network.

  Attributes:
    network: (z, logsnr [B], **cond, num_images=..., train=...) -> output,
      e.g. `UNet`.
  """

  network: nn.Module

  @property
  def networks(self) -> list[nn.Module]:
    """The one network."""
    return [self.network]

  def check(self, video_shape: tuple[int, ...]) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit the network."""
    self.network.check(video_shape[-3], video_shape[-2])

  def init(self, key: Array, video_shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters for videos [F, H, W, C]."""
    self.check(video_shape)
    z = jnp.zeros((1, *video_shape))
    return self.network.init(key, z, jnp.zeros(1))['params']

  def output(
    self,
    params: Params,
    z: Array,
    logsnr: Array,
    given: Mapping[str, Any],
    *,
    num_images: int = 0,
    key: Array | None = None,
    beside: Array | None = None,
    **options: Any,
  ) -> Array:
    """Returns what the network predicts.

    Args:
      params: parameters.
      z: noisy videos and images.
      logsnr: [B].
      given: conditions.
      num_images: K.
      key: for dropout; None is sampling.
      beside: further channels that the network sees.
      **options: its other arguments.
    """
    options |= {k: given[k] for k in self.conditions if k in given}
    z = self.parameterization.network_input(z, logsnr)
    if beside is not None:
      z = jnp.concatenate([z, beside], -1)
    output: Any = self.network.apply(
      {'params': params},
      z,
      logsnr,
      num_images=num_images,
      **options,
      **dropout(key),
    )
    return output
