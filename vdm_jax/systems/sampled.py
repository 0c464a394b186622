"""What every system does alike in sampling: guidance and samplers.

DenoiseFn -> classifier-free guidance -> clip -> sampler, from z_1 ~ prior
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vdm_jax import samplers
from vdm_jax.diffusion import schedules
from vdm_jax.diffusion.noise import Mixed, Progressive
from vdm_jax.samplers import conditional, guidance
from vdm_jax.samplers.loop import Sampler
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.conditioning import with_nothing
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Cond, Params
from vdm_jax.systems.trained import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled(Trained):
  """A system by its DenoiseFn; the rest of a system's face follows."""

  @property
  def completes(self) -> bool:
    """Whether `complete` makes conditions where none are given."""
    return False

  @property
  def refines(self) -> tuple[int, int]:
    """How many times more frames, and larger ones, than 'low' has."""
    return 1, 1

  @property
  def continues(self) -> bool:
    """Whether parts of a longer video share noise unless told otherwise."""
    return isinstance(self.noise, Mixed | Progressive)

  def adapted(self, params: Params, fresh: Params) -> Params:
    """Returns trained parameters, to start from, in the shape of `fresh`."""
    del fresh
    return params

  def logsnr_at(self, time: float) -> Array:
    """Returns the noise level of a time of training, []."""
    return self.schedule(jnp.asarray(time))

  def levels(self, num_steps: int) -> Array:
    """Returns logsnr at the ends of sampling steps, [num_steps + 1]."""
    return schedules.levels(self._levels, num_steps)

  @property
  def _levels(self) -> schedules.Schedule:
    return self.sample_schedule or self.schedule

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
  ) -> Any:
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
      schedule=self._levels,
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
    guidance_scale: float = 1.0,
    sampler: Sampler = samplers.Ancestral(),
    num_steps: int = 256,
    **options: Any,
  ) -> Any:
    """Returns videos of `shape` [B, F, H, W, C] in [-1, 1].

    Args:
      params: parameters, usually the EMA.
      key: random key.
      shape: shape of the result.
      cond: what each video should show; None samples without a condition.
      guidance_scale: classifier-free guidance; 1 is none.
      sampler: the method.
      num_steps: its number of steps.
      **options: corrector and others, as for `samplers.sample`.
    """
    cond = self.complete(params, aside(key), shape, cond or {})
    return samplers.sample(
      key,
      guidance.clip(self.denoiser(params, cond, guidance_scale)),
      shape,
      schedule=self._levels,
      sampler=sampler,
      num_steps=num_steps,
      noise=self.noise_given(cond),
      **options,
    )
