"""Tiles: what is local is exact, what is not has no seams."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm_jax.networks.convolution import conv2d
from vdm_jax.samplers.tiles import Tiling, tiled


def noise(*shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def near(x, beside):
  """Looks two pixels and one frame far, and nowhere else."""
  kernel = noise(3, 3, 3, 2, seed=1)
  h = jnp.tanh(conv2d(x + beside, kernel))
  h = conv2d(h, noise(3, 3, 2, 3, seed=2))
  before = jnp.pad(h, [(0, 0), (1, 0), *[(0, 0)] * 3])[:, :-1]
  return h + 0.5 * before * h


@pytest.mark.parametrize(
  ('size', 'overlap', 'multiple'),
  [
    ((8, 16, 16), (4, 8, 8), (1, 1, 1)),
    ((6, 16, 12), (4, 8, 8), (1, 4, 4)),
    ((12, 40, 16), (0, 0, 8), (1, 1, 4)),
  ],
)
def test_what_looks_no_farther_than_a_quarter_of_an_overlap_is_exact(
  size, overlap, multiple
):
  x, beside = noise(2, 12, 40, 24, 3), noise(2, 12, 40, 24, 3, seed=3)
  tiling = Tiling(size, overlap, multiple)
  assert np.prod([len(s) for s in tiling.starts(x.shape[1:4])]) > 1
  expected = jax.jit(near)(x, beside)
  found = jax.jit(lambda *a: tiled(near, tiling, *a))(x, beside)
  np.testing.assert_allclose(found, expected, atol=2e-5)


def test_tiles_without_overlap_have_seams():
  """The law above would fail without what it is about."""
  x, beside = noise(1, 4, 16, 16, 3), noise(1, 4, 16, 16, 3, seed=3)
  expected = jax.jit(near)(x, beside)
  tiling = Tiling((4, 8, 8), (0, 0, 0))
  found = jax.jit(lambda *a: tiled(near, tiling, *a))(x, beside)
  assert np.abs(found - expected).max() > 0.1


def test_a_tile_that_differs_as_a_whole_fades_into_the_next():
  """Even what every tile decides for itself makes no edge."""
  x = jnp.zeros((1, 2, 40, 40, 1)).at[:, :, :10].set(1.0)

  def own(part):  # one number for the whole tile
    return jnp.broadcast_to(part.mean(), part.shape)

  def steepest(overlap):
    tiling = Tiling((2, 16, 16), (0, overlap, overlap))
    found = jax.jit(lambda x: tiled(own, tiling, x))(x)[0, 0, :, 0, 0]
    assert np.ptp(found) > 0.5
    return np.abs(np.diff(found)).max() / np.ptp(found)

  assert steepest(0) > 0.9
  assert steepest(8) < 0.3  # a ramp over four pixels


@pytest.mark.parametrize('seed', range(8))
def test_tiles_cover_everything_and_share_what_was_asked(seed):
  rng = np.random.default_rng(seed)
  multiple = int(rng.integers(1, 5))
  size = int(rng.integers(multiple + 1, 20))
  overlap = int(rng.integers(0, size - multiple + 1))
  total = size + multiple * int(rng.integers(0, 12))
  tiling = Tiling((size, 4, 4), (overlap, 0, 0), (multiple, 1, 1))
  starts, rows, _ = tiling.starts((total, 8, 4))
  assert rows == [0, 4]
  assert starts[0] == 0
  assert starts[-1] == total - size
  for a, b in itertools.pairwise(starts):
    assert 0 < b - a <= size - overlap
    assert b % multiple == 0


def test_pyocos_windows_meet_at_the_frames_of_the_base_model():
  """16 frames, of which every fifth is known, to 76: section 4."""
  tiling = Tiling((16, 64, 64), (1, 0, 0), (5, 1, 1))
  assert tiling.starts((76, 64, 64))[0] == [0, 15, 30, 45, 60]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'size': (32, 8, 8)}, 'tiles of 32 frames do not cover 20: give 32'),
    ({'overlap': (0, 8, 0)}, 'tiles of 8 rows cannot share 8 of them'),
    ({'multiple': (1, 1, 5)}, 'columns do not cover 24.* multiple of 5 more'),
    ({'overlap': (0, 0, 6), 'multiple': (1, 1, 4)}, 'at most 4'),
  ],
)
def test_tiles_that_do_not_fit_are_refused(changes, message):
  fields = {'size': (10, 8, 8), 'overlap': (2, 2, 2), **changes}
  with pytest.raises(ValueError, match=message):
    Tiling(**fields).starts((20, 24, 24))
