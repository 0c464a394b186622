"""The training loop, one linear story.

  1  refuse what cannot work, before anything is compiled or written
  2  build the state where it will live, or restore the newest whole one
  3  compile the step once
  4  for every batch: step, report, and at their intervals log, look, save
  5  save and leave: at the end, on a signal, or with an error

The data position is one integer, the examples seen, which is the step times
the batch size: a restored run draws exactly the batches that an undisturbed
one would have drawn.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vdm_jax.data.pipeline import Pipeline
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training import sharding
from vdm_jax.training.array_store import num_bytes
from vdm_jax.training.checkpoint import Checkpointer, check_space
from vdm_jax.training.finite import check_finite
from vdm_jax.training.identity import check_same
from vdm_jax.training.interrupt import Interrupt
from vdm_jax.training.optimizer import Adam
from vdm_jax.training.report import Report
from vdm_jax.training.state import TrainState
from vdm_jax.training.step import jitted, make_step
from vdm_jax.training.transfer import transfer
from vdm_jax.training.writers import MetricWriter

Look = Callable[[int, Params], None]
"""Called with a step and the EMA: draws and saves videos."""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """How long and how to train, from a config.

  Attributes:
    num_steps: steps of the whole run.
    batch_size: videos in a batch, over all devices and hosts.
    num_images: independent images beside each video, 0 for none (VDM, section
      4.3.1): more examples in a batch at less cost than videos.
    accumulate: micro-batches that a batch is cut into, to save memory.
    ema_decay: of the moving average of the parameters.
    log_every: steps between lines of metrics.
    save_every: steps between checkpoints.
    look_every: steps between sample sheets; 0 for none while training.
    keep: checkpoints kept.
    max_skipped: batches in a row that may be skipped for not being finite.
    num_workers: processes that prepare data; 0 uses threads.
  """

  num_steps: int
  batch_size: int
  num_images: int = 0
  accumulate: int = 1
  ema_decay: float = 0.9999
  log_every: int = 100
  save_every: int = 1000
  look_every: int = 0
  keep: int = 3
  max_skipped: int = 10
  num_workers: int = 0

  def __post_init__(self):
    positive = (
      'num_steps',
      'batch_size',
      'accumulate',
      'log_every',
      'save_every',
      'keep',
      'max_skipped',
    )
    if self.num_images < 0:
      raise ValueError(
        f'config.train.num_images={self.num_images} is not allowed: give 0 or '
        'more.'
      )
    for name in positive:
      if getattr(self, name) < 1:
        raise ValueError(
          f'config.train.{name}={getattr(self, name)} is not allowed: give '
          'at least 1.'
        )


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    state: the last state, saved.
    step: its step.
    stopped: whether a signal ended the run.
    skipped_clips: why clips could not be read, by path.
  """

  state: TrainState
  step: int
  stopped: bool
  skipped_clips: dict[str, str]


def abstract_state(
  system: System, optimizer: Any, video_shape: tuple[int, ...], mesh: Mesh
) -> TrainState:
  """Returns shapes, types and shardings of the state; computes nothing."""
  state = jax.eval_shape(
    lambda key: TrainState.create(system.init(key, video_shape), optimizer),
    jax.random.key(0),
  )
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
    state,
    sharding.state_shardings(state, mesh),
  )


def train(
  system: System,
  source: Any,
  *,
  video_shape: tuple[int, ...],
  settings: TrainSettings,
  optimizer: Adam,
  mesh: Mesh,
  seed: int,
  workdir: pathlib.Path,
  look: Look | None = None,
  initial: Mapping[str, Params] | None = None,
  config: Mapping[str, Any] | None = None,
) -> Result:
  """Trains from the newest checkpoint in `workdir`, or from scratch.

  Args:
    system: what to train.
    source: clips, by index.
    video_shape: (F, H, W, C) of the clips.
    settings: how long and how.
    optimizer: settings of the optimizer.
    mesh: devices.
    seed: of parameters, data order and noise.
    workdir: where checkpoints and metrics go.
    look: draws and saves sample videos.
    initial: trained parameters to start from, by part, see `transfer`; not
      used where a checkpoint is restored.
    config: plain values that say what is trained, kept in the checkpoints.

  Raises:
    ValueError: for settings or initial parameters that do not fit.
    ConfigError: for a checkpoint of another config or of other data.
    CheckpointError, OSError: if a file cannot be read or written.
    NonFiniteError: after `max_skipped` batches in a row, or if a checkpoint
      holds values that are not finite.
    DataError: if no more clips can be had.
  """
  system.check(video_shape)
  sharding.check_batch(
    mesh, settings.batch_size, 'config.train', settings.accumulate
  )
  transformation = optimizer.transformation()
  abstract = abstract_state(system, transformation, video_shape, mesh)
  about = {'config': config or {}, 'fingerprint': source.fingerprint()}
  with contextlib.closing(
    Checkpointer(workdir / 'checkpoints', keep=settings.keep)
  ) as checkpoints:
    restored = checkpoints.restore(
      abstract, check=functools.partial(check_same, **about)
    )
    if restored is None:
      check_space(workdir, num_bytes(abstract))
      state = jax.jit(
        lambda key: TrainState.create(
          system.init(key, video_shape), transformation
        ),
        out_shardings=jax.tree.map(lambda a: a.sharding, abstract),
        # Runs once: compiling a hundred random draws costs more than any gain.
        compiler_options={'xla_backend_optimization_level': 0},
      )(jax.random.key(seed))
      if initial:
        state = _started_from(state, initial)
      first = 0
    else:
      state, first = restored.state, restored.step
      check_finite(
        state,
        f'Step {first} in {workdir / "checkpoints"}',
        'move it away to go on from the step before',
      )
      logging.info('Going on from step %d.', first)
    step = jitted(
      make_step(
        system,
        transformation,
        seed=seed,
        decay=settings.ema_decay,
        accumulate=settings.accumulate,
      ),
      abstract,
    )
    data = Pipeline(
      source,
      batch_size=settings.batch_size,
      seed=seed,
      start=first * settings.batch_size,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
      num_workers=settings.num_workers,
    )

    def save(state: TrainState, at: int) -> None:
      check_finite(
        state,
        f'the state after step {at}',
        'train in another --workdir, with a lower '
        'config.optimizer.learning_rate',
      )
      seen = {'examples_seen': at * settings.batch_size}
      checkpoints.save(at, state, seen | about)

    writer = MetricWriter(workdir, first)
    report = Report(
      writer,
      first,
      num_steps=settings.num_steps,
      batch_size=settings.batch_size,
      log_every=settings.log_every,
      max_skipped=settings.max_skipped,
    )
    now = saved = first
    stop = False
    with (
      contextlib.closing(writer),
      contextlib.closing(iter(data)) as clips,
      Interrupt() as interrupt,
      report,
    ):
      batches = _on_device(clips, mesh)
      while now < settings.num_steps and not stop:
        state, metrics = step(state, next(batches))
        now += 1
        report.add(now, metrics)
        stop = interrupt.requested(now)
        last = stop or now == settings.num_steps
        if last or now % settings.save_every == 0:
          report.drain()  # the guard speaks before anything is saved
          save(state, now)
          saved = now
        if look and not last and now % (settings.look_every or now + 1) == 0:
          look(now, state.ema)
      checkpoints.wait()
      if stop and now < settings.num_steps:
        logging.warning(
          'Stopped by %s: step %d of %d is saved; the same command goes on.',
          interrupt.name,
          saved,
          settings.num_steps,
        )
  return Result(state, now, stop, dict(data.skipped))


def _started_from(
  state: TrainState, initial: Mapping[str, Params]
) -> TrainState:
  """Puts trained parameters into a fresh state."""
  params, _ = transfer(state.params, initial)

  def placed(value, like):  # a buffer of its own: the step donates it
    return jax.device_put(np.array(value, like.dtype), like.sharding)

  return dataclasses.replace(
    state,
    params=jax.tree.map(placed, params, state.params),
    ema=jax.tree.map(placed, params, state.params),
  )


def _on_device(
  batches: Iterator[dict[str, Any]], mesh: Mesh
) -> Iterator[dict[str, Any]]:
  """Yields global batches, the next one already on its way to the devices."""
  ahead = None
  for batch in batches:
    arrays = {k: v for k, v in batch.items() if isinstance(v, np.ndarray)}
    following = sharding.global_batch(arrays, mesh)
    if ahead is not None:
      yield ahead
    ahead = following
