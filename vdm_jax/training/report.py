"""What a person and the metric files see of a run, without slowing it."""

import collections
import logging
import time

import jax
import numpy as np
from tqdm import tqdm

from vdm_jax.training.finite import NonFiniteError
from vdm_jax.training.writers import MetricWriter


class Report:
  """Progress bar, metric lines and the guard against endless skipping.

  Reads the metrics of a step two steps later: by then they are there, and
  the devices never wait for the host.
  """

  _LAG = 2

  def __init__(
    self,
    writer: MetricWriter,
    first: int,
    *,
    num_steps: int,
    batch_size: int,
    log_every: int,
    max_skipped: int,
  ):
    self._writer = writer
    self._num_steps = num_steps
    self._batch_size = batch_size
    self._log_every = log_every
    self._max_skipped = max_skipped
    self._pending: collections.deque = collections.deque()
    self._losses: list[float] = []
    self._since = time.monotonic()
    self._bar = tqdm(
      initial=first,
      total=num_steps,
      desc='training',
      unit='step',
      # None: no bar where nobody watches; the log lines below are enough.
      disable=None if jax.process_index() == 0 else True,
    )

  def __enter__(self) -> 'Report':
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.close()

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of a step that may still be running."""
    self._pending.append((step, metrics))
    while len(self._pending) > self._LAG:
      self._finish(*self._pending.popleft())

  def drain(self) -> None:
    """Waits for every step so far."""
    while self._pending:
      self._finish(*self._pending.popleft())

  def _finish(self, step: int, metrics: dict[str, jax.Array]) -> None:
    values = {name: float(v) for name, v in jax.device_get(metrics).items()}
    run = int(values['skipped_run'])
    if run >= self._max_skipped:
      raise NonFiniteError(
        f'the loss or the gradient was not finite in {run} batches in a row, '
        f'up to step {step}: look at the data, or train in another '
        '--workdir with a lower config.optimizer.learning_rate.'
      )
    if np.isfinite(values['loss']):
      self._losses.append(values['loss'])
    self._bar.set_postfix(loss=f'{values["loss"]:.4f}', refresh=False)
    self._bar.update()
    if step % self._log_every == 0:
      self._log(step, values)

  def _log(self, step: int, values: dict[str, float]) -> None:
    seconds = time.monotonic() - self._since
    self._since = time.monotonic()
    steps = len(self._losses) or 1
    scalars = {
      'loss': float(np.mean(self._losses)) if self._losses else float('nan'),
      'grad_norm': values['grad_norm'],
      'skipped': values['skipped'],
      'seconds_per_step': seconds / steps,
      'videos_per_second': self._batch_size * steps / seconds,
    }
    self._losses.clear()
    self._writer.write(step, scalars)
    if self._bar.disable:
      logging.info(
        'step %d of %d: loss %.4f, %.3f s a step',
        step,
        self._num_steps,
        scalars['loss'],
        scalars['seconds_per_step'],
      )
