"""Super-resolution by diffusion: the network sees a small video too.

    network(z || enlarge(small_s), logsnr, logsnr_s),   small_s ~ q_s(small)

The small video is noised by a random amount in training, of which the network
is told, and by little at sampling: it comes from another model and has that
model's faults (conditioning augmentation, Ho et al. 2022, "Cascaded Diffusion
Models", section 4.2).  VideoFusion goes from 64 to 128 by "DPM-based SR models"
(section 4.1), of which it does not say more.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian, numbered
from vdm_jax.diffusion.schedules import Cosine, Schedule
from vdm_jax.networks.embeddings import position, sinusoid
from vdm_jax.samplers.measurements import lower_resolution
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Batch, Cond, Params
from vdm_jax.systems.vdm import VDM

_LEVEL_DIM = 64


@dataclasses.dataclass(frozen=True)
class SuperResolution(VDM):
  """A VDM that is given each video at a lower resolution.

  Attributes:
    factor: rows and columns of a video for each of the small one.
    augmentation: s -> log SNR of the noisy small video; s = 1 is the most noise
      in training.
    augmented: s at sampling.
  """

  factor: int = 2
  augmentation: Schedule = Cosine(logsnr_min=0.0, logsnr_max=20.0)
  augmented: float = 0.1

  def __post_init__(self):
    super().__post_init__()
    if self.factor < 2 or not 0 <= self.augmented <= 1:
      raise ValueError(
        f'factor={self.factor} and augmented={self.augmented} are not allowed: '
        'give a factor of 2 or more, and a share in [0, 1].'
      )

  @property
  def enlarges(self) -> int:
    """The factor."""
    return self.factor

  def check(self, video_shape: tuple[int, ...]) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit."""
    super().check(video_shape)
    height, width = video_shape[-3:-1]
    if height % self.factor or width % self.factor:
      raise ValueError(
        f'{height}x{width} is not {self.factor} times a whole resolution: '
        'change config.data or config.system.factor.'
      )

  def init(self, key: Array, video_shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters for videos [F, H, W, C]."""
    self.check(video_shape)
    z = jnp.zeros((1, *video_shape[:-1], 2 * video_shape[-1]))
    told = jnp.zeros((1, _LEVEL_DIM))
    return self.network.init(key, z, jnp.zeros(1), cond=told)['params']

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Also draws how noisy the small video is, and its noise."""
    drawn = super().draw(key, batch)
    video = batch['video']
    frames = video.shape[1] + batch.get('images', video[:, :0]).shape[1]
    level_key, noise_key = jax.random.split(aside(key))
    shape = (len(video), frames, *self._small(video.shape[2:4]), video.shape[4])
    return drawn | {
      'low_logsnr': self.augmentation(jax.random.uniform(level_key, shape[:1])),
      'low_eps': jax.random.normal(noise_key, shape),
    }

  def _small(self, size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side // self.factor for side in size)

  def output(
    self,
    params: Params,
    z: Array,
    logsnr: Array,
    given: Mapping[str, Any],
    **options: Any,
  ) -> Array:
    """Returns what the network predicts, given 'low' and 'low_logsnr' too."""
    low = jax.image.resize(given['low'], z.shape, 'bilinear')
    told = sinusoid(position(given['low_logsnr'], 'logsnr'), _LEVEL_DIM)
    return super().output(
      params, z, logsnr, given, beside=low, cond=told, **options
    )

  def seen(self, drawn: Batch, x: Array) -> dict[str, Array]:
    """Returns the noisy small videos of a drawn batch."""
    low = lower_resolution(self.factor)(x)
    level = drawn['low_logsnr']
    noisy = gaussian.corrupt(low, drawn['low_eps'], level)
    return {'low': noisy, 'low_logsnr': level}

  def complete(
    self, params: Params, key: Array, shape: tuple[int, ...], cond: Cond
  ) -> Cond:
    """Adds noise to the small videos 'low' [B, F, H / k, W / k, C], once.

    Raises:
      ValueError: if there are none, or of another size.
    """
    del params
    if 'low_logsnr' in cond:  # done already
      return cond
    wanted = (*shape[:2], *self._small(shape[2:4]), shape[4])
    if 'low' not in cond or jnp.shape(cond['low']) != wanted:
      found = jnp.shape(cond['low']) if 'low' in cond else 'none'
      raise ValueError(
        f'a super-resolution model needs small videos of {wanted}; there are '
        f'{found}.'
      )
    level = self.augmentation(jnp.full(shape[:1], self.augmented))
    eps = numbered.normal(key, wanted, place=cond.get('place'))
    low = gaussian.corrupt(jnp.asarray(cond['low']), eps, level)
    return {**cond, 'low': low, 'low_logsnr': level}
