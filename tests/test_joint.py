"""Joint training on videos and images: what rides along, and what it costs."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import moved_of
from tests.pipeline_cases import same, take
from tests.video_files import numbered, numbers, write
from vdm_jax.config import ConfigError
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.joint import Joint
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.diffusion.noise import Mixed
from vdm_jax.job import build
from vdm_jax.networks.unet import UNet
from vdm_jax.systems.vdm import VDM
from vdm_jax.training.loop import TrainSettings


class Levels:
  """Record i is grey level i, clips have 3 frames; some cannot be read."""

  def __init__(self, size=10, bad=()):
    self.size, self.bad = size, bad

  def __len__(self):
    return self.size

  def fingerprint(self):
    return 'levels'

  def _grey(self, index, num_frames):
    if index in self.bad:
      raise UnreadableClip(f'{index}.mp4', 'corrupt: on purpose')
    video = np.full((num_frames, 8, 8, 3), index, np.uint8)
    return {'video': video, 'label': np.int32(index)}

  def clip(self, index, rng):
    return self._grey(index, 3)

  def image(self, index, rng):
    return self._grey(index, 1)


# --- data --------------------------------------------------------------------


def test_images_are_frames_of_random_records_with_their_labels():
  joint = Joint(Levels(), 4)
  seen = collections.Counter()
  for seed in range(500):
    example = joint.clip(3, np.random.default_rng(seed))
    same(Levels().clip(3, None), {k: example[k] for k in ('video', 'label')})
    assert example['images'].shape == (4, 8, 8, 3)
    levels = example['images'][:, 0, 0, 0]
    np.testing.assert_array_equal(levels, example['image_label'])
    seen.update(levels.tolist())
  counts = np.array([seen[index] for index in range(10)])
  # Chi squared with 9 degrees of freedom: mean 9, five deviations more.
  assert ((counts - 200) ** 2 / 200).sum() < 9 + 5 * np.sqrt(18)


def test_batches_with_images_do_not_depend_on_hosts():
  source = Joint(MovingShapes(num_frames=2, height=8, width=8), 3)
  _, whole = take(6, source)
  halves = [take(6, source, num_hosts=2, host=host)[1] for host in (0, 1)]
  assert whole['images'].shape == (24, 3, 8, 8, 3)
  assert whole['images'].dtype == np.float32
  assert whole['image_label'].shape == (24, 3)
  for key, rows in whole.items():
    parts = [half[key].reshape(6, 2, *rows.shape[1:]) for half in halves]
    joined = np.concatenate(parts, 1).reshape(rows.shape)
    np.testing.assert_array_equal(joined, rows)


def test_an_image_that_cannot_be_read_is_replaced():
  bad = (0, 4, 5, 9)
  joint = Joint(Levels(bad=bad), 8)
  for seed in range(50):
    labels = joint.clip(3, np.random.default_rng(seed))['image_label']
    assert not set(labels.tolist()) & set(bad)
  with pytest.raises(UnreadableClip, match='on purpose'):
    joint.clip(4, np.random.default_rng(0))


def test_the_number_of_images_is_part_of_the_data():
  prints = {Joint(Levels(), k).fingerprint() for k in (1, 2)}
  assert len(prints | {Levels().fingerprint()}) == 3


def test_an_image_of_a_file_is_any_of_its_frames(tmp_path):
  write(tmp_path / 'a.mp4', numbered(20))
  source = VideoFolder(tmp_path, 8, 16, 16, frameskip=2)
  rngs = [np.random.default_rng(seed) for seed in range(200)]
  seen = {int(numbers(source.image(0, rng)['video'])[0]) for rng in rngs}
  assert seen == set(range(20))


# --- loss --------------------------------------------------------------------

NETWORK = UNet(
  width=8,
  multipliers=(1,),
  num_blocks=1,
  attention_resolutions=(8,),
  head_dim=8,
  embedding_dim=8,
  embedding_layers=2,
  classes=(5,),
)
SYSTEM = VDM(NETWORK, noise=Mixed(1.0))


@functools.cache
def params():
  return moved_of(SYSTEM, (3, 8, 8, 3))


def batch():
  rng = np.random.default_rng(0)
  return {
    'video': jnp.asarray(rng.uniform(-1, 1, (4, 3, 8, 8, 3)), jnp.float32),
    'label': jnp.array([0, 1, 2, 3]),
    'images': jnp.asarray(rng.uniform(-1, 1, (4, 2, 8, 8, 3)), jnp.float32),
    'image_label': jnp.array([[4, 0], [1, 2], [3, 4], [0, 1]]),
  }


def test_the_joint_loss_is_that_of_videos_and_of_videos_of_one_frame():
  drawn = SYSTEM.draw(jax.random.key(1), batch())
  loss = jax.jit(SYSTEM.loss)
  joint = loss(params(), jax.random.key(2), drawn)
  video = {k: drawn[k] for k in ('video', 'eps', 'logsnr', 'label')}
  images = {
    'video': drawn['images'].reshape(8, 1, 8, 8, 3),
    'eps': drawn['image_eps'].reshape(8, 1, 8, 8, 3),
    'logsnr': drawn['logsnr'].repeat(2),
    'label': drawn['image_label'].reshape(8),
  }
  parts = [loss(params(), jax.random.key(2), part) for part in (video, images)]
  np.testing.assert_allclose(joint, (3 * parts[0] + 2 * parts[1]) / 5, 1e-4)


def test_images_have_noise_and_hidden_labels_of_their_own():
  many = jax.tree.map(lambda x: x.repeat(500, 0), batch())
  drawn = SYSTEM.draw(jax.random.key(1), many)
  eps, image_eps = drawn['eps'], drawn['image_eps']
  # 2000 x 192 products: a deviation of 0.0016 about their mean.
  between = (eps[:, 0] * eps[:, 1]).mean()
  np.testing.assert_allclose(between, 0.5, atol=0.01)  # Mixed(1): 1 / 2
  for other in (eps[:, 2], image_eps[:, 1]):
    np.testing.assert_allclose((image_eps[:, 0] * other).mean(), 0, atol=0.01)
  hidden = drawn['image_label'] == 5
  np.testing.assert_allclose(hidden.mean(), 0.1, atol=0.025)
  both = (hidden[:, 0] & hidden[:, 1]).mean()
  np.testing.assert_allclose(both, 0.01, atol=0.012)
  kept = np.where(hidden, many['image_label'], drawn['image_label'])
  np.testing.assert_array_equal(kept, many['image_label'])


# --- a run -------------------------------------------------------------------


def test_a_config_asks_for_images(tmp_path):
  config = {
    'data': {
      'name': 'moving_shapes',
      'num_frames': 2,
      'height': 8,
      'width': 8,
    },
    'system': {'name': 'vdm'},
    'network': {'name': 'unet', 'width': 8, 'multipliers': (1,)},
    'train': {'num_steps': 1, 'batch_size': 1, 'num_images': 3},
  }
  source = build(config).source(tmp_path)
  assert source.clip(0, np.random.default_rng(0))['images'].shape[0] == 3
  with pytest.raises(ValueError, match=r'num_images=-1 is not allowed'):
    TrainSettings(num_steps=1, batch_size=1, num_images=-1)
  config['network']['classes'] = (7,)
  with pytest.raises(ConfigError, match=r'make 7 classes, but the data has 96'):
    build(config).source(tmp_path)
