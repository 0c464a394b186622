"""Clips with the embeddings of their middle frames, and where these come from.

See `visual` for what an embedding is and how it is stored.
"""

from pathlib import Path
from typing import Any

import numpy as np

from vdm_jax.config import ConfigError
from vdm_jax.data import visual
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.encoders import VisualEncoder
from vdm_jax.data.visual import (
  THUMBNAIL,
  THUMBNAIL_DIM,
  VisualSettings,
  VisualStore,
  fixed_clip,
  middle_frame,
)
from vdm_jax.data.wrapper import Wrapper


class Pictured(Wrapper):
  """A source whose clips carry the embeddings of their middle frames.

  Attributes:
    source: gives the clips.
    store: has their embeddings; None for thumbnails.
  """

  def __init__(self, source: Any, store: VisualStore | None = None):
    """Checks that the store is of the source.

    Raises:
      ValueError: it is of another one.
    """
    super().__init__(source)
    if store is not None and store.source != source.fingerprint():
      raise ValueError(
        f'{store.path} has the embeddings of other data: run --mode=encode '
        'again.'
      )
    self.store = store

  @property
  def visual_dim(self) -> int:
    """Width of an embedding."""
    return self.store.dim if self.store else THUMBNAIL_DIM

  def fingerprint(self) -> str:
    """The source's and the store's."""
    how = self.store.fingerprint() if self.store else THUMBNAIL
    return f'{self.source.fingerprint()}+{how}'

  def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Clip `index`, with 'visual' [D], float32.

    Raises:
      UnreadableClip: the video cannot be read, or could not when its
        embeddings were made.
    """
    if self.store is None:
      return _with_thumbnail(self.source.clip(index, rng))
    draw = int(rng.integers(self.store.clips_per_video))
    place = index * self.store.clips_per_video + draw
    embedding = self.store[place]
    if np.isnan(embedding).any():
      raise UnreadableClip(
        f'{self.store.path}, clip {place}',
        'without an embedding, as its video could not be read',
      )
    return {**fixed_clip(self.source, index, draw), 'visual': embedding}

  def image(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Image `index`, with 'visual': zeros where only clips were embedded."""
    image = self.source.image(index, rng)
    if self.store is None:
      return _with_thumbnail(image)
    return {**image, 'visual': np.zeros(self.visual_dim, np.float32)}


def _with_thumbnail(example: dict[str, Any]) -> dict[str, Any]:
  frame = middle_frame(example)[None]
  return {**example, 'visual': visual.normalize(visual.thumbnail(frame))[0]}


class Pictures:
  """Visual embeddings: of the data from a store, of other images by an encoder.

  Attributes:
    dim: width of an embedding that the network takes.
    settings: where store and encoder are.
  """

  def __init__(self, settings: VisualSettings, dim: int, workdir: Path):
    self.settings, self.dim = settings, dim
    self.path = Path(settings.store) if settings.store else workdir / 'visual'
    if settings.encoder == THUMBNAIL:
      self._check_width(THUMBNAIL_DIM, 'a thumbnail')

  def encoder(self) -> VisualEncoder:
    """Returns the encoder.

    Raises:
      FileNotFoundError, ValueError: from `VisualEncoder`, or for another width
        than the network's.
    """
    encoder = VisualEncoder(self.settings.encoder)
    self._check_width(encoder.dim, 'the encoder')
    return encoder

  def encode(self, source: Any) -> str:
    """Writes the store of a source's middle frames; returns what was done.

    Raises:
      ValueError, OSError: if the encoder cannot be read, or as in `write`.
    """
    encode, clips = self.encoder(), self.settings.clips_per_video
    store = visual.write(self.path, source, encode, encode.fingerprint(), clips)
    return f'{len(store)} middle frames are encoded in {store.path}.'

  def along(self, source: Any) -> Any:
    """Returns the source with embeddings, unless it was packed with them.

    Raises:
      ConfigError: for embeddings of another width than the network's.
      FileNotFoundError, ValueError: as in `VisualStore` and `Pictured`.
    """
    if packed := getattr(source, 'visual_dim', 0):
      self._check_width(packed, 'the packed data')
      return source
    if self.settings.encoder == THUMBNAIL:
      return Pictured(source)
    store = VisualStore(self.path)
    self._check_width(store.dim, str(self.path))
    return Pictured(source, store)

  def _check_width(self, dim: int, what: str) -> None:
    if dim != self.dim:
      raise ConfigError(
        f'config.network.visual_dim is {self.dim}, but {what} has embeddings '
        f'of {dim} numbers: use that.'
      )

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns 'visual' [N, D] of images, uint8 [N, H, W, 3].

    Raises:
      FileNotFoundError, ValueError: the encoder cannot be loaded, or is not
        the one that made the store.
    """
    if self.settings.encoder == THUMBNAIL:
      return {'visual': visual.normalize(visual.thumbnail(images))}
    encoder = self.encoder()
    if (self.path / 'store.json').exists():
      store = VisualStore(self.path)
      if store.encoder != encoder.fingerprint():
        raise ValueError(
          f'the encoder in {self.settings.encoder} is not the one that made '
          f'{self.path}: set config.visual.encoder to that one.'
        )
    return {'visual': visual.normalize(encoder(images))}
