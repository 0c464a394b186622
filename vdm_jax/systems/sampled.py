"""What every system does alike once it has a DenoiseFn: guidance and sampling.

DenoiseFn -> classifier-free guidance -> clip -> sampler, from z_1 ~ prior
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.typing import ArrayLike

from vdm_jax import samplers
from vdm_jax.diffusion.noise import Independent, NoisePrior
from vdm_jax.diffusion.schedules import Cosine, Schedule
from vdm_jax.samplers import conditional, guidance
from vdm_jax.samplers.loop import Corrector, Sampler
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.draw import conditions, draw, with_nothing
from vdm_jax.systems.protocol import Batch, Cond, Params

_COND = 2**31  # a stream of its own beside those of the steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled:
  """A system by its `denoise`; the rest of a system's face follows.

  Attributes:
    schedule: t -> logsnr.
    noise: noise prior over frames.
    cond_dropout: share of conditions hidden in training, so that the network
      also learns the unconditional model that guidance needs.
  """

  schedule: Schedule = Cosine()
  noise: NoisePrior = Independent()
  cond_dropout: float = 0.1

  @property
  def num_classes(self) -> int:
    """Classes that videos can be asked for; 0 for none."""
    return 0

  @property
  def text_dim(self) -> int:
    """Width of the tokens of captions; 0 for none."""
    return 0

  @property
  def visual_dim(self) -> int:
    """Width of visual embeddings; 0 for none."""
    return 0

  @property
  def conditions(self) -> list[str]:
    """Names of the conditions, see `Cond`."""
    return conditions(self.num_classes, self.text_dim, self.visual_dim)

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Adds logsnr [B] and eps [B, F, H, W, C]; hides some conditions."""
    return draw(
      key,
      batch,
      schedule=self.schedule,
      noise=self.noise,
      conditions=self.conditions,
      num_classes=self.num_classes,
      dropout=self.cond_dropout,
    )

  def denoise(self, params: Params, cond: Cond) -> DenoiseFn:
    """Returns (z, logsnr) -> x_hat of these parameters and conditions."""
    raise TypeError(f'{type(self).__name__} must say how it denoises.')

  def complete(self, params: Params, key: Array, cond: Cond) -> Cond:
    """Returns the conditions that the networks need, from those asked for."""
    del params, key
    return cond

  def denoiser(
    self,
    params: Params,
    cond: Cond | None = None,
    guidance_scale: float = 1.0,
  ) -> DenoiseFn:
    """Returns the DenoiseFn under classifier-free guidance, VDM eq. (6)."""
    if guidance_scale == 1.0:
      return self.denoise(params, cond or {})
    both = self.denoise(params, with_nothing(cond, self.num_classes))
    return guidance.classifier_free_together(both, guidance_scale)

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
    cond = self.complete(params, jax.random.fold_in(key, _COND), cond or {})
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
    cond = self.complete(params, jax.random.fold_in(key, _COND), cond or {})
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
