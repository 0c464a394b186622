"""What every system does alike in sampling: guidance and samplers.

DenoiseFn -> classifier-free guidance -> clip -> sampler, from z_1 ~ prior
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vdm_jax import samplers
from vdm_jax.samplers import conditional, guidance
from vdm_jax.samplers.loop import Corrector, Sampler
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.conditioning import with_nothing
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Cond, Params
from vdm_jax.systems.trained import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled(Trained):
  """A system by its DenoiseFn; the rest of a system's face follows."""

  completes: ClassVar[bool] = False  # whether `complete` adds conditions
  enlarges: ClassVar[int] = 0  # times that videos are larger than 'low'

  def complete(
    self, params: Params, key: Array, shape: tuple[int, ...], cond: Cond
  ) -> Cond:
    """Returns the conditions of videos of `shape` that the networks need."""
    del params, key, shape
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
    shape = jnp.broadcast_shapes(jnp.shape(observed), jnp.shape(mask))
    cond = self.complete(params, aside(key), shape, cond or {})
    return conditional.sample_given(
      key,
      self.denoiser(params, cond, guidance_scale),
      observed,
      mask,
      schedule=self.sample_schedule or self.schedule,
      noise=self.noise_given(cond),
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
    cond = self.complete(params, aside(key), shape, cond or {})
    return samplers.sample(
      key,
      guidance.clip(self.denoiser(params, cond, guidance_scale)),
      shape,
      schedule=self.sample_schedule or self.schedule,
      sampler=sampler,
      num_steps=num_steps,
      corrector=corrector,
      noise=self.noise_given(cond),
      progress=progress,
    )
