"""The command line: one run from start to samples, and its clear errors."""

import json
import logging
import os
import pathlib
import shutil
from unittest import mock

import jax
import numpy as np
import pytest

import vdm_jax
from tests.checkpoint_cases import opened
from tests.command_line import (
  EIGHT,
  FOLDER,
  QUICK,
  SHAPES,
  command,
  fails,
  forget_flags,
)
from vdm_jax import commands, samplers, video
from vdm_jax.config import ConfigError
from vdm_jax.training import loop
from vdm_jax.training.checkpoint import CheckpointError
from vdm_jax.training.finite import NonFiniteError


@pytest.fixture(autouse=True)
def _clean_flags():
  level = logging.getLogger().level
  yield
  logging.getLogger().setLevel(level)
  forget_flags()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A workdir with a finished run of two steps."""
  workdir = tmp_path_factory.mktemp('runs') / 'shapes'
  command(workdir, SHAPES, *QUICK)
  return workdir


def test_a_run_leaves_everything_a_person_needs(finished):
  samples = sorted(p.name for p in (finished / 'samples').iterdir())
  assert samples == [f'final_0000002.{s}' for s in ('gif', 'mp4', 'png')]
  shares = json.loads((finished / 'evaluation.json').read_text())
  assert shares['step'] == 2
  assert shares['samples'].keys() == shares['held-out'].keys()
  config = json.loads((finished / 'config.json').read_text())
  assert config['train']['batch_size'] == 8
  shown = video.load(finished / 'samples/final_0000002.gif')
  assert shown.shape[0] == config['data']['num_frames']


def test_the_library_loads_and_samples_it(finished):
  model = vdm_jax.load(finished)
  videos = model.sample(jax.random.key(0), num=3, num_steps=1)
  assert videos.shape == (3, 4, 16, 16, 3)
  assert np.abs(videos).max() <= 1
  again = model.sample(jax.random.key(0), num=3, num_steps=1)
  np.testing.assert_array_equal(videos, again)
  assert np.ptp(videos, axis=0).max() > 0.01  # three different videos
  with pytest.raises(ValueError, match=r'label is \[48\]; give 1 classes in'):
    model.sample(jax.random.key(0), num=1, num_steps=1, label=np.array([48]))
  with pytest.raises(ValueError, match='0 videos cannot be drawn'):
    model.sample(jax.random.key(0), num=0, batch_size=1)
  with pytest.raises(TypeError, match='stpes'):
    model.sample(jax.random.key(0), num=1, stpes=4)


def test_an_exported_model_draws_what_the_run_draws(finished, tmp_path):
  folder = tmp_path / 'model'
  vdm_jax.export(finished, folder)
  run, exported = vdm_jax.load(finished), vdm_jax.load(folder)
  jax.tree.map(np.testing.assert_array_equal, run.params, exported.params)
  for name in ('system', 'settings', 'video_shape', 'frameskip', 'step'):
    assert getattr(exported, name) == getattr(run, name)

  def size(path):
    return sum(p.stat().st_size for p in (path / 'checkpoints').rglob('*'))

  assert size(folder) < size(finished) / 2
  with pytest.raises(FileExistsError, match='give a new folder'):
    vdm_jax.export(finished, folder)


def test_a_folder_comes_before_the_name_of_a_model(finished, monkeypatch):
  assert vdm_jax.load('moving_shapes').video_shape == (8, 16, 16, 3)
  here = finished.parent / 'moving_shapes'
  here.symlink_to(finished)
  monkeypatch.chdir(finished.parent)
  try:
    assert vdm_jax.load('moving_shapes').video_shape == (4, 16, 16, 3)
  finally:
    here.unlink()


def test_the_command_line_takes_no_model_for_a_workdir(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  said = fails(capsys, pathlib.Path('moving_shapes'), '--mode=sample')
  assert 'moving_shapes is not a workdir' in said
  assert not list(tmp_path.iterdir())


def test_a_model_known_by_its_encoder_is_not_exported(finished, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  config = json.loads((finished / 'config.json').read_text())
  config['text'] = {'encoder': 'somewhere'}
  (run / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ValueError, match='share the whole folder'):
    vdm_jax.export(run, tmp_path / 'model')


def test_a_model_continues_refines_and_enlarges_videos(finished, caplog):
  """What is given stays as it was; what is asked for is there."""
  model = vdm_jax.load(finished)
  _, height, width, channels = model.video_shape
  key = jax.random.key(0)
  few = {'num_steps': 2}
  given = (
    np.random.default_rng(0)
    .uniform(-1, 1, (2, 3, height, width, channels))
    .astype(np.float32)
  )

  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    longer = model.extend(key, given, 7, **few)
    assert 'Compiling' in caplog.text
    caplog.clear()
    again = model.extend(key, given, 7, **few)
    assert 'Compiling' not in caplog.text  # once for the same options
  np.testing.assert_array_equal(again, longer)
  assert longer.shape == (2, 7, height, width, channels)
  np.testing.assert_array_equal(longer[:, :3], given)

  slower = model.interpolate(key, given, 2, **few)
  assert slower.shape == (2, 5, height, width, channels)
  np.testing.assert_array_equal(slower[:, ::2], given)

  small = np.full((2, 5, height // 2, width // 2, channels), 0.5, np.float32)
  assert model.upsample(key, small, **few).shape == (
    2,
    5,
    height,
    width,
    channels,
  )
  for made in (longer, slower):
    assert np.abs(made).max() <= 1

  with pytest.raises(ValueError, match='this model takes'):
    model.extend(key, given[:, :, 1:], 7)
  with pytest.raises(ValueError, match='at least 4 frames'):
    model.upsample(key, small[:, :3])
  with pytest.raises(TypeError, match='stpes'):
    model.extend(key, given, 7, stpes=3)


def test_sampling_from_the_command_line(finished):
  command(finished, '--mode=sample', '--num=2', '--seed=3')
  path = finished / 'samples' / 'sample_0000002_seed_3.gif'
  assert video.load(path).shape[0] == 4


@pytest.fixture
def saved(monkeypatch):
  """The arrays that commands save, by name."""
  kept = {}

  def keep(workdir, name, videos, fps):
    kept[name] = videos

  monkeypatch.setattr(commands, 'save_samples', keep)
  return kept


def test_samples_are_drawn_as_the_flags_say(finished, saved):
  flag = '--num_steps=3', '--sampler=deis,order=2', '--guidance=2.5'
  label = '--label=5', '--label=7'
  command(finished, '--mode=sample', '--num=3', *flag, *label)
  expected = vdm_jax.load(finished).sample(
    jax.random.key(0),
    3,
    label=np.array([5, 7, 5]),
    num_steps=3,
    sampler=samplers.DEIS(order=2),
    guidance_scale=2.5,
  )
  np.testing.assert_array_equal(saved['sample_0000002_seed_0'], expected)


@pytest.mark.slow
def test_a_video_file_is_extended_refined_and_enlarged(
  finished, saved, tmp_path
):
  """Frames of any size are cut to the model's; given ones stay as they are."""
  levels = np.linspace(40, 200, 5, dtype=np.uint8)
  frames = np.tile(levels[:, None, None, None], (1, 24, 40, 3))
  video.save(tmp_path / 'grey.mp4', frames)
  given = video.load(tmp_path / 'grey.mp4')[:, 4:20, 12:28]  # all pixels equal
  flag = f'--video={tmp_path / "grey.mp4"}', '--num_steps=2'
  command(finished, '--mode=extend', '--num_frames=7', '--num=2', *flag)
  longer = saved['extend_grey_0000002_seed_0']
  assert longer.shape == (2, 7, 16, 16, 3)
  np.testing.assert_allclose(longer[:, :5], [given] * 2, atol=0.02)
  assert np.abs(longer[0] - longer[1]).max() > 0.01
  command(finished, '--mode=interpolate', '--factor=3', '--label=1', *flag)
  slower = saved['interpolate_grey_0000002_seed_0']
  assert slower.shape == (1, 13, 16, 16, 3)
  np.testing.assert_allclose(slower[0, ::3], given, atol=0.02)
  command(finished, '--mode=upsample', *flag)
  small = given[None, :, :8, :8]
  larger = vdm_jax.load(finished).upsample(
    jax.random.key(0), small, num_steps=2
  )
  found = saved['upsample_grey_0000002_seed_0']
  np.testing.assert_allclose(found, larger, atol=0.02)


@pytest.mark.parametrize(
  ('arguments', 'part'),
  [
    (['--mode=extend'], '--mode=extend needs --video=FILE'),
    (['--mode=extend', '--video=no.mp4'], 'There is no file no.mp4'),
    (['--mode=upsample', '--video=no.mp4', '--factor=1'], '--factor=1'),
    (['--mode=sample', '--sampler=heum'], "'heum'; it must be one of"),
    (['--mode=sample', '--sampler=deis,order'], "'order' is not argument"),
    (
      ['--mode=extend', '--content=0'],
      '--content says nothing to --mode=extend: leave it out; it is for '
      '--mode=sample.',
    ),
    (['--mode=sample', '--factor=2'], 'for --mode=interpolate or upsample.'),
    (['--mode=evaluate', SHAPES], '--config says nothing to --mode=evaluate'),
    (['--mode=sample', '--label=48'], 'give 2 classes in [0, 47]'),
    (['--mode=sample', '--label=red'], '--label=red'),
    (['--mode=sample', '--content=0,red'], '--content=0,red is not allowed'),
    (['--mode=sample', '--motion=0,1.5'], '--motion=0,1.5 is not allowed'),
    (['--mode=sample', '--motion='], 'motion is []; give 2 whole numbers'),
  ],
)
def test_what_cannot_be_drawn_is_said(finished, capsys, arguments, part):
  assert part in fails(capsys, finished, *arguments)


@pytest.mark.fault(12)
def test_another_config_is_refused_and_named(finished, capsys):
  before = (finished / 'config.json').read_text()
  message = fails(
    capsys, finished, SHAPES, *QUICK, '--config.optimizer.learning_rate=0.5'
  )
  assert 'holds a run of another config' in message
  rate = json.loads(before)['optimizer']['learning_rate']
  assert f'learning_rate is 0.5, there it is {rate}' in message
  assert (finished / 'config.json').read_text() == before


@pytest.mark.fault(29)
def test_a_second_trainer_is_refused_and_leaves_nothing(finished, capsys):
  before = (finished / 'config.json').read_text()
  with opened(finished / 'checkpoints'):
    longer = '--config.train.num_steps=9'
    message = fails(capsys, finished, SHAPES, *QUICK, longer)
  assert f'is in use by process {os.getpid()} on ' in message
  assert (finished / 'config.json').read_text() == before


@pytest.mark.fault(7)
def test_a_run_that_a_signal_stopped_asks_to_be_started_again(
  tmp_path, monkeypatch
):
  stopped = loop.Result(state=None, step=1, stopped=True, skipped_clips={})
  monkeypatch.setattr(loop, 'train', lambda *_, **__: stopped)
  assert command(tmp_path / 'run', SHAPES, *QUICK) == os.EX_TEMPFAIL == 75
  assert not (tmp_path / 'run' / 'samples').exists()


@pytest.mark.fault(8)
@pytest.mark.parametrize(
  'error', [CheckpointError('no'), NonFiniteError('no'), OSError('no')]
)
def test_what_gives_way_in_a_run_is_one_sentence(
  tmp_path, capsys, monkeypatch, error
):
  monkeypatch.setattr(loop, 'train', mock.Mock(side_effect=error))
  message = fails(capsys, tmp_path / 'run', SHAPES, *QUICK, code=1)
  assert message == 'error: no'


@pytest.mark.fault(13)
def test_a_checkpoint_of_another_config_draws_nothing(finished, tmp_path):
  """A network of the same shapes that was trained for something else."""
  other = tmp_path / 'other'
  shutil.copytree(finished, other)
  config = json.loads((other / 'config.json').read_text())
  assert config['system']['parameterization']['name'] == 'v'
  config['system']['parameterization']['name'] = 'x'
  (other / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ConfigError, match="is 'x', there it is 'v'"):
    vdm_jax.load(other)


@pytest.mark.fault(14)
@pytest.mark.parametrize(
  ('arguments', 'parts'),
  [
    (['--config.train.num_stesp=5'], ['num_stesp', 'Did you mean "num_steps"']),
    (['--config.trian.num_steps=5'], ['Did you mean "train"']),
    (['--config.train.num_steps=many'], ['num_steps', 'many']),
    (['--config.train.num_steps=0'], ['config.train.num_steps=0']),
    (['--config.data.height=15'], ['15x16', 'divisible by 4']),
    (['--config.data.height=4'], ['height', '8']),
    (['--config.train.batch_size=3'], ['batch_size=3 does not divide by 8']),
    (['--config.mesh.fsdp=3'], ['fsdp=3', 'there are 8 devices']),
    (['--config.system.loss_weight=epz'], ["'epz' is unknown"]),
    (['--config.sample.sampler.variance_mix=2.0'], ['variance_mix=2.0']),
    (['--config.data.name=folders'], ["Did you mean 'folder'"]),
  ],
  ids=lambda a: a[0] if a[0].startswith('--') else '',
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
  tmp_path, capsys, arguments, parts
):
  workdir = tmp_path / 'never'
  message = fails(capsys, workdir, SHAPES, *EIGHT, *arguments)
  for part in parts:
    assert part in message
  assert not workdir.exists()


def test_training_needs_a_config(tmp_path, capsys):
  assert 'needs --config' in fails(capsys, tmp_path / 'never')


@pytest.mark.fault(20)
def test_a_folder_without_videos_is_refused(tmp_path, capsys):
  empty = tmp_path / 'empty'
  empty.mkdir()
  path = f'--config.data.path={empty}'
  message = fails(capsys, tmp_path / 'never', FOLDER, *QUICK, path)
  assert str(empty) in message
  path = f'--config.data.path={tmp_path / "missing"}'
  message = fails(capsys, tmp_path / 'never', FOLDER, *QUICK, path)
  assert 'missing' in message
  assert not (tmp_path / 'never').exists()


def test_sampling_needs_a_finished_run(tmp_path, capsys, finished):
  message = fails(capsys, tmp_path, '--mode=sample')
  assert 'is not a workdir' in message
  young = tmp_path / 'young'
  young.mkdir()
  shutil.copy(finished / 'config.json', young)
  message = fails(capsys, young, '--mode=sample')
  assert 'no finished checkpoint yet' in message
  assert sorted(p.name for p in young.iterdir()) == ['config.json']


@pytest.mark.fault(9)
def test_a_workdir_that_cannot_be_written_is_refused(tmp_path, capsys):
  # A file in the place of the folder stops even root.
  blocked = tmp_path / 'file'
  blocked.write_text('mine')
  message = fails(capsys, blocked, SHAPES, *QUICK)
  assert str(blocked) in message
  assert blocked.read_text() == 'mine'


@pytest.mark.fault(12, 16)
@pytest.mark.slow  # a whole run, as that of `finished`
def test_a_folder_of_videos_trains_and_names_what_it_left_out(tmp_path, capsys):
  data = tmp_path / 'data'
  data.mkdir()
  rng = np.random.default_rng(0)
  for name in ('a.mp4', 'b.gif'):
    clip = np.repeat(rng.uniform(-1, 1, (1, 16, 16, 3)), 8, axis=0)
    video.save(data / name, clip)
  (data / 'zero.mp4').touch()
  (data / 'noise.avi').write_bytes(rng.bytes(2000))
  video.save(data / 'short.mp4', np.zeros((2, 16, 16, 3)))
  workdir = tmp_path / 'run'
  command(workdir, FOLDER, *QUICK, f'--config.data.path={data}')
  out = capsys.readouterr().out
  assert '3 files could not be used' in out
  for name in ('zero.mp4', 'noise.avi', 'short.mp4'):
    assert name in out
  assert (workdir / 'samples' / 'final_0000002.mp4').exists()
  message = fails(capsys, workdir, '--mode=evaluate')
  assert '--weights=DIR' in message
  assert 'i3d_k400.flax' in message
  shutil.copy(data / 'a.mp4', data / 'c.mp4')
  longer = '--config.train.num_steps=3'
  message = fails(
    capsys, workdir, FOLDER, *QUICK, f'--config.data.path={data}', longer
  )
  assert 'not what the checkpoint was trained on' in message


@pytest.mark.slow
def test_packed_clips_train_like_their_files(tmp_path, capsys):
  data = tmp_path / 'data'
  data.mkdir()
  for index in range(3):
    frames = np.full((6, 16, 16, 3), 0.2 * index, np.float32)
    video.save(data / f'{index}.mp4', frames)
  (data / 'bad.mp4').write_bytes(b'nothing')
  workdir = tmp_path / 'run'
  command(
    workdir,
    FOLDER,
    *QUICK,
    f'--config.data.path={data}',
    '--mode=pack',
    '--codec=raw',
    '--clips=2',
  )
  out = capsys.readouterr().out
  assert '6 clips in 1 shards' in out
  assert str(workdir / 'packed') in out
  packed = FOLDER.replace(':smoke', ':smoke,packed')
  command(workdir, packed, *QUICK, f'--config.data.path={workdir / "packed"}')
  assert (workdir / 'samples' / 'final_0000002.mp4').exists()
