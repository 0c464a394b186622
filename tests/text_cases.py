"""Captions, and an encoder that needs no weights: a word is its hash."""

import hashlib

import numpy as np
import pytest

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


def tiny_encoder(path, kind, dim):
  """Saves a T5 or CLIP of random weights; returns the half that reads text."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  tokenizers = pytest.importorskip('tokenizers')
  words = {word: i for i, word in enumerate(('<pad>', '<unk>', 'a', 'cat'))}
  level = tokenizers.models.WordLevel(words, unk_token='<unk>')
  raw = tokenizers.Tokenizer(level)
  raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=raw, pad_token='<pad>', unk_token='<unk>'
  )
  tokenizer.save_pretrained(path)
  torch.manual_seed(0)
  if kind == 't5':
    sizes = {'d_model': dim, 'd_kv': 8, 'd_ff': 16, 'num_layers': 1}
    config = transformers.T5Config(vocab_size=4, num_heads=2, **sizes)
    model = transformers.T5Model(config).eval()
    half = model.get_encoder()
  else:
    sizes = {
      'hidden_size': dim,
      'intermediate_size': 16,
      'num_hidden_layers': 1,
      'num_attention_heads': 2,
    }
    config = transformers.CLIPConfig(
      text_config={'vocab_size': 4, 'eos_token_id': 3, **sizes},
      vision_config={**sizes, 'image_size': 8, 'patch_size': 4},
    )
    model = transformers.CLIPModel(config).eval()
    half = model.text_model
  model.save_pretrained(path)
  return half
