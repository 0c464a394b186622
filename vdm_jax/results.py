"""What a run leaves behind for people: sample files and their evaluation."""

import dataclasses
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdm_jax import evaluation, video
from vdm_jax.conditions import in_turn
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import to_float
from vdm_jax.data.registry import build_source
from vdm_jax.job import Job
from vdm_jax.systems.protocol import Params
from vdm_jax.training.sampling import VideoSampler


def save_samples(
  workdir: pathlib.Path, name: str, videos: np.ndarray, fps: int
) -> None:
  """Writes videos as gif, mp4 and contact sheet into workdir/samples."""
  if jax.process_index() != 0:
    return
  folder = workdir / 'samples'
  folder.mkdir(parents=True, exist_ok=True)
  for suffix in ('gif', 'mp4', 'png'):
    video.save(folder / f'{name}.{suffix}', videos, fps=fps)
  logging.info('Samples: %s', folder / f'{name}.gif')


def coarse_clips(job: Job, workdir: pathlib.Path, num: int) -> dict[str, Any]:
  """Returns what a model that refines is tried on: the `Cond` of real clips.

  Held-out ones where the data has such; nothing for other models.

  Raises:
    ValueError, OSError: as in `Job.source`.
  """
  system: Any = job.system
  if system.refines == (1, 1) or not num:
    return {}
  config = dict(job.config)
  if config['data']['name'] == 'moving_shapes':
    config['data'] = {**config['data'], 'split': 'validation'}
  source = dataclasses.replace(job, config=config).clips(workdir)
  clips, index = [], 0
  while len(clips) < num:
    try:
      rng = np.random.default_rng(index)
      clips.append(source.clip(index % len(source), rng))
    except UnreadableClip:
      if index > len(source) + num:
        raise
    index += 1
  cond = {k: np.stack([clip[k] for clip in clips]) for k in system.conditions}
  videos = np.stack([clip['video'] for clip in clips])
  if videos.dtype == np.uint8:
    videos = to_float(videos)
  return {**cond, 'low': np.asarray(system.coarse(jnp.asarray(videos)))}


def finish(
  workdir: pathlib.Path,
  job: Job,
  draw: VideoSampler,
  params: Params,
  *,
  step: int,
  seed: int,
  num: int | None = None,
) -> None:
  """Draws samples, saves some and, on moving_shapes, judges all."""
  data = job.config['data']
  exact = data['name'] == 'moving_shapes'
  if num is None:
    num = job.sample.num_evaluated if exact else job.sample.num
  conditions = job.conditions(workdir)
  label, prompt = conditions.labels_in_turn(num), None
  if exact and conditions.texts is not None:  # a store may hold other captions
    prompt = in_turn(num, list(build_source(data).texts()))
    label = evaluation.labels_of(data, prompt)
  elif conditions.texts is not None:
    prompt = conditions.captions_in_turn(num)
  cond = coarse_clips(job, workdir, num)
  if cond:  # it shows what its clips show
    label = prompt = None
  else:
    cond = conditions(num, label if prompt is None else None, prompt)
  videos = draw(params, jax.random.key(seed), num, cond)
  shown = videos[: job.sample.num]
  save_samples(workdir, f'final_{step:07d}', shown, job.sample.fps)
  if not exact or jax.process_index() != 0:
    return
  results = evaluation.evaluate(videos, data, label)
  path = workdir / 'evaluation.json'
  evaluation.write(path, {'step': step, 'videos': num, **results})
  if label is not None:
    asked = prompt or evaluation.describe(data, label)
    print(f'Samples, from the top: {", ".join(asked[: len(shown)])}.')
  print(f'Exact evaluation of {num} videos at step {step} ({path}):')
  print(evaluation.table(results))


def report_skipped(source: Any, skipped_clips: dict[str, str]) -> None:
  """Names the files that were left out of training, and why."""
  skipped = dict(getattr(source, 'skipped', ())) | skipped_clips
  if skipped:
    print(f'{len(skipped)} files could not be used:')
    for path, reason in sorted(skipped.items()):
      print(f'  {path}: {reason}')
