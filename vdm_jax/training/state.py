"""The training state: everything that a run needs to go on."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array


@struct.dataclass
class TrainState:
  """What one step turns into the next.

  Attributes:
    step: batches seen, int32.
    params: parameters, float32.
    ema: exponential moving average of `params`; what samples are drawn with.
    opt_state: state of the optimizer.
    skipped: batches whose loss or gradient was not finite, int32.
    skipped_run: how many of the last batches in a row were skipped, int32.
  """

  step: Array
  params: Any
  ema: Any
  opt_state: Any
  skipped: Array
  skipped_run: Array

  @classmethod
  def create(
    cls, params: Any, optimizer: optax.GradientTransformation
  ) -> 'TrainState':
    """Returns the state before the first step."""
    # No array twice: the step donates them, one buffer each.
    return cls(
      step=jnp.zeros((), jnp.int32),
      params=params,
      ema=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
      skipped=jnp.zeros((), jnp.int32),
      skipped_run=jnp.zeros((), jnp.int32),
    )
