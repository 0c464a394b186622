"""Moving shapes: an endless data set of small videos with known physics.

One coloured shape moves over a still background. A clip is a pure function of
(seed, split, index), its motion is a closed form of time, and everything about
it is known: `moving_shapes_score` says without any network whether a video
could come from this data set.

Lengths are measured in short sides of the frame and time in frames at
frameskip 1, so every frame size and every frameskip shows the same world. A
shape of radius r has its centre at r + p, where p lies in the box
[0, reach_x] x [0, reach_y], reach = side - 2 r. y and p_y point down.

    slide    p = fold(p_0 + v t)                                             (1)
    bounce   p_x = fold(p_0 + v t), p_y = reach_y - hop(t)                   (2)
    orbit    p = c + R (cos(w t + a), sin(w t + a))                          (3)
    swing    p = c + A (cos b, sin b) cos(w t + a)                           (4)

`fold` reflects at both ends of the reach (elastic walls), `hop` is the height
above the floor under gravity with elastic bounces.
"""

import dataclasses
import hashlib
from typing import ClassVar

import numpy as np

from vdm_jax.data.moving_shapes_render import (
  PALETTE,
  PATTERNS,
  SHAPES,
  Background,
  coverage,
  window_corners,
)

FORMAT = 1  # counts every change that alters a clip
SPLITS = ('train', 'validation')
GRAVITY = 0.02
RANGES = {
  'radius': (0.14, 0.18),
  'speed': (0.04, 0.07),  # of a slide
  'drift': (0.01, 0.03),  # sideways speed of a bounce
  'height': (0.35, 0.6),  # of a bounce
  'orbit': (0.16, 0.26),  # radius
  'swing': (0.2, 0.3),  # amplitude
  'tilt': (-np.pi / 6, np.pi / 6),  # of a swing against the horizontal
  'period': (9.0, 14.0),  # of an orbit or a swing
  'dark': (0.2, 0.35),
  'pale': (0.65, 0.8),
  'contrast': (0.06, 0.12),
  'frequency': (1.5, 3.0),
}


MOTIONS = {motion.action: motion for motion in (Slide, Bounce, Orbit, Swing)}
CLASSES = tuple(SHAPES), tuple(PALETTE), tuple(MOTIONS)


@dataclasses.dataclass(frozen=True)
class Factors:
  """All there is to know about a clip, whatever its length and frame size."""

  shape: str
  colour: str
  radius: float
  motion: Slide | Bounce | Orbit | Swing
  scene: Background

  @classmethod
  def draw(cls, rng: np.random.Generator) -> 'Factors':
    shape, colour, action = (
      names[rng.integers(len(names))] for names in CLASSES
    )
    radius = rng.uniform(*RANGES['radius'])
    motion = MOTIONS[action].draw(rng)
    scene = Background(
      PATTERNS[rng.integers(len(PATTERNS))],
      rng.uniform(*RANGES[('dark', 'pale')[rng.integers(2)]]),
      rng.uniform(*RANGES['contrast']),
      rng.uniform(0, 2 * np.pi),
      rng.uniform(*RANGES['frequency']),
      rng.uniform(0, 2 * np.pi),
      rng.uniform(0, 2 * np.pi),
    )
    return cls(shape, colour, radius, motion, scene)

  @property
  def action(self) -> str:
    return self.motion.action

  @property
  def background(self) -> str:
    return self.scene.pattern

  @property
  def label(self) -> int:
    """The class: one number for (shape, colour, action)."""
    names = self.shape, self.colour, self.action
    indices = [group.index(n) for group, n in zip(CLASSES, names, strict=True)]
    return int(np.ravel_multi_index(indices, [len(c) for c in CLASSES]))

  @property
  def caption(self) -> str:
    return (
      f'a {self.colour} {self.shape} {self.action}s '
      f'over a {self.background} background'
    )


def render(
  factors: Factors, num_frames: int, height: int, width: int, frameskip: int = 1
) -> np.ndarray:
  """Draws a clip, uint8 [num_frames, height, width, 3].

  Frame i shows time i * frameskip, so a clip at frameskip k is exactly every
  k-th frame of the clip at frameskip 1.

  Raises:
    ValueError: a number below 1, or a side below 8 pixels.
  """
  _check(num_frames=num_frames, height=height, width=width, frameskip=frameskip)
  unit = min(height, width)
  radius = factors.radius * unit
  reach = np.array([width, height]) / unit - 2 * factors.radius
  path = factors.motion.path(frameskip * np.arange(num_frames), reach)
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

  num_classes = int(np.prod([len(names) for names in CLASSES]))

  def __init__(
    self,
    num_clips: int = 2**20,
    num_frames: int = 16,
    height: int = 32,
    width: int = 32,
    frameskip: int = 1,
    seed: int = 0,
    split: str = 'train',
  ):
    """A data set of `num_clips` clips [num_frames, height, width, 3].

    Raises:
      ValueError: a number below 1, a side below 8 pixels, a negative seed or
        an unknown split.
    """
    _check(
      num_clips=num_clips,
      num_frames=num_frames,
      height=height,
      width=width,
      frameskip=frameskip,
    )
    if seed < 0:
      raise ValueError(f'seed is {seed}; it must be 0 or more.')
    if split not in SPLITS:
      raise ValueError(f'split is {split!r}; it must be one of {SPLITS}.')
    self.num_clips = num_clips
    self.size = num_frames, height, width, frameskip
    self.seed = seed
    self.split = split

  def __len__(self) -> int:
    return self.num_clips

  def fingerprint(self) -> str:
    """Short hash of everything that determines the clips."""
    world = FORMAT, GRAVITY, sorted(RANGES.items()), CLASSES, PATTERNS
    choice = self.num_clips, self.size, self.seed, self.split
    return hashlib.sha256(repr((world, choice)).encode()).hexdigest()[:16]

  def factors(self, index: int) -> Factors:
    """What clip `index` shows; IndexError outside of [0, num_clips)."""
    if not 0 <= index < self.num_clips:
      raise IndexError(
        f'clip {index} was asked for; there are clips 0 to {self.num_clips - 1}.'
      )
    stream = self.seed, SPLITS.index(self.split), int(index)
    return Factors.draw(np.random.default_rng(stream))

  def clip(self, index: int, rng: np.random.Generator | None = None) -> dict:
    """Clip `index`: 'video' uint8 [F, H, W, 3] and 'label' int32.

    `rng` is not used: a clip depends on (seed, split, index) alone. Sources of
    recorded videos choose their crops with it.
    """
    del rng
    factors = self.factors(index)
    video = render(factors, *self.size)
    return {'video': video, 'label': np.int32(factors.label)}


def _check(**numbers: int) -> None:
  for name, number in numbers.items():
    least = 8 if name in ('height', 'width') else 1
    if number < least:
      raise ValueError(f'{name} is {number}; it must be {least} or more.')
