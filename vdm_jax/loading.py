"""Trained models from the folders of their runs, and those of the package.

`models/NAME` in this package is a folder like that of a run: the config, the
moving average alone, and a model card.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vdm_jax import job as jobs
from vdm_jax.config import ConfigError, differences
from vdm_jax.job import Job
from vdm_jax.model import Model
from vdm_jax.systems.trained import ALL_TIMES
from vdm_jax.training import foreign, manifest
from vdm_jax.training.checkpoint import Checkpointer
from vdm_jax.training.experts import Expert, Experts
from vdm_jax.training.identity import check_same, identity
from vdm_jax.training.restore import Restored, restore
from vdm_jax.training.step_directory import StepDirectory
from vdm_jax.training.transfer import transfer

Path = str | os.PathLike

_SHIPPED = pathlib.Path(__file__).parent / 'models'


def load(workdir: Path | Sequence[Path], encoder: Path | None = None) -> Model:
  """Loads the newest whole checkpoint of a run; writes nothing.

  Args:
    workdir: of the run, or the name of a model that comes with the package,
      'moving_shapes'; several are expert denoisers, of all noise levels
      together, and make one model.
    encoder: folder of the text encoder, or of the visual one of a model
      without text, where it is not the config's.  Of two text encoders it is
      the first; the second is in the folder that the config says.

  Raises:
    FileNotFoundError: if there is no run or no finished checkpoint.
    CheckpointError: if checkpoints exist but none is whole.
    ValueError: if experts are of different models, or not of every noise level.
  """
  alone = isinstance(workdir, str | os.PathLike)
  paths = [find(path) for path in ([workdir] if alone else workdir)]
  job, *others = [_job(path, encoder) for path in paths]
  for path, other in zip(paths[1:], others, strict=True):
    _check_same(job, other, path)
  if alone and job.system.times == ALL_TIMES:
    restored = _restored(paths[0], job)
    params, steps = restored.state, [restored.step]
  else:
    times = [each.system.times for each in (job, *others)]
    Experts([Expert(t, {}) for t in times])  # or refuses, before it reads
    experts, steps = [], []
    for path, part in zip(paths, times, strict=True):
      restored = _restored(path, job)
      steps.append(restored.step)
      # To the host at once: a device holds one expert at a time.
      host = jax.tree.map(np.asarray, restored.state)
      experts.append(Expert(part, host))
    params = Experts(experts)
  return Model(
    system=job.system,
    params=params,
    video_shape=job.video_shape,
    settings=job.sample,
    conditions=job.conditions(paths[0]),
    frameskip=float(job.config['data'].get('frameskip', 1)),
    step=max(steps),
    fingerprint='-'.join(sorted(map(_fingerprint, paths, steps))),
  )


def find(workdir: Path) -> pathlib.Path:
  """Returns a folder, or where there is none that of a model of this name."""
  path = pathlib.Path(workdir)
  shipped = {model.name: model for model in _SHIPPED.iterdir()}
  return path if path.exists() else shipped.get(str(workdir), path)


def export(workdir: Path, folder: Path) -> None:
  """Writes what `load` needs of a run, a fraction of it, into a new folder.

  Args:
    workdir: of the run; its model takes classes or nothing.
    folder: gets the config and the moving average of the newest checkpoint.

  Raises:
    FileExistsError: if the folder is there.
    FileNotFoundError, CheckpointError: as in `load`.
    ValueError: for a model of text or images, or on several hosts.
  """
  source, target = find(workdir), pathlib.Path(folder)
  config = jobs.read_config(source)
  if jax.process_count() > 1:
    raise ValueError('export works on one host: run it without the others.')
  if {'text', 'clip_text', 'visual'} & config.keys():
    raise ValueError(
      f'the model of {source} is known by its encoder too: share the whole '
      'folder, whose store says which one it is.'
    )
  if target.exists():
    raise FileExistsError(f'{target} is there: give a new folder.')
  restored = _restored(source, jobs.build(config))
  jobs.open_workdir(target, config)
  said = {'config': identity(config)}
  with contextlib.closing(Checkpointer(target / 'checkpoints')) as checkpoints:
    checkpoints.save(restored.step, {'ema': restored.state}, said)
    checkpoints.wait()


def to_start_from(job: Job, workdir: pathlib.Path) -> dict[str, Any]:
  """The parameters to start from, and says which of them fit.

  Raises:
    ValueError, OSError: they do not fit, or are not there.
  """
  if not job.init or StepDirectory(workdir / 'checkpoints').newest({}) >= 0:
    return {}
  fresh = jax.eval_shape(
    lambda key: job.system.init(key, job.video_shape), jax.random.key(0)
  )
  initial = {}
  for part, path in job.init.items():
    if pathlib.Path(path).is_file():
      given = foreign.start(path, fresh, job.system, part)
    else:
      home = pathlib.Path(path)
      given = _restored(home, _job(home, None)).state
    if part == 'all':
      part, given = '', job.system.adapted(given, fresh)
    initial[part] = given
  print(transfer(fresh, initial)[1], flush=True)
  return initial


def _fingerprint(workdir: pathlib.Path, step: int) -> str:
  """Short hash of a run's config and of one of its checkpoints."""
  config = json.dumps(jobs.read_config(workdir), sort_keys=True)
  saved = manifest.read(StepDirectory(workdir / 'checkpoints').step(step))
  said = config, sorted(saved['files'].items())
  return hashlib.sha256(repr(said).encode()).hexdigest()[:12]


def _job(workdir: pathlib.Path, encoder: Path | None) -> Job:
  config = jobs.read_config(workdir)
  for section in ('text', 'visual'):
    if encoder is not None and section in config:
      config[section]['encoder'] = str(encoder)
      break
  return jobs.build(config)


def _check_same(job: Job, other: Job, path: pathlib.Path) -> None:
  """Raises ConfigError unless two experts are of one model."""

  def model(of: Job) -> dict[str, Any]:
    system = {k: v for k, v in of.config['system'].items() if k != 'times'}
    system.pop('sample_schedule', None)  # free, as in a run
    return {
      'network': of.config['network'],
      'system': system,
      'clips': list(of.video_shape),
      'frameskip': of.config['data'].get('frameskip', 1),
    }

  differ = differences(model(job), model(other))
  if differ:
    fields = '; '.join(
      f'{name} is {theirs!r}, not {ours!r}'
      for name, (ours, theirs) in differ.items()
    )
    raise ConfigError(
      f'the expert in {path} is of another model ({fields}): fork experts from '
      'one run.'
    )


def _restored(workdir: pathlib.Path, job: Job) -> Restored:
  like = jax.eval_shape(
    lambda key: job.system.init(key, job.video_shape), jax.random.key(0)
  )
  check = functools.partial(  # the data may have moved since
    check_same,
    config=identity(jobs.read_config(workdir)),
    sections=('system.', 'network.'),
  )
  restored = restore(workdir / 'checkpoints', like, only='ema', check=check)
  if restored is None:
    raise FileNotFoundError(
      f'{workdir} has no finished checkpoint yet: train until the first one.'
    )
  return restored
