"""What a trained model makes of a video file: longer, slower or larger.

extend        the video and what comes after it
interpolate   new frames between those of the video
upsample      the same video in the model's resolution
"""

import ast
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array

from vdm_jax import video
from vdm_jax.config import ConfigError
from vdm_jax.data import decode
from vdm_jax.data.pixels import Framing, to_float
from vdm_jax.model import Model
from vdm_jax.systems.registry import build_sampler


def factor_of(task: str, model: Model, factor: int | None) -> int:
  """Returns how many times finer a task makes videos.

  Args:
    task: 'extend', 'interpolate' or 'upsample'.
    model: what makes it; one that is trained to has its own factor.
    factor: the factor asked for; None is the model's own, or 2.

  Raises:
    ValueError: for a factor below 2, or another than a model is trained for.
  """
  more, larger = model.system.refines
  own = more if task == 'interpolate' else larger
  factor = max(own, 2) if factor is None else factor
  if own > 1 and factor != own:
    raise ValueError(
      f'--factor={factor} is not allowed: this model is trained for {own}; '
      'leave it out.'
    )
  if factor < 2:
    raise ValueError(f'--factor={factor} is not allowed: give 2 or more.')
  return factor


def read(
  path: pathlib.Path, model: Model, task: str, factor: int
) -> np.ndarray:
  """Returns the videos of a file as a task takes them, float32 [N, F, H, W, 3].

  Frames are scaled to cover the size and cut in the middle; for a model that is
  trained to enlarge they stay as they are, and so does an array (.npy), which
  may hold several videos.

  Args:
    path: the file.
    model: what it is for.
    task: 'extend', 'interpolate' or 'upsample'.
    factor: how many times smaller than the model's frames, for 'upsample'.

  Raises:
    FileNotFoundError, ValueError: as `video.load`.
  """
  as_it_is = path.suffix.lower() == '.npy' or model.system.refines[1] > 1
  if as_it_is or not path.is_file():
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
