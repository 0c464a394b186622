"""Plans of long videos: every frame made once it can be, none unseen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gaussian_video import exact_denoiser, exponential_covariance
from vdm_jax.diffusion.schedules import Cosine
from vdm_jax.samplers import Ancestral, Langevin, blocks
from vdm_jax.samplers.conditional import sample_given


def check(plan, given, window, total):
  """Laws of any plan; returns the places that exist after it."""
  there = set(given)
  for block in plan:
    assert len(block.frames) == len(block.known) == window
    # One frame rate in a block: that of the model that draws it.
    np.testing.assert_array_equal(np.diff(block.frames), block.stride)
    known = {f for f, k in zip(block.frames, block.known, strict=True) if k}
    assert known <= there
    new = set(block.frames) - known
    assert new, f'{block} makes nothing'
    assert not new & set(given), 'a given frame is made again'
    there |= new
  assert set(range(total)) <= there
  return there


@pytest.mark.parametrize('num_given', [0, 1, 3, 16, 20])
@pytest.mark.parametrize('overlap', [1, 4, 15])
@pytest.mark.parametrize('num_frames', [20, 33, 64])
def test_an_extension_makes_every_frame(num_given, overlap, num_frames):
  plan = blocks.extend(num_given, num_frames, 16, overlap)
  assert {block.stride for block in plan} <= {1}
  there = check(plan, range(num_given), 16, num_frames)
  assert there == set(range(num_frames)), 'frames over the end'
  for block in plan[1:]:
    assert sum(block.known) >= overlap


def test_the_papers_64_frames_of_16():
  """VDM, Table 6: 64 frames autoregressively from blocks of 16."""
  plan = blocks.extend(16, 64, 16, 8)
  assert len(plan) == 6
  assert plan[0].frames == tuple(range(8, 24))
  assert str(plan[0]).startswith('8. 9. 10.')
  assert str(plan[0]).endswith('15. 16  17  18  19  20  21  22  23')


@pytest.mark.parametrize('num_given', [2, 3, 9])
@pytest.mark.parametrize('factor', [2, 3, 7])
def test_an_interpolation_sees_both_ends_of_every_gap(num_given, factor):
  total = (num_given - 1) * factor + 1
  given = range(0, total, factor)
  plan = blocks.interpolate(num_given, factor, 8)
  check(plan, given, 8, total)
  makers = {
    f: block
    for block in plan
    for f, k in zip(block.frames, block.known, strict=True)
    if not k and f < total
  }
  for frame, block in makers.items():
    low = frame - frame % factor
    assert {low, low + factor} <= set(block.frames), f'{frame} made blindly'


@pytest.mark.parametrize('num_given', [0, 1, 6, 16, 30])
@pytest.mark.parametrize('factor', [2, 4])
@pytest.mark.parametrize('num_frames', [33, 64])
def test_a_mixed_plan_goes_from_coarse_to_fine(num_given, factor, num_frames):
  plan = blocks.mixed(num_given, num_frames, 16, factor)
  check(plan, range(num_given), 16, num_frames)
  strides = [block.stride for block in plan]
  assert strides == sorted(strides, reverse=True)
  assert set(strides) == {factor, 1}
  for block in plan:
    if block.stride == 1:  # each new frame lies between two that are known
      known = [f for f, k in zip(block.frames, block.known, strict=True) if k]
      first = min(f for f in block.frames if f not in known)
      assert min(known) < first or first == 0
  # Fewer blocks hang on one another than left to right.
  if num_given <= 1:
    chain = strides.count(factor) + 1
    assert chain < len(blocks.extend(num_given, num_frames, 16))


def test_a_mixed_plan_of_what_is_there_or_of_one_frame():
  assert blocks.mixed(16, 16, 16, 4) == []
  with pytest.raises(ValueError, match='less than the 16 frames given'):
    blocks.mixed(16, 15, 16, 4)
  (block,) = blocks.mixed(0, 1, 4, 2)
  assert block.frames == (0, 2, 4, 6)


WINDOW, CORRELATION = 6, 0.9


def long_gaussian_video(plan, num_frames):
  """Runs a plan from one frame on, with exact models of AR(1) frames."""

  def model(stride):
    denoise = exact_denoiser(
      np.zeros(WINDOW),
      exponential_covariance(WINDOW, CORRELATION**stride, 1.0),
    )

    @jax.jit
    def draw(key, observed, mask):
      return sample_given(
        key,
        denoise,
        observed,
        mask,
        schedule=Cosine(),
        sampler=Ancestral(0.0),
        num_steps=96,
        corrector=Langevin(0.1),
      )

    return draw

  by_stride = {stride: model(stride) for stride in {b.stride for b in plan}}
  shape = (8, 16, 16, 1)
  first = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  video = blocks.run(
    jax.random.key(0),
    lambda key, block, *given: by_stride[block.stride](key, *given),
    {0: first},
    shape,
    plan,
  )[:, :num_frames]
  np.testing.assert_array_equal(video[:, 0], first)
  return video


@pytest.mark.parametrize(
  'plan',
  [
    blocks.extend(1, 15, WINDOW, 2),
    pytest.param(blocks.mixed(1, 15, WINDOW, 2), marks=pytest.mark.slow),
  ],
  ids=['extend', 'mixed'],
)
def test_a_long_gaussian_video_keeps_its_process(plan):
  """AR(1) frames: new ones follow the last by the process's own step.

  The mean squared step between neighbours stays 2 (1 - r) over every seam,
  and the given frame is as it was; each model of a mixed plan knows the process
  at its own frame rate.
  """
  video = long_gaussian_video(plan, 15)
  assert video.shape == (8, 15, 16, 16, 1)
  steps = np.mean(np.diff(video, axis=1) ** 2, axis=(0, 2, 3, 4))
  # Four standard errors of 2048 squares, and 10 % for the finite steps.
  tolerance = 0.2 * (4 * (2 / 2048) ** 0.5 + 0.1)
  np.testing.assert_allclose(steps, 0.2, atol=tolerance)


def test_memory_on_the_device_does_not_grow_with_the_length():
  """64 frames, and 256, of a model of 16: as much at the last block."""
  shape = 2, 8, 8, 3
  sizes = []

  @jax.jit
  def double(observed, mask):
    return jnp.where(mask, observed, 0.5)

  def draw(key, block, observed, mask):
    made = double(observed, mask)
    sizes.append(sum(array.nbytes for array in jax.live_arrays()))
    return made

  given = dict.fromkeys(range(16), np.zeros(shape, np.float32))
  for num_frames in (64, 256):
    plan = blocks.extend(16, num_frames, 16)
    video = blocks.run(jax.random.key(0), draw, given, shape, plan)
    assert video.shape[1] == num_frames
  assert len(sizes) == 6 + 30
  assert len(set(sizes[1:])) == 1
  assert double._cache_size() == 1


def test_frames_made_twice_come_from_the_later_block():
  plan = [
    blocks.Block((0, 1, 2), (True, False, False)),
    blocks.Block((1, 2, 3), (True, False, False)),
  ]
  count = iter(range(1, 9))

  def draw(key, block, observed, mask):
    return jnp.where(mask, observed, float(next(count)))

  video = blocks.run(
    jax.random.key(0), draw, {0: np.zeros((1, 1, 1, 1))}, (1, 1, 1, 1), plan
  )
  assert video.ravel().tolist() == [0, 1, 2, 2]


def test_a_video_that_is_long_enough_comes_back_as_given():
  given = np.arange(4.0).reshape(4, 1, 1, 1, 1)
  plan = blocks.extend(4, 4, 3)
  video = blocks.run(
    jax.random.key(0), lambda *_: None, dict(enumerate(given)), (1,) * 4, plan
  )
  assert video.ravel().tolist() == [0, 1, 2, 3]


def test_a_plan_that_knows_what_is_not_there_is_refused():
  plan = [blocks.Block((0, 1), (False, True))]
  with pytest.raises(
    ValueError, match=r'Block 0 \(0  1\.\) knows frames \[1\]'
  ):
    blocks.run(jax.random.key(0), lambda *_: None, {}, (1, 1, 1, 1), plan)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: blocks.extend(1, 16, 1), 'single frames cannot extend'),
    (lambda: blocks.mixed(4, 33, 8, 8), 'several passes'),
    (lambda: blocks.extend(4, 16, 8, 8), 'overlap=8'),
    (lambda: blocks.extend(4, 16, 8, 0), 'overlap=0'),
    (lambda: blocks.extend(4, 3, 8, 2), 'less than the 4 frames given'),
    (lambda: blocks.interpolate(1, 2, 8), 'at least 2 frames'),
    (lambda: blocks.interpolate(3, 1, 8), 'factor of at least 2'),
    (lambda: blocks.interpolate(3, 8, 8), 'several passes'),
  ],
)
def test_plans_that_cannot_be_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
