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


@dataclasses.dataclass(frozen=True)
class Independent:
  """Standard Gaussian noise, as in VDM."""

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns independent noise of `shape`."""
    return jax.random.normal(key, shape)

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
  """

  correlation: float = 1.0

  def __post_init__(self):
    _angle(self.correlation)

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns noise of `shape` whose frames share a common part."""
    shared_key, own_key = jax.random.split(key)
    shared = jax.random.normal(shared_key, (shape[0], 1, *shape[2:]))
    own = jax.random.normal(own_key, shape)
    angle = _angle(self.correlation)
    return math.sin(angle) * shared + math.cos(angle) * own

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
  """

  correlation: float = 2.0

  def __post_init__(self):
    _angle(self.correlation)

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns noise of `shape`, a stationary chain over frames."""
    angle = _angle(self.correlation)
    keep, renew = math.sin(angle), math.cos(angle)
    own = jnp.moveaxis(jax.random.normal(key, shape), 1, 0)

    def advance(previous, fresh):
      current = keep * previous + renew * fresh
      return current, current

    _, rest = jax.lax.scan(advance, own[0], own[1:])
    return jnp.moveaxis(jnp.concatenate([own[:1], rest]), 0, 1)

  def covariance(self, num_frames: int) -> Array:
    """Returns (a / sqrt(1 + a^2))^|i - j|."""
    frame = jnp.arange(num_frames)
    keep = math.sin(_angle(self.correlation))
    return keep ** jnp.abs(frame[:, None] - frame[None]).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class BaseResidual:
  """One base noise for all frames plus a residual each, VideoFusion eq. (7).

  eps_i = sqrt(l_i) b + sqrt(1 - l_i) r_i, with l = 1 at the base frame, whose
  noise is the base noise itself: eq. (11).

  Attributes:
    base_share: the paper's lambda, in [0, 1]; one for all frames, or a tuple
      with one for each.
    base_frame: index of the base frame from 0; None is the paper's choice,
      frame floor(F / 2) counted from 1.
  """

  base_share: float | tuple[float, ...] = 0.5
  base_frame: int | None = None

  def __post_init__(self):
    shares = self.base_share
    shares = shares if isinstance(shares, tuple) else (shares,)
    if not all(0 <= share <= 1 for share in shares):
      raise ValueError(
        f'base_share={self.base_share} is not allowed: shares of the '
        'variance lie in [0, 1].'
      )

  def shares(self, num_frames: int) -> Array:
    """Returns the base share of each frame, [F], 1 at the base frame."""
    base_frame = self.base_frame
    if base_frame is None:
      base_frame = max(num_frames // 2 - 1, 0)
    if not 0 <= base_frame < num_frames:
      raise ValueError(
        f'base_frame={base_frame} is outside a video of {num_frames} frames: '
        f'give an index in [0, {num_frames - 1}].'
      )
    if isinstance(self.base_share, tuple) and len(self.base_share) != (
      num_frames
    ):
      raise ValueError(
        f'base_share has {len(self.base_share)} entries for a video of '
        f'{num_frames} frames: give one number, or one for each frame.'
      )
    shares = jnp.broadcast_to(jnp.asarray(self.base_share), (num_frames,))
    return shares.at[base_frame].set(1.0)

  def sample(self, key: PRNGKey, shape: Shape) -> Video:
    """Returns noise of `shape` with a common base part."""
    base_key, residual_key = jax.random.split(key)
    base = jax.random.normal(base_key, (shape[0], 1, *shape[2:]))
    residual = jax.random.normal(residual_key, shape)
    share = self.shares(shape[1]).reshape(1, -1, 1, 1, 1)
    return jnp.sqrt(share) * base + jnp.sqrt(1 - share) * residual

  def covariance(self, num_frames: int) -> Array:
    """Returns sqrt(l_i l_j) off the diagonal."""
    share = self.shares(num_frames)
    common = jnp.sqrt(share[:, None] * share[None])
    return jnp.where(jnp.eye(num_frames, dtype=bool), 1.0, common)
