"""What a checkpoint belongs to: the config and the data of its run.

Shapes alone do not tell: a network that predicts noise fits one that predicts
velocity, and draws nonsense.
"""

import fnmatch
from collections.abc import Mapping
from typing import Any

from vdm_jax.config import ConfigError, differences, flatten

FREE = (
  'train.num_steps',
  'train.*_every',
  'train.keep',
  'train.max_skipped',
  'train.num_workers',
  'mesh.*',
  'sample.*',
  'system.sample_schedule.*',
  'text.encoder',  # places; what is in them is part of the data
  'text.store',
  'clip_text.encoder',
  'clip_text.store',
  'visual.encoder',
  'visual.store',
)
"""Fields of a config that a run may change."""


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the flat fields that say what is trained: all but FREE ones."""
  return {
    name: value
    for name, value in flatten(config).items()
    if not any(fnmatch.fnmatch(name, free) for free in FREE)
  }


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """Says which fields differ; nothing if none do."""
  return '; '.join(
    f'config.{name} is {now!r}, there it is {before!r}'
    for name, (before, now) in differences(old, new).items()
  )


def check_same(
  metadata: Mapping[str, Any],
  config: Mapping[str, Any],
  fingerprint: str | None = None,
  sections: tuple[str, ...] = ('',),
) -> None:
  """Raises ConfigError if a checkpoint is of another config or of other data.

  Args:
    metadata: of the checkpoint; one that has no config, or no fingerprint,
      fits any.
    config: the fields that say what is trained.
    fingerprint: of the data; None where it does not matter.
    sections: beginnings of the names of fields that matter; by default all.
  """

  def those(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k.startswith(sections)}

  trained = metadata.get('config') or config
  if changed := changed_fields(those(trained), those(config)):
    raise ConfigError(
      f'the checkpoint is of another config ({changed}): use its values, or '
      'another --workdir.'
    )
  stored = metadata.get('fingerprint')
  if stored and fingerprint not in (None, stored):
    raise ConfigError(
      f'the data is not what the checkpoint was trained on (fingerprint '
      f'{fingerprint}, the checkpoint has {stored}): restore the files and '
      'settings of the data, or use another workdir.'
    )
