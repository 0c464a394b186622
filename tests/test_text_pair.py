"""Two text encoders, PYoCo's T5 and CLIP: read together, hidden apart."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import vdm_jax
from tests.command_line import CONFIGS, QUICK, command, forget_flags
from tests.parameters import moved, moved_of
from tests.pipeline_cases import take
from tests.text_cases import encode_words, tiny_encoder, write_store
from vdm_jax import job
from vdm_jax.conditions import Conditions, Texts
from vdm_jax.config import ConfigError, shrink
from vdm_jax.data.joint import Joint
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.pack import pack
from vdm_jax.data.packed import Packed
from vdm_jax.data.text import Captioned, ClipTextSettings, TextSettings, write
from vdm_jax.networks.attention import CrossAttention
from vdm_jax.networks.conditions import Caption, read_captions
from vdm_jax.networks.unet import UNet
from vdm_jax.systems import conditioning
from vdm_jax.systems.vdm import VDM

BOTH = 'token_mask', 'clip_token_mask'


def network(**changes):
  return UNet(
    **{
      'width': 8,
      'multipliers': (1,),
      'num_blocks': 1,
      'attention_resolutions': (),
      'head_dim': 8,
      'embedding_dim': 16,
      'embedding_layers': 1,
      'text_dim': 8,
      'clip_text_dim': 6,
      **changes,
    }
  )


FORMS = {
  'pool': network(),
  'cross': network(text='cross', null_text='zero'),
}


@functools.cache
def trained(form):
  """A network of a video of three frames and two images, and its parameters."""
  system = VDM(FORMS[form])
  params = moved_of(system, (5, 4, 4, 3))
  z = jax.random.normal(jax.random.key(1), (2, 5, 4, 4, 3))

  @jax.jit
  def run(params, cond):
    return system.output(params, z, jnp.zeros(2), cond, num_images=2)

  return functools.partial(run, params)


KEY = jax.random.key(0)


def captions(lead=(2, 3), seed=0):
  """Tokens of both encoders; the last of each sequence is padding."""
  rng = np.random.default_rng(seed)
  cond = {}
  for prefix, length, dim in (('', 4, 8), ('clip_', 5, 6)):
    tokens = rng.normal(size=(*lead, length, dim)).astype(np.float32)
    mask = np.broadcast_to(np.arange(length) < length - 1, (*lead, length))
    cond |= {f'{prefix}tokens': tokens, f'{prefix}token_mask': mask}
  return jax.tree.map(jnp.asarray, cond)


# --- in the network ----------------------------------------------------------


class Reads(nn.Module):
  """What pixels find in the captions of two encoders."""

  @nn.compact
  def __call__(self, x, cond):
    given = [
      Caption('text', 8, cond['tokens'], cond['token_mask']),
      Caption('clip_text', 6, cond['clip_tokens'], cond['clip_token_mask']),
    ]
    _, tokens, mask = read_captions(
      given, len(x), 1, how='cross', null='zero', features=10, dtype='float32'
    )
    return CrossAttention(4, name='cross')(x, tokens, mask)


def test_pixels_attend_to_both_sequences_under_one_softmax():
  """Against a loop in float64."""
  x = np.random.default_rng(1).normal(size=(2, 1, 2, 2, 8)).astype(np.float32)
  cond = captions((2,))
  variables = moved(jax.eval_shape(Reads().init, KEY, jnp.asarray(x), cond))
  found = jax.jit(Reads().apply)(variables, jnp.asarray(x), cond) - x
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables['params'])
  cross = p['cross']

  def normed(a, norm):
    a = (a - a.mean(-1, keepdims=True)) / np.sqrt(
      a.var(-1, keepdims=True) + 1e-6
    )
    return a * norm['scale'] + norm['bias']

  for row in range(2):
    tokens = np.concatenate(
      [
        np.asarray(cond[f'{prefix}tokens'][row], np.float64)[
          np.asarray(cond[f'{prefix}token_mask'][row])
        ]
        @ widened
        for prefix, widened in (
          ('', np.eye(8)),
          ('clip_', p['clip_text_tokens']['kernel']),
        )
      ]
    )
    assert tokens.shape == (3 + 4, 8)
    kv = normed(tokens, cross['token_norm']) @ cross['key_value']['kernel']
    key, value = np.split(kv + cross['key_value']['bias'], 2, -1)
    pixels = x[row, 0].reshape(4, 8).astype(np.float64)
    # Two groups of four channels, each over the pixels of a frame.
    grouped = pixels.reshape(4, 2, 4)
    mean = grouped.mean((0, 2), keepdims=True)
    var = grouped.var((0, 2), keepdims=True)
    centred = ((grouped - mean) / np.sqrt(var + 1e-6)).reshape(4, 8)
    query = centred * cross['norm']['scale'] + cross['norm']['bias']
    kernel = cross['query']['kernel'].reshape(8, 8)
    query = query @ kernel + cross['query']['bias']
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
      weight = np.exp(query[:, part] @ key[:, part].T / 2)
      weight /= weight.sum(-1, keepdims=True)
      heads.append(weight @ value[:, part])
    out = np.concatenate(heads, -1) @ cross['out']['kernel'].reshape(8, 8)
    expected = out + cross['out']['bias']
    np.testing.assert_allclose(
      found[row].reshape(4, 8), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('prefix', ['', 'clip_'])
def test_neither_padding_nor_order_matters(form, prefix):
  run, cond = trained(form), captions()
  base, name = run(cond), f'{prefix}tokens'
  tokens, mask = cond[name], cond[f'{prefix}token_mask']
  other = jnp.where(mask[..., None], tokens, 99.0)
  np.testing.assert_array_equal(run(cond | {name: other}), base)
  turned = {
    name: tokens[..., ::-1, :],
    f'{prefix}token_mask': mask[..., ::-1],
  }
  np.testing.assert_allclose(run(cond | turned), base, rtol=1e-3, atol=1e-4)
  changed = run(cond | {name: -tokens})
  assert np.abs(changed - base).max() > 1e-2


@pytest.mark.parametrize('form', FORMS)
def test_a_hidden_caption_is_none_by_either_encoder(form):
  run, cond = trained(form), captions()
  nothing = {name: jnp.zeros_like(cond[name]) for name in BOTH}
  none = run({})
  np.testing.assert_allclose(run(cond | nothing), none, rtol=1e-3, atol=1e-4)
  seen = [run(cond)]
  for name in BOTH:
    seen.append(run(cond | {name: nothing[name]}))
  for place, one in enumerate(seen):
    for other in (*seen[:place], none):
      assert np.abs(one - other).max() > 1e-2


def test_the_fixed_null_is_a_token_of_zeros():
  """It has no parameters, and remains zeros on its way to the attention."""
  run, cond = trained('cross'), captions()
  hidden = {name: jnp.zeros_like(cond[name]) for name in BOTH}
  zeros = {
    name: jnp.zeros_like(cond[name]) for name in ('tokens', 'clip_tokens')
  }
  one = {name: hidden[name].at[..., 2].set(True) for name in BOTH}
  np.testing.assert_allclose(
    run(cond | hidden), run(cond | zeros | one), rtol=1e-4, atol=1e-5
  )

  def layers(**changes):
    shapes = jax.eval_shape(
      lambda key: VDM(network(**changes)).init(key, (2, 4, 4, 3)), KEY
    )
    return {name for name in shapes if 'text' in name}, shapes

  names, shapes = layers(text='cross', null_text='zero')
  assert names == {'clip_text_tokens'}
  assert set(shapes['clip_text_tokens']) == {'kernel'}
  assert layers()[0] == {'no_text', 'text', 'no_clip_text', 'clip_text'}
  # As they are in checkpoints of one encoder.
  assert layers(clip_text_dim=0)[0] == {'no_text', 'text'}
  assert layers(clip_text_dim=0, text='cross')[0] == {'no_text'}
  assert layers(clip_text_dim=0, null_text='zero')[0] == {'text'}


@pytest.mark.parametrize('form', FORMS)
def test_each_image_keeps_its_own_tokens(form):
  """Those of the second encoder move not a bit of any other frame."""
  run, cond = trained(form), captions()
  base, tokens = run(cond), cond['clip_tokens']
  for group, frames in ((0, [0, 1, 2]), (1, [3]), (2, [4])):
    turned = tokens.at[1, group].multiply(-1)
    change = np.abs(run(cond | {'clip_tokens': turned}) - base).max((2, 3, 4))
    expected = np.zeros((2, 5), bool)
    expected[1, frames] = True
    np.testing.assert_array_equal(change > 0, expected)


def test_a_second_encoder_needs_a_first():
  with pytest.raises(ValueError, match='set text_dim to the width of the firs'):
    network(text_dim=0).check(4, 4)
  with pytest.raises(ValueError, match='network of clip_text_dim=0'):
    jax.eval_shape(
      lambda: network(clip_text_dim=0).init(
        KEY, jnp.zeros((1, 1, 4, 4, 3)), jnp.zeros(1), clip_tokens=jnp.ones(6)
      )
    )
  with pytest.raises(ValueError, match='clip_dropout needs .* clip_text_dim'):
    VDM(network(clip_text_dim=0), clip_dropout=0.2)


# --- hidden ------------------------------------------------------------------


def batch(rows, images):
  videos = {
    'video': jnp.zeros((rows, 1, 1, 1, 1)),
    'images': jnp.zeros((rows, images, 1, 1, 1)),
  }
  beside = captions((rows, images))
  return (
    videos
    | captions((rows,))
    | {f'image_{name}': value for name, value in beside.items()}
  )


def test_each_encoders_tokens_are_hidden_by_themselves():
  """Shares of all four cases, within four standard deviations."""
  rows, images = 5000, 2
  system = VDM(network(), cond_dropout=0.25, clip_dropout=0.2)
  drawn = system.draw(KEY, batch(rows, images))
  for prefix, count in (('', rows), ('image_', rows * images)):
    first, second = (
      np.asarray(~drawn[prefix + name].any(-1)).ravel() for name in BOTH
    )
    assert first.shape == (count,)
    for a, b, share in (
      (first, second, 0.25 * 0.2),
      (first, ~second, 0.25 * 0.8),
      (~first, second, 0.75 * 0.2),
      (~first, ~second, 0.75 * 0.8),
    ):
      deviation = np.sqrt(share * (1 - share) / count)
      assert abs((a & b).mean() - share) < 4 * deviation
  # What is shown is whole, and images are not hidden as their videos are.
  shown = np.asarray(drawn['clip_token_mask'].sum(-1))
  assert set(shown) == {0, 4}
  of_images = np.asarray(drawn['image_clip_token_mask'].any(-1))
  assert len(np.unique(np.column_stack([shown > 0, of_images]), axis=0)) == 8


def test_a_second_encoder_changes_no_other_draw():
  given = batch(64, 2)
  one, together, apart = (
    VDM(network(**options), cond_dropout=0.5, **share).draw(KEY, given)
    for options, share in (
      ({'clip_text_dim': 0}, {}),
      ({}, {}),
      ({}, {'clip_dropout': 0.5}),
    )
  )
  assert 'clip_tokens' not in one
  for name, value in one.items():
    np.testing.assert_array_equal(together[name], value)
    np.testing.assert_array_equal(apart[name], value)
  for prefix in ('', 'image_'):
    first, second = (together[prefix + name].any(-1) for name in BOTH)
    np.testing.assert_array_equal(first, second)
    other = apart[f'{prefix}clip_token_mask'].any(-1)
    assert 0.2 < np.mean(np.asarray(other) != np.asarray(first)) < 0.8


def test_guidance_compares_with_no_caption_by_either():
  cond = captions((3,))
  both = conditioning.with_nothing(cond, 0)
  for name in BOTH:
    np.testing.assert_array_equal(both[name][:3], cond[name])
    assert not both[name][3:].any()
  assert conditioning.with_nothing(
    {k: v for k, v in cond.items() if k.startswith('clip')}, 0
  )
  beside = captions((3, 4))
  for name, value in conditioning.of_video(beside).items():
    np.testing.assert_array_equal(value, beside[name][:, 0])
    np.testing.assert_array_equal(conditioning.of_video(cond)[name], cond[name])


# --- along with the clips ----------------------------------------------------

SIX = functools.partial(encode_words, dim=6)


def shapes():
  return MovingShapes(
    num_frames=2, height=8, width=8, num_clips=6, captions=True
  )


def stores(path):
  """Stores of the same captions by two encoders, by section."""
  texts = shapes().texts()
  return {
    'text': write_store(path / 'text', texts),
    'clip_text': write(path / 'clip_text', texts, SIX, 'other words'),
  }


def captioned(path, *sections):
  source, opened = shapes(), stores(path)
  for section in sections:
    length = {'text': 12, 'clip_text': 7}[section]
    source = Captioned(source, opened[section], length, section)
  return source


def as_encoded(caption, prefix):
  """What a network should see of a caption."""
  (words,) = SIX([caption]) if prefix else encode_words([caption])
  return words[: 7 if prefix else 12].astype(np.float16)


def test_clips_and_images_carry_the_tokens_of_both(tmp_path):
  source = Joint(captioned(tmp_path, 'text', 'clip_text'), 2)
  assert (source.text_dim, source.clip_text_dim) == (8, 6)
  _, rows = take(1, source)
  assert rows['clip_tokens'].shape[1:] == (7, 6)
  assert rows['image_clip_tokens'].shape[1:] == (2, 7, 6)
  assert rows['image_clip_token_mask'].dtype == bool
  for row, caption in enumerate(rows['caption']):
    for prefix in ('', 'clip_'):
      tokens = rows[f'{prefix}tokens'][row]
      np.testing.assert_array_equal(
        tokens[rows[f'{prefix}token_mask'][row]], as_encoded(caption, prefix)
      )
  by_both = {}  # a caption's tokens by one encoder go with those by the other
  for caption in shapes().texts():
    by_both[as_encoded(caption, '').tobytes()] = as_encoded(caption, 'clip_')
  for row in np.ndindex(rows['image_token_mask'].shape[:2]):
    one, other = (
      rows[f'image_{prefix}tokens'][row][rows[f'image_{prefix}token_mask'][row]]
      for prefix in ('', 'clip_')
    )
    np.testing.assert_array_equal(other, by_both[one.tobytes()])


def test_both_encoders_are_part_of_the_data(tmp_path):
  kinds = (), ('text',), ('clip_text',), ('text', 'clip_text')
  prints = {captioned(tmp_path, *kind).fingerprint() for kind in kinds}
  assert len(prints) == 4
  both = captioned(tmp_path, 'text', 'clip_text')
  first, texts = both.source, shapes().texts()
  other = write(tmp_path / 'other', texts, SIX, 'an encoder of its own')
  changed = {
    Captioned(first, both.store, 8, 'clip_text').fingerprint(),
    Captioned(first, other, 7, 'clip_text').fingerprint(),
    Captioned(first.source, both.store, 7).fingerprint(),
  }
  assert len(changed - prints) == 3


def wanted(path, *, clip_dim=6):
  """What a model of both encoders can be asked for."""
  return Conditions(
    texts=Texts(TextSettings(max_length=12), 8, path),
    clip_texts=Texts(ClipTextSettings(max_length=7), clip_dim, path),
  )


def read_pack(path):
  return Packed(str(path), 2, 8, 8, captions=True)


def test_a_pack_carries_both_or_is_refused(tmp_path):
  source, reader = captioned(tmp_path, 'text', 'clip_text'), tmp_path / 'both'
  pack(source, reader, codec='raw')
  reader = read_pack(reader)
  assert (reader.text_dim, reader.clip_text_dim) == (8, 6)
  assert wanted(tmp_path).along(reader) is reader
  for index in range(3):
    clip = reader.clip(index, np.random.default_rng(0))
    whole = source.clip(index, np.random.default_rng((0, index)))
    for name in ('tokens', 'clip_tokens', *BOTH):
      np.testing.assert_array_equal(clip[name], whole[name])
  with pytest.raises(ConfigError, match='clip_text_dim is 9, but .* 6 numbers'):
    wanted(tmp_path, clip_dim=9).along(reader)
  for section in ('text', 'clip_text'):
    pack(captioned(tmp_path, section), tmp_path / section[:2], codec='raw')
    alone = read_pack(tmp_path / section[:2])
    with pytest.raises(ConfigError, match='of one text encoder, but the netw'):
      wanted(tmp_path).along(alone)
  pack(shapes(), tmp_path / 'none', codec='raw')
  clip = wanted(tmp_path).along(read_pack(tmp_path / 'none'))
  assert clip.clip(0, np.random.default_rng(0)).keys() >= {'tokens', *BOTH}
  # A pack of before there was a second encoder does not name it.
  index = json.loads((tmp_path / 'none' / 'packed.json').read_text())
  assert 'clip_text_dim' not in index


# --- in a job ----------------------------------------------------------------


def config(**changes):
  sections = {
    'data': {
      'name': 'moving_shapes',
      'num_frames': 2,
      'height': 8,
      'width': 8,
      'num_clips': 6,
      'captions': True,
    },
    'system': {'name': 'vdm', 'cond_dropout': 0.25, 'clip_dropout': 0.2},
    'network': {
      'name': 'unet',
      'width': 8,
      'multipliers': (1,),
      'text_dim': 8,
      'clip_text_dim': 6,
      'text': 'cross',
      'null_text': 'zero',
    },
    'text': {'encoder': 'T5', 'max_length': 12},
    'clip_text': {'encoder': 'CLIP', 'max_length': 7},
    'train': {'num_steps': 1, 'batch_size': 2},
  }
  sections['network'] |= changes.pop('network', {})
  return sections | changes


class Words:
  """Stands for `TextEncoder`: T5 has words of 8 numbers, CLIP of 6."""

  def __init__(self, path, max_length, section):
    if path not in ('T5', 'CLIP'):
      raise FileNotFoundError(f'config.{section}.encoder={path!r}')
    assert section == {'T5': 'text', 'CLIP': 'clip_text'}[path]
    self.path, self.dim = path, {'T5': 8, 'CLIP': 6}[path]

  def fingerprint(self):
    return self.path

  def __call__(self, captions):
    return encode_words(captions, self.dim)


def test_a_job_encodes_and_reads_both(tmp_path, monkeypatch):
  monkeypatch.setattr('vdm_jax.conditions.TextEncoder', Words)
  parts = job.build(config())
  with pytest.raises(FileNotFoundError, match='--mode=encode'):
    parts.source(tmp_path)
  said = parts.encode(tmp_path)
  assert [line.split()[-1] for line in said] == [
    f'{tmp_path / name}.' for name in ('text', 'clip_text')
  ]
  clip = parts.source(tmp_path).clip(0, np.random.default_rng(0))
  asked = parts.conditions(tmp_path)(1, prompt=clip['caption'])
  for prefix, length in (('', 12), ('clip_', 7)):
    tokens = clip[f'{prefix}tokens'][clip[f'{prefix}token_mask']]
    np.testing.assert_array_equal(tokens, as_encoded(clip['caption'], prefix))
    for name in ('tokens', 'token_mask'):
      np.testing.assert_array_equal(
        asked[prefix + name][0], clip[prefix + name]
      )
    assert len(clip[f'{prefix}tokens']) == length
  new = parts.conditions(tmp_path)(1, prompt='words of no store')
  np.testing.assert_array_equal(
    new['clip_tokens'][0, :4], as_encoded('words of no store', 'clip_')
  )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'network': {'text_dim': 0}}, 'clip_text_dim=6 is of a second'),
    ({'network': {'clip_text_dim': 0}}, 'clip_dropout needs a network'),
    (
      {'network': {'clip_text_dim': 0}, 'system': {'name': 'vdm'}},
      r'config\.clip_text is set.* config\.network\.clip_text_dim to',
    ),
    (
      {'clip_text': {'max_length': 0}},
      r'config\.clip_text\.max_length=0 is not allowed',
    ),
    ({'clip_text': {'encoders': ''}}, r'config\.clip_text\.encoders is not'),
  ],
)
def test_sections_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    job.build(config(**changes))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'clip_text': {}}, r"config\.clip_text\.encoder=''"),
    (
      {'network': {'clip_text_dim': 5}},
      r'config\.network\.clip_text_dim is 5, but the encoder has .* 6',
    ),
    (
      {'clip_text': {'encoder': 'CLIP', 'store': 'WORKDIR/text'}},
      'are one: give two',
    ),
  ],
)
def test_what_cannot_encode_is_refused_before_hours_are_spent(
  tmp_path, monkeypatch, changes, message
):
  monkeypatch.setattr('vdm_jax.conditions.TextEncoder', Words)
  text = json.dumps(config(**changes)).replace('WORKDIR', str(tmp_path))
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    job.build(json.loads(text)).encode(tmp_path)
  assert not list(tmp_path.iterdir())


def test_another_encoder_for_prompts_is_refused_by_its_section(
  tmp_path, monkeypatch
):
  monkeypatch.setattr('vdm_jax.conditions.TextEncoder', Words)
  stores(tmp_path)
  ask = Texts(ClipTextSettings(encoder='CLIP'), 6, tmp_path)
  with pytest.raises(ValueError, match=r'set config\.clip_text\.encoder to'):
    ask(['words of no store'])


def test_places_may_change_and_lengths_may_not(tmp_path):
  job.open_workdir(tmp_path, config())
  elsewhere = {'encoder': 'moved', 'store': 'there', 'max_length': 7}
  job.open_workdir(tmp_path, config(clip_text=elsewhere))
  with pytest.raises(ConfigError, match=r'config\.clip_text\.max_length is 9'):
    job.open_workdir(tmp_path, config(clip_text={'max_length': 9}))


# --- from the command line ---------------------------------------------------

SMOKE = """

_whole = get_config


def get_config(variant=''):
  config = _whole('text')
  config.system.update(cond_dropout=0.25, clip_dropout=0.2)
  config.network.update(clip_text_dim=768, text='cross', null_text='zero')
  config.clip_text = {'encoder': '', 'store': '', 'max_length': 16}
  config.train.num_images = 2
  shrink(config)
  return config
"""


def test_a_smoke_variant_has_both_small():
  scope = {}
  text = (CONFIGS / 'moving_shapes.py').read_text(encoding='utf-8') + SMOKE
  exec(compile(text, 'moving_shapes', 'exec'), scope)
  made = scope['get_config']()
  assert (made.network.text_dim, made.network.clip_text_dim) == (8, 6)
  job.build(made.to_dict())
  other = ConfigDict(made)
  other.network.clip_text_dim = 0
  shrink(other)
  assert not other.network.clip_text_dim


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_t5_and_clip_from_the_command_line(tmp_path):
  """Encoded, trained, asked for and guided by, with random weights."""
  for kind, dim in (('t5', 8), ('clip', 6)):
    tiny_encoder(tmp_path / kind, kind, dim)
  path = tmp_path / 'config.py'
  text = (CONFIGS / 'moving_shapes.py').read_text(encoding='utf-8') + SMOKE
  path.write_text(text, encoding='utf-8')
  flags = (
    f'--config={path}',
    f'--config.text.encoder={tmp_path / "t5"}',
    f'--config.clip_text.encoder={tmp_path / "clip"}',
  )
  workdir = tmp_path / 'run'
  try:
    command(workdir, '--mode=encode', *flags)
    command(workdir, *flags, *QUICK)
    few = '--mode=sample', '--num=2', '--num_steps=2', '--guidance=2'
    command(workdir, *few, '--prompt=a red cat', f'--encoder={tmp_path / "t5"}')
  finally:
    forget_flags()
  model = vdm_jax.load(workdir)
  cond = model.conditions(1, prompt='a red cat')
  assert cond['tokens'].shape == (1, 16, 8)
  assert cond['clip_tokens'].shape == (1, 16, 6)
  assert all(cond[name].any() for name in cond)
