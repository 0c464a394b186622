"""A plan, in words."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vdm_jax.job import Job, build
from vdm_jax.planning import advice, blocks, compiler
from vdm_jax.planning.chips import Topology
from vdm_jax.planning.estimate import Estimate, Micro
from vdm_jax.planning.workload import Workload

_GIB = 2**30
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
      f'  {found.memory / _GIB:.2f} GiB of a chip: '
      f'{found.arguments / _GIB:.2f} given, {found.temporary / _GIB:.2f} '
      'temporary',
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
  chip = found.topology.chip
  verdict = 'fits' if found.fits else 'DOES NOT FIT'
  return [
    f'memory       {found.memory / _GIB:.1f} of {chip.memory / _GIB:.1f} GiB, '
    f'{verdict}: state {found.state / _GIB:.1f}, gradients '
    f'{found.gradients / _GIB:.1f}, activations {found.activations / _GIB:.1f}',
    f'work         {found.flops / 1e12:.1f} TFLOP a step and chip, '
    f"{found.flops / found.model_flops:.2f} times the model's own",
    f'a step       {_paced(found.seconds, found, job)}',
    f'             (roofline: compute {1e3 * found.compute:.0f} ms, links '
    f'{1e3 * found.links:.0f} ms, side by side)',
  ]


def _paced(seconds: float, found: Estimate, job: Job) -> str:
  """A time, as a share of the peak and in days."""
  share = found.model_flops / seconds / found.topology.chip.peak
  days = seconds * job.train.num_steps / 86400
  return (
    f'{1e3 * seconds:.0f} ms, {share:.0%} of peak; {job.train.num_steps:,} '
    f'steps take {days:.2g} days'
  )


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
    f'{found.memory / _GIB:.1f} GiB; {_paced(found.seconds, found, job)}'
  )
