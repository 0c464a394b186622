"""Every random choice of a training batch, the same for all systems.

    t ~ U[0, 1], spread evenly over the batch       one noise level a video
    eps ~ noise prior                               over the frames of a video
    condition -> no condition                       for a share of them

Of two text encoders each can have its own share, drawn by itself (PYoCo,
Appendix A.1: "we drop each of the embeddings independently at random").

Independent images (VDM section 4.3.1) share the noise level of the video that
they ride with; their noise and whether their condition is hidden are their own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import times
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.diffusion.schedules import Schedule
from vdm_jax.systems.conditioning import hide
from vdm_jax.systems.protocol import Batch


def aside(key: Array) -> Array:
  """Returns one more key, beside those that `key` is split into.

  These are fold_in(key, 0), fold_in(key, 1), ...: a small number would be used
  twice.
  """
  return jax.random.fold_in(key, 2**31)


def dropout(key: Array | None) -> dict[str, Any]:
  """Returns the arguments that turn dropout on; none where there is no key."""
  return {} if key is None else {'train': True, 'rngs': {'dropout': key}}


def draw(
  key: Array,
  batch: Batch,
  *,
  schedule: Schedule,
  noise: NoisePrior,
  conditions: Sequence[str] = (),
  num_classes: int = 0,
  cond_dropout: float = 0.0,
  clip_dropout: float | None = None,
) -> Batch:
  """Returns a batch with logsnr [B] and eps [B, F, H, W, C].

  Of the conditions it keeps those in `conditions`, a share `cond_dropout`
  hidden; a share `clip_dropout` of the tokens of the second text encoder is
  hidden by a draw of its own, unless that is None.  With images
  [B, K, H, W, C] also 'image_eps', same shape, and their conditions.
  """

  def cond(key, prefix, lead):
    given = {name: batch[prefix + name] for name in conditions}
    hidden = jax.random.bernoulli(key, cond_dropout, lead)
    clip_hidden = None
    if clip_dropout is not None:
      clip_hidden = jax.random.bernoulli(aside(key), clip_dropout, lead)
    shown = hide(given, hidden, num_classes, clip_hidden)
    return {prefix + name: value for name, value in shown.items()}

  time_key, noise_key, cond_key, *image_keys = jax.random.split(key, 5)
  video = batch['video']
  drawn = {
    'video': video,
    'logsnr': schedule(times.low_discrepancy(time_key, len(video))),
    'eps': noise.sample(noise_key, video.shape),
    **cond(cond_key, '', video.shape[:1]),
  }
  if 'images' in batch:
    drawn['images'] = batch['images']
    # A single frame sees standard Gaussian noise under every prior.
    drawn['image_eps'] = jax.random.normal(image_keys[0], batch['images'].shape)
    drawn |= cond(image_keys[1], 'image_', batch['images'].shape[:2])
  return drawn


def together(
  drawn: Batch, conditions: Sequence[str]
) -> tuple[Array, Array, dict[str, Any], int]:
  """Joins images to their videos as trailing frames.

  Returns:
    videos [B, F + K, H, W, C], eps of the same shape, conditions [B, ...], or
    [B, 1 + K, ...] where there are images, and K.
  """
  video, eps = drawn['video'], drawn['eps']
  cond: dict[str, Any] = {name: drawn[name] for name in conditions}
  if 'images' not in drawn:
    return video, eps, cond, 0
  for name, value in cond.items():
    images = drawn[f'image_{name}']
    cond[name] = jnp.concatenate([value[:, None], images], 1)
  video = jnp.concatenate([video, drawn['images']], 1)
  eps = jnp.concatenate([eps, drawn['image_eps']], 1)
  return video, eps, cond, drawn['images'].shape[1]
