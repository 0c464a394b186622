"""Unpacking an archive of videos that comes from others.

Only regular files are written, below the folder and nowhere else: a link, a
device, a name that climbs out, a name that is there twice, or a size that no
archive of videos has, stops it before anything is in its final place.
"""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from vdm_jax.data.inside import leads_outside

SUFFIXES = ('.zip', '.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz')
MAX_RATIO = 100  # videos are packed already; captions and csv files are small
_FREE = 2**30  # bytes that are never too many
_DAMAGE = (
  tarfile.TarError,
  zipfile.BadZipFile,
  EOFError,
  RuntimeError,
  zlib.error,
)


class _Member(NamedTuple):
  name: str
  size: int
  regular: bool
  content: IO[bytes] | None


def unpack(archive: str | Path, folder: str | Path) -> int:
  """Unpacks a zip or tar file into a folder that is not there yet.

  The folder appears when it is whole; a second call starts anew.

  Args:
    archive: the file; its suffix is one of SUFFIXES.
    folder: made here.

  Returns:
    the number of files.

  Raises:
    FileNotFoundError: there is no archive.
    FileExistsError: the folder exists.
    ValueError: the archive is damaged, empty, of another kind, or holds what
      is not written here; nothing of it is left.
    OSError: the folder cannot be written.
  """
  archive, folder = Path(archive), Path(folder)
  if not archive.is_file():
    raise FileNotFoundError(f'there is no archive {archive}.')
  if not archive.name.lower().endswith(SUFFIXES):
    raise ValueError(
      f'{archive} is no archive that can be unpacked: use one of '
      f'{", ".join(SUFFIXES)}.'
    )
  if folder.exists():
    raise FileExistsError(f'{folder} exists: give a folder that does not.')
  partial = folder.with_name(f'{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  try:
    count = _write_all(archive, partial)
    partial.rename(folder)
  except _DAMAGE as error:
    raise ValueError(f'{archive} is damaged: {error}.') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return count


def _write_all(archive: Path, partial: Path) -> int:
  allowed = max(_FREE, MAX_RATIO * archive.stat().st_size)
  seen: set[str] = set()
  partial.mkdir(parents=True)
  bar = tqdm(desc='unpacking', unit='B', unit_scale=True, disable=None)
  with bar:
    for member in _members(archive):
      _check(member, archive, seen)
      allowed -= member.size
      if allowed < 0:
        raise ValueError(
          f'{archive} would fill more than {MAX_RATIO} times its own size: '
          'unpack it yourself if you trust it.'
        )
      target = partial / member.name
      target.parent.mkdir(parents=True, exist_ok=True)
      with target.open('xb') as file:
        assert member.content is not None
        shutil.copyfileobj(member.content, file)
      bar.update(member.size)
  if not seen:
    raise ValueError(f'{archive} holds no files.')
  return len(seen)


def _check(member: _Member, archive: Path, seen: set[str]) -> None:
  if leads_outside(member.name):
    raise ValueError(f'{archive}: {member.name!r} leads outside of the folder.')
  if not member.regular or member.content is None:
    raise ValueError(f'{archive}: {member.name!r} is a link or a device.')
  # A file system that ignores case would write one over the other.
  name = os.path.normpath(member.name).lower()
  if name in seen:
    raise ValueError(f'{archive}: {member.name!r} is in it twice.')
  seen.add(name)


def _members(archive: Path) -> Iterator[_Member]:
  """All but folders, one after another, with their content to be read."""
  if archive.suffix.lower() == '.zip':
    with zipfile.ZipFile(archive) as file:
      for info in file.infolist():
        if info.is_dir():
          continue
        mode = info.external_attr >> 16
        regular = stat.S_IFMT(mode) in (0, stat.S_IFREG)
        with file.open(info) as content:
          # The header's size may lie; `content` stops there and says so.
          yield _Member(info.filename, info.file_size, regular, content)
    return
  with tarfile.open(archive) as file:
    for info in file:
      if info.isdir():
        if leads_outside(info.name):
          raise ValueError(
            f'{archive}: {info.name!r} leads outside of the folder.'
          )
        continue
      content = file.extractfile(info) if info.isreg() else None
      yield _Member(info.name, info.size, info.isreg(), content)
