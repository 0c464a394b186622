"""Noise priors: how the noise of one video is correlated over its frames.

Every prior is N(0, K) over frames, independent over pixels and channels, with
ones on the diagonal of K: single frames always see standard Gaussian noise.

    Independent    K_ij = [i = j]                                        VDM
    Mixed          K_ij = a^2 / (1 + a^2)               PYoCo eq. (3), i != j
    Progressive    K_ij = (a / sqrt(1 + a^2))^|i - j|          PYoCo eq. (4)
    BaseResidual   K_ij = sqrt(l_i l_j)           VideoFusion eq. (7), i != j

with `correlation` a and `base_share` l.  Each `sample` is written as the
paper's sum of independent parts, never through K, so that the limits
(a = infinity, l = 1) are as exact as the rest.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion.decomposed import BaseResidual as BaseResidual
from vdm_jax.diffusion.numbered import normal
from vdm_jax.shapes import PRNGKey, Video

Shape = tuple[int, ...]


@runtime_checkable
class NoisePrior(Protocol):
  """A zero-mean Gaussian over the frames of a video."""

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns noise of shape [B, F, H, W, C], float32."""
    ...

  def covariance(self, num_frames: int) -> Array:
    """Returns K, [F, F], with ones on the diagonal."""
    ...

  def at(self, place: Array) -> 'NoisePrior':
    """Returns the prior of a part of a longer video, from frame `place` on.

    With the same key the parts have the noise of one video: frames of one place
    have one noise, and those of different parts share what frames of a video
    share.  Of `BaseResidual` each part has a base frame of its own, and all the
    same base noise.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Independent:
  """Standard Gaussian noise, as in VDM.

  Attributes:
    place: see `NoisePrior.at`.
  """

  place: Array | None = None

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns independent noise of `shape`."""
    return normal(key, shape, place=self.place)

  def at(self, place: Array) -> 'Independent':
    """Returns the prior of a part of a longer video."""
    return Independent(place)

  def covariance(self, num_frames: int) -> Array:
    """Returns the identity."""
    return jnp.eye(num_frames)


def _angle(correlation: float) -> float:
  """The angle with tan(angle) = correlation: finite at infinity.

  sin(angle)^2 = a^2 / (1 + a^2) is the shared part of the variance and
  cos(angle)^2 = 1 / (1 + a^2) the part of each frame's own.
  """
  if not correlation >= 0:
    raise ValueError(
      f'correlation={correlation} is not allowed: give a number from 0 '
      '(independent frames) to infinity (one noise map for all frames).'
    )
  return math.atan(correlation)


@dataclasses.dataclass(frozen=True)
class Mixed:
  """A shared noise map plus one for each frame, PYoCo eq. (3).

  eps_i = a / sqrt(1 + a^2) eps_shared + 1 / sqrt(1 + a^2) eps_own_i.

  Attributes:
    correlation: PYoCo's alpha, in [0, infinity].
    place: see `NoisePrior.at`.
  """

  correlation: float = 1.0
  place: Array | None = None

  def __post_init__(self):
    _angle(self.correlation)

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns noise of `shape` whose frames share a common part."""
    shared_key, own_key = jax.random.split(key)
    shared = jax.random.normal(shared_key, (shape[0], 1, *shape[2:]))
    own = normal(own_key, shape, place=self.place)
    angle = _angle(self.correlation)
    return math.sin(angle) * shared + math.cos(angle) * own

  def at(self, place: Array) -> 'Mixed':
    """Returns the prior of a part of a longer video: what is shared stays."""
    return dataclasses.replace(self, place=place)

  def covariance(self, num_frames: int) -> Array:
    """Returns a^2 / (1 + a^2) off the diagonal."""
    share = math.sin(_angle(self.correlation)) ** 2
    return share + (1 - share) * jnp.eye(num_frames)


@dataclasses.dataclass(frozen=True)
class Progressive:
  """Each frame's noise continues the one before it, PYoCo eq. (4).

  eps_0 ~ N(0, 1),
  eps_i = a / sqrt(1 + a^2) eps_{i-1} + 1 / sqrt(1 + a^2) eps_own_i.

  Attributes:
    correlation: PYoCo's alpha, in [0, infinity].
    place: see `NoisePrior.at`.
  """

  correlation: float = 2.0
  place: Array | None = None

  def __post_init__(self):
    _angle(self.correlation)

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns noise of `shape`, a stationary chain over frames."""
    angle = _angle(self.correlation)
    keep, renew = math.sin(angle), math.cos(angle)
    own = jnp.moveaxis(normal(key, shape, place=self.place), 1, 0)

    def advance(previous, fresh):
      current = keep * previous + renew * fresh
      return current, current

    first = own[0]
    if self.place is not None:  # the chain of the whole video, up to here
      one = shape[0], 1, *shape[2:]
      first = jax.lax.fori_loop(
        0,
        self.place,
        lambda i, noise: advance(noise, normal(key, one, place=i + 1)[:, 0])[0],
        normal(key, one, place=jnp.zeros((), int))[:, 0],
      )
    _, rest = jax.lax.scan(advance, first, own[1:])
    return jnp.moveaxis(jnp.concatenate([first[None], rest]), 0, 1)

  def at(self, place: Array) -> 'Progressive':
    """Returns the prior of a part of a longer video: its chain goes on."""
    return dataclasses.replace(self, place=place)

  def covariance(self, num_frames: int) -> Array:
    """Returns (a / sqrt(1 + a^2))^|i - j|."""
    frame = jnp.arange(num_frames)
    keep = math.sin(_angle(self.correlation))
    return keep ** jnp.abs(frame[:, None] - frame[None]).astype(jnp.float32)
