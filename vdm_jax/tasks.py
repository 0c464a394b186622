"""What a trained model makes of a video file: longer, slower or larger.

extend        the video and what comes after it
interpolate   new frames between those of the video
upsample      the same video in the model's resolution
"""

import ast
import pathlib
from typing import Any

import numpy as np
from jax import Array

from vdm_jax import video
from vdm_jax.config import ConfigError
from vdm_jax.data import decode
from vdm_jax.data.pixels import Framing, to_float
from vdm_jax.model import Model
from vdm_jax.systems.registry import build_sampler

TASKS = ('extend', 'interpolate', 'upsample')


def read(path: pathlib.Path, height: int, width: int) -> np.ndarray:
  """Returns the videos of a file, float32 [N, F, height, width, 3].

  Frames are scaled to cover the size and cut in the middle. An array (.npy)
  may hold several videos and is taken as it is.

  Raises:
    FileNotFoundError, ValueError: as `video.load`.
  """
  if path.suffix.lower() == '.npy' or not path.is_file():
    videos = video.load(path)
    return videos if videos.ndim == 5 else videos[None]
  framing = Framing('center', height, width)
  frames = decode.read(path, decode.scan(path), fit=framing.scaled)
  return to_float(framing.cut(frames, np.random.default_rng()))[None]


def run(
  task: str,
  model: Model,
  key: Array,
  path: pathlib.Path,
  *,
  num: int = 1,
  num_frames: int | None = None,
  factor: int = 2,
  **options: Any,
) -> np.ndarray:
  """Returns `num` videos for each one in the file, [N, F, H, W, C].

  Args:
    task: one of TASKS.
    model: what makes them.
    key: random key.
    path: the file with what is known.
    num: different results for one video.
    num_frames: length of an extended video, the given frames among them; None
      is twice the model's.
    factor: new frames per frame of an interpolated video, or how many times
      larger an upsampled one is.
    **options: as for `Model.extend`; a single label is for all videos.

  Raises:
    ValueError: for a file or numbers that do not fit the model.
  """
  window, height, width, _ = model.video_shape
  if factor < 2:
    raise ValueError(f'--factor={factor} is not allowed: give 2 or more.')
  shrunk = factor if task == 'upsample' else 1
  known = read(path, height // shrunk, width // shrunk).repeat(num, 0)
  if (label := options.get('label')) is not None:
    options['label'] = np.resize(label, len(known))
  if task == 'extend':
    total = num_frames or max(2 * window, known.shape[1])
    return model.extend(key, known, total, **options)
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
