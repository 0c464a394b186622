"""CLIP ViT-B/32, image side: the feature network of CLIP-FID (Radford 2021).

It sees 224 x 224 with CLIP's own mean and spread taken off, and gives 512
numbers that are not normalised.
"""

from collections.abc import Mapping

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdm_jax.metrics.layers import Path, kernel, zeros

SIZE = 224
PATCH = 32
WIDTH = 768
HEADS = 12
LAYERS = 12
MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)


class CLIP(nn.Module):
  """Images to embeddings."""

  @nn.compact
  def __call__(self, image: Array) -> dict[str, Array]:
    """Maps [B, 224, 224, 3] in [-1, 1] to 'features' [B, 512].

    Raises:
      ValueError: for another shape.
    """
    if image.shape[1:] != (SIZE, SIZE, 3):
      raise ValueError(
        f'CLIP takes [B, {SIZE}, {SIZE}, 3]; it was given {image.shape}.'
      )
    mean, spread = (jnp.array([[[v]]]) for v in (MEAN, SPREAD))
    x = ((image + 1) / 2 - mean) / spread
    x = nn.Conv(
      WIDTH,
      (PATCH, PATCH),
      (PATCH, PATCH),
      use_bias=False,
      precision='highest',
      name='patches',
    )(x)
    x = einops.rearrange(x, 'b h w c -> b (h w) c')
    first = self.param('class', zeros, (WIDTH,))
    x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, WIDTH)), x], 1)
    x += self.param('position', zeros, x.shape[1:])[None]
    x = _norm('before')(x)
    for layer in range(LAYERS):
      x = _Layer(name=f'layer_{layer}')(x)
    x = _norm('after')(x[:, 0])
    return {'features': _dense(512, 'project', use_bias=False)(x)}


class _Layer(nn.Module):
  """Attention, then a perceptron, each added to what came in."""

  @nn.compact
  def __call__(self, x):
    y = _norm('norm_1')(x)
    query, key, value = (
      einops.rearrange(_dense(WIDTH, name)(y), 'b t (h d) -> b h t d', h=HEADS)
      for name in ('query', 'key', 'value')
    )
    product = jnp.einsum('bhtd,bhsd->bhts', query, key, precision='highest')
    share = jax.nn.softmax(product * query.shape[-1] ** -0.5)
    y = jnp.einsum('bhts,bhsd->bhtd', share, value, precision='highest')
    x += _dense(WIDTH, 'out')(einops.rearrange(y, 'b h t d -> b t (h d)'))
    y = _dense(4 * WIDTH, 'up')(_norm('norm_2')(x))
    y *= jax.nn.sigmoid(1.702 * y)  # the GELU of CLIP
    return x + _dense(WIDTH, 'down')(y)


def _norm(name):
  return nn.LayerNorm(epsilon=1e-5, name=name)


def _dense(features, name, use_bias=True):
  return nn.Dense(features, use_bias, precision='highest', name=name)


_HUGGINGFACE = {
  'class': 'embeddings.class_embedding',
  'position': 'embeddings.position_embedding.weight',
  'patches': 'embeddings.patch_embedding',
  'before': 'pre_layrnorm',  # sic
  'after': 'post_layernorm',
  'norm_1': 'layer_norm1',
  'norm_2': 'layer_norm2',
  'query': 'self_attn.q_proj',
  'key': 'self_attn.k_proj',
  'value': 'self_attn.v_proj',
  'out': 'self_attn.out_proj',
  'up': 'mlp.fc1',
  'down': 'mlp.fc2',
}
_OPENAI = {
  'class': 'class_embedding',
  'position': 'positional_embedding',
  'patches': 'conv1',
  'before': 'ln_pre',
  'after': 'ln_post',
  'norm_1': 'ln_1',
  'norm_2': 'ln_2',
  'query': 'attn.in_proj_',
  'key': 'attn.in_proj_',
  'value': 'attn.in_proj_',
  'out': 'attn.out_proj',
  'up': 'mlp.c_fc',
  'down': 'mlp.c_proj',
}


def lookup(weights: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
  """The weights at `path`, from any published form of them.

  Args:
    weights: arrays by name, of transformers ('vision_model.embeddings...') or
      of OpenAI's file ('visual.conv1.weight').
    path: of the parameter in `CLIP`.

  Raises:
    KeyError: names the weight that is missing.
  """
  openai = 'visual.conv1.weight' in weights
  if path[0] == 'project':  # x @ kernel in both
    if openai:
      return weights['visual.proj']
    return weights['visual_projection.weight'].T
  names = _OPENAI if openai else _HUGGINGFACE
  prefix = 'visual.' if openai else 'vision_model.'
  if path[0].startswith('layer_'):
    layers = 'transformer.resblocks' if openai else 'encoder.layers'
    prefix += f'{layers}.{path[0].removeprefix("layer_")}.'
    path = path[1:]
  name = prefix + names[path[0]]
  if len(path) == 1:
    return weights[name]
  leaf = 'bias' if path[1] == 'bias' else 'weight'
  if name.endswith('in_proj_'):  # query, key and value are stored as one
    part = ('query', 'key', 'value').index(path[0])
    value = np.split(weights[name + leaf], 3)[part]
  else:
    value = weights[f'{name}.{leaf}']
  return kernel(value) if path[1] == 'kernel' else value
