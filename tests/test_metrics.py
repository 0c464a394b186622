"""Statistics of features: closed forms, scipy, and merging of parts."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from vdm_jax.metrics import frechet, inception_score, kernel, resize
from vdm_jax.metrics.moments import Moments


def features(count, dim, seed=0, mean=0.0):
  rng = np.random.default_rng(seed)
  mixing = rng.standard_normal((dim, dim))
  drawn = rng.standard_normal((count, dim)) @ mixing + mean
  return drawn.astype(np.float32)


def close(moments, expected):
  assert moments.count == expected.count
  np.testing.assert_allclose(moments.mean, expected.mean, atol=1e-10)
  scale = np.abs(expected.scatter).max()
  np.testing.assert_allclose(
    moments.scatter, expected.scatter, atol=1e-10 * scale
  )


@settings(max_examples=30, deadline=None)
@given(
  cuts=st.lists(st.integers(0, 100), max_size=8),
  order=st.randoms(use_true_random=False),
)
def test_moments_do_not_depend_on_how_the_videos_came(cuts, order):
  drawn = features(100, 7, mean=1000.0)
  edges = sorted({0, *cuts, 100})
  parts = [drawn[a:b] for a, b in itertools.pairwise(edges)]
  order.shuffle(parts)
  merged = sum(map(Moments.of, parts), Moments.none(7))
  close(merged, Moments.of(drawn))
  np.testing.assert_allclose(
    merged.covariance(), np.cov(drawn.astype(np.float64).T), rtol=1e-9
  )


def test_merging_hosts_is_associative():
  a, b, c = (Moments.of(features(n, 5, n)) for n in (3, 40, 11))
  close((a + b) + c, a + (b + c))


def test_weights_are_repetitions():
  drawn, times = features(6, 3), np.array([0, 2, 1, 1, 0, 3])
  close(Moments.of(drawn, times), Moments.of(np.repeat(drawn, times, 0)))


def test_features_that_are_not_finite_are_named():
  drawn = features(5, 3)
  drawn[3, 1] = np.nan
  with pytest.raises(ValueError, match='1 of 5 .* the first is number 3'):
    Moments.of(drawn)


def test_distance_of_gaussians_with_common_axes_is_the_closed_form():
  # d^2 = |m_a - m_b|^2 + sum (sqrt(a_i) - sqrt(b_i))^2
  rng = np.random.default_rng(0)
  axes, _ = np.linalg.qr(rng.standard_normal((6, 6)))
  a, b = rng.uniform(0, 4, 6), rng.uniform(0, 4, 6)
  a[0] = b[1] = b[2] = 0  # singular covariances need no care
  means = rng.standard_normal((2, 6))
  sides = [
    Moments(101, mean, 100 * (axes * values) @ axes.T)
    for mean, values in zip(means, (a, b), strict=True)
  ]
  expected = ((means[0] - means[1]) ** 2).sum()
  expected += ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
  assert frechet.distance(*sides) == pytest.approx(expected, rel=1e-7)
  assert frechet.distance(*sides[::-1]) == pytest.approx(expected, rel=1e-7)


def test_distance_is_that_of_the_matrix_square_root():
  a, b = features(300, 12), features(200, 12, 1, mean=0.3)
  covariances = [np.cov(x.astype(np.float64).T) for x in (a, b)]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
  expected = ((a.mean(0, np.float64) - b.mean(0, np.float64)) ** 2).sum()
  expected += np.trace(covariances[0] + covariances[1] - 2 * np.real(root))
  ours = frechet.distance(Moments.of(a), Moments.of(b))
  assert ours == pytest.approx(expected, rel=1e-9)


def test_distance_of_a_set_from_itself_is_zero():
  same = Moments.of(features(10, 40))  # fewer vectors than numbers in them
  scale = np.trace(same.covariance())
  assert 0 <= frechet.distance(same, same) < 1e-6 * scale


def test_division_by_n_scales_the_covariances():
  a, b = (Moments.of(features(64, 5, seed)) for seed in (0, 1))
  shift = ((a.mean - b.mean) ** 2).sum()
  spread = frechet.distance(a, b, ddof=1) - shift
  biased = frechet.distance(a, b, ddof=0) - shift
  assert biased == pytest.approx(spread * 63 / 64, rel=1e-9)


@pytest.mark.parametrize('count', [0, 1])
def test_a_covariance_of_one_video_is_refused(count):
  with pytest.raises(ValueError, match='at least 2 vectors'):
    frechet.distance(Moments.of(features(9, 3)), Moments.of(features(count, 3)))


def test_features_of_different_networks_are_refused():
  with pytest.raises(ValueError, match='different networks'):
    frechet.distance(Moments.of(features(9, 3)), Moments.of(features(9, 4)))


def test_kernel_distance_is_the_sum_over_pairs(monkeypatch):
  x, y = features(7, 4).astype(float), features(5, 4, 1).astype(float)

  def k(a, b):
    return (a @ b / 4 + 1) ** 3

  def pairs(z):
    return np.mean([k(a, b) for a, b in itertools.permutations(z, 2)])

  cross = np.mean([k(a, b) for a, b in itertools.product(x, y)])
  monkeypatch.setattr(kernel, '_ROWS', 2)
  expected = pairs(x) + pairs(y) - 2 * cross
  assert kernel.distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_weights_of_the_kernel_distance_stay_unbiased():
  # A vector of weight 2 counts twice in every pair but makes none with itself.
  x, y = features(5, 4).astype(float), features(4, 4, 1).astype(float)
  u, v = np.array([2, 0, 1, 3, 1]), np.array([1, 1, 0, 2])

  def k(a, b):
    return (a @ b / 4 + 1) ** 3

  def pairs(z, w):
    chosen = [(i, j) for i, j in itertools.permutations(range(len(z)), 2)]
    total = sum(w[i] * w[j] for i, j in chosen)
    return sum(w[i] * w[j] * k(z[i], z[j]) for i, j in chosen) / total

  cross = sum(
    u[i] * v[j] * k(a, b) for i, a in enumerate(x) for j, b in enumerate(y)
  )
  expected = pairs(x, u) + pairs(y, v) - 2 * cross / (u.sum() * v.sum())
  assert kernel.distance(x, y, u, v) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased_about_zero():
  rng = np.random.default_rng(0)
  draws = [
    kernel.distance(x, y) for x, y in rng.standard_normal((4000, 2, 6, 3))
  ]
  error = np.std(draws) / len(draws) ** 0.5
  assert abs(np.mean(draws)) < 4 * error
  assert min(draws) < 0


def test_inception_score_of_certain_and_balanced_classes_is_their_number():
  logits = 1e4 * np.eye(8)
  assert inception_score.score(np.tile(logits, (3, 1))) == pytest.approx(8)
  assert inception_score.score(np.ones((9, 8))) == pytest.approx(1)
  # Each half of the first four and of the last four classes has four.
  assert inception_score.score(logits, splits=2) == pytest.approx(4)


def test_inception_score_is_the_mean_divergence():
  logits = np.random.default_rng(0).standard_normal((50, 6)) * 2
  p = scipy.special.softmax(logits, 1)
  divergence = scipy.stats.entropy(p, p.mean(0)[None], axis=1).mean()
  expected = np.exp(divergence)
  assert inception_score.score(logits) == pytest.approx(expected, rel=1e-10)
  assert inception_score.score(logits + 700) == pytest.approx(expected)


@pytest.mark.parametrize('splits', [0, 11])
def test_more_splits_than_samples_are_refused(splits):
  with pytest.raises(ValueError, match='give 1 to 10'):
    inception_score.score(np.zeros((10, 3)), splits)


@pytest.mark.parametrize('size', [(16, 24), (64, 64), (300, 240)])
@pytest.mark.parametrize('grid', resize.GRIDS)
def test_linear_ramps_stay_linear(size, grid):
  # Interpolation of a ramp gives the positions themselves.
  rows, columns = np.meshgrid(*map(np.arange, size), indexing='ij')
  image = np.stack([rows, columns], -1)[None].astype(np.float32)
  ours = np.asarray(resize.bilinear(image, 112, 224, grid))
  scales = (s / t for s, t in zip(size, (112, 224), strict=True))
  if grid == 'corners':
    scales = ((s - 1) / (t - 1) for s, t in zip(size, (112, 224), strict=True))
  shift = 0.5 if grid == 'half_pixel' else 0.0
  expected = [
    np.clip((np.arange(t) + shift) * scale - shift, 0, s - 1)
    for s, t, scale in zip(size, (112, 224), scales, strict=True)
  ]
  tolerance = 1e-4 * max(size)
  np.testing.assert_allclose(ours[0, :, 0, 0], expected[0], atol=tolerance)
  np.testing.assert_allclose(ours[0, 0, :, 1], expected[1], atol=tolerance)


def test_resizing_to_the_same_size_changes_nothing():
  image = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
  for grid in resize.GRIDS:
    np.testing.assert_array_equal(resize.bilinear(image, 5, 7, grid), image)


def test_half_pixel_is_the_resize_of_jax():
  import jax

  image = np.random.default_rng(0).random((2, 9, 7, 3), np.float32)
  theirs = jax.image.resize(image, (2, 20, 31, 3), 'linear', antialias=False)
  ours = resize.bilinear(image, 20, 31, 'half_pixel')
  np.testing.assert_allclose(ours, theirs, atol=1e-6)
