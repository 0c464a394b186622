"""Drawing the blocks of one long video with one model.

What a video is asked to show is one thing for all blocks of one model: a prior
that makes embeddings makes them once.  With block_noise='shared' they also have
the noise of one video (`NoisePrior.at`), in every step: the chain of PYoCo's
progressive noise goes on from block to block, and VideoFusion's base noise, by
which it keeps content together (section 4.6), stays.
"""

import dataclasses
from typing import Any

import numpy as np
from jax import Array

from vdm_jax.conditions import Conditions
from vdm_jax.data import visual
from vdm_jax.data.pixels import to_uint8
from vdm_jax.samplers import blocks
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training.experts import Experts
from vdm_jax.training.sampling import (
  SampleSettings,
  completer,
  conditional_sampler,
)


def check_draws(system: System) -> None:
  """Raises ValueError for a model that makes no videos but of coarse ones."""
  more, larger = system.refines
  if (more, larger) != (1, 1):
    mode = 'interpolate' if more > 1 else 'upsample'
    raise ValueError(
      f'this model is trained to make {more} times more frames and {larger} '
      f'times larger ones, nothing else: use it for {mode}.'
    )


def shared_noise(num: int, **numbers: Any) -> dict[str, np.ndarray]:
  """Returns numbers of videos that share noise, [num] each, None left out.

  Raises:
    ValueError: for another number of them, or negative ones.
  """
  given = {}
  for name, value in numbers.items():
    if value is None:
      continue
    array = np.asarray(value)
    whole = np.full(num, array) if array.ndim == 0 else array
    integer = np.issubdtype(whole.dtype, np.integer)
    if whole.shape != (num,) or not integer or (whole < 0).any():
      raise ValueError(
        f'{name} is {array.tolist()}; give {num} whole numbers from 0: videos '
        'of the same number share that noise.'
      )
    given[name] = whole.astype(np.int32)
  return given


def _frames_of(
  low: dict[int, np.ndarray], block: blocks.Block
) -> tuple[np.ndarray, np.ndarray]:
  """A block's frames of a small video, zeros for none, and which there are."""
  blank = np.zeros_like(low[0])
  frames = np.stack([low.get(f, blank) for f in block.frames], 1)
  there = np.reshape([f in low for f in block.frames], (1, -1, 1, 1, 1))
  return frames, there


class Drawing:
  """Draws blocks of a model, compiled once for each choice of settings."""

  def __init__(
    self,
    system: System,
    params: Params | Experts,
    video_shape: tuple[int, ...],
    settings: SampleSettings,
    conditions: Conditions,
  ):
    self._system, self._params = system, params
    self._settings, self._conditions = settings, conditions
    self._complete = completer(system, video_shape)
    self._samplers: dict[Any, Any] = {}

  def __call__(
    self,
    key: Array,
    num: int,
    low: dict[int, np.ndarray] | None = None,
    times: int = 0,
    *,
    known: dict[int, np.ndarray] | None = None,
    label: Any = None,
    prompt: Any = None,
    image: Any = None,
    block_noise: str | None = None,
    method: str = 'reconstruction',
    **changes: Any,
  ) -> blocks.Draw:
    """Returns what draws a block of `num` videos.

    Args:
      key: of what the blocks share; each block has a key of its own too.
      num: videos.
      low: frames of the small video, by their place in the large one.
      times: how many times more rows and columns that has.
      known: frames that exist, whose middle one says what is shown unless
        `image` does, for a model that can embed it.
      label: as for `Model.sample`; so are prompt and image.
      prompt: likewise.
      image: likewise.
      block_noise: 'fresh' for each block, or 'shared'; None is 'shared' for
        mixed and progressive noise.
      method: 'reconstruction' or 'replacement'.
      **changes: fields of `SampleSettings`.

    Raises:
      ValueError: for what the model does not take.
    """
    check_draws(self._system)
    if block_noise not in (None, 'fresh', 'shared'):
      raise ValueError(
        f"block_noise={block_noise!r} is unknown: choose 'fresh' or 'shared'."
      )
    shares = block_noise == 'shared' or (
      block_noise is None and self._system.continues
    )
    if image is None and known and self._conditions.embeds:
      middle = list(known.values())[visual.middle(len(known))]
      image = to_uint8(middle)
    cond = self._conditions(num, label, prompt, image)
    if not cond and not self._system.completes:
      changes.setdefault('guidance_scale', 1.0)
    settings = dataclasses.replace(self._settings, **changes)
    draw = self._sampler(settings, method, times)
    if self._system.completes:
      cond = self._complete(self._params, key, num, cond)

    def draw_block(block_key, block, observed, mask):
      given, seen = cond, None
      if shares:
        block_key = key
        given = {**given, 'place': np.int32(block.frames[0] // block.stride)}
      if low:
        seen = _frames_of(low, block)
      return draw(self._params, block_key, given, observed, mask, seen)

    return draw_block

  def _sampler(self, *choice: Any) -> Any:
    if choice not in self._samplers:
      self._samplers[choice] = conditional_sampler(self._system, *choice)
    return self._samplers[choice]
