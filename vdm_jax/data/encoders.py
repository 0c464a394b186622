"""Frozen encoders of captions and of images, through transformers' PyTorch.

Captions: BERT-large is what VDM uses (section 4.3), T5 and CLIP's what PYoCo
does; any encoder that `AutoModel` opens works, and of T5 and CLIP the half that
reads text.  Images: the visual half of CLIP, as VideoFusion uses it (section
4.1).

Nothing is downloaded and no code from the folder is run: weights are read from
safetensors.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_KINDS = ('*.json', '*.txt', '*.model', '*.safetensors')


class _Pretrained:
  """A model of transformers in a folder.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: str | Path, field: str, like: str, holds: str):
    """Loads the model and, by `_open`, what prepares its input.

    Raises:
      FileNotFoundError: the folder holds none.
      ValueError: its packages are not installed, or it cannot be read.
    """
    self.path = Path(path)
    if not path or not (self.path / 'config.json').is_file():
      raise FileNotFoundError(
        f'{field}={str(path)!r} is no folder with {like}: it must hold '
        f'config.json, {holds} and model.safetensors.'
      )
    try:
      import torch  # pyright: ignore[reportMissingImports]
      import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
      raise ValueError(
        f"{error.name} is not installed: pip install 'vdm_jax[text]' brings "
        'what encodes text and images.'
      ) from None
    self._torch = torch
    local = {'local_files_only': True, 'trust_remote_code': False}
    try:
      self._prepare = self._open(transformers, local)
      self._model: Any = transformers.AutoModel.from_pretrained(
        path, use_safetensors=True, dtype=torch.float32, **local
      ).eval()
    except Exception as error:  # of many kinds, some of them bare Exceptions
      first = [*str(error).strip().splitlines(), type(error).__name__][0]
      raise ValueError(f'{like} in {path} cannot be read: {first}') from error

  def _open(self, transformers: Any, local: dict[str, bool]) -> Any:
    raise TypeError(f'{type(self).__name__} must prepare its input.')

  def fingerprint(self) -> str:
    """Short hash of the encoder's files and of what else shapes its output."""
    digest = hashlib.sha256(self._rule().encode())
    for path in sorted(p for kind in _KINDS for p in self.path.glob(kind)):
      digest.update(path.name.encode())
      with path.open('rb') as file:
        digest.update(hashlib.file_digest(file, 'sha256').digest())
    return digest.hexdigest()[:16]

  def _rule(self) -> str:
    return ''


class TextEncoder(_Pretrained):
  """Tokens of captions, the last hidden states of a frozen network.

  Attributes:
    dim: width of a token.
    max_length: most tokens of a caption.
  """

  def __init__(self, path: str | Path, max_length: int, section: str = 'text'):
    """Loads an encoder and its tokenizer, e.g. bert-large-uncased.

    Args:
      path: its folder.
      max_length: most tokens of a caption.
      section: of the config that names the folder.

    Raises:
      FileNotFoundError: the folder holds none.
      ValueError: its packages are not installed, or it cannot be read.
    """
    self.max_length = max_length
    super().__init__(
      path,
      f'config.{section}.encoder',
      'a text encoder',
      'the files of the tokenizer',
    )
    if hasattr(self._model, 'text_model'):  # CLIP
      self._model = self._model.text_model
    elif self._model.config.is_encoder_decoder:  # T5
      self._model = self._model.get_encoder()
    self.dim = self._model.config.hidden_size

  def _open(self, transformers: Any, local: dict[str, bool]) -> Any:
    return transformers.AutoTokenizer.from_pretrained(self.path, **local)

  def _rule(self) -> str:
    return str(self.max_length)

  def __call__(self, captions: Sequence[str]) -> list[np.ndarray]:
    """Returns tokens [l, dim] float32 of each caption, special ones too."""
    batch = self._prepare(
      list(captions),
      padding=True,
      truncation=True,
      max_length=self.max_length,
      return_tensors='pt',
    )
    with self._torch.inference_mode():
      hidden = self._model(**batch).last_hidden_state.numpy()
    mask = batch['attention_mask'].numpy().astype(bool)
    return [row[real] for row, real in zip(hidden, mask, strict=True)]


class VisualEncoder(_Pretrained):
  """Embeddings of images, the projected class token of CLIP.

  Attributes:
    dim: width of an embedding.
  """

  def __init__(self, path: str | Path):
    """Loads an encoder, e.g. clip-vit-large-patch14.

    Raises:
      FileNotFoundError: the folder holds none.
      ValueError: its packages are not installed, or it cannot be read.
    """
    super().__init__(
      path,
      'config.visual.encoder',
      'a visual encoder',
      'preprocessor_config.json',
    )
    if not hasattr(self._model, 'get_image_features'):
      raise ValueError(
        f'{path} holds a {type(self._model).__name__}, which gives no image '
        'embeddings: use a CLIP model.'
      )
    self.dim = self._model.config.projection_dim

  def _open(self, transformers: Any, local: dict[str, bool]) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(
      self.path, backend='pil', **local
    )

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Returns embeddings [N, dim] float32 of images, uint8 [N, H, W, 3]."""
    batch = self._prepare(images=list(images), return_tensors='pt')
    with self._torch.inference_mode():
      features = self._model.get_image_features(**batch)
    return getattr(features, 'pooler_output', features).numpy()
