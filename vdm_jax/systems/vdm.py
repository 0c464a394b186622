"""Video Diffusion Models (Ho et al. 2022), assembled.

Training, eq. (2): t ~ U[0, 1], eps ~ noise prior, z = alpha x + sigma eps,
and a weighted squared error of the network's prediction.  Sampling, eq. (4):
from z_1 ~ noise prior through any sampler.  What makes this VDM is the choice
of defaults: cosine schedule, independent noise, ancestral sampler.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian, losses
from vdm_jax.diffusion.parameterization import Eps, Parameterization
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.draw import together
from vdm_jax.systems.protocol import Batch, Cond, Params
from vdm_jax.systems.sampled import Sampled


@dataclasses.dataclass(frozen=True)
class VDM(Sampled):
  """A diffusion model of videos with one network.

  Attributes:
    network: (z, logsnr [B], **cond, num_images=..., train=...) -> output,
      e.g. `UNet`.
    parameterization: what the network predicts.
    loss_weight: w of eq. (2), a name in `losses.LOG_WEIGHTS`.
  """

  network: nn.Module
  parameterization: Parameterization = Eps()
  loss_weight: str = 'eps'

  def __post_init__(self):
    losses.check_weight(self.loss_weight)

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

  def loss(self, params: Params, key: Array, drawn: Batch) -> Array:
    """Returns eq. (2), the mean over all frames, images too: a scalar."""
    x, eps, cond, num_images = together(drawn, self.conditions)
    logsnr = drawn['logsnr']
    output = self.run(
      params,
      gaussian.corrupt(x, eps, logsnr),
      logsnr,
      cond | self.seen(drawn, x),
      num_images=num_images,
      train=True,
      rngs={'dropout': key},
    )
    return losses.denoising_loss(
      output,
      x,
      eps,
      logsnr,
      parameterization=self.parameterization,
      log_weight=losses.LOG_WEIGHTS[self.loss_weight],
    ).mean()

  def run(
    self, params: Params, z: Array, logsnr: Array, given: Any, **options: Any
  ) -> Array:
    """Returns the network's output."""
    output: Any = self.network.apply(
      {'params': params}, z, logsnr, **given, **options
    )
    return output

  def seen(self, drawn: Batch, x: Array) -> dict[str, Array]:
    """Returns what the network sees of the clean videos: here, nothing."""
    del drawn, x
    return {}

  def denoise(self, params: Params, cond: Cond) -> DenoiseFn:
    """Returns the DenoiseFn of these parameters and conditions."""

    known = *self.conditions, 'low', 'low_logsnr'
    asked = {k: cond[k] for k in known if k in cond}

    def denoise(z, logsnr):
      logsnr = jnp.broadcast_to(logsnr, z.shape[:1])
      output = self.run(params, z, logsnr, asked)
      return self.parameterization.predict(output, z, logsnr).x_hat

    return denoise
