"""Cascades: stages that fit each other, kept one by one."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.command_line import CONFIGS, EIGHT, command, fails
from tests.test_refining import Shows, model
from vdm_jax import cascade
from vdm_jax.diffusion.noise import Progressive
from vdm_jax.diffusion.parameterization import X
from vdm_jax.systems.interpolation import Interpolation
from vdm_jax.systems.super_resolution import SuperResolution
from vdm_jax.systems.vdm import VDM

KEY = jax.random.key(0)


class Noise(Shows):
  """Predicts z itself: of one step, the noise that it was given."""

  def __call__(self, z, logsnr, **given):
    return 0.3 * z


@functools.cache  # each compiles once
def stages():
  """3 frames of 4 x 4, to 7, to 8 x 8, to 16 x 16 in tiles of 8 x 8."""
  shows = {'parameterization': X(), 'augmented': 0.0}
  base = VDM(Noise(), parameterization=X(), noise=Progressive(2.0))
  between = Interpolation(Shows(), factor=3, **shows)
  larger = SuperResolution(Shows(), factor=2, **shows)
  slow = dataclasses.replace(model(base, (3, 4, 4, 3)), frameskip=3.0)
  return [
    slow,
    model(between, (4, 4, 4, 3)),
    model(larger, (4, 8, 8, 3)),
    model(larger, (4, 8, 8, 3)),
  ]


def run(folder=None, num=3, key=KEY, models=None):
  models = list(models or stages())
  names = [f'runs/{n}' for n in range(len(models))]
  return list(cascade.run(models, key, num, folder=folder, names=names))


def test_every_stage_keeps_what_the_one_before_made():
  base, between, large, larger = (stage.videos for stage in run())
  assert base.shape == (3, 3, 4, 4, 3)
  assert np.abs(base).max() > 0.1
  np.testing.assert_array_equal(between[:, ::3], base)
  for coarse, fine in ((between, large), (large, larger)):
    expected = jax.image.resize(coarse, fine.shape, 'bilinear')
    np.testing.assert_allclose(fine, expected, atol=5e-4)
  assert larger.shape == (3, 7, 16, 16, 3)
  assert cascade.shapes(stages())[-1] == larger.shape[1:]


@pytest.mark.fault(35)
def test_what_is_done_is_not_done_again(tmp_path):
  first = run(tmp_path)
  assert [stage.kept for stage in first] == [False] * 4
  again = run(tmp_path)
  assert [stage.kept for stage in again] == [True] * 4
  for one, other in zip(first, again, strict=True):
    np.testing.assert_array_equal(one.videos, other.videos)
  # A run that was cut off behind the second stage.
  first[2].path.unlink()
  first[3].path.unlink()
  rest = run(tmp_path)
  assert [stage.kept for stage in rest] == [True, True, False, False]
  np.testing.assert_array_equal(rest[3].videos, first[3].videos)
  assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('change', ['key', 'num', 'second'])
def test_other_videos_are_other_files(tmp_path, change):
  run(tmp_path)
  kept = [False] * 4
  if change == 'key':
    found = run(tmp_path, key=jax.random.key(1))
  elif change == 'num':
    found = run(tmp_path, num=2)
  else:  # trained on: the stage before it stays
    models = list(stages())
    models[1] = dataclasses.replace(models[1], fingerprint='other')
    found, kept = run(tmp_path, models=models), [True, False, False, False]
  assert [stage.kept for stage in found] == kept
  assert len(list(tmp_path.glob('*.npy'))) == 8 - sum(kept)


def test_what_was_asked_is_part_of_the_name(tmp_path):
  """Also images, which numpy would shorten."""
  large = np.zeros((1, 64, 64, 3), np.uint8)
  other = large.copy()
  other[0, 32, 32] = 1
  marks = {
    cascade.Outputs(tmp_path, [{'image': image}]).path(0).name
    for image in (large, other, large[:, ::-1])
  }
  assert len(marks) == 2


@pytest.mark.fault(35)
def test_a_stage_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
  def full(path, array, **options):
    path.write_bytes(b'half')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'save', full)
  with pytest.raises(OSError, match='No space'):
    run(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow  # four models
def test_a_small_cascade_runs_end_to_end(tmp_path, capsys):
  config = f'--config={CONFIGS / "moving_shapes.py"}:pyoco,smoke'
  packed = f'--config.data.path={tmp_path / "clips" / "packed"}'
  base, between, large, larger = (
    str(tmp_path / name) for name in ('base', 'between', 'large', 'larger')
  )
  plain = f'--config={CONFIGS / "moving_shapes.py"}'
  sides = '--config.data.height=64', '--config.data.width=64'
  some = '--mode=pack', '--config.data.num_clips=8', *sides
  command(tmp_path / 'clips', plain, *some)
  command(base, config, *EIGHT, '--config.data.frameskip=1.5')
  command(between, f'{config},interpolation', *EIGHT)
  command(large, f'{config},sr', *EIGHT)
  command(larger, f'{config},sr,patches', packed, *EIGHT)
  out = tmp_path / 'out'
  asked = '--mode=cascade', '--num=2', '--num_steps=2'
  every = f'--stages={base},{between},{large},{larger}'
  command(out, *asked, every)
  said = capsys.readouterr().out
  for shape in ((4, 16), (10, 16), (10, 32), (10, 64)):
    frames, side = shape
    assert f'(2, {frames}, {side}, {side}, 3) is in' in said
  assert len(list((out / 'samples').glob('*_stage_3.*'))) == 3
  # Any stage alone, from the file of the one before.
  (file,) = (out / 'cascade').glob('stage_1_*.npy')
  command(large, '--mode=upsample', f'--video={file}', '--num_steps=2')
  (file,) = (out / 'cascade').glob('stage_0_*.npy')
  command(between, '--mode=interpolate', f'--video={file}', '--num_steps=2')
  message = fails(capsys, out, *asked, f'--stages={base},{between},{between}')
  assert 'stage 2 of the cascade: it makes 3 times more frames' in message
  message = fails(capsys, out, *asked, f'--stages={large},{larger}')
  assert 'the first model of a cascade only refines' in message
