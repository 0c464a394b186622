"""Restoring: find the newest whole checkpoint, check it, then read it.

With several processes all of them call `restore`; the first one chooses and
verifies, and a failure on one process is a failure on every one.
"""

import logging
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.experimental import multihost_utils

from vdm_jax.training import array_store, manifest
from vdm_jax.training.step_directory import (
  CheckpointError,
  StepDirectory,
  brief,
)

Level = Literal['full', 'size', 'off']
_log = logging.getLogger(__name__)


class Restored(NamedTuple):
  """A restored step: arrays as `like` asked, metadata as JSON returns it."""

  step: int
  state: Any
  metadata: dict[str, Any]


def restore(
  directory: str | os.PathLike,
  like: Any,
  *,
  only: str | None = None,
  verify: Level = 'full',
  set_aside: bool = False,
  check: Callable[[dict[str, Any]], None] | None = None,
) -> Restored | None:
  """Reads the step that was saved last, passing over damaged ones.

  Changes nothing on disk by default, so a sampler can call it beside a running
  trainer.

  Args:
    directory: where a `Checkpointer` saves.
    like: a pytree of `jax.ShapeDtypeStruct` or arrays that gives structure,
      shapes, dtypes and shardings; without one a leaf goes to the first device.
    only: name of one part of the state, such as 'ema'; then `like` and the
      result are that part alone, and the rest is not read.
    verify: what is compared with the manifest first: 'full' hashes every file,
      'size' compares sizes, 'off' trusts the disk.
    set_aside: rename damaged steps to <step>.corrupt.
    check: given the metadata before any array is read; may raise.

  Returns:
    The step, or None if no step was ever finished in this directory.

  Raises:
    CheckpointError: the step does not fit `like`; steps exist but none is
      whole; or a whole step cannot be read, for want of memory say.
    ValueError: `verify` is none of the three.
  """
  if verify not in get_args(Level):
    raise ValueError(f'verify is {verify!r}; give full, size or off.')
  steps = StepDirectory(directory)
  wanted = array_store.named(like, only)
  is_first = jax.process_index() == 0
  tried: dict[int, str] = {}
  while (step := _from_first_process(steps.newest(tried))) >= 0:
    try:
      level = verify if is_first else 'off'
      metadata, leaves = _load(steps, step, wanted, only, level, check)
    except manifest.DamagedError as damage:
      tried[step] = f'step {step}: {damage}'
      if is_first:
        kept = f'kept as {steps.set_aside(step).name}' if set_aside else 'left'
        older = steps.newest(tried)
        _log.warning(
          'Damaged checkpoint in %s, %s; %s; %s.',
          steps.path,
          tried[step],
          kept,
          f'falling back to step {older}' if older >= 0 else 'no step is left',
        )
    else:
      state = jax.tree.unflatten(jax.tree.structure(like), leaves)
      return Restored(step, state, metadata)
  damaged = list(tried.values()) or steps.corrupt()
  if not damaged:
    return None
  raise CheckpointError(
    f'No step in {steps.path} is whole ({"; ".join(damaged)}): put back an '
    'intact copy of one, or start over in an empty directory.'
  )


def _load(
  steps: StepDirectory,
  step: int,
  wanted: dict[str, Any],
  only: str | None,
  level: Level,
  check: Callable[[dict[str, Any]], None] | None,
) -> tuple[dict[str, Any], list[jax.Array]]:
  """Returns metadata and arrays of a step, or raises DamagedError."""
  path = steps.step(step)
  body = together(manifest.read, path)
  if check is not None:
    check(body['metadata'])
  stored = body['leaves']
  if only is not None:
    part = f'{only}/'
    stored = {k: v for k, v in stored.items() if f'{k}/'.startswith(part)}
  lines = array_store.differences(stored, array_store.describe(wanted))
  if lines:
    more = f'; and {len(lines) - 10} more' if len(lines) > 10 else ''
    raise CheckpointError(
      f'Step {step} in {steps.path} does not fit the requested state: '
      f'{"; ".join(lines[:10])}{more}: use the configuration that saved it, or '
      'another directory.'
    )
  together(manifest.verify, path, body, level)
  try:
    return body['metadata'], together(array_store.read, path, wanted)
  except Exception as error:
    # Too little memory or an impossible sharding is no reason to set a whole
    # step aside: look at the files before blaming them.
    together(manifest.verify, path, body, 'full')
    raise CheckpointError(
      f'Step {step} in {steps.path} cannot be restored although its files are '
      f'whole ({brief(error)}): check memory and shardings.'
    ) from error


def _from_first_process(step: int) -> int:
  if jax.process_count() == 1:
    return step
  return int(multihost_utils.broadcast_one_to_all(np.asarray(step)))


def together(function: Callable, *args) -> Any:
  """Calls a function; a failure on one process is a failure on every one."""
  result, error = None, None
  try:
    result = function(*args)
  except Exception as problem:
    error = problem
  failed = np.asarray(error is not None)
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(failed)
  if np.any(failed):
    raise error or manifest.DamagedError('another process could not read it')
  return result
