"""Fits the four laws of motion of moving shapes to measured paths.

Phases and positions refer to the middle of the clip, where they are least
correlated with rates. Rates and phases are found by a grid and a pattern
search around its best point; what enters linearly is eliminated by least
squares, so orbits and swings have one unknown, slides and hops two per axis.
"""

from collections.abc import Callable

import numpy as np

from vdm_jax.data.moving_shapes_motion import GRAVITY, RANGES, fold, hop
from vdm_jax.data.moving_shapes_render import LOOKS

SLACK = 1.15  # factor by which a fitted parameter may leave its range
ROUNDS = 20  # of pattern search, each with 0.7 times the step of the last
_LEAST_REACH = 1 - 2 * SLACK * LOOKS['radius'][1]
# No slack here: at half a period per frame a swing could hide as stillness.
_FASTEST, _SLOWEST = (2 * np.pi / period for period in RANGES['period'])


def path_errors(
  path: np.ndarray, reach: np.ndarray, frameskip: float
) -> np.ndarray:
  """Distance of paths to the nearest lawful path, for each law.

  Args:
    path: [N, F, 2], positions p of `moving_shapes_motion`, in short sides.
    reach: [N, 2], their upper bounds.
    frameskip: time between frames.

  Returns:
    Root mean square distances in short sides, [N, 4] in the order slide,
    bounce, orbit, swing; infinite where the best fit leaves the ranges.
  """
  t = frameskip * (np.arange(path.shape[1]) - (path.shape[1] - 1) / 2)
  x_error, x_speed = _fold_fit(path[..., 0], reach[:, 0], t)
  y_error, y_speed = _fold_fit(path[..., 1], reach[:, 1], t)
  low, high = RANGES['speed']
  speed = np.hypot(x_speed, y_speed)
  sliding = (speed > low / SLACK) & (speed < high * SLACK)
  slide = np.where(sliding, x_error + y_error, np.inf)

  hop_error = _hop_fit(reach[:, 1:] - path[..., 1], t)
  drifting = x_speed < RANGES['drift'][1] * SLACK
  bounce = np.where(drifting, x_error + hop_error, np.inf)

  z = path[..., 0] + 1j * path[..., 1]
  z -= z.mean(1, keepdims=True)
  orbit = np.minimum(_orbit_fit(z, t), _orbit_fit(z.conj(), t))
  errors = np.stack([slide, bounce, orbit, _swing_fit(z, t)], 1)
  return np.sqrt(np.maximum(errors, 0))


def _fold_fit(p, reach, t):
  """Mean squared error of p ~ fold(p_0 + v t), and the speed v >= 0."""
  scaled = p[:, None] / reach[:, None, None]

  def loss(params):
    start, rate = params[..., :1], params[..., 1:]
    return ((fold(start + rate * t, 1.0) - scaled) ** 2).mean(-1)

  rates = _grid(0, SLACK * RANGES['speed'][1] / _LEAST_REACH, 0.1 / t[-1])
  (_, rate), error = _search(loss, np.arange(0, 2, 1 / 12), rates)
  return error * reach**2, abs(rate) * reach


def _hop_fit(z, t):
  """Mean squared error of heights z ~ hop(t)."""
  low, high = RANGES['height'][0] / SLACK, RANGES['height'][1] * SLACK

  def loss(params):
    height = np.clip(params[..., :1], low, high)
    return ((hop(t, height, params[..., 1:]) - z[:, None]) ** 2).mean(-1)

  # The phase at the clip's end moves by t dh / (2 h T), to be kept below 0.06.
  duration = np.sqrt(8 * low / GRAVITY)
  heights = _grid(low, high, 0.12 * low * duration / t[-1])
  return _search(loss, heights, np.arange(0, 1, 1 / 24))[1]


def _orbit_fit(z, t):
  """Mean squared error of z ~ A exp(i w t) + c with |A| and w in range."""

  def loss(params):
    turn = np.clip(params, _SLOWEST, _FASTEST) * t
    return _linear_loss(z, [np.exp(1j * turn)], RANGES['orbit'])

  return _search(loss, _grid(_SLOWEST, _FASTEST, 0.5 / t[-1]))[1]


def _swing_fit(z, t):
  """Mean squared error of z ~ A cos(w t + a) + c with A and w in range."""
  tilt = 0.5 * np.angle((z**2).mean(1))  # of the line nearest to the points
  turned = z * np.exp(-1j * tilt)[:, None]

  def loss(params):
    turn = np.clip(params, _SLOWEST, _FASTEST) * t
    waves = [np.cos(turn), np.sin(turn)]
    return _linear_loss(turned.real, waves, RANGES['swing'])

  error = _search(loss, _grid(_SLOWEST, _FASTEST, 0.5 / t[-1]))[1]
  error += (turned.imag**2).mean(1)
  return np.where(abs(tilt) < SLACK * RANGES['tilt'][1], error, np.inf)


def _linear_loss(z, waves, amplitudes):
  """Mean squared error of z [N, F] ~ sum A_k wave_k [N, G, F] + c.

  The waves must be orthogonal, as sines and cosines about the middle are. An
  amplitude |A| out of range is moved to its end.
  """
  gained = amplitude = 0.0
  for wave in waves:
    wave = wave - wave.mean(-1, keepdims=True)
    power = np.maximum((abs(wave) ** 2).mean(-1), 1e-9)
    inner = abs((wave.conj() * z[:, None]).mean(-1)) + 1e-9  # if all is still
    gained = gained + inner**2 / power
    amplitude = amplitude + (inner / power) ** 2
  amplitude = np.sqrt(amplitude)
  low, high = amplitudes
  moved = np.clip(amplitude, low / SLACK, high * SLACK) / amplitude - 1
  return (abs(z) ** 2).mean(-1)[:, None] + (moved**2 - 1) * gained


def _grid(low, high, step):
  return np.linspace(low, high, 8 + int((high - low) / step))


def _search(loss: Callable[[np.ndarray], np.ndarray], *axes: np.ndarray):
  """Minimises loss([N or 1, G, P]) -> [N, G] from the best point of a grid.

  Returns:
    P arrays [N] of parameters and the least loss [N].
  """
  points = np.stack(np.meshgrid(*axes), -1).reshape(1, -1, len(axes))
  best = points[0, loss(points).argmin(1)]
  steps = np.array([axis[1] - axis[0] for axis in axes])
  sides = np.stack(np.meshgrid(*[(0, -1, 1)] * len(axes)), -1)
  sides = sides.reshape(-1, len(axes))
  for _ in range(ROUNDS):
    steps = 0.7 * steps
    tries = best[:, None] + sides * steps
    errors = loss(tries)
    choice = errors.argmin(1)[:, None]
    best = np.take_along_axis(tries, choice[..., None], 1)[:, 0]
  return tuple(best.T), errors.min(1)
