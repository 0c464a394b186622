"""A trained model, as a library user meets it.

model = vdm_jax.load('runs/moving_shapes')
videos = model.sample(key, num=4)               # [4, F, H, W, C]
longer = model.extend(key, videos, 64)          # [4, 64, H, W, C]
slower = model.interpolate(key, videos, 2)      # [4, 2 F - 1, H, W, C]
larger = model.upsample(key, small_videos)      # to the model's H and W

The last three need no other training: they guide the same model by what is
known of the video (VDM, section 3.1).
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from vdm_jax import job as jobs
from vdm_jax.conditions import Conditions
from vdm_jax.drawing import Drawing, shared_noise
from vdm_jax.samplers import blocks
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training.restore import restore
from vdm_jax.training.sampling import SampleSettings, VideoSampler


@dataclasses.dataclass(frozen=True)
class Model:
  """A system with trained parameters; `dataclasses.replace` gives another.

  Attributes:
    system: the assembly.
    params: its parameters, the moving average of training.
    video_shape: (F, H, W, C) that it was trained on.
    settings: how it samples unless told otherwise.
    conditions: what it can be asked for.
    frameskip: distance of its frames, in frames of the data.
    step: training steps behind it.
  """

  system: System
  params: Params
  video_shape: tuple[int, ...]
  settings: SampleSettings
  conditions: Conditions = dataclasses.field(default_factory=Conditions)
  frameskip: float = 1.0
  step: int = 0

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
    self, key: Array, videos: np.ndarray, factor: int, **options: Any
  ) -> np.ndarray:
    """Puts `factor` - 1 new frames between each two of [B, n, H, W, C].

    Returns:
      float32 [B, (n - 1) factor + 1, H, W, C].

    Raises:
      ValueError: for videos or numbers that do not fit the model.
    """
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
      overlap: frames that each block repeats; None is half of the model's.
      **options: as for `extend`.

    Returns:
      float32 [B, n factor, H, W, C].

    Raises:
      ValueError: for videos that do not fit the model.
    """
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


def load(
  workdir: str | os.PathLike, encoder: str | os.PathLike | None = None
) -> Model:
  """Loads the newest whole checkpoint of a run; writes nothing.

  Args:
    workdir: of the run.
    encoder: folder of the text encoder, or of the visual one of a model
      without text, where it is not the config's.  Of two text encoders it is
      the first; the second is in the folder that the config says.

  Raises:
    FileNotFoundError: if there is no run or no finished checkpoint.
    CheckpointError: if checkpoints exist but none is whole.
  """
  workdir = pathlib.Path(workdir)
  config = jobs.read_config(workdir)
  for section in ('text', 'visual'):
    if encoder is not None and section in config:
      config[section]['encoder'] = str(encoder)
      break
  job = jobs.build(config)
  like = jax.eval_shape(
    lambda key: job.system.init(key, job.video_shape), jax.random.key(0)
  )
  restored = restore(workdir / 'checkpoints', like, only='ema')
  if restored is None:
    raise FileNotFoundError(
      f'{workdir} has no finished checkpoint yet: train until the first one.'
    )
  return Model(
    system=job.system,
    params=restored.state,
    video_shape=job.video_shape,
    settings=job.sample,
    conditions=job.conditions(workdir),
    frameskip=float(job.config['data'].get('frameskip', 1)),
    step=restored.step,
  )
