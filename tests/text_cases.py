"""Captions, and an encoder that needs no weights: a word is its hash."""

import hashlib

import numpy as np

from vdm_jax.data.text import write

TEXT = ['a red circle', 'ein grüner Kreis', 'a "quoted"\nline', '犬', 'x ' * 20]


def encode_words(captions, dim=8):
  """Tokens [l, dim] of each caption: 8 numbers from each word's hash."""
  return [
    np.stack(
      [
        np.frombuffer(hashlib.sha256(word.encode()).digest()[:dim], np.uint8)
        / 64.0
        for word in caption.split()
      ]
    )
    for caption in captions
  ]


def write_store(path, captions=TEXT):
  return write(path, captions, encode_words, 'words')
