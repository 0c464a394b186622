"""The Langevin corrector of VDM's predictor-corrector sampler, eq. (5).

    z_s <- z_s - (delta / 2) sigma_s eps_hat(z_s) + sqrt(delta) sigma_s eps'

With noise of covariance K, eps_hat = -sigma K score(z): this is Langevin
dynamics of step size delta sigma_s^2, preconditioned by K, and eps' comes from
the same prior.  It moves z_s towards the marginal that the model gives it.

The paper uses one move after each ancestral step, delta = 0.1.
"""

import dataclasses
import math

from jax import Array

from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.diffusion.parameterization import eps_from_x
from vdm_jax.shapes import DenoiseFn


@dataclasses.dataclass(frozen=True)
class Langevin:
  """Moves z_s by one step of Langevin dynamics at its noise level.

  Attributes:
    step_size: VDM's delta, in (0, 4): from 4 on the moves diverge.
  """

  step_size: float = 0.1

  def __post_init__(self):
    if not 0 < self.step_size < 4:
      raise ValueError(
        f'step_size={self.step_size} is not allowed: give a number above 0 '
        'and below 4, where Langevin moves diverge.'
      )

  def __call__(
    self,
    key: Array,
    denoise: DenoiseFn,
    z: Array,
    *,
    logsnr: Array,
    noise: NoisePrior,
  ) -> Array:
    """Returns the moved z_s, eq. (5)."""
    eps_hat = eps_from_x(denoise(z, logsnr), z, logsnr)
    sigma = gaussian.sigma(logsnr)
    drift = 0.5 * self.step_size * sigma * eps_hat
    return (
      z - drift + math.sqrt(self.step_size) * sigma * noise.sample(key, z.shape)
    )
