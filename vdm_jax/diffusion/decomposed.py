"""VideoFusion's decomposed diffusion process (Luo et al. 2023, section 3).

A frame is a share of the base frame x^0 plus its residual, and its noise a
share of one base noise b plus its own residual noise r^i:

    x^i   = sqrt(l_i) x^0 + sqrt(1 - l_i) dx^i                             (5)
    eps^i = sqrt(l_i) b   + sqrt(1 - l_i) r^i                              (7)
    z^i   = sqrt(l_i) (alpha x^0 + sigma b)
            + sqrt(1 - l_i) (alpha dx^i + sigma r^i)                       (8)

with l = `base_share`, 1 at the base frame: eq. (11).  One network estimates b
from the base frame alone, another r from what is left of the frames,

    z'^i  = z^i - sqrt(l_i) sigma b_hat                                   (12)
    eps^i = sqrt(l_i) b_hat + sqrt(1 - l_i) r_hat^i                       (13)

Eq. (13) is linear, and so are eps, x and v in each other: it joins outputs of
any parameterization.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion.gaussian import expand, sigma
from vdm_jax.diffusion.numbered import normal
from vdm_jax.shapes import LogSNR, PRNGKey, Video


@dataclasses.dataclass(frozen=True)
class BaseResidual:
  """One base noise for all frames plus a residual each, eq. (7) and (11).

  Attributes:
    base_share: the paper's lambda, in [0, 1]; one for all frames, a tuple with
      one for each, or an array [B, F].
    base_frame: index of the base frame from 0; None is the paper's choice,
      frame floor(F / 2) counted from 1.
    content: numbers [B]; videos of the same number have the same base noise
      (section 4.7).  None gives each its own.
    motion: likewise for the residual noise.
    place: see `NoisePrior.at`.
  """

  base_share: float | tuple[float, ...] | Array = 0.5
  base_frame: int | None = None
  content: Array | None = None
  motion: Array | None = None
  place: Array | None = None

  def __post_init__(self):
    shares = self.base_share
    if isinstance(shares, Array):
      return  # may be known on the device alone
    shares = shares if isinstance(shares, tuple) else (shares,)
    if not all(0 <= share <= 1 for share in shares):
      raise ValueError(
        f'base_share={self.base_share} is not allowed: shares of the '
        'variance lie in [0, 1].'
      )

  def index(self, num_frames: int) -> int:
    """Returns the index of the base frame.

    Raises:
      ValueError: if a video of that many frames does not have it.
    """
    index = self.base_frame
    if index is None:
      index = max(num_frames // 2 - 1, 0)
    if not 0 <= index < num_frames:
      raise ValueError(
        f'base_frame={index} is outside a video of {num_frames} frames: '
        f'give an index in [0, {num_frames - 1}].'
      )
    return index

  def shares(self, num_frames: int) -> Array:
    """Returns the base share of each frame, [F] or [B, F].

    Raises:
      ValueError: if there is a share for each of another number of frames.
    """
    index = self.index(num_frames)
    shares = jnp.asarray(self.base_share, jnp.float32)
    if shares.ndim and shares.shape[-1] != num_frames:
      raise ValueError(
        f'base_share has {shares.shape[-1]} entries for a video of '
        f'{num_frames} frames: give one number, or one for each frame.'
      )
    shares = jnp.broadcast_to(shares, (*shares.shape[:-1], num_frames))
    return shares.at[..., index].set(1.0)

  def sample(self, key: PRNGKey, shape: tuple[int, ...]) -> Video:
    """Returns noise of `shape` with a common base part."""
    base_key, residual_key = jax.random.split(key)
    content = self.content
    if content is None and self.place is not None:
      content = jnp.arange(shape[0])  # as of a clip that is drawn with these
    base = normal(base_key, (shape[0], 1, *shape[2:]), numbers=content)
    residual = normal(
      residual_key, shape, numbers=self.motion, place=self.place
    )
    return compose(base, residual, self.shares(shape[1]))

  def at(self, place: Array) -> 'BaseResidual':
    """Returns the prior of a part of a longer video: its base noise stays.

    That is VideoFusion's section 4.6.  It is also the base noise of videos that
    were drawn with the same key and the `content` 0, 1, ...
    """
    return dataclasses.replace(self, place=place)

  def covariance(self, num_frames: int) -> Array:
    """Returns sqrt(l_i l_j) off the diagonal, [F, F] or [B, F, F]."""
    share = self.shares(num_frames)
    common = jnp.sqrt(share[..., :, None] * share[..., None, :])
    return jnp.where(jnp.eye(num_frames, dtype=bool), 1.0, common)


def per_frame(share: Array) -> Array:
  """Returns shares [F] or [B, F] that broadcast to [B, F, H, W, C]."""
  return jnp.atleast_2d(share)[..., None, None, None]


def compose(base: Array, residual: Array, share: Array) -> Array:
  """sqrt(l) base + sqrt(1 - l) residual: eq. (5), (7) and (13).

  Args:
    base: [B, 1, H, W, C].
    residual: [B, F, H, W, C].
    share: [F] or [B, F].
  """
  share = per_frame(share)
  return jnp.sqrt(share) * base + jnp.sqrt(1 - share) * residual


def residual_of(x: Video, base: Array, share: Array) -> Video:
  """dx^i of eq. (5), given x^0 [B, 1, H, W, C]; zero where the share is 1."""
  share = per_frame(share)
  rest = jnp.sqrt(1 - share)
  left = x - jnp.sqrt(share) * base
  return jnp.where(share < 1, left / jnp.where(share < 1, rest, 1), 0.0)


def without_base_noise(
  z: Video, base_noise: Array, share: Array, logsnr: LogSNR
) -> Video:
  """z' of eq. (12): what is left of z when the base noise is removed.

  Args:
    z: noisy videos [B, F, H, W, C].
    base_noise: b_hat [B, 1, H, W, C].
    share: [F] or [B, F].
    logsnr: the noise level of z.
  """
  return z - jnp.sqrt(per_frame(share)) * sigma(expand(logsnr, z)) * base_noise
