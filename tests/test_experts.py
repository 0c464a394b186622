"""Experts: noise levels split by probability, steps by noise level."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdm_jax
from tests.command_line import CONFIGS, command, fails, saved_by
from tests.gaussian_video import exact_denoiser, exponential_covariance
from vdm_jax.diffusion.noise import Progressive
from vdm_jax.diffusion.parameterization import X
from vdm_jax.diffusion.schedules import Cosine, Karras, LogNormal, Part
from vdm_jax.model import Model
from vdm_jax.samplers import DDIM, DEIS, Ancestral, Churn, Heun, Kutta, sample
from vdm_jax.systems.vdm import VDM
from vdm_jax.training.experts import Expert, Experts
from vdm_jax.training.sampling import SampleSettings, VideoSampler

SHAPE = (2, 4, 4, 3)


class Says(nn.Module):
  """Predicts x_hat by one number, and shrinks z."""

  num_classes = text_dim = visual_dim = 0

  def check(self, height, width):
    """Takes all."""

  @nn.compact
  def __call__(self, z, logsnr, **given):
    number = self.param('number', nn.initializers.zeros, ())
    return 0.3 * jnp.tanh(z + logsnr[0] / 9) + number


def says(number):
  return {'number': np.float32(number)}


def system(**fields):
  fields = {'schedule': LogNormal(), 'sample_schedule': Karras(), **fields}
  noise = Progressive(2.0)
  return VDM(Says(), parameterization=X(), noise=noise, **fields)


# --- training ---------------------------------------------------------------


@pytest.mark.parametrize('schedule', [Cosine(), LogNormal()])
def test_parts_together_are_the_whole_in_equal_shares(schedule):
  """eDiff-I, section 4: intervals of equal probability."""
  t = jnp.linspace(0, 1, 1001)
  low, high = (Part(schedule, *ends)(t) for ends in ((0.0, 0.5), (0.5, 1.0)))
  whole = schedule(jnp.linspace(0, 1, 2001))
  np.testing.assert_allclose(
    np.concatenate([low, high[1:]]), whole, rtol=1e-4, atol=1e-4
  )


def test_an_expert_is_trained_on_its_noise_levels_alone():
  schedule = LogNormal()
  expert = system(times=(0.25, 0.5))
  batch = {'video': jnp.zeros((4096, *SHAPE))}
  drawn = jax.jit(expert.draw)(jax.random.key(0), batch)
  most, least = schedule(jnp.array([0.5, 0.25]))
  logsnr = np.asarray(drawn['logsnr'])
  assert most <= logsnr.min() < most + 0.01
  assert least - 0.01 < logsnr.max() <= least


# --- routing ----------------------------------------------------------------


@pytest.mark.parametrize(
  'sampler',
  [
    *(Ancestral(0.2), DEIS(3), Churn(Kutta(), 0.2)),
    *(pytest.param(s, marks=pytest.mark.slow) for s in (DDIM(), Heun())),
  ],
  ids=lambda s: type(s).__name__,
)
def test_a_cut_loop_goes_on_to_the_same_videos(sampler):
  denoise = exact_denoiser(np.zeros(2), exponential_covariance(2))
  options = {
    'schedule': Cosine(-10.0, 10.0),
    'sampler': sampler,
    'num_steps': 7,
    'noise': Progressive(1.0),
  }
  shape = 2, *SHAPE

  def cut(key):
    state = None
    for steps in ((0, 3), (3, 4), (4, 7)):
      state = sample(key, denoise, shape, steps=steps, state=state, **options)
    return state

  whole = jax.jit(lambda key: sample(key, denoise, shape, **options))
  key = jax.random.key(0)
  np.testing.assert_allclose(jax.jit(cut)(key), whole(key), atol=1e-5)


@pytest.mark.parametrize('steps', [2, 5, 40])
def test_every_step_starts_in_the_range_of_its_expert(steps):
  model = system()
  spans = [(0.0, 0.3), (0.8, 1.0), (0.3, 0.8)]
  experts = Experts([Expert(span, says(span[0])) for span in spans])
  starts = np.asarray(model.levels(steps))[:-1]
  ends = [np.asarray(LogNormal()(jnp.array(s))) for s in (0.3, 0.8)]
  found = []
  for expert, (first, last) in experts.segments(model, steps):
    found += range(first, last)
    for level in starts[first:last]:
      # From data to noise log SNR falls; beyond the ends is the nearest's.
      own = {0.0: level >= ends[0], 0.8: level <= ends[1]}
      between = ends[1] <= level <= ends[0]
      assert own.get(expert.times[0], between), (expert.times, level)
  assert found == list(range(steps))


def test_experts_that_are_alike_are_the_model_that_they_were_forked_from():
  model = system()
  settings = SampleSettings(Churn(Kutta(), 0.2), num_steps=6, batch_size=2)
  draw = VideoSampler(model, SHAPE, settings)
  experts = Experts([Expert(s, says(0.1)) for s in ((0.0, 0.5), (0.5, 1.0))])
  one, two = (
    draw(params, jax.random.key(0), 3, show_progress=False)
    for params in (says(0.1), experts)
  )
  np.testing.assert_allclose(one, two, atol=1e-5)


def test_known_frames_and_blocks_are_drawn_by_experts_too():
  settings = SampleSettings(DDIM(), num_steps=6, batch_size=2)
  spans = (0.0, 0.5), (0.5, 1.0)

  def extended(params):
    model = Model(system(), params, SHAPE, settings)
    given = np.zeros((2, 1, *SHAPE[1:]), np.float32)
    return model.extend(jax.random.key(0), given, 5)

  alike = Experts([Expert(s, says(0.1)) for s in spans])
  np.testing.assert_allclose(extended(alike), extended(says(0.1)), atol=1e-5)
  low, high = spans
  other = Experts([Expert(low, says(0.4)), Expert(high, says(0.1))])
  assert np.abs(extended(other) - extended(alike)).max() > 0.05


@pytest.mark.parametrize(
  ('spans', 'message'),
  [
    (((0.0, 0.5), (0.6, 1.0)), 'times 0.5 to 0.6 have no expert'),
    (((0.0, 0.5), (0.4, 1.0)), 'times 0.4 to 0.5 have more than one expert'),
    (((0.0, 0.5),), 'times 0.5 to 1 have no expert'),
    (((0.5, 1.0),), 'times 0 to 0.5 have no expert'),
    (((0.0, 1.0), (0.0, 1.0)), 'times 0 to 1 have more than one expert'),
  ],
)
def test_gaps_and_overlaps_are_refused(spans, message):
  with pytest.raises(ValueError, match=message):
    Experts([Expert(span, {}) for span in spans])


@pytest.mark.parametrize('times', [(0.5, 0.5), (0.7, 0.2), (-0.1, 1.0)])
def test_times_that_are_no_part_are_refused(times):
  with pytest.raises(ValueError, match='give two from 0 .data. to 1 .noise.'):
    system(times=times)


# --- the command line -------------------------------------------------------


@pytest.mark.slow  # four models
def test_experts_are_forked_trained_and_asked_together(tmp_path, capsys):
  few = '--config.train.batch_size=8', '--config.sample.batch_size=8'
  config = f'--config={CONFIGS / "moving_shapes.py"}:pyoco,smoke', *few
  base, low, high = (tmp_path / name for name in ('base', 'low', 'high'))
  command(base, *config)
  forked = *config, f'--config.init.all={base}'
  command(low, *forked, '--config.system.times=(0.0, 0.5)')
  said = capsys.readouterr().out
  assert 'all: ' in said
  assert 'expert of times 0 to 0.5' in said
  assert not (low / 'samples').exists()
  command(high, *forked, '--config.system.times=(0.5, 1.0)')
  asked = '--mode=sample', '--num=2', '--seed=3', '--sampler=ddim'
  together = saved_by(low, *asked, f'--experts={high}')
  again = saved_by(high, *asked, f'--experts={low}')
  np.testing.assert_array_equal(together, again)
  assert np.abs(together - saved_by(base, *asked)).max() > 1e-4
  model = vdm_jax.load([low, high])
  assert [e.times for e in model.params.experts] == [(0.5, 1.0), (0.0, 0.5)]
  message = fails(capsys, low, *asked)
  assert 'times 0.5 to 1 have no expert' in message
  message = fails(capsys, low, *asked, f'--experts={low}')
  assert 'times 0 to 0.5 have more than one expert' in message
  other = tmp_path / 'other'
  command(other, *config, '--config.network.width=16')
  message = fails(capsys, low, *asked, f'--experts={other}')
  assert 'is of another model (network.width is 16, not 8' in message
