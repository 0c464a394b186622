"""Drawing any number of videos from a trained system, in batches.

One program is compiled, for one batch size; its progress is shown to a person
while it runs on the device.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from vdm_jax.samplers import Ancestral, Corrector, Sampler
from vdm_jax.samplers.measurements import lower_resolution
from vdm_jax.systems.draw import aside
from vdm_jax.systems.protocol import Cond, Params, System
from vdm_jax.training import experts, sharding
from vdm_jax.training.experts import Experts


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


_SHARED = {'content', 'motion'}  # see `BaseResidual`


class VideoSampler:
  """Draws videos [N, F, H, W, C] from a system.

  Args:
    system: what was trained.
    video_shape: (F, H, W, C).
    settings: how to draw.
    mesh: devices to share a batch out over; None computes where the
      parameters are.
  """

  def __init__(
    self,
    system: System,
    video_shape: tuple[int, ...],
    settings: SampleSettings,
    *,
    mesh: Mesh | None = None,
  ):
    self._system = system
    self._bar = tqdm(disable=True)
    # Without a mesh every host draws for itself, perhaps other videos.
    self._is_shared = mesh is not None and jax.process_count() > 1
    if mesh is not None:
      whole = sharding.rounded_up(mesh, settings.batch_size)
      settings = dataclasses.replace(settings, batch_size=whole)
    self.settings = settings

    def draw(params: Params, key: Array, cond: Cond, state=None, steps=None):
      videos = system.sample(
        params,
        key,
        (settings.batch_size, *video_shape),
        cond=cond,
        sampler=settings.sampler,
        num_steps=settings.num_steps,
        corrector=settings.corrector,
        guidance_scale=settings.guidance_scale,
        progress=self._on_step,
        state=state,
        steps=steps,
      )
      if mesh is None or state is not None or steps is not None:
        return videos
      return jax.lax.with_sharding_constraint(
        videos, sharding.batch_sharding(mesh)
      )

    self._draw = jax.jit(draw, static_argnames='steps')
    self._complete = completer(system, video_shape)

  def _on_step(self, step: Any) -> None:
    del step
    self._bar.update()

  def __call__(
    self,
    params: Params | Experts,
    key: Array,
    num: int,
    cond: Mapping[str, np.ndarray] | None = None,
    *,
    show_progress: bool = True,
  ) -> np.ndarray:
    """Returns `num` videos, float32 [num, F, H, W, C] in [-1, 1].

    Args:
      params: parameters, usually the EMA, or experts.
      key: random key.
      num: how many.
      cond: what they should show, arrays of `num` rows; None is nothing.
      show_progress: whether a bar is shown on standard error.

    Raises:
      ValueError: if `num` is below 1.
    """
    if num < 1:
      raise ValueError(f'{num} videos cannot be drawn: give at least 1.')
    size = self.settings.batch_size
    batches = -(-num // size)
    given: Any = dict(cond or {})
    shares_noise = bool(_SHARED & given.keys())
    if shares_noise:  # one key for all batches: what is apart is numbered
      apart = np.arange(num, dtype=np.int32)
      given = dict.fromkeys(_SHARED, apart) | given
    # What one expert makes is for all of them.
    if shares_noise or (isinstance(params, Experts) and self._system.completes):
      given = self._complete(params, key, num, given)
    videos = []
    with tqdm(
      total=batches * self.settings.num_steps,
      desc='sampling',
      unit='step',
      disable=None if show_progress else True,
      leave=False,
    ) as self._bar:
      for batch in range(batches):
        rows = np.arange(batch * size, (batch + 1) * size) % num
        part = {name: value[rows] for name, value in given.items()}
        own_key = key if shares_noise else jax.random.fold_in(key, batch)
        drawn = experts.run(
          self._draw,
          params,
          own_key,
          part,
          system=self._system,
          num_steps=self.settings.num_steps,
        )
        if self._is_shared:
          drawn = multihost_utils.process_allgather(drawn, tiled=True)
        videos.append(np.asarray(drawn))
      jax.effects_barrier()
    return np.concatenate(videos)[:num]


def completer(
  system: System, video_shape: tuple[int, ...]
) -> Callable[[Params | Experts, Array, int, Cond], Cond]:
  """Returns what makes the conditions of videos that are drawn in parts.

  Args:
    system: what was trained.
    video_shape: (F, H, W, C).

  Returns:
    (params, key, num, cond) -> cond, of all videos at once, as drawing them
    with this key would make it.
  """

  @functools.partial(jax.jit, static_argnums=2)
  def complete(params: Params, key: Array, num: int, cond: Cond) -> Cond:
    return system.complete(params, aside(key), (num, *video_shape), cond)

  return lambda params, *args: complete(experts.first(params), *args)


def conditional_sampler(
  system: System,
  settings: SampleSettings,
  method: str,
  times: int = 0,
) -> Callable[..., Array]:
  """Compiles the drawing of videos that are known in part.

  Args:
    system: what was trained.
    settings: how to draw.
    method: 'reconstruction' or 'replacement'.
    times: how many times smaller the frames of a small video are; 0 for none.

  Returns:
    (params, key, cond, observed, mask, seen) -> videos [B, F, H, W, C], where
    `params` may be experts, and `seen` is None, or frames of the small video
    [B, F, H / k, W / k, C], 0 where there is none, and which of them are there
    [1, F, 1, 1, 1].
  """

  @functools.partial(jax.jit, static_argnames='steps')
  def draw(
    params, key, cond, observed, mask, seen=None, state=None, steps=None
  ):
    guide: dict[str, Any] = {}
    if seen is not None:
      small, there = seen
      shrink = lower_resolution(times)
      # A mean of n^2 pixels is known n times better than one of them.
      guide = {
        'measure': lambda x: times * jnp.where(there, shrink(x), 0.0),
        'value': times * small,
        'measured': there,
      }
    return system.sample_given(
      params,
      key,
      observed,
      mask,
      cond=cond,
      method=method,
      weight=settings.reconstruction_weight,
      sampler=settings.sampler,
      num_steps=settings.num_steps,
      corrector=settings.corrector,
      guidance_scale=settings.guidance_scale,
      state=state,
      steps=steps,
      **guide,
    )

  return functools.partial(
    experts.run, draw, system=system, num_steps=settings.num_steps
  )
