"""Every random choice of a training batch, the same for all systems.

    t ~ U[0, 1], spread evenly over the batch       one noise level a video
    eps ~ noise prior                               over the frames of a video
    condition -> no condition                       for a share of them

Independent images (VDM section 4.3.1) share the noise level of the video that
they ride with; their noise and whether their condition is hidden are their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import times
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.diffusion.schedules import Schedule
from vdm_jax.systems.protocol import Batch, Cond


def most(networks: Sequence[Any], name: str) -> int:
  """Returns the largest of an attribute of networks, 0 where they lack it."""
  return max((getattr(network, name, 0) for network in networks), default=0)


def conditions(networks: Sequence[Any]) -> list[str]:
  """Returns the names of what networks are conditioned on, see `Cond`."""
  names = ['label'] if most(networks, 'num_classes') else []
  names += ['tokens', 'token_mask'] if most(networks, 'text_dim') else []
  return [*names, 'visual'] if most(networks, 'visual_dim') else names


def aside(key: Array, number: int) -> Array:
  """Returns a key beside those that `key` is split into.

  These are fold_in(key, 0), fold_in(key, 1), ...: small numbers would be used
  twice.
  """
  return jax.random.fold_in(key, 2**31 + number)


def dropout(key: Array | None) -> dict[str, Any]:
  """Returns the arguments that turn dropout on; none where there is no key."""
  return {} if key is None else {'train': True, 'rngs': {'dropout': key}}


def hide(cond: Cond, hidden: Array, num_classes: int) -> dict[str, Array]:
  """Returns conditions, "no condition" where `hidden` [B] or [B, K] is True.

  That is the class `num_classes`, a caption without tokens, and an embedding
  of zeros.
  """
  shown = {name: jnp.asarray(value) for name, value in cond.items()}
  if 'label' in cond:
    shown['label'] = jnp.where(hidden, num_classes, shown['label'])
  if 'token_mask' in cond:
    shown['token_mask'] = shown['token_mask'] & ~hidden[..., None]
  if 'visual' in cond:
    shown['visual'] = jnp.where(hidden[..., None], 0.0, shown['visual'])
  return shown


def guides(cond: Cond) -> bool:
  """Whether conditions say what a video shows, not only how it is drawn."""
  return bool({'label', 'tokens', 'visual'} & cond.keys())


def with_nothing(cond: Cond | None, num_classes: int) -> dict[str, Array]:
  """Returns conditions [2 B, ...]: those given, then B times no condition.

  Raises:
    ValueError: if nothing is given to guide to.
  """
  if not cond or not guides(cond):
    raise ValueError(
      'classifier-free guidance needs something to guide to: give labels or '
      'prompts, if the model was trained with them, or a guidance_scale of 1.'
    )
  cond = {name: jnp.asarray(value) for name, value in cond.items()}
  every = jnp.ones(len(next(iter(cond.values()))), bool)
  nothing = hide(cond, every, num_classes)
  return {k: jnp.concatenate([v, nothing[k]]) for k, v in cond.items()}


def draw(
  key: Array,
  batch: Batch,
  *,
  schedule: Schedule,
  noise: NoisePrior,
  conditions: Sequence[str] = (),
  num_classes: int = 0,
  dropout: float = 0.0,
) -> Batch:
  """Returns a batch with logsnr [B] and eps [B, F, H, W, C].

  Of the conditions it keeps those in `conditions`, a share `dropout` hidden.
  With images [B, K, H, W, C] also 'image_eps', same shape, and their
  conditions.
  """

  def cond(key, prefix, lead):
    given = {name: batch[prefix + name] for name in conditions}
    shown = hide(given, jax.random.bernoulli(key, dropout, lead), num_classes)
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


_RANKS = {'label': 1, 'tokens': 3, 'token_mask': 2, 'visual': 2}


def of_video(cond: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the conditions of videos alone, [B, ...], of those `together`."""
  return {
    k: v[:, 0] if k in _RANKS and jnp.ndim(v) > _RANKS[k] else v
    for k, v in cond.items()
  }
