"""The efficient U-Net: what sees what, and where its layers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.test_networks import random_variables
from vdm_jax.networks.blocks import FeedForward
from vdm_jax.networks.efficient import EfficientUNet
from vdm_jax.training.transfer import transfer

TINY = EfficientUNet(
  width=8,
  multipliers=(1, 2),
  num_blocks=1,
  up_blocks=1,
  block_multipliers=(1, 2),
  attention_resolutions=(4,),
  cross_resolutions=(4,),
  head_dim=8,
  embedding_dim=16,
  text_dim=6,
)
LOGSNR = jnp.array([0.3, -2.0])


def noise(*shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def given(seed=1):
  mask = np.arange(5) < np.array([[3], [5]])
  return {'tokens': noise(2, 5, 6, seed=seed), 'token_mask': jnp.asarray(mask)}


Z = noise(2, 7, 8, 8, 3)
VARIABLES = random_variables(TINY, Z, LOGSNR)


@jax.jit
def run(z, told):
  return TINY.apply(VARIABLES, z, LOGSNR, **told)


@pytest.mark.parametrize('frame', [0, 3])
def test_frames_see_one_neighbour_in_every_level_and_no_more(frame):
  """Four levels on the way: four 3x1x1 convolutions."""
  moved = run(Z.at[:, frame].add(1.0), given()) - run(Z, given())
  change = np.abs(moved).max((0, 2, 3, 4))
  near = np.abs(np.arange(7) - frame) <= 4
  assert (change[near] > 0).all()  # to the bit: it fades from level to level
  np.testing.assert_array_equal(change[~near], 0)


def test_images_beside_a_video_see_themselves_alone():
  plain = jax.jit(lambda z: TINY.apply(VARIABLES, z, LOGSNR, num_images=2))
  before = plain(Z)
  for frame in (4, 5, 6):  # the last of the video, and both images
    change = np.abs(plain(Z.at[:, frame].add(1.0)) - before).max((0, 2, 3, 4))
    if frame == 4:
      assert change[4] > 1e-4
      np.testing.assert_array_equal(change[5:], 0)
    else:
      np.testing.assert_array_equal(np.delete(change, frame), 0)


def test_an_inflated_image_model_is_that_model_frame_by_frame():
  own = TINY.clone(temporal=False)
  trained = random_variables(own, Z, LOGSNR)['params']
  fresh = jax.jit(lambda key: TINY.init(key, Z, LOGSNR))(jax.random.key(0))
  params, report = transfer(fresh['params'], {'': trained})
  assert 'fresh: 16 (' in report  # four convolutions over time
  assert 'over_time' in report
  frames = jax.jit(lambda z: own.apply({'params': trained}, z, LOGSNR))(Z)
  video = jax.jit(lambda z: TINY.apply({'params': params}, z, LOGSNR))(Z)
  np.testing.assert_array_equal(video, frames)


def test_pixels_read_the_caption_and_no_padding():
  base, told = run(Z, given()), given()
  mask = told['token_mask'][..., None]
  padded = told | {'tokens': jnp.where(mask, told['tokens'], 99.0)}
  np.testing.assert_array_equal(run(Z, padded), base)
  assert np.abs(run(Z, given(2)) - base).max() > 1e-3


def test_layers_are_where_frames_are_small():
  """Imagen, Appendix F.1: 2, 4, 8, 8 blocks; convolutions shrink first."""
  large = EfficientUNet(temporal=False)
  z = jnp.zeros((1, 1, 32, 32, 6))
  shapes = jax.eval_shape(
    lambda key: large.init(key, z, jnp.zeros(1)), jax.random.key(0)
  )['params']
  for number, blocks in enumerate((2, 4, 8, 8)):
    for way in ('down', 'up'):
      level = shapes[f'{way}_{number}']
      assert len(level) == blocks
      for block in level.values():
        assert block['conv_2']['kernel'].shape[-2:] == (128 * 2**number,) * 2
  for number in (1, 2, 3):
    before, after = 128 * 2 ** (number - 1), 128 * 2**number
    smaller = shapes[f'smaller_{number}']['kernel'].shape
    assert smaller[-2:] == (before, after)
    assert shapes[f'larger_{number}']['kernel'].shape[-2:] == (after, before)


def test_it_starts_as_a_network_of_its_first_level():
  """Or else what smaller frames add at random hides z's detail for long."""
  start = dict(
    jax.jit(lambda key: TINY.init(key, Z, LOGSNR, **given()))(
      jax.random.key(0)
    )['params']
  )
  start['out'] = VARIABLES['params']['out']  # it starts at zero
  smaller = ('smaller_1', 'down_1', 'up_1')
  other = start | {name: VARIABLES['params'][name] for name in smaller}
  first, second, third = (
    jax.jit(lambda p: TINY.apply({'params': p}, Z, LOGSNR, **given()))(params)
    for params in (start, other, start | {'in': VARIABLES['params']['in']})
  )
  np.testing.assert_array_equal(first, second)
  assert np.abs(first - third).max() > 1e-3


@pytest.mark.slow
def test_recomputation_changes_nothing_and_gradients_reach_all():
  def loss(params, network):
    output = network.apply({'params': params}, Z, LOGSNR, **given())
    return jnp.square(output - 1).mean()

  plain, again = (
    jax.jit(jax.grad(lambda p, n=network: loss(p, n)))(VARIABLES['params'])
    for network in (TINY, TINY.clone(remat=True))
  )
  for name, value in traverse_util.flatten_dict(plain, sep='/').items():
    if 'no_text' not in name:  # no caption is hidden here
      assert np.abs(value).max() > 0, name
  for one, other in zip(
    jax.tree.leaves(plain), jax.tree.leaves(again), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'block_multipliers': (1,)}, 'are of different levels: give one of each'),
    ({'multipliers': (1, 2, 2, 2), 'block_multipliers': (1,) * 4}, '8'),
    ({'text_dim': 0, 'clip_text_dim': 4}, 'set text_dim'),
  ],
)
def test_what_does_not_fit_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    TINY.clone(**fields).check(12, 12)


def test_the_feed_forward_layer_is_a_perceptron_of_each_pixel():
  x = noise(1, 2, 3, 3, 8)
  layer = FeedForward(4)
  variables = random_variables(layer, x)
  found = layer.apply(variables, x)
  moved = layer.apply(variables, x.at[0, 1].add(1.0))
  np.testing.assert_array_equal(moved[0, 0], found[0, 0])
  p = variables['params']
  assert p['hidden']['kernel'].shape[-2:] == (8, 32)
  start = layer.init(jax.random.key(0), x)
  np.testing.assert_array_equal(layer.apply(start, x), x)
