"""Lists of videos: csv and json files of Kinetics, MSR-VTT, WebVid, and plain.

Each layout becomes rows of the same kind:

    plain     csv with `path`, and any of start, end, label, caption, split
    kinetics  csv with label, youtube_id, time_start, time_end, split; files
              SPLIT/LABEL/ID_START_END.mp4, where the last parts have six
              digits, or any of these without a folder or without the times
    msrvtt    json with `videos` and `sentences`; files ID.mp4, several
              captions for each
    webvid    csv with videoid, page_dir, name; files PAGE_DIR/ID.mp4

A row that points outside of the folder is refused: a list is data from others.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vdm_jax.data.inside import leads_outside

LAYOUTS = ('plain', 'kinetics', 'msrvtt', 'webvid')


class Row(NamedTuple):
  """One video of a list.

  Attributes:
    paths: where it may be, relative to the folder, the likeliest first.
    start: seconds into the file; 0 is its beginning.
    end: likewise; None is its end.
    label: name of its class, or ''.
    captions: what it shows, none or several.
  """

  paths: tuple[str, ...]
  start: float = 0.0
  end: float | None = None
  label: str = ''
  captions: tuple[str, ...] = ()


def read(path: str | Path, layout: str, split: str = '') -> list[Row]:
  """Returns the rows of a list.

  Args:
    path: csv or json file.
    layout: one of LAYOUTS.
    split: only rows of this split; '' is all.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: for another layout, a missing column, a time that is no number
      or not in order, a path that leads outside, or no row at all.
  """
  path = Path(path)
  if layout not in LAYOUTS:
    raise ValueError(f'layout is {layout!r}; it must be one of {LAYOUTS}.')
  if not path.is_file():
    raise FileNotFoundError(f'there is no list {path}.')
  rows, number = [], 0
  for number, (row, row_split) in enumerate(_PARSERS[layout](path), 1):
    if split and row_split != split:
      continue
    for each in row.paths:
      _check_inside(each, path, number)
    if row.end is not None and row.end <= row.start:
      raise ValueError(
        f'{path}, row {number}: the end {row.end:g} s is not after the start '
        f'{row.start:g} s.'
      )
    rows.append(row)
  if not rows:
    raise ValueError(
      f'{path} has no row of the split {split!r} among its {number}.'
      if split
      else f'{path} has no rows.'
    )
  return rows


def _check_inside(name: str, path: Path, number: int) -> None:
  if leads_outside(name):
    raise ValueError(
      f'{path}, row {number}: {name!r} leads outside of the folder; give paths '
      'below it.'
    )


def _table(path: Path, *needed: str) -> Iterator[tuple[int, dict[str, str]]]:
  """Rows of a csv file by column, with those that are needed."""
  with path.open(newline='', encoding='utf-8-sig') as file:
    reader = csv.DictReader(file)
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
      raise ValueError(
        f'{path} lacks the columns {", ".join(missing)}; it has '
        f'{", ".join(reader.fieldnames or ()) or "none"}.'
      )
    for number, row in enumerate(reader, 1):
      yield number, {k: v or '' for k, v in row.items() if k is not None}


def _number(value: Any, path: Path, number: int) -> float:
  try:
    return float(value)
  except (TypeError, ValueError):
    raise ValueError(
      f'{path}, row {number}: {value!r} is not a number of seconds.'
    ) from None


def _plain(path: Path) -> Iterator[tuple[Row, str]]:
  for number, row in _table(path, 'path'):
    end = row.get('end')
    yield (
      Row(
        (row['path'],),
        _number(row.get('start') or 0, path, number),
        _number(end, path, number) if end else None,
        row.get('label', ''),
        (row['caption'],) if row.get('caption') else (),
      ),
      row.get('split', ''),
    )


def _kinetics(path: Path) -> Iterator[tuple[Row, str]]:
  columns = 'youtube_id', 'time_start', 'time_end'
  for number, row in _table(path, *columns):
    video, label, split = (
      row[columns[0]],
      row.get('label', ''),
      row.get('split', ''),
    )
    start, end = (_number(row[name], path, number) for name in columns[1:])
    cut = f'{video}_{round(start):06d}_{round(end):06d}.mp4'
    folders = [
      '/'.join(filter(None, parts))
      for parts in ((split, label), (label,), (split,), ())
    ]
    cuts = dict.fromkeys(f'{f}/{cut}' if f else cut for f in folders)
    # Files that others cut already begin at the start; their times are of the
    # whole video.
    yield Row(tuple(cuts), label=label), split


def _msrvtt(path: Path) -> Iterator[tuple[Row, str]]:
  content = json.loads(path.read_text(encoding='utf-8'))
  if not isinstance(content, dict) or 'videos' not in content:
    raise ValueError(f'{path} is not of MSR-VTT: it lacks `videos`.')
  captions: dict[str, list[str]] = {}
  for sentence in content.get('sentences', ()):
    captions.setdefault(sentence['video_id'], []).append(sentence['caption'])
  for video in content['videos']:
    name = str(video['video_id'])
    label = str(video.get('category', ''))
    found = tuple(captions.get(name, ()))
    yield Row((f'{name}.mp4',), label=label, captions=found), video['split']


def _webvid(path: Path) -> Iterator[tuple[Row, str]]:
  for _, row in _table(path, 'videoid', 'name'):
    name = f'{row["videoid"]}.mp4'
    folder = row.get('page_dir', '')
    paths = (f'{folder}/{name}', name) if folder else (name,)
    yield Row(paths, captions=(row['name'],)), ''


_PARSERS = {
  'plain': _plain,
  'kinetics': _kinetics,
  'msrvtt': _msrvtt,
  'webvid': _webvid,
}
