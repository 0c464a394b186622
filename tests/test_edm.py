"""EDM in log-SNR, against the paper's own coordinates and diffusers.

x_edm = x + edm_sigma eps = z / alpha, edm_sigma = exp(-logsnr / 2).
"""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import exact_denoiser
from vdm_jax.config import ConfigError
from vdm_jax.diffusion import gaussian, losses
from vdm_jax.diffusion.noise import Independent
from vdm_jax.diffusion.parameterization import EDM, V
from vdm_jax.diffusion.schedules import Cosine, Karras, LogNormal, levels
from vdm_jax.samplers import (
  DDIM,
  DEIS,
  Churn,
  Heun,
  Kutta,
  guidance,
  sample,
)
from vdm_jax.systems.registry import build_sampler
from vdm_jax.systems.super_resolution import SuperResolution
from vdm_jax.systems.vdm import VDM

SHAPE = (2, 3, 4, 4, 3)
SIGMAS = [0.002, 0.05, 0.5, 3.0, 80.0]
DATA = 0.5


def draw(seed, shape=SHAPE):
  return np.random.default_rng(seed).normal(size=shape)


def rows(edm_sigma):
  """The log SNR of two videos."""
  return jnp.full(SHAPE[0], -2 * math.log(edm_sigma))


def network(x, c_noise):
  """Any F(input, c_noise)."""
  return np.tanh(1.3 * x + c_noise) + 0.2 * x


# --- the denoiser -------------------------------------------------------------


@pytest.mark.parametrize('edm_sigma', SIGMAS)
def test_x_hat_is_the_papers_denoiser_for_the_same_network(edm_sigma):
  """PYoCo, section 3: D(x; sigma) of F(x / sigma*, ln(sigma) / 4)."""
  x_edm = 0.5 * draw(0) + edm_sigma * draw(1)
  star = math.hypot(edm_sigma, DATA)
  expected = (DATA / star) ** 2 * x_edm
  expected += (
    edm_sigma * DATA / star * network(x_edm / star, math.log(edm_sigma) / 4)
  )
  logsnr = rows(edm_sigma)
  z = jnp.asarray(x_edm, jnp.float32) / math.hypot(1, edm_sigma)
  edm = EDM(DATA)
  output = network(edm.network_input(z, logsnr), -np.asarray(logsnr)[0] / 8)
  found = edm.predict(jnp.asarray(output), z, logsnr)
  np.testing.assert_allclose(found.x_hat, expected, rtol=1e-4, atol=1e-5)
  both = gaussian.corrupt(found.x_hat, found.eps_hat, logsnr)
  np.testing.assert_allclose(both, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('edm_sigma', SIGMAS)
def test_the_target_gives_back_the_pair(edm_sigma):
  x, eps = (jnp.asarray(draw(i), jnp.float32) for i in (0, 1))
  logsnr, edm = rows(edm_sigma), EDM(0.3)
  z = gaussian.corrupt(x, eps, logsnr)
  found = edm.predict(edm.target(x, eps, logsnr), z, logsnr)
  np.testing.assert_allclose(found.x_hat, x, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(found.eps_hat, eps, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('edm_sigma', SIGMAS)
def test_the_network_sees_and_predicts_numbers_of_variance_one(edm_sigma):
  shape = (2, 3, 64, 64, 3)
  x, eps = DATA * draw(0, shape), draw(1, shape)
  x, eps = (jnp.asarray(a, jnp.float32) for a in (x, eps))
  logsnr, edm = rows(edm_sigma), EDM(DATA)
  z = gaussian.corrupt(x, eps, logsnr)
  for values in (edm.network_input(z, logsnr), edm.target(x, eps, logsnr)):
    # 73728 numbers: a standard error of 0.005
    np.testing.assert_allclose(np.var(values), 1.0, atol=0.02)


def test_for_data_of_variance_one_it_is_v_with_the_opposite_sign():
  x, eps = (jnp.asarray(draw(i), jnp.float32) for i in (0, 1))
  logsnr = jnp.array([1.3, -4.0])
  np.testing.assert_allclose(
    EDM(1.0).target(x, eps, logsnr), -V().target(x, eps, logsnr), atol=1e-5
  )


@pytest.mark.parametrize('data', [0.5, 0.3])
@pytest.mark.parametrize('edm_sigma', SIGMAS)
def test_the_loss_is_eq_1_of_pyoco(edm_sigma, data):
  """lambda(sigma) |D - x|^2, lambda = (sigma^2 + d^2) / (sigma d)^2."""
  x, eps = (jnp.asarray(draw(i), jnp.float32) for i in (0, 1))
  logsnr, edm = rows(edm_sigma), EDM(data)
  z = gaussian.corrupt(x, eps, logsnr)
  output = jnp.asarray(draw(2), jnp.float32)
  found = losses.denoising_loss(
    output,
    x,
    eps,
    logsnr,
    parameterization=edm,
    log_weight=losses.log_weight('output', edm),
  )
  x_hat = edm.predict(output, z, logsnr).x_hat
  weight = (edm_sigma**2 + data**2) / (edm_sigma * data) ** 2
  expected = weight * np.square(x_hat - x).mean((2, 3, 4))
  # x_hat - x is a small difference near the data: float32 keeps 3 digits.
  np.testing.assert_allclose(found, expected, rtol=2e-3)


class Echo(nn.Module):
  """Predicts the last three channels of what it sees."""

  @nn.compact
  def __call__(self, z, logsnr, **given):
    return z[..., -3:]


def test_systems_scale_what_networks_see_of_z_and_nothing_else():
  edm, logsnr = EDM(DATA), rows(3.0)
  z = jnp.asarray(draw(0), jnp.float32)
  low = jnp.asarray(draw(1, (2, 3, 2, 2, 3)), jnp.float32)
  x_hat = VDM(Echo(), parameterization=edm).denoise({}, {})(z, logsnr)
  expected = edm.predict(edm.network_input(z, logsnr), z, logsnr).x_hat
  np.testing.assert_allclose(x_hat, expected, rtol=1e-5)
  finer = SuperResolution(Echo(), parameterization=edm)
  given = {'low': low, 'low_logsnr': logsnr}
  x_hat = finer.denoise({}, given)(z, logsnr)
  larger = jax.image.resize(low, SHAPE, 'bilinear')
  expected = edm.predict(larger, z, logsnr).x_hat
  np.testing.assert_allclose(x_hat, expected, rtol=1e-5)


def test_training_and_sampling_go_by_their_own_schedules():
  system = VDM(
    Echo(),
    parameterization=EDM(DATA),
    loss_weight='output',
    schedule=LogNormal(-1.0, 0.5),
    sample_schedule=Karras(0.1, 10.0),
    cond_dropout=0.0,
  )
  video = jnp.zeros((64, 1, 2, 2, 3))
  drawn = system.draw(jax.random.key(0), {'video': video})
  log_sigma = -0.5 * np.asarray(drawn['logsnr'])
  np.testing.assert_allclose(log_sigma.mean(), -1.0, atol=0.05)
  key, how = jax.random.key(1), {'sampler': Heun(), 'num_steps': 3}
  found = system.sample({}, key, SHAPE, **how)
  clipped = guidance.clip(system.denoise({}, {}))
  expected = sample(key, clipped, SHAPE, schedule=Karras(0.1, 10.0), **how)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  mask = jnp.zeros((1, 3, 1, 1, 1))
  again = system.sample_given({}, key, found, mask, weight=0.0, **how)
  np.testing.assert_allclose(again, expected, atol=1e-5)


# --- noise levels -------------------------------------------------------------


def test_training_levels_are_log_normal():
  """Quantiles of ln sigma, for any batch spread evenly over t."""
  t = (jnp.arange(10_000) + 0.5) / 10_000
  log_sigma = -0.5 * np.asarray(LogNormal(-1.2, 1.2)(t))
  np.testing.assert_allclose(log_sigma.mean(), -1.2, atol=1e-3)
  np.testing.assert_allclose(log_sigma.std(), 1.2, rtol=1e-3)
  below = np.mean(log_sigma < -1.2 - 1.2 * 1.959964)
  np.testing.assert_allclose(below, 0.025, atol=1e-4)
  ends = LogNormal()(jnp.array([0.0, 1.0]))
  assert np.isfinite(ends).all()
  assert ends[0] > 10 > -5 > ends[1]


def test_sampling_levels_are_eq_5_of_edm():
  count, rho = 18, 7
  i = np.arange(count)
  expected = (
    80 ** (1 / rho) + i / (count - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))
  ) ** rho
  found = np.exp(-0.5 * np.asarray(levels(Karras(), count)))
  np.testing.assert_allclose(found[:-1], expected, rtol=1e-4)
  assert len(found) == count + 1
  assert 0 < found[-1] < 0.002  # stands for 0, and nothing is seen of it
  plain = levels(Cosine(), count)
  np.testing.assert_allclose(plain, Cosine()(jnp.linspace(1, 0, count + 1)))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: Karras(1.0, 0.5), 'edm_sigma_min the smaller one'),
    (lambda: Karras(rho=0.0), 'rho=0'),
    (lambda: LogNormal(std=0.0), 'std=0'),
    (lambda: EDM(0.0), 'sigma_data=0'),
    (lambda: Churn(Heun(), -0.1), r'churn=-0\.1'),
    (lambda: Churn(Heun(), 0.5), 'from 0 to 0.414'),
    (lambda: Churn(DEIS(2), 0.1), 'remembers earlier steps'),
  ],
)
def test_what_makes_no_sense_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_config_makes_any_sampler_stochastic():
  made = build_sampler({'name': 'kutta', 'churn': 0.2, 'lowest': 0.05})
  assert made == Churn(Kutta(), 0.2, 0.05)
  assert build_sampler({'name': 'deis', 'order': 1, 'churn': 0.1}) == Churn(
    DEIS(1), 0.1
  )
  with pytest.raises(ConfigError, match="of Heun. Did you mean 'churn'"):
    build_sampler({'name': 'heun', 'chrun': 0.2})


# --- whole trajectories -------------------------------------------------------


class Same:
  """Noise that is always the same, so that two samplers can be compared."""

  def sample(self, key, shape):
    del key
    return jnp.asarray(draw(7, shape))

  def covariance(self, num_frames):
    return jnp.eye(num_frames)

  def at(self, place):
    raise AssertionError


def denoiser_pair():
  """A nonlinear denoiser of two peaks, in float64, in both coordinates."""

  def edm(x, edm_sigma):
    spread = edm_sigma**2 + 0.04
    return 0.04 / spread * x + edm_sigma**2 / spread * 0.7 * np.tanh(
      0.7 * np.asarray(x) / spread
    )

  def ours(z, logsnr):
    a, s2 = gaussian.alpha(logsnr), jnp.exp(-logsnr)
    x, spread = z / a, s2 + 0.04
    return 0.04 / spread * x + s2 / spread * 0.7 * jnp.tanh(0.7 * x / spread)

  return edm, ours


def edm_algorithm_2(denoise, x, sigmas, eps, *, gamma, low, high, inflation):
  """Karras et al. 2022, Algorithm 2, line by line, numpy."""
  for i, (t, following) in enumerate(itertools.pairwise(sigmas)):
    g = gamma if low <= t <= high else 0.0
    t_hat = t + g * t
    x_hat = x + np.sqrt(t_hat**2 - t**2) * inflation * eps
    d = (x_hat - denoise(x_hat, t_hat)) / t_hat
    x = x_hat + (following - t_hat) * d
    if i + 2 < len(sigmas):
      d_next = (x - denoise(x, following)) / following
      x = x_hat + (following - t_hat) * (0.5 * d + 0.5 * d_next)
  return x


def test_churned_heun_is_algorithm_2_of_edm():
  edm, ours = denoiser_pair()
  with jax.enable_x64(True):
    found = sample(
      jax.random.key(0),
      ours,
      SHAPE,
      schedule=Karras(),
      sampler=Churn(Heun(), 0.3, lowest=0.05, highest=50.0, inflation=1.007),
      num_steps=18,
      noise=Same(),
    )
    sigmas = np.exp(-0.5 * np.asarray(levels(Karras(), 18)))
    sigmas[-1] = 0
    eps = draw(7)
    expected = edm_algorithm_2(
      edm,
      np.hypot(1, 80) * eps,  # z of variance one, in EDM's coordinate
      sigmas,
      eps,
      gamma=0.3,
      low=0.05,
      high=50.0,
      inflation=1.007,
    )
  assert np.std(expected) > 0.3
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def steps_of(sampler, denoise, z, logsnrs):
  """z after each step, float64."""
  memory, seen = sampler.init(z), []
  for t, s in itertools.pairwise(logsnrs):
    z, _, memory = sampler.step(
      jax.random.key(0),
      denoise,
      z,
      memory,
      logsnr_t=jnp.asarray(t),
      logsnr_s=jnp.asarray(s),
      noise=Independent(),
    )
    seen.append(np.asarray(z))
  return seen


def test_kuttas_steps_are_those_of_its_table():
  """dy / d sigma = (y - D) / sigma in EDM's coordinate, numpy."""
  edm, ours = denoiser_pair()
  with jax.enable_x64(True):
    logsnrs = np.asarray(levels(Karras(), 12))[:-1]
    z = jnp.asarray(draw(3))
    found = steps_of(Kutta(), ours, z, logsnrs)
  y, sigmas = draw(3) * np.hypot(1, 80), np.exp(-0.5 * logsnrs)

  def slope(y, sigma):
    return (y - edm(y, sigma)) / sigma

  for i, (t, s) in enumerate(itertools.pairwise(sigmas)):
    h = s - t
    k_1 = slope(y, t)
    k_2 = slope(y + h / 2 * k_1, t + h / 2)
    k_3 = slope(y + h * (2 * k_2 - k_1), s)
    y = y + h / 6 * (k_1 + 4 * k_2 + k_3)
    np.testing.assert_allclose(
      found[i] * np.hypot(1, s), y, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize('sampler', [Heun(), Kutta()], ids=str)
def test_churn_leaves_the_distribution_as_it_is(sampler):
  """x ~ N(0, 1/4): with 64 steps the variance is right, whatever the churn."""
  x = jax.jit(
    lambda key: sample(
      key,
      exact_denoiser([0.0], [[0.25]]),
      (16, 1, 32, 32, 1),
      schedule=Cosine(-12.0, 12.0),
      sampler=Churn(sampler, 0.3),
      num_steps=64,
    )
  )(jax.random.key(0))
  error = 4 * (2 / 16384) ** 0.5  # of 16384 draws
  np.testing.assert_allclose(np.var(x), 0.25, rtol=error)


# --- diffusers ----------------------------------------------------------------


@functools.cache
def torch():
  """Torch, where diffusers is there too."""
  pytest.importorskip('diffusers')
  return pytest.importorskip('torch')


@pytest.mark.slow
def test_euler_steps_of_diffusers():
  """EDMEulerScheduler: preconditioning, levels and steps, F itself given."""
  diffusers = (torch(), pytest.importorskip('diffusers'))[1]
  scheduler = diffusers.EDMEulerScheduler()
  scheduler.set_timesteps(18)
  scheduler.sigmas = scheduler.sigmas.double()
  x = torch().tensor(draw(3)) * math.hypot(1, 80)
  start = np.asarray(x) / math.hypot(1, 80)
  seen = []
  for t in scheduler.timesteps:
    scaled = scheduler.scale_model_input(x, t)
    output = torch().tensor(network(scaled.numpy(), float(t)))
    x = scheduler.step(output, t, x).prev_sample
    seen.append(x.numpy())
  edm = EDM(DATA)

  def denoise(z, logsnr):
    c_noise = -logsnr / 8
    given = edm.network_input(z, logsnr)
    output = jnp.tanh(1.3 * given + c_noise) + 0.2 * given
    return edm.predict(output, z, logsnr).x_hat

  with jax.enable_x64(True):
    logsnrs = np.asarray(levels(Karras(), 18), np.float64)
    found = steps_of(DDIM(), denoise, jnp.asarray(start), logsnrs)
  for i, z in enumerate(found[:-1]):
    ours = z * np.hypot(1, np.exp(-0.5 * logsnrs[i + 1]))
    # They keep their levels in float32.
    np.testing.assert_allclose(ours, seen[i], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:__array_:DeprecationWarning')  # theirs
@pytest.mark.parametrize('order', [1, 2, 3])
def test_multistep_deis_of_diffusers(order):
  """DEISMultistepScheduler, polynomials in log edm_sigma, float64."""
  diffusers = (torch(), pytest.importorskip('diffusers'))[1]
  _, ours = denoiser_pair()
  scheduler = diffusers.DEISMultistepScheduler(
    solver_order=order, prediction_type='sample', lower_order_final=False
  )
  with jax.enable_x64(True):
    logsnrs = np.asarray(levels(Karras(0.02, 80.0), 20), np.float64)[:-1]
    scheduler.set_timesteps(len(logsnrs) - 1)
    scheduler.sigmas = torch().tensor(np.exp(-0.5 * logsnrs))
    x, seen = torch().tensor(draw(3)), []
    for i, t in enumerate(scheduler.timesteps):
      x_hat = ours(jnp.asarray(x.numpy()), jnp.asarray(logsnrs[i]))
      output = torch().tensor(np.asarray(x_hat))
      x = scheduler.step(output, t, x).prev_sample
      seen.append(x.numpy())
    found = steps_of(DEIS(order), ours, jnp.asarray(draw(3)), logsnrs)
  for mine, theirs in zip(found, seen, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)
