"""Joint training on videos and images, VDM section 4.3.1: the data.

Independent images ride along with every clip: single frames "from random
videos within the same dataset".  The network keeps them apart from the clip
and from each other (`networks.attention`, `num_images`).
"""

import contextlib
from typing import Any

import numpy as np

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.text import PREFIXES
from vdm_jax.data.wrapper import Wrapper

_OF_EACH = {'label', 'visual'} | {
  prefix + name
  for prefix in PREFIXES.values()
  for name in ('tokens', 'token_mask')
}


class Joint(Wrapper):
  """A source whose clips carry independent images.

  Attributes:
    source: gives the clips and, by `image(index, rng)`, clips of one frame.
    num_images: images beside each clip, K.
  """

  def __init__(self, source: Any, num_images: int):
    super().__init__(source)
    self.num_images = num_images

  def fingerprint(self) -> str:
    """The source's, and the number of images."""
    return f'{self.source.fingerprint()}+{self.num_images}'

  def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Clip `index` of the source, and 'images' [K, H, W, C] drawn from `rng`.

    With labels also 'image_label', int32 [K], and likewise 'image_tokens',
    'image_token_mask', 'image_clip_tokens', 'image_clip_token_mask' and
    'image_visual', [K, ...].
    """
    example = dict(self.source.clip(index, rng))
    images = [self._image(rng) for _ in range(self.num_images)]
    joint = {'images': np.concatenate([image['video'] for image in images])}
    for name in example.keys() & _OF_EACH:
      joint[f'image_{name}'] = np.stack([image[name] for image in images])
    return example | joint

  def _image(self, rng: np.random.Generator) -> dict[str, Any]:
    """An image of a random record, or of the next one that can be read."""
    first = int(rng.integers(len(self)))
    for index in range(first, first + len(self) - 1):
      with contextlib.suppress(UnreadableClip):
        return self.source.image(index % len(self), rng)
    return self.source.image((first - 1) % len(self), rng)
