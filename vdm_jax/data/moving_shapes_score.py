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

How: equation (2) of `moving_shapes_render` turns chroma into coverage; area
and centroid of the coverage give radius and centre for each candidate shape,
and the candidate whose rendering comes closest wins. Laws are fitted by a grid
over their nonlinear parameters, then a pattern search; linear parameters are
eliminated by least squares.
"""

import dataclasses
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vdm_jax.data.moving_shapes import CLASSES, RANGES
from vdm_jax.data.moving_shapes_laws import SLACK, path_errors
from vdm_jax.data.moving_shapes_render import (
  CHROMA,
  PALETTE,
  SHAPES,
  coverage,
  window_corners,
)

COLOUR_ERROR = 0.25  # distance in RGB, [0, 1] per channel
SHAPE_ERROR = 0.12  # squared difference to the rendering over its square
SIZE_CHANGE = 0.12  # share of the radius
PATH_ERROR = 1 / 80  # root mean square, in short sides: 0.4 pixels of 32
FLICKER = 0.02  # mean absolute change of a frame's background, of [0, 1]
CHUNK = 16  # clips judged at once, few enough for the processor's caches
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
    return self.physics & self.background

  def summary(self, labels: np.ndarray | None = None) -> dict[str, float]:
    """Share of clips that pass each check.

    With the classes `labels`, int [N], that the clips should show, also the
    share that shows the right shape, colour and action, and all three at once
    in a valid clip ('correct').
    """
    checks = 'objects', 'constancy', 'physics', 'background', 'valid'
    shares = {name: float(getattr(self, name).mean()) for name in checks}
    if labels is not None:
      wanted = np.unravel_index(labels, [len(names) for names in CLASSES])
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


def score(videos: np.ndarray, frameskip: int = 1) -> Score:
  """Judges videos [N, F, H, W, 3] in [-1, 1]; values beyond are clipped.

  Raises:
    TypeError: integer pixels.
    ValueError: another shape, no clips, fewer than 4 frames (too few to
      contradict a law), a side below 8 pixels, or a frameskip outside 1 to
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
  if videos.shape[1] < 4 or min(videos.shape[2:4]) < 8:
    raise ValueError(
      f'videos have shape {videos.shape}; a score needs at least 4 frames and '
      '8 pixels a side.'
    )
  if not 1 <= frameskip <= MAX_FRAMESKIP:
    raise ValueError(
      f'frameskip is {frameskip}; a score needs 1 to {MAX_FRAMESKIP}.'
    )
  parts = [
    _judge(videos[i : i + CHUNK], frameskip)
    for i in range(0, len(videos), CHUNK)
  ]
  fields = [field.name for field in dataclasses.fields(Score)]
  return Score(
    *(np.concatenate([getattr(p, name) for p in parts]) for name in fields)
  )


def _judge(videos: np.ndarray, frameskip: int) -> Score:
  finite = np.isfinite(videos).all((1, 2, 3, 4))
  videos = np.nan_to_num(videos.astype(np.float32))
  rgb = 0.5 + 0.5 * np.clip(videos, -1.0, 1.0)
  height, width = rgb.shape[2:4]
  unit = min(height, width)

  chroma, tint = _chroma(rgb)
  mask = abs(chroma) > CHROMA / 2
  body = _bodies(mask, abs(chroma), unit)
  colour, colour_error = _colours(rgb, abs(chroma), body)
  # Equation (2): the chroma left after the tint's is coverage times a constant.
  pure = _HUES[colour] - tint[:, None]
  cover = (chroma * (pure / abs(pure) ** 2).conj()[..., None, None]).real
  area, shape, shape_error, radius, centre = _shapes(cover, body, unit)

  whole = (mask == body).all((2, 3))
  low, high = (r * unit for r in RANGES['radius'])
  areas = [kind.area for kind in SHAPES.values()]
  plausible = (area > min(areas) * (low / SLACK) ** 2) & (
    area < max(areas) * (high * SLACK) ** 2
  )
  known = colour_error <= COLOUR_ERROR
  objects = finite & (whole & plausible & known).all(1)

  middle = np.median(radius, 1)
  steady = abs(radius - middle[:, None]) <= SIZE_CHANGE * middle[:, None]
  matched = (shape_error <= SHAPE_ERROR) & (shape == shape[:, :1])
  constancy = objects & (matched & steady & (colour == colour[:, :1])).all(1)
  constancy &= (middle > low / SLACK) & (middle < high * SLACK)

  action = np.full(len(videos), -1)
  if constancy.any():
    middle = middle[constancy, None] / unit
    path = centre[constancy] / unit - middle[..., None]
    reach = np.array([width, height]) / unit - 2 * middle
    errors = path_errors(path, reach, frameskip)
    lawful = errors.min(1) <= PATH_ERROR
    action[constancy] = np.where(lawful, errors.argmin(1), -1)
  return Score(
    objects=objects,
    constancy=constancy,
    physics=action >= 0,
    background=finite & (_flicker(rgb, body) <= FLICKER),
    shape=np.where(constancy, shape[:, 0], -1),
    colour=np.where(constancy, colour[:, 0], -1),
    action=action,
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
  tint = np.median(flat.real, 1) + 1j * np.median(flat.imag, 1)
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


def _bodies(mask: np.ndarray, strength: np.ndarray, unit: int) -> np.ndarray:
  """The connected part of each frame's mask with the strongest pixel."""
  flat = strength.reshape(*strength.shape[:2], -1)
  body = np.zeros(flat.shape, bool)
  np.put_along_axis(body, flat.argmax(-1)[..., None], True, -1)
  body = body.reshape(mask.shape) & mask
  # No legal object is wider than this, so a larger one stays incomplete.
  for _ in range(math.ceil(2 * SLACK * RANGES['radius'][1] * unit) + 2):
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


def _shapes(cover: np.ndarray, body: np.ndarray, unit: int):
  """Area, nearest shape, its error, radius and centre [..., 2], all [N, F].

  All but the error, which is relative, are in pixels.
  """
  n, frames, height, width = cover.shape
  size = int(2 * SLACK * RANGES['radius'][1] * unit) + 6
  size = min(size, height, width)
  flat = body.reshape(-1, height, width)
  count = np.maximum(flat.sum((1, 2)), 1)
  middle = np.stack(
    [
      (flat.sum(1) * (np.arange(width) + 0.5)).sum(1) / count,
      (flat.sum(2) * (np.arange(height) + 0.5)).sum(1) / count,
    ],
    -1,
  )
  corners = window_corners(middle, size, height, width)

  def crop(frames):
    views = sliding_window_view(frames, (size, size), axis=(1, 2))
    return views[np.arange(len(views)), corners[:, 1], corners[:, 0]]

  cover, near = crop(cover.reshape(flat.shape)), crop(_dilate(_dilate(flat)))
  steps = np.arange(size) + np.float32(0.5)
  soft = cover * near
  area = np.maximum(soft.sum((1, 2)), 1e-3)
  x0 = (soft.sum(1) * steps).sum(1) / area
  y0 = (soft.sum(2) * steps).sum(1) / area

  fits = []
  for name, kind in SHAPES.items():
    radius = np.sqrt(area / kind.area)
    y = y0 - kind.centroid * radius
    dx, dy = steps - x0[:, None], steps - y[:, None]
    drawn = coverage(name, dx[:, None], dy[..., None], radius[:, None, None])
    power = np.maximum((drawn**2).sum((1, 2)), 1e-3)
    error = ((cover - drawn) ** 2).sum((1, 2)) / power
    fits.append(
      np.stack([error, radius, corners[:, 0] + x0, corners[:, 1] + y])
    )
  fits = np.stack(fits, -1)
  shape = fits[0].argmin(-1)
  error, radius, *centre = np.take_along_axis(fits, shape[None, :, None], -1)[
    ..., 0
  ]
  pack = n, frames
  return (
    area.reshape(pack),
    shape.reshape(pack),
    error.reshape(pack),
    radius.reshape(pack),
    np.stack(centre, -1).reshape(*pack, 2),
  )


def _flicker(rgb: np.ndarray, body: np.ndarray) -> np.ndarray:
  """Largest mean absolute change of any frame's background, [N]."""
  still = ~_dilate(_dilate(body))[..., None]
  share = np.maximum(still.sum(1, keepdims=True), 1)
  change = rgb - (rgb * still).sum(1, keepdims=True) / share
  change *= still
  # Four pixels together: halves independent noise, keeps moving patterns.
  change = change[:, :, 1:] + change[:, :, :-1]
  change = 0.25 * abs(change[..., 1:, :] + change[..., :-1, :])
  return (change.mean((2, 3, 4)) / still.mean((2, 3, 4))).max(1)
