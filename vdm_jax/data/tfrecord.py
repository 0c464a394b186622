"""Random access to TFRecord files.

A record is its length (8 bytes), a checksum of that (4), the data, and their
checksum (4).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class TFRecords:
  """Examples of a builder in TFRecord files, by number.

  TFDS reads these one after another only; where each record begins is found by
  going through their lengths once.
  """

  def __init__(self, builder: Any, split: str, decoders: Any):
    self._features, self._decoders = builder.info.features, decoders
    self._places: list[tuple[Path, int, int]] = []
    for piece in builder.info.splits[split].file_instructions:
      path = Path(piece.filename)
      places = list(_scan(path))
      stop = None if piece.take == -1 else piece.skip + piece.take
      self._places += [(path, *place) for place in places[piece.skip : stop]]

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path, start, size = self._places[index]
    with path.open('rb') as file:
      file.seek(start)
      record = file.read(size)
    return self._features.deserialize_example_np(
      record, decoders=self._decoders
    )


def _scan(path: Path) -> Iterator[tuple[int, int]]:
  """Where each record of a TFRecord file is: (first byte, bytes)."""
  place, total = 0, path.stat().st_size
  with path.open('rb') as file:
    while place < total:
      file.seek(place)
      head = file.read(8)
      size = struct.unpack('<Q', head)[0] if len(head) == 8 else total
      start = place + 12  # after the length and its checksum
      place = start + size + 4  # after the record and its checksum
      if place > total:
        raise ValueError(f'{path} is truncated: prepare the data again.')
      yield start, size
