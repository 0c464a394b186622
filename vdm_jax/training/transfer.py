"""Starting from parameters that are trained already.

What has the same name and shape is taken; what the other model lacks starts
fresh, and what it has beyond is left out.  Both are said.  The same name with
another shape is an error: the networks are not the same.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

Params = Any


def transfer(fresh: Params, given: Mapping[str, Params]) -> tuple[Params, str]:
  """Puts given parameters in the place of fresh ones.

  Args:
    fresh: all parameters.
    given: trained ones, by the part of `fresh` that they are for; '' is the
      whole.

  Returns:
    the parameters, and a report, a line for each part.

  Raises:
    ValueError: for a part that is not there, shapes that differ, or a part of
      which nothing matches.
  """
  report = []
  for part, trained in given.items():
    if part and part not in fresh:
      raise ValueError(
        f'config.init.{part} names no part of the parameters; there are '
        f'{", ".join(fresh)}.'
      )
    own = _flat(fresh[part] if part else fresh)
    other = _flat(trained)
    common = own.keys() & other.keys()
    differ = sorted(k for k in common if own[k].shape != other[k].shape)
    if differ:
      shown = '; '.join(
        f'{k} is {tuple(other[k].shape)}, not {tuple(own[k].shape)}'
        for k in differ[:5]
      )
      more = f'; and {len(differ) - 5} more' if len(differ) > 5 else ''
      raise ValueError(
        f'config.init.{part or "whole"} does not fit the network ({shown}'
        f'{more}): give it the same width, multipliers and embeddings.'
      )
    if not common:
      raise ValueError(
        f'config.init.{part or "whole"} has no parameter of that network, but '
        f'e.g. {next(iter(other), "none")}.'
      )
    taken = traverse_util.unflatten_dict(
      {k: other[k] if k in common else v for k, v in own.items()}, sep='/'
    )
    fresh = {**fresh, part: taken} if part else taken
    report.append(_line(part or 'all', own, other))
  return fresh, '\n'.join(report)


def _flat(tree: Params) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep='/')


def _line(part: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
  common = own.keys() & other.keys()
  size = sum(int(np.prod(own[k].shape)) for k in common)
  line = f'{part}: {len(common)} of {len(own)} arrays ({size:,} numbers) taken'
  for word, names in (
    ('fresh', own.keys() - common),
    ('left out', other.keys() - common),
  ):
    if names:
      modules = sorted({name.rsplit('/', 1)[0] for name in names})
      shown = ', '.join(modules[:4]) + (', ...' if len(modules) > 4 else '')
      line += f'; {word}: {len(names)} ({shown})'
  return f'{line}.'
