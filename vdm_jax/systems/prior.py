"""The diffusion prior: from captions or classes to visual embeddings.

An embedding is a video of one pixel with D channels, so that the schedule, the
loss and the samplers of videos serve it too.  The network predicts the clean
embedding, and the loss is its squared error (Ramesh et al. 2022, eq. (2)).

Source: VideoFusion, section 4.1.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vdm_jax import samplers
from vdm_jax.diffusion import gaussian, times
from vdm_jax.diffusion.schedules import Cosine, Schedule
from vdm_jax.samplers import conditional
from vdm_jax.samplers.guidance import classifier_free_together
from vdm_jax.shapes import DenoiseFn
from vdm_jax.systems import conditioning
from vdm_jax.systems.protocol import Batch, Cond, Params


@dataclasses.dataclass(frozen=True)
class EmbeddingPrior:
  """A diffusion model of vectors.

  Attributes:
    network: (z [B, 1, 1, 1, D], logsnr [B], **cond) -> x_hat, e.g. `Prior`.
    schedule: t -> logsnr.
    num_steps: steps of its sampler, DDIM.
    guidance_scale: classifier-free guidance; 1 is none.
  """

  network: nn.Module
  schedule: Schedule = Cosine(logsnr_min=-10.0, logsnr_max=10.0)
  num_steps: int = 32
  guidance_scale: float = 1.0

  @property
  def conditions(self) -> list[str]:
    """Names of what the network is conditioned on."""
    return conditioning.names([self.network])

  def init(self, key: Array, dim: int) -> Params:
    """Returns fresh parameters for vectors of `dim` numbers."""
    z = jnp.zeros((1, 1, 1, 1, dim))
    return self.network.init(key, z, jnp.zeros(1))['params']

  def draw(self, key: Array, vectors: Array) -> Batch:
    """Adds 'prior_logsnr' [B] and 'prior_eps' to 'prior_x', [B, D] each."""
    time_key, noise_key = jax.random.split(key)
    level = times.low_discrepancy(time_key, len(vectors))
    return {
      'prior_x': vectors,
      'prior_logsnr': self.schedule(level),
      'prior_eps': jax.random.normal(noise_key, vectors.shape),
    }

  def loss(self, params: Params, drawn: Batch) -> Array:
    """Returns the mean squared error; unknown vectors, zeros, do not count."""
    x, eps = (
      drawn[name][:, None, None, None] for name in ('prior_x', 'prior_eps')
    )
    logsnr = drawn['prior_logsnr']
    z = gaussian.corrupt(x, eps, logsnr)
    x_hat: Any = self.network.apply(
      {'params': params}, z, logsnr, **self._taken(drawn)
    )
    error = jnp.square(x_hat - x).mean((1, 2, 3, 4))
    known = (drawn['prior_x'] != 0).any(-1)
    return jnp.sum(error * known) / jnp.maximum(known.sum(), 1)

  def _taken(self, cond: Cond) -> dict[str, Any]:
    return {k: cond[k] for k in self.conditions if k in cond}

  def denoiser(self, params: Params, cond: Cond) -> DenoiseFn:
    """Returns (z [B, 1, 1, 1, D], logsnr) -> x_hat."""
    cond = self._taken(cond)
    guided = self.guidance_scale != 1.0 and bool(cond)
    if guided:
      num_classes = conditioning.most([self.network], 'num_classes')
      cond = conditioning.with_nothing(cond, num_classes)

    def denoise(z, logsnr):
      logsnr = jnp.broadcast_to(logsnr, z.shape[:1])
      given: Any = cond
      x_hat: Any = self.network.apply({'params': params}, z, logsnr, **given)
      return x_hat

    if not guided:
      return denoise
    return classifier_free_together(denoise, self.guidance_scale)

  def sample(
    self,
    params: Params,
    key: Array,
    shape: tuple[int, int],
    cond: Cond,
    known: ArrayLike | None = None,
  ) -> Array:
    """Returns vectors of `shape` [B, D] that begin with `known` [B, D']."""
    given = jnp.zeros((shape[0], 0)) if known is None else jnp.asarray(known)
    size = given.shape[1]
    observed = jnp.pad(given, [(0, 0), (0, shape[1] - size)])
    drawn = conditional.sample_given(
      key,
      self.denoiser(params, cond),
      observed[:, None, None, None],
      (jnp.arange(shape[1]) < size).reshape(1, 1, 1, 1, -1),
      schedule=self.schedule,
      sampler=samplers.DDIM(),
      num_steps=self.num_steps,
      method='reconstruction' if size else 'replacement',
    )
    return drawn[:, 0, 0, 0]


def unit(vectors: Array) -> Array:
  """Gives vectors [B, D] the length sqrt(D) that embeddings have."""
  power = jnp.square(vectors).mean(-1, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.maximum(power, 1e-12))
