"""Weights of other libraries: their names, layouts and noise levels."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from tests.command_line import EIGHT, SHAPES, command, fails
from tests.test_paper_configs import config_of
from tests.test_videofusion import system as fused_system
from vdm_jax.job import build
from vdm_jax.networks.attention import SpatialAttention
from vdm_jax.networks.embeddings import position, sinusoid
from vdm_jax.networks.unet import UNet
from vdm_jax.training import foreign
from vdm_jax.training.foreign_names import name_map
from vdm_jax.training.transfer import transfer

NETWORK = UNet(
  width=16,
  multipliers=(1, 2),
  num_blocks=1,
  attention_resolutions=(4,),
  head_dim=8,
  temporal=False,
  embedding_dim=64,
  embedding_layers=2,
  noise_level='linear',
  resample='block',
)


def shapes_of(network, side=8):
  z = jnp.zeros((1, 1, side, side, 3))
  key = jax.random.key(0)
  return jax.eval_shape(network.init, key, z, jnp.zeros(1))['params']


def adm(width=16, channels=(16, 32), blocks=1, attention=(1,), out=6):
  """Names and shapes of ADM, gone through in the order of its forward pass."""
  arrays = {}

  def layer(name, *shape):
    arrays[f'{name}.weight'] = shape
    arrays[f'{name}.bias'] = shape[:1]

  def block(name, before, after):
    layer(f'{name}.in_layers.0', before)
    layer(f'{name}.in_layers.2', after, before, 3, 3)
    layer(f'{name}.emb_layers.1', 2 * after, 4 * width)
    layer(f'{name}.out_layers.0', after)
    layer(f'{name}.out_layers.3', after, after, 3, 3)
    if before != after:
      layer(f'{name}.skip_connection', after, before, 1, 1)

  def attend(name, size):
    layer(f'{name}.norm', size)
    layer(f'{name}.qkv', 3 * size, size, 1)
    layer(f'{name}.proj_out', size, size, 1)

  layer('time_embed.0', 4 * width, width)
  layer('time_embed.2', 4 * width, 4 * width)
  layer('input_blocks.0.0', width, 3, 3, 3)
  count, size, skips = 1, width, [width]
  for level, after in enumerate(channels):
    for _ in range(blocks):
      block(f'input_blocks.{count}.0', size, after)
      if level in attention:
        attend(f'input_blocks.{count}.1', after)
      count, size = count + 1, after
      skips.append(size)
    if level + 1 < len(channels):
      block(f'input_blocks.{count}.0', size, size)
      count += 1
      skips.append(size)
  block('middle_block.0', size, size)
  attend('middle_block.1', size)
  block('middle_block.2', size, size)
  count = 0
  for level, after in reversed(list(enumerate(channels))):
    for i in range(blocks + 1):
      block(f'output_blocks.{count}.0', size + skips.pop(), after)
      size, part = after, 1
      if level in attention:
        attend(f'output_blocks.{count}.1', size)
        part = 2
      if level and i == blocks:
        block(f'output_blocks.{count}.{part}', size, size)
      count += 1
  layer('out.0', size)
  layer('out.2', out, width, 3, 3)
  rng = np.random.default_rng(0)
  return {k: rng.normal(size=s).astype('f4') for k, s in arrays.items()}


@pytest.mark.parametrize('blocks', [1, 2])
def test_every_array_of_adm_has_its_place(tmp_path, blocks):
  """All of theirs are used, all of ours are given, in our shapes."""
  save_file(adm(blocks=blocks), tmp_path / 'model.safetensors')
  network = NETWORK.clone(num_blocks=blocks)
  own = shapes_of(network)
  given = foreign.read(tmp_path / 'model.safetensors', own, network)
  taken, report = transfer(own, {'': given})
  count = len(jax.tree.leaves(own))
  assert report.startswith(f'all: {count} of {count} arrays (')
  assert report.endswith('taken.')  # nothing fresh, nothing left out
  # Blocks of the same shape are not mixed up: one path checked by hand.
  theirs = adm(blocks=blocks)
  middle = taken['mid_1']['block']['conv_2']['kernel']
  expected = theirs['middle_block.2.out_layers.3.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(middle, expected)
  doubled = taken['up_1']['conv_1']['kernel']
  name = f'output_blocks.{blocks}.2.in_layers.2.weight'
  np.testing.assert_array_equal(doubled, theirs[name].transpose(2, 3, 1, 0))
  means = theirs['out.2.weight'][:3].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(taken['out']['kernel'], means)


def test_heads_that_lie_one_by_one_attend_the_same(tmp_path):
  """ADM's rows are q, k, v of the first head, then of the next."""
  rng = np.random.default_rng(1)
  theirs = adm()
  save_file(theirs, tmp_path / 'model.safetensors')
  given = foreign.read(
    tmp_path / 'model.safetensors', shapes_of(NETWORK), NETWORK
  )
  x = rng.normal(size=(1, 1, 2, 2, 32)).astype('f4')
  params = given['mid_0']['spatial']
  ours = SpatialAttention(8).apply(
    {'params': jax.tree.map(jnp.asarray, params)}, jnp.asarray(x)
  )
  groups = x.reshape(4, 8, 4)  # pixels, groups of 4 channels
  mean = groups.mean((0, 2), keepdims=True)
  normed = (groups - mean) / np.sqrt(groups.var((0, 2), keepdims=True) + 1e-6)
  name = 'middle_block.1'
  h = normed.reshape(4, 32) * theirs[f'{name}.norm.weight']
  h += theirs[f'{name}.norm.bias']
  qkv = h @ theirs[f'{name}.qkv.weight'][..., 0].T + theirs[f'{name}.qkv.bias']
  found = []
  for head in range(4):
    q, k, v = (qkv[:, 24 * head + 8 * i :][:, :8] for i in range(3))
    logits = q @ k.T / 8**0.5
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    found.append(weight / weight.sum(-1, keepdims=True) @ v)
  out = np.concatenate(found, 1) @ theirs[f'{name}.proj_out.weight'][..., 0].T
  out += theirs[f'{name}.proj_out.bias']
  np.testing.assert_allclose(
    ours[0, 0].reshape(4, 32), x.reshape(4, 32) + out, rtol=1e-3, atol=1e-4
  )


def test_the_noise_level_is_told_as_it_was_there(tmp_path):
  theirs = adm()
  save_file(theirs, tmp_path / 'model.safetensors')
  given = foreign.read(
    tmp_path / 'model.safetensors', shapes_of(NETWORK), NETWORK
  )
  step = 321.0
  angle = step * np.exp(-np.log(1e4) * np.arange(8) / 8)
  told = np.concatenate([np.cos(angle), np.sin(angle)])
  expected = theirs['time_embed.0.weight'] @ told
  kernel = given['embedding']['noise_level']['kernel']
  ours = sinusoid(jnp.array([step]), 16) @ kernel
  np.testing.assert_allclose(ours[0], expected, rtol=1e-3, atol=1e-4)


def test_places_are_the_steps_of_the_discrete_schedules():
  """The share of signal after t + 1 factors, multiplied out one by one."""
  for name, beta in (
    ('linear', lambda t: 1e-4 + (0.02 - 1e-4) * t / 999),
    (
      'cosine',
      lambda t: min(
        0.999,
        1
        - np.cos(((t + 1) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        / np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2,
      ),
    ),
  ):
    kept, logsnr = 1.0, []
    for t in range(1000):
      kept *= 1 - beta(t)
      logsnr.append(np.log(kept / (1 - kept)))
    place = position(jnp.array(logsnr, 'f4'), name)
    np.testing.assert_allclose(place, np.arange(1000), atol=0.02)
    ends = position(jnp.array([30.0, -30.0]), name)
    np.testing.assert_array_equal(ends, [0, 999])


def test_a_map_of_ones_own(tmp_path):
  """Other names, queries, keys and values apart, sines before cosines."""
  own = shapes_of(NETWORK)
  rng = np.random.default_rng(2)
  flat = traverse_util.flatten_dict(own, sep='/')
  values = {k: rng.normal(size=v.shape).astype('f4') for k, v in flat.items()}
  modules, arrays = {}, {}
  for key, value in values.items():
    module, kind = key.rsplit('/', 1)
    name = module.replace('/', '_')
    leaf = 'bias' if kind == 'bias' else 'weight'
    theirs = value
    if kind == 'kernel':
      theirs = np.moveaxis(value, (-1, -2), (0, 1))
    if module.endswith('qkv'):
      modules[module] = [f'{name}_{letter}' for letter in 'qkv']
      for one, part in zip(modules[module], np.split(theirs, 3), strict=True):
        arrays[f'{one}.{leaf}'] = part.copy()
    else:
      modules[module] = name
      arrays[f'{name}.{leaf}'] = np.ascontiguousarray(theirs)
  path = tmp_path / 'theirs.safetensors'
  save_file(arrays, path)
  beside = tmp_path / 'theirs.names.json'
  beside.write_text(json.dumps({'modules': modules}))
  given = traverse_util.flatten_dict(foreign.read(path, own, NETWORK), sep='/')
  assert given.keys() == values.keys()
  for key, value in values.items():
    np.testing.assert_array_equal(given[key], value)
  beside.write_text(json.dumps({'modules': {**modules, 'inn': 'in'}}))
  with pytest.raises(ValueError, match='names inn, which the network lacks'):
    foreign.read(path, own, NETWORK)
  for text in ('{', '[]', '{"modules": 3}', '{"module": {}}'):
    beside.write_text(text)
    with pytest.raises(ValueError, match='is no map of names'):
      foreign.read(path, own, NETWORK)


def test_what_cannot_be_started_from_is_refused(tmp_path):
  own, path = shapes_of(NETWORK), tmp_path / 'model.safetensors'
  save_file({'foo.weight': np.zeros(3, 'f4')}, path)
  with pytest.raises(ValueError, match='neither diffusers nor ADM.*foo.weight'):
    foreign.read(path, own, NETWORK)
  save_file(adm(), path)
  with pytest.raises(ValueError, match="set noise_level='linear' or 'cosine'"):
    foreign.read(path, own, NETWORK.clone(noise_level='logsnr'))
  wide = NETWORK.clone(width=32)
  given = foreign.read(path, shapes_of(wide), wide)
  with pytest.raises(ValueError, match=r'down_0/conv_1/bias is \(16,\), not'):
    transfer(shapes_of(wide), {'': given})
  broken = adm()
  broken['out.0.weight'][0] = np.nan
  save_file(broken, path)
  with pytest.raises(ValueError, match='out.0.weight that are not finite'):
    foreign.read(path, own, NETWORK)
  with pytest.raises(ValueError, match='only a U-Net can start from'):
    foreign.start(path, {}, fused_system(), 'prior')


DIFFUSERS = {
  'sample_size': 16,
  'block_out_channels': (128, 256),
  'layers_per_block': 1,
  'attention_head_dim': 64,
  'attn_norm_num_groups': 32,
  'norm_eps': 1e-6,
  'resnet_time_scale_shift': 'scale_shift',
}


@pytest.mark.slow
@pytest.mark.parametrize('resample', ['conv', 'block'])
@pytest.mark.parametrize('noise_level', ['linear', 'cosine'])
def test_a_network_of_diffusers_gives_the_same_here(
  tmp_path, resample, noise_level
):
  diffusers = pytest.importorskip('diffusers')
  torch = pytest.importorskip('torch')
  torch.manual_seed(0)
  kind, down, up = {
    'conv': ('conv', 'DownBlock2D', 'UpBlock2D'),
    'block': ('resnet', 'ResnetDownsampleBlock2D', 'ResnetUpsampleBlock2D'),
  }[resample]
  theirs = diffusers.UNet2DModel(
    **DIFFUSERS,
    down_block_types=(down, 'AttnDownBlock2D'),
    up_block_types=('AttnUpBlock2D', up),
    downsample_type=kind,
    upsample_type=kind,
  ).eval()
  theirs.save_pretrained(tmp_path)
  network = NETWORK.clone(
    width=128,
    attention_resolutions=(8,),
    head_dim=64,
    embedding_dim=512,
    noise_level=noise_level,
    resample=resample,
  )
  own = shapes_of(network, 16)
  path = tmp_path / 'diffusion_pytorch_model.safetensors'
  params, report = transfer(own, {'': foreign.read(path, own, network)})
  assert report.endswith('taken.'), report
  x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype('f4')
  step = np.array([7, 812])
  schedule = {'linear': 'linear', 'cosine': 'squaredcos_cap_v2'}[noise_level]
  steps = diffusers.DDPMScheduler(beta_schedule=schedule)
  kept = steps.alphas_cumprod.numpy()[step]
  with torch.no_grad():
    expected = theirs(torch.tensor(x), torch.tensor(step)).sample.numpy()
  logsnr = jnp.asarray(np.log(kept / (1 - kept)))
  found = jax.jit(network.apply)(
    {'params': params}, x.transpose(0, 2, 3, 1)[:, None], logsnr
  )
  scale = np.abs(expected).max()
  error = np.abs(found[:, 0].transpose(0, 3, 1, 2) - expected).max() / scale
  print(f'{resample}, {noise_level}: largest difference {error:.1e} of {scale}')
  assert error < 1e-4  # float32, and steps found again by interpolation


@pytest.mark.slow
def test_a_job_starts_its_base_generator_from_a_file(tmp_path, capsys):
  """From the command line, where the noise level has to be named too."""
  parts = build(config_of('moving_shapes:videofusion', 'smoke').to_dict())
  base = jax.eval_shape(
    lambda key: parts.system.init(key, parts.video_shape), jax.random.key(0)
  )['base']
  own = traverse_util.flatten_dict(base, sep='/')
  modules = {key.rpartition('/')[0] for key in own}
  known = name_map('adm', modules).modules
  arrays, rng = {}, np.random.default_rng(0)
  for key, leaf in own.items():
    module, _, kind = key.rpartition('/')
    if module in known:
      shape = (*leaf.shape[::-1][:2], *leaf.shape[:-2])
      shape = shape if kind == 'kernel' else leaf.shape
      name = f'{known[module][0]}.{"bias" if kind == "bias" else "weight"}'
      arrays[name] = 0.1 * rng.normal(size=shape).astype('f4')
  path = tmp_path / 'model.safetensors'
  save_file(arrays, path)
  variant = SHAPES.replace(':smoke', ':videofusion,smoke')
  arguments = variant, f'--config.init.base={path}', *EIGHT
  message = fails(capsys, tmp_path / 'run', *arguments)
  assert "set noise_level='linear' or 'cosine'" in message
  assert not (tmp_path / 'run' / 'config.json').exists()
  level = '--config.network.base.noise_level=cosine'
  command(tmp_path / 'run', *arguments, level)
  said = capsys.readouterr().out
  assert f'base: {len(arrays)} of {len(own)} arrays (' in said
  assert 'left out' not in said
  fresh = {key for key in own if key.rpartition('/')[0] not in known}
  assert all('visual' in key for key in fresh)
