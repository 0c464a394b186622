"""Text encoders from a folder, through transformers' PyTorch classes.

BERT-large is what VDM uses (section 4.3), T5 and CLIP's what PYoCo does; any
encoder that `AutoModel` opens works, and of T5 and CLIP the half that reads
text.  Nothing is downloaded and no
code from the folder is run: weights are read from safetensors.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_KINDS = ('*.json', '*.txt', '*.model', '*.safetensors')


class Encoder:
  """Tokens of captions, the last hidden states of a frozen network.

  Attributes:
    dim: width of a token.
    max_length: most tokens of a caption.
  """

  def __init__(self, path: str | Path, max_length: int):
    """Loads an encoder and its tokenizer.

    Raises:
      FileNotFoundError: the folder holds none.
      ValueError: its packages are not installed, or it cannot be read.
    """
    self.path, self.max_length = Path(path), max_length
    if not path or not (self.path / 'config.json').is_file():
      raise FileNotFoundError(
        f'config.text.encoder={str(path)!r} is no folder with a text encoder: '
        'it must hold config.json, the files of the tokenizer and '
        'model.safetensors, as bert-large-uncased does.'
      )
    try:
      import torch  # pyright: ignore[reportMissingImports]
      import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
      raise ValueError(
        f"{error.name} is not installed: pip install 'vdm_jax[text]' brings "
        'what encodes text.'
      ) from None
    self._torch = torch
    local = {'local_files_only': True, 'trust_remote_code': False}
    try:
      self._tokenizer = transformers.AutoTokenizer.from_pretrained(
        path, **local
      )
      model = transformers.AutoModel.from_pretrained(
        path, use_safetensors=True, dtype=torch.float32, **local
      )
    except Exception as error:  # of many kinds, some of them bare Exceptions
      first = [*str(error).strip().splitlines(), type(error).__name__][0]
      raise ValueError(
        f'the text encoder in {path} cannot be read: {first}'
      ) from error
    if hasattr(model, 'text_model'):  # CLIP
      model = model.text_model
    elif model.config.is_encoder_decoder:  # T5
      model = model.get_encoder()
    self._model = model.eval()
    self.dim = model.config.hidden_size

  def fingerprint(self) -> str:
    """Short hash of the encoder's files and of `max_length`."""
    digest = hashlib.sha256(str(self.max_length).encode())
    for path in sorted(p for kind in _KINDS for p in self.path.glob(kind)):
      digest.update(path.name.encode())
      with path.open('rb') as file:
        digest.update(hashlib.file_digest(file, 'sha256').digest())
    return digest.hexdigest()[:16]

  def __call__(self, captions: Sequence[str]) -> list[np.ndarray]:
    """Returns tokens [l, dim] float32 of each caption, special ones too."""
    batch = self._tokenizer(
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
