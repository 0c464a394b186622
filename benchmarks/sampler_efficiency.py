"""Error of samples against network calls, where the best denoiser is known.

  python benchmarks/sampler_efficiency.py [--png docs/samplers.png]

Two kinds of video of 8 frames, both under PYoCo's progressive noise, sampled
through EDM's levels:

  Gaussian   frames correlate by 0.95 a step
  mixture    the same about one of two means, five deviations apart

The error is that of the distribution along 32 random directions over frames:
the mean Wasserstein-1 distance, in standard deviations.  With a denoiser that
is exact it has two parts, from finite steps and from finite draws; true draws
have the second alone.  Numbers are means over several sets of draws, made at
once as a batch (their lowest - highest).
"""

import argparse
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtr

from vdm_jax import samplers
from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import Progressive
from vdm_jax.diffusion.schedules import Karras

FRAMES, PIXELS = 8, 2**14
NOISE = Progressive(2.0)
LAGS = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
CORRELATION = 0.95**LAGS
PEAK = np.cos(np.linspace(0, np.pi, FRAMES))
# Means of the components [C, F], and the covariance of each.
TARGETS = {
  'Gaussian': (np.zeros((1, FRAMES)), 0.25 * CORRELATION),
  'mixture': (np.stack([PEAK, -PEAK]) * 0.7, 0.28**2 * CORRELATION),
}
# Network calls of a step, and the sampler.
METHODS = {
  'ancestral': (1, samplers.Ancestral(0.0)),
  'DDIM': (1, samplers.DDIM()),
  'Heun': (2, samplers.Heun()),
  'DEIS 2': (1, samplers.DEIS(2)),
  'DEIS 3': (1, samplers.DEIS(3)),
  '3kutta': (3, samplers.Kutta()),
  'stochastic DEIS': (3, samplers.Churn(samplers.Kutta(), 0.1)),
}
CALLS = (6, 12, 24, 48, 96)
CLAIM = ('DEIS 3', 25), ('ancestral', 256)  # are to be level


def denoiser(means: np.ndarray, covariance: np.ndarray) -> Callable:
  """E[x | z] of a mixture of Gaussians of one covariance, each pixel alone."""
  m, k = (jnp.asarray(a, jnp.float32) for a in (means, covariance))
  product = functools.partial(jnp.matmul, precision='highest')

  def denoise(z: Array, logsnr: Array) -> Array:
    a, s = gaussian.alpha(logsnr), gaussian.sigma(logsnr)
    inverse = jnp.linalg.inv(a**2 * k + s**2 * NOISE.covariance(FRAMES))
    about = z[:, None, :, :, 0, 0] - a * m[:, :, None]  # [B, C, F, P]
    weighed = product(inverse, about)
    log_weight = -0.5 * (about * weighed).sum(2, keepdims=True)
    estimate = m[:, :, None] + a * product(k, weighed)
    return (jax.nn.softmax(log_weight, 1) * estimate).sum(1).reshape(z.shape)

  return denoise


def error(points: np.ndarray, target: str) -> float:
  """Distance of the distribution of [F, P] from the true one."""
  means, covariance = TARGETS[target]
  whole = covariance + (means.T @ means) / len(means)
  found = []
  for u in np.random.default_rng(1).normal(size=(32, FRAMES)):
    width, spread = np.sqrt(u @ covariance @ u), np.sqrt(u @ whole @ u)
    grid = np.linspace(-6, 6, 2001)
    true = ndtr((grid[:, None] * spread - means @ u) / width).mean(1)
    sorted_points = np.sort(u @ np.asarray(points, np.float64)) / spread
    share = np.searchsorted(sorted_points, grid) / sorted_points.size
    found.append(np.abs(share - true).sum() * (grid[1] - grid[0]))
  return float(np.mean(found))


def true_draws(target: str, seed: int) -> np.ndarray:
  means, covariance = TARGETS[target]
  rng = np.random.default_rng(seed)
  eps = np.linalg.cholesky(covariance) @ rng.normal(size=(FRAMES, PIXELS))
  return means[rng.integers(len(means), size=PIXELS)].T + eps


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def draw(
  key: Array,
  sets: int,
  target: str,
  sampler: samplers.Sampler,
  num_steps: int,
) -> Array:
  return samplers.sample(
    key,
    denoiser(*TARGETS[target]),
    (sets, FRAMES, PIXELS, 1, 1),
    schedule=Karras(),
    sampler=sampler,
    num_steps=num_steps,
    noise=NOISE,
  )[..., 0, 0]


def errors(target: str, method: str, calls: int, sets: int) -> np.ndarray:
  """Of each set of draws."""
  of_step, sampler = METHODS[method]
  steps = max(1, calls // of_step)
  draws = np.asarray(draw(jax.random.key(0), sets, target, sampler, steps))
  return np.array([error(points, target) for points in draws])


def shown(values: np.ndarray) -> str:
  return f'{values.mean():.4f} ({values.min():.4f} - {values.max():.4f})'


def plot(path: pathlib.Path, found: dict, floors: dict) -> None:
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(1, len(TARGETS), figsize=(9, 4), sharey=True)
  for axis, target in zip(axes, TARGETS, strict=True):
    for method in METHODS:
      known = sorted(k[2] for k in found if k[:2] == (target, method))
      values = np.array([found[target, method, calls] for calls in known])
      (line,) = axis.loglog(known, values.mean(1), 'o-', label=method)
      low, high = values.min(1), values.max(1)
      axis.fill_between(known, low, high, color=line.get_color(), alpha=0.2)
    axis.axhline(
      floors[target].mean(), color='grey', ls=':', label='true draws'
    )
    ticks = *CALLS, 256
    axis.set(title=target, xlabel='network calls', xticks=ticks)
    axis.set_xticklabels(ticks)
    axis.minorticks_off()
  axes[0].set_ylabel('Wasserstein-1 distance, deviations')
  axes[0].legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--sets', type=int, default=4, help='of draws')
  parser.add_argument('--png', type=pathlib.Path)
  args = parser.parse_args()
  found, floors = {}, {}
  for target in TARGETS:
    draws = [error(true_draws(target, s), target) for s in range(args.sets)]
    floors[target] = np.array(draws)
    print(f'\n{target:16}' + ''.join(f'{calls:8}' for calls in CALLS))
    for method in METHODS:
      for calls in CALLS:
        found[target, method, calls] = errors(target, method, calls, args.sets)
      row = [np.mean(found[target, method, calls]) for calls in CALLS]
      print(f'{method:16}' + ''.join(f'{v:8.4f}' for v in row), flush=True)
    print(f'true draws: {shown(floors[target])}')
    for method, calls in CLAIM:
      values = errors(target, method, calls, args.sets)
      found[target, method, calls] = values
      print(f'{method}, {calls} calls: {shown(values)}', flush=True)
  if args.png:
    plot(args.png, found, floors)


if __name__ == '__main__':
  main()
