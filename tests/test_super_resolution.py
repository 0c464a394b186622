"""Super-resolution by diffusion: what it sees, and what it is asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import moved_of
from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.decomposed import BaseResidual
from vdm_jax.model import Model
from vdm_jax.networks.unet import UNet
from vdm_jax.samplers import DDIM
from vdm_jax.samplers.measurements import lower_resolution
from vdm_jax.systems.protocol import System
from vdm_jax.systems.super_resolution import SuperResolution
from vdm_jax.training.sampling import SampleSettings, VideoSampler

SHAPE = (4, 8, 8, 3)
NETWORK = UNet(
  width=8,
  multipliers=(1,),
  num_blocks=1,
  attention_resolutions=(),
  head_dim=8,
  embedding_dim=16,
  embedding_layers=2,
)
SYSTEM = SuperResolution(NETWORK)


@functools.cache
def params():
  return moved_of(SYSTEM, SHAPE)


def videos(rows=2, frames=4, size=8):
  rng = np.random.default_rng(1)
  return rng.uniform(-0.9, 0.9, (rows, frames, size, size, 3)).astype('float32')


def model(**changes):
  settings = SampleSettings(sampler=DDIM(), num_steps=2, batch_size=2)
  return Model(SuperResolution(NETWORK, **changes), params(), SHAPE, settings)


def test_it_is_a_system():
  assert isinstance(SYSTEM, System)
  assert SYSTEM.refines == (1, 2)


def test_a_small_video_is_the_mean_of_blocks():
  x = videos()
  small = np.asarray(lower_resolution(2)(jnp.asarray(x)))
  expected = x[:, :, 2:4, 4:6].mean((2, 3))
  np.testing.assert_allclose(small[:, :, 1, 2], expected, rtol=1e-5)


def test_in_training_the_small_video_is_noised_as_it_is_told():
  x = jnp.asarray(videos(64))
  drawn = jax.jit(SYSTEM.draw)(jax.random.key(0), {'video': x})
  seen = SYSTEM.seen(drawn, x)
  level = seen['low_logsnr']
  assert 0 <= level.min() < 3  # the most noise, as much as there is signal
  assert level.max() > 8  # and nearly none
  left = seen['low'] - gaussian.alpha(level)[
    :, None, None, None, None
  ] * lower_resolution(2)(x)
  spread = np.asarray(left).reshape(64, -1).std(1)
  np.testing.assert_allclose(spread, gaussian.sigma(level), rtol=0.25)


def test_images_have_small_ones_too():
  x = jnp.asarray(videos(3))
  batch = {'video': x, 'images': x[:, :2]}
  drawn = jax.jit(SYSTEM.draw)(jax.random.key(0), batch)
  assert drawn['low_eps'].shape == (3, 6, 4, 4, 3)
  assert np.isfinite(jax.jit(SYSTEM.loss)(params(), jax.random.key(1), drawn))


def test_the_network_sees_the_small_video_and_how_noisy_it_is():
  z, low = jnp.asarray(videos()), jnp.asarray(videos(size=4))
  level = jnp.array([5.0, 5.0])

  @jax.jit
  def run(low, level):
    given = {'low': low, 'low_logsnr': level}
    return SYSTEM.denoise(params(), given)(z, jnp.zeros(2))

  before = run(low, level)
  moved = np.abs(run(low.at[0, 1].multiply(-1), level) - before).max((2, 3, 4))
  assert moved[0, 1] > 1e-2
  np.testing.assert_array_equal(moved[1], 0)
  assert np.abs(run(low, jnp.array([5.0, 1.0])) - before)[1].max() > 1e-3


def test_sharing_noise_leaves_the_small_video_as_it_is():
  """Its own noise is added once, however its videos' noise is numbered."""
  shared = SuperResolution(NETWORK, noise=BaseResidual(), augmented=1.0)
  rows = np.arange(2, dtype=np.int32)
  cond = {'low': videos(size=4), 'content': rows, 'motion': rows}
  settings = SampleSettings(sampler=DDIM(), num_steps=2, batch_size=2)
  drawn = VideoSampler(shared, SHAPE, settings)(
    params(), jax.random.key(3), 2, cond, show_progress=False
  )
  expected = jax.jit(
    lambda cond: shared.sample(
      params(),
      jax.random.key(3),
      (2, *SHAPE),
      cond=cond,
      sampler=DDIM(),
      num_steps=2,
    )
  )(cond)
  np.testing.assert_allclose(drawn, expected, atol=1e-5)


@pytest.mark.parametrize(
  ('ask', 'message'),
  [
    (
      lambda m: m.upsample(
        jax.random.key(0), videos(frames=4, size=4), factor=2
      ),
      '2 times larger ones, nothing else: give it that factor, in upsample',
    ),
    (
      lambda m: m.extend(jax.random.key(0), videos(), 8),
      'use it for upsample',
    ),
    (
      lambda m: m.upsample(jax.random.key(0), videos(size=2)),
      'become .4, 4, 4, 3., but tiles of 8 rows do not cover 4',
    ),
    (
      lambda m: m.sample(jax.random.key(0), 2),
      'nothing else: use it for upsample',
    ),
  ],
)
def test_what_it_cannot_do_is_refused(ask, message):
  with pytest.raises(ValueError, match=message):
    ask(model())


@pytest.mark.parametrize('changes', [{'factor': 1}, {'augmented': 1.5}])
def test_settings_out_of_range_are_refused(changes):
  with pytest.raises(ValueError, match='are not allowed'):
    SuperResolution(NETWORK, **changes)
  with pytest.raises(ValueError, match='not 3 times a whole resolution'):
    SuperResolution(NETWORK, factor=3).check(SHAPE)
