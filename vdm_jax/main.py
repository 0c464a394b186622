"""Command line: prepare data, train, sample and evaluate.

  python -m vdm_jax.main --config=configs/moving_shapes.py --workdir=DIR
  python -m vdm_jax.main --mode=sample --workdir=DIR --num=16
  python -m vdm_jax.main --mode=extend --workdir=DIR --video=FILE
  python -m vdm_jax.main --mode=cascade --workdir=DIR --stages=DIR,DIR
  python -m vdm_jax.main --mode=evaluate --workdir=DIR
  python -m vdm_jax.main --mode=encode --config=FILE --workdir=DIR
  python -m vdm_jax.main --mode=pack --config=FILE --workdir=DIR
  python -m vdm_jax.main --mode=unpack --archive=FILE --workdir=DIR
  python -m vdm_jax.main --mode=plan --config=FILE --topology=v4:4x4x8

Any field of a config can be set: --config.train.batch_size=32.  Training goes
on where the run in DIR stopped; Ctrl-C or SIGTERM saves first.

Exit codes: 0 done; 75 stopped by a signal, saved, to be started again; 2 wrong
input; 1 something gave way, a full disk or a damaged checkpoint say.
"""

import functools
import logging
import pathlib
import sys
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from vdm_jax import commands, tasks
from vdm_jax.config import ConfigError
from vdm_jax.data.codecs import CODECS
from vdm_jax.errors import FAILURES, WRONG_INPUT, UserError
from vdm_jax.loading import load
from vdm_jax.planning.report import COMPILE
from vdm_jax.process import set_up

_LOADED = {'num', 'seed', 'encoder', 'experts'}
_DRAWN = _LOADED | {'num_steps', 'sampler', 'guidance'}
_ASKED = _DRAWN | {'label', 'prompt', 'image'}
_EDITED = _ASKED | {'video', 'method', 'block_noise'}
_OF_MODE = {  # the flags that a mode reads, beside those that all do
  'train': {'config', 'num'},
  'sample': _ASKED | {'content', 'motion'},
  'extend': _EDITED | {'num_frames', 'overlap', 'coarse'},
  'interpolate': _EDITED | {'factor'},
  'upsample': _EDITED | {'factor', 'overlap'},
  'cascade': (_ASKED | {'stages'}) - {'experts'},
  'evaluate': _LOADED | {'protocol', 'weights', 'num_real', 'num_frames'},
  'encode': {'config'},
  'pack': {'config', 'codec', 'clips'},
  'unpack': {'archive'},
  'plan': {'config', 'topology', 'compile'},
}

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_MODE = flags.DEFINE_enum('mode', 'train', list(_OF_MODE), 'What to do.')
_NUM = flags.DEFINE_integer(
  'num', None, 'Videos to draw; by default as many as the config says.'
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Seed of what is drawn; training has config.seed.'
)
_LABEL = flags.DEFINE_multi_integer(
  'label', None, 'Class of a video; several are taken in turn.'
)
_PROMPT = flags.DEFINE_multi_string(
  'prompt', None, 'Caption of a video; several are taken in turn.'
)
_IMAGE = flags.DEFINE_multi_string(
  'image', None, 'File whose like a video shows; several are taken in turn.'
)
_CONTENT = flags.DEFINE_list(
  'content', None, 'Numbers; videos of the same one share their base noise.'
)
_MOTION = flags.DEFINE_list('motion', None, 'Likewise their residual noise.')
_BLOCK_NOISE = flags.DEFINE_enum(
  'block_noise', None, ['fresh', 'shared'], 'Of the parts of a long video.'
)
_METHOD = flags.DEFINE_enum(
  'method', None, ['reconstruction', 'replacement'], 'Of what is known.'
)
_NUM_STEPS = flags.DEFINE_integer('num_steps', None, 'Steps of the sampler.')
_SAMPLER = flags.DEFINE_string(
  'sampler', None, 'E.g. ddim, or ancestral,variance_mix=0.3.'
)
_GUIDANCE = flags.DEFINE_float(
  'guidance', None, 'Classifier-free guidance; 1 is none.'
)
_VIDEO = flags.DEFINE_string(
  'video', None, 'File to extend, interpolate or upsample.'
)
_NUM_FRAMES = flags.DEFINE_integer(
  'num_frames', None, 'Frames of a video that is extended or measured.'
)
_FACTOR = flags.DEFINE_integer(
  'factor',
  None,
  "How many times more frames, or more rows and columns; a model's own, or 2.",
)
_ENCODER = flags.DEFINE_string(
  'encoder',
  None,
  'Folder of the (first) text encoder, or else the visual one.',
)
_EXPERTS = flags.DEFINE_list(
  'experts', [], 'Workdirs of experts that make one model with --workdir.'
)
_STAGES = flags.DEFINE_list(
  'stages', [], 'Workdirs of a cascade, coarse to fine; A+B are experts.'
)
_OVERLAP = flags.DEFINE_integer(
  'overlap',
  None,
  'Frames that blocks of a long video share: half of one, or a quarter where a '
  'model is trained to enlarge.',
)
_COARSE = flags.DEFINE_string(
  'coarse', None, 'Workdir of a slower model that extends first.'
)
_PROTOCOL = flags.DEFINE_string(
  'protocol', 'own', 'What samples are measured by; see docs/evaluation.md.'
)
_WEIGHTS = flags.DEFINE_string(
  'weights', '', "Folder of the feature networks' weights, or 'random'."
)
_NUM_REAL = flags.DEFINE_integer(
  'num_real', None, "Real clips to compare with, if not the protocol's number."
)
_ARCHIVE = flags.DEFINE_string('archive', None, 'Zip or tar file to unpack.')
_CODEC = flags.DEFINE_enum('codec', 'jpeg', list(CODECS), 'Of packed clips.')
_CLIPS = flags.DEFINE_integer('clips', 1, 'Clips packed of each video.')
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'Chips to plan for: v4, v5e, v5p or v6e, e.g. v4:4x4x8.'
)
_COMPILE = flags.DEFINE_enum(
  'compile',
  'nothing',
  list(COMPILE),
  'What a plan asks the TPU compiler: each distinct block (minutes) or the '
  'whole step (an hour).',
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Join the other hosts of a pod (jax.distributed).  TPU pods and SLURM say '
  'by themselves who they are; elsewhere give the next three flags too.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'ADDRESS:PORT of the first host.'
)
_NUM_HOSTS = flags.DEFINE_integer('num_hosts', None, 'Hosts of the job.')
_HOST = flags.DEFINE_integer('host', None, 'Which one this is, from 0.')


def _sample_options(num: int) -> dict[str, Any]:
  """What the flags say of how to sample `num` videos, and nothing else."""

  def repeated(values):
    return values and [values[i % len(values)] for i in range(num)]

  options = {
    'num_steps': _NUM_STEPS.value,
    'guidance_scale': _GUIDANCE.value,
    'sampler': _SAMPLER.value and tasks.parse_sampler(_SAMPLER.value),
    'label': repeated(_LABEL.value),
    'prompt': repeated(_PROMPT.value),
    'image': repeated(_IMAGE.value),
    'content': repeated(_whole_numbers(_CONTENT)),
    'motion': repeated(_whole_numbers(_MOTION)),
    'method': _METHOD.value,
    'block_noise': _BLOCK_NOISE.value,
    'overlap': _OVERLAP.value,
  }
  return {name: value for name, value in options.items() if value is not None}


def _whole_numbers(flag: flags.FlagHolder) -> list[int] | None:
  """What a flag lists, e.g. --content=0,0,1; None where it is not given.

  Raises:
    ConfigError: for something else.
  """
  if flag.value is None:
    return None
  try:
    return [int(part) for part in flag.value]
  except ValueError:
    given = f'--{flag.name}={",".join(flag.value)}'
    raise ConfigError(
      f'{given} is not allowed: give whole numbers from 0, which the videos '
      f'take in turn, e.g. --{flag.name}=0,0,1.'
    ) from None


def _loader(workdirs: list[str]) -> functools.partial:
  """What loads the model of a workdir, or of several of experts."""
  paths = [pathlib.Path(name).absolute() for name in workdirs]  # no names
  where = paths[0] if len(paths) == 1 else paths
  return functools.partial(load, where, _ENCODER.value)


def _check_flags(mode: str) -> None:
  """Raises UserError for a flag that the mode would not read, or needs."""
  if mode == 'plan':
    if _WORKDIR.present:
      raise UserError('--mode=plan writes nothing: leave --workdir out.')
  elif not _WORKDIR.value:
    raise UserError(f'--mode={mode} needs --workdir, the folder of the run.')
  for name in sorted(set().union(*_OF_MODE.values()) - _OF_MODE[mode]):
    if flags.FLAGS[name].present:
      others = [other for other, names in _OF_MODE.items() if name in names]
      raise UserError(
        f'--{name} says nothing to --mode={mode}: leave it out; it is for '
        f'--mode={" or ".join(others)}.'
      )


def _command(mode: str) -> functools.partial:
  """The command of a mode, with what the flags say to it."""
  config = _CONFIG.value and _CONFIG.value.to_dict()
  options = _sample_options
  drawing: dict[str, Any] = {'num': _NUM.value, 'seed': _SEED.value}
  own = [name for name in (_WORKDIR.value, *_EXPERTS.value) if name]
  trained = {**drawing, 'load': _loader(own)}
  known = {
    'train': functools.partial(commands.train, config, num=_NUM.value),
    'encode': functools.partial(commands.encode, config),
    'pack': functools.partial(
      commands.pack, config, codec=_CODEC.value, clips_per_video=_CLIPS.value
    ),
    'unpack': functools.partial(commands.unpack, archive=_ARCHIVE.value),
    'plan': functools.partial(
      commands.plan, config, topology=_TOPOLOGY.value, compiled=_COMPILE.value
    ),
    'sample': functools.partial(commands.sample, options=options, **trained),
    'cascade': functools.partial(
      commands.cascade,
      stages=[(name, _loader(name.split('+'))) for name in _STAGES.value],
      options=options,
      **drawing,
    ),
    'evaluate': functools.partial(
      commands.evaluate,
      protocol=_PROTOCOL.value,
      weights=_WEIGHTS.value,
      num_real=_NUM_REAL.value,
      num_frames=_NUM_FRAMES.value,
      **trained,
    ),
  }
  return known.get(mode) or functools.partial(
    commands.edit,
    mode,
    video_file=_VIDEO.value,
    num_frames=_NUM_FRAMES.value,
    factor=_FACTOR.value,
    coarse=_COARSE.value and _loader(_COARSE.value.split('+')),
    options=options,
    **trained,
  )


def main(argv: list[str]) -> int | None:
  """Runs the mode that the flags ask for; returns the exit code."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  logging.getLogger().setLevel(logging.INFO)
  logging.getLogger('jax').setLevel(logging.WARNING)
  set_up(
    distributed=_DISTRIBUTED.value,
    coordinator=_COORDINATOR.value,
    num_hosts=_NUM_HOSTS.value,
    host=_HOST.value,
  )
  try:
    _check_flags(_MODE.value)
    where = {'workdir': pathlib.Path(_WORKDIR.value)} if _WORKDIR.value else {}
    return _command(_MODE.value)(**where)
  except (*WRONG_INPUT, *FAILURES) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2 if isinstance(error, WRONG_INPUT) else 1)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; a config's unknown field or bad value is one sentence."""
  try:
    return flags.FLAGS(argv)
  except (AttributeError, KeyError, OSError, ValueError, flags.Error) as error:
    # A KeyError's message is its argument, not its text.
    text = str(error.args[0] if error.args else error).replace('\n', ' ')
    print(f'error: {" ".join(argv[1:])}: {text}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
