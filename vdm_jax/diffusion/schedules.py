"""Noise schedules: from diffusion time to log signal-to-noise ratio.

A schedule is a function t -> logsnr on [0, 1], strictly decreasing, with t = 0
at the data and t = 1 at the noise.  It is the only place where time has a
meaning: everything else reads `logsnr`,

    alpha^2 = sigmoid(logsnr),   sigma^2 = sigmoid(-logsnr).

Source: Video Diffusion Models (Ho et al. 2022), section 2 and Appendix A.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
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
