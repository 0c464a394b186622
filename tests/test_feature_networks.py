"""Feature networks give what independent implementations give.

The default tests compare with outputs that `reference_networks` stored; the
slow ones run those networks beside ours.  Weights are random and the same.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from tests import random_weights
from vdm_jax.metrics import c3d, clip, i3d, inception_v3, weights

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@dataclasses.dataclass
class Case:
  network: Any
  lookup: Any
  shape: tuple[int, ...]


CASES = {
  'i3d': Case(i3d.I3D(), i3d.lookup, (1, 9, 224, 224, 3)),
  'c3d': Case(c3d.C3D(), c3d.lookup, (1, 16, 112, 112, 3)),
  'inception_v3': Case(
    inception_v3.InceptionV3(), inception_v3.lookup, (2, 299, 299, 3)
  ),
  'clip': Case(clip.CLIP(), clip.lookup, (2, 224, 224, 3)),
}


def published(name, shapes):
  """Weights under the names of the published file."""
  arrays = random_weights.fill(shapes)
  if name == 'c3d':  # Chainer's names
    arrays = {
      key.replace('.weight', '/W').replace('.bias', '/b'): value
      for key, value in arrays.items()
    }
    arrays['mean'] = random_weights.sports_mean()
  return arrays


def params_of(name, arrays):
  case = CASES[name]
  like = weights.shapes_of(case.network, case.shape)
  return weights.fill(like, arrays, case.lookup)


def example(shape):
  pixels = np.random.default_rng(1).integers(0, 256, shape)
  return (pixels / 127.5 - 1).astype(np.float32)


def difference(ours, theirs):
  """Largest difference, as a share of the largest value."""
  assert ours.shape == theirs.shape
  return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture
def golden(request):
  with np.load(GOLDEN / f'{request.param}.npz', allow_pickle=False) as file:
    arrays = dict(file)
  return request.param, json.loads(str(arrays.pop('shapes'))), arrays


@pytest.mark.parametrize('golden', CASES, indirect=True)
def test_outputs_are_those_of_an_independent_network(golden):
  name, shapes, expected = golden
  params = params_of(name, published(name, shapes))
  ours = jax.jit(CASES[name].network.apply)(
    {'params': params}, example(CASES[name].shape)
  )
  for key, theirs in expected.items():
    # float32 through fifty layers; measured 1e-6 and less.
    assert difference(ours[key], theirs) < 1e-5, key


@pytest.mark.parametrize('golden', ['i3d'], indirect=True)
def test_every_form_of_i3d_weights_is_the_same_network(golden):
  name, shapes, _ = golden
  torch_form = published(name, shapes)
  norms = [k.removesuffix('.bn.bias') for k in torch_form if 'bn.bias' in k]
  for norm in norms:  # the original has no gain
    torch_form[f'{norm}.bn.weight'] = np.ones_like(
      torch_form[f'{norm}.bn.bias']
    )
  branch = {
    'b0': 'Branch_0/Conv3d_0a_1x1',
    'b1a': 'Branch_1/Conv3d_0a_1x1',
    'b1b': 'Branch_1/Conv3d_0b_3x3',
    'b2a': 'Branch_2/Conv3d_0a_1x1',
    'b2b': 'Branch_2/Conv3d_0b_3x3',
    'b3b': 'Branch_3/Conv3d_0b_1x1',
  }
  tensorflow, flax = {}, {}
  for norm in norms:
    block, _, conv = norm.partition('.')
    full = f'{block}/{branch[conv]}' if conv else block
    dotted = full.replace('/Conv3d', '.Conv3d')
    if norm == 'Mixed_5b.b2b':
      full = 'Mixed_5b/Branch_2/Conv3d_0a_3x3'
    kernel = torch_form[f'{norm}.conv3d.weight'].transpose(2, 3, 4, 1, 0)
    tensorflow[f'RGB/inception_i3d/{full}/conv_3d/w'] = kernel
    flax[f'params/{dotted}/conv_3d/kernel'] = kernel
    for theirs, key in (
      ('beta', 'bias'),
      ('moving_mean', 'running_mean'),
      ('moving_variance', 'running_var'),
    ):
      value = torch_form[f'{norm}.bn.{key}']
      stored = value.reshape(1, 1, 1, 1, -1)
      tensorflow[f'RGB/inception_i3d/{full}/batch_norm/{theirs}'] = stored
      flax[f'params/{dotted}/batch_norm/{theirs}'] = value
  kernel = torch_form['logits.conv3d.weight'].transpose(2, 3, 4, 1, 0)
  bias = torch_form['logits.conv3d.bias']
  root = 'RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d'
  tensorflow |= {f'{root}/w': kernel, f'{root}/b': bias}
  root = 'params/Logits.Conv3d_0c_1x1/conv_3d'
  flax |= {f'{root}/kernel': kernel, f'{root}/bias': bias}
  assert len(tensorflow) == 230  # variables of the published module
  expected = params_of(name, torch_form)
  jax.tree.map(
    np.testing.assert_array_equal, params_of(name, tensorflow), expected
  )
  jax.tree.map(np.testing.assert_array_equal, params_of(name, flax), expected)


@pytest.mark.parametrize('golden', ['c3d'], indirect=True)
def test_the_flax_form_of_c3d_is_the_same_network(golden):
  name, shapes, _ = golden
  chainer = published(name, shapes)
  flax = {}
  for key, value in chainer.items():
    layer, _, part = key.partition('/')
    if part == 'b':
      flax[f'params/{layer}/bias'] = value
    elif part == 'W':
      axes = (2, 3, 4, 1, 0) if value.ndim == 5 else (1, 0)
      flax[f'params/{layer}/kernel'] = value.transpose(axes)
  mean = chainer['mean'][0, :, :, 8:120, 8:120].transpose(1, 2, 3, 0)
  flax['params/x_offset'] = -mean
  ours, expected = params_of(name, flax), params_of(name, chainer)
  jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize('golden', ['clip'], indirect=True)
def test_every_form_of_clip_weights_is_the_same_network(golden):
  name, shapes, _ = golden
  huggingface = published(name, shapes)
  openai = {}
  for layer in range(12):
    theirs = f'vision_model.encoder.layers.{layer}.'
    ours = f'visual.transformer.resblocks.{layer}.'
    for part in ('weight', 'bias'):
      openai[f'{ours}attn.in_proj_{part}'] = np.concatenate(
        [huggingface[f'{theirs}self_attn.{n}_proj.{part}'] for n in 'qkv']
      )
      for a, b in (
        ('attn.out_proj', 'self_attn.out_proj'),
        ('ln_1', 'layer_norm1'),
        ('ln_2', 'layer_norm2'),
        ('mlp.c_fc', 'mlp.fc1'),
        ('mlp.c_proj', 'mlp.fc2'),
      ):
        openai[f'{ours}{a}.{part}'] = huggingface[f'{theirs}{b}.{part}']
  root = 'vision_model.'
  for part in ('weight', 'bias'):
    for a, b in (('ln_pre', 'pre_layrnorm'), ('ln_post', 'post_layernorm')):
      openai[f'visual.{a}.{part}'] = huggingface[f'{root}{b}.{part}']
  for a, b in (
    ('class_embedding', 'class_embedding'),
    ('positional_embedding', 'position_embedding.weight'),
    ('conv1.weight', 'patch_embedding.weight'),
  ):
    openai[f'visual.{a}'] = huggingface[f'{root}embeddings.{b}']
  openai['visual.proj'] = huggingface['visual_projection.weight'].T
  ours, expected = params_of(name, openai), params_of(name, huggingface)
  jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_i3d_refuses_videos_that_its_last_pool_cannot_cover():
  with pytest.raises(ValueError, match='F >= 9'):
    weights.shapes_of(i3d.I3D(), (1, 8, 224, 224, 3))


@pytest.mark.slow
@pytest.mark.parametrize('frames', [9, 11, 15, 16, 17, 32])
@pytest.mark.parametrize('eps', [1e-3, 1e-5])
def test_i3d_pads_any_number_of_frames_as_tensorflow(frames, eps):
  torch = pytest.importorskip('torch')
  pytest.importorskip('cdfvd')
  from tests import reference_networks

  network, _ = reference_networks.i3d(eps)
  arrays = random_weights.fill(reference_networks.shapes_of(network))
  reference_networks.load(network, arrays)
  video = example((1, frames, 224, 224, 3))
  with torch.no_grad():
    # Its own output keeps a frame for each place of the last pool.
    theirs = network(torch.tensor(video.transpose(0, 4, 1, 2, 3))).numpy()
  params = params_of('i3d', arrays)
  ours = jax.jit(i3d.I3D(eps=eps).apply)({'params': params}, video)
  gap = difference(ours['logits'], theirs.reshape(1, 400, -1).mean(-1))
  print(f'| i3d, {frames} frames, eps {eps:g}, cd-fvd | {gap:.1e} |')
  assert gap < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_networks_beside_pytorch(name):
  torch = pytest.importorskip('torch')
  from tests import reference_networks  # before anything of torchvision

  for package in ('cdfvd', 'torch_fidelity', 'transformers'):
    pytest.importorskip(package)

  build, shape = reference_networks.REFERENCES[name]
  network, run = build()
  shapes = reference_networks.shapes_of(network)
  arrays = random_weights.fill(shapes)
  reference_networks.load(network, arrays)
  with torch.no_grad():
    theirs = {k: v.numpy() for k, v in run(example(shape)).items()}
  params = params_of(name, published(name, shapes))
  ours = jax.jit(CASES[name].network.apply)({'params': params}, example(shape))
  for key, value in theirs.items():
    gap = difference(ours[key], value)
    print(f'| {name}, {key}, {reference_networks.SOURCES[name]} | {gap:.1e} |')
    assert gap < 1e-5
