"""What a moving shape and its background look like, in pixels.

Shapes are signed distance functions d(x, y, r) in pixels, y pointing down.
Every shape touches all four sides of its box [-r, r]^2, so that contact with a
wall looks the same for each of them. The share of a pixel that a shape covers
is taken as clip(1/2 - d, 0, 1).

Colours are the six corners of the RGB cube that are not grey, shrunk to
[0.1, 0.9]. In the complex plane of hues,

    chroma(R, G, B) = R + G e^(2 pi i / 3) + B e^(4 pi i / 3),               (1)

greys are 0 and all six colours lie at distance CHROMA from 0, 60 degrees
apart. A background is a grey pattern plus one constant tint with chroma k, so
a pixel covered to the share a by a shape of chroma c has chroma

    a c + (1 - a) k,                                                         (2)

whatever the pattern: coverage can be read back exactly from any clip.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

ARM = 0.36  # half the width of the cross's arms, as a share of its radius
TINT = 0.04  # largest change of a channel that the tint makes
CHROMA = 0.8

PALETTE = {
  'red': (0.9, 0.1, 0.1),
  'yellow': (0.9, 0.9, 0.1),
  'green': (0.1, 0.9, 0.1),
  'cyan': (0.1, 0.9, 0.9),
  'blue': (0.1, 0.1, 0.9),
  'magenta': (0.9, 0.1, 0.9),
}
LOOKS = {
  'radius': (0.14, 0.18),  # of a shape, in short sides; another may be chosen
  'dark': (0.2, 0.35),  # levels of grey
  'pale': (0.65, 0.8),
  'contrast': (0.06, 0.12),
  'frequency': (1.5, 3.0),
}
LARGEST_RADIUS = 0.3  # more of the frame must be background than object
PATTERNS = ('plain', 'shaded', 'striped', 'checkered')


def _circle(x, y, r):
  return np.sqrt(x * x + y * y) - r


def _square(x, y, r):
  return np.maximum(abs(x), abs(y)) - r


def _triangle(x, y, r):
  return np.maximum((2 * abs(x) - y - r) / 5**0.5, y - r)


def _cross(x, y, r):
  x, y = abs(x), abs(y)
  return np.maximum(np.maximum(x, y) - r, np.minimum(x, y) - ARM * r)


@dataclasses.dataclass(frozen=True)
class Shape:
  """A shape of radius r: its distance, area / r^2 and centroid (below) / r."""

  distance: Callable[..., np.ndarray]
  area: float
  centroid: float = 0.0


SHAPES = {
  'circle': Shape(_circle, np.pi),
  'square': Shape(_square, 4.0),
  'triangle': Shape(_triangle, 2.0, centroid=1 / 3),
  'cross': Shape(_cross, 4 * ARM * (2 - ARM)),
}


@dataclasses.dataclass(frozen=True)
class Background:
  """A still background: a grey pattern plus a constant tint.

  Attributes:
    pattern: one of PATTERNS.
    level: mean grey in [0, 1].
    contrast: amplitude of the pattern, same unit as `level`.
    angle: direction of the pattern in radians.
    frequency: periods of the pattern per short side of the frame.
    phase: of the pattern, in radians.
    hue: of the tint, in radians.
  """

  pattern: str
  level: float
  contrast: float
  angle: float
  frequency: float
  phase: float
  hue: float

  @classmethod
  def draw(
    cls, rng: np.random.Generator, patterns: tuple[str, ...] = PATTERNS
  ) -> 'Background':
    """A random background from LOOKS, its pattern one of `patterns`."""
    return cls(
      pattern=patterns[rng.integers(len(patterns))],
      level=rng.uniform(*LOOKS[('dark', 'pale')[rng.integers(2)]]),
      contrast=rng.uniform(*LOOKS['contrast']),
      angle=rng.uniform(0, 2 * np.pi),
      frequency=rng.uniform(*LOOKS['frequency']),
      phase=rng.uniform(0, 2 * np.pi),
      hue=rng.uniform(0, 2 * np.pi),
    )

  def paint(self, height: int, width: int) -> np.ndarray:
    """Returns the frame without its object, float32 [H, W, 3] in [0, 1]."""
    # float32 throughout: Python's floats do not widen it, numpy's would.
    unit = min(height, width)
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / unit
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / unit
    cos, sin = math.cos(self.angle), math.sin(self.angle)
    along = cos * x + (sin * y)[:, None]
    turns = 2 * math.pi * self.frequency
    if self.pattern == 'plain':
      wave = 0 * along
    elif self.pattern == 'shaded':
      wave = along * (2 * unit / (width * abs(cos) + height * abs(sin)))
    elif self.pattern == 'striped':
      wave = np.sin(turns * along + self.phase)
    else:
      across = (cos * y)[:, None] - sin * x
      wave = np.sin(turns * along + self.phase) * np.sin(turns * across)
    tint = TINT * np.cos(self.hue - 2 * np.pi / 3 * np.arange(3))
    grey = self.level + self.contrast * wave
    return np.stack([grey + c for c in tint.tolist()], -1)


def coverage(shape: str, x, y, radius) -> np.ndarray:
  """Share of pixels at offset (x, y) from its centre that a shape covers."""
  return np.clip(0.5 - SHAPES[shape].distance(x, y, radius), 0.0, 1.0)


def window_corners(
  centres: np.ndarray, size: int, height: int, width: int
) -> np.ndarray:
  """First pixels, int [N, 2], of square windows around centres [N, 2].

  Both are (x, y) in pixels. The windows have `size` pixels a side, at most
  min(height, width), and are shifted to lie inside the frame.
  """
  corners = np.floor(centres - (size - 1) / 2).astype(np.int64)
  return np.clip(corners, 0, [width - size, height - size])
