"""Interpolation in time by diffusion: from every k-th frame to all.

"We concatenate the input noise in the channel axis with 16 frames by infilling
4 real frames with zero frames" (PYoCo, Appendix A.1 (3)): k = 5.  Real frames
stay as they are: every estimate x_hat has them in their places.
"""

import dataclasses

import jax.numpy as jnp
from jax import Array

from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems.protocol import Cond, Params
from vdm_jax.systems.refined import Refined, Shape


@dataclasses.dataclass(frozen=True)
class Interpolation(Refined):
  """A model that is given frames 0, k, 2 k, ... and makes those between."""

  @property
  def refines(self) -> tuple[int, int]:
    """More frames."""
    return self.factor, 1

  def check(self, video_shape: Shape) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit."""
    super().check(video_shape)
    frames = video_shape[0]
    if frames <= self.factor or (frames - 1) % self.factor:
      raise ValueError(
        f'of {frames} frames the last is not known if every '
        f'{self.factor}. is: set config.data.num_frames to a multiple of '
        f'{self.factor} and one more, or change config.system.factor.'
      )

  def coarse_shape(self, shape: Shape, num_images: int = 0) -> Shape:
    """Returns [B, (F - 1) / k + 1, H, W, C]; of images nothing is known."""
    frames = (shape[1] - num_images - 1) // self.factor + 1
    return shape[0], frames, *shape[2:]

  def coarse(self, x: Array, num_images: int = 0) -> Array:
    """Returns every k-th frame of the videos."""
    return x[:, : x.shape[1] - num_images : self.factor]

  def shown(self, low: Array, shape: Shape, num_images: int = 0) -> Array:
    """Returns the known frames in their places, zeros in others."""
    video = slice(0, shape[1] - num_images, self.factor)
    return jnp.zeros(shape, low.dtype).at[:, video].set(low)

  def complete(
    self, params: Params, key: Array, shape: Shape, cond: Cond
  ) -> Cond:
    """Adds noise to the known frames, and keeps them as they are too."""
    made = super().complete(params, key, shape, cond)
    return made if 'known' in made else {**made, 'known': cond['low']}

  def denoiser(
    self,
    params: Params,
    cond: Cond | None = None,
    guidance_scale: float = 1.0,
  ) -> DenoiseFn:
    """Returns the DenoiseFn under guidance, right about known frames."""
    denoise = super().denoiser(params, cond, guidance_scale)
    if cond is None or 'known' not in cond:
      return denoise

    def right(z, logsnr):
      return denoise(z, logsnr).at[:, :: self.factor].set(cond['known'])

    return right
