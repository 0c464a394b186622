"""What the command line asks of a VideoFusion: noise, methods and images."""

import dataclasses
import functools
import logging
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import vdm_jax
from tests.command_line import (
  EIGHT,
  SHAPES,
  command,
  forget_flags,
  saved_by,
)
from tests.parameters import moved_of
from tests.test_videofusion import BASE, SHAPE, Small, system
from vdm_jax import main
from vdm_jax.cascade import run
from vdm_jax.conditions import Conditions
from vdm_jax.data.pictures import Pictures
from vdm_jax.data.visual import VisualSettings
from vdm_jax.diffusion.parameterization import V
from vdm_jax.model import Model
from vdm_jax.samplers import DDIM
from vdm_jax.training.sampling import SampleSettings


@pytest.fixture(autouse=True)
def _clean_flags():
  level = logging.getLogger().level
  yield
  logging.getLogger().setLevel(level)
  forget_flags()


@functools.cache
def small(visual_dim=0):
  """A model without a prior, which draws two videos at once."""
  bare = system(
    base=Small(temporal=False, visual_dim=visual_dim),
    residual=Small(visual_dim=visual_dim),
    prior=None,
    parameterization=V(),
  )
  settings = SampleSettings(sampler=DDIM(), num_steps=2, batch_size=2)
  seen = Pictures(VisualSettings('thumbnail'), 48, pathlib.Path())
  seen = Conditions(pictures=seen) if visual_dim else Conditions()
  return Model(bare, moved_of(bare, SHAPE), SHAPE, settings, seen)


def test_flags_number_who_shares_noise(tmp_path, monkeypatch):
  """Numbers are taken in turn, and stand for all batches."""
  monkeypatch.setattr(main, 'load', lambda *_: small())
  flag = '--content=0,1', '--motion=0,0,1,1'
  videos = saved_by(tmp_path, '--mode=sample', '--num=4', '--seed=3', *flag)
  base, rest = videos[:, BASE], np.delete(videos, BASE, 1)
  np.testing.assert_allclose(base[[0, 1]], base[[2, 3]], atol=1e-4)
  assert np.abs(base[0] - base[1]).max() > 1e-2
  assert np.abs(rest[0] - rest[2]).max() > 1e-2
  expected = small().sample(
    jax.random.key(3), 4, content=[0, 1, 0, 1], motion=[0, 0, 1, 1]
  )
  np.testing.assert_allclose(videos, expected, atol=1e-4)
  same = '--content=5', '--motion=7'
  videos = saved_by(tmp_path, '--mode=sample', '--num=3', *same)
  np.testing.assert_allclose(videos, videos[[0, 0, 0]], atol=1e-4)


@pytest.mark.parametrize('block_noise', ['shared', 'fresh'])
@pytest.mark.parametrize('method', ['replacement', 'reconstruction'])
def test_flags_say_how_a_video_is_extended(
  tmp_path, monkeypatch, method, block_noise
):
  monkeypatch.setattr(main, 'load', lambda *_: small())
  given = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 2, *SHAPE[1:]))
  given = given.astype(np.float32)
  np.save(tmp_path / 'given.npy', given)
  flag = f'--method={method}', f'--block_noise={block_noise}', '--seed=3'
  file = f'--video={tmp_path / "given.npy"}', '--num_frames=9'
  videos = saved_by(tmp_path, '--mode=extend', *file, *flag)
  for how in ('replacement', 'reconstruction'):
    for noise in ('shared', 'fresh'):
      made = small().extend(
        jax.random.key(3), given, 9, method=how, block_noise=noise
      )
      apart = np.abs(made - videos).max()
      if (how, noise) == (method, block_noise):
        assert apart == 0
      else:
        assert apart > 1e-3


def pictured(folder, size):
  """Two images of noise, and the flags that name their files."""
  shape = 2, size, size, 3
  images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
  for index, image in enumerate(images):
    Image.fromarray(image).save(folder / f'{index}.png')
  return images, [f'--image={folder / name}' for name in ('0.png', '1.png')]


def test_flags_say_what_the_middle_frame_shows(tmp_path, monkeypatch):
  """Images are taken in turn, and embedded as they are."""
  monkeypatch.setattr(main, 'load', lambda *_: small(48))
  images, flag = pictured(tmp_path, 8)
  videos = saved_by(tmp_path, '--mode=sample', '--num=2', '--seed=3', *flag)
  key = jax.random.key(3)
  expected = small(48).sample(key, 2, image=images)
  np.testing.assert_array_equal(videos, expected)
  other = small(48).sample(key, 2, image=images[::-1])
  assert np.abs(other - videos).max((1, 2, 3, 4)).min() > 1e-2
  one = saved_by(tmp_path, '--mode=sample', '--num=2', '--seed=3', flag[0])
  np.testing.assert_allclose(one[0], videos[0], atol=1e-5)
  np.testing.assert_allclose(one[1], other[1], atol=1e-5)


def test_each_video_of_a_cascade_shows_its_own_image():
  """In both models, over batches; one image stands for all."""
  base = dataclasses.replace(small(48), frameskip=2.0)
  size = SHAPE[0], 2 * SHAPE[1], 2 * SHAPE[2], SHAPE[3]
  finer = dataclasses.replace(small(48), video_shape=size)
  side = SHAPE[1]
  images = np.random.default_rng(0).integers(256, size=(3, side, side, 3))
  images = images.astype(np.uint8)

  def made(image):
    stages = run([base, finer], jax.random.key(0), 3, image=image)
    return [stage.videos for stage in stages]

  other = images.copy()
  other[2] = 255 - other[2]
  for one, changed in zip(made(images), made(other), strict=True):
    np.testing.assert_array_equal(one[:2], changed[:2])
    assert np.abs(one[2] - changed[2]).max() > 1e-2
  for one, all_three in zip(
    made(images[0]), made(images[[0] * 3]), strict=True
  ):
    np.testing.assert_array_equal(one, all_three)


@pytest.mark.slow
def test_a_trained_model_shares_noise_as_it_is_told(tmp_path):
  """Base frames of one content are one; nothing else says what they show."""
  command(tmp_path, SHAPES.replace(':smoke', ':actions,smoke'), *EIGHT)
  flag = '--content=0,0,1,1', '--motion=0,1'
  videos = saved_by(tmp_path, '--mode=sample', '--num=4', '--seed=3', *flag)
  base, rest = videos[:, 1], np.delete(videos, 1, 1)
  np.testing.assert_allclose(base[[0, 2]], base[[1, 3]], atol=1e-4)
  assert np.abs(base[0] - base[2]).max() > 1e-2
  assert np.abs(rest[0] - rest[1]).max() > 1e-2
  expected = vdm_jax.load(tmp_path).sample(
    jax.random.key(3), 4, content=[0, 0, 1, 1], motion=[0, 1, 0, 1]
  )
  np.testing.assert_array_equal(videos, expected)
