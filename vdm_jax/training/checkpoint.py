"""Checkpoints that are whole or not there.

`save` copies the arrays and returns. Orbax writes them in the background
(array_store.py); a thread of ours waits for it, writes the manifest
(manifest.py) and renames the step into place (step_directory.py). Reading
back, with fall-back to older steps, is in restore.py.
"""

import contextlib
import json
import os
import platform
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from vdm_jax.training import array_store, manifest
from vdm_jax.training.restore import Level, Restored, restore
from vdm_jax.training.step_directory import (
  CheckpointError,
  StepDirectory,
  brief,
  check_space,
)

__all__ = ['CheckpointError', 'Checkpointer', 'Restored', 'check_space']


class Checkpointer:
  """Saves and restores train states in one directory.

  A lock keeps a second run out: what a killed process left half written is
  removed here, and must not be another's work in progress.

  Args:
    directory: where the steps live, on a mounted file system; made if missing.
    keep: how many of the last saved steps stay, at least 1.
    verify: what `restore` compares with the manifest before it reads: 'full'
      hashes every file, 'size' compares sizes, 'off' trusts the disk.

  Raises:
    CheckpointError: the directory cannot be made or written to, or another
      run is using it.
    ValueError: `keep` is less than 1, or `directory` is a URL.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep: int = 3,
    verify: Level = 'full',
  ):
    if keep < 1:
      raise ValueError(f'keep is {keep}; at least 1 step must stay.')
    self._keep = keep
    self._verify: Level = verify
    self._is_first = jax.process_index() == 0
    self._steps = StepDirectory(directory)
    self._steps.prepare()
    self._lock = contextlib.ExitStack()
    if self._is_first:
      self._lock.enter_context(self._steps.lock())
      self._steps.tidy()
    self._writer = array_store.ArrayWriter()
    self._finisher = ThreadPoolExecutor(1, 'checkpoint')
    self._pending: Future | None = None

  def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
    """Copies the state to the host and writes it in the background.

    Args:
      step: a count from 0; saving an existing step replaces it.
      state: a pytree of arrays, sharded in any way.
      metadata: a JSON-able dictionary; copied.

    Raises:
      CheckpointError: the previous or this save failed; finished steps stay.
      TypeError: a leaf of `state` is no array, or metadata is not JSON-able.
      ValueError: `step` is negative, or two leaves share a name.
    """
    if step < 0:
      raise ValueError(f'Step {step} cannot be saved; count from 0.')
    self.wait()
    leaves = array_store.named(state)
    size = array_store.num_bytes(leaves)
    content = {
      'step': int(step),
      'metadata': json.loads(json.dumps(metadata)),
      'leaves': array_store.describe(leaves),
      'versions': {
        'jax': jax.__version__,
        'orbax-checkpoint': array_store.VERSION,
        'python': platform.python_version(),
      },
    }
    if self._is_first:
      # Failing here leaves others their disk and spares Orbax's complaints.
      check_space(self._steps.path, size)
    try:
      os.stat(self._steps.path)  # Orbax would silently make a lost one again
      if self._is_first:
        content['order'] = self._steps.next_order(step)
      self._writer.write(self._steps.saving(step), leaves)
    except Exception as error:
      raise self._failed(step, size, error) from error
    self._pending = self._finisher.submit(self._finish, step, content, size)

  def wait(self) -> None:
    """Blocks until the last save is whole on disk.

    Raises:
      CheckpointError: that save failed; it names the free and needed bytes.
    """
    if self._pending is not None:
      # Cleared after the wait: an interrupt must not forget the save.
      error = self._pending.exception()
      self._pending = None
      if error is not None:
        raise error

  def restore(self, like: Any, **options: Any) -> Restored | None:
    """Reads the step saved last; sets damaged steps aside (see `restore`)."""
    self.wait()
    return restore(
      self._steps.path, like, verify=self._verify, set_aside=True, **options
    )

  def close(self) -> None:
    """Waits like `wait` and lets go of the threads and the directory."""
    try:
      self.wait()
    finally:
      self._finisher.shutdown()
      self._writer.close()
      self._lock.close()

  def _finish(self, step: int, content: dict[str, Any], size: int) -> None:
    """Runs in the background: from Orbax's last byte to a whole step."""
    try:
      self._writer.wait()
      if self._is_first:
        manifest.write(self._steps.saving(step), content)
        self._steps.publish(step)
        self._steps.prune(self._keep)
        self._steps.tidy()  # what late writers of a failed save have made
    except Exception as error:
      raise self._failed(step, size, error) from error

  def _failed(self, step: int, size: int, error: Exception) -> CheckpointError:
    """Frees the space that a failed save takes and describes the failure."""
    if self._is_first:
      self._steps.discard(step)
    return CheckpointError(
      f'Step {step} could not be saved ({brief(error)}): '
      f'{self._steps.space(size)}; finished steps are untouched; free some '
      'space or give another directory.'
    )
