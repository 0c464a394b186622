"""Models that refine: the network sees a coarser video beside z.

    network(z || shown(low_s), logsnr, logsnr_s),   low_s ~ q_s(low)

`SuperResolution` is given smaller frames, `Interpolation` fewer of them.  The
coarse video is noised by a random amount in training, of which the network is
told, and by little at sampling: it comes from another model and has that
model's faults (conditioning augmentation, Ho et al. 2022, "Cascaded Diffusion
Models", section 4.2).

Whole videos larger than those of training are drawn with `tiling`: one latent
video under one noise prior, the network on overlapping parts of it.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import gaussian, numbered
from vdm_jax.diffusion.schedules import Cosine, Schedule
from vdm_jax.networks.embeddings import position, sinusoid
from vdm_jax.samplers.tiles import Tiling, tiled
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Batch, Cond, Params
from vdm_jax.systems.vdm import VDM

_LEVEL_DIM = 64
_CHANNELS = 3
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Refined(VDM):
  """A VDM that is given each video at a coarser resolution.

  Attributes:
    factor: how many times finer a video is than the coarse one.
    augmentation: s -> log SNR of the noisy coarse video; s = 1 is the most
      noise in training.
    augmented: s at sampling.
    tiling: parts that the network sees at once; None is the whole.
  """

  factor: int = 2
  augmentation: Schedule = Cosine(logsnr_min=0.0, logsnr_max=20.0)
  augmented: float = 0.1
  tiling: Tiling | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.factor < 2 or not 0 <= self.augmented <= 1:
      raise ValueError(
        f'factor={self.factor} and augmented={self.augmented} are not allowed: '
        'give a factor of 2 or more, and a share in [0, 1].'
      )

  @property
  @abc.abstractmethod
  def refines(self) -> tuple[int, int]:
    """How many times more frames, and larger ones, than 'low' has."""

  @abc.abstractmethod
  def coarse_shape(self, shape: Shape, num_images: int = 0) -> Shape:
    """Returns the shape of what `coarse` makes of videos of `shape`."""

  @abc.abstractmethod
  def coarse(self, x: Array, num_images: int = 0) -> Array:
    """Returns the coarse videos of [B, F + K, H, W, C]."""

  @abc.abstractmethod
  def shown(self, low: Array, shape: Shape, num_images: int = 0) -> Array:
    """Returns coarse videos as the network sees them, of `shape`."""

  def init(self, key: Array, video_shape: Shape) -> Params:
    """Returns fresh parameters for videos [F, H, W, C]."""
    self.check(video_shape)
    z = jnp.zeros((1, *video_shape[:-1], 2 * video_shape[-1]))
    told = jnp.zeros((1, _LEVEL_DIM))
    return self.network.init(key, z, jnp.zeros(1), cond=told)['params']

  def adapted(self, params: Params, fresh: Params) -> Params:
    """Lets a model of z alone overlook the coarse video, at first.

    Its first convolution has weights of zero for the other channels, and so has
    the layer that says how noisy it is: PYoCo, Appendix A.1 (6), starts
    interpolation from the base model.
    """
    own, given = (tree.get('in', {}).get('kernel') for tree in (fresh, params))
    if own is None or given is None or own.shape[2] != 2 * given.shape[2]:
      return params
    # Patches of p x p pixels have their channels together, (p p c).
    seen = given.reshape(*given.shape[:2], -1, _CHANNELS, given.shape[3])
    kernel = jnp.concatenate([seen, jnp.zeros_like(seen)], 3)
    first = {**params['in'], 'kernel': kernel.reshape(own.shape)}
    told = jax.tree.map(
      lambda a: jnp.zeros(a.shape, a.dtype), fresh['embedding']['cond']
    )
    embedding = {'cond': told, **params['embedding']}
    return {**params, 'in': first, 'embedding': embedding}

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Also draws how noisy the coarse video is, and its noise."""
    drawn = super().draw(key, batch)
    rows, frames, *rest = batch['video'].shape
    images = batch['images'].shape[1] if 'images' in batch else 0
    shape = self.coarse_shape((rows, frames + images, *rest), images)
    level_key, noise_key = jax.random.split(aside(key))
    return drawn | {
      'low_logsnr': self.augmentation(jax.random.uniform(level_key, (rows,))),
      'low_eps': jax.random.normal(noise_key, shape),
    }

  def seen(self, drawn: Batch, x: Array) -> dict[str, Array]:
    """Returns the noisy coarse videos of a drawn batch."""
    images = drawn['images'].shape[1] if 'images' in drawn else 0
    level = drawn['low_logsnr']
    low = gaussian.corrupt(self.coarse(x, images), drawn['low_eps'], level)
    return {'low': low, 'low_logsnr': level}

  def output(
    self,
    params: Params,
    z: Array,
    logsnr: Array,
    given: Mapping[str, Any],
    *,
    num_images: int = 0,
    **options: Any,
  ) -> Array:
    """Returns what the network predicts, given 'low' and 'low_logsnr' too."""
    told = sinusoid(position(given['low_logsnr'], 'logsnr'), _LEVEL_DIM)
    options |= {'cond': told, 'num_images': num_images}
    predict = super().output

    def part(z, beside):
      return predict(params, z, logsnr, given, beside=beside, **options)

    beside = self.shown(given['low'], z.shape, num_images)
    if self.tiling is None:
      return part(z, beside)
    return tiled(part, self.tiling, z, beside)

  def complete(
    self, params: Params, key: Array, shape: Shape, cond: Cond
  ) -> Cond:
    """Adds noise to the coarse videos 'low', once.

    Raises:
      ValueError: if there are none, or of another shape than `coarse_shape`.
    """
    del params
    if 'low_logsnr' in cond:  # done already
      return cond
    wanted = self.coarse_shape(shape)
    if 'low' not in cond or jnp.shape(cond['low']) != wanted:
      found = jnp.shape(cond['low']) if 'low' in cond else 'none'
      raise ValueError(
        f'a model that refines needs coarse videos of {wanted}; there are '
        f'{found}.'
      )
    level = self.augmentation(jnp.full(shape[:1], self.augmented))
    eps = numbered.normal(key, wanted)
    low = gaussian.corrupt(jnp.asarray(cond['low']), eps, level)
    return {**cond, 'low': low, 'low_logsnr': level}
