"""Laws of the diffusion process, checked in closed form or by Monte Carlo."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdm_jax.diffusion import gaussian, losses, noise, times
from vdm_jax.diffusion.parameterization import Eps, V, X, eps_from_x
from vdm_jax.diffusion.schedules import Cosine

LOGSNRS = st.floats(-15.0, 15.0)
PRIORS = [
  noise.Independent(),
  noise.Mixed(1.0),
  noise.Mixed(math.inf),
  noise.Progressive(2.0),
  noise.Progressive(0.0),
  noise.Progressive(math.inf),
  noise.BaseResidual(0.5),
  noise.BaseResidual(0.3, base_frame=0),
  noise.BaseResidual((0.1, 0.9, 0.5, 0.2, 0.0)),
]


def test_cosine_schedule_is_a_cosine_between_its_ends():
  schedule = Cosine(-20.0, 20.0)
  t = jnp.linspace(0.0, 1.0, 101)
  logsnr = np.asarray(schedule(t), np.float64)
  np.testing.assert_allclose(logsnr[[0, -1]], [20, -20], rtol=1e-6)
  assert np.all(np.diff(logsnr) < 0)
  # Its definition: the angle with tan(angle) = sigma / alpha is linear in t.
  angle = np.arctan(np.exp(-logsnr / 2))
  np.testing.assert_allclose(
    angle, np.linspace(angle[0], angle[-1], 101), atol=1e-6
  )


def test_cosine_schedule_is_symmetric_at_full_float32_precision():
  t = jnp.linspace(0.001, 0.499, 50)
  schedule = Cosine()
  np.testing.assert_allclose(schedule(t), -schedule(1 - t), rtol=2e-4)


def test_a_shift_makes_up_for_pixels_that_repeat():
  """The mean of n equal pixels is as noisy as one of the plain schedule."""
  t, n = jnp.array(0.6), 16
  shape = 4000, n, 1, 1, 1
  logsnr = jnp.full(4000, Cosine(shift=-math.log(n))(t))
  eps = jax.random.normal(jax.random.key(0), shape)
  z = gaussian.corrupt(jnp.ones(shape), eps, logsnr).mean(1)
  expected = jnp.exp(Cosine()(t))
  # The relative deviation of 4000 squares is sqrt(2 / 4000) = 0.022.
  np.testing.assert_allclose(z.mean() ** 2 / z.var(), expected, rtol=0.12)


def test_cosine_schedule_refuses_a_reversed_range():
  with pytest.raises(ValueError, match='logsnr_min must be the smaller'):
    Cosine(3.0, 3.0)


@settings(deadline=None)
@given(logsnr=st.floats(-30, 30))
def test_process_preserves_variance(logsnr):
  logsnr = jnp.float32(logsnr)
  total = gaussian.alpha(logsnr) ** 2 + gaussian.sigma(logsnr) ** 2
  np.testing.assert_allclose(total, 1.0, rtol=1e-6)
  ratio = 2 * (
    jnp.log(gaussian.alpha(logsnr)) - jnp.log(gaussian.sigma(logsnr))
  )
  np.testing.assert_allclose(ratio, logsnr, atol=1e-4)


@settings(deadline=None)
@given(logsnr_t=LOGSNRS, gap=st.floats(0.01, 15.0))
def test_forward_and_reverse_processes_have_one_joint(logsnr_t, gap):
  """Bayes: the joint of (z_s, z_t) given x is the same from both sides."""
  t, s = jnp.float32(logsnr_t), jnp.float32(logsnr_t + gap)
  one, zero = jnp.ones((1,) * 5), jnp.zeros((1,) * 5)

  def mean(z, x):
    m = gaussian.reverse_mean(z, x, logsnr_t=t, logsnr_s=s)
    return float(m.reshape(()))

  a_t, a_s = float(gaussian.alpha(t)), float(gaussian.alpha(s))
  s_t, s_s = float(gaussian.sigma(t)), float(gaussian.sigma(s))
  of_z, of_x = mean(one, zero), mean(zero, one)
  # E[z_s | x] and Var[z_s | x] by the laws of total mean and variance.
  np.testing.assert_allclose(of_z * a_t + of_x, a_s, rtol=1e-4)
  total = float(gaussian.reverse_variance(t, s)) + of_z**2 * s_t**2
  np.testing.assert_allclose(total, s_s**2, rtol=1e-4)
  # Cov[z_s, z_t | x], forward: (alpha_t / alpha_s) sigma_s^2.
  np.testing.assert_allclose(
    of_z * s_t**2, a_t / a_s * s_s**2, rtol=1e-4, atol=1e-12
  )
  # Var[z_t | x] from the forward step.
  forward = float(gaussian.forward_variance(t, s)) + (a_t / a_s) ** 2 * s_s**2
  np.testing.assert_allclose(forward, s_t**2, rtol=1e-4)


@pytest.mark.parametrize(
  'kind', [Eps(), X(), V()], ids=lambda k: type(k).__name__
)
@settings(deadline=None, max_examples=20)
@given(logsnr=st.floats(-8.0, 8.0))
def test_parameterization_round_trip(kind, logsnr):
  """A network that outputs the target implies exactly (x, eps)."""
  x, eps = jax.random.normal(jax.random.key(0), (2, 2, 3, 4, 4, 3))
  logsnr = jnp.array([logsnr, -logsnr], jnp.float32)
  z = gaussian.corrupt(x, eps, logsnr)
  x_hat, eps_hat = kind.predict(kind.target(x, eps, logsnr), z, logsnr)
  # Dividing by alpha or sigma at |logsnr| = 8 costs e^4 in precision.
  np.testing.assert_allclose(x_hat, x, atol=2e-4)
  np.testing.assert_allclose(eps_hat, eps, atol=2e-4)
  np.testing.assert_allclose(eps_from_x(x, z, logsnr), eps, atol=2e-4)


@pytest.mark.parametrize(
  'kind', [Eps(), X(), V()], ids=lambda k: type(k).__name__
)
@pytest.mark.parametrize('weight', sorted(losses.LOG_WEIGHTS))
def test_loss_is_the_weighted_error_of_x_hat(kind, weight):
  """Eq. (2), computed the direct way: w(logsnr) |x_hat - x|^2."""
  x, eps, output = jax.random.normal(jax.random.key(1), (3, 4, 2, 4, 4, 3))
  logsnr = jnp.array([-3.0, -0.5, 1.0, 4.0])
  log_weight = losses.LOG_WEIGHTS[weight]
  z = gaussian.corrupt(x, eps, logsnr)
  x_hat = kind.predict(output, z, logsnr).x_hat
  direct = jnp.square(x_hat - x).mean((2, 3, 4)) * jnp.exp(
    log_weight(logsnr)
  ).reshape(-1, 1)
  loss = losses.denoising_loss(
    output, x, eps, logsnr, parameterization=kind, log_weight=log_weight
  )
  np.testing.assert_allclose(loss, direct, rtol=1e-3)


def test_named_weights_are_what_their_names_say():
  logsnr = jnp.array([-2.0, 0.0, 3.0])
  snr = np.exp(np.asarray(logsnr))
  expected = {
    'x': np.ones(3),
    'eps': snr,
    'v': 1 + snr,
    'truncated': np.maximum(snr, 1),
    'min_snr': np.minimum(snr, 5),
    'bounded_v': (1 + snr) / (1 + snr / 20),
  }
  assert expected.keys() == losses.LOG_WEIGHTS.keys()
  for name, weight in expected.items():
    np.testing.assert_allclose(
      jnp.exp(losses.LOG_WEIGHTS[name](logsnr)), weight, rtol=1e-6
    )


def test_eps_loss_of_an_eps_network_is_its_plain_error():
  x, eps, output = jax.random.normal(jax.random.key(1), (3, 2, 2, 4, 4, 3))
  loss = losses.denoising_loss(
    output,
    x,
    eps,
    jnp.array([-20.0, 20.0]),
    parameterization=Eps(),
    log_weight=losses.LOG_WEIGHTS['eps'],
  )
  np.testing.assert_array_equal(loss, jnp.square(output - eps).mean((2, 3, 4)))


def test_low_discrepancy_times_are_even_and_uniform():
  draw = jax.jit(lambda key: times.low_discrepancy(key, 8))
  t = np.stack([draw(jax.random.key(i)) for i in range(400)])
  assert np.all((t >= 0) & (t < 1))
  # Each eighth of [0, 1) has exactly one time, up to the common offset.
  np.testing.assert_allclose(
    np.diff(np.sort(t, axis=1), axis=1), 1 / 8, atol=1e-6
  )
  # Each position is uniform on its own: mean 1/2, standard error 0.0144.
  np.testing.assert_allclose(t.mean(0), 0.5, atol=5 * 0.2887 / 20)


@pytest.mark.parametrize('prior', PRIORS, ids=repr)
def test_noise_has_the_covariance_it_claims(prior):
  shape = (64, 5, 16, 16, 3)
  eps = np.asarray(prior.sample(jax.random.key(0), shape), np.float64)
  assert eps.shape == shape
  frames = np.moveaxis(eps, 1, 0).reshape(5, -1)
  claimed = np.asarray(prior.covariance(5), np.float64)
  # Standard error of a covariance of 49152 draws is at most sqrt(2 / 49152).
  np.testing.assert_allclose(np.cov(frames), claimed, atol=5 * 0.0064)
  np.testing.assert_allclose(frames.mean(1), 0, atol=5 * 0.0045)
  np.testing.assert_array_equal(np.diag(claimed), 1)


def test_noise_is_independent_over_videos_pixels_and_channels():
  for prior in PRIORS:
    eps = np.asarray(prior.sample(jax.random.key(1), (2, 5, 64, 64, 3)))
    first = eps[0, 0].reshape(-1, 3)
    other_video = eps[1, 0].reshape(-1, 3)
    for a, b in [
      (first[:, 0], first[:, 1]),
      (first[:-1, 0], first[1:, 0]),
      (first[:, 0], other_video[:, 0]),
    ]:
      assert abs(np.corrcoef(a, b)[0, 1]) < 5 / 64, prior


@pytest.mark.parametrize('prior', PRIORS, ids=repr)
def test_parts_of_a_longer_video_have_the_noise_of_one(prior):
  """Drawn apart by one key; a place says which part, known late."""
  shape = (64, 5, 16, 16, 3)
  run = jax.jit(lambda at: prior.at(at).sample(jax.random.key(3), shape))
  first, second, third = (np.asarray(run(jnp.array(at))) for at in (0, 3, 8))
  error = 5 * 0.0064  # see above
  if isinstance(prior, noise.BaseResidual):
    whole = np.concatenate([first, third], 1)
    share = np.asarray(prior.shares(5))
    share = np.concatenate([share, share])  # each part has its base frame
    claimed = np.sqrt(share[:, None] * share)
    np.fill_diagonal(claimed, 1)
  else:
    np.testing.assert_allclose(first[:, 3:], second[:, :2], atol=1e-5)
    whole = np.concatenate([first, second[:, 2:], third], 1)
    claimed = prior.covariance(13)
  frames = np.moveaxis(whole, 1, 0).reshape(whole.shape[1], -1)
  np.testing.assert_allclose(np.cov(frames), claimed, atol=error)
  rows = whole.reshape(64, -1)[:2]
  assert abs(np.corrcoef(rows)[0, 1]) < 0.1  # videos are not the same


def test_correlations_follow_the_papers():
  """PYoCo eq. (3) and (4), VideoFusion eq. (7) and (11), by hand."""
  np.testing.assert_allclose(
    noise.Mixed(2.0).covariance(2), [[1, 0.8], [0.8, 1]], rtol=1e-6
  )
  keep = 2 / math.sqrt(5)
  np.testing.assert_allclose(
    noise.Progressive(2.0).covariance(3)[0], [1, keep, keep**2], rtol=1e-6
  )
  half = math.sqrt(0.5)
  np.testing.assert_allclose(
    noise.BaseResidual(0.5).covariance(4)[1], [half, 1, half, half], rtol=1e-6
  )
  # Frames are counted from 1: frame floor(16 / 2) is the eighth, index 7.
  assert float(noise.BaseResidual(0.5).shares(16)[7]) == 1.0


def test_noise_refuses_what_has_no_meaning():
  for prior in (noise.Mixed, noise.Progressive):
    with pytest.raises(ValueError, match='from 0 .* to infinity'):
      prior(-0.1)
    with pytest.raises(ValueError, match='nan'):
      prior(math.nan)
  with pytest.raises(ValueError, match=r'base_share=1\.5'):
    noise.BaseResidual(1.5)
  with pytest.raises(ValueError, match='outside a video of 4 frames'):
    noise.BaseResidual(0.5, base_frame=4).covariance(4)
  with pytest.raises(ValueError, match='3 entries for a video of 4'):
    noise.BaseResidual((0.5, 0.5, 0.5)).covariance(4)
