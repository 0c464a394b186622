"""Moving shapes: an endless data set of small videos with known physics.

One coloured shape moves over a still background. A clip is a pure function of
(seed, split, index), its motion is a closed form of time, and everything about
it is known: `moving_shapes_score` says without any network whether a video
could come from this data set.

`moving_shapes_motion` holds the laws of motion, `moving_shapes_render` the
shapes, colours and backgrounds.
"""

import dataclasses
import hashlib
import itertools
import math
from typing import Any

import numpy as np

from vdm_jax.data.moving_shapes_motion import (
  GRAVITY,
  MOTIONS,
  RANGES,
  Bounce,
  Orbit,
  Slide,
  Swing,
  world_scale,
)
from vdm_jax.data.moving_shapes_render import (
  LARGEST_RADIUS,
  LOOKS,
  PALETTE,
  PATTERNS,
  SHAPES,
  Background,
  coverage,
  window_corners,
)

FORMAT = 1  # to be counted up with every change that alters a clip
SPLITS = ('train', 'validation')
CHOICES = {
  'shapes': tuple(SHAPES),
  'colours': tuple(PALETTE),
  'actions': tuple(MOTIONS),
  'backgrounds': PATTERNS,
}
CLASSES = CHOICES['shapes'], CHOICES['colours'], CHOICES['actions']


@dataclasses.dataclass(frozen=True)
class Factors:
  """All there is to know about a clip, whatever its length and frame size."""

  shape: str
  colour: str
  radius: float
  motion: Slide | Bounce | Orbit | Swing
  scene: Background

  @classmethod
  def draw(
    cls,
    rng: np.random.Generator,
    shapes: tuple[str, ...] = CHOICES['shapes'],
    colours: tuple[str, ...] = CHOICES['colours'],
    actions: tuple[str, ...] = CHOICES['actions'],
    backgrounds: tuple[str, ...] = CHOICES['backgrounds'],
    radius: tuple[float, float] = LOOKS['radius'],
  ) -> 'Factors':
    """All factors independent and uniform in their ranges."""
    shape, colour, action = (
      names[rng.integers(len(names))] for names in (shapes, colours, actions)
    )
    size = rng.uniform(*radius)
    motion = MOTIONS[action].draw(rng)
    return cls(shape, colour, size, motion, Background.draw(rng, backgrounds))

  @property
  def action(self) -> str:
    """Name of the law of motion."""
    return self.motion.action

  @property
  def background(self) -> str:
    """Name of the background's pattern."""
    return self.scene.pattern

  @property
  def caption(self) -> str:
    """One sentence that names all four discrete factors."""
    return _sentence(self.shape, self.colour, self.action, self.background)


def _sentence(shape: str, colour: str, action: str, background: str) -> str:
  return f'a {colour} {shape} {action}s over a {background} background'


def render(
  factors: Factors,
  num_frames: int,
  height: int,
  width: int,
  frameskip: float = 1.0,
) -> np.ndarray:
  """Draws a clip, uint8 [num_frames, height, width, 3].

  Frame i shows time i * frameskip, so a clip at frameskip k is exactly every
  k-th frame of the clip at frameskip 1; below 1 it is slow motion.

  Raises:
    ValueError: no frames, a side below 8 pixels, or a frameskip not above 0.
  """
  _check(frameskip, num_frames=num_frames, height=height, width=width)
  unit = min(height, width)
  radius = factors.radius * unit
  reach = np.array([width, height]) / unit - 2 * factors.radius
  scale = world_scale(reach)
  times = frameskip * np.arange(num_frames)
  path = scale * factors.motion.path(times, reach / scale)
  centres = unit * path + radius

  scene = 255 * factors.scene.paint(height, width) + 0.5  # casting truncates
  video = np.empty((num_frames, height, width, 3), np.uint8)
  video[:] = scene.astype(np.uint8)
  # Only the pixels near the object differ from the background.
  size = int(2 * radius) + 4
  corners = window_corners(centres, size, height, width)
  offset = (corners - centres + 0.5).astype(np.float32)
  x, y = offset.T[..., None] + np.arange(size, dtype=np.float32)
  cover = coverage(factors.shape, x[:, None], y[..., None], np.float32(radius))
  places = [np.s_[v : v + size, u : u + size] for u, v in corners.tolist()]
  drawn = np.stack([scene[place] for place in places])
  drawn = drawn.reshape(num_frames, size, 3 * size)  # 3x faster than by colour
  colour = 255 * np.array(PALETTE[factors.colour], np.float32) + 0.5
  drawn += np.repeat(cover, 3, -1) * (np.tile(colour, size) - drawn)
  drawn = drawn.astype(np.uint8).reshape(num_frames, size, size, 3)
  for frame, place, patch in zip(video, places, drawn, strict=True):
    frame[place] = patch
  return video


class MovingShapes:
  """Random access to the clips of one split; each index has its own stream."""

  def __init__(
    self,
    num_clips: int = 2**20,
    num_frames: int = 16,
    height: int = 32,
    width: int = 32,
    frameskip: float = 1.0,
    seed: int = 0,
    split: str = 'train',
    shapes: tuple[str, ...] = CHOICES['shapes'],
    colours: tuple[str, ...] = CHOICES['colours'],
    actions: tuple[str, ...] = CHOICES['actions'],
    backgrounds: tuple[str, ...] = CHOICES['backgrounds'],
    radius: tuple[float, float] = LOOKS['radius'],
    captions: bool = False,
  ):
    """A data set of `num_clips` clips [num_frames, height, width, 3].

    Which names occur can be chosen, and the range of the object's radius in
    short sides.  A class is a shape, a colour and an action that occur.  With
    `captions` a clip has its sentence too.

    Raises:
      ValueError: a number below 1, a side below 8 pixels, a frameskip not
        above 0, a negative seed, an unknown split or name, or a radius that
        is out of range.
    """
    _check(
      frameskip,
      num_clips=num_clips,
      num_frames=num_frames,
      height=height,
      width=width,
    )
    if seed < 0:
      raise ValueError(f'seed is {seed}; it must be 0 or more.')
    if split not in SPLITS:
      raise ValueError(f'split is {split!r}; it must be one of {SPLITS}.')
    if not 0 < radius[0] <= radius[1] <= LARGEST_RADIUS:
      raise ValueError(
        f'radius is {radius}; it must be a range (low, high) above 0 and up to '
        f'{LARGEST_RADIUS}.'
      )
    self.choices = {
      'shapes': tuple(shapes),
      'colours': tuple(colours),
      'actions': tuple(actions),
      'backgrounds': tuple(backgrounds),
    }
    self.classes = tuple(shapes), tuple(colours), tuple(actions)
    self.radius = radius[0], radius[1]
    self.captions = captions
    for name, chosen in self.choices.items():
      known = set(chosen) <= set(CHOICES[name])
      if not chosen or not known or len(set(chosen)) < len(chosen):
        raise ValueError(
          f'{name} is {chosen}; it must be one or more of {CHOICES[name]}, '
          'each once.'
        )
    self.num_clips = num_clips
    self.size = num_frames, height, width, frameskip
    self.seed = seed
    self.split = split

  def __len__(self) -> int:
    return self.num_clips

  @property
  def num_classes(self) -> int:
    """Classes of (shape, colour, action), the last counting fastest."""
    return math.prod(len(names) for names in self.classes)

  def label(self, shape: str, colour: str, action: str) -> int:
    """The class of a shape, a colour and an action, names in `classes`."""
    indices = [
      names.index(name)
      for names, name in zip(self.classes, (shape, colour, action), strict=True)
    ]
    return int(np.ravel_multi_index(indices, [len(n) for n in self.classes]))

  def class_names(self, label: int) -> tuple[str, str, str]:
    """Shape, colour and action of a class: the inverse of `label`."""
    indices = np.unravel_index(label, [len(names) for names in self.classes])
    shape, colour, action = (
      names[i] for names, i in zip(self.classes, indices, strict=True)
    )
    return shape, colour, action

  def texts(self) -> dict[str, int]:
    """Every caption that occurs, and the class that it names."""
    return {
      _sentence(*names): self.label(*names[:3])
      for names in itertools.product(*self.classes, self.choices['backgrounds'])
    }

  def fingerprint(self) -> str:
    """Short hash of everything that determines the clips."""
    world = FORMAT, GRAVITY, RANGES, LOOKS, PALETTE, CLASSES, PATTERNS
    chosen = self.seed, self.split, self.choices, self.radius
    parts = world, self.num_clips, self.size, chosen
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

  def factors(self, index: int) -> Factors:
    """What clip `index` shows; IndexError outside of [0, num_clips)."""
    if not 0 <= index < self.num_clips:
      raise IndexError(
        f'clip {index} was asked for; it must be in [0, {self.num_clips}).'
      )
    stream = self.seed, SPLITS.index(self.split), int(index)
    rng = np.random.default_rng(stream)
    return Factors.draw(rng, **self.choices, radius=self.radius)

  def clip(self, index: int, rng: np.random.Generator | None = None) -> dict:
    """Clip `index`: 'video' uint8 [F, H, W, 3], 'label' int32, 'caption'.

    `rng` is not used: a clip depends on (seed, split, index) alone. Sources of
    recorded videos choose their crops with it.
    """
    del rng
    return self._rendered(index, *self.size)

  def image(self, index: int, rng: np.random.Generator | None = None) -> dict:
    """The first frame of clip `index`, as a clip of one frame."""
    del rng
    return self._rendered(index, 1, *self.size[1:])

  def _rendered(self, index: int, *size: Any) -> dict:
    factors = self.factors(index)
    label = self.label(factors.shape, factors.colour, factors.action)
    caption = {'caption': factors.caption} if self.captions else {}
    return {
      'video': render(factors, *size),
      'label': np.int32(label),
      **caption,
    }


def _check(frameskip: float, **numbers: int) -> None:
  if not 0 < frameskip < np.inf:
    raise ValueError(f'frameskip is {frameskip}; it must be above 0.')
  for name, number in numbers.items():
    least = 8 if name in ('height', 'width') else 1
    if number < least:
      raise ValueError(f'{name} is {number}; it must be {least} or more.')
