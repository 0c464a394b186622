"""Long and large videos of a model that is exact: Gaussian frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import exact_denoiser, exponential_covariance
from vdm_jax.cascade import run
from vdm_jax.diffusion.schedules import Cosine
from vdm_jax.model import Model
from vdm_jax.samplers import Ancestral, Langevin, sample
from vdm_jax.samplers.conditional import sample_given
from vdm_jax.samplers.measurements import lower_resolution
from vdm_jax.training.sampling import SampleSettings

CORRELATION = 0.9
SIZE = 16
SETTINGS = SampleSettings(
  Ancestral(0.0), num_steps=96, corrector=Langevin(0.1), batch_size=4
)


class Gaussian:
  """A system of AR(1) frames of independent pixels, known exactly."""

  num_classes = text_dim = 0
  refines = 1, 1
  completes = continues = False

  def __init__(self, num_frames, frameskip, scale=0.4):
    covariance = exponential_covariance(
      num_frames, CORRELATION**frameskip, scale
    )
    self.denoise = exact_denoiser(np.zeros(num_frames), covariance)

  def noise_given(self, given):
    assert not {'content', 'motion', 'share'} & set(given)

  def sample(
    self, params, key, shape, *, cond, guidance_scale, progress, **options
  ):
    del params, cond, guidance_scale, progress
    return sample(key, self.denoise, shape, schedule=Cosine(), **options)

  def sample_given(
    self, params, key, observed, mask, *, cond, guidance_scale, **options
  ):
    del params, cond, guidance_scale
    options['schedule'] = Cosine()
    return sample_given(key, self.denoise, observed, mask, **options)


def model(num_frames=6, size=SIZE, frameskip=1.0, scale=0.4):
  return Model(
    Gaussian(num_frames, frameskip, scale),
    {},
    (num_frames, size, size, 1),
    SETTINGS,
    frameskip=frameskip,
  )


def steps(video, scale=0.4):
  """Mean squared step between neighbours over the process's own."""
  own = 2 * scale**2 * (1 - CORRELATION)
  return np.mean(np.diff(video, axis=1) ** 2, axis=(0, 2, 3, 4)) / own


# Four standard errors of a mean of 1024 squares, and 10 % for finite steps.
TOLERANCE = 4 * (2 / 1024) ** 0.5 + 0.1


def test_a_coarse_model_extends_and_a_fine_one_fills():
  # Guidance is calibrated for data of unit variance.
  fine, coarse = model(scale=1.0), model(frameskip=2.0, scale=1.0)
  rng = np.random.default_rng(0)
  given = rng.normal(size=(4, 1, SIZE, SIZE, 1)).clip(-1.5, 1.5)
  video = fine.extend(jax.random.key(0), given, 13, coarse=coarse)
  assert video.shape == (4, 13, SIZE, SIZE, 1)
  np.testing.assert_allclose(video[:, :1], given, atol=1e-6)
  np.testing.assert_allclose(steps(video, 1.0), 1, atol=TOLERANCE)
  with pytest.raises(ValueError, match='times the frameskip'):
    coarse.extend(jax.random.key(0), given, 13, coarse=fine)


def test_a_cascade_keeps_what_the_base_model_made():
  """Figure 2: small slow frames, then large ones at twice the rate.

  A mean of 2 x 2 pixels of the fine process is a pixel of half the size, so
  the base model is the fine one's exact shadow.
  """
  base = model(4, SIZE // 2, frameskip=2.0, scale=0.2)
  finer = model(6, SIZE)
  (small, *_), (large, *_) = run(
    [base, finer], jax.random.key(1), 8, reconstruction_weight=4.0
  )
  assert small.shape == (8, 4, SIZE // 2, SIZE // 2, 1)
  assert large.shape == (8, 8, SIZE, SIZE, 1)  # two batches of 4
  assert np.abs(small[:4] - small[4:]).max() > 0.1
  shadow = lower_resolution(2)(jnp.asarray(large[:, ::2]))
  # The shadow's variance is 0.04; an unrelated video would miss by 0.08.
  assert np.mean((shadow - small) ** 2) < 0.008  # a tenth of that
  np.testing.assert_allclose(steps(large), 1, atol=2 * TOLERANCE)


@pytest.mark.parametrize(
  ('videos', 'message'),
  [
    (np.full((1, 2, SIZE, SIZE, 1), 200.0), r'range from 200\.0 to 200\.0'),
    (np.full((1, 2, SIZE, SIZE, 1), np.nan), 'range from nan'),
    (np.zeros((1, 2, SIZE, 8, 1)), r'have shape \(1, 2, 16, 8, 1\)'),
    (np.zeros((2, SIZE, SIZE, 1)), 'have shape'),
    (np.zeros((1, 0, SIZE, SIZE, 1)), 'have shape'),
  ],
)
def test_videos_that_do_not_fit_are_refused(videos, message):
  for call in (
    lambda m: m.extend(jax.random.key(0), videos, 9),
    lambda m: m.interpolate(jax.random.key(0), videos, 2),
  ):
    with pytest.raises(ValueError, match=message):
      call(model())


def test_a_label_for_a_model_without_classes_is_refused():
  with pytest.raises(ValueError, match='the model has no classes'):
    model().sample(jax.random.key(0), 1, label=0)
  with pytest.raises(ValueError, match='no longer'):
    next(run([model(2, 8, frameskip=2.0), model(6, 16)], jax.random.key(0), 1))
