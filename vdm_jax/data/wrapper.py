"""A source around another one, which it adds something to."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class Wrapper:
  """What the source says, this says too.

  Attributes:
    source: the other one.
  """

  def __init__(self, source: Any):
    self.source = source

  def __len__(self) -> int:
    return len(self.source)

  @property
  def num_classes(self) -> int:
    """Classes of the source; 0 if it has none."""
    return getattr(self.source, 'num_classes', 0)

  @property
  def text_dim(self) -> int:
    """Width of the tokens that clips carry; 0 for none."""
    return getattr(self.source, 'text_dim', 0)

  @property
  def clip_text_dim(self) -> int:
    """Width of those of a second text encoder; 0 for none."""
    return getattr(self.source, 'clip_text_dim', 0)

  @property
  def visual_dim(self) -> int:
    """Width of the visual embeddings that clips carry; 0 for none."""
    return getattr(self.source, 'visual_dim', 0)

  @property
  def captions(self) -> bool:
    """Whether clips have captions."""
    return getattr(self.source, 'captions', False)

  @property
  def skipped(self) -> Any:
    """What the source left out."""
    return getattr(self.source, 'skipped', ())

  def class_names(self, label: int) -> Any:
    """Words of a class."""
    return self.source.class_names(label)

  def texts(self) -> Iterable[str]:
    """Every caption."""
    return self.source.texts()

  def fingerprint(self) -> str:
    """The source's."""
    return self.source.fingerprint()

  def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Clip `index` of the source."""
    return self.source.clip(index, rng)

  def image(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Image `index` of the source."""
    return self.source.image(index, rng)
