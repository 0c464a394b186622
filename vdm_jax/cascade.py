"""Cascades: each model makes finer videos of those of the model before.

What a stage does is what its model is trained for: frames between, or larger
ones (PYoCo, section 4: 16 x 64 x 64 to 76 x 64 x 64, 256 and 1024).  An
ordinary model is guided by the coarse video instead, and makes as many times
more and larger frames as its data has (VDM, Figure 2).
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from vdm_jax.model import Model
from vdm_jax.samplers.blocks import whole_ratio

Shape = tuple[int, ...]


class Stage(NamedTuple):
  """What a stage has made.

  Attributes:
    videos: float32 [num, F, H, W, C].
    kept: whether an earlier run made them.
    path: their file, if they are kept in one.
  """

  videos: np.ndarray
  kept: bool
  path: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class Asked:
  """What videos of a cascade should show, see `Model.sample`.

  Attributes:
    num: how many.
    label: class of each.
    prompt: caption of each.
    image: what each shows.
  """

  num: int
  label: Any = None
  prompt: Any = None
  image: Any = None

  def of(self, model: Model, rows: slice = slice(None)) -> dict[str, Any]:
    """Returns what of it a model understands, for some of the videos."""
    understood = {
      'label': model.conditions.num_classes > 0,
      'prompt': model.conditions.texts is not None,
      'image': model.conditions.embeds,
    }
    values = {name: getattr(self, name) for name in understood}
    if self.image is not None and np.ndim(self.image) == 3:
      values['image'] = np.asarray(self.image)[None].repeat(self.num, 0)
    return {
      name: value[rows] if np.ndim(value) else value
      for name, value in values.items()
      if understood[name] and value is not None
    }


def _ask(base: Model, num: int, **given: Any) -> Asked:
  """Returns what is asked, or what the model is asked where nothing is.

  Raises:
    ValueError: for what the model does not take.
  """
  asked = Asked(num, **given)
  if not given:
    labels = base.conditions.labels_in_turn(num)
    prompts = base.conditions.captions_in_turn(num)
    asked = Asked(num, labels, prompts)
  base.conditions(num, asked.label, asked.prompt, asked.image)  # or refuses
  return asked


def shapes(models: Sequence[Model]) -> list[Shape]:
  """Returns the shape (F, H, W, C) of a video after each stage.

  Raises:
    ValueError: if a model does not fit what the one before makes.
  """
  found, skip = [models[0].video_shape], models[0].frameskip
  if models[0].system.refines != (1, 1):
    raise ValueError(
      'the first model of a cascade only refines: begin with one that makes '
      'videos of nothing.'
    )
  for number, model in enumerate(models[1:], 1):
    try:
      found.append(_finer(model, found[-1], skip))
    except ValueError as error:
      raise ValueError(f'stage {number} of the cascade: {error}') from None
    if model.system.refines[1] == 1:  # larger frames keep the distance
      skip = model.frameskip
  return found


def _finer(model: Model, shape: Shape, skip: float) -> Shape:
  """What a model makes of videos of `shape` at frameskip `skip`."""
  slower = whole_ratio(skip, model.frameskip)
  if model.system.refines != (1, 1):
    more = model.system.refines[0]
    if more > 1 and slower != more:
      raise ValueError(
        f'it makes {more} times more frames, from frameskip '
        f'{more * model.frameskip:g}, but is given frameskip {skip:g}.'
      )
    return model.refining.plan(shape)[0]
  larger = model.video_shape[1] // shape[1]
  size = tuple(larger * side for side in shape[1:3])
  if (
    larger < 2
    or model.video_shape[1:3] != size
    or not slower
    or model.video_shape[0] > slower * shape[0]
  ):
    raise ValueError(
      f'it makes {model.video_shape} at frameskip {model.frameskip:g} of '
      f'{shape} at frameskip {skip:g}: its frames must be a whole number of '
      'times larger, its frameskip as often smaller, and its videos no longer.'
    )
  return slower * shape[0], *model.video_shape[1:]


def _draw(
  model: Model,
  key: Array,
  before: np.ndarray | None,
  num_frames: int,
  asked: Asked,
  **options: Any,
) -> np.ndarray:
  """Returns the videos of one stage.

  Args:
    model: of the stage.
    key: random key, of the stage.
    before: videos of the stage before, [num, F, H, W, C]; None at the first.
    num_frames: of the videos to make, see `shapes`.
    asked: what videos should show.
    **options: fields of `SampleSettings`.

  Raises:
    ValueError: for what does not fit the model.
  """
  told = asked.of(model)
  if not told:  # nothing to guide to
    options.pop('guidance_scale', None)
  if before is None:
    size = min(asked.num, model.settings.batch_size)
    options = {'batch_size': size, 'show_progress': True, **told, **options}
    return model.sample(key, asked.num, **options)
  more, larger = model.system.refines
  if (more, larger) != (1, 1):
    refine = model.interpolate if more > 1 else model.upsample
    return refine(key, before, show_progress=True, **told, **options)
  factor = num_frames // before.shape[1]
  size, made = model.settings.batch_size, []
  for first in range(0, asked.num, size):
    rows = slice(first, first + size)
    options |= asked.of(model, rows)
    own_key = jax.random.fold_in(key, first)
    made.append(model.upsample(own_key, before[rows], factor=factor, **options))
  return np.concatenate(made)


class Outputs:
  """Videos of the stages in a folder, so that a cascade can go on.

  A file belongs to what made it: the models of its stage and of those before,
  the key, and what was asked.
  """

  def __init__(self, folder: pathlib.Path, about: Sequence[Any]):
    """Names the files.

    Args:
      folder: where they are.
      about: what determines the videos of each stage.
    """
    self._folder, self._marks = folder, list[str]()
    digest = hashlib.sha256()
    for part in about:
      digest.update(_plain(part).encode())
      self._marks.append(digest.hexdigest()[:12])

  def path(self, number: int) -> pathlib.Path:
    """Returns the file of a stage."""
    return self._folder / f'stage_{number}_{self._marks[number]}.npy'

  def load(self, number: int) -> np.ndarray | None:
    """Returns a stage's videos, if they are there."""
    path = self.path(number)
    return np.load(path, allow_pickle=False) if path.exists() else None

  def save(self, number: int, videos: np.ndarray) -> None:
    """Writes a stage's videos, completely or not at all."""
    self._folder.mkdir(parents=True, exist_ok=True)
    part = self._folder / f'.{self.path(number).stem}.{os.getpid()}.npy'
    try:
      np.save(part, videos, allow_pickle=False)
      os.replace(part, self.path(number))
    finally:
      part.unlink(missing_ok=True)


def _plain(value: Any) -> str:
  """A text that differs where values do; that of an array is cut by numpy."""
  if isinstance(value, dict):
    return repr([(k, _plain(v)) for k, v in sorted(value.items())])
  if isinstance(value, np.ndarray):
    return hashlib.sha256(value.tobytes()).hexdigest() + repr(value.shape)
  return repr(value)


def run(
  models: Sequence[Model],
  key: Array,
  num: int,
  *,
  folder: pathlib.Path | None = None,
  names: Sequence[str] = (),
  label: Any = None,
  prompt: Any = None,
  image: Any = None,
  **options: Any,
) -> Iterator[Stage]:
  """Yields the videos of each stage, drawn or from a run that was cut off.

  Args:
    models: from the one that makes videos of nothing to the finest.
    key: random key.
    num: how many videos.
    folder: where each stage is kept; None keeps nothing.
    names: of the models, by which a kept stage is known beside what they are.
    label: as for `Model.sample`; so are prompt and image.  Every model gets
      what it understands.
    prompt: likewise.
    image: likewise.
    **options: fields of `SampleSettings`, for all models.

  Raises:
    ValueError: for models that do not fit each other, or what the first one
      does not take; before anything is drawn.
  """
  planned = shapes(models)
  given = {'label': label, 'prompt': prompt, 'image': image}
  given = {k: v for k, v in given.items() if v is not None}
  asked = _ask(models[0], num, **given)
  for model in models[1:]:
    model.conditions(num, **asked.of(model))  # refuses, before it is drawn
  outputs = None
  if folder is not None:
    what = {'key': np.asarray(jax.random.key_data(key)), **options}
    names = names or [''] * len(models)
    about = [
      what
      | vars(asked)
      | {'model': (name, m.fingerprint, m.step, m.system)}
      | {'settings': m.settings}
      for name, m in zip(names, models, strict=True)
    ]
    outputs = Outputs(folder, about)
  videos = None
  for number, model in enumerate(models):
    before, videos = videos, outputs and outputs.load(number)
    kept = videos is not None
    if videos is None:
      own_key, num_frames = jax.random.fold_in(key, number), planned[number][0]
      videos = _draw(model, own_key, before, num_frames, asked, **options)
      if outputs:
        outputs.save(number, videos)
    yield Stage(videos, kept, outputs and outputs.path(number))
