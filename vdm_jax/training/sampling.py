"""Drawing any number of videos from a trained system, in batches.

One program is compiled, for one batch size; its progress is shown to a person
while it runs on the device.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from vdm_jax.samplers import Ancestral, Corrector, Sampler
from vdm_jax.systems.protocol import Params, System
from vdm_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """How videos are drawn, from a config.

  Attributes:
    sampler: the method.
    num_steps: its number of steps.
    corrector: a move after each step, e.g. Langevin; None is none.
    guidance_scale: classifier-free guidance; 1 is none.
    reconstruction_weight: w_r of VDM eq. (7), where part of a video is known.
    num: videos drawn for a look during training and by `--mode=sample`.
    num_evaluated: videos drawn for an evaluation.
    batch_size: videos drawn at once.
    fps: frames per second of the files written.
  """

  sampler: Sampler = Ancestral()
  num_steps: int = 256
  corrector: Corrector | None = None
  guidance_scale: float = 1.0
  reconstruction_weight: float = 2.0
  num: int = 16
  num_evaluated: int = 64
  batch_size: int = 16
  fps: int = 8

  def __post_init__(self):
    for name in ('num_steps', 'num', 'num_evaluated', 'batch_size', 'fps'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'config.sample.{name}={getattr(self, name)} is not allowed: give '
          'at least 1.'
        )


class VideoSampler:
  """Draws videos [N, F, H, W, C] from a system.

  Args:
    system: what was trained.
    video_shape: (F, H, W, C).
    settings: how to draw.
    num_classes: classes to draw from in turn; 0 if unconditional.
    mesh: devices to share a batch out over; None computes where the
      parameters are.
  """

  def __init__(
    self,
    system: System,
    video_shape: tuple[int, ...],
    settings: SampleSettings,
    *,
    num_classes: int = 0,
    mesh: Mesh | None = None,
  ):
    self.settings = settings
    self._num_classes = num_classes
    self._bar = tqdm(disable=True)
    if mesh is not None:
      sharding.check_batch(mesh, settings.batch_size, 'config.sample')

    def draw(params: Params, key: Array, label: Array | None) -> Array:
      videos = system.sample(
        params,
        key,
        (settings.batch_size, *video_shape),
        label=label,
        sampler=settings.sampler,
        num_steps=settings.num_steps,
        corrector=settings.corrector,
        guidance_scale=settings.guidance_scale,
        progress=self._on_step,
      )
      if mesh is None:
        return videos
      return jax.lax.with_sharding_constraint(
        videos, sharding.batch_sharding(mesh)
      )

    self._draw = jax.jit(draw)

  def _on_step(self, step: Any) -> None:
    del step
    self._bar.update()

  def labels(self, num: int) -> np.ndarray | None:
    """Returns classes, [num], or None if unconditional.

    Each comes once before one comes twice, and neighbours are far apart.
    """
    if not self._num_classes:
      return None
    stride = round(0.618 * self._num_classes) or 1  # the golden ratio
    while math.gcd(stride, self._num_classes) > 1:
      stride += 1
    return stride * np.arange(num) % self._num_classes

  def __call__(
    self,
    params: Params,
    key: Array,
    num: int,
    label: np.ndarray | None = None,
    *,
    show_progress: bool = True,
  ) -> np.ndarray:
    """Returns `num` videos, float32 [num, F, H, W, C] in [-1, 1].

    Args:
      params: parameters, usually the EMA.
      key: random key.
      num: how many.
      label: their classes, [num]; None draws all classes in turn.
      show_progress: whether a bar is shown on standard error.

    Raises:
      ValueError: for labels without classes, out of range, or of another
        number.
    """
    if num < 1:
      raise ValueError(f'{num} videos cannot be drawn: give at least 1.')
    label = self.labels(num) if label is None else self._checked(label, num)
    size = self.settings.batch_size
    batches = -(-num // size)
    videos = []
    with tqdm(
      total=batches * self.settings.num_steps,
      desc='sampling',
      unit='step',
      disable=None if show_progress else True,
      leave=False,
    ) as self._bar:
      for batch in range(batches):
        part = None
        if label is not None:
          part = np.resize(label[batch * size : (batch + 1) * size], size)
        drawn = self._draw(params, jax.random.fold_in(key, batch), part)
        if jax.process_count() > 1:
          drawn = multihost_utils.process_allgather(drawn, tiled=True)
        videos.append(np.asarray(drawn))
      jax.effects_barrier()
    return np.concatenate(videos)[:num]

  def _checked(self, label: np.ndarray, num: int) -> np.ndarray:
    label = np.asarray(label)
    if not self._num_classes:
      raise ValueError('a label was given, but the model has no classes.')
    if label.shape != (num,) or not np.all(
      (label >= 0) & (label < self._num_classes)
    ):
      raise ValueError(
        f'label is {label.tolist()}; give {num} classes in '
        f'[0, {self._num_classes - 1}].'
      )
    return label
