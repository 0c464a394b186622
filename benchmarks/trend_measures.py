"""What `trends.py` measures of the models that it trains."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdm_jax import samplers
from vdm_jax.data.moving_shapes_measure import measure
from vdm_jax.data.moving_shapes_score import score
from vdm_jax.data.pixels import to_float
from vdm_jax.data.registry import build_source
from vdm_jax.diffusion import gaussian
from vdm_jax.metrics import frechet
from vdm_jax.metrics.moments import Moments

Measured = dict[str, float]


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


# --- VideoFusion Tables 5, 6 and 7, PYoCo Table 5 and Figure 7 ---------------

CELLS = 4  # a side
SAMPLES = 64  # videos


def cells(videos: np.ndarray) -> np.ndarray:
  """Mean of each cell of each frame, [N, F, 48]."""
  n, f, h, w, c = videos.shape
  split = videos.reshape(n, f, CELLS, h // CELLS, CELLS, w // CELLS, c)
  return split.mean((3, 5)).reshape(n, f, -1)


def over_time(videos: np.ndarray) -> np.ndarray:
  """Mean and standard deviation over time of each cell, [N, 96]."""
  of_frames = cells(videos)
  return np.concatenate([of_frames.mean(1), of_frames.std(1)], -1)


def of_frames(videos: np.ndarray) -> np.ndarray:
  """Mean of each cell, of each frame alone, [N F, 48]."""
  return cells(videos).reshape(-1, CELLS**2 * videos.shape[-1])


def motion(videos: np.ndarray) -> float:
  """Mean squared step of the cells from one frame to the next."""
  return float(np.mean(np.diff(cells(videos), axis=1) ** 2))


def distance(real: np.ndarray, generated: np.ndarray) -> float:
  """The Frechet distance of two sets of features."""
  return frechet.distance(Moments.of(real), Moments.of(generated))


def seen(videos, label, config) -> Measured:
  """The exact evaluation of samples, and its parts frame by frame.

  frames with one object   share of frames
  colour as asked          share of frames, of one object
  ground's change          largest of a clip, mean of the clips; range 1

  Single frames have the first two alone.
  """
  found = measure(
    0.5 + 0.5 * np.clip(videos, -1.0, 1.0), config['data']['radius'][1]
  )
  network = config['network']
  classes = network.get('classes') or network['prior']['classes']
  colour = np.unravel_index(label, classes)[1][:, None]
  asked = found.whole & (found.colour == colour)
  result = {
    'frames with one object': float(found.whole.mean()),
    'colour as asked': float(asked.mean()),
  }
  if videos.shape[1] == 1:
    return result
  shares = score(videos, **rules(config['data'])).summary()
  judged = {k: shares[k] for k in ('objects', 'constancy', 'background')}
  return {**judged, **result, "ground's change": float(found.flicker.mean())}


def fusion_quality(model, config, seed) -> Measured:
  """What `seen` has of 64 samples, and how they are distributed.

  Frechet distance         to 1024 held-out clips, of the mean and the standard
                           deviation over time of 4 x 4 cells
  """
  clips, label = held_out(config['data'], 1024)
  videos = model.sample(
    jax.random.key(seed),
    SAMPLES,
    label=label[:SAMPLES],
    batch_size=32,
    sampler=samplers.DDIM(),
    num_steps=32,
  )
  result = seen(videos, label[:SAMPLES], config)
  result['Frechet distance'] = distance(over_time(clips), over_time(videos))
  return result


def inflation_quality(model, config, seed) -> Measured:
  """As `fusion_quality`, by the config's own sampler, and of single frames.

  of frames   the Frechet distance of the cells of frames, whatever the video
  motion      mean squared step of the cells from frame to frame, over that of
              held-out clips: 0 is a frozen video

  'held-out' is what as many other clips have: no sample can be expected to do
  better.  A model of single frames makes as many frames as there are in the
  videos; as no two are of one video, they are more to judge it by.
  """
  frames = config['data']['num_frames']
  num = SAMPLES * 8 // frames
  clips, label = held_out(config['data'], 1024 + num, num_frames=8)
  clips, others = clips[num:], clips[:num, :frames]
  videos = model.sample(
    jax.random.key(seed), num, label=label[:num], batch_size=num // 2
  )
  result = seen(videos, label[:num], config)
  for name, given in ('', videos), ('held-out: ', others):
    result |= {
      f'{name}Frechet distance of frames': distance(
        of_frames(clips), of_frames(given)
      )
    }
    if videos.shape[1] > 1:
      result[f'{name}Frechet distance'] = distance(
        over_time(clips), over_time(given)
      )
      result[f'{name}motion'] = motion(given) / motion(clips)
  return result
