"""VideoFusion's Table 4: one denoising step beside a VDM of the same base.

  python benchmarks/videofusion.py            this machine, measured
  python benchmarks/videofusion.py --tpu      a TPU v4 chip, by its compiler

The VDM has the base generator's network on all frames: "extends a 2D DPM to 3D
by stacking images at an additional dimension".  The paper does not say by what
its frames see each other.  Here they do as in the residual generator, by
attention and four convolutions; a VDM with attention alone stands beside.
Memory is parameters, inputs, outputs and temporaries of
the compiled step; VideoFusion's counts the prior's parameters too.  Work is the
arithmetic of the step before any compiler: what no machine can do without.
"""

import argparse
import dataclasses
import math
import statistics
import time
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from vdm_jax.diffusion.noise import BaseResidual
from vdm_jax.networks.prior import Prior
from vdm_jax.networks.unet import UNet
from vdm_jax.systems.prior import EmbeddingPrior
from vdm_jax.systems.vdm import VDM
from vdm_jax.systems.videofusion import VideoFusion

SMALL = {
  'multipliers': (1, 2, 3),
  'num_blocks': 1,
  'attention_resolutions': (8, 16),
  'head_dim': 32,
  'embedding_layers': 2,
  'resample': 'block',
  'visual_dim': 48,
}
PAPER = {
  **SMALL,
  'multipliers': (1, 2, 3, 5),
  'num_blocks': 2,
  'attention_resolutions': (8, 16, 32),
  'head_dim': 64,
  'visual_dim': 768,
  'dtype': jnp.bfloat16,
}


@dataclasses.dataclass(frozen=True)
class Size:
  """Networks and videos to compare at."""

  network: dict[str, Any]
  base: int
  residual: int
  prior: dict[str, Any]
  shape: tuple[int, int, int, int, int]


SIZES = {
  'cpu': Size(SMALL, 96, 64, {'width': 64, 'depth': 2}, (1, 16, 32, 32, 3)),
  'paper': Size(
    PAPER, 192, 128, {'width': 1024, 'depth': 12}, (1, 16, 64, 64, 3)
  ),
}


def systems(size: Size) -> dict[str, Any]:
  """The two systems, by name."""
  wide = {**size.network, 'width': size.base, 'embedding_dim': 4 * size.base}
  thin = {
    **size.network,
    'width': size.residual,
    'embedding_dim': 4 * size.residual,
    'temporal_convolutions': 4,
    'visual': 'cross',
  }
  return {
    'VDM, attention alone': VDM(UNet(**wide)),
    'VDM': VDM(UNet(**wide, temporal_convolutions=4)),
    'VideoFusion': VideoFusion(
      base=UNet(**wide, temporal=False),
      residual=UNet(**thin),
      prior=EmbeddingPrior(Prior(head_dim=32, **size.prior)),
      noise=BaseResidual(0.5),
    ),
  }


def step_of(system: Any, size: Size) -> tuple[Any, tuple[Any, ...], int]:
  """One denoising step, what it takes, and the bytes of all parameters."""
  params = jax.eval_shape(
    lambda key: system.init(key, size.shape[1:]), jax.random.key(0)
  )
  held = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
  if 'prior' in params:  # it has done its work before the first step
    params = {k: v for k, v in params.items() if k != 'prior'}
  visual = size.shape[0], size.network['visual_dim']

  def step(params, z, logsnr, visual):
    return system.denoise(params, {'visual': visual})(z, logsnr)

  arguments = (
    params,
    jax.ShapeDtypeStruct(size.shape, jnp.float32),
    jax.ShapeDtypeStruct((), jnp.float32),
    jax.ShapeDtypeStruct(visual, jnp.float32),
  )
  return step, arguments, held


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of a step: seconds, GiB with all parameters of the system, GFLOP."""

  time: float
  memory: float
  work: float

  @classmethod
  def of(cls, time: float, lowered: Any, compiled: Any, held: int) -> Self:
    """Returns the cost of a step that takes so many seconds."""
    analysis = compiled.memory_analysis()
    size = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    work = lowered.cost_analysis()['flops'] / 1e9
    return cls(time, (size + held) / 2**30, work)


def measured(size: Size, rounds: int) -> dict[str, Cost]:
  """On this machine; the systems take turns, the median time counts."""
  ready = {}
  for name, system in systems(size).items():
    step, arguments, held = step_of(system, size)
    lowered = jax.jit(step).lower(*arguments)
    compiled = lowered.compile()
    ready[name] = compiled, arguments, [], lowered, held
    if not rounds:
      continue
    rng = np.random.default_rng(0)
    values = jax.tree.map(
      lambda a, rng=rng: jnp.asarray(0.1 * rng.normal(size=a.shape), a.dtype),
      arguments,
    )
    jax.block_until_ready(compiled(*values))
    ready[name] = compiled, values, [], lowered, held
  for _ in range(rounds):
    for compiled, values, times, *_ in ready.values():
      start = time.process_time()
      jax.block_until_ready(compiled(*values))
      times.append(time.process_time() - start)
  return {
    name: Cost.of(
      statistics.median(times or [math.nan]), lowered, compiled, held
    )
    for name, (compiled, _, times, lowered, held) in ready.items()
  }


def estimated(size: Size) -> dict[str, Cost]:
  """The same by the TPU compiler's estimate of cycles, on one v4 chip."""
  import re

  from jax.experimental import topologies
  from jax.sharding import SingleDeviceSharding

  topology = topologies.get_topology_desc(
    platform='tpu',
    topology_name='v4:2x2x1',
    chip_config_name='megacore',
    chips_per_host_bounds=(2, 2, 1),
  )
  place = SingleDeviceSharding(topology.devices[0])
  result = {}
  for name, system in systems(size).items():
    step, arguments, held = step_of(system, size)
    on_chip = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
      arguments,
    )
    lowered = jax.jit(step).lower(*on_chip)
    compiled = lowered.compile()
    cycles = re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())
    seconds = sum(map(int, cycles)) / 1.05e9
    result[name] = Cost.of(seconds, lowered, compiled, held)
    print(f'{name}: {result[name]}', flush=True)  # the next takes long
  return result


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--tpu', action='store_true')
  parser.add_argument('--size', choices=list(SIZES))
  parser.add_argument('--batch', type=int, default=1, help='videos')
  parser.add_argument('--rounds', type=int, default=7, help='0 runs nothing')
  args = parser.parse_args()
  size = SIZES[args.size or ('paper' if args.tpu else 'cpu')]
  size = dataclasses.replace(size, shape=(args.batch, *size.shape[1:]))
  rows = estimated(size) if args.tpu else measured(size, args.rounds)
  where = 'TPU v4 chip, compiled' if args.tpu else 'CPU seconds here'
  print(f'{"x".join(map(str, size.shape))}, {where}')
  own = rows['VideoFusion']
  for name, cost in rows.items():
    print(
      f'{name:21} {1000 * cost.time:8.1f} ms {cost.memory:6.3f} GiB '
      f'{cost.work:6.0f} GFLOP; VideoFusion '
      f'{own.time / cost.time - 1:+.1%}, {own.memory / cost.memory - 1:+.1%}, '
      f'{own.work / cost.work - 1:+.1%}'
    )
  print('The paper has -57.5% of time and -21.8% of memory.')


if __name__ == '__main__':
  main()
