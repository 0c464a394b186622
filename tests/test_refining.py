"""Models that refine videos, whole ones, larger than those of training."""

import functools
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import moments
from vdm_jax.data.moving_shapes_measure import measure
from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import Independent, Progressive
from vdm_jax.diffusion.parameterization import X
from vdm_jax.job import build
from vdm_jax.model import Model
from vdm_jax.results import coarse_clips
from vdm_jax.samplers import DDIM
from vdm_jax.systems.interpolation import Interpolation
from vdm_jax.systems.protocol import System
from vdm_jax.systems.super_resolution import SuperResolution
from vdm_jax.tasks import factor_of
from vdm_jax.training.sampling import SampleSettings, VideoSampler
from vdm_jax.training.sharding import MeshShape

KEY = jax.random.key(0)
CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
get_config = runpy.run_path(str(CONFIGS / 'moving_shapes.py'))['get_config']


def videos(rows=2, frames=4, size=4, seed=1):
  rng = np.random.default_rng(seed)
  return rng.uniform(-0.9, 0.9, (rows, frames, size, size, 3)).astype('float32')


class Shows(nn.Module):
  """Predicts what it is shown beside z, and a little of z."""

  amount: float = 0.0
  num_classes = text_dim = visual_dim = 0

  def check(self, height, width):
    """Takes all."""

  @nn.compact
  def __call__(self, z, logsnr, **given):
    return z[..., 3:] + self.amount * z[..., :3]


def model(system, shape, **settings):
  settings = {'num_steps': 3, 'batch_size': 2, **settings}
  settings = SampleSettings(sampler=DDIM(), **settings)
  return Model(system, {}, shape, settings)


def interpolating(**fields):
  system = Interpolation(
    Shows(), parameterization=X(), factor=3, augmented=0.0, **fields
  )
  return model(system, (7, 4, 4, 3))


# --- interpolation ----------------------------------------------------------


def test_interpolation_is_a_system():
  assert isinstance(Interpolation(Shows()), System)
  assert Interpolation(Shows(), factor=5).refines == (5, 1)


def test_the_network_sees_known_frames_in_their_places_and_zeros_elsewhere():
  """PYoCo, Appendix A.1 (3): 4 real frames in 16."""
  system = Interpolation(Shows(), parameterization=X(), factor=5)
  x = jnp.asarray(videos(frames=16))
  low = system.coarse(x)
  np.testing.assert_array_equal(low, x[:, [0, 5, 10, 15]])
  given = {'low': low, 'low_logsnr': jnp.array([20.0, 20.0])}
  seen = system.denoise({}, given)(jnp.zeros_like(x), jnp.zeros(2))
  expected = np.zeros(x.shape)
  expected[:, [0, 5, 10, 15]] = low
  np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_of_images_beside_a_video_nothing_is_known():
  system = Interpolation(Shows(), parameterization=X(), factor=3)
  x = jnp.asarray(videos(3, frames=7))
  images = jnp.asarray(videos(3, frames=2, seed=2))
  drawn = jax.jit(system.draw)(
    jax.random.key(0), {'video': x, 'images': images}
  )
  both = jnp.concatenate([x, images], 1)
  seen = system.seen(drawn, both)
  level = seen['low_logsnr'][:, None, None, None, None]
  left = seen['low'] - gaussian.alpha(level) * x[:, ::3]
  noise = gaussian.sigma(level) * drawn['low_eps']
  np.testing.assert_allclose(left, noise, atol=1e-5)
  output = system.output(
    {}, both, drawn['logsnr'], system.seen(drawn, both), num_images=2
  )
  np.testing.assert_array_equal(output[:, 7:], 0)
  np.testing.assert_allclose(output[:, :7:3], seen['low'], atol=1e-6)


def test_given_frames_stay_and_windows_share_them():
  coarse = videos(3, frames=5)
  fine = interpolating().interpolate(jax.random.key(0), coarse)
  assert fine.shape == (3, 13, 4, 4, 3)
  np.testing.assert_array_equal(fine[:, ::3], coarse)
  # This network knows of others only that they are zero.
  others = np.delete(fine, np.s_[::3], 1)
  np.testing.assert_allclose(others, 0, atol=1e-6)


def test_frames_between_have_the_noise_of_one_video():
  """In every window the latent video is a part of one progressive chain."""
  noise = Progressive(2.0)
  system = Interpolation(
    Shows(1.0), parameterization=X(), factor=3, augmented=0.0, noise=noise
  )
  still = np.zeros((40, 5, 8, 8, 3), np.float32)
  # One step from z_1 to x_hat = z_1: the result is the noise.
  made = model(system, (7, 8, 8, 3), num_steps=1, batch_size=40).interpolate(
    jax.random.key(0), still, sampler=DDIM()
  )
  _, found = moments(np.delete(made, np.s_[::3], 1))
  frames = np.delete(np.arange(13), np.s_[::3])
  expected = np.asarray(noise.covariance(13))[np.ix_(frames, frames)]
  # Clipped to [-1, 1], which leaves the order and most of the correlation.
  found /= found[0, 0]
  assert found[1, 2] > 0.9 * expected[1, 2] > 0.4
  assert np.abs(found - expected).max() < 0.1


def test_augmented_frames_are_noised_as_the_network_is_told():
  system = Interpolation(
    Shows(), parameterization=X(), factor=3, augmented=1.0, noise=Independent()
  )
  low = jnp.asarray(videos(64, frames=3))
  shape = 64, 7, 4, 4, 3
  made = system.complete({}, jax.random.key(0), shape, {'low': low})
  level = made['low_logsnr']
  left = np.asarray(made['low'] - gaussian.alpha(level[0]) * low)
  np.testing.assert_allclose(left.std(), gaussian.sigma(level[0]), rtol=0.05)
  again = system.complete({}, jax.random.key(1), shape, made)
  assert again is made


# --- super-resolution -------------------------------------------------------


def test_larger_and_longer_videos_than_those_of_training_have_no_seams():
  """A network that shows what it sees gives the whole small video, enlarged."""
  system = SuperResolution(
    Shows(), parameterization=X(), factor=2, augmented=0.0
  )
  small = videos(3, frames=9, size=14)
  fine = model(system, (4, 8, 8, 3)).upsample(jax.random.key(0), small)
  assert fine.shape == (3, 9, 28, 28, 3)
  # log SNR 20 is the least noise that is added to the small video: 4.5e-5.
  expected = jax.image.resize(small, fine.shape, 'bilinear')
  np.testing.assert_allclose(fine, expected, atol=5e-4)


def test_tiles_of_a_gaussian_video_are_the_whole():
  """Frames that are independent need no neighbours: tiled is not tiled."""

  def draw(shape):
    system = SuperResolution(
      Shows(0.5), parameterization=X(), factor=2, augmented=0.0
    )
    return model(system, shape).upsample(jax.random.key(0), small)

  small = videos(2, frames=8, size=8)
  np.testing.assert_allclose(
    draw((4, 8, 8, 3)), draw((8, 16, 16, 3)), atol=1e-5
  )


def test_batches_of_one_are_batches_of_many():
  """Each batch has a key of its own; what is shown is each video's own."""
  system = SuperResolution(
    Shows(), parameterization=X(), factor=2, augmented=0.0
  )
  small = videos(3, frames=4)
  one, many = (
    model(system, (4, 8, 8, 3), batch_size=size).upsample(
      jax.random.key(0), small
    )
    for size in (1, 3)
  )
  np.testing.assert_allclose(one, many, atol=5e-4)


def test_a_batch_that_does_not_cut_evenly_over_the_devices_is_filled_up():
  """Three videos on eight devices are the three that one would make."""
  system = SuperResolution(
    Shows(), parameterization=X(), factor=2, augmented=0.0
  )
  small = videos(3, frames=2)
  settings = SampleSettings(sampler=DDIM(), num_steps=2, batch_size=3)
  draw = VideoSampler(
    system, (2, 8, 8, 3), settings, mesh=MeshShape(data=-1).build()
  )
  assert draw.settings.batch_size == 8
  found = draw({}, KEY, 3, {'low': small}, show_progress=False)
  expected = jax.image.resize(small, found.shape, 'bilinear')
  np.testing.assert_allclose(found, expected, atol=5e-4)


def test_what_is_shown_while_training_are_coarse_clips_and_what_they_show(
  tmp_path,
):
  """By the exact evaluation, the colours of their frames are those asked."""
  config = get_config('pyoco,interpolation').to_dict()
  config['network']['classes'] = (2, 6, 4)
  cond = coarse_clips(build(config), tmp_path, 12)
  assert cond['low'].shape == (12, 3, 16, 16, 3)
  found = measure(0.5 + 0.5 * cond['low'], config['data']['radius'][1])
  _, colour, _ = np.unravel_index(cond['label'], (2, 6, 4))
  assert len(set(colour)) > 2
  assert (found.colour == colour[:, None]).all()
  assert not coarse_clips(build(get_config().to_dict()), tmp_path, 12)


@pytest.mark.parametrize(
  ('task', 'factor', 'expected'),
  [('interpolate', None, 3), ('interpolate', 3, 3), ('upsample', None, 2)],
)
def test_a_factor_is_the_models_own_or_two(task, factor, expected):
  assert factor_of(task, interpolating(), factor) == expected
  with pytest.raises(ValueError, match='this model is trained for 3'):
    factor_of('interpolate', interpolating(), 2)
  with pytest.raises(ValueError, match='give 2 or more'):
    factor_of('upsample', interpolating(), 1)


# --- what does not fit ------------------------------------------------------


@functools.cache
def enlarging():
  return model(SuperResolution(Shows(), parameterization=X()), (4, 8, 8, 3))


@pytest.mark.parametrize(
  ('ask', 'message'),
  [
    (
      lambda: interpolating().interpolate(jax.random.key(0), videos(), 2),
      'trained to make 3 times more frames .* give it that factor, in inter',
    ),
    (
      lambda: interpolating().interpolate(jax.random.key(0), videos(frames=2)),
      'become .4, 4, 4, 3., but tiles of 7 frames do not cover 4: give 7',
    ),
    (
      lambda: interpolating().upsample(jax.random.key(0), videos()),
      'trained to make 3 times more frames and 1 times larger .* interpolate',
    ),
    (
      lambda: enlarging().upsample(
        jax.random.key(0), videos(), method='replacement'
      ),
      'leave method and block_noise out',
    ),
    (
      lambda: enlarging().upsample(jax.random.key(0), videos() * 127),
      'divide uint8 by 127.5',
    ),
    (
      lambda: enlarging().upsample(jax.random.key(0), videos(), overlap=4),
      'tiles of 4 frames cannot share 4 of them: give 0 or more, and at most 3',
    ),
    (
      lambda: Interpolation(Shows(), factor=5).check((12, 4, 4, 3)),
      'of 12 frames the last is not known if every 5. is',
    ),
  ],
)
def test_what_does_not_fit_is_refused(ask, message):
  with pytest.raises(ValueError, match=message):
    ask()
