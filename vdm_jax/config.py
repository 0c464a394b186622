"""Configs: from sections of plain values to constructors, checked by name.

A section of a config is a mapping from the names of a constructor's arguments
to their values; where there is a choice, `name` says which.  The constructors
are the schema: their argument names and annotations are what is allowed.
"""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin


class ConfigError(ValueError):
  """A field of a config is unknown, missing or of the wrong type."""


def nearest(name: str, allowed: typing.Iterable[str]) -> str:
  """Returns ' Did you mean ...?' if a name in `allowed` is close."""
  close = difflib.get_close_matches(name, list(allowed), n=1)
  return f' Did you mean {close[0]!r}?' if close else ''


def construct(
  choices: Callable[..., Any] | Mapping[str, Callable[..., Any]],
  section: Mapping[str, Any],
  path: str,
  **given: Any,
) -> Any:
  """Calls the constructor that a section names, with the section's values.

  Args:
    choices: a constructor, or constructors by the value of `section['name']`.
    section: values by argument name.
    path: where the section stands, for messages, e.g. 'config.network'.
    **given: arguments that do not come from the section.

  Raises:
    ConfigError: for a name that is not allowed or a value of another type.
  """
  values = dict(section)
  if callable(choices):
    constructor = choices
  else:
    name = values.pop('name', None)
    if name not in choices:
      raise ConfigError(
        f'{path}.name is {name!r}; it must be one of {sorted(choices)}.'
        + nearest(str(name), choices)
      )
    constructor = choices[name]
  # Hints come from the class, which flax and dataclasses annotate.
  hints = typing.get_type_hints(
    constructor
    if _has_fields(constructor)
    else getattr(constructor, '__init__', constructor)
  )
  allowed = [
    name
    for name in inspect.signature(constructor).parameters
    if name not in ('parent', 'name') and name not in given
  ]
  for name, value in values.items():
    if name not in allowed:
      raise ConfigError(
        f'{path}.{name} is not a field of {constructor.__name__}.'
        f'{nearest(name, allowed)} Allowed: {", ".join(allowed)}.'
      )
    values[name] = _typed(value, hints.get(name, Any), f'{path}.{name}')
  return constructor(**values, **given)


def _has_fields(constructor: Callable[..., Any]) -> bool:
  return hasattr(constructor, '__dataclass_fields__')


def _typed(value: Any, hint: Any, path: str) -> Any:
  """Returns `value` as `hint` asks, or raises ConfigError.

  Lists, which is what JSON makes of tuples, become tuples, and whole numbers
  are accepted as floats; nothing else is converted.
  """
  origin = get_origin(hint)
  if isinstance(value, list):
    value = tuple(value)
  if origin in (typing.Union, types.UnionType):
    for option in get_args(hint):
      try:
        return _typed(value, option, path)
      except ConfigError:
        continue
  elif origin is Literal:
    if value in get_args(hint):
      return value
  elif origin is tuple:
    if isinstance(value, tuple):
      entry = get_args(hint)[0]
      return tuple(_typed(v, entry, path) for v in value)
  elif hint is float:
    if isinstance(value, int | float) and not isinstance(value, bool):
      return float(value)
  elif hint is int:
    if isinstance(value, int) and not isinstance(value, bool):
      return value
  elif hint not in (bool, str, types.NoneType) or isinstance(value, hint):
    return value
  expected = getattr(hint, '__name__', None) if origin is None else str(hint)
  raise ConfigError(
    f'{path} is {value!r} of type {type(value).__name__}; '
    f'it must be of type {str(expected).replace("typing.", "")}.'
  )


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {'a.b': value} for nested mappings."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = list(value) if isinstance(value, tuple) else value
  return flat


def differences(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Returns the flat fields whose values differ, with both values.

  A field that one side lacks counts as None there.
  """
  a, b = flatten(old), flatten(new)
  return {
    name: (a.get(name), b.get(name))
    for name in sorted(a.keys() | b.keys())
    if a.get(name) != b.get(name)
  }


def choose(variant: str, *allowed: str) -> set[str]:
  """Returns the parts of a config's variant, 'a,b'.

  Raises:
    ValueError: for a part that is not allowed.
  """
  parts = {part for part in variant.split(',') if part}
  for part in sorted(parts - set(allowed)):
    raise ValueError(
      f'variant {part!r} is unknown.{nearest(part, allowed)} '
      f'Allowed, joined by commas: {", ".join(allowed)}.'
    )
  return parts


def read_from(config: Any, source: str, **fields: Any) -> None:
  """Lets a config read its clips elsewhere; what a clip is stays.

  Args:
    config: a ConfigDict with the section `data`.
    source: name of the source.
    **fields: what only this source needs, with values to be set by the user.
  """
  shared = (
    *('num_frames', 'height', 'width', 'frameskip'),
    *('fit', 'short', 'flip', 'captions'),
  )
  kept = {name: config.data[name] for name in shared if name in config.data}
  config.data = type(config)({'name': source, **fields, **kept})


def shrink(config: Any) -> None:
  """Makes a job of any size one of two steps, for tests: the smoke variant.

  What a config chooses stays; how large it is does not.
  """
  frames = 4
  if config.system.name == 'interpolation':
    frames = config.system.factor + 1
  config.data.update(height=16, width=16, num_frames=frames)
  whole = config.network
  for network in [whole] if 'width' in whole else whole.values():
    network.update(width=8, head_dim=8, dtype='float32')
    if 'multipliers' in network:
      network.update(multipliers=(1, 2), num_blocks=1, embedding_dim=16)
      network.attention_resolutions = (8,)
    else:
      network.depth = 1
    if 'block_multipliers' in network:
      network.update(block_multipliers=(1, 1), up_blocks=1)
      network.cross_resolutions = (8,)
    if network.get('text_dim'):
      network.text_dim = 8
    if network.get('clip_text_dim'):
      network.clip_text_dim = 6
    if network.get('visual_dim'):
      network.visual_dim = 48
      config.visual.encoder = 'thumbnail'
  config.optimizer.update(warmup_steps=1, decay_steps=0)
  config.train.update(num_steps=2, batch_size=2, log_every=1, save_every=1)
  config.train.look_every = 0
  config.sample.update(num_steps=2, num=2, num_evaluated=2, batch_size=2)
