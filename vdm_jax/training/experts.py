"""Expert denoisers: several models, each for a part of the noise levels.

Training sees times t of [0, 1]; an expert is a model forked from one that knows
all of them (`config.init.all`) and trained on, with `config.system.times` only
its part.  In sampling every step belongs to the expert of the noise level at
which it starts, with all its network calls; one at a time is on the device.

Source: eDiff-I (Balaji et al. 2022), section 4; PYoCo, section 5.1, Config A
to D of Table 3.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vdm_jax.systems.protocol import Params, System


@dataclasses.dataclass(frozen=True)
class Expert:
  """A model of a part of the noise levels.

  Attributes:
    times: from the least noise to the most, of [0, 1].
    params: its parameters, in the host's memory.
  """

  times: tuple[float, float]
  params: Params


class Experts:
  """Experts of all noise levels, in the place of one model's parameters.

  Attributes:
    experts: from noise to data.
  """

  def __init__(self, experts: Sequence[Expert]):
    """Checks that every noise level has one expert.

    Raises:
      ValueError: if one has none, or two.
    """
    self.experts = sorted(experts, key=lambda e: e.times, reverse=True)
    reached = 0.0
    for first, last in [*sorted(e.times for e in experts), (1.0, 1.0)]:
      if first != reached:
        word = 'no' if first > reached else 'more than one'
        span = f'{min(first, reached):g} to {max(first, reached):g}'
        raise ValueError(
          f'{_said(experts)}: times {span} have {word} expert; give one for '
          'every time.'
        )
      reached = last

  def segments(
    self, system: System, num_steps: int
  ) -> list[tuple[Expert, tuple[int, int]]]:
    """Returns who makes which steps, the first and the one to stop before."""
    starts = np.asarray(system.levels(num_steps))[:-1]
    splits = [float(system.logsnr_at(e.times[0])) for e in self.experts[:-1]]
    borders = [0, *np.searchsorted(starts, splits, side='right'), num_steps]
    parts = zip(self.experts, borders, borders[1:], strict=False)
    return [(e, (int(a), int(b))) for e, a, b in parts if a < b]


def first(params: Params | Experts) -> Params:
  """Returns the parameters that are used first."""
  return params.experts[0].params if isinstance(params, Experts) else params


def _said(experts: Sequence[Expert]) -> str:
  spans = sorted(e.times for e in experts)
  return 'the experts are of times ' + ' and '.join(
    f'{first:g} to {last:g}' for first, last in spans
  )


def run(
  draw: Callable[..., Any],
  params: Params | Experts,
  *args: Any,
  system: System,
  num_steps: int,
) -> Any:
  """Returns draw(params, *args), or lets each expert draw its steps.

  Args:
    draw: takes `steps` and `state` too, see `samplers.sample`.
    params: parameters, or experts.
    *args: further arguments.
    system: what was trained.
    num_steps: of the sampler.
  """
  if not isinstance(params, Experts):
    return draw(params, *args)
  state = None
  for expert, steps in params.segments(system, num_steps):
    state = draw(expert.params, *args, steps=steps, state=state)
  return state
