"""Errors that a person can mend without reading a traceback."""

import contextlib
from collections.abc import Iterator

from vdm_jax.config import ConfigError
from vdm_jax.data.pipeline import DataError
from vdm_jax.training.checkpoint import CheckpointError
from vdm_jax.training.finite import NonFiniteError


class UserError(Exception):
  """One sentence that says what was given, what is allowed and what to do."""


WRONG_INPUT = UserError, ConfigError
"""The command has to be changed: exit code 2."""

FAILURES = CheckpointError, NonFiniteError, DataError, OSError
"""Something gave way meanwhile: exit code 1."""


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
  """Marks errors of a job's own checks, which say what to do."""
  try:
    yield
  except (ValueError, OSError, CheckpointError) as error:
    raise UserError(str(error)) from error
