"""Optimizers with warm-up, decay, clipping and masked weight decay.

Adam   the papers' choice.  VDM, Appendix A: constant learning rate,
       weight decay 0 or 0.01.
Muon   steps of equal length in all directions of a kernel, the rest by
       Adam with Nesterov's momentum (Jordan et al. 2024).  For short runs:
       it needs fewer steps.
"""

import dataclasses
from typing import Any

import jax
import optax
import optax.contrib


@dataclasses.dataclass(frozen=True)
class Adam:
  """Settings of the optimizer, from a config.

  Attributes:
    learning_rate: peak learning rate.
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    weight_decay: decoupled decay of kernels; biases, norms and embeddings are
      left alone.
    clip_norm: largest global norm of a gradient.
    warmup_steps: steps of linear warm-up from zero.
    decay_steps: steps at which a cosine decay after the warm-up reaches zero;
      0 keeps the learning rate constant.
  """

  learning_rate: float = 3e-4
  beta1: float = 0.9
  beta2: float = 0.99
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  warmup_steps: int = 1000
  decay_steps: int = 0

  def schedule(self) -> optax.Schedule:
    """Returns step -> learning rate."""
    if self.decay_steps:
      return optax.warmup_cosine_decay_schedule(
        0.0, self.learning_rate, self.warmup_steps, self.decay_steps
      )
    warmup = optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
    return warmup if self.warmup_steps else lambda _: self.learning_rate

  def transformation(self) -> optax.GradientTransformation:
    """Returns the gradient transformation."""
    return optax.chain(
      optax.clip_by_global_norm(self.clip_norm),
      optax.adamw(
        self.schedule(),
        b1=self.beta1,
        b2=self.beta2,
        weight_decay=self.weight_decay,
        mask=decayed,
      ),
    )


@dataclasses.dataclass(frozen=True)
class Muon(Adam):
  """Settings of Muon, from a config: those of Adam, and the momentum.

  The momentum M of a kernel, as a matrix [inputs, outputs] = U S V^T, is
  replaced by U V^T, scaled to the size that a step of Adam has (Liu et al.
  2025, section 2.2): one learning rate serves both.

  Attributes:
    momentum: decay of the momentum of kernels.
  """

  momentum: float = 0.95

  def transformation(self) -> optax.GradientTransformation:
    """Returns the gradient transformation."""
    return optax.chain(
      optax.clip_by_global_norm(self.clip_norm),
      optax.contrib.muon(
        self.schedule(),
        beta=self.momentum,
        weight_decay=self.weight_decay,
        adam_b1=self.beta1,
        adam_b2=self.beta2,
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=_RMS_OF_ADAM,
      ),
    )


_RMS_OF_ADAM = 0.2


def _matrices(params: Any) -> Any:
  """Returns which axes of a kernel are its outputs; None for other leaves."""
  return jax.tree_util.tree_map_with_path(
    lambda path, p: (
      optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)
      if path[-1].key == 'kernel'
      else None
    ),
    params,
  )


OPTIMIZERS = {'adam': Adam, 'muon': Muon}


def decayed(params: Any) -> Any:
  """Returns True for the leaves that weight decay acts on: the kernels."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == 'kernel', params
  )
