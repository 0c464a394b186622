"""What a trained model makes of a video file: longer, slower or larger.

extend        the video and what comes after it
interpolate   new frames between those of the video
upsample      the same video in the model's resolution

and `cascade`, which needs no file but two models.
"""

import ast
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from vdm_jax import video
from vdm_jax.config import ConfigError
from vdm_jax.data import decode
from vdm_jax.data.pixels import Framing, to_float
from vdm_jax.model import Model
from vdm_jax.samplers.blocks import whole_ratio
from vdm_jax.systems.registry import build_sampler


def read(
  path: pathlib.Path, model: Model, task: str, factor: int = 2
) -> np.ndarray:
  """Returns the videos of a file as a task takes them, float32 [N, F, H, W, 3].

  Frames are scaled to cover the size and cut in the middle. An array (.npy)
  may hold several videos and is taken as it is.

  Args:
    path: the file.
    model: what it is for.
    task: 'extend', 'interpolate' or 'upsample'.
    factor: how many times smaller than the model's frames, for 'upsample'.

  Raises:
    FileNotFoundError, ValueError: as `video.load`, and for a factor below 2.
  """
  if factor < 2:
    raise ValueError(f'--factor={factor} is not allowed: give 2 or more.')
  if path.suffix.lower() == '.npy' or not path.is_file():
    videos = video.load(path)
    return videos if videos.ndim == 5 else videos[None]
  shrunk = factor if task == 'upsample' else 1
  height, width = (side // shrunk for side in model.video_shape[1:3])
  framing = Framing('center', height, width)
  frames = decode.read(path, decode.scan(path), fit=framing.scaled)
  return to_float(framing.cut(frames, np.random.default_rng()))[None]


def read_images(paths: Sequence[str], model: Model) -> np.ndarray:
  """Returns the first frames of files in the model's size, uint8 [N, H, W, 3].

  Raises:
    OSError, ValueError: as `decode.scan`.
  """
  framing = Framing('center', *model.video_shape[1:3])
  rng = np.random.default_rng()
  images = []
  for path in map(pathlib.Path, paths):
    frames = decode.read(path, decode.scan(path), 0, 1, fit=framing.scaled)
    images.append(framing.cut(frames, rng)[0])
  return np.stack(images)


def run(
  task: str,
  model: Model,
  key: Array,
  known: np.ndarray,
  *,
  num_frames: int | None = None,
  factor: int = 2,
  coarse: Model | None = None,
  **options: Any,
) -> np.ndarray:
  """Returns what a task makes of each video, [N, F, H, W, C].

  Args:
    task: 'extend', 'interpolate' or 'upsample'.
    model: what makes it.
    key: random key.
    known: the videos, [N, n, h, w, C].
    num_frames: length of an extended video, the given frames among them; None
      adds as many as the model makes.
    factor: new frames per frame of an interpolated video.
    coarse: a slower model that extends first, see `Model.extend`.
    **options: as for `Model.extend`.

  Raises:
    ValueError: for videos or numbers that do not fit the model.
  """
  if task == 'extend':
    total = num_frames or known.shape[1] + model.video_shape[0]
    return model.extend(key, known, total, coarse=coarse, **options)
  if task == 'interpolate':
    return model.interpolate(key, known, factor, **options)
  return model.upsample(key, known, **options)


def cascade(
  base: Model,
  finer: Model,
  key: Array,
  num: int,
  *,
  label: Any = None,
  prompt: Any = None,
  image: np.ndarray | None = None,
  **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws videos with one model and refines them with another, VDM Figure 2.

  The finer model makes larger frames at a smaller frameskip: it is guided by
  the base model's frames where they are, and by its own last frames.

  Args:
    base: makes [F, H, W, C] at frameskip k s.
    finer: makes frames n times larger, at frameskip s.
    key: random key.
    num: how many videos.
    label: as for `Model.sample`; the finer model gets it too if it has classes.
    prompt: likewise.
    image: likewise.
    **options: fields of `SampleSettings` for both models.

  Returns:
    The base model's videos [num, F, H, W, C], and those made of them,
    [num, k F, n H, n W, C].

  Raises:
    ValueError: for models that do not fit each other.
  """
  slower = whole_ratio(base.frameskip, finer.frameskip)
  larger = finer.video_shape[1] // base.video_shape[1]
  sides = tuple(larger * side for side in base.video_shape[1:3])
  if (
    larger < 2
    or finer.video_shape[1:3] != sides
    or not slower
    or finer.video_shape[0] > slower * base.video_shape[0]
  ):
    raise ValueError(
      f'the base model makes {base.video_shape} at frameskip '
      f'{base.frameskip:g}, the finer one {finer.video_shape} at '
      f'{finer.frameskip:g}: its frames must be a whole number of times '
      'larger, its frameskip as often smaller, and its videos no longer.'
    )
  if label is None and prompt is None and image is None:
    label = base.conditions.labels_in_turn(num)
    prompt = base.conditions.captions_in_turn(num)
  base.conditions(num, label, prompt, image)  # refuses before anything is drawn
  if image is not None and image.ndim == 3:
    image = image[None].repeat(num, 0)
  heard = {
    'label': finer.conditions.num_classes > 0,
    'prompt': finer.conditions.texts is not None,
    'image': finer.conditions.embeds,
  }
  told = {'label': label, 'prompt': prompt, 'image': image}
  heard['guidance_scale'] = any(
    heard[name] for name, value in told.items() if value is not None
  )
  size, made = base.settings.batch_size, []
  for start in range(0, num, size):
    first, second = jax.random.split(jax.random.fold_in(key, start))
    count = min(size, num - start)
    asked = {
      name: values if isinstance(values, str | int) else values[start:][:count]
      for name, values in told.items()
      if values is not None
    }
    small = base.sample(first, count, show_progress=True, **asked, **options)
    again: dict[str, Any] = {
      name: value
      for name, value in (asked | options).items()
      if heard.get(name, True)
    }
    large = finer.upsample(second, small, factor=slower, **again)
    made.append((small, large))
  small, large = (np.concatenate(parts) for parts in zip(*made, strict=True))
  return small, large


def parse_sampler(text: str) -> Any:
  """Returns the sampler of 'name' or 'name,argument=value,...'.

  Raises:
    ConfigError: for a sampler or an argument that is not there.
  """
  name, *pairs = text.split(',')
  section: dict[str, Any] = {'name': name}
  for pair in pairs:
    argument, _, value = pair.partition('=')
    try:
      section[argument] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      raise ConfigError(
        f'--sampler={text}: {pair!r} is not argument=number.'
      ) from None
  return build_sampler(section)
