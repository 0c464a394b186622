"""What a model can be asked for: classes, captions, images, or nothing.

People give class numbers, sentences and pictures; networks take the arrays of
`systems.protocol.Cond`.  Here is the way from one to the other, and the place
where a request that a model cannot meet is refused.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vdm_jax.config import ConfigError
from vdm_jax.data import text
from vdm_jax.data.encoders import TextEncoder
from vdm_jax.data.pictures import Pictures
from vdm_jax.data.text import Captioned, Store, TextSettings, pad
from vdm_jax.data.visual import THUMBNAIL

T = TypeVar('T')


class Texts:
  """Tokens of sentences: from a store, else by the encoder that made it.

  Attributes:
    dim: width of a token that the network takes.
    settings: where store and encoder are.
  """

  def __init__(self, settings: TextSettings, dim: int, workdir: Path):
    self.settings, self.dim = settings, dim
    self.section = settings.section
    self.path = Path(settings.store or workdir / self.section)
    self._store: Store | None = None
    self._encoder: TextEncoder | None = None

  def encoder(self) -> TextEncoder:
    """Returns the encoder, loaded once.

    Raises:
      FileNotFoundError, ValueError: from `TextEncoder`, or for another width
        than the network's.
    """
    if self._encoder is None:
      encoder = TextEncoder(
        self.settings.encoder, self.settings.max_length, self.section
      )
      self._check_width(encoder.dim, 'the encoder')
      self._encoder = encoder
    return self._encoder

  def store(self) -> Store:
    """Returns the store, opened once.

    Raises:
      FileNotFoundError, ValueError: from `Store`, or for another width than
        the network's.
    """
    if self._store is None:
      store = Store(self.path)
      self._check_width(store.dim, str(self.path))
      self._store = store
    return self._store

  def encode(self, source: Any) -> str:
    """Writes the store of a source's captions; returns what was done.

    Raises:
      ValueError, OSError: if the encoder cannot be read, or as in `write`.
    """
    encode = self.encoder()
    store = text.write(self.path, source.texts(), encode, encode.fingerprint())
    return f'{len(store)} captions are encoded in {store.path}.'

  def along(self, source: Any) -> Any:
    """Returns the source with tokens, unless it was packed with them.

    Raises:
      ConfigError: if it was packed with tokens of another width.
      ValueError: as in `Captioned`.
    """
    store, packed = self.store(), self.packed(source)
    if packed not in (0, store.dim):
      raise ConfigError(
        f'the packed tokens have {packed} numbers, those of {store.path} '
        f'{store.dim}: pack the data with the same encoder.'
      )
    if packed:
      return source
    return Captioned(source, store, self.settings.max_length, self.section)

  def packed(self, source: Any) -> int:
    """Width of the tokens that a source carries already; 0 for none."""
    return getattr(source, f'{self.section}_dim', 0)

  def _check_width(self, dim: int, what: str) -> None:
    if dim != self.dim:
      raise ConfigError(
        f'config.network.{self.section}_dim is {self.dim}, but {what} has '
        f'tokens of {dim} numbers: use that.'
      )

  def __call__(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns 'tokens' [N, L, D] and 'token_mask' [N, L], see `pad`.

    '' is no text.

    Raises:
      FileNotFoundError, ValueError: a caption is not in the store, and the
        encoder cannot be loaded or is not the one that made the store.
    """
    known = self.store() if (self.path / 'store.json').exists() else {}
    unknown = [c for c in captions if c.strip() and c not in known]
    made = {}
    if unknown:
      encoder = self.encoder()
      if isinstance(known, Store) and known.encoder != encoder.fingerprint():
        raise ValueError(
          f'the encoder in {self.settings.encoder} is not the one that made '
          f'{self.path}: set config.{self.section}.encoder to that one.'
        )
      made = dict(zip(unknown, encoder(unknown), strict=True))
    nothing = np.zeros((0, self.dim), np.float16)
    sequences = [
      made[c] if c in made else known[c] if c.strip() else nothing
      for c in captions
    ]
    return pad(sequences, self.settings.max_length, self.section)


class Conditions:
  """What the videos of one model can be asked to show.

  Attributes:
    num_classes: classes of the model; 0 for none.
    texts: its captions; None for a model without text.
    clip_texts: the same captions by a second encoder; None without.
    pictures: its visual embeddings; None for a model without.
  """

  def __init__(
    self,
    num_classes: int = 0,
    texts: Texts | None = None,
    pictures: Pictures | None = None,
    clip_texts: Texts | None = None,
  ):
    self.num_classes, self.texts = num_classes, texts
    self.pictures, self.clip_texts = pictures, clip_texts
    if texts and clip_texts and texts.path == clip_texts.path:
      raise ConfigError(
        'config.text.store and config.clip_text.store are one: give two.'
      )

  @property
  def by_encoder(self) -> list[Texts]:
    """The captions of each text encoder."""
    return [texts for texts in (self.texts, self.clip_texts) if texts]

  def along(self, source: Any) -> Any:
    """Returns a source of clips with all that the model is told of them.

    Raises:
      ConfigError: if they were packed with the tokens of one encoder of two.
      ValueError, OSError: as in `Texts.along` and `Pictures.along`.
    """
    packed = {bool(texts.packed(source)) for texts in self.by_encoder}
    if len(packed) > 1:
      raise ConfigError(
        'the data was packed with the tokens of one text encoder, but the '
        'network takes those of config.text and of config.clip_text: pack it '
        'again with both.'
      )
    if self.pictures:  # first: its store is of the data alone
      source = self.pictures.along(source)
    for texts in self.by_encoder:
      source = texts.along(source)
    return source

  def encode(self, source: Callable[[], Any], captions: bool) -> list[str]:
    """Writes what encoders make of a source; returns what was done.

    Args:
      source: opens it.
      captions: whether it has them.

    Raises:
      ValueError, OSError: as in `Texts.encode` and `Pictures.encode`.
    """
    pictures, by_encoder = self.pictures, self.by_encoder if captions else []
    for texts in by_encoder:
      texts.encoder()  # all are there, before hours are spent on one
    done = [texts.encode(source()) for texts in by_encoder]
    if pictures and pictures.settings.encoder != THUMBNAIL:
      done.append(pictures.encode(source()))
    return done

  @property
  def embeds(self) -> bool:
    """Whether it can say what an image shows."""
    return self.pictures is not None and bool(self.pictures.settings.encoder)

  def labels_in_turn(self, num: int) -> np.ndarray | None:
    """Returns classes, [num], or None for a model without.

    Each comes once before one comes twice, and neighbours are far apart.
    """
    if not self.num_classes:
      return None
    return np.array(in_turn(num, range(self.num_classes)), int)

  def captions_in_turn(self, num: int) -> list[str] | None:
    """Returns captions of the store, [num], likewise."""
    if self.texts is None:
      return None
    return in_turn(num, self.texts.store().captions(10_000))

  def default(self, num: int) -> dict[str, np.ndarray]:
    """Returns the `Cond` of all classes, or captions of the store, in turn."""
    return self(num, self.labels_in_turn(num), self.captions_in_turn(num))

  def __call__(
    self,
    num: int,
    label: np.ndarray | Sequence[int] | int | None = None,
    prompt: str | Sequence[str] | None = None,
    image: np.ndarray | None = None,
  ) -> dict[str, np.ndarray]:
    """Returns the `Cond` of `num` videos; a single value is for all.

    Args:
      num: videos.
      label: class of each.
      prompt: caption of each.
      image: what the middle frame of each shows, uint8 [H, W, 3] or
        [num, H, W, 3].

    Raises:
      ValueError: labels, prompts or images for a model without, of another
        number, or classes that are not there.
      FileNotFoundError: a prompt or an image that nothing can encode.
    """
    cond: dict[str, np.ndarray] = {}
    if label is not None:
      if not self.num_classes:
        raise ValueError('a label was given, but the model has no classes.')
      label = np.asarray(label)
      whole = np.broadcast_to(label, num) if label.ndim == 0 else label
      if (
        whole.shape != (num,)
        or not np.issubdtype(whole.dtype, np.integer)
        or not np.all((whole >= 0) & (whole < self.num_classes))
      ):
        raise ValueError(
          f'label is {label.tolist()}; give {num} classes in '
          f'[0, {self.num_classes - 1}].'
        )
      cond['label'] = whole
    if prompt is not None:
      if self.texts is None:
        raise ValueError(
          'a prompt was given, but the model was trained without text'
          + (': give a label.' if self.num_classes else '.')
        )
      prompts = [prompt] * num if isinstance(prompt, str) else list(prompt)
      if len(prompts) != num or not all(isinstance(p, str) for p in prompts):
        raise ValueError(
          f'{len(prompts)} prompts were given for {num} videos: give one '
          "sentence or as many, '' for no condition."
        )
      for texts in self.by_encoder:
        cond |= texts(prompts)
    if image is not None:
      if self.pictures is None:
        raise ValueError(
          'an image was given, but the model was trained without visual '
          'embeddings.'
        )
      image = np.asarray(image)
      whole = image[None].repeat(num, 0) if image.ndim == 3 else image
      found = len(whole.shape), *whole.shape[:1], *whole.shape[-1:]
      if image.dtype != np.uint8 or found != (4, num, 3):
        raise ValueError(
          f'image is {image.dtype} {image.shape}; give uint8 [H, W, 3], or '
          f'{num} of them.'
        )
      cond |= self.pictures(whole)
    return cond


def in_turn(num: int, values: Sequence[T]) -> list[T]:
  """Returns `num` of the values, over and over, in golden-ratio strides."""
  size = len(values)
  stride = round(0.618 * size) or 1
  while math.gcd(stride, size) > 1:
    stride += 1
  return [values[stride * i % size] for i in range(num)]
