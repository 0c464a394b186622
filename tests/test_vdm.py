"""The assembly of VDM: conditions, guidance and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import moved_of
from vdm_jax.config import ConfigError
from vdm_jax.job import build
from vdm_jax.networks.unet import UNet
from vdm_jax.samplers import guidance
from vdm_jax.systems.vdm import VDM

NETWORK = UNet(
  width=8,
  multipliers=(1,),
  num_blocks=1,
  attention_resolutions=(),
  head_dim=8,
  embedding_dim=8,
  embedding_layers=2,
  classes=(5,),
)
SHAPE = (2, 4, 4, 3)
SYSTEM = VDM(NETWORK)


@pytest.fixture(scope='module')
def params():
  return moved_of(SYSTEM, SHAPE)


@pytest.mark.parametrize(
  'logsnr', [jnp.array(0.3), jnp.array([0.3, -1.0, 2.0])]
)
def test_guidance_in_one_call_is_guidance_in_two(params, logsnr):
  z = jax.random.normal(jax.random.key(2), (3, *SHAPE))
  cond = {'label': jnp.array([0, 4, 2])}
  unguided, without, one = (
    jax.jit(SYSTEM.denoiser(params, *options))(z, logsnr)
    for options in ((cond,), (), (cond, 3.0))
  )
  two = guidance.classifier_free(lambda *_: unguided, lambda *_: without, 3.0)(
    z, logsnr
  )
  np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
  assert np.abs(one - unguided).max() > 0.1


def test_guidance_calls_the_network_once():
  calls = []

  def denoise(z, logsnr):
    calls.append(z.shape)
    return z * 0.5

  guided = guidance.classifier_free_together(denoise, 2.0)
  guided(jnp.ones((3, *SHAPE)), jnp.array(0.0))
  assert calls == [(6, *SHAPE)]


def test_the_null_class_is_trained_by_default(params):
  """Hidden labels send gradient to the row that means "no class"."""
  batch = {
    'video': jnp.ones((64, *SHAPE)),
    'label': jnp.zeros(64, jnp.int32),
  }
  drawn = SYSTEM.draw(jax.random.key(3), batch)
  hidden = float((drawn['label'] == 5).mean())
  assert 0.01 < hidden < 0.3  # 0.1, and 64 draws
  gradient = jax.jit(jax.grad(SYSTEM.loss))(params, jax.random.key(4), drawn)
  table = np.abs(gradient['embedding']['label_0']['embedding']).max(-1)
  assert table[5] > 0
  assert table[0] > 0
  np.testing.assert_array_equal(table[1:5], 0)


def test_guidance_needs_a_class(params):
  with pytest.raises(ValueError, match='needs something to guide to'):
    SYSTEM.denoiser(params, None, 2.0)


def test_classes_and_text_at_once_are_refused():
  config = {
    'data': {'name': 'moving_shapes', 'num_frames': 2, 'height': 8, 'width': 8},
    'system': {'name': 'vdm'},
    'network': {'name': 'unet', 'multipliers': (1,), 'classes': (4, 6, 4)},
    'train': {'num_steps': 1, 'batch_size': 1},
  }
  config['network']['text_dim'] = 8
  with pytest.raises(ConfigError, match='condition on one of them'):
    build(config)


def test_guidance_without_classes_is_refused_before_training():
  config = {
    'data': {
      'name': 'moving_shapes',
      'num_frames': 2,
      'height': 8,
      'width': 8,
    },
    'system': {'name': 'vdm'},
    'network': {'name': 'unet', 'width': 8, 'multipliers': (1,)},
    'train': {'num_steps': 1, 'batch_size': 1},
    'sample': {'guidance_scale': 2.0},
  }
  with pytest.raises(
    ConfigError, match=r'guidance_scale is 2\.0.*nothing to guide'
  ):
    build(config)
  config['network']['classes'] = (4, 6, 4)
  assert build(config).sample.guidance_scale == 2.0
