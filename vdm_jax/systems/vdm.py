"""Video Diffusion Models (Ho et al. 2022), assembled.

Training, eq. (2): t ~ U[0, 1], eps ~ noise prior, z = alpha x + sigma eps,
and a weighted squared error of the network's prediction.  Sampling, eq. (4):
from z_1 ~ noise prior through any sampler.  What makes this VDM is the choice
of defaults: cosine schedule, independent noise, ancestral sampler.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vdm_jax import samplers
from vdm_jax.diffusion import gaussian, losses
from vdm_jax.diffusion.noise import Independent, NoisePrior
from vdm_jax.diffusion.parameterization import Eps, Parameterization
from vdm_jax.diffusion.schedules import Cosine, Schedule
from vdm_jax.samplers import conditional, guidance
from vdm_jax.samplers.loop import Corrector, Sampler
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.draw import conditions, draw, together, with_nothing
from vdm_jax.systems.protocol import Batch, Cond, Params


@dataclasses.dataclass(frozen=True)
class VDM:
  """A diffusion model of videos with one network.

  Attributes:
    network: (z, logsnr [B], **cond, num_images=..., train=...) -> output,
      e.g. `UNet`.
    schedule: t -> logsnr.
    noise: noise prior over frames.
    parameterization: what the network predicts.
    loss_weight: w of eq. (2), a name in `losses.LOG_WEIGHTS`.
    cond_dropout: share of conditions hidden in training, so that the network
      also learns the unconditional model that guidance needs.
  """

  network: nn.Module
  schedule: Schedule = Cosine()
  noise: NoisePrior = Independent()
  parameterization: Parameterization = Eps()
  loss_weight: str = 'eps'
  cond_dropout: float = 0.1

  def __post_init__(self):
    if self.loss_weight not in losses.LOG_WEIGHTS:
      raise ValueError(
        f'loss_weight={self.loss_weight!r} is unknown: choose one of '
        f'{sorted(losses.LOG_WEIGHTS)}.'
      )

  @property
  def num_classes(self) -> int:
    """Classes of the network; 0 for none."""
    return getattr(self.network, 'num_classes', 0)

  @property
  def text_dim(self) -> int:
    """Width of the tokens of its captions; 0 for none."""
    return getattr(self.network, 'text_dim', 0)

  @property
  def _conditions(self) -> list[str]:
    return conditions(self.num_classes, self.text_dim)

  def check(self, video_shape: tuple[int, ...]) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit the network."""
    self.network.check(video_shape[-3], video_shape[-2])

  def init(self, key: Array, video_shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters for videos [F, H, W, C]."""
    self.check(video_shape)
    z = jnp.zeros((1, *video_shape))
    return self.network.init(key, z, jnp.zeros(1))['params']

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Adds logsnr [B] and eps [B, F, H, W, C]; hides some conditions."""
    return draw(
      key,
      batch,
      schedule=self.schedule,
      noise=self.noise,
      conditions=self._conditions,
      num_classes=self.num_classes,
      dropout=self.cond_dropout,
    )

  def loss(self, params: Params, key: Array, drawn: Batch) -> Array:
    """Returns eq. (2), the mean over all frames, images too: a scalar."""
    x, eps, cond, num_images = together(drawn, self._conditions)
    logsnr = drawn['logsnr']
    output: Any = self.network.apply(
      {'params': params},
      gaussian.corrupt(x, eps, logsnr),
      logsnr,
      **cond,
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

  def denoiser(
    self,
    params: Params,
    cond: Cond | None = None,
    guidance_scale: float = 1.0,
  ) -> DenoiseFn:
    """Returns the DenoiseFn of these parameters and conditions, eq. (6)."""
    if guidance_scale != 1.0:
      both = self.denoiser(params, with_nothing(cond, self.num_classes))
      return guidance.classifier_free_together(both, guidance_scale)

    def denoise(z, logsnr):
      logsnr = jnp.broadcast_to(logsnr, z.shape[:1])
      asked: Any = cond or {}
      output: Any = self.network.apply({'params': params}, z, logsnr, **asked)
      return self.parameterization.predict(output, z, logsnr).x_hat

    return denoise

  def sample_given(
    self,
    params: Params,
    key: Array,
    observed: ArrayLike,
    mask: ArrayLike,
    *,
    cond: Cond | None = None,
    guidance_scale: float = 1.0,
    **options: Any,
  ) -> Array:
    """Returns videos in [-1, 1] that agree with what is known of them.

    See `samplers.conditional.sample_given`, which takes the options too.
    """
    return conditional.sample_given(
      key,
      self.denoiser(params, cond, guidance_scale),
      observed,
      mask,
      schedule=self.schedule,
      noise=self.noise,
      clipped=True,
      **options,
    )

  def sample(
    self,
    params: Params,
    key: Array,
    shape: tuple[int, ...],
    *,
    cond: Cond | None = None,
    sampler: Sampler = samplers.Ancestral(),
    num_steps: int = 256,
    corrector: Corrector | None = None,
    guidance_scale: float = 1.0,
    progress: Callable[[Any], None] | None = None,
  ) -> Array:
    """Returns videos of `shape` [B, F, H, W, C] in [-1, 1].

    Args:
      params: parameters, usually the EMA.
      key: random key.
      shape: shape of the result.
      cond: what each video should show; None samples without a condition.
      sampler: the method.
      num_steps: its number of steps.
      corrector: a move after each step; doubles the network calls.
      guidance_scale: classifier-free guidance; 1 is none.
      progress: called on the host with the number of finished steps.
    """
    return samplers.sample(
      key,
      guidance.clip(self.denoiser(params, cond, guidance_scale)),
      shape,
      schedule=self.schedule,
      sampler=sampler,
      num_steps=num_steps,
      corrector=corrector,
      noise=self.noise,
      progress=progress,
    )
