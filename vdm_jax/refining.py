"""Drawing fine videos from coarse ones, with models that are trained to.

A video may be longer and larger than those of training: all of it is one latent
video with one noise, of which the network sees overlapping tiles in every step
(`samplers.tiles`).
"""

import dataclasses
from typing import Any

import numpy as np
from jax import Array

from vdm_jax.conditions import Conditions
from vdm_jax.samplers import blocks
from vdm_jax.samplers.tiles import Tiling
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training.experts import Experts
from vdm_jax.training.sampling import SampleSettings, VideoSampler


class Refining:
  """Refines videos, compiled once for each size and choice of settings."""

  def __init__(
    self,
    system: System,
    params: Params | Experts,
    video_shape: tuple[int, ...],
    settings: SampleSettings,
    conditions: Conditions,
  ):
    self._system: Any = system
    self._params, self._shape = params, video_shape
    self._settings, self._conditions = settings, conditions
    self._samplers: dict[Any, VideoSampler] = {}

  def plan(
    self, shape: tuple[int, ...], overlap: int | None = None
  ) -> tuple[tuple[int, ...], Tiling]:
    """Returns the shape (F, H, W, C) of fine videos and the tiles of it.

    Args:
      shape: of the coarse videos, (F, H, W, C).
      overlap: frames that tiles share at least; None is a quarter, and of new
        frames between known ones one.

    Raises:
      ValueError: if coarse videos of this shape do not fit the model.
    """
    more, larger = self._system.refines
    frames, height, width, channels = shape
    fine = more * (frames - 1) + 1, larger * height, larger * width, channels
    if overlap is None:
      overlap = 1 if more > 1 else self._shape[0] // 4
    size: Any = self._shape[:3]
    tiling = Tiling(
      size,
      (overlap, size[1] // 4, size[2] // 4),
      (more, larger, larger),
    )
    if channels != self._shape[3]:
      raise ValueError(
        f'videos have {channels} channels, the model {self._shape[3]}.'
      )
    try:
      tiling.starts(fine[:3])
    except ValueError as error:
      raise ValueError(
        f'coarse videos of {tuple(shape)} become {fine}, but {error}'
      ) from None
    return fine, tiling

  def __call__(
    self,
    key: Array,
    videos: np.ndarray,
    *,
    overlap: int | None = None,
    label: Any = None,
    prompt: Any = None,
    image: Any = None,
    method: str | None = None,
    block_noise: str | None = None,
    show_progress: bool = False,
    **changes: Any,
  ) -> np.ndarray:
    """Returns fine videos, float32 [B, F, H, W, C].

    Args:
      key: random key.
      videos: coarse ones, float32 in [-1, 1].
      overlap: see `plan`.
      label: as for `Model.sample`; so are prompt and image.
      prompt: likewise.
      image: likewise.
      method: None; such a model is not guided.
      block_noise: None or 'shared'; a video has one noise.
      show_progress: whether a bar is shown on standard error.
      **changes: fields of `SampleSettings`.

    Raises:
      ValueError: for what does not fit the model.
    """
    if method is not None or block_noise == 'fresh':
      raise ValueError(
        'this model is trained to refine, whole videos at once: leave method '
        'and block_noise out.'
      )
    blocks.frames_of(videos, np.shape(videos)[2:])  # or refuses
    shape, tiling = self.plan(videos.shape[1:], overlap)
    cond = self._conditions(len(videos), label, prompt, image)
    if not cond:
      changes.setdefault('guidance_scale', 1.0)
    cond['low'] = np.asarray(videos, np.float32)
    size = min(self._settings.batch_size, len(videos))
    settings = dataclasses.replace(
      self._settings, **{'batch_size': size, **changes}
    )
    draw = self._sampler(shape, tiling, settings)
    return draw(
      self._params, key, len(videos), cond, show_progress=show_progress
    )

  def _sampler(
    self, shape: tuple[int, ...], tiling: Tiling, settings: SampleSettings
  ) -> VideoSampler:
    choice = shape, tiling, settings
    if choice not in self._samplers:
      system = dataclasses.replace(self._system, tiling=tiling)
      self._samplers[choice] = VideoSampler(system, shape, settings)
    return self._samplers[choice]
