"""Time of a training step, beside the same network in PyTorch.

  python benchmarks/train_step.py --batch 1,2,4

Forward, backward and Adam of one network, run after run in turn by both
libraries in one process, with one thread each unless --threads says
otherwise.  On a shared machine CPU seconds stay put where the wall clock does
not, so the ratio is of those.  The share of peak is of this machine's own
matrix products, measured in the same run.  Needs the extra `bench`.

The program starts itself again with an allocator that keeps its pages: fresh
pages cost more here than the arithmetic on them.
"""

import argparse
import os
import statistics
import sys
import time

_ALLOCATOR = ':'.join(
  f'glibc.malloc.{setting}'
  for setting in (
    'mmap_max=0',
    'trim_threshold=21474836480',
    'top_pad=67108864',
    'hugetlb=1',
    'arena_max=1',
  )
)


def parse():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])

  def numbers(text):
    return tuple(int(part) for part in text.split(','))

  parser.add_argument('--batch', type=numbers, default=(1, 2, 4))
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--multipliers', type=numbers, default=(1, 2, 4))
  parser.add_argument('--num_blocks', type=int, default=2)
  parser.add_argument('--attention', type=numbers, default=(8, 16))
  parser.add_argument('--head_dim', type=int, default=64)
  parser.add_argument('--frames', type=int, default=16)
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--iters', type=int, default=5)
  parser.add_argument('--threads', type=int, default=1)
  return parser.parse_args()


def restart(threads):
  """Replaces this process by one with the allocator and threads set."""
  # Both libraries size their thread pools by the cores they may run on.
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
  settings = {
    'GLIBC_TUNABLES': _ALLOCATOR,
    'OMP_NUM_THREADS': str(threads),
    'OMP_WAIT_POLICY': 'PASSIVE',
  }
  if any(os.environ.get(name) != value for name, value in settings.items()):
    os.execve(
      sys.executable, [sys.executable, *sys.argv], dict(os.environ, **settings)
    )


def cpu_seconds(run):
  start = time.process_time()
  run()
  return time.process_time() - start


def jax_step(args, batch):
  """Returns a function that takes one step, and the number of parameters."""
  import jax
  import jax.numpy as jnp
  import optax

  from vdm_jax.networks.unet import UNet

  network = UNet(
    width=args.width,
    multipliers=args.multipliers,
    num_blocks=args.num_blocks,
    attention_resolutions=args.attention,
    head_dim=args.head_dim,
    embedding_layers=2,
  )
  shape = (batch, args.frames, args.size, args.size, 3)
  z, eps = jax.random.normal(jax.random.key(0), (2, *shape))
  logsnr = jnp.zeros(batch)
  params = jax.jit(
    network.init, compiler_options={'xla_backend_optimization_level': 0}
  )(jax.random.key(1), z, logsnr)
  optimizer = optax.adam(1e-4)

  def step(params, opt_state, z, eps, logsnr):
    def loss(params):
      output = network.apply(params, z, logsnr, train=True)
      return jnp.square(output - eps).mean()

    grads = jax.grad(loss)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state

  carry = [params, optimizer.init(params)]
  data = z, eps, logsnr
  compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, *data).compile()

  def run():
    carry[:] = compiled(*carry, *data)
    jax.block_until_ready(carry)

  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return run, count


def torch_step(args, batch):
  """Returns a function that takes one step, its FLOPs and parameters."""
  import torch
  from torch.utils.flop_counter import FlopCounterMode
  from torch_twin import Twin

  torch.set_num_threads(args.threads)
  torch.manual_seed(0)
  network = Twin(
    args.width,
    args.multipliers,
    args.num_blocks,
    args.attention,
    args.head_dim,
    1024,
    args.size,
  )
  z, eps = torch.randn(2, batch, args.frames, 3, args.size, args.size)
  logsnr = torch.zeros(batch)
  optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

  def run():
    ((network(z, logsnr) - eps) ** 2).mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  with FlopCounterMode(display=False) as counter:
    run()
  count = sum(p.numel() for p in network.parameters())
  return run, counter.get_total_flops(), count


def matmul_peak():
  """FLOP per CPU second of 2048 x 2048 float32 products: the better library."""
  import jax
  import jax.numpy as jnp
  import torch

  a, b = jnp.ones((2048, 2048)), torch.ones(2048, 2048)
  product = jax.jit(jnp.matmul)
  runs = (lambda: product(a, a).block_until_ready()), (lambda: b @ b)
  best = min(cpu_seconds(run) for run in runs * 6)
  return 2 * 2048**3 / best


def main():
  args = parse()
  restart(args.threads)
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  print(
    f'({args.width}; {",".join(map(str, args.multipliers))}), '
    f'{args.frames}x{args.size}x{args.size}, {args.threads} thread(s), '
    f'median of {args.iters} steps (min-max)'
  )
  columns = (
    'batch',
    'GFLOP/step',
    'vdm_jax cpu s',
    'PyTorch cpu s',
    'ratio',
    'steps/s wall',
    'vdm_jax share of peak',
    'PyTorch share of peak',
    'load',
  )
  print('| ' + ' | '.join(columns) + ' |')
  print('|' + '---|' * len(columns), flush=True)
  for batch in args.batch:
    ours, count = jax_step(args, batch)
    theirs, flops, twin_count = torch_step(args, batch)
    assert abs(count / twin_count - 1) < 0.01, 'not the same network'
    peak = matmul_peak()
    times: dict[str, list[float]] = {'ours': [], 'theirs': []}
    wall = []
    ours(), theirs()
    for _ in range(args.iters):
      start = time.perf_counter()
      times['ours'].append(cpu_seconds(ours))
      wall.append(time.perf_counter() - start)
      times['theirs'].append(cpu_seconds(theirs))
    middle = {name: statistics.median(t) for name, t in times.items()}

    def show(name, times=times, middle=middle):
      spread = f'({min(times[name]):.2f}-{max(times[name]):.2f})'
      return f'{middle[name]:.2f} {spread}'

    cells = (
      str(batch),
      f'{flops / 1e9:.0f}',
      show('ours'),
      show('theirs'),
      f'{middle["ours"] / middle["theirs"]:.2f}',
      f'{1 / statistics.median(wall):.2f}',
      f'{flops / middle["ours"] / peak:.0%}',
      f'{flops / middle["theirs"] / peak:.0%}',
      f'{os.getloadavg()[0]:.1f}',
    )
    print('| ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
  main()
