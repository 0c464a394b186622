"""A plan, in words."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vdm_jax.job import Job, build
from vdm_jax.planning import advice, blocks, compiler
from vdm_jax.planning.chips import Topology
from vdm_jax.planning.estimate import Estimate, Micro
from vdm_jax.planning.workload import Workload

COMPILE = ('nothing', 'blocks', 'step')


def plan(
  config: Mapping[str, Any],
  topology: Topology,
  *,
  compiled: str = 'nothing',
  cache: pathlib.Path,
) -> str:
  """Returns what a job takes of a topology, and what to change.

  Args:
    config: of the job.
    topology: the chips.
    compiled: what the TPU compiler is asked about, one of `COMPILE`.
    cache: folder for the times of compiled blocks.

  Raises:
    ConfigError, ValueError: for a config that is not allowed, batches that do
      not fit the mesh, or no TPU compiler.
  """
  job = build(config)
  load = Workload(job, topology.size)
  if compiled != 'nothing':
    compiler.devices(topology)  # or refuses, before it takes long
  estimate = Estimate.of(load, topology, Micro.of(load, topology.chip))
  lines = [*_heading(load, topology), *_described(estimate, job)]
  if not estimate.fits:
    lines.append(_advised(config, topology, job))
  if compiled == 'blocks':
    micro = blocks.seconds(load, topology, cache)
    lines.append(_asked('blocks', micro * job.train.accumulate, estimate, job))
  elif compiled == 'step':
    found = compiler.step(load, topology)
    lines += [
      _asked('the whole step', found.seconds, estimate, job),
      f'  {_size(found.memory)} of a chip: {_size(found.arguments)} given, '
      f'{_size(found.temporary)} temporary',
    ]
  return '\n'.join(lines)


def _heading(load: Workload, topology: Topology) -> list[str]:
  """What runs where."""
  train, mesh = load.job.train, load.mesh.shape
  images = f' with {train.num_images} images each' if train.num_images else ''
  return [
    f'{load.parameters / 1e6:,.1f} M parameters on {topology}, '
    f'{topology.size} chips: data {mesh["data"]} x fsdp {mesh["fsdp"]} x model '
    f'{mesh["model"]}',
    f'{train.batch_size} videos of {"x".join(map(str, load.job.video_shape))}'
    f'{images}: {load.videos} on a chip at once, {train.accumulate} times a '
    'step',
  ]


def _described(found: Estimate, job: Job) -> list[str]:
  """Memory and time."""
  parts = ('state', 'gradients', 'activations')
  sizes = ', '.join(f'{part} {_size(getattr(found, part))}' for part in parts)
  verdict = 'fits' if found.fits else 'DOES NOT FIT'
  return [
    f'memory       {_size(found.memory)} of '
    f'{_size(found.topology.chip.memory)}, {verdict}: {sizes}',
    f'work         {found.flops / 1e12:.3g} TFLOP a step and chip, '
    f"{found.flops / found.model_flops:.2f} times the model's own",
    f'a step       {_paced(found.seconds, found, job)}',
    f'             (roofline: compute {_time(found.compute)}, links '
    f'{_time(found.links)}, side by side)',
  ]


def _paced(seconds: float, found: Estimate, job: Job) -> str:
  """A time, as a share of the peak and of a whole run."""
  steps = job.train.num_steps
  return (
    f'{_time(seconds)}, {found.utilisation(seconds):.0%} of peak; {steps:,} '
    f'steps take {_time(seconds * steps)}'
  )


def _size(number: float) -> str:
  """Bytes, for people."""
  for unit, name in ((2**30, 'GiB'), (2**20, 'MiB')):
    if number >= 0.1 * unit:
      return f'{number / unit:.1f} {name}'
  return f'{number / 2**10:.1f} KiB'


def _time(seconds: float) -> str:
  """Seconds, for people."""
  units = ((86400, 'days'), (3600, 'hours'), (60, 'minutes'), (1, 's'))
  for unit, name in units:
    if seconds >= unit:
      return f'{seconds / unit:.1f} {name}'
  return f'{1e3 * seconds:.3g} ms'


def _asked(what: str, seconds: float, found: Estimate, job: Job) -> str:
  """What the compiler says of time."""
  return f'compiler, {what}: {_paced(seconds, found, job)}'


def _advised(config: Mapping[str, Any], topology: Topology, job: Job) -> str:
  """The cheapest change that fits."""
  advised = advice.cheapest(config, topology)
  if not advised:
    return (
      'No share of parameters, recomputation or micro-batch makes it fit: use '
      'more chips, or chips with more memory.'
    )
  change, found = advised
  flags = ' '.join(f'--config.{name}={value}' for name, value in change.items())
  return (
    f'cheapest that fits: {flags}\n             '
    f'{_size(found.memory)}; {_paced(found.seconds, found, job)}'
  )
