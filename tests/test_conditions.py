"""What a model can be asked for, and what it refuses."""

import numpy as np
import pytest

from tests.text_cases import TEXT, encode_words, write_store
from vdm_jax.conditions import Conditions, Texts
from vdm_jax.config import ConfigError
from vdm_jax.data.text import TextSettings


@pytest.fixture
def conditions(tmp_path):
  """Five classes and the captions of `text_cases`."""
  write_store(tmp_path / 'text')
  return Conditions(5, Texts(TextSettings(max_length=6), 8, tmp_path))


@pytest.mark.parametrize('num_classes', [1, 2, 5, 96, 101])
def test_labels_come_all_in_turn(num_classes):
  labels = Conditions(num_classes).labels_in_turn(2 * num_classes)
  for half in np.split(labels, 2):
    assert sorted(half) == list(range(num_classes))


def test_the_first_labels_differ_in_every_attribute():
  attributes = np.unravel_index(Conditions(96).labels_in_turn(8), (4, 6, 4))
  assert min(len(set(values)) for values in attributes) >= 3


def test_captions_come_all_in_turn(conditions):
  captions = conditions.captions_in_turn(2 * len(TEXT))
  assert sorted(captions[: len(TEXT)]) == sorted(c.strip() for c in TEXT)
  cond = Conditions(0, conditions.texts).default(3)
  for caption, tokens, mask in zip(
    captions, cond['tokens'], cond['token_mask'], strict=False
  ):
    (words,) = encode_words([caption])
    np.testing.assert_array_equal(tokens[mask], words[:6].astype(np.float16))


def test_one_value_is_for_all(conditions):
  cond = conditions(3, label=2, prompt=TEXT[0])
  np.testing.assert_array_equal(cond['label'], [2, 2, 2])
  assert (cond['tokens'] == cond['tokens'][:1]).all()
  assert conditions(3) == {}


def test_no_words_are_no_condition(conditions):
  cond = conditions(2, prompt=['', TEXT[1]])
  assert not cond['token_mask'][0].any()
  assert cond['token_mask'][1].any()


@pytest.mark.parametrize(
  ('asked', 'message'),
  [
    ({'label': [0, 5]}, r'label is \[0, 5\]; give 2 classes in \[0, 4\]'),
    ({'label': -1}, r'label is -1; give 2 classes'),
    ({'label': [1]}, r'label is \[1\]; give 2 classes'),
    ({'label': [1.0, 2.0]}, 'give 2 classes'),
    ({'prompt': ['a']}, '1 prompts were given for 2 videos'),
    ({'prompt': [None, 'a']}, 'give one sentence or as many'),
    ({'prompt': 'not in the store'}, "text.encoder='' is no folder"),
  ],
)
def test_what_a_model_cannot_do_is_refused(conditions, asked, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    conditions(2, **asked)


def test_a_model_without_conditions_takes_none():
  conditions = Conditions()
  assert conditions.default(3) == {}
  with pytest.raises(ValueError, match='the model has no classes'):
    conditions(1, label=0)
  with pytest.raises(ValueError, match='trained without text'):
    conditions(1, prompt='a red circle')
  with pytest.raises(ValueError, match='without text: give a label'):
    Conditions(5)(1, prompt='a red circle')


def test_tokens_of_another_width_are_refused(tmp_path):
  write_store(tmp_path / 'text')
  texts = Texts(TextSettings(), 1024, tmp_path)
  with pytest.raises(ConfigError, match=r'text_dim is 1024, but .* 8 numbers'):
    texts([TEXT[0]])


def test_prompts_are_encoded_by_the_encoder_that_made_the_store(
  tmp_path, monkeypatch
):
  write_store(tmp_path / 'text')

  class Fake:
    dim, made = 8, 'words'

    def __init__(self, path, max_length, section):
      pass

    def fingerprint(self):
      return self.made

    def __call__(self, captions):
      return encode_words(captions)

  monkeypatch.setattr('vdm_jax.conditions.TextEncoder', Fake)
  settings = TextSettings(encoder='somewhere', max_length=6)
  cond = Texts(settings, 8, tmp_path)([TEXT[2], 'two new'])
  for caption, row in ((TEXT[2], 0), ('two new', 1)):
    (words,) = encode_words([caption])
    seen = cond['tokens'][row][cond['token_mask'][row]]
    np.testing.assert_array_equal(seen, words[:6].astype(np.float16))
  Fake.made = 'another'
  with pytest.raises(ValueError, match='not the one that made'):
    Texts(settings, 8, tmp_path)(['two new'])
