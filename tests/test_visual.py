"""Visual embeddings: of the very clip they come with, stored, hidden, asked."""

import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import moved_of
from tests.pipeline_cases import take
from tests.test_main_text import Words
from tests.test_networks import random_variables
from vdm_jax import job
from vdm_jax.config import ConfigError
from vdm_jax.data import visual
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.joint import Joint
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.pack import pack
from vdm_jax.data.packed import Packed
from vdm_jax.data.pictures import Pictured, Pictures
from vdm_jax.data.pixels import to_uint8
from vdm_jax.data.visual import VisualSettings, VisualStore, middle, write
from vdm_jax.diffusion.noise import BaseResidual
from vdm_jax.networks.text import VisualTokens
from vdm_jax.networks.unet import UNet
from vdm_jax.systems.conditioning import hide
from vdm_jax.systems.vdm import VDM


class Windows:
  """Clips of 4 frames out of videos of 50, at a place that `rng` chooses."""

  def __init__(self, size=7, bad=()):
    self.size, self.bad = size, bad

  def __len__(self):
    return self.size

  def fingerprint(self):
    return f'windows of {self.size}'

  def clip(self, index, rng):
    if index in self.bad:
      raise UnreadableClip(f'{index}.mp4', 'corrupt: on purpose')
    frames = int(rng.integers(47)) + np.arange(4)
    video = np.empty((4, 8, 8, 3), np.uint8)
    video[..., 0], video[..., 2] = index + 1, 1
    video[..., 1] = frames[:, None, None] + 1
    return {'video': video}

  def image(self, index, rng):
    return {'video': self.clip(index, rng)['video'][:1]}


def colours(images):
  """An encoder whose embeddings say which frame of which video it was."""
  return images[:, 0, 0].astype(np.float32)


def says(clip):
  """The (video, frame) that a clip's embedding names."""
  names = clip['visual'] / clip['visual'][2]
  return np.rint(names[:2]).astype(int).tolist()


def test_the_middle_frame_is_the_papers():
  """Frame floor(N / 2) counted from 1: the eighth of 16."""
  assert [middle(n) for n in (16, 15, 2, 1)] == [7, 6, 0, 0]


def test_an_embedding_is_that_of_the_base_frame():
  """Two modules say which that is, as data imports no diffusion."""
  for frames in range(1, 41):
    assert BaseResidual().index(frames) == middle(frames)


def test_an_embedding_is_that_of_the_clip_it_comes_with(tmp_path):
  source = Windows()
  store = write(tmp_path / 's', source, colours, 'colours', 3)
  pictured = pickle.loads(pickle.dumps(Pictured(source, store)))
  seen = set()
  for seed in range(60):
    clip = pictured.clip(seed % 7, np.random.default_rng(seed))
    frame = clip['video'][middle(4), 0, 0]
    assert says(clip) == [seed % 7 + 1, frame[1]] == frame[:2].tolist()
    np.testing.assert_allclose(
      np.linalg.norm(clip['visual']), 3**0.5, rtol=1e-3
    )
    seen.add((seed % 7, frame[1]))
  assert 14 < len(seen) <= 21  # three clips of each of seven videos


def test_what_cannot_be_read_has_no_embedding(tmp_path, monkeypatch):
  monkeypatch.setattr(visual, '_CHUNK', 2)
  source = Windows(bad=(0, 1, 5))  # the whole first chunk, and one more
  store = write(tmp_path / 's', source, colours, 'colours')
  pictured = Pictured(source, store)
  for index in (0, 1, 5):
    with pytest.raises(UnreadableClip, match='without an embedding'):
      pictured.clip(index, np.random.default_rng(0))
  assert says(pictured.clip(4, np.random.default_rng(0)))[0] == 5
  with pytest.raises(ValueError, match='none of 7 clips'):
    write(tmp_path / 'none', Windows(bad=range(7)), colours, 'colours')
  with pytest.raises(ValueError, match='not finite'):
    write(tmp_path / 'n', source, lambda x: colours(x) * np.nan, 'nan')
  assert not (tmp_path / 'none').exists()
  assert not (tmp_path / 'n').exists()


def test_encoding_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
  monkeypatch.setattr(visual, '_CHUNK', 2)
  seen = []

  def encode(images, stop=99):
    if len(seen) + len(images) > stop:
      raise KeyboardInterrupt
    seen.extend(images[:, 0, 0, 0].tolist())
    return colours(images)

  with pytest.raises(KeyboardInterrupt):
    write(tmp_path / 's', Windows(), functools.partial(encode, stop=4), 'c')
  with pytest.raises(FileNotFoundError, match='--mode=encode'):
    VisualStore(tmp_path / 's')
  store = write(tmp_path / 's', Windows(), encode, 'c')
  assert seen == [1, 2, 3, 4, 5, 6, 7]  # each once
  straight = write(tmp_path / 'straight', Windows(), colours, 'c')
  for place in range(7):
    np.testing.assert_array_equal(store[place], straight[place])
  assert not list(tmp_path.glob('*.partial'))
  assert sorted(p.name for p in (tmp_path / 's').iterdir()) == [
    'embeddings.npy',
    'store.json',
  ]


def test_a_store_of_other_data_or_another_format_is_refused(tmp_path):
  store = write(tmp_path / 's', Windows(), colours, 'c')
  with pytest.raises(ValueError, match='of other data: run --mode=encode'):
    Pictured(Windows(8), store)
  (tmp_path / 'mine').mkdir()
  with pytest.raises(FileExistsError, match='no store'):
    write(tmp_path / 'mine', Windows(), colours, 'c')
  about = json.loads((tmp_path / 's' / 'store.json').read_text())
  changed = json.dumps(about | {'format': 99})
  (tmp_path / 's' / 'store.json').write_text(changed)
  with pytest.raises(ValueError, match='format 99'):
    VisualStore(tmp_path / 's')


def shapes(**options):
  return MovingShapes(num_frames=3, height=8, width=8, **options)


def test_a_thumbnail_is_the_mean_colour_of_each_cell():
  clip = Pictured(shapes()).clip(5, np.random.default_rng(0))
  frame = clip['video'][0] / 127.5 - 1
  cells = np.array(
    [
      frame[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1))
      for y in range(4)
      for x in range(4)
    ]
  ).ravel()
  expected = cells / np.sqrt(np.mean(cells**2))
  np.testing.assert_allclose(clip['visual'], expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match='divisible by 4'):
    visual.thumbnail(np.zeros((1, 8, 10, 3), np.uint8))


def test_images_beside_clips_carry_theirs():
  _, batch = take(1, Joint(Pictured(shapes()), 2))
  for row in range(len(batch['images'])):
    for image in range(2):
      frame = batch['images'][row, image]
      cells = frame.reshape(4, 2, 4, 2, 3).mean((1, 3)).reshape(1, -1)
      np.testing.assert_allclose(
        batch['image_visual'][row, image],
        visual.normalize(cells)[0],
        rtol=1e-3,
        atol=1e-3,
      )


def test_a_pack_keeps_them(tmp_path):
  source = Pictured(shapes(num_clips=5))
  pack(source, tmp_path, codec='raw')
  reader = Packed(str(tmp_path), 3, 8, 8)
  assert reader.visual_dim == source.visual_dim == 48
  for index in range(5):
    one, other = (
      s.clip(index, np.random.default_rng(0)) for s in (reader, source)
    )
    np.testing.assert_allclose(one['visual'], other['visual'], rtol=1e-3)
  pictures = Pictures(VisualSettings(), 48, tmp_path)
  assert pictures.along(reader) is reader
  with pytest.raises(ConfigError, match='is 7, but the packed data'):
    Pictures(VisualSettings(), 7, tmp_path).along(reader)


# --- in the network ----------------------------------------------------------

NETWORK = UNet(
  width=8,
  multipliers=(1,),
  num_blocks=1,
  attention_resolutions=(8,),
  head_dim=8,
  embedding_dim=16,
  embedding_layers=2,
  visual_dim=5,
)


@functools.cache
def params():
  return moved_of(VDM(NETWORK), (2, 8, 8, 3))


def run(num_images=0, frames=2):
  z = jax.random.normal(jax.random.key(1), (2, frames, 8, 8, 3))
  variables = {'params': params()}

  @jax.jit
  def forward(**cond):
    return NETWORK.apply(
      variables, z, jnp.zeros(2), num_images=num_images, **cond
    )

  return forward


@pytest.mark.slow
def test_zeros_are_no_embedding():
  forward = run()
  nothing = forward()
  given = forward(visual=jnp.stack([jnp.ones(5), jnp.zeros(5)]))
  assert np.abs(given - nothing)[0].max() > 1e-2
  np.testing.assert_allclose(given[1], nothing[1], rtol=1e-4, atol=1e-5)


def test_the_embedding_of_an_image_reaches_that_image_alone():
  embeddings = jax.random.normal(jax.random.key(2), (2, 3, 5))
  forward = run(num_images=2, frames=5)
  base = forward(visual=embeddings)
  for group, frames in ((0, [0, 1, 2]), (1, [3]), (2, [4])):
    moved = forward(visual=embeddings.at[1, group].multiply(-1)) - base
    expected = np.zeros((2, 5), bool)
    expected[1, frames] = True
    np.testing.assert_array_equal(np.abs(moved).max((2, 3, 4)) > 0, expected)


def test_hidden_embeddings_and_they_alone_train_the_null_one():
  system = VDM(NETWORK)
  rng = np.random.default_rng(0)
  batch = {
    'video': jnp.asarray(rng.uniform(-1, 1, (64, 2, 8, 8, 3)), jnp.float32),
    'visual': jnp.asarray(rng.normal(size=(64, 5)), jnp.float32),
  }
  drawn = system.draw(jax.random.key(3), batch)
  shown = np.asarray((drawn['visual'] != 0).any(-1))
  assert 0.02 < 1 - shown.mean() < 0.3  # 0.1, and 64 draws
  gradient = jax.jit(jax.grad(system.loss))
  key = jax.random.key(4)
  hidden = gradient(params(), key, drawn)['embedding']['no_visual']
  assert np.abs(hidden).max() > 0
  all_shown = drawn | {'visual': batch['visual']}
  none = gradient(params(), key, all_shown)['embedding']['no_visual']
  np.testing.assert_array_equal(none, 0)
  both = hide({'visual': jnp.ones((2, 5))}, jnp.array([True, False]), 0)
  assert both['visual'].sum(-1).tolist() == [0, 5]


@pytest.mark.parametrize('width', [6, 5])  # of a word; 5 is an embedding's
@pytest.mark.parametrize(
  ('captions', 'embeddings'), [(1, 1), (1, 3), (3, 1), (3, 3)]
)
def test_four_tokens_of_an_embedding_follow_the_text(
  width, captions, embeddings
):
  """In every frame, to which the one caption or embedding is spread."""
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(2, captions, 7, width)).astype(np.float32)
  mask = rng.random((2, captions, 7)) < 0.5
  shown = rng.normal(size=(2, embeddings, 5)).astype(np.float32)
  shown[1, 0] = 0  # no embedding: four tokens that say so
  given = [jnp.asarray(array) for array in (shown, tokens, mask)]
  variables = random_variables(VisualTokens(), *given)
  made, real = VisualTokens().apply(variables, *given)
  weights = jax.tree.map(np.asarray, variables['params'])
  assert ('text' in weights) == (width != 5)
  frames = max(captions, embeddings)
  assert made.shape == (2, frames, 7 + 4, 5)
  for row, frame in np.ndindex(2, frames):
    words = tokens[row, min(frame, captions - 1)]
    if width != 5:
      words = words @ weights['text']['kernel'] + weights['text']['bias']
    four = shown[row, min(frame, embeddings - 1)] @ weights['tokens']['kernel']
    four = np.split(four + weights['tokens']['bias'], 4)
    np.testing.assert_allclose(
      made[row, frame], [*words, *four], rtol=1e-4, atol=1e-5
    )
    expected = [*mask[row, min(frame, captions - 1)], *[True] * 4]
    np.testing.assert_array_equal(real[row, frame], expected)
  alone, every = VisualTokens().apply(variables, given[0], None, None)
  np.testing.assert_array_equal(alone, made[:, :embeddings, 7:])
  assert every.all()


def test_tokens_of_an_image_reach_that_image_alone():
  """Of its caption and of its embedding, by attention and nothing else."""
  network = NETWORK.clone(
    attention_resolutions=(), text_dim=6, text='cross', visual='cross'
  )
  rng = np.random.default_rng(0)
  z, tokens, shown = (
    jnp.asarray(rng.normal(size=size), jnp.float32)
    for size in ((2, 5, 8, 8, 3), (2, 3, 4, 6), (2, 3, 5))
  )
  count = np.array([[[4], [2], [3]], [[1], [0], [4]]])
  mask = jnp.asarray(np.arange(4) < count)
  weights = random_variables(network, z, jnp.zeros(2))['params']
  dense = weights['embedding']['visual']
  dense['kernel'] = jnp.zeros_like(dense['kernel'])

  @jax.jit
  def run(tokens, shown):
    return network.apply(
      {'params': weights},
      z,
      jnp.zeros(2),
      tokens=tokens,
      token_mask=mask,
      visual=shown,
      num_images=2,
    )

  base = run(tokens, shown)
  for group, frames in ((0, [0, 1, 2]), (1, [3]), (2, [4])):
    expected = np.zeros((2, 5), bool)
    expected[0, frames] = True
    for changed in (
      run(tokens.at[0, group, 0].multiply(-1), shown),
      run(tokens, shown.at[0, group].multiply(-1)),
    ):
      moved = np.abs(changed - base).max((2, 3, 4))
      np.testing.assert_array_equal(moved > 0, expected)
  padding = jnp.where(mask[..., None], tokens, 9.0)
  np.testing.assert_array_equal(run(padding, shown), base)


# --- in a job ----------------------------------------------------------------


def config(**changes):
  sections = {
    'data': {
      'name': 'moving_shapes',
      'num_frames': 2,
      'height': 8,
      'width': 8,
      'num_clips': 6,
    },
    'system': {'name': 'vdm'},
    'network': {'name': 'unet', 'width': 8, 'multipliers': (1,)},
    'train': {'num_steps': 1, 'batch_size': 2},
  }
  sections['network'] |= changes.pop('network', {})
  return sections | changes


def test_a_job_gives_its_network_what_it_takes(tmp_path):
  thumbnails = config(
    network={'visual_dim': 48}, visual={'encoder': 'thumbnail'}
  )
  clip = (
    job.build(thumbnails).source(tmp_path).clip(0, np.random.default_rng(0))
  )
  assert clip['visual'].shape == (48,)
  wanted = job.build(thumbnails).conditions(tmp_path)
  image = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
  asked = wanted(2, image=image)['visual']
  one = visual.normalize(visual.thumbnail(image[None]))
  np.testing.assert_array_equal(asked, one.repeat(2, 0))
  stored = config(network={'visual_dim': 3})
  with pytest.raises(FileNotFoundError, match='run --mode=encode'):
    job.build(stored).source(tmp_path)


class Projected:
  """Stands for `VisualEncoder`: five weighted sums of all pixels."""

  dim = 5

  def __init__(self, path):
    assert path == 'CLIP'

  def fingerprint(self):
    return 'projected'

  def __call__(self, images):
    pixels = images.reshape(len(images), -1) / 127.5 - 1
    return pixels @ np.random.default_rng(0).normal(size=(pixels.shape[1], 5))


@pytest.mark.parametrize('captions', [False, True])
def test_a_job_trains_on_what_it_encoded(tmp_path, monkeypatch, captions):
  """The middle frame of the very clip, with its caption and without."""
  monkeypatch.setattr('vdm_jax.data.pictures.VisualEncoder', Projected)
  monkeypatch.setattr('vdm_jax.conditions.TextEncoder', Words)
  parts = job.build(
    config(
      data=config()['data'] | {'num_frames': 5, 'captions': captions},
      network={'visual_dim': 5, 'text_dim': 8 * captions},
      visual={'encoder': 'CLIP', 'clips_per_video': 2},
      **{'text': {'encoder': 'words'}} if captions else {},
    )
  )
  *words, said = parts.encode(tmp_path)
  assert said == f'12 middle frames are encoded in {tmp_path / "visual"}.'
  assert len(words) == captions
  _, batch = take(3, parts.source(tmp_path))
  frames = to_uint8(batch['video'][:, 1])  # the second of five
  made = Projected('CLIP')(frames)
  expected = 5**0.5 * made / np.linalg.norm(made, axis=1, keepdims=True)
  np.testing.assert_allclose(batch['visual'], expected, atol=2e-3)
  assert len({tuple(embedding) for embedding in batch['visual']}) == 6
  assert ('tokens' in batch) == captions
  asked = parts.conditions(tmp_path)(len(frames), image=frames)
  np.testing.assert_allclose(asked['visual'], batch['visual'], atol=2e-3)


def test_thumbnails_are_not_encoded(tmp_path):
  thumbnails = config(
    network={'visual_dim': 48}, visual={'encoder': 'thumbnail'}
  )
  with pytest.raises(ConfigError, match='there is nothing to encode'):
    job.build(thumbnails).encode(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'visual': {}}, r'config\.network\.visual_dim to their width'),
    (
      {'network': {'visual_dim': 9}, 'visual': {'encoder': 'thumbnail'}},
      'a thumbnail has embeddings of 48 numbers',
    ),
    (
      {'network': {'visual_dim': 9}, 'visual': {'clips_per_video': 0}},
      'clips_per_video=0 is not allowed',
    ),
  ],
)
def test_sections_that_do_not_fit_are_refused(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    job.build(config(**changes)).source(tmp_path)


def test_a_model_without_embeddings_takes_no_image(tmp_path):
  plain = job.build(config()).conditions(tmp_path)
  with pytest.raises(ValueError, match='without visual embeddings'):
    plain(1, image=np.zeros((8, 8, 3), np.uint8))
  thumbnails = config(
    network={'visual_dim': 48}, visual={'encoder': 'thumbnail'}
  )
  with pytest.raises(ValueError, match='give uint8'):
    job.build(thumbnails).conditions(tmp_path)(1, image=np.zeros((8, 8, 3)))


# --- a real kind of encoder --------------------------------------------------


@pytest.mark.filterwarnings('ignore')
def test_clip_embeds_as_its_parts_do_by_hand(tmp_path):
  """Scaled, cut, standardised, through the vision half, projected."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  from PIL import Image

  sizes = {
    'hidden_size': 16,
    'intermediate_size': 16,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
  }
  torch.manual_seed(0)
  model = transformers.CLIPModel(
    transformers.CLIPConfig(
      text_config={'vocab_size': 4, 'eos_token_id': 3, **sizes},
      vision_config={**sizes, 'image_size': 8, 'patch_size': 4},
      projection_dim=12,
    )
  ).eval()
  folder = tmp_path / 'clip'
  model.save_pretrained(folder)
  about = {
    'image_processor_type': 'CLIPImageProcessor',
    'size': {'shortest_edge': 8},
    'crop_size': {'height': 8, 'width': 8},
  }
  (folder / 'preprocessor_config.json').write_text(json.dumps(about))
  source = shapes(num_clips=3)
  wide = MovingShapes(num_clips=3, num_frames=3, height=16, width=24)
  for data in (source, wide):
    pictures = Pictures(
      VisualSettings(encoder=str(folder)), 12, tmp_path / str(data is wide)
    )
    assert '3 middle frames' in pictures.encode(data)
    for index in range(3):
      clip = pictures.along(data).clip(index, np.random.default_rng(0))
      frame = Image.fromarray(clip['video'][0])
      if data is wide:
        frame = frame.resize((12, 8), Image.Resampling.BICUBIC)
        frame = frame.crop((2, 0, 10, 8))
      pixels = np.asarray(frame) / 255.0
      pixels = (pixels - (0.48145466, 0.4578275, 0.40821073)) / (
        0.26862954,
        0.26130258,
        0.27577711,
      )
      with torch.no_grad():
        tensor = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)
        seen = model.vision_model(tensor[None]).pooler_output
        expected = model.visual_projection(seen)[0].numpy()
      expected *= 12**0.5 / np.linalg.norm(expected)
      np.testing.assert_allclose(clip['visual'], expected, atol=5e-3)
  asked = pictures(clip['video'][:1])
  np.testing.assert_allclose(asked['visual'][0], clip['visual'], atol=5e-3)
  other = Pictures(
    VisualSettings(encoder=str(folder), store=str(pictures.path)), 12, tmp_path
  )
  (folder / 'vocab.txt').write_text('changed')
  with pytest.raises(ValueError, match='not the one that made'):
    other(clip['video'][:1])
  with pytest.raises(ConfigError, match='visual_dim is 5, but the encoder'):
    Pictures(VisualSettings(encoder=str(folder)), 5, tmp_path).encoder()
  with pytest.raises(FileNotFoundError, match='preprocessor_config'):
    Pictures(VisualSettings(encoder=str(tmp_path)), 5, tmp_path).encoder()
