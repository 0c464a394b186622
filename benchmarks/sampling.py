"""Cost of a sampling step: plain, guided by a class, guided by known frames.

  python benchmarks/sampling.py

One network, samplers run in turn in one process: the median over rounds of CPU
seconds (min - max), steps per second of the wall clock, and the median of the
ratios of CPU seconds within a round.  Memory is what the compiler reserves for
temporary values.  A corrector doubles the network calls of every row.
`twice the videos` is plain sampling of a batch of twice the size: what one
network call for guidance by a class has to cost on this machine.
"""

import argparse
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp

from vdm_jax.networks.unet import UNet
from vdm_jax.samplers import Ancestral
from vdm_jax.systems.vdm import VDM


def parse():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch', type=int, default=1)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--frames', type=int, default=8)
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--steps', type=int, default=2)
  parser.add_argument('--rounds', type=int, default=5)
  return parser.parse_args()


def programs(args):
  """(name, compiled function of a key) of every kind of sampling."""
  network = UNet(
    width=args.width,
    multipliers=(1, 2),
    num_blocks=1,
    attention_resolutions=(16,),
    embedding_dim=256,
    embedding_layers=2,
    classes=(10,),
  )
  system = VDM(network)
  shape = args.batch, args.frames, args.size, args.size, 3
  params = jax.jit(lambda key: system.init(key, shape[1:]))(jax.random.key(0))
  cond = {'label': jnp.zeros(args.batch, jnp.int32)}
  known = jnp.zeros(shape)
  mask = jnp.arange(args.frames).reshape(1, -1, 1, 1, 1) < args.frames // 2
  common = {'sampler': Ancestral(0.1), 'num_steps': args.steps}

  twice = 2 * args.batch, *shape[1:]
  cond_twice = {'label': jnp.zeros(2 * args.batch, jnp.int32)}

  def plain(key, params, shape=shape, **options):
    return system.sample(params, key, shape, **common, **options)

  def given(key, params, **options):
    return system.sample_given(params, key, known, mask, **common, **options)

  kinds = {
    'plain': lambda k, p: plain(k, p, cond=cond),
    'twice the videos': lambda k, p: plain(k, p, twice, cond=cond_twice),
    'classifier-free guidance': lambda k, p: plain(
      k, p, cond=cond, guidance_scale=2.0
    ),
    'replacement': lambda k, p: given(k, p, cond=cond, method='replacement'),
    'reconstruction guidance': lambda k, p: given(k, p, cond=cond),
    'both guidances': lambda k, p: given(k, p, cond=cond, guidance_scale=2.0),
  }
  key = jax.random.key(1)
  for name, function in kinds.items():
    compiled = jax.jit(function).lower(key, params).compile()
    yield Program(name, lambda c=compiled: c(key, params), compiled)


@dataclasses.dataclass
class Program:
  name: str
  run: object
  compiled: object

  @property
  def memory(self):
    return self.compiled.memory_analysis().temp_size_in_bytes / 2**20


def main():
  args = parse()
  every = list(programs(args))
  seconds = {program.name: [] for program in every}
  wall = {program.name: [] for program in every}
  for round_ in range(args.rounds + 1):
    for program in every:
      start, clock = time.process_time(), time.perf_counter()
      jax.block_until_ready(program.run())
      if round_:  # the first one warms up
        spent = (time.process_time() - start) / args.steps
        seconds[program.name].append(spent)
        spent = (time.perf_counter() - clock) / args.steps
        wall[program.name].append(spent)
  print(
    f'{args.batch} x {args.frames} x {args.size} x {args.size}, width '
    f'{args.width}, {jax.devices()[0].platform}, {args.rounds} rounds\n'
    f'{"":26}{"CPU s a step":>24}{"steps/s":>9}{"ratio":>7}{"MiB":>7}'
  )
  base = seconds['plain']
  for program in every:
    spent = seconds[program.name]
    middle = statistics.median(spent)
    ratio = statistics.median(a / b for a, b in zip(spent, base, strict=True))
    span = f'{middle:.3f} ({min(spent):.3f} - {max(spent):.3f})'
    rate = 1 / statistics.median(wall[program.name])
    print(
      f'{program.name:26}{span:>24}{rate:9.2f}{ratio:7.2f}{program.memory:7.0f}'
    )


if __name__ == '__main__':
  main()
