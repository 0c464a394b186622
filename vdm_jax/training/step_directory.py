"""The directory of checkpoints: which steps exist and how they come and go.

    <step>.saving    being written; whole once it holds a manifest
    <step>           whole
    <step>.deleting  on its way out
    <step>.corrupt   failed verification, kept for a person to look at
    lock             locked by the run that uses the directory

Every change of status is one rename, so a kill at any instant leaves a name
that the next start understands. No arrays here, only files.
"""

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import IO

from vdm_jax.training import lock, manifest

_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
  """A checkpoint cannot be written or read; the message says what to do."""


def check_space(directory: str | os.PathLike, needed: int) -> None:
  """Raises `CheckpointError` if `needed` bytes do not fit in a directory."""
  steps = StepDirectory(directory)
  if steps.free_bytes() < needed:
    raise CheckpointError(
      f'One checkpoint does not fit: {steps.space(needed)}; free some space or '
      'give another directory.'
    )


class StepDirectory:
  """One directory of steps, changed by one process at a time.

  Args:
    path: the directory, on a mounted file system.

  Raises:
    ValueError: `path` is a URL.
  """

  def __init__(self, path: str | os.PathLike):
    if '://' in str(path):
      raise ValueError(
        f'{path} is a URL; mount the bucket and give the mounted directory.'
      )
    self.path = Path(os.path.abspath(path))

  def prepare(self) -> None:
    """Creates the directory; raises `CheckpointError` if it is read-only."""
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      tempfile.TemporaryFile(dir=self.path).close()
    except OSError as error:
      raise CheckpointError(
        f'Checkpoints cannot be written to {self.path} ({error.strerror}); '
        'give a directory that this user may write to.'
      ) from error

  def lock(self) -> IO[str]:
    """Takes the directory until the returned file is closed.

    Raises:
      CheckpointError: another run has it.
    """
    try:
      return lock.acquire(self.path / 'lock')
    except lock.HeldError as error:
      raise CheckpointError(
        f'{self.path} is in use by {error}: wait for that run, stop it, or '
        'give another --workdir.'
      ) from None

  def tidy(self) -> None:
    """Finishes or removes what a killed process left half done."""
    for path in self.path.glob('[0-9]*.deleting'):
      _remove(path)
    for path in self.path.glob('[0-9]*.saving*'):
      if path.suffix == '.saving' and (path / manifest.NAME).exists():
        self.publish(int(path.stem))  # killed just before the last rename
      else:
        _remove(path)

  def step(self, step: int) -> Path:
    """Returns the path of a whole step."""
    return self.path / str(step)

  def saving(self, step: int) -> Path:
    """Returns the path of a step while it is being written."""
    return self.path / f'{step}.saving'

  def publish(self, step: int) -> None:
    """Turns a written step into a whole one, replacing an older version."""
    if self.step(step).exists():
      self._delete(step)
    self.saving(step).rename(self.step(step))
    manifest.sync(self.path)

  def discard(self, step: int) -> None:
    """Removes what a failed save has written."""
    for path in self.path.glob(f'{step}.saving*'):
      _remove(path)

  def prune(self, keep: int) -> None:
    """Deletes all but the `keep` last saved steps with a readable manifest."""
    orders = {k: v for k, v in self.orders().items() if v < math.inf}
    for step in sorted(orders, key=orders.__getitem__)[:-keep]:
      self._delete(step)

  def orders(self) -> dict[int, float]:
    """Returns {step: place in the order of saving}, inf if unreadable.

    Steps are ordered by when they were saved, not by number: after a rollback
    the lower step is the newer one.
    """
    orders = {}
    for path in self.path.glob('*'):
      if path.name.isdecimal():
        try:
          orders[int(path.name)] = manifest.read(path)['order']
        except manifest.DamagedError:
          orders[int(path.name)] = math.inf
    return orders

  def next_order(self, step: int) -> int:
    """Returns the place of a step about to be saved; warns of a rollback."""
    orders = {k: v for k, v in self.orders().items() if v < math.inf}
    later = [other for other in orders if other > step]
    if later:
      _log.warning(
        'Saving step %d in %s, which holds step %d: step %d now counts as the '
        'newest, and the later steps are deleted in turn.',
        *(step, self.path, max(later), step),
      )
    return 1 + int(max(orders.values(), default=0))

  def newest(self, excluding: Collection[int] = ()) -> int:
    """Returns the last saved step, -1 if there is none."""
    orders = {k: v for k, v in self.orders().items() if k not in excluding}
    return max(orders, key=lambda step: (orders[step], step), default=-1)

  def set_aside(self, step: int) -> Path:
    """Renames a damaged step so that no one takes it for a whole one."""
    target = self.path / f'{step}.corrupt'
    while target.exists():
      target = target.with_name(target.name + '_')
    return self.step(step).rename(target)

  def corrupt(self) -> list[str]:
    """Returns the names of the steps set aside."""
    return sorted(path.name for path in self.path.glob('*.corrupt*'))

  def free_bytes(self) -> int:
    """Returns the free space where the directory is or would be."""
    place = self.path
    while not place.exists():
      place = place.parent
    return shutil.disk_usage(place).free

  def space(self, needed: int) -> str:
    """Compares free and needed bytes in words."""
    return (
      f'{self.path} has {self.free_bytes():,} bytes free and {needed:,} are '
      'needed'
    )

  def _delete(self, step: int) -> None:
    # Renamed first, so that a kill leaves no half of a step behind.
    _remove(self.step(step).rename(self.path / f'{step}.deleting'))


def brief(error: BaseException) -> str:
  """Returns the first line of an error: Orbax's own fill screens."""
  lines = str(error).splitlines() or ['']
  return f'{type(error).__name__}: {lines[0][:300]}'


def _remove(path: Path) -> None:
  for attempt in range(20):
    if not path.exists():
      return
    if attempt:  # a writer of Orbax added a file after another had failed
      time.sleep(0.05)
    shutil.rmtree(path, ignore_errors=True)
