"""Noise schedules: from diffusion time to log signal-to-noise ratio.

A schedule is a function t -> logsnr on [0, 1], strictly decreasing, with t = 0
at the data and t = 1 at the noise.  It is the only place where time has a
meaning: everything else reads `logsnr`,

    alpha^2 = sigmoid(logsnr),   sigma^2 = sigmoid(-logsnr).

Training draws t from U[0, 1], sampling goes through `levels` from noise to
data; EDM does the two by different schedules.

Source: Video Diffusion Models (Ho et al. 2022), section 2 and Appendix A; EDM
(Karras et al. 2022), Table 1 and eq. (5).
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import jax.scipy.stats
from jax import Array


@runtime_checkable
class Schedule(Protocol):
  """t in [0, 1], any shape -> logsnr of the same shape, decreasing in t."""

  def __call__(self, t: Array) -> Array:
    """Returns logsnr at times `t`."""
    ...


@dataclasses.dataclass(frozen=True)
class Cosine:
  """The cosine schedule, truncated to a range of log SNR.

  alpha = cos(angle), sigma = sin(angle), so logsnr = -2 log tan(angle), with
  the angle linear in t between the angles of `logsnr_max` and `logsnr_min`.

  Source: VDM, Appendix A ("cosine", log SNR range [-20, 20]).

  Attributes:
    logsnr_min: logsnr at t = 1.
    logsnr_max: logsnr at t = 0; must be the larger one.
    shift: added to logsnr, the range above included.  Frames and neighbouring
      pixels that repeat each other average noise away; a negative shift gives
      the noise back and spends more of the time where the whole is decided
      (Hoogeboom et al. 2023, section 3.1).
  """

  logsnr_min: float = -20.0
  logsnr_max: float = 20.0
  shift: float = 0.0

  def __post_init__(self):
    if not self.logsnr_min < self.logsnr_max:
      raise ValueError(
        f'Cosine got logsnr_min={self.logsnr_min} and logsnr_max='
        f'{self.logsnr_max}; logsnr_min must be the smaller one.'
      )

  def __call__(self, t: Array) -> Array:
    """Returns logsnr at times `t` in [0, 1]."""
    from_data = math.atan(math.exp(-0.5 * self.logsnr_max))
    from_noise = math.atan(math.exp(0.5 * self.logsnr_min))
    span = math.pi / 2 - from_data - from_noise
    # Near t = 1 the angle approaches pi / 2, where float32 cannot tell
    # tan apart; the complementary angle is small and keeps full precision.
    near_data = -2 * jnp.log(jnp.tan(from_data + span * t))
    near_noise = 2 * jnp.log(jnp.tan(from_noise + span * (1 - t)))
    return jnp.where(t < 0.5, near_data, near_noise) + self.shift


@dataclasses.dataclass(frozen=True)
class LogNormal:
  """Noise levels of EDM's training: log edm_sigma ~ N(mean, std^2).

  logsnr = -2 (mean + std Phi^{-1}(t)), which draws that for t ~ U[0, 1].  Times
  are kept 1e-6 from the ends, where log edm_sigma would have no bound.

  Attributes:
    mean: P_mean.
    std: P_std.
  """

  mean: float = -1.2
  std: float = 1.2

  def __post_init__(self):
    if not self.std > 0:
      raise ValueError(f'LogNormal got std={self.std}; give it above 0.')

  def __call__(self, t: Array) -> Array:
    """Returns logsnr at times `t` in [0, 1]."""
    t = jnp.clip(t, 1e-6, 1 - 1e-6)
    return -2 * (self.mean + self.std * jax.scipy.stats.norm.ppf(t))


@dataclasses.dataclass(frozen=True)
class Karras:
  """Noise levels of EDM's sampling, evenly spaced in edm_sigma^{1 / rho}.

  Attributes:
    edm_sigma_min: at t = 0.
    edm_sigma_max: at t = 1; must be the larger one.
    rho: how much denser levels are near the data.
  """

  edm_sigma_min: float = 0.002
  edm_sigma_max: float = 80.0
  rho: float = 7.0

  def __post_init__(self):
    if not (0 < self.edm_sigma_min < self.edm_sigma_max and self.rho > 0):
      raise ValueError(
        f'Karras got edm_sigma_min={self.edm_sigma_min}, edm_sigma_max='
        f'{self.edm_sigma_max} and rho={self.rho}; give them above 0, and '
        'edm_sigma_min the smaller one.'
      )

  def __call__(self, t: Array) -> Array:
    """Returns logsnr at times `t` in [0, 1]."""
    low, high = (
      sigma ** (1 / self.rho)
      for sigma in (self.edm_sigma_min, self.edm_sigma_max)
    )
    return -2 * self.rho * jnp.log(low + t * (high - low))

  def levels(self, num_steps: int) -> Array:
    """EDM, eq. (5): the last network call is at edm_sigma_min itself.

    Then comes 0, of which nothing is seen: any larger log SNR stands for it.
    """
    seen = self(jnp.linspace(1.0, 0.0, num_steps))
    return jnp.append(seen, seen[-1] + 10.0)


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a schedule, stretched to all times.

  As t ~ U[0, 1] in training, it holds the share last - first of its noise
  levels: eDiff-I splits them so, by their probability (section 4).

  Attributes:
    schedule: the whole.
    first: time of the whole at t = 0.
    last: at t = 1.
  """

  schedule: Schedule
  first: float = 0.0
  last: float = 1.0

  def __post_init__(self):
    if not 0 <= self.first < self.last <= 1:
      raise ValueError(
        f'times from {self.first} to {self.last} are not allowed: give two '
        'from 0 (data) to 1 (noise), the smaller one first.'
      )

  def __call__(self, t: Array) -> Array:
    """Returns logsnr at times `t` in [0, 1]."""
    return self.schedule(self.first + (self.last - self.first) * t)


def levels(schedule: Schedule, num_steps: int) -> Array:
  """Returns logsnr at the ends of sampling steps, from noise to data.

  Args:
    schedule: may have its own `levels`; else times are evenly spaced.
    num_steps: number of steps.

  Returns:
    [num_steps + 1].
  """
  own = getattr(schedule, 'levels', None)
  if own is not None:
    return own(num_steps)
  return schedule(jnp.linspace(1.0, 0.0, num_steps + 1))
