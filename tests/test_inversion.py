"""The way back to the noise, where it is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import exact_denoiser, exponential_covariance
from vdm_jax.diffusion.schedules import Cosine, Karras
from vdm_jax.samplers import DDIM, DEIS, Ancestral, Heun, Kutta, sample
from vdm_jax.samplers.inversion import invert

FRAMES = 4
MEAN = np.array([0.3, -0.2, 0.1, 0.4])
COVARIANCE = exponential_covariance(FRAMES)
SCHEDULE = Cosine(-12.0, 12.0)


def videos(count=2048):
  rng = np.random.default_rng(0)
  eps = rng.normal(size=(count, FRAMES)) @ np.linalg.cholesky(COVARIANCE).T
  return (MEAN + eps).astype(np.float32).reshape(1, count, FRAMES)


def as_batch(x):
  """[1, N, F] to [N, F, 1, 1, 1]."""
  return jnp.asarray(x[0]).reshape(-1, FRAMES, 1, 1, 1)


def inverted(sampler, num_steps, schedule=SCHEDULE):
  denoise = exact_denoiser(MEAN, COVARIANCE)
  return jax.jit(
    lambda x: invert(
      denoise, x, schedule=schedule, sampler=sampler, num_steps=num_steps
    )
  )(as_batch(videos()))


@pytest.mark.parametrize(
  ('sampler', 'steps'), [(DDIM(), 1000), (Heun(), 128), (Kutta(), 64)], ids=str
)
def test_the_noise_of_a_gaussian_video_is_its_whitened_form(sampler, steps):
  """The flow keeps the quantile of every principal component."""
  values, vectors = np.linalg.eigh(COVARIANCE)
  about = (videos()[0] - MEAN) @ vectors
  first, last = np.exp(-np.array([12.0, -12.0]))  # edm_sigma^2
  expected = about * np.sqrt((values + last) / (values + first))
  expected = (expected @ vectors.T + MEAN) / np.sqrt(1 + last)
  found = np.asarray(inverted(sampler, steps))[..., 0, 0, 0]
  np.testing.assert_allclose(found, expected, atol=0.02)
  # What was correlated by 0.9 is so no more: white noise, of 2048 draws.
  error = 4.5 * (2 / 2048) ** 0.5
  np.testing.assert_allclose(np.cov(found.T), np.eye(FRAMES), atol=error)


@pytest.mark.parametrize('schedule', [SCHEDULE, Karras(0.01, 80.0)], ids=str)
def test_sampling_from_it_gives_the_video_again(schedule):
  z = inverted(Heun(), 96, schedule)

  class Given:
    def sample(self, key, shape):
      return z

    def covariance(self, num_frames):
      return jnp.eye(num_frames)

    def at(self, place):
      raise AssertionError

  x = sample(
    jax.random.key(0),
    exact_denoiser(MEAN, COVARIANCE),
    z.shape,
    schedule=schedule,
    sampler=Heun(),
    num_steps=96,
    noise=Given(),
  )
  np.testing.assert_allclose(x, as_batch(videos()), atol=0.02)


@pytest.mark.parametrize('sampler', [Ancestral(), DEIS(2)], ids=str)
def test_methods_that_have_a_direction_are_refused(sampler):
  with pytest.raises(ValueError, match='cannot go back to the noise'):
    inverted(sampler, 4)
  with pytest.raises(ValueError, match='num_steps=0'):
    inverted(Heun(), 0)
