"""Metrics of a run: metrics.jsonl always, TensorBoard where it is installed.

metrics.jsonl has one JSON object a line, with 'step' and the metrics.  A run
that goes on from step k first drops the lines after k, which a killed process
may have left: each step is logged once.
"""

import contextlib
import importlib.util
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax


class MetricWriter:
  """Writes scalars; a writer on any process but the first writes nothing.

  Args:
    workdir: where metrics.jsonl and the TensorBoard events go.
    step: the step the run starts from.
  """

  def __init__(self, workdir: pathlib.Path, step: int):
    self._file = None
    self._tensorboard = None
    self._path = workdir / 'metrics.jsonl'
    if jax.process_index() != 0:
      return
    with _naming(self._path):
      _keep_until(self._path, step)
      self._file = self._path.open('a', encoding='utf-8')
    # clu's writers need both; tensorflow alone takes seconds to import, and
    # then writes nothing.
    needed = 'tensorflow', 'tensorboard'
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
      logging.info(
        '%s is not installed: no TensorBoard events. The extra `tensorboard` '
        'brings it.',
        missing[0],
      )
      return
    from clu import metric_writers

    self._tensorboard = metric_writers.AsyncWriter(
      metric_writers.SummaryWriter(str(workdir / 'tensorboard'))
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes the metrics of one step; OSError says what hinders."""
    if self._file is None:
      return
    line: dict[str, Any] = {'step': step, **scalars}
    with _naming(self._path):
      self._file.write(json.dumps(line) + '\n')
      self._file.flush()
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, scalars)

  def close(self) -> None:
    """Finishes all writes."""
    if self._file is not None:
      with contextlib.suppress(OSError):  # what `write` has said already
        self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise OSError(
      f'{path} cannot be written ({error.strerror}): free some space or mend '
      'the folder; the same command goes on from the last checkpoint.'
    ) from error


def _keep_until(path: pathlib.Path, step: int) -> None:
  """Drops lines after `step` and a half-written last line."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding='utf-8').splitlines():
    try:
      if json.loads(line)['step'] <= step:
        kept.append(line + '\n')
    except ValueError:
      continue
  temporary = path.with_suffix('.tmp')
  temporary.write_text(''.join(kept), encoding='utf-8')
  os.replace(temporary, path)
