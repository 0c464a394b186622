"""Samplers against videos whose distribution is known exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import (
  exact_denoiser,
  exponential_covariance,
  moments,
)
from vdm_jax.diffusion import noise
from vdm_jax.diffusion.schedules import Cosine
from vdm_jax.samplers import (
  DDIM,
  DEIS,
  Ancestral,
  Churn,
  Heun,
  Kutta,
  Langevin,
  guidance,
  sample,
)

FRAMES = 4
MEAN = np.array([0.3, -0.2, 0.1, 0.4])
COVARIANCE = exponential_covariance(FRAMES)
SHAPE = (8, FRAMES, 32, 32, 1)  # 8192 draws of each frame
# Standard errors of a mean and of an entry of the covariance, variance 1/4.
MEAN_ERROR = 0.5 / 8192**0.5
COVARIANCE_ERROR = 2**0.5 * 0.25 / 8192**0.5


def draw(sampler, num_steps, prior=noise.Independent(), key=0, shape=SHAPE):
  denoise = exact_denoiser(MEAN, COVARIANCE, prior.covariance(FRAMES))
  return jax.jit(
    lambda key: sample(
      key,
      denoise,
      shape,
      schedule=Cosine(),
      sampler=sampler,
      num_steps=num_steps,
      noise=prior,
    )
  )(jax.random.key(key))


@pytest.mark.parametrize(
  'prior',
  [noise.Independent(), noise.Mixed(1.0), noise.Progressive(1.0)],
  ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize(
  'sampler',
  [
    Ancestral(0.0),
    Ancestral(0.3),
    DDIM(),
    Heun(),
    DEIS(2),
    DEIS(3),
    Kutta(),
    Churn(Kutta(), 0.2),
  ],
  ids=str,
)
def test_samples_have_the_true_mean_and_covariance(sampler, prior):
  """At 128 steps the discretization error is below the Monte Carlo error.

  Ancestral steps of wrong variance, or noise that ignores the prior, miss the
  covariance by tens of standard errors.
  """
  mean, covariance = moments(draw(sampler, 128, prior))
  np.testing.assert_allclose(mean, MEAN, atol=4 * MEAN_ERROR)
  # Beside the Monte Carlo error, 3 % of the variance for the finite steps.
  np.testing.assert_allclose(
    covariance, COVARIANCE, atol=4 * COVARIANCE_ERROR + 0.03 * 0.25
  )


def flow_errors(sampler, counts):
  """Error of z along the probability flow of N(0, 1/4), float64.

  With one frame, every deterministic sampler multiplies z_1 by a number: no
  Monte Carlo error.  The flow keeps z in its quantile, so that number is the
  ratio of the standard deviations of z, up to the last denoising.
  """
  with jax.enable_x64(True):
    # Steps of equal log SNR.  They start where eps_hat hardly changes, or the
    # first steps of a multistep method, of lower order, would show; they end
    # midway, since over the whole flow errors of order 3 cancel.
    schedule = lambda t: 1.0 - 21.0 * t  # noqa: E731
    denoise = exact_denoiser([0.0], [[0.25]], dtype=jnp.float64)
    key, shape = jax.random.key(0), (1, 1, 8, 8, 1)
    z = noise.Independent().sample(jax.random.split(key)[0], shape)
    errors = []
    for count in counts:
      x = sample(
        key,
        denoise,
        shape,
        schedule=schedule,
        sampler=sampler,
        num_steps=count,
      )
      gain = float((x * z).sum() / (z * z).sum())
      np.testing.assert_allclose(x, gain * z, atol=1e-5)
      first, last = schedule(1.0), schedule(1.0 / count)
      a, s = 1 / (1 + np.exp(np.array([-last, last])))
      std = np.sqrt(0.25 * a + s)
      std_first = np.sqrt(0.25 / (1 + np.exp(-first)) + 1 / (1 + np.exp(first)))
      expected = 0.25 * np.sqrt(a) / std**2 * std / std_first
      errors.append(abs(gain - expected))
  return np.array(errors)


@pytest.mark.parametrize(
  ('sampler', 'order'),
  [
    (DDIM(), 1),
    (DEIS(1), 1),
    (Heun(), 2),
    (DEIS(2), 2),
    (DEIS(3), 3),
    (Kutta(), 3),
  ],
  ids=str,
)
def test_a_deterministic_sampler_converges_at_its_order(sampler, order):
  errors = flow_errors(sampler, [128, 256, 512])
  orders = np.log2(errors[:-1] / errors[1:])
  np.testing.assert_allclose(orders, order, atol=0.15)


def ancestral_variance(num_steps, mix):
  """Variance of ancestral samples of N(0, 1/4) by exact recursion, float64.

  z_s = A z_t + std eps with A from eq. (3) and the linear denoiser; written
  from the paper's equation with numpy, apart from the code under test.
  """
  logsnr = np.asarray(
    Cosine(-12.0, 12.0)(jnp.linspace(1.0, 0.0, num_steps + 1)), np.float64
  )
  variance = 1.0
  for t, s in itertools.pairwise(logsnr):
    a_t, a_s = (1 / np.sqrt(1 + np.exp(-v)) for v in (t, s))
    v_t, v_s = 1 / (1 + np.exp(t)), 1 / (1 + np.exp(s))
    gain = 0.25 * a_t / (0.25 * a_t**2 + v_t)
    x_variance = gain**2 * variance
    ratio = np.exp(t - s)
    step = ratio * a_s / a_t + (1 - ratio) * a_s * gain
    low, high = (1 - ratio) * v_s, (1 - ratio) * v_t
    variance = step**2 * variance + low ** (1 - mix) * high**mix
  return x_variance


@pytest.mark.parametrize('mix', [0.0, 0.3, 1.0])
def test_ancestral_variance_follows_its_exact_recursion(mix):
  x = jax.jit(
    lambda key: sample(
      key,
      exact_denoiser([0.0], [[0.25]]),
      (64, 1, 32, 32, 1),
      schedule=Cosine(-12.0, 12.0),
      sampler=Ancestral(mix),
      num_steps=16,
    )
  )(jax.random.key(0))
  expected = ancestral_variance(16, mix)
  # 65536 draws: relative standard error of a variance sqrt(2 / 65536).
  np.testing.assert_allclose(np.var(x), expected, rtol=4 * 0.0055)


@pytest.mark.parametrize('mix', [0.0, 0.3])
def test_ancestral_error_falls_at_first_order(mix):
  """The recursion above, which the samples follow, approaches 1/4."""
  errors = [abs(ancestral_variance(n, mix) - 0.25) for n in (64, 128, 256, 512)]
  orders = np.log2(np.array(errors[:-1]) / errors[1:])
  np.testing.assert_allclose(orders, 1.0, atol=0.2)


def test_deis_of_order_1_is_ddim():
  a, b = (draw(s, 8, shape=(1, 4, 4, 4, 1)) for s in (DEIS(1), DDIM()))
  np.testing.assert_allclose(a, b, atol=1e-6)


def test_deis_refuses_other_orders():
  with pytest.raises(ValueError, match='order=4 is not allowed: give 1, 2 or'):
    DEIS(4)


def test_sampling_is_deterministic_in_the_key():
  a, b, c = (
    draw(Ancestral(0.1), 8, key=k, shape=(1, 4, 4, 4, 1)) for k in (0, 0, 1)
  )
  np.testing.assert_array_equal(a, b)
  assert np.abs(np.asarray(a) - np.asarray(c)).max() > 0.1


def test_progress_reports_every_step_once():
  seen = []
  x = sample(
    jax.random.key(0),
    exact_denoiser([0.0], [[1.0]]),
    (1, 1, 2, 2, 1),
    schedule=Cosine(),
    sampler=DDIM(),
    num_steps=5,
    progress=lambda step: seen.append(int(step)),
  )
  jax.block_until_ready(x)
  jax.effects_barrier()
  assert sorted(seen) == [1, 2, 3, 4, 5]


def test_corrector_that_only_draws_from_the_marginal_keeps_it():
  """A corrector's moves are kept: here each replaces z_s by a fresh draw."""
  denoise = exact_denoiser([0.0], [[0.25]])

  def redraw(key, denoise, z, *, logsnr, noise):
    del denoise
    a2, s2 = jax.nn.sigmoid(logsnr), jax.nn.sigmoid(-logsnr)
    return jnp.sqrt(0.25 * a2 + s2) * noise.sample(key, z.shape)

  x = sample(
    jax.random.key(0),
    denoise,
    (64, 1, 16, 16, 1),
    schedule=Cosine(),
    sampler=DDIM(),
    num_steps=4,
    corrector=redraw,
  )
  # x_hat at the last t = 1/4 of a fresh draw: variance gain^2 Var[z].
  logsnr = Cosine()(jnp.array(0.25))
  a2, s2 = jax.nn.sigmoid(logsnr), jax.nn.sigmoid(-logsnr)
  expected = (0.25**2 * a2) / (0.25 * a2 + s2)
  np.testing.assert_allclose(np.var(x), expected, rtol=4 * (2 / 16384) ** 0.5)


def langevin_chain(prior, start, logsnr, num_moves, step_size):
  """Covariances over frames along a chain of moves at one noise level."""
  denoise = exact_denoiser(
    np.zeros(FRAMES), COVARIANCE, prior.covariance(FRAMES)
  )
  move = jax.jit(
    functools.partial(
      Langevin(step_size), denoise=denoise, logsnr=logsnr, noise=prior
    )
  )
  z, seen = start, []
  for i in range(num_moves):
    z = move(jax.random.fold_in(jax.random.key(7), i), z=z)
    seen.append(moments(z)[1])
  return seen


@pytest.mark.parametrize('prior', [noise.Independent(), noise.Mixed(1.0)])
def test_langevin_follows_eq_5_from_any_start(prior):
  """Each move is linear here: z <- A z + sqrt(delta) sigma eps', in float64.

  Its covariance is A C A^T + delta sigma^2 K from any C, and its fixed point
  is the marginal alpha^2 Cov[x] + sigma^2 K up to O(delta).
  """
  logsnr, delta = jnp.array(0.5), 0.5
  a2, s2 = (float(jax.nn.sigmoid(v)) for v in (logsnr, -logsnr))
  k = np.asarray(prior.covariance(FRAMES), np.float64)
  marginal = a2 * COVARIANCE + s2 * k
  # eps_hat = sigma K marginal^{-1} z, the conditional mean of eps.
  gain = np.eye(FRAMES) - 0.5 * delta * s2 * k @ np.linalg.inv(marginal)
  start = 2.0 * jax.random.normal(jax.random.key(9), SHAPE)
  expected = moments(start)[1]
  seen = langevin_chain(prior, start, logsnr, 24, delta)
  for covariance in seen:
    expected = gain @ expected @ gain.T + delta * s2 * k
    # Sums over frames of entries with standard error variance sqrt(2 / n).
    error = 4 * (2 / 8192) ** 0.5 * expected.diagonal().max()
    np.testing.assert_allclose(covariance, expected, atol=error)
  assert np.abs(seen[0] - marginal).max() > 1.0
  np.testing.assert_allclose(expected, marginal, atol=0.1)


def test_langevin_repairs_the_variance_of_few_steps():
  """Predictor-corrector is nearer to the true variance than the predictor."""

  def variance(corrector):
    x = sample(
      jax.random.key(0),
      exact_denoiser([0.0], [[0.25]]),
      (64, 1, 32, 32, 1),
      schedule=Cosine(-12.0, 12.0),
      sampler=Ancestral(0.0),
      num_steps=16,
      corrector=corrector,
    )
    return float(np.var(x))

  without, corrected = variance(None), variance(Langevin(0.5))
  error = 4 * 0.25 * (2 / 65536) ** 0.5
  assert without < 0.25 - 2 * error
  assert without + error < corrected < 0.25


@pytest.mark.parametrize('step_size', [0.0, 4.0, float('nan')])
def test_langevin_refuses_steps_that_stand_still_or_diverge(step_size):
  with pytest.raises(ValueError, match='above 0 and below 4'):
    Langevin(step_size)


def test_guidance_is_eq_6_in_x_space():
  """(1 + w) eps_cond - w eps_uncond, computed from eps as in the paper."""
  from vdm_jax.diffusion.gaussian import alpha, sigma
  from vdm_jax.diffusion.parameterization import eps_from_x

  z = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 3))
  logsnr = jnp.array(0.7)
  cond = exact_denoiser([0.5] * 3, np.eye(3) * 0.3)
  uncond = exact_denoiser([0.0] * 3, np.eye(3))
  w = 1.5
  eps = (1 + w) * eps_from_x(cond(z, logsnr), z, logsnr)
  eps = eps - w * eps_from_x(uncond(z, logsnr), z, logsnr)
  expected = (z - sigma(logsnr) * eps) / alpha(logsnr)
  guided = guidance.classifier_free(cond, uncond, scale=1 + w)
  np.testing.assert_allclose(guided(z, logsnr), expected, atol=1e-5)
  unguided = guidance.classifier_free(cond, uncond, scale=1.0)
  np.testing.assert_allclose(
    unguided(z, logsnr), cond(z, logsnr), rtol=1e-5, atol=1e-6
  )


def test_clip_keeps_the_range():
  wild = guidance.clip(lambda z, logsnr: 100 * z)
  z = jnp.linspace(-1, 1, 9).reshape(1, 1, 3, 3, 1)
  clipped = wild(z, jnp.zeros(()))
  np.testing.assert_array_equal(clipped, jnp.sign(z))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'num_steps': 0}, 'num_steps=0; give at least 1'),
    ({'shape': (1, 4, 4, 3)}, 'five sizes'),
  ],
)
def test_sample_refuses_bad_arguments(change, message):
  arguments = {'shape': (1, 1, 2, 2, 1), 'num_steps': 2} | change
  with pytest.raises(ValueError, match=message):
    sample(
      jax.random.key(0),
      exact_denoiser([0.0], [[1.0]]),
      schedule=Cosine(),
      sampler=DDIM(),
      **arguments,
    )


def test_ancestral_refuses_a_mix_outside_its_range():
  with pytest.raises(ValueError, match=r'variance_mix=1\.2'):
    Ancestral(1.2)
