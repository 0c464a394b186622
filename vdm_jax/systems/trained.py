"""What every system does alike in training: conditions, noise, loss, DenoiseFn.

    z = alpha x + sigma eps,    output = network(z, logsnr, conditions)
    loss = w(logsnr) |x_hat - x|^2,                            VDM eq. (2)

A system says what its networks are and what they output together; by its
parameterization that is a DenoiseFn, and by its weight a loss.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian, losses
from vdm_jax.diffusion.noise import (
  BaseResidual,
  Independent,
  NoisePrior,
)
from vdm_jax.diffusion.parameterization import Eps, Parameterization
from vdm_jax.diffusion.schedules import Cosine, Part, Schedule
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems import conditioning
from vdm_jax.systems.draw import draw, together
from vdm_jax.systems.protocol import Batch, Cond, Params

ALL_TIMES = (0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained(abc.ABC):
  """A system by its `networks` and their `output`.

  Attributes:
    schedule: t -> logsnr, that of training.
    times: the part of [0, 1] whose noise levels are trained; that of an expert
      denoiser is not the whole.
    sample_schedule: that of sampling; None is the same.
    noise: noise prior over frames.
    parameterization: what the networks predict.
    loss_weight: w of eq. (2), a name of `diffusion.losses`.
    cond_dropout: share of conditions hidden in training, so that the network
      also learns the unconditional model that guidance needs.
    clip_dropout: share of the second text encoder's tokens hidden, by a draw of
      its own (PYoCo, Table F); None hides them with the rest.
  """

  schedule: Schedule = Cosine()
  times: tuple[float, float] = ALL_TIMES
  sample_schedule: Schedule | None = None
  noise: NoisePrior = Independent()
  parameterization: Parameterization = Eps()
  loss_weight: str = 'eps'
  cond_dropout: float = 0.1
  clip_dropout: float | None = None

  def __post_init__(self):
    losses.log_weight(self.loss_weight, self.parameterization)  # or refuses
    if len(self.times) != 2:
      raise ValueError(f'times={self.times} is not allowed: give two numbers.')
    Part(self.schedule, *self.times)  # or refuses
    if self.clip_dropout is not None and not self.clip_text_dim:
      raise ValueError('clip_dropout needs a network with clip_text_dim.')

  @property
  @abc.abstractmethod
  def networks(self) -> Sequence[Any]:
    """The networks, whose conditions are those of the system."""

  @property
  def num_classes(self) -> int:
    """Classes that videos can be asked for; 0 for none."""
    return conditioning.most(self.networks, 'num_classes')

  @property
  def text_dim(self) -> int:
    """Width of the tokens of captions; 0 for none."""
    return conditioning.most(self.networks, 'text_dim')

  @property
  def clip_text_dim(self) -> int:
    """Width of the tokens of a second text encoder; 0 for none."""
    return conditioning.most(self.networks, 'clip_text_dim')

  @property
  def visual_dim(self) -> int:
    """Width of visual embeddings; 0 for none."""
    return conditioning.most(self.networks, 'visual_dim')

  @property
  def conditions(self) -> list[str]:
    """Names of the conditions, see `Cond`."""
    return conditioning.names(self.networks)

  @abc.abstractmethod
  def output(
    self,
    params: Params,
    z: Array,
    logsnr: Array,
    given: Mapping[str, Any],
    *,
    num_images: int = 0,
    key: Array | None = None,
  ) -> Array:
    """Returns what the networks predict of noisy videos.

    Args:
      params: parameters.
      z: [B, F + K, H, W, C], the last K frames independent images.
      logsnr: [B].
      given: conditions, and what `seen` adds; networks take their own.
      num_images: K.
      key: for dropout; None is sampling.
    """

  def seen(self, drawn: Batch, x: Array) -> dict[str, Array]:
    """Returns what the networks see of a batch beside z; here, nothing.

    Args:
      drawn: a drawn batch.
      x: its videos and images, [B, F + K, H, W, C].
    """
    del drawn, x
    return {}

  def noise_given(self, given: Mapping[str, Any]) -> NoisePrior:
    """Returns the noise prior of videos that share noise, or their shares.

    Args:
      given: may hold 'content' and 'motion' [B], and 'share' [B, F], see
        `BaseResidual`, and 'place' [], see `NoisePrior.at`.

    Raises:
      ValueError: if the noise prior has no such parts.
    """
    parts = {'content': 'content', 'motion': 'motion', 'share': 'base_share'}
    changes = {
      part: jnp.asarray(given[name])
      for name, part in parts.items()
      if name in given
    }
    noise = self.noise
    if isinstance(noise, BaseResidual):
      noise = dataclasses.replace(noise, **changes)
    elif changes:
      raise ValueError(
        f'{" and ".join(sorted(parts.keys() & given.keys()))} were given, but '
        'only the noise prior base_residual has these parts.'
      )
    return noise.at(jnp.asarray(given['place'])) if 'place' in given else noise

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Adds logsnr [B] and eps [B, F, H, W, C]; hides some conditions."""
    return draw(
      key,
      batch,
      schedule=Part(self.schedule, *self.times),
      noise=self.noise_given(batch),
      conditions=self.conditions,
      num_classes=self.num_classes,
      cond_dropout=self.cond_dropout,
      clip_dropout=self.clip_dropout,
    )

  def loss(self, params: Params, key: Array, drawn: Batch) -> Array:
    """Returns eq. (2), the mean over all frames, images too: a scalar."""
    x, eps, cond, num_images = together(drawn, self.conditions)
    logsnr = drawn['logsnr']
    output = self.output(
      params,
      gaussian.corrupt(x, eps, logsnr),
      logsnr,
      cond | self.seen(drawn, x),
      num_images=num_images,
      key=key,
    )
    return losses.denoising_loss(
      output,
      x,
      eps,
      logsnr,
      parameterization=self.parameterization,
      log_weight=losses.log_weight(self.loss_weight, self.parameterization),
    ).mean()

  def denoise(self, params: Params, cond: Cond) -> DenoiseFn:
    """Returns (z, logsnr) -> x_hat of these parameters and conditions."""

    def denoise(z, logsnr):
      logsnr = jnp.broadcast_to(logsnr, z.shape[:1])
      output = self.output(params, z, logsnr, cond)
      return self.parameterization.predict(output, z, logsnr).x_hat

    return denoise
