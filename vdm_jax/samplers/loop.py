"""The one sampling loop.

    z_1 ~ noise prior
    for t, s in consecutive pairs of num_steps + 1 times from 1 to 0:
      z_s = sampler.step(z_t)           any sampler of this package
      z_s = corrector(z_s)              optional, e.g. Langevin, VDM eq. (5)
    return the last x_hat

The times are uniformly spaced (VDM, section 2) unless the schedule has levels
of its own (EDM).  The loop is a `lax.scan`:
one compilation and one device program, whatever the number of steps.

Every draw of noise, the first and those inside the steps, comes from the same
noise prior, so that the process sampled is the process that was trained.

The loop can be cut anywhere: `steps` says which part of it to run, and a cut
one goes on from the `State` that it returned, to the same videos.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion.noise import Independent, NoisePrior
from vdm_jax.diffusion.schedules import Schedule, levels
from vdm_jax.shapes import DenoiseFn, PRNGKey

State = tuple[Array, Array, Any]
"""z, the last x_hat, and what the sampler remembers."""


@runtime_checkable
class Sampler(Protocol):
  """One step of a sampling method, from time t to an earlier time s."""

  def init(self, z: Array) -> Any:
    """Returns what the method remembers between steps, a pytree; nothing."""
    del z
    return ()

  def step(
    self,
    key: Array,
    denoise: DenoiseFn,
    z: Array,
    memory: Any,
    *,
    logsnr_t: Array,
    logsnr_s: Array,
    noise: NoisePrior,
  ) -> tuple[Array, Array, Any]:
    """Returns (z_s, x_hat at z_t, memory)."""
    ...


@runtime_checkable
class Corrector(Protocol):
  """A move that leaves the marginal of z_s at `logsnr` as it is."""

  def __call__(
    self,
    key: Array,
    denoise: DenoiseFn,
    z: Array,
    *,
    logsnr: Array,
    noise: NoisePrior,
  ) -> Array:
    """Returns the moved z_s."""
    ...


def sample(
  key: PRNGKey,
  denoise: DenoiseFn,
  shape: tuple[int, ...],
  *,
  schedule: Schedule,
  sampler: Sampler,
  num_steps: int,
  noise: NoisePrior = Independent(),
  corrector: Corrector | None = None,
  progress: Callable[[Any], None] | None = None,
  steps: tuple[int, int] | None = None,
  state: State | None = None,
) -> Any:
  """Draws videos.

  Args:
    key: random key.
    denoise: (z [B, F, H, W, C], logsnr []) -> x_hat [B, F, H, W, C].
    shape: (B, F, H, W, C) of the result.
    schedule: t -> logsnr.
    sampler: the method, e.g. `Ancestral(0.1)` or `DDIM()`.
    num_steps: number of steps, at least 1.
    noise: the noise prior that the denoiser was trained with.
    corrector: applied after every step but the last.
    progress: called on the host with the number of finished steps.
    steps: the first step to run and the one to stop before; None is all.
    state: what the steps before returned; None at the first.

  Returns:
    The sampler's last estimate of the clean videos, float32 of `shape`; a
    `State` if `steps` stop before the last one.

  Raises:
    ValueError: if `shape` is not that of a batch of videos, or
      `num_steps` < 1.
  """
  if len(shape) != 5:
    raise ValueError(
      f'sample got shape={tuple(shape)}; give the five sizes '
      '(videos, frames, height, width, channels).'
    )
  if num_steps < 1:
    raise ValueError(f'sample got num_steps={num_steps}; give at least 1.')
  init_key, loop_key = jax.random.split(key)
  logsnrs = levels(schedule, num_steps)
  first, last = steps or (0, num_steps)
  if first > 0 and state is None:
    raise ValueError(
      f'sample got steps={steps} without the state that earlier ones returned.'
    )
  if state is None:
    z = noise.sample(init_key, shape)
    state = z, jnp.zeros_like(z), sampler.init(z)

  def advance(carry, step):
    z, _, memory = carry
    index, logsnr_t, logsnr_s = step
    step_key, correct_key = jax.random.split(
      jax.random.fold_in(loop_key, index)
    )
    z, x_hat, memory = sampler.step(
      step_key,
      denoise,
      z,
      memory,
      logsnr_t=logsnr_t,
      logsnr_s=logsnr_s,
      noise=noise,
    )
    if corrector is not None:
      # The result is the last x_hat: a move after it would be lost work.
      move = functools.partial(
        corrector, correct_key, denoise, logsnr=logsnr_s, noise=noise
      )
      z = jax.lax.cond(index + 1 < num_steps, move, lambda z: z, z)
    if progress is not None:
      # The data dependence on x_hat keeps the report behind the work.
      jax.debug.callback(
        lambda i, _, report=progress: report(i), index + 1, x_hat[0, 0, 0, 0]
      )
    return (z, x_hat, memory), None

  numbered = (jnp.arange(num_steps), logsnrs[:-1], logsnrs[1:])
  part = jax.tree.map(lambda a: a[first:last], numbered)
  state, _ = jax.lax.scan(advance, state, part)
  return state if last < num_steps else state[1]
