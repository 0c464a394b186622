"""What the network predicts, and the pair (x_hat, eps_hat) that it implies.

From z = alpha x + sigma eps (eq. (1)) any one of the three targets below gives
the other two:

    Eps   predicts eps                    x_hat = (z - sigma eps_hat) / alpha
    X     predicts x                    eps_hat = (z - alpha x_hat) / sigma
    V     predicts alpha eps - sigma x    x_hat = alpha z - sigma v_hat
                                        eps_hat = sigma z + alpha v_hat

The squared errors differ by a function of logsnr alone,

    |x - x_hat|^2 = e^{log_x_error(logsnr)} |target - output|^2,

which lets `diffusion.losses` state every weight as w(logsnr) of eq. (2).

Source: VDM, section 2; v-prediction: Progressive Distillation (Salimans and
Ho 2022), Appendix D.
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion.gaussian import alpha, expand, sigma
from vdm_jax.shapes import LogSNR, Video


class Prediction(NamedTuple):
  """A pair with z = alpha x_hat + sigma eps_hat.

  Attributes:
    x_hat: estimate of the clean videos.
    eps_hat: estimate of the noise.
  """

  x_hat: Array
  eps_hat: Array


@runtime_checkable
class Parameterization(Protocol):
  """The meaning of a network's output."""

  def target(self, x: Video, eps: Video, logsnr: LogSNR) -> Video:
    """Returns what the network should output for this pair."""
    ...

  def predict(self, output: Video, z: Video, logsnr: LogSNR) -> Prediction:
    """Returns the estimates that a network output implies at `z`."""
    ...

  def log_x_error(self, logsnr: Array) -> Array:
    """Returns log of |x - x_hat|^2 / |target - output|^2."""
    ...


def eps_from_x(x_hat: Video, z: Video, logsnr: LogSNR) -> Video:
  """Returns eps_hat with z = alpha x_hat + sigma eps_hat."""
  logsnr = expand(logsnr, z)
  return (z - alpha(logsnr) * x_hat) / sigma(logsnr)


@dataclasses.dataclass(frozen=True)
class Eps:
  """The network predicts the noise."""

  def target(self, x: Video, eps: Video, logsnr: LogSNR) -> Video:
    """Returns eps."""
    del x, logsnr
    return eps

  def predict(self, output: Video, z: Video, logsnr: LogSNR) -> Prediction:
    """x_hat = (z - sigma eps_hat) / alpha, VDM section 2."""
    logsnr = expand(logsnr, z)
    return Prediction((z - sigma(logsnr) * output) / alpha(logsnr), output)

  def log_x_error(self, logsnr: Array) -> Array:
    """sigma^2 / alpha^2."""
    return -logsnr


@dataclasses.dataclass(frozen=True)
class X:
  """The network predicts the clean video."""

  def target(self, x: Video, eps: Video, logsnr: LogSNR) -> Video:
    """Returns x."""
    del eps, logsnr
    return x

  def predict(self, output: Video, z: Video, logsnr: LogSNR) -> Prediction:
    """eps_hat = (z - alpha x_hat) / sigma."""
    return Prediction(output, eps_from_x(output, z, logsnr))

  def log_x_error(self, logsnr: Array) -> Array:
    """One."""
    return jnp.zeros_like(logsnr)


@dataclasses.dataclass(frozen=True)
class V:
  """The network predicts v = alpha eps - sigma x."""

  def target(self, x: Video, eps: Video, logsnr: LogSNR) -> Video:
    """Returns alpha eps - sigma x."""
    logsnr = expand(logsnr, x)
    return alpha(logsnr) * eps - sigma(logsnr) * x

  def predict(self, output: Video, z: Video, logsnr: LogSNR) -> Prediction:
    """x_hat = alpha z - sigma v_hat, eps_hat = sigma z + alpha v_hat."""
    logsnr = expand(logsnr, z)
    a, s = alpha(logsnr), sigma(logsnr)
    return Prediction(a * z - s * output, s * z + a * output)

  def log_x_error(self, logsnr: Array) -> Array:
    """sigma^2."""
    return jax.nn.log_sigmoid(-logsnr)
