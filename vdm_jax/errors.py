"""Errors that a person can mend without reading a traceback."""

import contextlib
from collections.abc import Iterator

from vdm_jax.training.checkpoint import CheckpointError


class UserError(Exception):
  """One sentence that says what was given, what is allowed and what to do."""


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
  """Marks errors of a job's own checks, which say what to do."""
  try:
    yield
  except (ValueError, OSError, CheckpointError) as error:
    raise UserError(str(error)) from error
