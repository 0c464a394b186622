"""The cheapest change by which a job fits its chips.

Candidates are recomputation (`remat`), micro-batches (`accumulate`) and
parameters shared out (`fsdp`); of those whose step takes at most 5 % more than
the fastest's, the one that changes least.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from vdm_jax.job import build
from vdm_jax.planning.chips import Topology
from vdm_jax.planning.estimate import Estimate, Micro
from vdm_jax.planning.workload import Workload

Config = Mapping[str, Any]
Change = dict[str, Any]
"""Values by the names of fields, e.g. {'mesh.fsdp': 4}."""

_ALIKE = 1.05


def changed(config: Config, change: Change) -> dict[str, Any]:
  """Returns a config with other values."""
  result = copy.deepcopy(dict(config))
  for name, value in change.items():
    *path, field = name.split('.')
    section = result
    for part in path:
      section = section.setdefault(part, {})
    section[field] = value
  return result


def cheapest(
  config: Config, topology: Topology
) -> tuple[Change, Estimate] | None:
  """Returns the change that makes a job fit, and what it then takes.

  None where no change does.
  """
  fitting: list[tuple[Change, Estimate]] = []
  state = None
  traced: dict[tuple[Any, int], Micro] = {}  # of what is alike
  for remat, accumulate, fsdp in _candidates(config, topology.size):
    change = remat | accumulate | fsdp
    try:
      load = Workload(build(changed(config, change)), topology.size, state)
    except ValueError:  # batch and mesh do not fit
      continue
    state = load.state
    if load.held(state) + load.held(load.state.params) > (topology.chip.memory):
      continue
    alike = tuple(remat), load.videos
    if alike not in traced:
      traced[alike] = Micro.of(load, topology.chip)
    estimate = Estimate.of(load, topology, traced[alike])
    if estimate.fits:
      fitting.append((change, estimate))
  fastest = min((e.seconds for _, e in fitting), default=0.0)
  good = (pair for pair in fitting if pair[1].seconds <= _ALIKE * fastest)
  return next(good, None)


def _candidates(config: Config, chips: int) -> Iterator[tuple[Change, ...]]:
  """Yields recomputation, micro-batches and shares, from none to most."""
  network = config['network']
  parts = [''] if 'name' in network else ['base.', 'residual.']
  remat = {
    f'network.{part}remat': True
    for part in parts
    if not (network[part[:-1]] if part else network).get('remat')
  }
  accumulate = config['train'].get('accumulate', 1)
  mesh = config.get('mesh', {})
  fsdp = mesh.get('fsdp', 1)
  rest = {'mesh.data': -1} if mesh.get('data', -1) != -1 else {}
  powers = [2**n for n in range(chips.bit_length())]
  yield from itertools.product(
    [{}, remat] if remat else [{}],
    [{'train.accumulate': accumulate * n} if n > 1 else {} for n in powers],
    [{'mesh.fsdp': fsdp * n, **rest} if n > 1 else {} for n in powers],
  )
