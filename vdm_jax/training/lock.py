"""One process at a time: a lock that its holder cannot leave behind.

The kernel drops a lock of `flock` when its process ends, however it ends, so a
killed run never blocks the next one.
"""

import contextlib
import fcntl
import logging
import os
import platform
from pathlib import Path
from typing import IO

_log = logging.getLogger(__name__)


class HeldError(RuntimeError):
  """Another process holds the lock; the message names it."""


def acquire(path: Path) -> IO[str]:
  """Takes the lock `path`; closing the returned file lets go of it.

  A file system without locks is used without, with a warning.

  Raises:
    HeldError: another process, or another owner in this one, holds it.
    OSError: the file cannot be opened for writing.
  """
  file = path.open('a+', encoding='utf-8')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    with file:
      file.seek(0)
      holder = file.read().strip() or 'another process'
    raise HeldError(holder) from None
  except OSError as error:
    _log.warning(
      '%s cannot be locked (%s): make sure that one run at a time uses it.',
      *(path.parent, error.strerror),
    )
  with contextlib.suppress(OSError):  # a full disk is not this lock's business
    os.ftruncate(file.fileno(), 0)
    os.write(
      file.fileno(), f'process {os.getpid()} on {platform.node()}'.encode()
    )
  return file
