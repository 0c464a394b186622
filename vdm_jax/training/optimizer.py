"""Optimizers with warm-up, decay, clipping and masked weight decay.

Adam   the papers' choice.  VDM, Appendix A: constant learning rate,
       weight decay 0 or 0.01.
Muon   steps of equal length in all directions of a kernel, the rest by
       Adam with Nesterov's momentum (Jordan et al. 2024).  For short runs:
       it needs fewer steps.
"""

import dataclasses
from collections.abc import Mapping
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
    scales: factors of the learning rate by part of the parameters, e.g.
      {'base': 0.1} (VideoFusion, section 3.4); 0 leaves a part as it is.
  """

  learning_rate: float = 3e-4
  beta1: float = 0.9
  beta2: float = 0.99
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  warmup_steps: int = 1000
  decay_steps: int = 0
  scales: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name, scale in self.scales.items():
      if not scale >= 0:
        raise ValueError(
          f'config.optimizer.scales.{name}={scale} is not allowed: give 0 or '
          'more.'
        )
    if 0 < self.decay_steps <= self.warmup_steps:
      raise ValueError(
        f'config.optimizer.decay_steps={self.decay_steps} is not allowed: give '
        f'more than the {self.warmup_steps} of config.optimizer.warmup_steps, '
        'or 0 for no decay.'
      )

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
      _scaled(self.scales),
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
      _scaled(self.scales),
    )


_RMS_OF_ADAM = 0.2


def _scaled(scales: Mapping[str, float]) -> optax.GradientTransformation:
  """Multiplies the updates of the named parts of the parameters.

  Raises:
    ValueError: from `init`, for a part that is not there.
  """
  if not scales:
    return optax.identity()

  def init(params):
    if unknown := sorted(set(scales) - set(params)):
      raise ValueError(
        f'config.optimizer.scales names {", ".join(unknown)}; the parameters '
        f'have the parts {", ".join(sorted(params))}.'
      )
    return optax.EmptyState()

  def update(updates, state, params=None):
    del params
    scaled = {
      name: jax.tree.map(lambda u, s=scales.get(name, 1.0): s * u, part)
      for name, part in updates.items()
    }
    return scaled, state

  return optax.GradientTransformation(init, update)


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
