"""Conditional sampling against Gaussian videos, whose conditionals are known.

x ~ N(0, K) with K_ij = 0.95^|i - j| over 16 frames, the first 5 known: the
optimal denoiser is linear and the conditional distribution a closed form.
"""

import contextlib
import functools
from unittest import mock

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
  replace_known,
  sample_given,
)
from vdm_jax.samplers.guidance import classifier_free
from vdm_jax.samplers.measurements import (
  frames,
  grey,
  lower_resolution,
  region,
  together,
)
from vdm_jax.samplers.misfit import Shared

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


@functools.cache
def guided_by(scale):
  """DENOISE as a conditional model under classifier-free guidance.

  Its unconditional half knows nothing of the covariance between frames.
  """
  alone = exact_denoiser(np.zeros(FRAMES), np.eye(FRAMES))
  return classifier_free(DENOISE, alone, scale)


def given(key=0, denoise=DENOISE, truth=TRUTH, **options):
  arguments = {
    'schedule': Cosine(),
    'sampler': Ancestral(0.0),
    'num_steps': 256,
  } | options
  return jax.jit(
    lambda key: sample_given(key, denoise, truth, MASK, **arguments)
  )(jax.random.key(key))


def seam(x):
  """Mean squared step from the last known frame to the first new one."""
  return float(jnp.mean((x[:, KNOWN] - x[:, KNOWN - 1]) ** 2))


KNOWS, NEW = slice(None, KNOWN), slice(KNOWN, None)
GAIN = COVARIANCE[NEW, KNOWS] @ np.linalg.inv(COVARIANCE[KNOWS, KNOWS])
CONDITIONAL = COVARIANCE[NEW, NEW] - GAIN @ COVARIANCE[KNOWS, NEW]


def by_frame(x):
  """[F, draws] float64."""
  x = np.moveaxis(np.asarray(x, np.float64), 1, 0)
  return x.reshape(len(x), -1)


@functools.cache
def drawn(**options):
  """`given`, once for the same options."""
  return np.asarray(given(**options))


def errors(**options):
  """How far samples are from the true conditional distribution.

  step        mean squared step into the first new frame; truth 0.10
  covariance  of the new frames about their true mean K_ba K_aa^-1 x^a, whose
              truth is K_bb - K_ba K_aa^-1 K_ab; relative, in Frobenius norm
  regression  of the new frames on the known ones, whose truth is
              K_ba K_aa^-1; likewise

  Exact draws, as many, have 0.097, 0.018 and 0.18: this is the Monte Carlo
  error.
  """
  x = drawn(**options)
  new, known = by_frame(x[:, NEW]), by_frame(TRUTH[:, KNOWS])
  about_mean = new - GAIN @ known
  regression = new @ known.T @ np.linalg.inv(known @ known.T)
  norm = np.linalg.norm
  covariance = about_mean @ about_mean.T / DRAWS
  return {
    'step': seam(x),
    'covariance': norm(covariance - CONDITIONAL) / norm(CONDITIONAL),
    'regression': norm(regression - GAIN) / norm(GAIN),
  }


def test_exact_draws_have_no_error_but_chance():
  """What `errors` measures, on draws from the closed form."""
  draw = np.random.default_rng(5).standard_normal(TRUTH[:, NEW].shape)
  spread = np.linalg.cholesky(CONDITIONAL)
  new = np.einsum('ij,bjhwc->bihwc', GAIN, TRUTH[:, KNOWS])
  new += np.einsum('ij,bjhwc->bihwc', spread, draw)
  exact = np.concatenate([TRUTH[:, KNOWS], new], 1).astype(np.float32)
  with mock.patch(f'{__name__}.drawn', return_value=exact):
    found = errors()
  np.testing.assert_allclose(found['step'], 0.1, rtol=4 * (2 / DRAWS) ** 0.5)
  assert found['covariance'] < 0.05
  assert found['regression'] < 0.25


@pytest.mark.slow
@pytest.mark.parametrize('redraw', [False, True])
def test_guidance_joins_frames_where_replacement_cannot(redraw):
  """Section 3.1's claim, in numbers.

  Known for this oracle: the step is 0.29 with replacement, 0.13 with guidance
  of weight 2 and 256 ancestral steps, 0.10 with the corrector too.  Monte
  Carlo error of a mean of that many squares: sqrt(2 / DRAWS), four allowed.
  """
  chance = 4 * (2 / DRAWS) ** 0.5
  replaced = errors(method='replacement', redraw=redraw)
  guided = errors(redraw=redraw)
  corrected = errors(redraw=redraw, corrector=Langevin(0.1))
  expected = 0.29 if redraw else 0.32
  np.testing.assert_allclose(replaced['step'], expected, rtol=chance)
  np.testing.assert_allclose(guided['step'], 0.13, rtol=chance)
  np.testing.assert_allclose(corrected['step'], 0.10, atol=0.02)
  assert corrected['covariance'] <= 0.15
  assert replaced['covariance'] >= 0.5
  assert corrected['regression'] < guided['regression']
  assert guided['regression'] < replaced['regression']


@pytest.mark.slow
@pytest.mark.parametrize('redraw', [False, True])
@pytest.mark.parametrize('num_steps', [64, 256])
def test_every_weight_is_better_than_replacement(redraw, num_steps):
  """Weights 1, 2 and 5, with and without Langevin: `pytest -s` prints them.

  All three errors fall with the corrector at weights 1 and 2; 5 is too much
  for this oracle: the new frame sticks to the known one.
  """
  common = {'redraw': redraw, 'num_steps': num_steps}
  replaced = errors(method='replacement', **common)
  rows = {'replacement': replaced}
  for weight in (1.0, 2.0, 5.0):
    for corrector in (None, Langevin(0.1)):
      name = f'weight {weight:g}{", Langevin" if corrector else ""}'
      rows[name] = errors(weight=weight, corrector=corrector, **common)
  rows['weight 2, DDIM'] = errors(sampler=DDIM(), **common)
  print(f'\n{num_steps} steps, redraw={redraw}')
  for name, row in rows.items():
    print(f'  {name:20}', *(f'{k} {v:.3f}' for k, v in row.items()))
    if row is not replaced and 'DDIM' not in name:  # another sampler's errors
      assert row['covariance'] < replaced['covariance']
      assert row['regression'] < replaced['regression']
  for weight in (1, 2):
    with_moves = rows[f'weight {weight}, Langevin']
    for measured, error in with_moves.items():
      assert error < rows[f'weight {weight}'][measured]
  assert rows['weight 5']['step'] < 0.1


@pytest.mark.parametrize('redraw', [False, True])
def test_guidance_is_near_the_true_conditional(redraw):
  """Covariance of the new frames, entry by entry.

  The Gaussian approximation of q(x^a | z) leaves 0.1 of the unit variance.
  """
  x = drawn(redraw=redraw, corrector=Langevin(0.1))
  about_mean = by_frame(x[:, NEW]) - GAIN @ by_frame(TRUTH[:, KNOWS])
  np.testing.assert_allclose(np.cov(about_mean), CONDITIONAL, atol=0.1)


@pytest.mark.parametrize('method', ['reconstruction', 'replacement'])
@pytest.mark.parametrize('redraw', [False, True])
@pytest.mark.parametrize(
  ('sampler', 'corrector'),
  [(Ancestral(0.3), None), (Ancestral(0.0), Langevin(0.1)), (DDIM(), None)],
)
@pytest.mark.parametrize(
  'scale', [pytest.param(1.0, marks=pytest.mark.slow), 1.5]
)
def test_known_pixels_come_back_as_they_were(
  method, redraw, sampler, corrector, scale
):
  """Every combination, without and under classifier-free guidance."""
  x = given(
    denoise=guided_by(scale),
    method=method,
    sampler=sampler,
    corrector=corrector,
    redraw=redraw,
    num_steps=3,
  )
  np.testing.assert_array_equal(x[:, :KNOWN], TRUTH[:, :KNOWN])
  assert np.isfinite(x).all()


@pytest.mark.parametrize('sampler', [Ancestral(0.0), DDIM()])
@pytest.mark.parametrize(
  'scale', [pytest.param(1.0, marks=pytest.mark.slow), 1.5]
)
def test_guidance_helps_every_sampler_and_under_classifier_free_guidance(
  sampler, scale
):
  """The step into the first new frame, as the model itself has it inside.

  Classifier-free guidance changes the process; the frames after the border say
  what its own step is.
  """

  def ratio(method):
    x = given(
      denoise=guided_by(scale), method=method, sampler=sampler, num_steps=64
    )
    steps = np.mean(np.diff(np.asarray(x), axis=1) ** 2, axis=(0, 2, 3, 4))
    return steps[KNOWN - 1] / steps[KNOWN:].mean()

  assert ratio('reconstruction') < 0.75 * ratio('replacement')


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


SHARED = noise.BaseResidual(0.9)
SHARED_K = np.asarray(SHARED.covariance(FRAMES))


def test_guidance_is_the_same_in_coordinates_where_noise_is_independent():
  """K = L L^T: with z' = z / L and x' = x / L the noise is independent."""
  factor = np.linalg.cholesky(SHARED_K)
  inverse = np.linalg.inv(factor)

  def apply(matrix, x):
    return jnp.einsum('ij,bjhwc->bihwc', jnp.asarray(matrix, jnp.float32), x)

  z, value = (jnp.asarray(gaussian_videos(i)[:2, :, :4, :4]) for i in (2, 3))
  denoise = exact_denoiser(np.zeros(FRAMES), COVARIANCE, SHARED_K)
  logsnr = jnp.array(0.3)
  guided = guide_by_reconstruction(
    denoise,
    lambda x: x,
    value,
    1.7,
    Shared.of(jnp.asarray(SHARED_K), value),
  )
  there = guide_by_reconstruction(
    lambda z, logsnr: apply(inverse, denoise(apply(factor, z), logsnr)),
    lambda x: x,
    apply(inverse, value),
    1.7,
  )
  expected = apply(factor, there(apply(inverse, z), logsnr))
  # K's least eigenvalue is 0.004, and a jitter of 1e-5 is added to all.
  np.testing.assert_allclose(guided(z, logsnr), expected, rtol=5e-3, atol=5e-3)


def test_guidance_weighs_known_frames_by_the_noise_they_share():
  """x_hat + w alpha K G^T M K_aa^-1 (x^a - x_hat^a), a by pixel."""
  rng = np.random.default_rng(4)
  z, value = (
    gaussian_videos(2)[:2, :, :2, :2],
    gaussian_videos(3)[:2, :, :2, :2],
  )
  mask = rng.random((1, FRAMES, 2, 1, 1)) < 0.4
  logsnr, weight = jnp.array(0.3), 1.7
  a2, s2 = (float(jax.nn.sigmoid(v)) for v in (logsnr, -logsnr))
  g = a2**0.5 * COVARIANCE @ np.linalg.inv(a2 * COVARIANCE + s2 * SHARED_K)
  denoise = exact_denoiser(np.zeros(FRAMES), COVARIANCE, SHARED_K)
  seen = jnp.where(mask, value, 0.0)
  misfit = Shared.of(jnp.asarray(SHARED_K), seen, mask)
  guided = guide_by_reconstruction(denoise, region(mask), seen, weight, misfit)(
    jnp.asarray(z), logsnr
  )
  for row in range(2):
    known = mask[0, :, row, 0, 0]
    estimate = g @ z[1, :, row, 1, 0]
    error = np.zeros(FRAMES)
    error[known] = np.linalg.solve(
      SHARED_K[np.ix_(known, known)], (value[1, :, row, 1, 0] - estimate)[known]
    )
    expected = estimate + weight * a2**0.5 * SHARED_K @ g.T @ error
    np.testing.assert_allclose(
      guided[1, :, row, 1, 0], expected, rtol=1e-2, atol=1e-2
    )


def test_sampling_under_shared_noise_takes_it_into_account():
  """Nearer to the true conditional than eq. (7) for independent noise.

  With base shares of 0.9 both errors of `errors` shrink by a third at least.
  """
  truth = TRUTH[:4, :, :8, :8]

  def errors_of(guided):
    ignored = mock.patch.object(
      noise.BaseResidual, 'covariance', lambda self, size: jnp.eye(size)
    )
    with contextlib.nullcontext() if guided else ignored:
      x = given(
        denoise=exact_denoiser(np.zeros(FRAMES), COVARIANCE, SHARED_K),
        truth=truth,
        noise=SHARED,
        weight=1.0,
        num_steps=64,
      )
    about_mean = by_frame(x[:, NEW]) - GAIN @ by_frame(truth[:, KNOWS])
    covariance = about_mean @ about_mean.T / about_mean.shape[1]
    error = np.linalg.norm(covariance - CONDITIONAL)
    return np.array([seam(x) - 0.1, error / np.linalg.norm(CONDITIONAL)])

  ratio = errors_of(True) / errors_of(False)
  assert (ratio < 2 / 3).all(), ratio


def test_a_measure_must_say_its_frames_where_frames_share_noise():
  with pytest.raises(ValueError, match='does not say which frames it is of'):
    given(
      noise=SHARED,
      measure=frames([3]),
      value=TRUTH[:, 3:4],
    )
  with pytest.raises(ValueError, match='BaseResidual lets frames share noise'):
    given(noise=SHARED, redraw=True)


@pytest.mark.parametrize(
  ('redraw', 'prior'),
  [
    (False, noise.Independent()),
    (True, noise.Independent()),
    (False, noise.Progressive(1.0)),
  ],
)
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


@pytest.mark.parametrize(
  ('measure', 'weight'),
  [
    (frames([2, 9]), 1.0),
    (region((np.arange(16) < 6).reshape(1, 1, -1, 1, 1)), 1.0),
    (lower_resolution(4), 16.0),
    (grey(), 3.0),
    (together(frames([0]), lambda x: 2 * lower_resolution(2)(x)), 1.0),
  ],
  ids=['frames', 'region', 'lower_resolution', 'grey', 'together'],
)
def test_a_measurement_is_met_and_the_rest_is_free(measure, weight):
  """Frames, inpainting, super-resolution, colourisation, several at once.

  The sample measures what was asked, within a twentieth of what an unrelated
  video would miss; what is not measured differs between two samples.  The pull
  of a mean of n pixels is an n-th of a pixel's: so the weights.
  """
  truth = jnp.asarray(gaussian_videos(3, shape=(2, FRAMES, 16, 16, 3)))

  @jax.jit
  def draw(key):
    return sample_given(
      key,
      DENOISE,
      0.0,
      False,
      shape=truth.shape,
      measure=measure,
      value=measure(truth),
      weight=weight,
      schedule=Cosine(),
      sampler=Ancestral(0.0),
      num_steps=64,
    )

  def miss(a, b):
    parts = jax.tree.map(lambda u, v: jnp.mean((u - v) ** 2), a, b)
    return max(float(part) for part in jax.tree.leaves(parts))

  first, second = draw(jax.random.key(0)), draw(jax.random.key(1))
  unrelated = jnp.asarray(gaussian_videos(4, shape=truth.shape))
  scale = miss(measure(unrelated), measure(truth))
  assert miss(measure(first), measure(truth)) < 0.05 * scale
  assert miss(first, second) > 0.1


def test_measurements_measure_what_they_say():
  x = jnp.arange(2 * 3 * 4 * 4 * 2, dtype=jnp.float32).reshape(2, 3, 4, 4, 2)
  np.testing.assert_array_equal(frames([2, 0])(x), x[:, [2, 0]])
  mask = np.arange(4).reshape(1, 1, 4, 1, 1) == 1
  seen = np.asarray(region(mask)(x))
  np.testing.assert_array_equal(seen[:, :, 1], x[:, :, 1])
  assert not seen[:, :, [0, 2, 3]].any()
  np.testing.assert_array_equal(grey()(x)[..., 0], (x[..., 0] + x[..., 1]) / 2)
  cell = lower_resolution(2)(x)[1, 2, 1, 0, 1]
  expected = [float(x[1, 2, r, c, 1]) for r in (2, 3) for c in (0, 1)]
  np.testing.assert_allclose(cell, np.mean(expected))


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


def test_what_is_known_may_be_a_constant_of_a_compiled_function():
  truth = np.clip(TRUTH, -1, 1)
  x = given(num_steps=2, clipped=True, truth=jnp.asarray(truth))
  np.testing.assert_array_equal(x[:, :KNOWN], truth[:, :KNOWN])


def test_clipping_is_outside_of_the_guidance():
  x = given(num_steps=8, clipped=True, truth=np.clip(TRUTH, -1, 1))
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
    (
      {'measure': grey(), 'value': np.zeros((8, 16, 16, 16, 3))},
      r'value has shape \(8, 16, 16, 16, 3\), but measuring .* 16, 1\)',
    ),
    (
      {'measure': together(grey(), grey()), 'value': np.zeros(3)},
      r'the value has shape \(3,\)',
    ),
    ({'shape': (8, 15, 16, 16, 1)}, 'do not make videos of'),
    (
      {'measure': frames([0, 16]), 'value': np.zeros((8, 2, 16, 16, 1))},
      r'frames \[0, 16\] cannot be measured: the video has 16',
    ),
    (
      {'measure': lower_resolution(3), 'value': np.zeros((8, 16, 5, 5, 1))},
      '16x16 has no lower resolution by 3',
    ),
    (
      {'measure': region(np.ones((1, 15, 1, 1, 1))), 'value': 0.0},
      r'does not fit videos of \(8, 16, 16, 16, 1\)',
    ),
    ({'shape': (8, 16, 16, 16, 3, 1)}, 'do not make videos of'),
  ],
)
def test_wrong_arguments_say_what_is_allowed(options, message):
  with pytest.raises(ValueError, match=message):
    given(**options)


def test_known_pixels_out_of_range_are_refused():
  """As uint8 frames are; inside of a compiled function nobody can tell."""
  options = {'schedule': Cosine(), 'sampler': DDIM(), 'num_steps': 1}
  with pytest.raises(ValueError, match=r'reach 255; give them in \[-1, 1\]'):
    sample_given(
      jax.random.key(0),
      DENOISE,
      np.full(SHAPE, 255, np.uint8),
      MASK,
      clipped=True,
      **options,
    )
