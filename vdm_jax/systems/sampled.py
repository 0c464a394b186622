"""What every system does alike once it has a DenoiseFn: guidance and sampling.

DenoiseFn -> classifier-free guidance -> clip -> sampler, from z_1 ~ prior
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vdm_jax import samplers
from vdm_jax.diffusion.noise import BaseResidual, Independent, NoisePrior
from vdm_jax.diffusion.schedules import Cosine, Schedule
from vdm_jax.samplers import conditional, guidance
from vdm_jax.samplers.loop import Corrector, Sampler
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.draw import conditions, draw, with_nothing
from vdm_jax.systems.protocol import Batch, Cond, Params


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
  def networks(self) -> Sequence[Any]:
    """The networks, whose conditions are those of the system."""
    return ()

  def _most(self, name: str) -> int:
    return max((getattr(n, name, 0) for n in self.networks), default=0)

  @property
  def num_classes(self) -> int:
    """Classes that videos can be asked for; 0 for none."""
    return self._most('num_classes')

  @property
  def text_dim(self) -> int:
    """Width of the tokens of captions; 0 for none."""
    return self._most('text_dim')

  @property
  def visual_dim(self) -> int:
    """Width of visual embeddings; 0 for none."""
    return self._most('visual_dim')

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
      noise=self.noise_given(batch),
      conditions=self.conditions,
      num_classes=self.num_classes,
      dropout=self.cond_dropout,
    )

  def denoise(self, params: Params, cond: Cond) -> DenoiseFn:
    """Returns (z, logsnr) -> x_hat of these parameters and conditions."""
    raise TypeError(f'{type(self).__name__} must say how it denoises.')

  def noise_given(self, given: Mapping[str, Any]) -> NoisePrior:
    """Returns the noise prior of videos that share noise, or their shares.

    Args:
      given: may hold 'content' and 'motion' [B], and 'share' [B, F], see
        `BaseResidual`.

    Raises:
      ValueError: if the noise prior has no such parts.
    """
    parts = {'content': 'content', 'motion': 'motion', 'share': 'base_share'}
    changes = {parts[name]: given[name] for name in parts if name in given}
    if not changes:
      return self.noise
    if not isinstance(self.noise, BaseResidual):
      raise ValueError(
        'content and motion were given, but only the noise prior '
        'base_residual has these parts.'
      )
    return dataclasses.replace(
      self.noise, **{k: jnp.asarray(v) for k, v in changes.items()}
    )

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
    cond = self.complete(params, _aside(key), shape, cond or {})
    return conditional.sample_given(
      key,
      self.denoiser(params, cond, guidance_scale),
      observed,
      mask,
      schedule=self.schedule,
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
    cond = self.complete(params, _aside(key), shape, cond or {})
    return samplers.sample(
      key,
      guidance.clip(self.denoiser(params, cond, guidance_scale)),
      shape,
      schedule=self.schedule,
      sampler=sampler,
      num_steps=num_steps,
      corrector=corrector,
      noise=self.noise_given(cond),
      progress=progress,
    )


def _aside(key: Array) -> Array:
  """A stream of its own beside those of a sampler's steps."""
  return jax.random.fold_in(key, 2**31)
