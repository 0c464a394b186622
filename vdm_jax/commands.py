"""What the command line does, one function for each mode.

Every function checks what it was given before it computes: a `UserError` says
in one sentence what to mend.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from vdm_jax import cascade as cascades
from vdm_jax import fidelity, job, tasks
from vdm_jax.data import pack as packing
from vdm_jax.data.archive import unpack as unpack_archive
from vdm_jax.errors import clear_errors
from vdm_jax.loading import to_start_from
from vdm_jax.metrics.report import table
from vdm_jax.model import Model
from vdm_jax.planning.chips import Topology
from vdm_jax.planning.report import plan as planned
from vdm_jax.results import coarse_clips, finish, report_skipped, save_samples
from vdm_jax.systems.trained import ALL_TIMES
from vdm_jax.training import loop
from vdm_jax.training.identity import identity
from vdm_jax.training.sampling import VideoSampler

Options = Callable[[int], dict[str, Any]]
"""How to sample so many videos: arguments of `Model.sample` and the like."""

Load = Callable[[], Model]


def train(
  config: dict[str, Any] | None, workdir: pathlib.Path, num: int | None
) -> int | None:
  """Trains, then draws, saves and judges samples of the finished model.

  Returns:
    The exit code for 'again' where a signal has stopped it.
  """
  with clear_errors():
    config = _given(config, 'train')
    parts = job.build(config)
    mesh = parts.build_mesh()
    source = parts.source(workdir)
    times, shown = parts.system.times, parts.sample.num
    looked = shown if parts.train.look_every else 0
    in_turn = coarse_clips(parts, workdir, looked)
    in_turn = in_turn or parts.conditions(workdir).default(shown)
    initial = to_start_from(parts, workdir)
    job.open_workdir(workdir, config)  # last: what is refused leaves no trace
  draw = VideoSampler(parts.system, parts.video_shape, parts.sample, mesh=mesh)

  def look(step, params):
    videos = draw(params, jax.random.key(parts.seed + 1), shown, in_turn)
    save_samples(workdir, f'step_{step:07d}', videos, parts.sample.fps)

  result = loop.train(
    parts.system,
    source,
    video_shape=parts.video_shape,
    settings=parts.train,
    optimizer=parts.optimizer,
    mesh=mesh,
    seed=parts.seed,
    workdir=workdir,
    look=look if times == ALL_TIMES else None,
    initial=initial,
    config=identity(parts.config),
  )
  report_skipped(source, result.skipped_clips)
  if result.stopped:
    return os.EX_TEMPFAIL
  if times != ALL_TIMES:
    print(
      f'This is an expert of times {times[0]:g} to {times[1]:g}: it makes no '
      'videos but with the others, --mode=sample --experts=WORKDIR.'
    )
    return None
  ema, seed = result.state.ema, parts.seed + 2
  finish(workdir, parts, draw, ema, step=result.step, seed=seed, num=num)


def encode(config: dict[str, Any] | None, workdir: pathlib.Path) -> None:
  """Encodes captions and middle frames, once for all training."""
  with clear_errors():
    config = _given(config, 'encode')
    if jax.process_index() != 0:  # one store for all hosts
      return
    done = job.build(config).encode(workdir)
  print('\n'.join(done))


def plan(
  config: dict[str, Any] | None, *, topology: str | None, compiled: str
) -> None:
  """Says what a job would take of a TPU topology; writes and runs nothing."""
  with clear_errors():
    config = _given(config, 'plan')
    if topology is None:
      raise ValueError(
        '--mode=plan needs --topology, the chips to plan for, e.g. v4:4x4x8.'
      )
    chips = Topology.parse(topology)
    cache = pathlib.Path('~/.cache/vdm_jax/plan').expanduser()
    print(planned(config, chips, compiled=compiled, cache=cache))


def unpack(workdir: pathlib.Path, *, archive: str | None) -> None:
  """Unpacks an archive of videos into a new folder, and nowhere else."""
  with clear_errors():
    if archive is None:
      raise ValueError('--mode=unpack needs --archive=FILE.')
    count = unpack_archive(archive, workdir)
  print(f'{count} files are in {workdir}.')


def pack(
  config: dict[str, Any] | None,
  workdir: pathlib.Path,
  *,
  codec: str,
  clips_per_video: int,
) -> None:
  """Writes the data of a config as shards that are read fast."""
  with clear_errors():
    parts = job.build(_given(config, 'pack'))
    if jax.process_index() != 0:  # one pack for all hosts
      return
    folder = workdir / 'packed'
    index = packing.pack(
      parts.clips(workdir), folder, codec=codec, clips_per_video=clips_per_video
    )
  shards = index['shards']
  clips, size = (sum(s[name] for s in shards) for name in ('clips', 'bytes'))
  print(
    f'{clips} clips in {len(shards)} shards, {size / 2**20:.1f} MiB, are in '
    f'{folder}.'
  )
  report_skipped(None, {k: v for s in shards for k, v in s['skipped'].items()})


def sample(
  workdir: pathlib.Path,
  *,
  load: Load,
  num: int | None,
  seed: int,
  options: Options,
) -> None:
  """Draws videos with the newest checkpoint."""
  with clear_errors():
    model = load()
    num = num or model.settings.num
    asked = _asked(options, num, model)
    videos = model.sample(
      jax.random.key(seed),
      num,
      batch_size=min(num, model.settings.batch_size),
      show_progress=True,
      **asked,
    )
  save_samples(
    workdir, f'sample_{model.step:07d}_seed_{seed}', videos, model.settings.fps
  )


def edit(
  task: str,
  workdir: pathlib.Path,
  *,
  load: Load,
  video_file: str | None,
  num: int | None,
  seed: int,
  num_frames: int | None,
  factor: int | None,
  coarse: Load | None,
  options: Options,
) -> None:
  """Extends, interpolates or upsamples a video file."""
  with clear_errors():
    if video_file is None:
      raise ValueError(f'--mode={task} needs --video=FILE.')
    model, path = load(), pathlib.Path(video_file)
    factor = tasks.factor_of(task, model, factor)
    known = tasks.read(path, model, task, factor).repeat(num or 1, 0)
    videos = tasks.run(
      task,
      model,
      jax.random.key(seed),
      known,
      num_frames=num_frames,
      factor=factor,
      coarse=coarse() if coarse else None,
      **_asked(options, len(known), model),
    )
  name = f'{task}_{path.stem}_{model.step:07d}_seed_{seed}'
  save_samples(workdir, name, videos, model.settings.fps)


def cascade(
  workdir: pathlib.Path,
  *,
  stages: Sequence[tuple[str, Load]],
  num: int | None,
  seed: int,
  options: Options,
) -> None:
  """Lets each model refine what the one before made, and keeps all of it.

  The same command goes on behind the last stage that is done.
  """
  with clear_errors():
    if not stages:
      raise ValueError(
        '--mode=cascade needs --stages=WORKDIR,WORKDIR,..., from the model '
        'that makes videos of nothing to the finest.'
      )
    models = [load() for _, load in stages]
    num = num or models[0].settings.num
    made = cascades.run(
      models,
      jax.random.key(seed),
      num,
      folder=workdir / 'cascade',
      names=[name for name, _ in stages],
      **_asked(options, num, models[0]),
    )
    for number, (videos, kept, path) in enumerate(made):
      said = 'was there' if kept else 'is'
      print(f'Stage {number}: {videos.shape} {said} in {path}.', flush=True)
      # Of 16 frames and those between, 76, the last is where it was.
      faster = (videos.shape[1] - 1) / max(models[0].video_shape[0] - 1, 1)
      fps = round(faster * models[0].settings.fps)
      name = f'cascade_seed_{seed}_stage_{number}'
      save_samples(workdir, name, videos, fps)


def evaluate(
  workdir: pathlib.Path,
  *,
  load: Load,
  num: int | None,
  seed: int,
  protocol: str,
  weights: str,
  num_real: int | None,
  num_frames: int | None,
) -> None:
  """Judges samples of the newest checkpoint.

  By the exact evaluation where the data has one, and by a protocol where the
  weights of its feature networks are given.
  """
  with clear_errors():
    parts = job.build(job.read_config(workdir))
    exact = parts.config['data']['name'] == 'moving_shapes'
    if weights or not exact:
      report = fidelity.evaluate(
        load(),
        parts.config['data'],
        workdir,
        protocol=protocol,
        weights=weights,
        num_real=num_real,
        num_generated=num,
        num_frames=num_frames,
      )
      if jax.process_index() == 0:
        print(f'{table(report)}\nReport: {report["path"]}')
      return
    draw = VideoSampler(parts.system, parts.video_shape, parts.sample)
    made = load()
    finish(
      workdir, parts, draw, made.params, step=made.step, seed=seed, num=num
    )


def _asked(options: Options, num: int, model: Model) -> dict[str, Any]:
  """What the command line asks of `num` videos, with images read."""
  asked = options(num)
  if 'image' in asked:
    asked['image'] = tasks.read_images(asked['image'], model)
  return asked


def _given(config: dict[str, Any] | None, mode: str) -> dict[str, Any]:
  if config is None:
    raise job.ConfigError(
      f'--mode={mode} needs --config, e.g. --config=configs/moving_shapes.py.'
    )
  return config
