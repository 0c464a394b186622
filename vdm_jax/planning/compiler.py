"""What the TPU compiler says, without a TPU.

`libtpu` compiles for a topology by its name.  Memory is exact.  Time is the
sum of the cycles that the compiler expects of each operation: those of a loop
as often as it runs; those of transfers that overlap with work are counted too.
"""

import dataclasses
import functools
import os
import re
from typing import Any, Self

import jax

from vdm_jax.planning.chips import Topology
from vdm_jax.planning.workload import Workload
from vdm_jax.training.loop import abstract_state
from vdm_jax.training.sharding import batch_sharding
from vdm_jax.training.step import jitted, make_step

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_WHILE = re.compile(r' while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)')
_LIMIT = re.compile(r' constant\((\d+)\)')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program, on one chip.

  Attributes:
    seconds: by the compiler's cycles.
    arguments: bytes of what it is given.
    temporary: bytes that it needs beside these and its results.
    memory: bytes of all of it.
  """

  seconds: float
  arguments: int
  temporary: int
  memory: int

  @classmethod
  def of(cls, compiled: Any, topology: Topology) -> Self:
    """Reads a compiled program."""
    sizes = compiled.memory_analysis()
    return cls(
      seconds=cycles(compiled.as_text()) / topology.chip.clock,
      arguments=sizes.argument_size_in_bytes,
      temporary=sizes.temp_size_in_bytes,
      memory=sizes.argument_size_in_bytes
      + sizes.temp_size_in_bytes
      + sizes.output_size_in_bytes
      - sizes.alias_size_in_bytes,
    )


def devices(topology: Topology) -> Any:
  """Returns devices to compile for, that do not exist.

  Raises:
    ValueError: if libtpu is not installed, or knows no such topology.
  """
  # Other processes may be at it too: nothing here touches a chip.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')
  from jax.experimental import topologies

  chip = topology.chip
  try:
    return topologies.get_topology_desc(
      platform='tpu',
      topology_name=str(topology),
      chip_config_name=chip.config,
      chips_per_host_bounds=chip.host,
    ).devices
  except (RuntimeError, NotImplementedError, jax.errors.JaxRuntimeError) as e:
    raise ValueError(
      f'--compile needs the TPU compiler for {topology}, and it said: '
      f'{str(e).splitlines()[0]}  Install the extra: pip install "vdm_jax[tpu]"'
    ) from e


def step(load: Workload, topology: Topology) -> Compiled:
  """Compiles a whole step for all chips: exact, and long."""
  job = load.job
  mesh = job.mesh.build(devices(topology))
  optimizer = job.optimizer.transformation()
  state = abstract_state(job.system, optimizer, job.video_shape, mesh)
  rows = job.train.batch_size
  batch = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      (rows, *a.shape[1:]), a.dtype, sharding=batch_sharding(mesh)
    ),
    load.batch(),
  )
  function = make_step(
    job.system,
    optimizer,
    seed=job.seed,
    decay=job.train.ema_decay,
    accumulate=job.train.accumulate,
  )
  lowered = jitted(function, state).lower(state, batch)
  return Compiled.of(lowered.compile(), topology)


def cycles(text: str) -> int:
  """Returns the cycles of a compiled program, from its text."""
  computations: dict[str, list[str]] = {}
  entry, lines = '', []
  for line in text.splitlines():
    if found := _COMPUTATION.match(line):
      lines = computations.setdefault(found[2], [])
      entry = found[2] if found[1] else entry
    else:
      lines.append(line)

  @functools.cache
  def total(name: str) -> int:
    found = 0
    for line in computations[name]:
      found += sum(map(int, _CYCLES.findall(line)))
      if loop := _WHILE.search(line):
        condition, body = loop.groups()
        # It counts from 0 up to the constant that it is compared with.
        limits = _LIMIT.findall('\n'.join(computations[condition]))
        found += max(map(int, limits), default=1) * total(body)
    return found

  return total(entry)
