"""Conditional sampling against Gaussian videos, whose conditionals are known.

x ~ N(0, K) with K_ij = 0.95^|i - j| over 16 frames, the first 5 known: the
optimal denoiser is linear and the conditional distribution a closed form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import exact_denoiser, exponential_covariance, moments
from vdm_jax.diffusion import gaussian, noise
from vdm_jax.diffusion.schedules import Cosine
from vdm_jax.samplers import DDIM, Ancestral, Langevin, sample
from vdm_jax.samplers.conditional import (
  guide_by_reconstruction,
  lower_resolution,
  replace_known,
  sample_given,
)

FRAMES, KNOWN = 16, 5
COVARIANCE = exponential_covariance(FRAMES, 0.95, 1.0)
SHAPE = (8, FRAMES, 16, 16, 1)
DRAWS = 2048  # of each frame
DENOISE = exact_denoiser(np.zeros(FRAMES), COVARIANCE)


def gaussian_videos(key=1, covariance=COVARIANCE, shape=SHAPE):
  """Draws of N(0, covariance) for each pixel."""
  draw = np.random.default_rng(key).standard_normal(shape)
  factor = np.linalg.cholesky(covariance)
  return np.einsum('ij,bjhwc->bihwc', factor, draw).astype(np.float32)


TRUTH = gaussian_videos()
MASK = (np.arange(FRAMES) < KNOWN).reshape(1, -1, 1, 1, 1)


def given(key=0, denoise=DENOISE, **options):
  arguments = {
    'schedule': Cosine(),
    'sampler': Ancestral(0.0),
    'num_steps': 256,
  } | options
  return jax.jit(
    lambda key: sample_given(key, denoise, TRUTH, MASK, **arguments)
  )(jax.random.key(key))


def seam(x):
  """Mean squared step from the last known frame to the first new one."""
  return float(jnp.mean((x[:, KNOWN] - x[:, KNOWN - 1]) ** 2))


def test_guidance_joins_frames_where_replacement_cannot():
  """The truth is 2 (1 - 0.95) = 0.10; section 3.1's claim, in one number.

  Known for this oracle: replacement 0.29, guidance of weight 2 with 256
  ancestral steps 0.13, with the corrector 0.10.  Monte Carlo error of a mean
  of that many squares: sqrt(2 / DRAWS), and four of them allowed.
  """
  error = 4 * (2 / DRAWS) ** 0.5
  replaced = seam(given(method='replacement', redraw=True))
  guided = seam(given(redraw=True))
  corrected = seam(given(redraw=True, corrector=Langevin(0.1)))
  np.testing.assert_allclose(replaced, 0.29, rtol=error)
  np.testing.assert_allclose(guided, 0.13, rtol=error)
  np.testing.assert_allclose(corrected, 0.10, rtol=error)


@pytest.mark.parametrize('redraw', [False, True])
def test_guidance_is_near_the_true_conditional(redraw):
  """Mean and covariance of the new frames given the known ones.

  Cov[b | a] = K_bb - K_ba K_aa^-1 K_ab, mean K_ba K_aa^-1 x^a.  The Gaussian
  approximation of q(x^a | z) leaves 0.1 of the unit variance.
  """
  x = given(corrector=Langevin(0.1), redraw=redraw)
  known, new = slice(None, KNOWN), slice(KNOWN, None)
  gain = COVARIANCE[new, known] @ np.linalg.inv(COVARIANCE[known, known])
  mean = np.einsum('ij,bjhwc->bihwc', gain, TRUTH[:, known])
  residual = moments(np.asarray(x[:, new]) - mean)[1]
  expected = COVARIANCE[new, new] - gain @ COVARIANCE[known, new]
  np.testing.assert_allclose(residual, expected, atol=0.1)


@pytest.mark.parametrize('method', ['reconstruction', 'replacement'])
@pytest.mark.parametrize('sampler', [Ancestral(0.3), DDIM()])
@pytest.mark.parametrize('redraw', [False, True])
def test_known_pixels_come_back_as_they_were(method, sampler, redraw):
  x = given(method=method, sampler=sampler, redraw=redraw, num_steps=4)
  np.testing.assert_array_equal(x[:, :KNOWN], TRUTH[:, :KNOWN])
  assert np.isfinite(x).all()


def test_guidance_is_eq_7_of_a_linear_denoiser():
  """x_hat = G z gives grad |x^a - M G z|^2 = -2 G^T M^T (x^a - M G z)."""
  logsnr, weight = jnp.array(0.3), 1.7
  a2, s2 = (float(jax.nn.sigmoid(v)) for v in (logsnr, -logsnr))
  alpha = a2**0.5
  g = alpha * COVARIANCE @ np.linalg.inv(a2 * COVARIANCE + s2 * np.eye(FRAMES))
  m = np.random.default_rng(0).standard_normal((3, FRAMES))
  z, value = jnp.asarray(gaussian_videos(2)), jnp.ones((8, 3, 16, 16, 1))

  def apply(matrix, x):
    return np.einsum('ij,bjhwc->bihwc', matrix, x)

  x_hat = apply(g, z)
  expected = x_hat + weight * alpha * apply(g.T @ m.T, value - apply(m, x_hat))
  guided = guide_by_reconstruction(
    DENOISE, lambda x: jnp.einsum('ij,bjhwc->bihwc', m, x), value, weight
  )
  np.testing.assert_allclose(guided(z, logsnr), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('redraw', [False, True])
@pytest.mark.parametrize('prior', [noise.Independent(), noise.Progressive(1.0)])
def test_known_pixels_follow_the_forward_process(redraw, prior):
  """z_s^a ~ N(alpha x^a, sigma^2 K^a) at every s, in both forms."""
  seen = []

  def record(key, denoise, z, *, logsnr, noise):
    del key, denoise, noise
    jax.debug.callback(lambda *v: seen.append(v), z[:, :KNOWN], logsnr)
    return z

  denoise = exact_denoiser(
    np.zeros(FRAMES), COVARIANCE, prior.covariance(FRAMES)
  )
  given(
    denoise=denoise,
    method='replacement',
    num_steps=6,
    corrector=record,
    redraw=redraw,
    noise=prior,
  )
  jax.effects_barrier()
  assert len(seen) == 5
  expected = np.asarray(prior.covariance(FRAMES))[:KNOWN, :KNOWN]
  for z, logsnr in seen:
    eps = (z - gaussian.alpha(logsnr) * TRUTH[:, :KNOWN]) / gaussian.sigma(
      logsnr
    )
    mean, covariance = moments(eps)
    np.testing.assert_allclose(mean, 0.0, atol=5 / DRAWS**0.5)
    np.testing.assert_allclose(
      covariance, expected, atol=5 * (2 / DRAWS) ** 0.5
    )


def test_a_video_is_made_from_its_low_resolution():
  """eq. (8): guided samples measure what was asked, others do not."""
  shrink = lower_resolution(2)
  value = (
    jnp.asarray(
      TRUTH[:, :, ::2, ::2]
      + TRUTH[:, :, 1::2, ::2]
      + TRUTH[:, :, ::2, 1::2]
      + TRUTH[:, :, 1::2, 1::2]
    )
    / 4
  )

  def error(weight):
    x = jax.jit(
      lambda key: sample(
        key,
        guide_by_reconstruction(DENOISE, shrink, value, weight),
        SHAPE,
        schedule=Cosine(),
        sampler=Ancestral(0.0),
        num_steps=64,
      )
    )(jax.random.key(0))
    return float(jnp.mean((shrink(x) - value) ** 2))

  # Each measured value has variance 1/4, so an unrelated one misses by 1/2.
  np.testing.assert_allclose(error(0.0), 0.5, rtol=0.1)
  assert error(8.0) < 0.02


def test_frames_and_a_low_resolution_at_once():
  """Both are met; what the mask knows is met exactly."""

  def shrink(x):
    return (x[..., ::2, :] + x[..., 1::2, :]) / 2

  x = given(measure=shrink, value=shrink(TRUTH), weight=4.0, num_steps=64)
  np.testing.assert_array_equal(x[:, :KNOWN], TRUTH[:, :KNOWN])
  without = given(weight=4.0, num_steps=64)

  def error(v):
    return float(np.mean((shrink(v) - shrink(TRUTH)) ** 2))

  assert error(x) < 0.1 * error(without)


def test_unknown_pixels_may_hold_anything():
  """Also NaN: nothing of them reaches the result."""
  holes = np.where(MASK, TRUTH, np.nan)
  arguments = {
    'schedule': Cosine(),
    'sampler': DDIM(),
    'num_steps': 3,
  }
  key = jax.random.key(0)
  x = sample_given(key, DENOISE, holes, MASK, **arguments)
  y = sample_given(key, DENOISE, TRUTH, MASK, **arguments)
  np.testing.assert_array_equal(x, y)


def test_clipping_is_outside_of_the_guidance():
  x = given(num_steps=8, clipped=True)
  new = np.asarray(x[:, KNOWN:])
  assert np.abs(new).max() == 1.0
  replaced = replace_known(DENOISE, TRUTH, MASK)(
    jnp.asarray(TRUTH), jnp.array(0.0)
  )
  np.testing.assert_array_equal(replaced[:, :KNOWN], TRUTH[:, :KNOWN])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'method': 'copy'}, "method='copy' is unknown"),
    ({'measure': jnp.mean}, 'give both'),
    ({'value': 1.0}, 'give both'),
    (
      {'method': 'replacement', 'measure': jnp.mean, 'value': 0.0},
      'cannot use a measure',
    ),
  ],
)
def test_wrong_arguments_say_what_is_allowed(options, message):
  with pytest.raises(ValueError, match=message):
    given(**options)
