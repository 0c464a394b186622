"""Command line: train, sample or evaluate a video diffusion model.

  python -m vdm_jax.main --config=configs/moving_shapes.py --workdir=DIR
  python -m vdm_jax.main --mode=sample --workdir=DIR --num=16
  python -m vdm_jax.main --mode=extend --workdir=DIR --video=FILE
  python -m vdm_jax.main --mode=cascade --workdir=DIR --finer=DIR
  python -m vdm_jax.main --mode=evaluate --workdir=DIR
  python -m vdm_jax.main --mode=encode --config=FILE --workdir=DIR

Any field of a config can be set: --config.train.batch_size=32.  Training goes
on where the run in DIR stopped; Ctrl-C or SIGTERM saves first.
"""

import logging
import os
import pathlib
import sys
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags

from vdm_jax import fidelity, job, model, tasks
from vdm_jax.errors import UserError, clear_errors
from vdm_jax.metrics.report import table
from vdm_jax.results import finish, report_skipped, save_samples
from vdm_jax.training.checkpoint import CheckpointError
from vdm_jax.training.loop import train
from vdm_jax.training.report import NonFiniteError
from vdm_jax.training.sampling import VideoSampler

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'encode', 'sample', 'evaluate', 'cascade', *tasks.TASKS],
  'What to do.',
)
_NUM = flags.DEFINE_integer(
  'num', None, 'Videos to draw; by default as many as the config says.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of all modes but train.')
_LABEL = flags.DEFINE_multi_integer(
  'label', None, 'Class of a video; several are taken in turn.'
)
_PROMPT = flags.DEFINE_multi_string(
  'prompt', None, 'Caption of a video; several are taken in turn.'
)
_NUM_STEPS = flags.DEFINE_integer('num_steps', None, 'Steps of the sampler.')
_SAMPLER = flags.DEFINE_string('sampler', None, 'E.g. ddim or deis,order=3.')
_GUIDANCE = flags.DEFINE_float(
  'guidance', None, 'Classifier-free guidance; 1 is none.'
)
_VIDEO = flags.DEFINE_string('video', None, 'File of a video to work on.')
_NUM_FRAMES = flags.DEFINE_integer(
  'num_frames', None, 'Frames of a video that is extended or measured.'
)
_FACTOR = flags.DEFINE_integer('factor', 2, 'Times more frames, or pixels.')
_ENCODER = flags.DEFINE_string(
  'encoder', None, "Folder of the text encoder, if not the config's."
)
_FINER = flags.DEFINE_string(
  'finer', None, 'Workdir of the larger and faster model of a cascade.'
)
_COARSE = flags.DEFINE_string('coarse', None, 'Workdir of a slower model.')
_PROTOCOL = flags.DEFINE_string('protocol', 'own', 'How to measure samples.')
_WEIGHTS = flags.DEFINE_string(
  'weights', '', "Folder of the feature networks' weights, or 'random'."
)
_NUM_REAL = flags.DEFINE_integer('num_real', None, 'Real clips to compare.')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Join the other hosts.  Neither TPU pod nor SLURM: give the next three too.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'ADDRESS:PORT of the first host.'
)
_NUM_HOSTS = flags.DEFINE_integer('num_hosts', None, 'Hosts of the job.')
_HOST = flags.DEFINE_integer('host', None, 'Which one this is, from 0.')
flags.mark_flag_as_required('workdir')


def run_training(workdir: pathlib.Path) -> None:
  """Trains, then draws, saves and judges samples of the finished model."""
  with clear_errors():
    if _CONFIG.value is None:
      raise job.ConfigError(
        '--mode=train needs --config, e.g. --config=configs/moving_shapes.py.'
      )
    config = _CONFIG.value.to_dict()
    parts = job.build(config)
    mesh = parts.build_mesh()
    source = parts.source(workdir)
    job.open_workdir(workdir, config)
  draw = VideoSampler(parts.system, parts.video_shape, parts.sample, mesh=mesh)
  num = parts.sample.num
  in_turn = parts.conditions(workdir).default(num)

  def look(step, params):
    videos = draw(params, jax.random.key(parts.seed + 1), num, in_turn)
    save_samples(workdir, f'step_{step:07d}', videos, parts.sample.fps)

  result = train(
    parts.system,
    source,
    video_shape=parts.video_shape,
    settings=parts.train,
    optimizer=parts.optimizer,
    mesh=mesh,
    seed=parts.seed,
    workdir=workdir,
    look=look,
  )
  report_skipped(source, result.skipped_clips)
  if result.step >= parts.train.num_steps:
    finish(
      workdir,
      parts,
      draw,
      result.state.ema,
      step=result.step,
      seed=parts.seed + 2,
      num=_NUM.value,
    )


def run_sampling(workdir: pathlib.Path) -> None:
  """Draws videos with the newest checkpoint."""
  with clear_errors():
    trained = _load(workdir)
    num = _NUM.value or trained.settings.num
    videos = trained.sample(
      jax.random.key(_SEED.value),
      num,
      batch_size=min(num, trained.settings.batch_size),
      show_progress=True,
      **_sample_options(num),
    )
  name = f'sample_{trained.step:07d}_seed_{_SEED.value}'
  save_samples(workdir, name, videos, trained.settings.fps)


def run_task(workdir: pathlib.Path) -> None:
  """Extends, interpolates or upsamples a video file."""
  with clear_errors():
    if _VIDEO.value is None:
      raise ValueError(f'--mode={_MODE.value} needs --video=FILE.')
    trained = _load(workdir)
    path = pathlib.Path(_VIDEO.value)
    known = tasks.read(path, trained, _MODE.value, _FACTOR.value)
    known = known.repeat(_NUM.value or 1, 0)
    videos = tasks.run(
      _MODE.value,
      trained,
      jax.random.key(_SEED.value),
      known,
      num_frames=_NUM_FRAMES.value,
      factor=_FACTOR.value,
      coarse=_load(_COARSE.value) if _COARSE.value else None,
      **_sample_options(len(known)),
    )
  name = f'{_MODE.value}_{path.stem}_{trained.step:07d}_seed_{_SEED.value}'
  save_samples(workdir, name, videos, trained.settings.fps)


def _load(workdir: str | pathlib.Path) -> model.Model:
  return model.load(workdir, _ENCODER.value)


def run_cascade(workdir: pathlib.Path) -> None:
  """Draws small slow videos and makes them large and fast, VDM Figure 2."""
  with clear_errors():
    if _FINER.value is None:
      raise ValueError('--mode=cascade needs --finer=WORKDIR.')
    base, finer = _load(workdir), _load(_FINER.value)
    num = _NUM.value or base.settings.num
    small, large = tasks.cascade(
      base, finer, jax.random.key(_SEED.value), num, **_sample_options(num)
    )
  name = f'{base.step:07d}_seed_{_SEED.value}'
  save_samples(workdir, f'cascade_{name}_small', small, base.settings.fps)
  fps = base.settings.fps * large.shape[1] // small.shape[1]
  save_samples(workdir, f'cascade_{name}', large, fps)


def run_encoding(workdir: pathlib.Path) -> None:
  """Encodes the captions of the data, once for all training."""
  with clear_errors():
    if _CONFIG.value is None:
      raise job.ConfigError('--mode=encode needs --config.')
    if jax.process_index() != 0:  # one store for all hosts
      return
    store = job.build(_CONFIG.value.to_dict()).encode(workdir)
  print(f'{len(store)} captions are encoded in {store.path}.')


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
  }
  return {name: value for name, value in options.items() if value is not None}


def run_evaluation(workdir: pathlib.Path) -> None:
  """Judges samples of the newest checkpoint.

  By the exact evaluation where the data has one, and by a protocol where the
  weights of its feature networks are given.
  """
  with clear_errors():
    parts = job.build(job.read_config(workdir))
    exact = parts.config['data']['name'] == 'moving_shapes'
    if _WEIGHTS.value or not exact:
      report = fidelity.evaluate(
        _load(workdir),
        parts.config['data'],
        workdir,
        protocol=_PROTOCOL.value,
        weights=_WEIGHTS.value,
        num_real=_NUM_REAL.value,
        num_generated=_NUM.value,
        num_frames=_NUM_FRAMES.value,
      )
      print(f'{table(report)}\nReport: {report["path"]}')
      return
    trained = _load(workdir)
    finish(
      workdir,
      parts,
      VideoSampler(parts.system, parts.video_shape, parts.sample),
      trained.params,
      step=trained.step,
      seed=_SEED.value,
      num=_NUM.value,
    )


def _set_up_jax() -> None:
  """Settings of the process that are nobody else's business."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize(
      coordinator_address=_COORDINATOR.value,
      num_processes=_NUM_HOSTS.value,
      process_id=_HOST.value,
    )
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    cache = pathlib.Path('~/.cache/vdm_jax/compilation').expanduser()
    jax.config.update('jax_compilation_cache_dir', str(cache))


def main(argv: list[str]) -> None:
  """Runs the mode that the flags ask for."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  logging.getLogger().setLevel(logging.INFO)
  logging.getLogger('jax').setLevel(logging.WARNING)
  _set_up_jax()
  workdir = pathlib.Path(_WORKDIR.value or '.')  # a required flag
  run = {
    'train': run_training,
    'encode': run_encoding,
    'sample': run_sampling,
    'cascade': run_cascade,
    'evaluate': run_evaluation,
  }.get(_MODE.value, run_task)
  try:
    run(workdir)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except (CheckpointError, NonFiniteError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)


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
