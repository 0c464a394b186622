"""Could this video be a moving-shapes clip? Exact checks, no network.

Per clip, each check includes the one before it:

  objects    every frame shows one connected object of a palette colour and of
             an area that occurs in the data;
  constancy  its colour and shape are the same in every frame, the shape is
             matched by its own rendering, and its size is steady;
  physics    its path obeys one of the four laws of motion, with parameters
             from the ranges of the data, walls and floor included;

and, apart from these, `background`: the rest of the picture stands still.
`valid` is physics and background.

The thresholds forgive noise of standard deviation 0.05 and a blur of half a
pixel. Below them stay what a person hardly sees either: an octagon for a
circle, a background of low contrast that creeps, two frames swapped where the
object is in nearly the same place. Physics needs time to be contradicted: in
four units of it (8 frames at frameskip 1/2) every second object that stops for
good passes, a teleported one does not.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vdm_jax.data.moving_shapes import CLASSES
from vdm_jax.data.moving_shapes_fit import path_errors
from vdm_jax.data.moving_shapes_measure import SLACK, measure
from vdm_jax.data.moving_shapes_motion import RANGES, world_scale
from vdm_jax.data.moving_shapes_render import LOOKS, SHAPES

COLOUR_ERROR = 0.25  # distance in RGB, [0, 1] per channel
SHAPE_ERROR = 0.06  # squared difference to the rendering over its square
SIZE_CHANGE = 0.12  # share of the radius
PATH_ERROR = 1 / 80  # root mean square, in short sides: 0.4 pixels of 32
FLICKER = 0.02  # mean absolute change of a frame's background, of [0, 1]
CHUNK = 16  # clips judged at once, few enough for the processor's caches
MIN_FRAMES = 4  # fewer cannot contradict a law of motion
MAX_FRAMESKIP = int(RANGES['period'][0] / 2)


@dataclasses.dataclass(frozen=True)
class Score:
  """Verdicts on N clips.

  Attributes:
    objects, constancy, physics, background: bool [N], see the module.
    shape, colour, action: int [N], what was seen as an index into CLASSES, or
      -1 where it was not seen: shape and colour need constancy, action needs
      physics.
  """

  objects: np.ndarray
  constancy: np.ndarray
  physics: np.ndarray
  background: np.ndarray
  shape: np.ndarray
  colour: np.ndarray
  action: np.ndarray

  @property
  def valid(self) -> np.ndarray:
    """Clips that pass everything, bool [N]."""
    return self.physics & self.background

  def summary(
    self,
    labels: np.ndarray | None = None,
    classes: Sequence[Sequence[str]] = CLASSES,
  ) -> dict[str, float]:
    """Share of clips that pass each check.

    With the labels, int [N], of the classes that the clips should show, made
    of the names in `classes` (those of the data set), also the
    share that shows the right shape, colour and action, and all three at once
    in a valid clip ('correct').
    """
    checks = 'objects', 'constancy', 'physics', 'background', 'valid'
    shares = {name: float(getattr(self, name).mean()) for name in checks}
    if labels is not None:
      chosen = np.unravel_index(labels, [len(names) for names in classes])
      wanted = [
        np.array([every.index(name) for name in names])[index]
        for every, names, index in zip(CLASSES, classes, chosen, strict=True)
      ]
      right = {
        name: getattr(self, name) == want
        for name, want in zip(
          ('shape', 'colour', 'action'), wanted, strict=True
        )
      }
      shares |= {name: float(hits.mean()) for name, hits in right.items()}
      correct = np.all(list(right.values()), axis=0) & self.valid
      shares['correct'] = float(correct.mean())
    return shares


def score(
  videos: np.ndarray,
  frameskip: float = 1.0,
  radius: tuple[float, float] = LOOKS['radius'],
) -> Score:
  """Judges videos [N, F, H, W, 3] in [-1, 1]; values beyond are clipped.

  `frameskip` and `radius` are those of the data set.

  Raises:
    TypeError: integer pixels.
    ValueError: another shape, no clips, fewer than 4 frames (too few to
      contradict a law), a side below 8 pixels, or a frameskip outside 0 to
      MAX_FRAMESKIP, beyond which two frames may be half a period apart.
  """
  videos = np.asarray(videos)
  if not np.issubdtype(videos.dtype, np.floating):
    raise TypeError(
      f'videos are {videos.dtype}; pass floats in [-1, 1], for uint8 clips '
      'video / 127.5 - 1.'
    )
  if videos.ndim != 5 or videos.shape[-1] != 3 or not len(videos):
    raise ValueError(
      f'videos have shape {videos.shape}; it must be [N, F, H, W, 3], N >= 1.'
    )
  if videos.shape[1] < MIN_FRAMES or min(videos.shape[2:4]) < 8:
    raise ValueError(
      f'videos have shape {videos.shape}; a score needs at least {MIN_FRAMES} '
      'frames and 8 pixels a side.'
    )
  if not 0 < frameskip <= MAX_FRAMESKIP:
    raise ValueError(
      f'frameskip is {frameskip}; a score needs more than 0 and at most '
      f'{MAX_FRAMESKIP}.'
    )
  parts = [
    _judge(videos[i : i + CHUNK], frameskip, radius)
    for i in range(0, len(videos), CHUNK)
  ]
  fields = [field.name for field in dataclasses.fields(Score)]
  return Score(
    *(np.concatenate([getattr(p, name) for p in parts]) for name in fields)
  )


def _judge(
  videos: np.ndarray, frameskip: float, radii: tuple[float, float]
) -> Score:
  finite = np.isfinite(videos).all((1, 2, 3, 4))
  videos = np.nan_to_num(videos.astype(np.float32))
  seen = measure(0.5 + 0.5 * np.clip(videos, -1.0, 1.0), radii[1])
  side = np.array(videos.shape[3:1:-1])  # width, height
  unit = side.min()
  low, high = (radius * unit for radius in radii)
  low, high = low / SLACK, high * SLACK

  areas = [shape.area for shape in SHAPES.values()]
  plausible = min(areas) * low**2 < seen.area
  plausible &= seen.area < max(areas) * high**2
  known = seen.colour_error <= COLOUR_ERROR
  objects = finite & (seen.whole & plausible & known).all(1)

  radius = np.median(seen.radius, 1)
  change = abs(seen.radius / radius[:, None] - 1)
  same = (seen.shape == seen.shape[:, :1]) & (seen.colour == seen.colour[:, :1])
  matched = (seen.shape_error <= SHAPE_ERROR) & (change <= SIZE_CHANGE)
  constancy = objects & (same & matched).all(1)
  constancy &= (low < radius) & (radius < high)

  action = np.full(len(videos), -1)
  if constancy.any():
    radius = radius[constancy, None]
    path = (seen.centre[constancy] - radius[..., None]) / unit
    reach = (side - 2 * radius) / unit
    scale = world_scale(reach)
    errors = path_errors(path / scale[..., None], reach / scale, frameskip)
    errors *= scale
    lawful = errors.min(1) <= PATH_ERROR
    action[constancy] = np.where(lawful, errors.argmin(1), -1)
  return Score(
    objects=objects,
    constancy=constancy,
    physics=action >= 0,
    background=finite & (seen.flicker <= FLICKER),
    shape=np.where(constancy, seen.shape[:, 0], -1),
    colour=np.where(constancy, seen.colour[:, 0], -1),
    action=action,
  )
