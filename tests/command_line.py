"""The command line, run inside of a test's process."""

import pathlib
import sys
from unittest import mock

import pytest
from absl import flags

from vdm_jax import commands, main

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
SHAPES = f'--config={CONFIGS / "moving_shapes.py"}:smoke'
FOLDER = f'--config={CONFIGS / "folder.py"}:smoke'
EIGHT = '--config.train.batch_size=8', '--config.sample.batch_size=8'
QUICK = *EIGHT, '--config.network.multipliers=(1,)'


def forget_flags():
  """Makes the flags of this process as they were before the first command."""
  flags.FLAGS.unparse_flags()
  for name in list(flags.FLAGS):
    if name.startswith('config.'):  # defined anew by each config
      delattr(flags.FLAGS, name)
  for flag in flags.FLAGS.get_flags_for_module(main.__name__):
    flag.unparse()


def command(workdir, *arguments):
  """Runs `python -m vdm_jax.main --workdir=... arguments` in this process.

  Returns:
    The exit code, None as 0.
  """
  forget_flags()
  where = [f'--workdir={workdir}'] if workdir else []
  argv = ['main', *where, *arguments]
  with mock.patch.object(sys, 'argv', argv):  # ml_collections reads it
    return main.main(main.parse_flags(argv))


def saved_by(workdir, *arguments):
  """Returns the videos that a command of one output would save."""
  kept = []

  def keep(workdir, name, videos, fps):
    kept.append(videos)

  with mock.patch.object(commands, 'save_samples', keep):
    command(workdir, *arguments)
  (videos,) = kept
  return videos


def fails(capsys, workdir, *arguments, code=2):
  """Returns the error sentence of a command that must exit with `code`."""
  with pytest.raises(SystemExit) as stop:
    command(workdir, *arguments)
  assert stop.value.code == code
  message = capsys.readouterr().err.strip().splitlines()[-1]
  assert message.startswith('error: ')
  return message
