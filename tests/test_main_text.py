"""Text and cascades from the command line, with an encoder of no weights."""

import dataclasses
import json
from unittest import mock

import jax
import numpy as np
import pytest

import vdm_jax
from tests.command_line import (
  EIGHT,
  QUICK,
  SHAPES,
  command,
  fails,
  forget_flags,
)
from tests.text_cases import encode_words
from vdm_jax import commands

TEXT = SHAPES.replace(':smoke', ':text,smoke')
PROMPT = 'a red circle slides over a plain background'


class Words:
  """Stands for `Encoder`: a word is its hash."""

  def __init__(self, path, max_length, section='text'):
    if not path:
      raise FileNotFoundError(f"config.{section}.encoder='' is no folder")
    self.dim, self.max_length = 8, max_length

  def fingerprint(self):
    return 'words'

  def __call__(self, captions):
    return [tokens[: self.max_length] for tokens in encode_words(captions)]


@pytest.fixture(autouse=True, scope='module')
def _encoder():
  with mock.patch('vdm_jax.conditions.TextEncoder', Words):
    yield


@pytest.fixture(autouse=True)
def _clean_flags():
  yield
  forget_flags()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir with a finished run of two steps, of captions."""
  workdir = tmp_path_factory.mktemp('runs') / 'text'
  encoder = '--config.text.encoder=words'
  command(workdir, '--mode=encode', TEXT, encoder)
  # The store holds more captions than this run's data.
  data = '--config.data.frameskip=1', "--config.data.shapes=('circle',)"
  command(workdir, TEXT, *QUICK, encoder, *data)
  return workdir


def test_captions_are_encoded_trained_and_judged(trained):
  shares = json.loads((trained / 'evaluation.json').read_text())
  assert {'shape', 'colour', 'action'} <= shares['samples'].keys()
  store = vdm_jax.load(trained).conditions.texts.store()
  assert len(store) == 2 * 6 * 4 * 2  # shapes, colours, actions, backgrounds
  assert PROMPT in store


@pytest.mark.slow
def test_a_prompt_is_what_the_network_sees(trained, monkeypatch):
  saved = {}

  def keep(_, name, videos, fps):
    saved[0] = videos

  monkeypatch.setattr(commands, 'save_samples', keep)
  few = '--mode=sample', '--num=3', '--num_steps=2'
  moved = '--encoder=moved'
  command(trained, *few, moved, f'--prompt={PROMPT}', '--prompt=new words')
  model = vdm_jax.load(trained)
  key = jax.random.key(0)
  expected = model.sample(
    key, 3, prompt=[PROMPT, 'new words', PROMPT], num_steps=2
  )
  np.testing.assert_array_equal(saved[0], expected)
  # Two steps of training leave hardly a trace of the text; noise does.
  moved = jax.tree.map(
    lambda x: x + 0.1 * np.random.default_rng(x.size).normal(size=x.shape),
    model.params,
  )
  model = dataclasses.replace(model, params=moved)
  red, blue, _ = model.sample(
    key, 3, prompt=[PROMPT, PROMPT.replace('red', 'blue'), ''], num_steps=2
  )
  swapped = model.sample(
    key, 3, prompt=[PROMPT.replace('red', 'blue'), PROMPT, ''], num_steps=2
  )
  assert np.abs(swapped[0] - red).max() > 1e-3
  assert np.abs(swapped[1] - blue).max() > 1e-3


def test_what_cannot_be_read_or_encoded_is_said(trained, tmp_path, capsys):
  never = tmp_path / 'never'
  message = fails(capsys, never, TEXT, *EIGHT)
  assert 'holds no encoded captions: run --mode=encode' in message
  message = fails(capsys, never, '--mode=encode', TEXT)
  assert "text.encoder='' is no folder" in message
  message = fails(capsys, never, '--mode=encode', SHAPES)
  assert 'nothing to encode' in message
  message = fails(capsys, never, '--mode=encode')
  assert 'needs --config' in message
  message = fails(capsys, never, TEXT, '--config.network.text_dim=0')
  assert 'the network takes no text' in message
  assert not never.exists()
  message = fails(capsys, never, TEXT, '--config.network.classes=(2, 6, 4)')
  assert 'condition on one of them' in message
  np.save(tmp_path / 'one.npy', np.zeros((1, 1, 16, 16, 3), np.float32))
  same = f'--video={tmp_path / "one.npy"}', f'--coarse={trained}'
  message = fails(capsys, trained, '--mode=extend', *same)
  assert 'a whole number of times the frameskip' in message
  message = fails(capsys, trained, '--mode=sample', '--label=0')
  assert 'the model has no classes' in message


@pytest.fixture(scope='module')
def finer(tmp_path_factory):
  """A workdir of larger and faster videos, without any condition."""
  workdir = tmp_path_factory.mktemp('runs') / 'finer'
  size = '--config.data.height=32', '--config.data.width=32'
  plain = '--config.network.classes=()'
  rest = *QUICK, *size, plain
  command(workdir, SHAPES, *rest, '--config.data.frameskip=0.5')
  return workdir


@pytest.mark.slow
def test_a_cascade_is_one_command(trained, finer, tmp_path, capsys):
  few = '--num=2', '--num_steps=2', '--guidance=2', '--encoder=moved'
  stages = f'--stages={trained},{finer}', f'--prompt={PROMPT}'
  command(tmp_path, '--mode=cascade', *stages, *few)
  samples = tmp_path / 'samples'
  small, large = (
    vdm_jax.video.load(samples / f'cascade_seed_0_stage_{n}.gif')
    for n in range(2)
  )
  assert small.shape[0] == 4
  assert large.shape[0] == 8
  assert capsys.readouterr().out.count(' is in ') == 2
  command(tmp_path, '--mode=cascade', *stages, *few)
  assert capsys.readouterr().out.count(' was there in ') == 2
  turned = f'--stages={finer},{trained}'
  message = fails(capsys, tmp_path, '--mode=cascade', turned)
  assert 'a whole number of times larger' in message
  assert 'needs --stages' in fails(capsys, tmp_path, '--mode=cascade')
  message = fails(capsys, finer, '--mode=sample', '--guidance=2')
  assert 'needs something to guide to' in message
  message = fails(capsys, finer, '--mode=sample', f'--prompt={PROMPT}')
  assert 'trained without text' in message
