"""How moving shapes move: four closed forms of time.

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

The laws need a reach of ROOM. An object that leaves less moves as in a world
that is smaller by the factor s = reach / ROOM: s p(t; reach / s).
"""

import dataclasses
from typing import ClassVar

import numpy as np

GRAVITY = 0.02
ROOM = 0.64
RANGES = {
  'speed': (0.04, 0.07),  # of a slide
  'drift': (0.01, 0.03),  # sideways speed of a bounce
  'height': (0.35, 0.6),  # of a bounce
  'orbit': (0.16, 0.26),  # radius
  'swing': (0.2, 0.3),  # amplitude
  'tilt': (-np.pi / 6, np.pi / 6),  # of a swing against the horizontal
  'period': (9.0, 14.0),  # of an orbit or a swing
}


def world_scale(reach: np.ndarray) -> np.ndarray:
  """Size s of the world that has room for the laws, for reaches [..., 2]."""
  return np.minimum(1.0, np.min(reach, -1, keepdims=True) / ROOM)


def fold(p, reach):
  """Position p on an endless line as seen between two mirrors: 0 and reach."""
  return reach - abs(p % (2 * reach) - reach)


def hop(t, height, phase):
  """Height above the floor at time t, bouncing up to `height` (closed form).

  One hop takes T = sqrt(8 height / g) and is at the floor where t / T + phase
  is an integer; s is the time since the top.
  """
  duration = np.sqrt(8 * height / GRAVITY)
  s = duration * ((t / duration + phase) % 1.0 - 0.5)
  return height - 0.5 * GRAVITY * s * s


@dataclasses.dataclass(frozen=True)
class Slide:
  """Constant velocity, elastic at all four walls: equation (1)."""

  start: tuple[float, float]  # share of the reach
  velocity: tuple[float, float]
  action: ClassVar[str] = 'slide'

  @classmethod
  def draw(cls, rng: np.random.Generator) -> 'Slide':
    """A random motion from RANGES."""
    speed = rng.uniform(*RANGES['speed'])
    angle = rng.uniform(0, 2 * np.pi)
    velocity = speed * np.cos(angle), speed * np.sin(angle)
    return cls((rng.random(), rng.random()), velocity)

  def path(self, t: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Positions p [T, 2] at times t [T], for reach [2]."""
    line = self.start * reach + np.multiply.outer(t, self.velocity)
    return fold(line, reach)


@dataclasses.dataclass(frozen=True)
class Bounce:
  """Gravity, elastic at the floor, with a sideways drift: equation (2)."""

  start: float  # share of the reach
  drift: float
  height: float
  phase: float
  action: ClassVar[str] = 'bounce'

  @classmethod
  def draw(cls, rng: np.random.Generator) -> 'Bounce':
    """A random motion from RANGES."""
    drift = rng.uniform(*RANGES['drift']) * rng.choice((-1, 1))
    height = rng.uniform(*RANGES['height'])
    return cls(rng.random(), drift, height, rng.random())

  def path(self, t: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Positions p [T, 2] at times t [T], for reach [2]."""
    x = fold(self.start * reach[0] + self.drift * t, reach[0])
    return np.stack([x, reach[1] - hop(t, self.height, self.phase)], -1)


@dataclasses.dataclass(frozen=True)
class Orbit:
  """A circle at constant speed, in either sense: equation (3)."""

  centre: tuple[float, float]  # share of the room that the circle leaves
  radius: float
  omega: float
  phase: float
  action: ClassVar[str] = 'orbit'

  @classmethod
  def draw(cls, rng: np.random.Generator) -> 'Orbit':
    """A random motion from RANGES."""
    omega = 2 * np.pi / rng.uniform(*RANGES['period']) * rng.choice((-1, 1))
    radius, phase = rng.uniform(*RANGES['orbit']), rng.uniform(0, 2 * np.pi)
    return cls((rng.random(), rng.random()), radius, omega, phase)

  def path(self, t: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Positions p [T, 2] at times t [T], for reach [2]."""
    turn = self.omega * t + self.phase
    circle = np.stack([np.cos(turn), np.sin(turn)], -1)
    room = reach - 2 * self.radius
    return self.radius * (1 + circle) + self.centre * room


@dataclasses.dataclass(frozen=True)
class Swing:
  """A harmonic oscillation along a nearly level line: equation (4)."""

  centre: tuple[float, float]  # share of the room that the line leaves
  amplitude: float
  tilt: float
  omega: float
  phase: float
  action: ClassVar[str] = 'swing'

  @classmethod
  def draw(cls, rng: np.random.Generator) -> 'Swing':
    """A random motion from RANGES."""
    amplitude = rng.uniform(*RANGES['swing'])
    tilt = rng.uniform(*RANGES['tilt'])
    omega = 2 * np.pi / rng.uniform(*RANGES['period'])
    centre = rng.random(), rng.random()
    return cls(centre, amplitude, tilt, omega, rng.uniform(0, 2 * np.pi))

  def path(self, t: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Positions p [T, 2] at times t [T], for reach [2]."""
    arm = self.amplitude * np.array([np.cos(self.tilt), np.sin(self.tilt)])
    wave = np.multiply.outer(np.cos(self.omega * t + self.phase), arm)
    return abs(arm) + wave + self.centre * (reach - 2 * abs(arm))


MOTIONS = {motion.action: motion for motion in (Slide, Bounce, Orbit, Swing)}
