"""VideoFusion: its equations, its two generators, its prior and its tasks."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import moved_of
from vdm_jax import samplers
from vdm_jax.config import ConfigError
from vdm_jax.diffusion import decomposed, gaussian
from vdm_jax.diffusion.noise import BaseResidual, Independent, Mixed
from vdm_jax.diffusion.parameterization import Eps, V
from vdm_jax.diffusion.schedules import Cosine
from vdm_jax.model import Model
from vdm_jax.networks.prior import Prior
from vdm_jax.networks.unet import UNet
from vdm_jax.samplers.blocks import Block
from vdm_jax.systems import shares
from vdm_jax.systems.draw import draw
from vdm_jax.systems.prior import EmbeddingPrior
from vdm_jax.systems.protocol import System
from vdm_jax.systems.registry import build_system
from vdm_jax.systems.videofusion import VideoFusion
from vdm_jax.training.sampling import SampleSettings, VideoSampler

SHAPE = (6, 8, 8, 3)
BASE = 2  # frame 3 of 6, counted from 1
TINY = {
  'width': 8,
  'multipliers': (1,),
  'num_blocks': 1,
  'attention_resolutions': (8,),
  'head_dim': 8,
  'embedding_dim': 16,
  'embedding_layers': 2,
  'visual_dim': 5,
}


class Small(nn.Module):
  """A network that compiles in no time and lets frames see each other."""

  temporal: bool = True
  visual_dim: int = 5
  num_classes: int = 0
  text_dim: int = 0

  def check(self, height, width):
    """Takes any resolution."""

  @nn.compact
  def __call__(
    self, z, logsnr, *, visual=None, cond=None, num_images=0, train=False
  ):
    del train
    if visual is None:
      visual = jnp.zeros((len(z), max(1, self.visual_dim)))
    visual = visual[:, None] if visual.ndim == 2 else visual
    if num_images and visual.shape[1] > 1:
      first = visual[:, :1].repeat(z.shape[1] - num_images, 1)
      visual = jnp.concatenate([first, visual[:, 1:]], 1)
    told = nn.Dense(8)(visual) + nn.Dense(8)(logsnr[:, None])[:, None]
    if cond is not None:
      told = told + nn.Dense(8)(cond)
    x = nn.Dense(8)(z) + told[:, :, None, None]
    x = jnp.tanh(x + 0.5 * jnp.roll(x, 1, 2))
    if self.temporal:
      x = x + nn.Dense(8)(jnp.cumsum(x, 1) / 6)
    return nn.Dense(3)(x)


def system(**changes):
  prior = EmbeddingPrior(
    Prior(width=16, depth=1, head_dim=8, classes=(2, 3)), num_steps=4
  )
  parts = {
    'base': Small(temporal=False),
    'residual': Small(),
    'prior': prior,
  }
  return VideoFusion(**{**parts, **changes})


@functools.cache
def params_of(fitted=False, unet=False):
  return moved_of(of_unets() if unet else system(fitted_share=fitted), SHAPE)


def of_unets():
  return system(
    base=UNet(temporal=False, **TINY),
    residual=UNet(temporal_convolutions=2, visual='cross', **TINY),
  )


def drawn_by(vf, key, given):
  return jax.jit(vf.draw)(jax.random.key(key), given)


def batch(rows=4):
  rng = np.random.default_rng(0)
  return {
    'video': jnp.asarray(rng.uniform(-1, 1, (rows, *SHAPE)), jnp.float32),
    'visual': jnp.asarray(rng.normal(size=(rows, 5)), jnp.float32),
    'label': jnp.arange(rows) % 6,
  }


# --- the decomposed process --------------------------------------------------


def test_the_two_forms_of_the_noisy_video_agree():
  """Eq. (6) with (7) against eq. (8), base frame included."""
  rng = np.random.default_rng(0)
  noise = BaseResidual((0.1, 0.4, 0.9, 0.0, 0.5, 0.7), base_frame=1)
  share = noise.shares(6)
  assert share[1] == 1
  x, r = (jnp.asarray(rng.normal(size=(2, *SHAPE)), jnp.float32) for _ in 'xr')
  base, b = x[:, 1:2], jnp.asarray(rng.normal(size=(2, 1, 8, 8, 3)))
  logsnr = jnp.array([-2.0, 1.0])
  dx = decomposed.residual_of(x, base, share)
  np.testing.assert_array_equal(dx[:, 1], 0)
  np.testing.assert_allclose(
    decomposed.compose(base, dx, share), x, rtol=1e-5, atol=1e-5
  )
  whole = gaussian.corrupt(x, decomposed.compose(b, r, share), logsnr)
  parts = decomposed.compose(
    gaussian.corrupt(base, b, logsnr), gaussian.corrupt(dx, r, logsnr), share
  )
  np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)


def test_steps_of_the_process_compose_to_the_whole():
  """Eq. (10) after eq. (9) at s is eq. (9) at t: mean and covariance."""
  noise = BaseResidual(0.3)
  s, t = jnp.array(1.5), jnp.array(-1.0)
  keep = gaussian.alpha(t) / gaussian.alpha(s)
  variance = gaussian.forward_variance(t, s)
  count = 20_000
  x = jnp.linspace(-1, 1, 4).reshape(1, 4, 1, 1, 1)
  keys = jax.random.split(jax.random.key(0), 2)
  shape = (count, 4, 1, 1, 1)
  z = gaussian.corrupt(
    jnp.broadcast_to(x, shape), noise.sample(keys[0], shape), s
  )
  z = keep * z + jnp.sqrt(variance) * noise.sample(keys[1], shape)
  z = np.asarray(z[:, :, 0, 0, 0], np.float64)
  expected = float(gaussian.sigma(t)) ** 2 * np.asarray(noise.covariance(4))
  np.testing.assert_allclose(
    z.mean(0), gaussian.alpha(t) * x[0, :, 0, 0, 0], atol=0.03
  )
  np.testing.assert_allclose(np.cov(z.T), expected, atol=0.03)


def test_the_base_frame_sees_the_base_noise():
  """Eq. (11), and each video may have shares of its own."""
  share = jnp.array([[0.2, 0.4, 0.6], [0.0, 1.0, 0.5]])
  noise = BaseResidual(share, base_frame=0)
  eps = noise.sample(jax.random.key(0), (2, 3, 64, 64, 1))
  expected = noise.covariance(3)
  assert expected.shape == (2, 3, 3)
  for row in range(2):
    seen = np.cov(np.asarray(eps[row]).reshape(3, -1))
    np.testing.assert_allclose(seen, expected[row], atol=0.08)
  np.testing.assert_allclose(eps[1, 0], eps[1, 1], rtol=1e-6)  # share 1


def test_videos_of_one_number_share_that_part_of_the_noise():
  content, motion = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1])
  noise = BaseResidual(0.5, content=content, motion=motion)
  eps = noise.sample(jax.random.key(0), (4, *SHAPE))
  rest = decomposed.residual_of(eps, eps[:, BASE : BASE + 1], noise.shares(6))
  for a in range(4):
    for b in range(a):
      same = np.array_equal(eps[a, BASE], eps[b, BASE])
      assert same == (content[a] == content[b])
      near = np.allclose(rest[a], rest[b], atol=1e-4)
      assert near == (motion[a] == motion[b])
  seen = np.asarray(eps[0]).reshape(6, -1)
  np.testing.assert_allclose(seen.std(1), 1, atol=0.2)  # noise as ever


@pytest.mark.parametrize('share', [-0.1, 1.5, (0.5, 2.0)])
def test_shares_out_of_range_are_refused(share):
  with pytest.raises(ValueError, match=r'lie in \[0, 1\]'):
    BaseResidual(share)


def test_a_video_shorter_than_its_base_frame_is_refused():
  changed = system(noise=BaseResidual(base_frame=7))
  with pytest.raises(ValueError, match=r'base_frame=7 is outside a video of 6'):
    changed.check(SHAPE)
  wrong = system(noise=BaseResidual((0.5,) * 5))
  with pytest.raises(ValueError, match='5 entries for a video of 6 frames'):
    wrong.check(SHAPE)


# --- the generators ----------------------------------------------------------


@pytest.mark.parametrize('parameterization', [Eps(), V()])
def test_two_generators_estimate_as_the_paper_says(parameterization):
  """Eq. (12) and (13), frame by frame, from the networks' own outputs."""
  vf = system(parameterization=parameterization, noise=BaseResidual((0.2,) * 6))
  params, given = params_of(), batch(2)
  z, logsnr = given['video'], jnp.array([-1.0, 0.5])
  visual = given['visual']
  x_hat = jax.jit(lambda p: vf.denoise(p, {'visual': visual})(z, logsnr))(
    params
  )
  base = jax.jit(vf.base.apply)(
    {'params': params['base']}, z[:, BASE : BASE + 1], logsnr, visual=visual
  )
  b = parameterization.predict(base, z[:, BASE : BASE + 1], logsnr).eps_hat
  sigma = gaussian.sigma(logsnr).reshape(2, 1, 1, 1)
  share = [1.0 if i == BASE else 0.2 for i in range(6)]
  left = jnp.stack(
    [z[:, i] - share[i] ** 0.5 * sigma * b[:, 0] for i in range(6)], 1
  )
  rest = jax.jit(vf.residual.apply)(
    {'params': params['residual']},
    left,
    logsnr,
    visual=visual,
    cond=vf._generators._told(vf.noise, 6),
  )
  for i in range(6):
    joined = base[:, 0]
    if i != BASE:
      joined = share[i] ** 0.5 * joined + (1 - share[i]) ** 0.5 * rest[:, i]
    expected = parameterization.predict(
      joined[:, None], z[:, i : i + 1], logsnr
    )
    np.testing.assert_allclose(
      x_hat[:, i], expected.x_hat[:, 0], rtol=1e-3, atol=1e-3
    )


def test_the_base_generator_sees_one_frame_and_the_residual_its_place():
  vf, params, given = of_unets(), params_of(unet=True), batch(1)
  cond = {'visual': given['visual']}
  run = jax.jit(lambda z: vf.denoise(params, cond)(z, jnp.zeros(1)))
  z = given['video']
  before = run(z)
  after = run(z.at[:, 0].multiply(-1))  # not the base frame
  np.testing.assert_array_equal(after[:, BASE], before[:, BASE])
  assert np.abs(after - before)[:, [1, 3, 4, 5]].max() > 1e-3
  same = run(jnp.broadcast_to(z[:, :1], z.shape))  # six equal frames
  others = np.delete(np.asarray(same), BASE, 1)
  assert np.abs(others - others[:, :1]).max() > 1e-3  # told apart by place


@functools.cache
def gradients(training):
  """(gradient of the whole loss, of the base frame's, of all others)."""
  vf = system(training=training, cond_dropout=0.0)
  drawn = drawn_by(vf, 1, batch())
  logsnr = drawn['logsnr']
  z = gaussian.corrupt(drawn['video'], drawn['eps'], logsnr)
  own = jnp.arange(6)[None] == BASE

  def part(params, frames):
    key = jax.random.key(0)
    output = vf._generators(params, z, logsnr, drawn, vf.noise, key=key)
    error = jnp.square(output - drawn['eps']).mean((2, 3, 4))
    return (error * frames).sum() / error.size

  params = params_of()
  whole = jax.jit(jax.grad(vf.loss))(params, jax.random.key(2), drawn)
  split = jax.jit(jax.grad(part))
  return whole, split(params, 1.0 * own), split(params, 1.0 * ~own)


def largest(tree):
  return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_only_its_own_frame_trains_the_base_generator():
  """Eq. (14): not a bit of gradient from any other frame."""
  whole, own, others = gradients('stop_gradient')
  assert largest(others['base']) == 0
  assert largest(others['residual']) > 0
  assert largest(own['base']) > 0
  assert largest(own['residual']) == 0
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6),
    whole['base'],
    own['base'],
  )


def test_guidance_in_sampling_reaches_all_whatever_training_was():
  """Reconstruction guidance differentiates the model that sampling has."""
  observed = jnp.asarray(known())
  mask = (jnp.arange(6) == 5).reshape(1, 6, 1, 1, 1)  # not the base frame

  def run(training):
    vf = system(training=training)
    options = {'sampler': samplers.DDIM(), 'num_steps': 3}
    cond = {'visual': jnp.ones((2, 5))}
    return jax.jit(
      lambda params: vf.sample_given(
        params, jax.random.key(0), observed, mask, cond=cond, **options
      )
    )(params_of())

  joint = run('joint')
  for training in ('stop_gradient', 'fixed'):
    np.testing.assert_allclose(run(training), joint, atol=1e-5)


@pytest.mark.slow
def test_joint_and_fixed_training_are_what_table_7_compares():
  _, own, others = gradients('joint')
  assert largest(others['base']) > 0
  assert largest(own['base']) > 0
  whole, own, others = gradients('fixed')
  assert largest(whole['base']) == largest(own['base']) == 0
  assert largest(others['residual']) > 0
  assert system(training='fixed').frozen == ('base',)


@pytest.mark.slow
def test_images_train_the_base_generator_alone():
  vf = system(cond_dropout=0.0)
  given = batch()
  given |= {
    'images': given['video'][:, :2],
    'image_label': given['label'][:, None].repeat(2, 1),
    'image_visual': given['visual'][:, None].repeat(2, 1),
  }
  drawn = drawn_by(vf, 1, given)
  gradient = jax.jit(jax.grad(vf.loss))
  a, b = (
    gradient(params_of(), jax.random.key(2), drawn | {'images': images})
    for images in (drawn['images'], -drawn['images'])
  )
  apart = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)
  assert max(jax.tree.leaves(apart['residual'])) < 1e-6
  assert max(jax.tree.leaves(apart['base'])) > 1e-4


@pytest.mark.parametrize('prior', [BaseResidual(), Mixed()])
def test_images_have_noise_of_their_own(prior):
  """Not that which the frames of their videos share."""
  drawn = draw(
    jax.random.key(0),
    {
      'video': jnp.zeros((4, 6, 16, 16, 3)),
      'images': jnp.zeros((4, 1, 16, 16, 3)),
    },
    schedule=Cosine(),
    noise=prior,
  )
  eps, image = (np.asarray(drawn[k]) for k in ('eps', 'image_eps'))
  size = image[:, 0].size
  for frame in range(6):
    found = np.mean(eps[:, frame] * image[:, 0])
    assert abs(found) < 5 / size**0.5, frame


# --- the prior ---------------------------------------------------------------


def test_the_prior_sees_what_it_is_given_and_nothing_of_padding():
  network = Prior(width=16, depth=2, head_dim=8, text_dim=4)
  z = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 5))
  shapes = jax.eval_shape(network.init, jax.random.key(1), z, jnp.zeros(2))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32),
    shapes['params'],
  )
  tokens = jax.random.normal(jax.random.key(2), (2, 6, 4))
  run = jax.jit(
    lambda tokens, mask: network.apply(
      {'params': params}, z, jnp.zeros(2), tokens=tokens, token_mask=mask
    )
  )
  mask = jnp.arange(6)[None] < jnp.array([[4], [0]])
  given = run(tokens, mask)
  padding = run(jnp.where(mask[..., None], tokens, 1e3), mask)
  np.testing.assert_allclose(padding[0], given[0], rtol=1e-4, atol=1e-5)
  nothing = jax.jit(network.apply)({'params': params}, z, jnp.zeros(2))
  np.testing.assert_allclose(given[1], nothing[1], rtol=1e-3, atol=1e-4)
  assert np.abs(given[0] - nothing[0]).max() > 1e-2
  short = run(tokens[:, :4], mask[:, :4])
  np.testing.assert_allclose(short[0], given[0], rtol=1e-3, atol=1e-4)


def test_the_prior_learns_from_shown_embeddings_of_known_clips():
  """Also where the generators' embedding is hidden, and not from zeros."""
  vf = system(cond_dropout=1.0)
  given = batch()
  given['visual'] = given['visual'].at[0].set(0.0)
  drawn = drawn_by(vf, 1, given)
  assert largest(drawn['visual']) == 0  # hidden from the generators
  assert (drawn['label'] == 6).all()
  np.testing.assert_array_equal(drawn['prior_x'], given['visual'])

  @jax.jit
  def loss(params, drawn):
    return vf.prior.loss(params, drawn)

  params = params_of()['prior']
  before = loss(params, drawn)
  other = drawn['prior_eps'].at[0].multiply(-1)
  assert loss(params, drawn | {'prior_eps': other}) == before
  other = drawn['prior_eps'].at[1].multiply(-1)
  assert loss(params, drawn | {'prior_eps': other}) != before


class Point(Prior):
  """An exact prior: every class has one embedding."""

  def apply(self, variables, z, logsnr, *, label=None):
    return variables['params'][label].reshape(z.shape)

  def init(self, key, z, logsnr):
    return {'params': jnp.eye(7, z.shape[-1])}


class Pair(nn.Module):
  """The exact denoiser of two numbers of correlation 0.9."""

  @nn.compact
  def __call__(self, z, logsnr):
    a = gaussian.alpha(logsnr)[:, None, None]
    s = gaussian.sigma(logsnr)[:, None, None]
    k, identity = jnp.array([[[1.0, 0.9], [0.9, 1.0]]]), jnp.eye(2)[None]
    gain = a * jnp.linalg.solve(a**2 * k + s**2 * identity, k)
    return jnp.einsum('bij,bfhwj->bfhwi', gain, z)


def test_what_is_known_of_a_vector_decides_the_rest():
  """Numbers of correlation 0.9: given one, the other follows it.

  Exactly it would have a mean of 0.9 of it; the Gaussian that reconstruction
  guidance takes for q(known | z) leaves 0.7.  Unseen, it would leave 0.
  """
  prior = EmbeddingPrior(Pair(), num_steps=64)
  known = np.random.default_rng(0).normal(size=(4096, 1)).astype('f4')
  drawn = jax.jit(lambda key: prior.sample({}, key, (4096, 2), {}, known))(
    jax.random.key(0)
  )
  np.testing.assert_array_equal(drawn[:, :1], known)
  slope = float((known * drawn[:, 1:]).mean() / (known**2).mean())
  assert 0.6 < slope < 0.95


def test_embeddings_come_from_the_prior_unless_they_are_given():
  vf = system(prior=EmbeddingPrior(Point(classes=(2, 3)), num_steps=3))
  params = {'prior': jnp.eye(7, 5) + 1.0}
  label = jnp.array([1, 4])
  made = vf.complete(params, jax.random.key(0), (2, *SHAPE), {'label': label})
  rows = np.asarray(params['prior'])[label]
  expected = rows * 5**0.5 / np.linalg.norm(rows, axis=1, keepdims=True)
  np.testing.assert_allclose(made['visual'], expected, rtol=1e-3, atol=1e-3)
  given = {'label': label, 'visual': jnp.ones((2, 5))}
  kept = vf.complete(params, jax.random.key(0), (2, *SHAPE), given)
  np.testing.assert_array_equal(kept['visual'], 1)


class Told(Prior):
  """A network that says what it was told: z is scaled by it."""

  def apply(
    self, variables, z, logsnr, *, label=None, tokens=None, token_mask=None
  ):
    if label is None:
      label = jnp.full(len(z), self.num_classes)
    says = variables['params'][label]
    if tokens is not None:
      says = says + (tokens * token_mask[..., None]).sum(1)
    return says.reshape(z.shape) * z + logsnr.reshape(-1, 1, 1, 1, 1)


@pytest.mark.parametrize('asked', ['label', 'tokens'])
@pytest.mark.parametrize('scale', [0.0, 1.0, 2.5])
def test_the_prior_is_guided_by_what_it_would_say_to_nothing(asked, scale):
  """x_null + w (x_cond - x_null), each from what the network is told."""
  rng = np.random.default_rng(0)
  rows, z, words = (
    rng.normal(size=size).astype(np.float32)
    for size in ((7, 5), (2, 1, 1, 1, 5), (2, 3, 5))
  )
  mask = np.array([[True, True, False], [True, False, False]])
  if asked == 'label':
    network, cond = Told(classes=(2, 3)), {'label': jnp.array([1, 4])}
    told, nothing = rows[[1, 4]], rows[6]
  else:
    network, cond = Told(text_dim=5), {'tokens': words, 'token_mask': mask}
    told = rows[0] + np.stack([words[0, :2].sum(0), words[1, 0]])
    nothing = rows[0]
  cond['visual'] = jnp.ones((2, 5))  # not for the prior
  prior = EmbeddingPrior(network, guidance_scale=scale)
  params, level = jnp.asarray(rows), np.array([-1.0, 2.0], np.float32)
  x_hat = prior.denoiser(params, cond)(jnp.asarray(z), jnp.asarray(level))
  level = level.reshape(2, 1, 1, 1, 1)
  x_null, x_cond = (
    np.reshape(says, (-1, 1, 1, 1, 5)) * z + level for says in (nothing, told)
  )
  expected = x_null + scale * (x_cond - x_null)
  np.testing.assert_allclose(x_hat, expected, rtol=1e-4, atol=1e-5)
  alone = prior.denoiser(params, {})(jnp.asarray(z), jnp.array(0.5))
  np.testing.assert_allclose(alone, x_null - level + 0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('scale', [1.0, 3.0])
def test_guided_embeddings_are_what_the_generators_get(scale):
  network = Point(classes=(2, 3))
  vf = system(prior=EmbeddingPrior(network, num_steps=3, guidance_scale=scale))
  rows = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
  made = vf.complete(
    {'prior': jnp.asarray(rows)},
    jax.random.key(0),
    (2, *SHAPE),
    {'label': jnp.array([1, 4])},
  )
  expected = rows[6] + scale * (rows[[1, 4]] - rows[6])
  expected *= 5**0.5 / np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(made['visual'], expected, rtol=1e-3, atol=1e-3)


# --- shares that are fitted, noise that is shared by labels ------------------


def test_a_fitted_share_is_that_of_the_decomposition():
  """Eq. (5) with residuals orthogonal to the base frame gives it back."""
  rng = np.random.default_rng(0)
  parts = np.linalg.qr(rng.normal(size=(64, 7)) @ np.eye(7))[0]
  ones = np.ones((64, 1)) / 8
  parts = np.linalg.qr(np.concatenate([ones, parts], 1))[0][:, 1:]
  share = np.array([0.1, 0.5, 1.0, 0.9, 0.3, 0.6])
  base, rest = parts[:, 0], parts[:, 1:].T
  frames = share[:, None] ** 0.5 * base + (1 - share[:, None]) ** 0.5 * rest
  video = jnp.asarray(frames.reshape(1, 6, 8, 8, 1), jnp.float32)
  fitted = shares.fit(video, BASE)[0]
  np.testing.assert_allclose(fitted, np.clip(share, 0.05, 0.95), atol=1e-4)
  np.testing.assert_allclose(
    shares.decode(shares.encode(fitted)), fitted, rtol=1e-5
  )
  flat = shares.fit(jnp.ones((1, *SHAPE)), BASE)
  np.testing.assert_allclose(flat, 0.95)
  against = shares.fit(video.at[:, 0].set(-video[:, BASE]), BASE)
  np.testing.assert_allclose(against[0, 0], 0.05)


def test_noise_has_the_shares_that_were_fitted():
  vf = system(fitted_share=True)
  given = batch(2)
  given['video'] = given['video'].at[0].set(given['video'][0, BASE])
  drawn = drawn_by(vf, 0, given)
  np.testing.assert_allclose(drawn['share'][0], 0.95)
  assert (drawn['share'][1, [0, 1, 3, 4, 5]] < 0.2).all()
  frames = np.asarray(drawn['eps']).reshape(2, 6, -1)
  alike = np.corrcoef(frames[0])[0, 1]
  apart = np.corrcoef(frames[1])[0, 1]
  assert alike > 0.9
  assert abs(apart) < 0.35
  np.testing.assert_array_equal(
    drawn['prior_x'][:, 5:], shares.encode(drawn['share'])
  )
  loss = jax.jit(vf.loss)(params_of(True), jax.random.key(1), drawn)
  assert np.isfinite(loss)
  with pytest.raises(ValueError, match='fitted_share needs a prior'):
    system(fitted_share=True, prior=None)


def test_labels_say_who_shares_noise():
  """Attributes (2, 3): label 3 a + b shares content by a, motion by b."""
  vf = system(
    attributes=(2, 3), content=(0,), motion=(1,), noise=BaseResidual(0.5)
  )
  given = batch(6)
  eps = drawn_by(vf, 0, given)['eps']
  rest = decomposed.residual_of(
    eps, eps[:, BASE : BASE + 1], vf.noise.shares(6)
  )
  for i in range(6):
    for j in range(i):
      same = np.array_equal(eps[i, BASE], eps[j, BASE])
      assert same == (i // 3 == j // 3)
      assert np.allclose(rest[i], rest[j], atol=1e-4) == (i % 3 == j % 3)
  with pytest.raises(ValueError, match=r'motion=\(2,\) names attributes'):
    system(attributes=(2, 3), motion=(2,))


# --- sampling ----------------------------------------------------------------


def test_ddpm_sampling_is_algorithm_1_with_its_misprint_corrected():
  """One step from the paper's own coefficients; sigma is a root there."""
  noise, shape = BaseResidual(0.5), (2, 4, 8, 8, 3)
  share = np.asarray(noise.shares(4)).reshape(1, 4, 1, 1, 1)
  t, s = jnp.array(-0.5), jnp.array(0.2)
  z = jax.random.normal(jax.random.key(0), shape)
  eps_hat = jax.random.normal(jax.random.key(1), shape)
  bar_t, bar_s = (float(gaussian.alpha(level)) ** 2 for level in (t, s))
  step = bar_t / bar_s  # alpha_t of the paper
  x_hat = (z - (1 - bar_t) ** 0.5 * eps_hat) / bar_t**0.5
  key = jax.random.key(2)
  moved, _, _ = samplers.Ancestral(0.0).step(
    key,
    lambda z, logsnr: x_hat,
    z,
    (),
    logsnr_t=t,
    logsnr_s=s,
    noise=noise,
  )
  mean = (z - (1 - step) / (1 - bar_t) ** 0.5 * eps_hat) / step**0.5
  sigma = ((1 - bar_s) / (1 - bar_t) * (1 - step)) ** 0.5
  drawn = (moved - mean) / sigma
  expected = noise.sample(key, shape)
  np.testing.assert_allclose(drawn, expected, rtol=1e-3, atol=2e-3)
  # Its frames share what eq. (7) says: b at the base frame, and in all.
  np.testing.assert_allclose(
    decomposed.residual_of(drawn, drawn[:, 1:2], noise.shares(4)).var(),
    np.mean(share < 1),
    atol=0.2,
  )


def test_ddim_is_the_papers_update():
  t, s, shape = jnp.array(-0.5), jnp.array(0.2), (1, 4, 2, 2, 3)
  z, eps = (jax.random.normal(jax.random.key(i), shape) for i in (0, 1))
  x_hat = (z - gaussian.sigma(t) * eps) / gaussian.alpha(t)
  moved, _, _ = samplers.DDIM().step(
    jax.random.key(2),
    lambda z, logsnr: x_hat,
    z,
    (),
    logsnr_t=t,
    logsnr_s=s,
    noise=BaseResidual(0.5),
  )
  expected = gaussian.alpha(s) * x_hat + gaussian.sigma(s) * eps
  np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-5)


@functools.cache
def model(fitted=False):
  settings = SampleSettings(
    sampler=samplers.DDIM(), num_steps=2, guidance_scale=3.0, batch_size=2
  )
  return Model(system(fitted_share=fitted), params_of(fitted), SHAPE, settings)


def known(frames=6, size=8):
  rng = np.random.default_rng(1)
  return rng.uniform(-0.9, 0.9, (2, frames, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize('method', ['reconstruction', 'replacement'])
@pytest.mark.parametrize(
  'fitted', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_video_is_extended(method, fitted):
  given = known()
  longer = model(fitted).extend(jax.random.key(0), given, 12, method=method)
  assert longer.shape == (2, 12, 8, 8, 3)
  np.testing.assert_array_equal(longer[:, :6], given)
  assert np.abs(longer).max() <= 1
  assert longer[:, 6:].std() > 0.05


@pytest.mark.parametrize('method', ['reconstruction', 'replacement'])
def test_frames_are_put_between(method):
  given = known(3)
  slower = model().interpolate(jax.random.key(0), given, 2, method=method)
  np.testing.assert_array_equal(slower[:, ::2], given)
  assert np.isfinite(slower).all()


def test_a_small_video_is_enlarged():
  """Guidance by a lower resolution comes nearer than no guidance."""
  small = known(6, 4)
  errors = []
  for weight in (0.0, 2.0):
    large = model().upsample(
      jax.random.key(0), small, reconstruction_weight=weight, num_steps=8
    )
    seen = large.reshape(2, 6, 4, 2, 4, 2, 3).mean((3, 5))
    errors.append(np.mean((seen - small) ** 2))
  assert errors[1] < 0.7 * errors[0]


def test_known_regions_are_kept_under_the_corrector():
  vf, observed = system(), known()
  mask = np.zeros((1, 1, 8, 8, 1))
  mask[:, :, :, :4] = 1
  x = jax.jit(
    functools.partial(
      vf.sample_given,
      sampler=samplers.Ancestral(),
      num_steps=3,
      corrector=samplers.Langevin(),
    )
  )(params_of(), jax.random.key(0), observed, mask)
  np.testing.assert_array_equal(x[..., :4, :], observed[..., :4, :])
  assert np.isfinite(np.asarray(x)).all()


# --- base noise kept, content and motion -------------------------------------


def test_shared_base_noise_is_that_of_every_block():
  """Blocks differ in the residual noise alone (section 4.6)."""
  seen = {}
  for kind in ('shared', 'fresh'):
    m = model()
    blocks_drawn = []
    shared = jax.random.key(7)
    draw = m._drawing(shared, 2, block_noise=kind, method='replacement')
    for index in (1, 2):
      key = jax.random.fold_in(jax.random.key(0), index)
      block = Block(tuple(range(6 * index, 6 * index + 6)), (False,) * 6)
      observed = np.zeros((2, *SHAPE), np.float32)
      made = draw(key, block, observed, np.zeros((1, 6, 1, 1, 1)))
      blocks_drawn.append(np.asarray(made))
    seen[kind] = blocks_drawn
    if kind == 'shared':  # and that of a clip drawn with the same key
      clip = m.sample(shared, 2, content=[0, 1])
  kept, fresh = seen['shared'], seen['fresh']
  np.testing.assert_allclose(kept[0][:, BASE], kept[1][:, BASE], atol=1e-5)
  np.testing.assert_allclose(kept[0][:, BASE], clip[:, BASE], atol=1e-5)
  for one, other in itertools.combinations((*kept, clip), 2):
    assert np.abs(one - other)[:, [0, 5]].max() > 1e-2
  assert np.abs(fresh[0] - fresh[1])[:, BASE].max() > 1e-2


def test_videos_of_one_content_have_one_base_frame():
  """Section 4.7: b fixed and r varied, from `Model.sample`."""
  m = model()
  options = {'image': None, 'num_steps': 2}
  cond = {
    'visual': jnp.ones((4, 5)),
    'content': jnp.array([0, 0, 1, 1]),
    'motion': jnp.array([0, 1, 0, 0]),
  }
  run = jax.jit(
    lambda params, key: m.system.sample(
      params,
      key,
      (4, *SHAPE),
      cond=cond,
      sampler=samplers.DDIM(),
      num_steps=3,
    )
  )
  x = np.asarray(run(m.params, jax.random.key(0)))
  np.testing.assert_allclose(x[0, BASE], x[1, BASE], atol=1e-4)
  assert np.abs(x[0] - x[1])[[0, 5]].max() > 1e-2
  assert np.abs(x[0, BASE] - x[2, BASE]).max() > 1e-2
  np.testing.assert_allclose(x[2], x[3], atol=1e-4)
  drawn = m.sample(jax.random.key(0), 2, content=0, motion=[3, 3], **options)
  assert drawn.shape == (2, *SHAPE)
  with pytest.raises(ValueError, match='give 2 whole numbers'):
    m.sample(jax.random.key(0), 2, content=[0, 1, 2])


def test_content_and_motion_hold_across_batches_of_sampling():
  """One number is one noise, however many videos are drawn at once."""
  vf = system()
  x = {}
  for size in (2, 4):
    settings = SampleSettings(
      sampler=samplers.DDIM(), num_steps=2, batch_size=size
    )
    draw_videos = VideoSampler(vf, SHAPE, settings)
    x[size] = draw_videos(
      params_of(),
      jax.random.key(0),
      4,
      {'visual': np.ones((4, 5), 'f4'), 'content': np.array([0, 0, 0, 1])},
      show_progress=False,
    )
  np.testing.assert_allclose(x[2], x[4], atol=1e-4)
  base = x[2][:, BASE]
  np.testing.assert_allclose(base[:2], base[1:3], atol=1e-4)
  assert np.abs(base[2] - base[3]).max() > 1e-2
  frame = x[2][:, 5]  # residual noise is not shared, within or across batches
  assert min(np.abs(frame[0] - frame[i]).max() for i in (1, 2)) > 1e-2


def test_other_noise_has_no_content():
  from vdm_jax.systems.vdm import VDM

  plain = VDM(UNet(**{**TINY, 'visual_dim': 0}), noise=Independent())
  m = Model(plain, {}, SHAPE, SampleSettings(num_steps=1))
  with pytest.raises(ValueError, match='only the noise prior base_residual'):
    m.sample(jax.random.key(0), 2, content=[0, 0])


# --- sizes and configs -------------------------------------------------------


def test_it_is_a_system():
  assert isinstance(system(), System)


@pytest.mark.parametrize(
  ('system_section', 'network', 'message'),
  [
    ({}, {'base': {'name': 'unet'}}, r'config\.network\.residual is missing'),
    (
      {},
      {'bse': {'name': 'unet'}},
      r"bse is not a network of VideoFusion\. Did you mean 'base'",
    ),
    (
      {'prior': {'num_steps': 3}},
      {'base': {'name': 'unet'}, 'residual': {'name': 'unet'}},
      r'config\.network\.prior is missing',
    ),
    (
      {'noise': {'name': 'independent'}},
      {'base': {'name': 'unet'}, 'residual': {'name': 'unet'}},
      'needs the noise prior base_residual',
    ),
    (
      {},
      {
        'base': {'name': 'unet'},
        'residual': {'name': 'unet'},
        'prior': {'name': 'prior'},
      },
      'the prior has nothing to make',
    ),
  ],
)
def test_sections_that_do_not_fit_are_refused(system_section, network, message):
  with pytest.raises((ConfigError, ValueError), match=message):
    build_system({'name': 'videofusion', **system_section}, network)


def test_a_base_generator_over_time_is_refused():
  with pytest.raises(ValueError, match='base generator sees one frame'):
    system(base=UNet(**TINY)).check(SHAPE)


def test_the_schedule_of_the_prior_ends_in_noise():
  ends = EmbeddingPrior(Prior()).schedule(jnp.array([0.0, 1.0]))
  assert ends[1] < -9
  assert Cosine()(jnp.array(1.0)) < -19
