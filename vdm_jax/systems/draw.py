"""Every random choice of a training batch, the same for all systems.

    t ~ U[0, 1], spread evenly over the batch       one noise level a video
    eps ~ noise prior                               over the frames of a video
    label -> no label                               for a share of them

Independent images (VDM section 4.3.1) share the noise level of the video that
they ride with; their noise and whether their label is hidden are their own.
"""

import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import times
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.diffusion.schedules import Schedule
from vdm_jax.systems.protocol import Batch


def draw(
  key: Array,
  batch: Batch,
  *,
  schedule: Schedule,
  noise: NoisePrior,
  num_classes: int = 0,
  label_dropout: float = 0.0,
) -> Batch:
  """Returns a batch with logsnr [B] and eps [B, F, H, W, C], labels hidden.

  With images [B, K, H, W, C] also 'image_eps', same shape. A hidden label is
  `num_classes`; without classes there are no labels.
  """

  def hidden(key, label):
    hide = jax.random.bernoulli(key, label_dropout, label.shape)
    return jnp.where(hide, num_classes, label)

  time_key, noise_key, label_key = jax.random.split(key, 3)
  video = batch['video']
  drawn = {
    'video': video,
    'logsnr': schedule(times.low_discrepancy(time_key, len(video))),
    'eps': noise.sample(noise_key, video.shape),
  }
  if num_classes:
    drawn['label'] = hidden(label_key, batch['label'])
  if 'images' in batch:
    noise_key, label_key = jax.random.split(jax.random.fold_in(key, 1))
    drawn['images'] = batch['images']
    # A single frame sees standard Gaussian noise under every prior.
    drawn['image_eps'] = jax.random.normal(noise_key, batch['images'].shape)
    if num_classes:
      drawn['image_label'] = hidden(label_key, batch['image_label'])
  return drawn


def together(drawn: Batch) -> tuple[Array, Array, Array | None, int]:
  """Joins images to their videos as trailing frames.

  Returns:
    videos [B, F + K, H, W, C], eps of the same shape, labels [B], or
    [B, F + K] where there are images, or None, and K.
  """
  video, eps, label = drawn['video'], drawn['eps'], drawn.get('label')
  if 'images' not in drawn:
    return video, eps, label, 0
  if label is not None:
    frames = jnp.repeat(label[:, None], video.shape[1], 1)
    label = jnp.concatenate([frames, drawn['image_label']], 1)
  video = jnp.concatenate([video, drawn['images']], 1)
  eps = jnp.concatenate([eps, drawn['image_eps']], 1)
  return video, eps, label, drawn['images'].shape[1]
