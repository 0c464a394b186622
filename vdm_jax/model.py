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
from typing import Any

import jax
import numpy as np
from jax import Array

from vdm_jax import job as jobs
from vdm_jax.samplers import blocks
from vdm_jax.samplers.conditional import Measure, lower_resolution
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training.restore import restore
from vdm_jax.training.sampling import SampleSettings, VideoSampler


@dataclasses.dataclass
class Model:
  """A system with trained parameters.

  Attributes:
    system: the assembly.
    params: its parameters, the moving average of training.
    video_shape: (F, H, W, C) that it was trained on.
    settings: how it samples unless told otherwise.
    num_classes: classes that it knows; 0 if unconditional.
    step: training steps behind it.
  """

  system: System
  params: Params
  video_shape: tuple[int, ...]
  settings: SampleSettings
  num_classes: int = 0
  step: int = 0

  def __post_init__(self):
    self._samplers: dict[SampleSettings, VideoSampler] = {}
    self._conditional_samplers: dict[Any, Any] = {}

  def sample(
    self,
    key: Array,
    num: int = 4,
    *,
    label: np.ndarray | None = None,
    show_progress: bool = False,
    **changes,
  ) -> np.ndarray:
    """Returns new videos, float32 [num, F, H, W, C] in [-1, 1].

    Args:
      key: random key; the same key gives the same videos.
      num: how many.
      label: their classes, [num]; None draws all classes in turn.
      show_progress: whether a bar is shown on standard error.
      **changes: fields of `SampleSettings` to change, e.g.
        `num_steps=64` or `sampler=vdm_jax.samplers.DDIM()`.

    Raises:
      ValueError: for a number or a label that is not allowed.
      TypeError: for an unknown field of `SampleSettings`.
    """
    settings = dataclasses.replace(
      self.settings, **{'batch_size': num, **changes}
    )
    if settings not in self._samplers:
      self._samplers[settings] = VideoSampler(
        self.system,
        self.video_shape,
        settings,
        num_classes=self.num_classes,
      )
    draw = self._samplers[settings]
    return draw(self.params, key, num, label, show_progress=show_progress)

  def extend(
    self,
    key: Array,
    videos: np.ndarray,
    num_frames: int,
    *,
    overlap: int | None = None,
    **options: Any,
  ) -> np.ndarray:
    """Continues videos, block by block.

    Args:
      key: random key.
      videos: float32 [B, n, H, W, C] in [-1, 1].
      num_frames: frames wanted, those given among them.
      overlap: frames that each block repeats; None is half of the model's.
      **options: label, classes [B], None for no condition and no guidance;
        method, 'reconstruction' or 'replacement'; fields of `SampleSettings`,
        e.g. reconstruction_weight.

    Returns:
      float32 [B, num_frames, H, W, C], its first n frames as given.

    Raises:
      ValueError: for videos or numbers that do not fit the model.
    """
    known = self._checked(videos, self.video_shape[1:])
    window = self.video_shape[0]
    plan = blocks.extend(len(known), num_frames, window, overlap)
    return self._run(key, known, len(videos), plan, options)[:, :num_frames]

  def interpolate(
    self, key: Array, videos: np.ndarray, factor: int, **options: Any
  ) -> np.ndarray:
    """Puts `factor` - 1 new frames between each two of [B, n, H, W, C].

    Returns:
      float32 [B, (n - 1) factor + 1, H, W, C].

    Raises:
      ValueError: for videos or numbers that do not fit the model.
    """
    known = self._checked(videos, self.video_shape[1:])
    plan = blocks.interpolate(len(known), factor, self.video_shape[0])
    spread = {factor * frame: value for frame, value in known.items()}
    total = factor * (len(known) - 1) + 1
    return self._run(key, spread, len(videos), plan, options)[:, :total]

  def upsample(
    self,
    key: Array,
    videos: np.ndarray,
    *,
    overlap: int | None = None,
    **options: Any,
  ) -> np.ndarray:
    """Makes videos of the model's resolution from smaller ones, eq. (8).

    Longer videos are made block by block, each guided by its last frames and
    the small video at once.

    Args:
      key: random key.
      videos: float32 [B, n, H / k, W / k, C] in [-1, 1] for a whole number k.
      overlap: frames that each block repeats; None is half of the model's.
      **options: as for `extend`.

    Returns:
      float32 [B, n, H, W, C].

    Raises:
      ValueError: for videos that do not fit the model.
    """
    window, height, width, channels = self.video_shape
    rows = np.shape(videos)[2] if np.ndim(videos) == 5 else height
    factor = max(1, height // max(1, rows))
    small = self._checked(videos, (height // factor, width // factor, channels))
    if height % factor or width % factor or len(small) < window:
      raise ValueError(
        f'videos have shape {np.shape(videos)}; give at least {window} frames, '
        f'smaller than {height}x{width} by a whole number.'
      )
    plan = blocks.extend(0, len(small), window, overlap)
    values = {f: factor * value for f, value in small.items()}
    return self._run(key, {}, len(videos), plan, options, _sums(factor), values)

  def _checked(self, videos: Any, shape: tuple[int, ...]) -> dict[int, Any]:
    """Returns frames [B, H, W, C] by their place."""
    videos = np.asarray(videos, np.float32)
    if videos.ndim != 5 or videos.shape[2:] != shape or not videos.size:
      raise ValueError(
        f'videos have shape {videos.shape}; this model takes [B, n, '
        f'{", ".join(map(str, shape))}], float32 in [-1, 1].'
      )
    return dict(enumerate(np.moveaxis(videos, 1, 0)))

  def _run(self, key, known, num, plan, options, measure=None, values=None):
    """Runs a plan; `values` are what `measure` gives for each frame."""
    label = options.pop('label', None)
    if label is None:
      options.setdefault('guidance_scale', 1.0)
    else:
      label = np.asarray(label)
    draw = self._conditional(measure, **options)

    def draw_block(key, block, observed, mask):
      value = None
      if values is not None:
        value = np.stack([values[f] for f in block.frames], 1)
      return draw(self.params, key, label, observed, mask, value)

    _, height, width, channels = self.video_shape
    shape = num, height, width, channels
    return blocks.run(key, draw_block, known, shape, plan)

  def _conditional(
    self,
    measure: Measure | None,
    *,
    method: str = 'reconstruction',
    **changes: Any,
  ) -> Any:
    """Compiles conditional sampling, once for the same options."""
    settings = dataclasses.replace(self.settings, **changes)
    choice = settings, measure, method

    def draw(params, key, label, observed, mask, value):
      return self.system.sample_given(
        params,
        key,
        observed,
        mask,
        label=label,
        method=method,
        weight=settings.reconstruction_weight,
        measure=measure,
        value=value,
        sampler=settings.sampler,
        num_steps=settings.num_steps,
        corrector=settings.corrector,
        guidance_scale=settings.guidance_scale,
      )

    return self._conditional_samplers.setdefault(choice, jax.jit(draw))


@functools.cache
def _sums(factor: int) -> Measure:
  """Returns `lower_resolution` times `factor`, of a pixel's own precision.

  A mean of factor^2 pixels is known factor times better than one of them.
  """
  shrink = lower_resolution(factor)
  return lambda x: factor * shrink(x)


def load(workdir: str | os.PathLike) -> Model:
  """Loads the newest whole checkpoint of a run; writes nothing.

  Raises:
    FileNotFoundError: if there is no run or no finished checkpoint.
    CheckpointError: if checkpoints exist but none is whole.
  """
  workdir = pathlib.Path(workdir)
  job = jobs.build(jobs.read_config(workdir))
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
    num_classes=job.num_classes,
    step=restored.step,
  )
