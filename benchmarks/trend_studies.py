"""What `trends.py` compares: tables of the papers that two cores can train."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import vdm_jax
from vdm_jax import samplers
from vdm_jax.data.moving_shapes_measure import measure
from vdm_jax.data.moving_shapes_score import score
from vdm_jax.data.pixels import to_float
from vdm_jax.data.registry import build_source
from vdm_jax.diffusion import gaussian
from vdm_jax.metrics import frechet
from vdm_jax.metrics.moments import Moments

Measured = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Cell:
  """A model to train.

  Attributes:
    fields: of the config to change.
    variant: of the config.
    base: the cell whose model the base generator starts from, if any.
  """

  fields: Mapping[str, Any]
  variant: str = ''
  base: Self | None = None

  def changed(self, fields: Mapping[str, Any]) -> Self:
    """The same with other fields."""
    return dataclasses.replace(self, fields={**self.fields, **fields})


@dataclasses.dataclass(frozen=True)
class Study:
  """Cells to compare.

  Attributes:
    title: what the paper says.
    cells: by name.
    measure: (model, config, seed) -> numbers.
  """

  title: str
  cells: Mapping[str, Cell]
  measure: Callable[[vdm_jax.Model, dict[str, Any], int], Measured]


def held_out(data: Mapping[str, Any], num: int, **changes: Any):
  """Clips that no model saw, [num, F, H, W, 3], and their classes [num]."""
  source = build_source({**data, **changes, 'split': 'validation'})
  clips = [source.clip(i) for i in range(num)]
  videos = to_float(np.stack([clip['video'] for clip in clips]))
  return videos, np.array([clip['label'] for clip in clips])


def rules(data: Mapping[str, Any]) -> dict[str, Any]:
  return {k: data[k] for k in ('frameskip', 'radius') if k in data}


# --- VDM Table 4: independent images ----------------------------------------


def sample_quality(model, config, seed) -> Measured:
  """The exact evaluation of samples, and the error of x_hat on held-out clips.

  Errors are root mean squares over 256 clips at three log SNR.
  """
  num = 64
  videos = model.sample(jax.random.key(seed), num, batch_size=32)
  judged = score(videos, **rules(config['data']))
  shares = judged.summary()
  result = {name: shares[name] for name in ('objects', 'background')}
  # Single frames, repeated: what an image metric sees.
  frames = videos[:, :: videos.shape[1] - 1].reshape(-1, 1, *videos.shape[2:])
  still = score(frames.repeat(4, 1), **rules(config['data']))
  result['frames with one object'] = float(still.objects.mean())
  x, label = held_out(config['data'], 256)
  denoise = jax.jit(
    lambda params, z, logsnr, label: model.system.denoiser(
      params, {'label': label}
    )(z, logsnr)
  )
  for logsnr in (-4.0, -2.0, 0.0):
    errors = []
    for first in range(0, len(x), 32):
      rows = slice(first, first + 32)
      key = jax.random.fold_in(jax.random.key(0), first)
      eps = model.system.noise.sample(key, x[rows].shape)
      z = gaussian.corrupt(x[rows], eps, jnp.array(logsnr))
      x_hat = denoise(model.params, z, jnp.array(logsnr), label[rows])
      errors.append(np.mean((np.asarray(x_hat) - x[rows]) ** 2))
    result[f'rmse at log SNR {logsnr:g}'] = float(np.mean(errors)) ** 0.5
  return result


# --- VDM Table 6: borders of blocks -----------------------------------------

BLOCKS = 3  # after the first; the paper's 64 frames of 16 are 6
VIDEOS = 12
STEPS = 32


def borders(model, config, seed) -> Measured:
  """Continuity of videos made in blocks, at the first frame of each block.

  step      mean squared difference to the frame before
  jumps     share of borders whose step exceeds every one of the held-out clips
  objects   share of windows around a border that pass the exact evaluation
  """
  window = model.video_shape[0]
  overlap = window // 2
  total = window + BLOCKS * (window - overlap)
  real, label = held_out(config['data'], VIDEOS, num_frames=total)
  starts = np.arange(window, total, window - overlap)
  result = {}

  def judge(name, videos):
    steps = np.mean(np.diff(videos, axis=1) ** 2, (2, 3, 4))
    at = steps[:, starts - 1]
    inside = np.delete(steps, starts - 1, 1)
    real_steps = np.mean(np.diff(real, axis=1) ** 2, (2, 3, 4))
    around = [videos[:, s - overlap : s + overlap] for s in starts]
    seen = score(np.concatenate(around), **rules(config['data']))
    result[f'{name}: step at borders'] = float(at.mean())
    result[f'{name}: step inside'] = float(inside.mean())
    result[f'{name}: jumps'] = float((at > real_steps.max()).mean())
    result[f'{name}: objects'] = float(seen.objects.mean())

  judge('held-out', real)
  first = model.sample(
    jax.random.key(seed), VIDEOS, label=label, num_steps=STEPS
  )
  for method in ('reconstruction', 'replacement'):
    videos = model.extend(
      jax.random.key(seed + 1),
      first,
      total,
      label=label,
      method=method,
      num_steps=STEPS,
    )
    judge(method, videos)
  return result


# --- VideoFusion Tables 5, 6 and 7 --------------------------------------------

CELLS = 4  # a side


def fusion_quality(model, config, seed) -> Measured:
  """The exact evaluation of 64 samples, and its parts frame by frame.

  frames with one object   share of frames
  colour as asked          share of frames, of one object
  ground's change          largest of a clip, mean of the clips; range 1
  Frechet distance         to 1024 held-out clips, of the mean and the standard
                           deviation over time of 4 x 4 cells
  """
  num = 64
  clips, label = held_out(config['data'], 1024)
  label = label[:num]
  videos = model.sample(
    jax.random.key(seed),
    num,
    label=label,
    batch_size=32,
    sampler=samplers.DDIM(),
    num_steps=32,
  )
  shares = score(videos, **rules(config['data'])).summary()
  result = {k: shares[k] for k in ('objects', 'constancy', 'background')}
  largest = config['data']['radius'][1]
  found = measure(0.5 + 0.5 * np.clip(videos, -1.0, 1.0), largest)
  network = config['network']
  classes = network.get('classes') or network['prior']['classes']
  colour = np.unravel_index(label, classes)[1][:, None]
  result['frames with one object'] = float(found.whole.mean())
  asked = found.whole & (found.colour == colour)
  result['colour as asked'] = float(asked.mean())
  result["ground's change"] = float(found.flicker.mean())
  real, generated = (Moments.of(cells(x)) for x in (clips, videos))
  result['Frechet distance'] = frechet.distance(real, generated)
  return result


def cells(videos: np.ndarray) -> np.ndarray:
  """Mean and standard deviation over time of each cell, [N, 96]."""
  n, f, h, w, c = videos.shape
  means = videos.reshape(n, f, CELLS, h // CELLS, CELLS, w // CELLS, c)
  means = means.mean((3, 5))
  return np.concatenate([means.mean(1), means.std(1)], -1).reshape(n, -1)


# --- the studies --------------------------------------------------------------

SMALL = {
  'train.batch_size': 2,
  'sample.num_evaluated': 1,
  'sample.batch_size': 1,
}
IMAGES = {
  f'{k} images': Cell({**SMALL, 'train.num_steps': 600, 'train.num_images': k})
  for k in (0, 4, 8)
}
BORDERS = Cell({**SMALL, 'train.num_steps': 1500, 'train.num_images': 8})
# The base generator learns from other pictures than the videos, as in the
# paper: other shapes, on other grounds.
PICTURES = Cell(
  {
    **SMALL,
    'train.batch_size': 16,
    'train.num_steps': 600,
    'data.shapes': ('triangle', 'cross'),
    'data.backgrounds': ('striped', 'checkered'),
  },
  'image',
)
SCRATCH = Cell({**SMALL, 'train.num_steps': 500}, 'videofusion')
FUSION = dataclasses.replace(SCRATCH, base=PICTURES)
STUDIES = {
  'images': Study(
    'VDM Table 4: 0, 4 and 8 independent images beside each video, in rising '
    'order of quality',
    IMAGES,
    sample_quality,
  ),
  'borders': Study(
    'VDM Table 6: reconstruction guidance continues blocks, replacement does '
    'not',
    {'8 images': BORDERS},
    borders,
  ),
  'share': Study(
    'VideoFusion Table 5: base shares of 0.25 and 0.5 are better than 0.1 and '
    '0.75; its section 5 hopes for shares fitted to each video',
    {
      **{
        f'base share {s}': FUSION.changed({'system.noise.base_share': s})
        for s in (0.1, 0.25, 0.75)
      },
      'base share 0.5': FUSION,
      'fitted shares': FUSION.changed({'system.fitted_share': True}),
    },
    fusion_quality,
  ),
  'pretraining': Study(
    'VideoFusion Table 6: better with a pretrained base generator, and better '
    'than VDM without one',
    {
      'VDM': Cell(SCRATCH.fields),
      'without pretraining': SCRATCH,
      'with pretraining': FUSION,
    },
    fusion_quality,
  ),
  'training': Study(
    'VideoFusion Table 7: a fixed base generator, a trained one, and one whose '
    'gradient stops at the base frame, in rising order of quality',
    {
      'fixed': FUSION.changed({'system.training': 'fixed'}),
      'without stop-gradient': FUSION.changed({'system.training': 'joint'}),
      'with stop-gradient': FUSION,
    },
    fusion_quality,
  ),
}
