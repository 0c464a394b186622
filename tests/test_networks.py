"""Laws of the networks: sizes, isolation of images, attention by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm_jax.networks import blocks
from vdm_jax.networks.attention import TemporalAttention
from vdm_jax.networks.efficient import EfficientUNet
from vdm_jax.networks.embeddings import ConditionEmbedding
from vdm_jax.networks.normalization import GroupNorm, num_groups
from vdm_jax.networks.unet import UNet

TINY = UNet(
  width=8,
  multipliers=(1, 2),
  num_blocks=1,
  attention_resolutions=(4,),
  head_dim=8,
  embedding_dim=16,
  embedding_layers=2,
)


def num_parameters(network, size=64, **conditions):
  abstract = jax.eval_shape(
    lambda key: network.init(
      key, jnp.zeros((1, 2, size, size, 3)), jnp.zeros(1), **conditions
    ),
    jax.random.key(0),
  )
  return sum(leaf.size for leaf in jax.tree.leaves(abstract))


def random_variables(network, *inputs, key=0, scale=0.3, **conditions):
  """Fills every parameter with noise: layers that start at zero hide bugs."""
  init = functools.partial(network.init, **conditions)
  abstract = jax.eval_shape(init, jax.random.key(0), *inputs)
  rng = np.random.default_rng(key)
  return jax.tree.map(
    lambda a: jnp.asarray(
      rng.normal((a.ndim == 1) * 0.5, scale, a.shape), jnp.float32
    ),
    abstract,
  )


@functools.cache
def tiny_variables(network=TINY):
  return random_variables(network, jnp.zeros((1, 2, 8, 8, 3)), jnp.zeros(1))


@pytest.mark.slow
def test_parameters_are_float32_and_bfloat16_changes_little():
  half = TINY.clone(dtype=jnp.bfloat16)
  z = jax.random.normal(jax.random.key(1), (1, 2, 8, 8, 3))
  abstract = jax.eval_shape(half.init, jax.random.key(0), z, jnp.zeros(1))
  assert {leaf.dtype for leaf in jax.tree.leaves(abstract)} == {
    jnp.dtype(jnp.float32)
  }
  full = jax.jit(TINY.apply)(tiny_variables(), z, jnp.zeros(1))
  close = jax.jit(half.apply)(tiny_variables(), z, jnp.zeros(1))
  assert close.dtype == jnp.float32
  # bfloat16 keeps 8 bits; some thirty layers in a row lose a few of them.
  error = jnp.linalg.norm(close - full) / jnp.linalg.norm(full)
  assert 0 < error < 0.05


def test_a_fresh_network_outputs_zero():
  z = jax.random.normal(jax.random.key(1), (1, 2, 8, 8, 3))
  key = jax.random.key(0)
  output, _ = jax.jit(TINY.init_with_output)(key, z, jnp.zeros(1))
  np.testing.assert_array_equal(output, 0)


def test_a_fresh_stage_is_the_identity():
  """The last layers of the block and of all its attention start at zero."""
  x = jax.random.normal(jax.random.key(1), (1, 2, 4, 4, 8))
  tokens, mask = jnp.ones((1, 1, 3, 16)), jnp.ones((1, 1, 3), bool)
  conditions = jnp.ones((1, 1, 16)), tokens, mask
  stage = blocks.Stage(8, head_dim=8, attention=True)
  y, variables = jax.jit(stage.init_with_output)(
    jax.random.key(0), x, *conditions
  )
  assert {'block', 'spatial', 'cross', 'temporal'} == set(variables['params'])
  np.testing.assert_array_equal(y, x)


def test_images_are_isolated_to_the_last_bit():
  """Perturbing one of the appended images moves no other frame at all."""
  z = jax.random.normal(jax.random.key(1), (2, 6, 8, 8, 3))
  run = jax.jit(functools.partial(TINY.apply, num_images=3))
  before = run(tiny_variables(), z, jnp.zeros(2))
  after = run(tiny_variables(), z.at[0, 4].add(1.0), jnp.zeros(2))
  moved = np.abs(np.asarray(after - before)).max((2, 3, 4))
  assert moved[0, 4] > 1e-3
  moved[0, 4] = 0
  np.testing.assert_array_equal(moved, 0)
  # Frames of the video do see each other.
  after = run(tiny_variables(), z.at[0, 1].add(1.0), jnp.zeros(2))
  moved = np.abs(np.asarray(after - before)).max((2, 3, 4))
  assert np.all(moved[0, :3] > 1e-4)
  np.testing.assert_array_equal(moved[0, 3:], 0)
  np.testing.assert_array_equal(moved[1], 0)


def test_an_appended_image_is_seen_as_a_video_of_one_frame():
  z = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 3))
  together = jax.jit(functools.partial(TINY.apply, num_images=2))(
    tiny_variables(), z, jnp.zeros(2)
  )
  alone = jax.jit(TINY.apply)(tiny_variables(), z[:, 3:], jnp.zeros(2))
  np.testing.assert_allclose(together[:, 3:], alone, atol=2e-4)


def test_without_temporal_attention_frames_are_images():
  network = TINY.clone(temporal=False)
  variables = tiny_variables(network)
  z = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 3))
  video = jax.jit(network.apply)(variables, z, jnp.zeros(2))
  images = jax.jit(network.apply)(
    variables, z.reshape(6, 1, 8, 8, 3), jnp.zeros(6)
  )
  np.testing.assert_allclose(
    video.reshape(images.shape), images, rtol=1e-4, atol=1e-4
  )


def test_time_alone_is_attended_to_where_it_is_asked_for():
  network = TINY.clone(attention_resolutions=(), temporal_resolutions=(8,))
  abstract = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 2, 8, 8, 3)), jnp.zeros(1)
  )
  kinds = {
    name: {'spatial', 'temporal'} & parts.keys()
    for name, parts in abstract['params'].items()
    if 'block' in parts
  }
  over_time = {'temporal'}
  assert kinds == {
    **dict.fromkeys(('down_0_0', 'up_0_0', 'up_0_1'), over_time),
    **{key: set() for key in ('down_1_0', 'up_1_0', 'up_1_1', 'mid_1')},
    'mid_0': {'spatial', 'temporal'},
  }


def test_temporal_attention_knows_order_but_no_absolute_time():
  layer = TemporalAttention(head_dim=4)
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 2, 8))
  variables = random_variables(layer, x, scale=1.0)
  out = layer.apply(variables, x)
  # Order matters: attention without positions would commute with a reversal.
  reversed_out = layer.apply(variables, x[:, ::-1])[:, ::-1]
  assert np.abs(np.asarray(out - reversed_out)).max() > 1e-2
  # A still video has the same keys everywhere: every frame sees the same.
  still = jnp.repeat(x[:, :1], 3, axis=1)
  first, *others = np.moveaxis(np.asarray(layer.apply(variables, still)), 1, 0)
  for other in others:
    np.testing.assert_allclose(other, first, atol=1e-5)


@pytest.mark.slow
def test_remat_changes_memory_not_values():
  """Nor the masks of dropout, which are drawn once more."""
  z = jax.random.normal(jax.random.key(1), (1, 2, 8, 8, 3))
  rngs = {'dropout': jax.random.key(2)}

  def gradient(**options):
    network = TINY.clone(dropout=0.3, **options)

    def loss(variables):
      out = network.apply(variables, z, jnp.zeros(1), train=True, rngs=rngs)
      return jnp.square(out).sum()

    return jax.jit(jax.grad(loss))(tiny_variables())

  plain, remat = gradient(), gradient(remat=True)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-2),
    plain,
    remat,
  )
  program = jax.make_jaxpr(
    lambda v: TINY.clone(remat=True).apply(v, z, jnp.zeros(1))
  )(tiny_variables())
  names = [equation.primitive.name for equation in program.jaxpr.eqns]
  assert len([name for name in names if 'remat' in name]) == 8  # stages


def test_dropout_is_on_in_training_only():
  plain = TINY.clone(multipliers=(1,), attention_resolutions=())
  network, variables = plain.clone(dropout=0.5), tiny_variables(plain)
  z = jax.random.normal(jax.random.key(1), (1, 2, 8, 8, 3))
  plain = jax.jit(plain.apply)(variables, z, jnp.zeros(1))
  off = jax.jit(network.apply)(variables, z, jnp.zeros(1))
  np.testing.assert_array_equal(off, plain)
  on = jax.jit(functools.partial(network.apply, train=True))
  first, second = (
    on(variables, z, jnp.zeros(1), rngs={'dropout': jax.random.key(k)})
    for k in (0, 1)
  )
  assert np.abs(np.asarray(first - second)).max() > 1e-2


@pytest.mark.parametrize('network', [UNet, EfficientUNet])
@pytest.mark.parametrize('rate', [-0.1, 1.0])
def test_a_rate_that_leaves_nothing_is_refused(network, rate):
  with pytest.raises(ValueError, match='is not allowed; give 0 or more'):
    network(dropout=rate).check(64, 64)


def test_conditions_reach_the_output():
  """Labels, vectors for the video or for one frame, and tokens."""
  network = TINY.clone(classes=(3,), text_dim=6, text='cross')
  z = jax.random.normal(jax.random.key(1), (2, 2, 8, 8, 3))
  inputs = {
    'label': jnp.array([0, 1]),
    'cond': jnp.ones((2, 2, 5)),
    'tokens': jax.random.normal(jax.random.key(2), (2, 4, 6)),
    'token_mask': jnp.array([[True, True, True, False]] * 2),
  }
  variables = random_variables(network, z, jnp.zeros(2), **inputs)
  run = jax.jit(network.apply)

  def change(**changes):
    out = run(variables, z, jnp.zeros(2), **(inputs | changes))
    return np.abs(np.asarray(out - base)).max((2, 3, 4))

  base = run(variables, z, jnp.zeros(2), **inputs)
  by_label = change(label=jnp.array([0, 2]))
  assert by_label[1].min() > 1e-3
  np.testing.assert_array_equal(by_label[0], 0)
  by_frame = change(cond=inputs['cond'].at[0, 1].set(0.0))
  assert by_frame[0, 1] > by_frame[0, 0]
  by_token = change(tokens=inputs['tokens'].at[1, 0].multiply(-1))
  assert by_token[1].min() > 1e-4
  np.testing.assert_array_equal(by_token[0], 0)
  hidden = change(tokens=inputs['tokens'].at[:, 3].multiply(-1))
  np.testing.assert_array_equal(hidden, 0)
  by_noise = run(variables, z, jnp.ones(2), **inputs) - base
  assert np.abs(np.asarray(by_noise)).max((1, 2, 3, 4)).min() > 1e-3


def test_attributes_of_a_class_add_up():
  """A class is a shape and a colour; each has one vector for all classes."""
  embedding = ConditionEmbedding(8, 1, 4, classes=(3, 4))
  label = jnp.arange(13)  # the last is the null class
  variables = embedding.init(jax.random.key(0), jnp.zeros(13), label)
  e = np.asarray(embedding.apply(variables, jnp.zeros(13), label))[:, 0]
  grid = e[:12].reshape(3, 4, 8)
  by_shape, by_colour = grid - grid[:1], grid - grid[:, :1]
  np.testing.assert_allclose(by_shape, by_shape[:, :1].repeat(4, 1), atol=1e-6)
  np.testing.assert_allclose(by_colour, by_colour[:1].repeat(3, 0), atol=1e-6)
  apart = np.abs(e[:, None] - e).max(-1) + np.eye(13)
  assert apart.min() > 1e-2


def test_no_label_is_the_null_class():
  network = TINY.clone(classes=(3,))
  z = jax.random.normal(jax.random.key(1), (1, 2, 8, 8, 3))
  variables = random_variables(network, z, jnp.zeros(1))
  run = jax.jit(network.apply)
  np.testing.assert_array_equal(
    run(variables, z, jnp.zeros(1)),
    run(variables, z, jnp.zeros(1), label=jnp.array([3])),
  )


def test_patches_are_pixels_side_by_side():
  """A patched network is the plain one on the rearranged video."""
  patched = TINY.clone(patch=2)
  inner = TINY.clone(out_channels=12)
  z = jax.random.normal(jax.random.key(1), (1, 2, 16, 16, 3))
  rows = [z[:, :, i::2, j::2] for i in range(2) for j in range(2)]
  packed = jnp.concatenate(rows, axis=-1)
  variables = random_variables(patched, z, jnp.zeros(1))
  out = jax.jit(patched.apply)(variables, z, jnp.zeros(1))
  expected = jax.jit(inner.apply)(variables, packed, jnp.zeros(1))
  for index, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
    np.testing.assert_allclose(
      out[:, :, i::2, j::2],
      expected[..., 3 * index : 3 * index + 3],
      rtol=1e-5,
      atol=1e-5,
    )


@pytest.mark.parametrize('resample', ['conv', 'block'])
def test_both_forms_of_resampling_need_divisible_sides(resample):
  network = TINY.clone(resample=resample, multipliers=(1, 1, 1))
  with pytest.raises(ValueError, match='10x8 does not fit .* divisible by 4'):
    jax.eval_shape(
      network.init, jax.random.key(0), jnp.zeros((1, 1, 10, 8, 3)), jnp.ones(1)
    )
  assert num_parameters(network, size=8) > 0


def test_a_feed_forward_layer_needs_tokens_to_stand_behind():
  network = TINY.clone(feed_forward=4)
  for unused in ({}, {'text_dim': 6}, {'visual_dim': 6, 'visual': 'pool'}):
    with pytest.raises(ValueError, match="feed_forward=4 .* text='cross'"):
      network.clone(**unused).check(8, 8)
  network.clone(text_dim=6, text='cross').check(8, 8)
  network.clone(visual_dim=6, visual='cross').check(8, 8)


def test_pool_and_upsample_by_hand():
  x = jnp.arange(16.0).reshape(1, 1, 4, 4, 1)
  pooled = blocks.average_pool(x)[0, 0, :, :, 0]
  np.testing.assert_array_equal(pooled, [[2.5, 4.5], [10.5, 12.5]])
  up = blocks.nearest_upsample(pooled.reshape(1, 1, 2, 2, 1))
  np.testing.assert_array_equal(blocks.average_pool(up)[0, 0, :, :, 0], pooled)
  np.testing.assert_array_equal(up[0, 0, :2, :2, 0], 2.5)


@pytest.mark.parametrize('channels', [3, 4, 8, 48, 64, 96, 100, 128, 192, 320])
def test_groups_divide_the_channels(channels):
  groups = num_groups(channels)
  assert channels % groups == 0
  assert groups <= 32
  assert channels // groups >= min(4, channels)


def test_group_norm_is_flax_group_norm_of_each_frame():
  """Far from zero mean, with a scale and a shift after it."""
  x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (2, 3, 5, 4, 48))
  scale, shift = jax.random.normal(jax.random.key(1), (2, 2, 1, 1, 1, 48))
  params = {
    'scale': jnp.linspace(0.5, 2.0, 48),
    'bias': jnp.linspace(-1.0, 1.0, 48),
  }
  oracle = nn.GroupNorm(num_groups=num_groups(48), epsilon=1e-6)
  with jax.numpy_rank_promotion('allow'):
    expected = oracle.apply({'params': params}, x.reshape(6, 5, 4, 48))
  expected = expected.reshape(x.shape) * (1 + scale) + shift
  y = GroupNorm().apply({'params': params}, x, (scale, shift))
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def convolved_over_time(frames, params):
  """Norm, SiLU and convolution, twice, by loops, float64; [F, H, W, C]."""
  params = jax.tree.map(np.float64, params)
  h = np.asarray(frames, np.float64)
  channels = h.shape[-1]
  for layer in range(2):
    norm, conv = params[f'norm_{layer}'], params[f'conv_{layer}']
    seen = []
    for frame in h:
      groups = np.split(frame, num_groups(channels), axis=-1)
      whole = [(g - g.mean()) / np.sqrt(g.var() + 1e-6) for g in groups]
      y = np.concatenate(whole, -1) * norm['scale'] + norm['bias']
      seen.append(y / (1 + np.exp(-y)))
    nothing = np.zeros_like(seen[0])  # before the first frame, after the last
    seen = [nothing, *seen, nothing]
    kernel = np.reshape(conv['kernel'], (3, channels, channels))
    h = np.array(
      [
        sum(seen[t + k] @ kernel[k] for k in range(3)) + conv['bias']
        for t in range(len(h))
      ]
    )
  return frames + h


@functools.cache
def over_time(num_images):
  """A jitted (x) -> y, and its parameters, none of them zero."""
  layer = blocks.TemporalConvolutions(2, num_images)
  params = random_variables(layer, jnp.zeros((1, 3, 2, 2, 12)))['params']
  run = jax.jit(lambda x: layer.apply({'params': params}, x))
  return run, params


@pytest.mark.parametrize(('frames', 'images'), [(4, 0), (3, 2), (2, 1), (1, 2)])
def test_convolutions_over_time_by_hand(frames, images):
  """Over three frames with zeros at the ends; an image is a video of one."""
  shape = 2, frames + images, 3, 2, 12
  x = np.random.default_rng(1).normal(0.5, 2.0, shape).astype(np.float32)
  run, params = over_time(images)
  for made, given in zip(run(x), x, strict=True):
    parts = np.split(given, np.arange(frames, frames + images))
    expected = [convolved_over_time(part, params) for part in parts]
    np.testing.assert_allclose(
      made, np.concatenate(expected), rtol=1e-4, atol=1e-4
    )


def test_convolutions_over_time_are_isolated_to_the_last_bit():
  """Two of them reach two frames far, and never from or to an image."""
  run, _ = over_time(2)
  x = jax.random.normal(jax.random.key(1), (2, 6, 3, 2, 12))
  before = run(x)
  reached = {0: [0, 1, 2], 1: [0, 1, 2, 3], 3: [1, 2, 3], 4: [4], 5: [5]}
  for frame, others in reached.items():
    moved = np.abs(run(x.at[0, frame].multiply(-1)) - before).max((2, 3, 4))
    expected = np.zeros((2, 6), bool)
    expected[0, others] = True
    np.testing.assert_array_equal(moved > 0, expected)


def test_heads_must_divide_the_channels():
  network = TINY.clone(width=11, head_dim=5)
  with pytest.raises(ValueError, match='22 channels .* head_dim=5'):
    num_parameters(network, size=8)


def convolutions(jaxpr):
  """All convolutions of a program, those of inner programs included."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'conv_general_dilated':
      yield equation
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda p: hasattr(p, 'jaxpr')
    ):
      if hasattr(inner, 'jaxpr'):
        yield from convolutions(inner.jaxpr)


def test_convolutions_see_single_frames():
  """Every convolution is 2D, on videos times frames images."""
  z = jnp.zeros((3, 2, 8, 8, 3))
  program = jax.make_jaxpr(lambda v: TINY.apply(v, z, jnp.zeros(3)))(
    tiny_variables()
  )
  shapes = [e.invars[0].aval.shape for e in convolutions(program.jaxpr)]
  assert len(shapes) == 20  # in, out, 2 resamplings, 2 in each of 8 blocks
  assert {len(shape) for shape in shapes} == {4}
  assert {shape[0] for shape in shapes} == {3 * 2}
