"""Names in lists and archives of others: they may point below a folder only."""

from pathlib import PurePosixPath


def leads_outside(name: str) -> bool:
  """Whether a relative name is none, or climbs out of the folder it is for."""
  parts = PurePosixPath(name.replace('\\', '/'))
  return (
    not name
    or parts.is_absolute()
    or '..' in parts.parts
    or ':' in name
    or '\0' in name
  )
