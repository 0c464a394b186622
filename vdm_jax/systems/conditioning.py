"""What networks are told of a video: names, absence, and images beside it.

Names and shapes are those of `Cond`.  "No condition", which networks learn too,
is the class `num_classes`, a caption without tokens, or an embedding of zeros.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from vdm_jax.systems.protocol import Cond

_RANKS = {
  'label': 1,
  'tokens': 3,
  'token_mask': 2,
  'clip_tokens': 3,
  'clip_token_mask': 2,
  'visual': 2,
}
_SAY_WHAT_IS_SHOWN = {'label', 'tokens', 'clip_tokens', 'visual'}


def most(networks: Sequence[Any], name: str) -> int:
  """Returns the largest of an attribute of networks, 0 where they lack it."""
  return max((getattr(network, name, 0) for network in networks), default=0)


def names(networks: Sequence[Any]) -> list[str]:
  """Returns the names of what networks are conditioned on."""
  found = ['label'] if most(networks, 'num_classes') else []
  found += ['tokens', 'token_mask'] if most(networks, 'text_dim') else []
  if most(networks, 'clip_text_dim'):
    found += ['clip_tokens', 'clip_token_mask']
  return [*found, 'visual'] if most(networks, 'visual_dim') else found


def hide(
  cond: Cond,
  hidden: Array,
  num_classes: int,
  clip_hidden: Array | None = None,
) -> dict[str, Array]:
  """Returns conditions, none where `hidden` [B] or [B, K] is True.

  Where the tokens of the second text encoder are hidden, `clip_hidden` says
  instead, if it is given.
  """
  if clip_hidden is None:
    clip_hidden = hidden
  shown = {name: jnp.asarray(value) for name, value in cond.items()}
  if 'label' in cond:
    shown['label'] = jnp.where(hidden, num_classes, shown['label'])
  if 'token_mask' in cond:
    shown['token_mask'] = shown['token_mask'] & ~hidden[..., None]
  if 'clip_token_mask' in cond:
    clip_mask = shown['clip_token_mask']
    shown['clip_token_mask'] = clip_mask & ~clip_hidden[..., None]
  if 'visual' in cond:
    shown['visual'] = jnp.where(hidden[..., None], 0.0, shown['visual'])
  return shown


def with_nothing(cond: Cond | None, num_classes: int) -> dict[str, Array]:
  """Returns conditions [2 B, ...]: those given, then B times no condition.

  Raises:
    ValueError: if nothing is given to guide to; how a video is drawn, e.g. its
      noise, does not say what it shows.
  """
  if not cond or not _SAY_WHAT_IS_SHOWN & cond.keys():
    raise ValueError(
      'classifier-free guidance needs something to guide to: give labels, '
      'prompts or images, if the model was trained with them, or a '
      'guidance_scale of 1.'
    )
  # A scalar is of no video of its own: the place of a part of a longer one.
  cond = {k: jnp.asarray(v) for k, v in cond.items() if jnp.ndim(v)}
  every = jnp.ones(len(next(iter(cond.values()))), bool)
  nothing = hide(cond, every, num_classes)
  return {k: jnp.concatenate([v, nothing[k]]) for k, v in cond.items()}


def of_video(cond: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the videos' own, [B, ...], of conditions [B, 1 + K, ...]."""
  return {
    k: v[:, 0] if k in _RANKS and jnp.ndim(v) > _RANKS[k] else v
    for k, v in cond.items()
  }
