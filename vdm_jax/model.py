"""A trained model, as a library user meets it.

model = vdm_jax.load('runs/moving_shapes')
videos = model.sample(key, num=4)               # [4, F, H, W, C]
longer = model.extend(key, videos, 64)          # [4, 64, H, W, C]
slower = model.interpolate(key, videos, 2)      # [4, 2 F - 1, H, W, C]
larger = model.upsample(key, small_videos)      # to the model's H and W

The last three need no other training: they guide the same model by what is
known of the video (VDM, section 3.1).  A model that is trained for the last or
the one before does that, and nothing else.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array

from vdm_jax.conditions import Conditions
from vdm_jax.drawing import Drawing, check_draws, shared_noise
from vdm_jax.refining import Refining
from vdm_jax.samplers import blocks
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training.experts import Experts
from vdm_jax.training.sampling import SampleSettings, VideoSampler


@dataclasses.dataclass(frozen=True)
class Model:
  """A system with trained parameters; `dataclasses.replace` gives another.

  Attributes:
    system: the assembly.
    params: its parameters, the moving average of training; or experts.
    video_shape: (F, H, W, C) that it was trained on.
    settings: how it samples unless told otherwise.
    conditions: what it can be asked for.
    frameskip: distance of its frames, in frames of the data.
    step: training steps behind it.
    fingerprint: short hash of the run and its checkpoint; '' is not known.
  """

  system: System
  params: Params | Experts
  video_shape: tuple[int, ...]
  settings: SampleSettings
  conditions: Conditions = dataclasses.field(default_factory=Conditions)
  frameskip: float = 1.0
  step: int = 0
  fingerprint: str = ''

  @functools.cached_property
  def _samplers(self) -> dict[SampleSettings, VideoSampler]:
    return {}

  @functools.cached_property
  def _drawing(self) -> Drawing:
    return Drawing(
      self.system,
      self.params,
      self.video_shape,
      self.settings,
      self.conditions,
    )

  @functools.cached_property
  def refining(self) -> Refining:
    """How it refines videos, if it is trained to."""
    return Refining(
      self.system,
      self.params,
      self.video_shape,
      self.settings,
      self.conditions,
    )

  def sample(
    self,
    key: Array,
    num: int = 4,
    *,
    label: Sequence[int] | np.ndarray | int | None = None,
    prompt: str | Sequence[str] | None = None,
    image: np.ndarray | None = None,
    content: Sequence[int] | np.ndarray | int | None = None,
    motion: Sequence[int] | np.ndarray | int | None = None,
    show_progress: bool = False,
    **changes,
  ) -> np.ndarray:
    """Returns new videos, float32 [num, F, H, W, C] in [-1, 1].

    Args:
      key: random key; the same key gives the same videos.
      num: how many.
      label: their class, or classes [num].
      prompt: their caption, or as many captions. Without label and prompt all
        classes, or captions of the store, are drawn in turn.
      image: what the middle frame of all, or of each, shows, uint8 [H, W, 3]
        or [num, H, W, 3], for a model of visual embeddings.
      content: numbers [num]; videos of the same number share the base noise,
        for a model of base and residual noise.
      motion: likewise for the residual noise.
      show_progress: whether a bar is shown on standard error.
      **changes: fields of `SampleSettings` to change, e.g.
        `num_steps=64` or `sampler=vdm_jax.samplers.DDIM()`.

    Raises:
      ValueError: for a number, a label or a prompt that is not allowed.
      TypeError: for an unknown field of `SampleSettings`.
    """
    check_draws(self.system)
    settings = dataclasses.replace(
      self.settings, **{'batch_size': num, **changes}
    )
    cond = self.conditions(num, label, prompt, image)
    cond = cond or self.conditions.default(num)
    cond |= shared_noise(num, content=content, motion=motion)
    self.system.noise_given(cond)  # refuses what its noise does not have
    if settings not in self._samplers:
      self._samplers[settings] = VideoSampler(
        self.system, self.video_shape, settings
      )
    draw = self._samplers[settings]
    return draw(self.params, key, num, cond, show_progress=show_progress)

  def extend(
    self,
    key: Array,
    videos: np.ndarray,
    num_frames: int,
    *,
    overlap: int | None = None,
    coarse: 'Model | None' = None,
    **options: Any,
  ) -> np.ndarray:
    """Continues videos, block by block.

    Args:
      key: random key.
      videos: float32 [B, n, H, W, C] in [-1, 1].
      num_frames: frames wanted, those given among them.
      overlap: frames that each block repeats; None is half of the model's.
      coarse: a model of the same frames at a k times larger frameskip; it
        makes every k-th frame first, and this one those between.
      **options: label, prompt and image as for `sample`, None for no condition
        and no guidance; method, 'reconstruction' or 'replacement'; block_noise,
        'fresh' for each block or 'shared' by them as by frames (of VideoFusion,
        section 4.6, with the base noise of videos that `sample` drew with the
        same key and content=range(B)); fields of `SampleSettings`, e.g.
        reconstruction_weight.

    Returns:
      float32 [B, num_frames, H, W, C], its first n frames as given.

    Raises:
      ValueError: for videos, numbers or a coarse model that do not fit.
    """
    known = blocks.frames_of(videos, self.video_shape[1:])
    window = self.video_shape[0]
    options['known'] = known
    by_stride = {1: self._drawing(key, len(videos), **options)}
    if coarse is None:
      plan = blocks.extend(len(known), num_frames, window, overlap)
    else:
      factor = self._times_slower_than(coarse)
      plan = blocks.mixed(len(known), num_frames, window, factor, overlap)
      other = aside(aside(key))  # aside(key) makes embeddings
      by_stride[factor] = coarse._drawing(other, len(videos), **options)

    def draw(key, block, observed, mask):
      return by_stride[block.stride](key, block, observed, mask)

    shape = len(videos), *self.video_shape[1:]
    return blocks.run(key, draw, known, shape, plan)[:, :num_frames]

  def interpolate(
    self,
    key: Array,
    videos: np.ndarray,
    factor: int | None = None,
    **options: Any,
  ) -> np.ndarray:
    """Puts `factor` - 1 new frames between each two of [B, n, H, W, C].

    A model that is trained to do this has its own factor; None is that, or 2.

    Returns:
      float32 [B, (n - 1) factor + 1, H, W, C].

    Raises:
      ValueError: for videos or numbers that do not fit the model.
    """
    own = self.system.refines[0]
    factor = factor or (own if own > 1 else 2)
    if self._trained_for(factor, 1):
      return self.refining(key, videos, **options)
    known = blocks.frames_of(videos, self.video_shape[1:])
    plan = blocks.interpolate(len(known), factor, self.video_shape[0])
    spread = {factor * frame: value for frame, value in known.items()}
    total = factor * (len(known) - 1) + 1
    draw = self._drawing(key, len(videos), known=known, **options)
    shape = len(videos), *self.video_shape[1:]
    return blocks.run(key, draw, spread, shape, plan)[:, :total]

  def upsample(
    self,
    key: Array,
    videos: np.ndarray,
    *,
    factor: int = 1,
    overlap: int | None = None,
    **options: Any,
  ) -> np.ndarray:
    """Makes videos of the model's resolution from smaller ones, eq. (8).

    Longer videos are made block by block, each guided by its last frames and
    the small video at once.  With a `factor` above 1 the small video has every
    factor-th frame only, and those between are made as well: VDM, Figure 2.

    Args:
      key: random key.
      videos: float32 [B, n, H / k, W / k, C] in [-1, 1] for a whole number k.
      factor: frames of the result for each frame of `videos`.
      overlap: frames that each block repeats; None is half of the model's, of a
        model that is trained to enlarge a quarter.
      **options: as for `extend`.

    Returns:
      float32 [B, n factor, H, W, C]; H and W of a model that is trained to
      enlarge are k times those of `videos`.

    Raises:
      ValueError: for videos that do not fit the model.
    """
    if self._trained_for(factor, max(2, self.system.refines[1])):
      return self.refining(key, videos, overlap=overlap, **options)
    window, height, width, channels = self.video_shape
    rows = np.shape(videos)[2] if np.ndim(videos) == 5 else height
    times = max(1, height // max(1, rows))
    small = blocks.frames_of(
      videos, (height // times, width // times, channels)
    )
    total = factor * len(small)
    if height % times or width % times or total < window or factor < 1:
      raise ValueError(
        f'videos have shape {np.shape(videos)}; give at least '
        f'{-(-window // max(1, factor))} frames, smaller than '
        f'{height}x{width} by a whole number.'
      )
    plan = blocks.extend(0, total, window, overlap)
    low = {factor * frame: value for frame, value in small.items()}
    draw = self._drawing(key, len(videos), low, times, **options)
    shape = len(videos), *self.video_shape[1:]
    return blocks.run(key, draw, {}, shape, plan)

  def _trained_for(self, more: int, larger: int) -> bool:
    """Whether it is trained to refine so.

    Raises:
      ValueError: if it is trained to refine otherwise.
    """
    own = self.system.refines
    if own not in ((1, 1), (more, larger)):
      raise ValueError(
        f'this model is trained to make {own[0]} times more frames and '
        f'{own[1]} times larger ones, nothing else: give it that factor, in '
        f'{"interpolate" if own[0] > 1 else "upsample"}.'
      )
    return own != (1, 1)

  def _times_slower_than(self, coarse: 'Model') -> int:
    factor = blocks.whole_ratio(coarse.frameskip, self.frameskip)
    if coarse.video_shape != self.video_shape or factor < 2:
      raise ValueError(
        f'the coarse model makes {coarse.video_shape} at frameskip '
        f'{coarse.frameskip:g}, this one {self.video_shape} at '
        f'{self.frameskip:g}: it must be the same shape and a whole number of '
        'times the frameskip.'
      )
    return factor
