"""A trained model, as a library user meets it.

model = vdm_jax.load('runs/moving_shapes')
videos = model.sample(jax.random.key(0), num=4)     # [4, F, H, W, C]
"""

import dataclasses
import os
import pathlib

import jax
import numpy as np
from jax import Array

from vdm_jax import job as jobs
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
