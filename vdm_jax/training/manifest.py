"""The manifest of a checkpoint: what a whole step consists of.

Orbax stores no checksum of array data, so a flipped bit on disk would restore
as a wrong weight without a word. `MANIFEST.json` lists every file of a step
with its size and BLAKE2b hash, every array with its shape and dtype, and the
caller's metadata; a digest over all that protects the manifest itself. It is
written last, so a step without one was never finished.
"""

import concurrent.futures
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = 'MANIFEST.json'


class DamagedError(Exception):
  """The files of a checkpoint differ from its manifest."""


def write(directory: Path, content: Mapping[str, Any]) -> None:
  """Hashes the files of a finished step and writes its manifest last.

  Args:
    directory: the step's directory; no file in it changes any more.
    content: JSON-able entries to keep beside the list of files.

  Raises:
    OSError: a file could not be read back, or the manifest not written.
  """
  for path in directory.rglob('*'):
    sync(path)
  sizes = _sizes(directory)
  hashes = _hashes(directory, list(sizes))
  body = {**content, 'files': {k: [sizes[k], hashes[k]] for k in sizes}}
  temporary = directory / f'{NAME}.tmp'
  with open(temporary, 'w') as file:
    json.dump({**body, 'digest': _digest(body)}, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, directory / NAME)
  sync(directory)


def read(directory: Path) -> dict[str, Any]:
  """Returns the manifest of a step, or raises `DamagedError`."""
  try:
    body = json.loads((directory / NAME).read_bytes())
    digest = body.pop('digest')
  except OSError as error:
    raise _judged(error) from error
  except (ValueError, KeyError, AttributeError, TypeError):
    raise DamagedError(f'{NAME} is not what was written') from None
  if digest != _digest(body):
    raise DamagedError(f'{NAME} is not what was written')
  return body


def verify(directory: Path, body: Mapping[str, Any], level: str) -> None:
  """Compares the files of a step with its manifest.

  Args:
    directory: the step's directory.
    body: what `read` returned.
    level: "full" compares sizes and hashes, "size" sizes, "off" nothing.

  Raises:
    DamagedError: names each missing, resized or altered file.
  """
  if level == 'off':
    return
  try:
    problems = _problems(directory, body['files'], level)
  except OSError as error:
    raise _judged(error) from error
  if problems:
    raise DamagedError('; '.join(problems))


def _problems(directory: Path, files: Mapping[str, list], level: str):
  found = _sizes(directory)
  problems = []
  for name, (size, _) in files.items():
    if name not in found:
      problems.append(f'{name} is missing')
    elif found[name] != size:
      problems.append(f'{name} has {found[name]} of {size} bytes')
  if level == 'full' and not problems:
    hashes = _hashes(directory, list(files))
    for name, (_, expected) in files.items():
      if hashes[name] != expected:
        problems.append(f'{name} has altered content')
  return problems


def _judged(error: OSError) -> Exception:
  """Damage is what the disk lost; want of rights or handles is not damage."""
  if error.errno not in (errno.ENOENT, errno.EIO):
    return error
  name = Path(error.filename or NAME).name
  return DamagedError(
    f'{name} is {"missing" if error.errno == errno.ENOENT else "unreadable"}'
  )


def sync(path: Path) -> None:
  """Makes a file, or the names in a directory, survive a power cut."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _sizes(directory: Path) -> dict[str, int]:
  paths = sorted(p for p in directory.rglob('*') if p.is_file())
  sizes = {p.relative_to(directory).as_posix(): p.stat().st_size for p in paths}
  return {k: v for k, v in sizes.items() if k not in (NAME, f'{NAME}.tmp')}


def _hashes(directory: Path, names: list[str]) -> dict[str, str]:
  def one(name: str) -> str:
    with open(directory / name, 'rb') as file:
      return hashlib.file_digest(file, _blake2b).hexdigest()

  # hashlib releases the interpreter lock, so threads use every core.
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return dict(zip(names, pool.map(one, names), strict=True))


def _blake2b():
  return hashlib.blake2b(digest_size=32)


def _digest(body: Mapping[str, Any]) -> str:
  text = json.dumps(body, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=32).hexdigest()
