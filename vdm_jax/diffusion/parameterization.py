"""What the network predicts, and the pair (x_hat, eps_hat) that it implies.

From z = alpha x + sigma eps (eq. (1)) any one of the three targets below gives
the other two:

    Eps   predicts eps                    x_hat = (z - sigma eps_hat) / alpha
    X     predicts x                    eps_hat = (z - alpha x_hat) / sigma
    V     predicts alpha eps - sigma x    x_hat = alpha z - sigma v_hat
                                        eps_hat = sigma z + alpha v_hat
    EDM   predicts (sigma x / d - d alpha eps) / n
                                   x_hat = (d^2 alpha z / n + d sigma F_hat) / n
                                   eps_hat = (sigma z / n - d alpha F_hat) / n

with n^2 = sigma^2 + d^2 alpha^2, the variance of z for data of deviation d.
The squared errors differ by a function of logsnr alone,

    |x - x_hat|^2 = e^{log_x_error(logsnr)} |target - output|^2,

which lets `diffusion.losses` state every weight as w(logsnr) of eq. (2).

Source: VDM, section 2; v-prediction: Progressive Distillation (Salimans and
Ho 2022), Appendix D; EDM: Karras et al. 2022, Table 1, and PYoCo, section 3.
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
  """The meaning of a network's output, and the scale of its input."""

  def network_input(self, z: Video, logsnr: LogSNR) -> Video:
    """Returns what the network is given of z; here, z."""
    del logsnr
    return z

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
class Eps(Parameterization):
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
class X(Parameterization):
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
class V(Parameterization):
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


@dataclasses.dataclass(frozen=True)
class EDM(Parameterization):
  """EDM's preconditioning, in log-SNR.

  With edm_sigma = sigma / alpha and z / alpha in place of z it is

      D = c_skip z_edm + c_out F(c_in z_edm)
      c_skip = d^2 / (edm_sigma^2 + d^2)
      c_out = edm_sigma d / sqrt(edm_sigma^2 + d^2)
      c_in = 1 / sqrt(edm_sigma^2 + d^2)

  so that F sees and predicts numbers of variance one.  F is told the noise
  level as every network here is; EDM's c_noise is -logsnr / 8.  For d = 1 it is
  V with the opposite sign.

  Attributes:
    sigma_data: d, the standard deviation of the data.
  """

  sigma_data: float = 0.5

  def __post_init__(self):
    if not self.sigma_data > 0:
      raise ValueError(
        f'sigma_data={self.sigma_data} is not allowed: give the standard '
        'deviation of the data, above 0.'
      )

  def _deviation(self, logsnr: Array) -> Array:
    """n, the standard deviation of z."""
    return jnp.sqrt(
      jnp.square(sigma(logsnr)) + jnp.square(self.sigma_data * alpha(logsnr))
    )

  def network_input(self, z: Video, logsnr: LogSNR) -> Video:
    """Returns c_in z_edm = z / n."""
    return z / self._deviation(expand(logsnr, z))

  def target(self, x: Video, eps: Video, logsnr: LogSNR) -> Video:
    """Returns (x - c_skip z_edm) / c_out."""
    logsnr = expand(logsnr, x)
    d = self.sigma_data
    difference = sigma(logsnr) / d * x - d * alpha(logsnr) * eps
    return difference / self._deviation(logsnr)

  def predict(self, output: Video, z: Video, logsnr: LogSNR) -> Prediction:
    """x_hat = c_skip z_edm + c_out F."""
    level = expand(logsnr, z)
    d, n = self.sigma_data, self._deviation(level)
    x_hat = (d**2 * alpha(level) / n * z + d * sigma(level) * output) / n
    eps_hat = (sigma(level) * z / n - d * alpha(level) * output) / n
    return Prediction(x_hat, eps_hat)

  def log_x_error(self, logsnr: Array) -> Array:
    """c_out^2."""
    noise = jax.nn.log_sigmoid(-logsnr)
    return noise + 2 * jnp.log(self.sigma_data / self._deviation(logsnr))
