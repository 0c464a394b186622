"""One training step, a pure function of (state, batch).

  draw      times, noise and hidden labels for the whole global batch
  gradient  of the loss, summed over micro-batches by a scan
  update    Adam and the moving average
  guard     a loss or gradient that is not finite leaves everything as it was

The random key of a step is the seed folded with the step's number: nothing
depends on the number of devices or micro-batches, nor on what ran before.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vdm_jax.systems.protocol import Batch, System
from vdm_jax.training.state import TrainState

Metrics = dict[str, Array]
StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def ema_decay(step: Array, decay: float) -> Array:
  """Returns the decay at `step`: young averages forget their start faster."""
  return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def make_step(
  system: System,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  decay: float,
  accumulate: int = 1,
) -> StepFn:
  """Returns the step function, to be jitted by `training.sharding`.

  Args:
    system: what is trained.
    optimizer: turns gradients into updates.
    seed: of all randomness.
    decay: of the moving average of the parameters.
    accumulate: micro-batches that a batch is cut into, to save memory.
  """

  def gradient(params: Any, key: Array, drawn: Batch):
    if accumulate == 1:
      return jax.value_and_grad(system.loss)(params, key, drawn)
    # Rows i, i + A, i + 2 A, ... : each device cuts its own rows.
    micro_batches = jax.tree.map(
      lambda a: a.reshape(-1, accumulate, *a.shape[1:]).swapaxes(0, 1), drawn
    )

    def add(total, micro):
      index, drawn = micro
      part = jax.value_and_grad(system.loss)(
        params, jax.random.fold_in(key, index), drawn
      )
      return jax.tree.map(jnp.add, total, part), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zero, (jnp.arange(accumulate), micro_batches))
    return jax.tree.map(lambda a: a / accumulate, total)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    draw_key, dropout_key = jax.random.split(key)
    drawn = system.draw(draw_key, batch)
    loss, grads = gradient(state.params, dropout_key, drawn)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    keep = ema_decay(state.step, decay)
    ema = jax.tree.map(
      lambda old, new: keep * old + (1 - keep) * new, state.ema, params
    )

    new = (params, ema, opt_state)
    old = (state.params, state.ema, state.opt_state)
    params, ema, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old), new, old
    )
    state = TrainState(
      step=state.step + 1,
      params=params,
      ema=ema,
      opt_state=opt_state,
      skipped=state.skipped + ~finite,
      skipped_run=jnp.where(finite, 0, state.skipped_run + 1),
    )
    metrics = {
      'loss': loss,
      'grad_norm': norm,
      'skipped': state.skipped,
      'skipped_run': state.skipped_run,
    }
    return state, metrics

  return step


def jitted(step: StepFn, state: TrainState) -> Any:
  """Returns the step, to be compiled: it takes over the state's memory.

  Args:
    step: the step function.
    state: what it is given, or its shapes and shardings.
  """
  shardings = jax.tree.map(lambda a: a.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
