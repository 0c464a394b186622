"""Measures the object in every frame of a video, without any network.

Equation (2) of `moving_shapes_render` turns chroma into coverage. Area and
centroid of the coverage give a radius and a centre for each candidate shape;
the candidate whose own rendering comes closest is the shape.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vdm_jax.data.moving_shapes_render import (
  CHROMA,
  LOOKS,
  PALETTE,
  SHAPES,
  TINT,
  coverage,
  window_corners,
)

SLACK = 1.15  # objects up to this factor beyond the largest are measured


class Measured(NamedTuple):
  """What was seen in N videos of F frames; lengths in pixels.

  Attributes:
    whole: bool [N, F], all object-coloured pixels are connected.
    area: [N, F], of the object.
    colour, colour_error: nearest colour and distance to it in RGB, [0, 1] per
      channel, [N, F].
    shape, shape_error: nearest shape and squared difference to its rendering
      over its square, [N, F].
    radius: [N, F], of that shape.
    centre: [N, F, 2], x and y, of that shape.
    flicker: [N], largest mean absolute change of a frame's background.
  """

  whole: np.ndarray
  area: np.ndarray
  colour: np.ndarray
  colour_error: np.ndarray
  shape: np.ndarray
  shape_error: np.ndarray
  radius: np.ndarray
  centre: np.ndarray
  flicker: np.ndarray


def measure(
  rgb: np.ndarray, largest_radius: float = LOOKS['radius'][1]
) -> Measured:
  """Measures videos [N, F, H, W, 3] in [0, 1], objects up to this radius."""
  height, width = rgb.shape[2:4]
  largest = SLACK * largest_radius * min(height, width)
  chroma, tint = _chroma(rgb)
  strength = abs(chroma)
  mask = strength > CHROMA / 2
  body = _bodies(mask, strength, largest)
  colour, colour_error = _colours(rgb, strength, body)
  # Equation (2): the chroma beyond the tint's is coverage times a constant.
  pure = _HUES[colour] - tint[:, None]
  cover = np.real(chroma * (1 / pure)[..., None, None])
  fitted = _fit_shapes(
    cover.reshape(-1, height, width), body.reshape(-1, height, width), largest
  )
  area, shape, shape_error, radius, centre = (
    part.reshape(*colour.shape, *part.shape[1:]) for part in fitted
  )
  return Measured(
    whole=(mask == body).all((2, 3)),
    area=area,
    colour=colour,
    colour_error=colour_error,
    shape=shape,
    shape_error=shape_error,
    radius=radius,
    centre=centre,
    flicker=_flicker(rgb, body),
  )


def _hue(rgb: np.ndarray) -> np.ndarray:
  """Equation (1) of `moving_shapes_render`."""
  red, green, blue = np.moveaxis(rgb, -1, 0)
  real, imaginary = red - 0.5 * (green + blue), 0.75**0.5 * (green - blue)
  return (real + 1j * imaginary).astype(np.complex64)


_COLOURS = np.array(list(PALETTE.values()), np.float32)
_HUES = _hue(_COLOURS)


def _chroma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Chroma [N, F, H, W] beyond the tint's, and the tint's [N]."""
  chroma = _hue(rgb)
  flat = chroma.reshape(len(chroma), -1)
  tint = np.median(np.real(flat), 1) + 1j * np.median(np.imag(flat), 1)
  # A background of an object's own colour is no tint.
  tint /= np.maximum(1, abs(tint) / (3 * TINT))
  return chroma - tint[:, None, None, None], tint


def _dilate(mask: np.ndarray) -> np.ndarray:
  """Adds the eight neighbours of every pixel."""
  wide = mask.copy()
  wide[..., 1:] |= mask[..., :-1]
  wide[..., :-1] |= mask[..., 1:]
  tall = wide.copy()
  tall[..., 1:, :] |= wide[..., :-1, :]
  tall[..., :-1, :] |= wide[..., 1:, :]
  return tall


def _bodies(
  mask: np.ndarray, strength: np.ndarray, largest: float
) -> np.ndarray:
  """The connected part of each frame's mask with the strongest pixel."""
  flat = strength.reshape(*strength.shape[:2], -1)
  body = np.zeros(flat.shape, bool)
  np.put_along_axis(body, flat.argmax(-1)[..., None], True, -1)
  body = body.reshape(mask.shape) & mask
  # No legal object is wider than this, so a larger one stays incomplete.
  for _ in range(math.ceil(2 * largest) + 2):
    grown = _dilate(body) & mask
    if (grown == body).all():
      break
    body = grown
  return body


def _colours(rgb, strength, body) -> tuple[np.ndarray, np.ndarray]:
  """Nearest colour of each frame's body and its distance, [N, F]."""
  strength = strength * body
  core = strength >= 0.8 * strength.max((2, 3), keepdims=True)
  mean = np.einsum('nfhwc,nfhw->nfc', rgb, core.astype(np.float32))
  mean /= core.sum((2, 3))[..., None]
  distance = np.linalg.norm(mean[..., None, :] - _COLOURS, axis=-1)
  return distance.argmin(-1), distance.min(-1)


def _fit_shapes(cover: np.ndarray, body: np.ndarray, largest: float):
  """Area, nearest shape, its error, radius and centre of frames [M, H, W].

  All but the error, which is relative, are in pixels.
  """
  height, width = body.shape[1:]
  size = int(2 * largest) + 6
  size = min(size, height, width)
  corners = window_corners(_centroid(body)[1], size, height, width)
  window = np.arange(len(body)), *corners.T[::-1]

  def crop(frames):
    return sliding_window_view(frames, (size, size), axis=(1, 2))[window]

  # Two pixels around the body hold all of its anti-aliased border.
  near = crop(_dilate(_dilate(body)))
  cover = crop(cover)
  area, centroid = _centroid(cover * near)
  steps = np.arange(size, dtype=np.float32) + 0.5
  fits = []
  for name, shape in SHAPES.items():
    radius = np.sqrt(area / shape.area)
    centre = centroid - np.outer(radius, (0, shape.centroid))
    x, y = (steps - centre[..., None]).transpose(1, 0, 2)
    drawn = coverage(name, x[:, None], y[..., None], radius[:, None, None])
    power = np.maximum((drawn**2).sum((1, 2)), 1e-3)
    apart = (cover - drawn) ** 2 * (near | (drawn > 0))
    error = apart.sum((1, 2)) / power
    fits.append(np.column_stack([error, radius, corners + centre]))
  fits = np.stack(fits)
  nearest = fits[..., 0].argmin(0)
  best = fits[nearest, np.arange(len(body))]
  return area, nearest, best[:, 0], best[:, 1], best[:, 2:]


def _centroid(weights: np.ndarray):
  """Sum [M] and centroid [M, 2] (x, y) of weights [M, H, W]."""
  total = np.maximum(weights.sum((1, 2)), 1e-3)
  moments = [
    (weights.sum(axis) * (np.arange(weights.shape[3 - axis]) + 0.5)).sum(1)
    for axis in (1, 2)
  ]
  return total, np.stack(moments, -1) / total[:, None]


def _flicker(rgb: np.ndarray, body: np.ndarray) -> np.ndarray:
  """Largest mean absolute change of any frame's background, [N]."""
  still = ~_dilate(_dilate(body))[..., None]
  share = np.maximum(still.sum(1, keepdims=True), 1)
  change = rgb - (rgb * still).sum(1, keepdims=True) / share
  change *= still
  # Four pixels together: halves independent noise, keeps moving patterns.
  change = change[:, :, 1:] + change[:, :, :-1]
  change = 0.25 * abs(change[..., 1:, :] + change[..., :-1, :])
  room = np.maximum(still.mean((2, 3, 4)), 1e-3)
  return (change.mean((2, 3, 4)) / room).max(1)
