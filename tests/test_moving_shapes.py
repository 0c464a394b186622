"""Moving shapes: laws of the clips, and what their score must tell apart."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from vdm_jax import evaluation
from vdm_jax.data.moving_shapes import (
  CLASSES,
  Factors,
  MovingShapes,
  render,
)
from vdm_jax.data.moving_shapes_fit import path_errors
from vdm_jax.data.moving_shapes_measure import measure
from vdm_jax.data.moving_shapes_motion import GRAVITY, MOTIONS
from vdm_jax.data.moving_shapes_render import (
  LOOKS,
  PALETTE,
  PATTERNS,
  SHAPES,
  coverage,
)
from vdm_jax.data.moving_shapes_score import score
from vdm_jax.data.pixels import to_float

ACTIONS = list(MOTIONS)


def draw_motions(action, count=40):
  rng = np.random.default_rng(0)
  return [MOTIONS[action].draw(rng) for _ in range(count)]


def velocity(motion, t, reach, step=1e-4):
  """Central difference, exact for up to quadratic paths."""
  ahead, behind = motion.path(t + step, reach), motion.path(t - step, reach)
  return (ahead - behind) / (2 * step)


# --- motion ------------------------------------------------------------------

REACHES = [np.array([0.7, 0.7]), np.array([1.4, 0.64]), np.array([0.66, 1.2])]


@pytest.mark.parametrize('action', ACTIONS)
@pytest.mark.parametrize('reach', REACHES, ids=str)
def test_paths_stay_between_the_walls_and_never_jump(action, reach):
  t = np.linspace(0, 64, 6401)
  for motion in draw_motions(action):
    path = motion.path(t, reach)
    assert path.shape == (6401, 2)
    assert (path >= -1e-12).all()
    assert (path <= reach + 1e-12).all()
    # No speed beyond that of the highest fall, sqrt(2 g h), or an orbit's.
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 0.01 * 0.22


def test_slide_has_constant_speed_on_each_axis():
  t, reach = np.linspace(0, 40, 501), REACHES[0]
  for motion in draw_motions('slide'):
    speeds = abs(velocity(motion, t, reach))
    free = np.isclose(speeds, np.abs(motion.velocity), rtol=1e-6).mean()
    assert free > 0.99  # the rest are differences taken across a wall
    turns = np.diff(np.sign(velocity(motion, t, reach)), axis=0) != 0
    before = motion.path(t, reach)[:-1][turns]
    room = np.broadcast_to(reach, turns.shape)[turns]
    near = np.minimum(before, room - before)
    assert (near < 0.08 * 0.07).all()  # it turns at walls only


def test_bounce_conserves_energy_and_falls_with_g():
  reach = np.array([1.4, 0.64])
  t = np.linspace(0, 40, 501)
  for motion in draw_motions('bounce'):
    height = reach[1] - motion.path(t, reach)[:, 1]
    speed = velocity(motion, t, reach)[:, 1]
    energy = 0.5 * speed**2 + GRAVITY * height
    exact = np.isclose(energy, GRAVITY * motion.height, rtol=1e-6)
    assert exact.mean() > 0.99
    step = 1e-3
    ys = [motion.path(t + k * step, reach)[:, 1] for k in (-1, 0, 1)]
    fall = (ys[0] - 2 * ys[1] + ys[2]) / step**2
    assert np.isclose(fall, GRAVITY, rtol=1e-4).mean() > 0.99
    assert height.min() < 0.02  # it does reach the floor


@pytest.mark.parametrize('reach', REACHES, ids=str)
def test_orbit_is_a_circle_at_constant_speed(reach):
  t = np.linspace(0, 40, 501)
  for motion in draw_motions('orbit'):
    path = motion.path(t, reach)
    around = path - (motion.path(t + np.pi / motion.omega, reach) + path) / 2
    np.testing.assert_allclose(np.linalg.norm(around, axis=1), motion.radius)
    speed = np.linalg.norm(velocity(motion, t, reach), axis=1)
    np.testing.assert_allclose(speed, motion.radius * abs(motion.omega), 1e-5)


@pytest.mark.parametrize('reach', REACHES, ids=str)
def test_swing_is_harmonic_along_a_line(reach):
  t = np.linspace(0, 40, 501)
  for motion in draw_motions('swing'):
    path = motion.path(t, reach)
    rest = (path + motion.path(t + np.pi / motion.omega, reach)) / 2
    np.testing.assert_allclose(rest, rest[:1] + np.zeros_like(rest))
    out = path - rest
    normal = [-np.sin(motion.tilt), np.cos(motion.tilt)]
    np.testing.assert_allclose(out @ normal, 0, atol=1e-12)
    speed = np.linalg.norm(velocity(motion, t, reach), axis=1)
    energy = speed**2 + (motion.omega * np.linalg.norm(out, axis=1)) ** 2
    np.testing.assert_allclose(
      energy, (motion.omega * motion.amplitude) ** 2, 1e-5
    )


# --- rendering ---------------------------------------------------------------

# Written anew as inequalities, without distances.
INSIDE = {
  'circle': lambda x, y: x**2 + y**2 < 1,
  'square': lambda x, y: (abs(x) < 1) & (abs(y) < 1),
  'triangle': lambda x, y: (y < 1) & (abs(x) < (y + 1) / 2),
  'cross': lambda x, y: (
    ((abs(x) < 0.36) & (abs(y) < 1)) | ((abs(y) < 0.36) & (abs(x) < 1))
  ),
}


@pytest.mark.parametrize('shape', SHAPES)
def test_coverage_is_that_of_the_shape_sampled_finely(shape):
  radius, fine = 5.3, 16
  centre = np.array([8.21, 7.64])
  grid = (np.arange(16 * fine) + 0.5) / fine
  x, y = grid - centre[0], (grid - centre[1])[:, None]
  exact = INSIDE[shape](x / radius, y / radius).astype(float)
  exact = exact.reshape(16, fine, 16, fine).mean((1, 3))
  drawn = coverage(shape, x[fine // 2 :: fine], y[fine // 2 :: fine], radius)
  # A linear ramp along the normal: exact on edges along the pixels, elsewhere
  # good to a tenth or so, corners to a quarter.
  assert abs(exact - drawn).mean() < 0.01
  assert abs(exact - drawn).max() < 0.27
  np.testing.assert_allclose(
    exact.sum(), SHAPES[shape].area * radius**2, rtol=0.01
  )
  below = (exact.sum(1) @ (np.arange(16) + 0.5)) / exact.sum() - centre[1]
  assert below == pytest.approx(SHAPES[shape].centroid * radius, abs=1 / fine)


@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_touch_all_four_sides_of_their_box(shape):
  for side in ((1, 0), (-1, 0), (0, 1), (0, -1)):
    edge = np.linspace(-1, 1, 201)
    x, y = (s * 9 if s else edge * 9 for s in side)
    assert abs(SHAPES[shape].distance(x, y, 9.0)).min() < 1e-9
    x, y = (s * 9.1 if s else edge * 9 for s in side)
    assert SHAPES[shape].distance(x, y, 9.0).min() > 0


def test_slow_motion_fills_in_frames():
  factors = MovingShapes().factors(3)
  slow, fast = (
    render(factors, n, 24, 31, skip) for n, skip in ((16, 0.5), (8, 1))
  )
  np.testing.assert_array_equal(slow[::2], fast)
  assert (slow[1::2] != fast).any()


@pytest.mark.parametrize('index', range(12))
@pytest.mark.parametrize('frameskip', [2, 4])
def test_frameskip_takes_every_kth_frame(index, frameskip):
  factors = MovingShapes().factors(index)
  slow = render(factors, 16, 24, 31)
  fast = render(factors, 16 // frameskip, 24, 31, frameskip)
  np.testing.assert_array_equal(fast, slow[::frameskip])
  assert (fast[1] != fast[0]).any()


def test_twelve_clips_show_all_actions():
  assert {MovingShapes().factors(i).action for i in range(12)} == set(ACTIONS)


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (24, 40), (45, 32)])
def test_every_size_shows_the_same_clip(height, width):
  for index in range(12):
    factors = MovingShapes().factors(index)
    small = render(factors, 8, height, width)
    large = render(factors, 8, 2 * height, 2 * width).astype(float)
    pooled = large.reshape(8, height, 2, width, 2, 3).mean((2, 4))
    error = abs(pooled - small)
    assert error.mean() < 1.0  # of 255
    assert error.max() < 60  # single pixels at sharp tips


def test_object_and_background_can_be_told_apart_exactly():
  for index in range(24):
    factors = MovingShapes().factors(index)
    video = render(factors, 8, 32, 32) / 255
    chroma = video @ np.exp(2j * np.pi / 3 * np.arange(3))
    scene = factors.scene.paint(32, 32)
    still = (abs(video - scene) < 0.5001 / 255).all((0, 3))
    assert still.mean() > 0.3
    assert np.ptp(chroma[:, still].real) < 0.012  # 8-bit rounding only
    assert abs(chroma[:, still]).max() < 0.1
    colour = np.array(PALETTE[factors.colour])
    inside = (abs(video - colour) < 0.004).all(-1).sum((1, 2))
    area = SHAPES[factors.shape].area * (32 * factors.radius) ** 2
    assert (inside > 0.4 * area).all()
    assert (inside <= area).all()


def test_patterns_are_what_their_names_say():
  # sin(a x + b y + c) has rank 2 as a matrix, the product of two such rank 4.
  ranks = {'plain': 0, 'shaded': 2, 'striped': 2, 'checkered': 4}
  assert set(ranks) == set(PATTERNS)
  for index in range(40):
    scene = MovingShapes().factors(index).scene
    wave = scene.paint(48, 40).mean(-1) - scene.level
    assert np.linalg.matrix_rank(wave, tol=1e-3) == ranks[scene.pattern]
    straight = max(abs(np.diff(wave, 2, axis)).max() for axis in (0, 1)) < 1e-5
    assert straight == (scene.pattern in ('plain', 'shaded'))
    if scene.pattern != 'plain':
      assert abs(wave).max() == pytest.approx(scene.contrast, rel=0.1)


def test_two_colours_are_60_degrees_apart():
  hues = np.array(list(PALETTE.values())) @ np.exp(
    2j * np.pi / 3 * np.arange(3)
  )
  np.testing.assert_allclose(abs(hues), 0.8)
  for a, b in itertools.combinations(hues, 2):
    assert abs(np.angle(a / b)) > np.pi / 3 - 1e-6


def test_backgrounds_are_muted_and_legal():
  for index in range(60):
    scene = MovingShapes().factors(index).scene.paint(20, 33)
    assert scene.shape == (20, 33, 3)
    assert scene.dtype == np.float32
    assert scene.min() >= 0
    assert scene.max() <= 1
    assert np.ptp(scene, axis=-1).max() < 0.08
    flat = np.ptp(scene, axis=(0, 1)).max() < 1e-6
    assert flat == (MovingShapes().factors(index).background == 'plain')


# --- source ------------------------------------------------------------------


def test_clips_depend_on_seed_split_and_index_alone():
  one, two = MovingShapes(seed=3), MovingShapes(seed=3)
  forth = [one.clip(i, np.random.default_rng(1)) for i in range(6)]
  back = [two.clip(i, np.random.default_rng(2)) for i in reversed(range(6))]
  for a, b in zip(forth, reversed(back), strict=True):
    np.testing.assert_array_equal(a['video'], b['video'])
    assert a['label'] == b['label']
  assert forth[0]['video'].dtype == np.uint8
  assert forth[0]['video'].shape == (16, 32, 32, 3)
  assert forth[0]['label'].dtype == np.int32


def test_streams_are_disjoint():
  radii = [
    MovingShapes(seed=seed, split=split).factors(i).radius
    for seed in (0, 1)
    for split in ('train', 'validation')
    for i in range(300)
  ]
  assert len(set(radii)) == 1200


def test_labels_and_captions_name_the_factors():
  source = MovingShapes()
  assert source.num_classes == np.prod([len(names) for names in CLASSES]) == 96
  seen = {}
  for index in range(600):
    factors = source.factors(index)
    names = factors.shape, factors.colour, factors.action
    assert source.factors(index) == factors
    label = source.clip(index)['label']
    assert seen.setdefault(label, names) == names
    assert 0 <= label < 96
    assert factors.caption.split() == [
      *('a', factors.colour, factors.shape, f'{factors.action}s'),
      *('over', 'a', factors.background, 'background'),
    ]
    assert LOOKS['radius'][0] <= factors.radius <= LOOKS['radius'][1]
    assert source.label(*names) == label
    assert source.class_names(label) == names
  assert len(set(seen.values())) == len(seen) > 90


def test_factors_are_balanced_and_independent():
  drawn = [MovingShapes().factors(i) for i in range(2000)]
  sizes = {'shape': 4, 'colour': 6, 'action': 4, 'background': 4}
  assert len(PATTERNS) == 4
  for (a, m), (b, n) in itertools.combinations(sizes.items(), 2):
    pairs = [(getattr(f, a), getattr(f, b)) for f in drawn]
    counts = np.array([pairs.count(pair) for pair in set(pairs)])
    assert len(counts) == m * n
    # Chi squared: mean m n - 1, variance 2 (m n - 1); five deviations.
    chi = ((counts - 2000 / (m * n)) ** 2).sum() / (2000 / (m * n))
    assert chi < (m * n - 1) + 5 * np.sqrt(2 * (m * n - 1))


def test_what_occurs_can_be_chosen():
  chosen = {
    'shapes': ('cross', 'circle'),
    'colours': ('cyan',),
    'actions': ('swing', 'slide'),
    'backgrounds': ('plain', 'shaded', 'striped'),
  }
  source = MovingShapes(**chosen)
  drawn = [source.factors(i) for i in range(64)]
  for name, names in chosen.items():
    assert {getattr(f, name[:-1]) for f in drawn} == set(names)
  labels = [source.clip(i)['label'] for i in range(64)]
  assert set(labels) == set(range(source.num_classes))
  # The score knows what these labels stand for.
  clips = np.stack([source.clip(i)['video'] for i in range(64)])
  result = score(clips / np.float32(127.5) - 1)
  assert result.summary(np.array(labels), source.classes)['correct'] == 1
  others = np.roll(labels, 1)
  wrong = np.mean(others != labels)
  correct = result.summary(others, source.classes)['correct']
  np.testing.assert_allclose(correct, 1 - wrong)


def test_fingerprint_changes_with_everything_that_changes_clips():
  others = [
    *({}, {'num_clips': 9}, {'num_frames': 8}, {'height': 40}, {'width': 40}),
    *({'frameskip': 2}, {'seed': 1}, {'split': 'validation'}),
    *({'shapes': ('cross',)}, {'colours': ('red',)}, {'actions': ('slide',)}),
    *({'backgrounds': ('plain',)}, {'radius': (0.14, 0.2)}),
  ]
  prints = [MovingShapes(**other).fingerprint() for other in others]
  assert len(set(prints)) == len(others)
  assert MovingShapes().fingerprint() == prints[0]


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    *[('num_clips', 0), ('num_frames', 0), ('height', 7), ('width', 7)],
    *[('frameskip', 0), ('seed', -1), ('split', 'test')],
    *[('shapes', ()), ('colours', ('red', 'grey')), ('actions', ('fly',))],
    ('shapes', ('cross', 'cross')),
    *[('radius', (0, 0.2)), ('radius', (0.2, 0.1)), ('radius', (0.2, 0.4))],
  ],
)
def test_what_is_not_allowed_is_named(name, value):
  message = re.escape(f'{name} is {value!r}; it must be')
  with pytest.raises(ValueError, match=message):
    MovingShapes(**{name: value})


def test_index_out_of_range():
  source = MovingShapes(num_clips=3)
  assert len(source) == 3
  for index in (-1, 3):
    with pytest.raises(IndexError, match=r'in \[0, 3\)'):
      source.clip(index)


@pytest.mark.parametrize('action', ACTIONS)
def test_a_large_object_moves_in_a_smaller_world(action):
  """Lengths shrink with the reach, 1 - 2 x 0.26 = 0.75 x 0.64; times do not."""
  for motion in draw_motions(action, 8):
    factors = dataclasses.replace(
      MovingShapes().factors(0), shape='circle', motion=motion, radius=0.26
    )
    rgb = render(factors, 16, 64, 64) / np.float32(255)
    small = motion.path(np.arange(16), np.array([0.64, 0.64]))
    centre = measure(rgb[None], 0.26).centre[0]
    np.testing.assert_allclose(centre / 64, 0.26 + 0.75 * small, atol=2e-3)


# --- score -------------------------------------------------------------------


def real_clips(count, **options):
  source = MovingShapes(split='validation', **options)
  clips = [source.clip(i) for i in range(count)]
  video = np.stack([clip['video'] for clip in clips]) / np.float32(127.5) - 1
  return video, np.stack([clip['label'] for clip in clips])


def blur(video):
  """Binomial blur of height and width: a standard deviation of 0.5 pixels."""
  for axis in (2, 3):
    pad = [(1, 1) if a == axis else (0, 0) for a in range(5)]
    wide = np.pad(video, pad, mode='edge')
    n = video.shape[axis]
    a, b, c = (np.take(wide, range(k, k + n), axis) for k in range(3))
    video = a / 8 + 3 * b / 4 + c / 8
  return video


LARGE = {
  'num_frames': 8,
  'frameskip': 0.5,
  'height': 16,
  'width': 16,
  'radius': (0.25, 0.3),
}


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'num_frames': 8},
    {'num_frames': 8, 'frameskip': 4},
    {'num_frames': 8, 'frameskip': 0.5, 'height': 16, 'width': 16},
    {'num_frames': 8, 'frameskip': 0.25, 'height': 16, 'width': 16},
    {'height': 24, 'width': 24},
    {'num_frames': 8, 'height': 64, 'width': 64},
    {'num_frames': 8, 'height': 33, 'width': 48, 'frameskip': 2},
    {'height': 48, 'width': 48, 'radius': (0.08, 0.1)},
    {'num_frames': 8, 'height': 33, 'width': 48, 'radius': (0.22, 0.26)},
    LARGE,
  ],
  ids=str,
)
def test_real_clips_are_valid_and_recognised(options):
  video, label = real_clips(64, **options)
  rules = {k: options[k] for k in ('frameskip', 'radius') if k in options}
  assert set(score(video, **rules).summary(label).values()) == {1.0}


def test_objects_of_another_size_are_wrong():
  video, _ = real_clips(32, **LARGE)
  assert not score(video, 0.5).constancy.any()
  options = {**LARGE, 'radius': LOOKS['radius']}
  video, _ = real_clips(32, **options)
  assert not score(video, 0.5, LARGE['radius']).constancy.any()


@pytest.mark.parametrize('num_frames', [8, 16])
def test_mild_noise_and_blur_are_forgiven(num_frames):
  video, label = real_clips(64, num_frames=num_frames)
  noise = np.random.default_rng(0).normal(size=video.shape)
  for worse in (video + 0.05 * noise, blur(video), np.float16(video)):
    assert score(worse).summary(label)['correct'] >= 0.98


def changed(factors, **changes):
  return dataclasses.replace(factors, **changes)


def float_render(factors, num_frames):
  return render(factors, num_frames, 32, 32) / np.float32(127.5) - 1


def with_motion(factors, video, motion):
  return float_render(changed(factors, motion=motion), len(video))


def join_halves(a, b):
  return np.concatenate([a[: len(a) // 2], b[len(b) // 2 :]])


@dataclasses.dataclass(frozen=True)
class Displaced:
  """A law of motion, with displacements [F, 2] added frame by frame."""

  law: object
  by: np.ndarray

  def path(self, t, reach):
    return (self.law.path(t, reach) + self.by) % reach


def shuffled(factors, video, rng):
  return video[rng.permutation(len(video))]


def stopped(factors, video, rng):
  return np.repeat(video[:1], len(video), 0)


def teleported(factors, video, rng):
  jump = rng.uniform(0.25, 0.4, 2) * rng.choice((-1, 1), 2)
  by = np.where(np.arange(len(video))[:, None] < len(video) // 2, 0, jump)
  return with_motion(factors, video, Displaced(factors.motion, by))


def jittering(factors, video, rng):
  by = rng.normal(size=(len(video), 2)) * 0.05
  return with_motion(factors, video, Displaced(factors.motion, by))


def new_shape(factors, video, rng):
  other = rng.choice([s for s in SHAPES if s != factors.shape])
  other = float_render(changed(factors, shape=other), len(video))
  return join_halves(video, other)


def new_colour(factors, video, rng):
  other = rng.choice([c for c in PALETTE if c != factors.colour])
  other = float_render(changed(factors, colour=other), len(video))
  return join_halves(video, other)


def growing(factors, video, rng):
  sizes = np.linspace(LOOKS['radius'][0], LOOKS['radius'][1], len(video))
  frames = [
    float_render(changed(factors, radius=size), i + 1)[i]
    for i, size in enumerate(sizes)
  ]
  return np.stack(frames)


def too_fast(factors, video, rng):
  turn = rng.uniform(np.pi / 3, 2 * np.pi / 3)  # too steep to pass for a swing
  velocity = 0.1 * np.cos(turn), 0.1 * np.sin(turn)
  return with_motion(factors, video, MOTIONS['slide']((0.5, 0.5), velocity))


def blown_away(factors, video, rng):
  motion = changed(MOTIONS['bounce'].draw(rng), drift=0.06)
  return with_motion(factors, video, motion)


def upright(factors, video, rng):
  motion = changed(MOTIONS['swing'].draw(rng), tilt=np.pi / 2)
  return with_motion(factors, video, motion)


def too_large(factors, video, rng):
  return float_render(changed(factors, shape='square', radius=0.24), len(video))


def too_small(factors, video, rng):
  return float_render(changed(factors, shape='cross', radius=0.1), len(video))


def orange(factors, video, rng):
  red, yellow = (
    float_render(changed(factors, colour=colour), len(video))
    for colour in ('red', 'yellow')
  )
  return (red + yellow) / 2


def foreign(factors, video, cover):
  """Draws cover(x, y), in pixels from the centre, on the right path."""
  reach = np.ones(2) - 2 * factors.radius
  path = factors.motion.path(np.arange(len(video)), reach) + factors.radius
  x, y = (np.arange(32) + 0.5 - 32 * path[..., None]).swapaxes(0, 1)
  share = cover(x[:, None], y[..., None])[..., None]
  scene = 2 * factors.scene.paint(32, 32) - 1
  return scene + share * (2 * np.array(PALETTE[factors.colour]) - 1 - scene)


def blob(factors, video, rng):
  def cover(x, y):
    return np.exp(-(x**2 + y**2) / 15)

  return foreign(factors, video, cover)


def diamond(factors, video, rng):
  def cover(x, y):
    return np.clip(0.5 - (abs(x) + abs(y) - 6) / 2**0.5, 0, 1)

  return foreign(factors, video, cover)


def still_blob(factors, video, rng):
  return stopped(factors, blob(factors, video, rng), rng)


def vanishing(factors, video, rng):
  video = video.copy()
  video[rng.integers(len(video))] = 2 * factors.scene.paint(32, 32) - 1
  return video


def doubled(factors, video, rng):
  other = Factors.draw(rng)
  guest = float_render(other, len(video))
  scene = 2 * other.scene.paint(32, 32) - 1
  return np.where(
    abs(guest - scene).max(-1, keepdims=True) > 0.05, guest, video
  )


def static(factors, video, rng):
  return rng.uniform(-1, 1, video.shape)


def flickering(factors, video, rng):
  scene = 2 * factors.scene.paint(32, 32) - 1
  free = abs(video - scene).max(-1, keepdims=True) < 0.02
  return video + free * rng.choice((-0.15, 0.15), (len(video), 1, 1, 1))


MISTAKES = {  # and the first check that must see each
  shuffled: 'physics',
  stopped: 'physics',
  teleported: 'physics',
  jittering: 'physics',
  too_fast: 'physics',
  blown_away: 'physics',
  upright: 'physics',
  new_shape: 'constancy',
  new_colour: 'constancy',
  growing: 'constancy',
  blob: 'constancy',
  diamond: 'constancy',
  still_blob: 'constancy',
  vanishing: 'objects',
  doubled: 'objects',
  too_large: 'objects',
  too_small: 'objects',
  orange: 'objects',
  static: 'objects',
  flickering: 'background',
}
CHECKS = ('objects', 'constancy', 'physics')


@pytest.mark.parametrize('num_frames', [8, 16])
@pytest.mark.parametrize('mistake', MISTAKES, ids=lambda f: f.__name__)
def test_mistakes_are_seen_by_the_check_that_names_them(mistake, num_frames):
  source = MovingShapes(num_frames=num_frames, split='validation')
  rng = np.random.default_rng(0)
  clips = []
  for index in range(48):
    factors = source.factors(index)
    video = float_render(factors, num_frames)
    clips.append(mistake(factors, video, rng))
  shares = score(np.stack(clips)).summary()
  check = MISTAKES[mistake]
  assert shares[check] <= 0.03
  assert shares['valid'] <= 0.03
  before = CHECKS if check == 'background' else CHECKS[: CHECKS.index(check)]
  assert all(shares[name] >= 0.97 for name in before)


def test_stillness_is_no_law_even_at_the_largest_frameskip():
  video, _ = real_clips(32, num_frames=8, frameskip=4)
  assert not score(np.repeat(video[:, :1], 8, 1), 4).physics.any()


def test_a_verdict_does_not_depend_on_the_other_clips():
  video, _ = real_clips(20, num_frames=8)
  video[::3] = video[::3, ::-1] * 0.9
  video[1::3, 4] = video[1::3, 2]
  together = dataclasses.asdict(score(video))
  for index in range(20):
    alone = dataclasses.asdict(score(video[index : index + 1]))
    assert all(alone[name][0] == together[name][index] for name in together)


def test_the_wrong_frameskip_is_noticed():
  video, _ = real_clips(48, num_frames=16, frameskip=4)
  assert score(video, 1).physics.mean() < 0.05
  video, _ = real_clips(48, num_frames=16)
  assert score(video, 4).physics.mean() < 0.05


def test_wrong_labels_are_not_correct():
  video, label = real_clips(48, num_frames=8)
  result = score(video)
  assert result.summary(label)['correct'] == 1
  assert result.summary((label + 1) % 96)['correct'] == 0
  one_action_off = label // 4 * 4 + (label + 1) % 4
  shares = result.summary(one_action_off)
  assert (shares['shape'], shares['colour'], shares['action']) == (1, 1, 0)


def test_one_bad_number_spoils_its_clip_alone():
  video, _ = real_clips(4, num_frames=8)
  video[1, 3, 0, 0, 0] = np.nan
  video[2, 0, 5, 5, 1] = np.inf
  result = score(video)
  assert result.objects.tolist() == [True, False, False, True]
  assert result.background.tolist() == [True, False, False, True]


@pytest.mark.parametrize('value', [-1.0, 0.0, 1.0, 1e30, np.nan])
def test_empty_videos_are_not_valid_and_raise_no_warning(value):
  assert not score(np.full((2, 4, 8, 9, 3), value)).valid.any()
  red = np.full((1, 4, 16, 16, 3), [0.8, -0.8, -0.8])
  assert not score(red).objects.any()


@pytest.mark.parametrize(
  ('shape', 'frameskip', 'what'),
  [
    ((8, 32, 32, 3), 1, r'\[N, F, H, W, 3\]'),
    ((0, 8, 32, 32, 3), 1, 'N >= 1'),
    ((1, 8, 32, 32, 1), 1, r'\[N, F, H, W, 3\]'),
    ((1, 3, 32, 32, 3), 1, 'at least 4 frames'),
    ((1, 8, 7, 32, 3), 1, '8 pixels'),
    ((1, 8, 32, 32, 3), 0, 'frameskip is 0'),
    ((1, 8, 32, 32, 3), 5, 'frameskip is 5'),
  ],
)
def test_score_names_what_it_cannot_judge(shape, frameskip, what):
  with pytest.raises(ValueError, match=what):
    score(np.zeros(shape), frameskip)


def test_score_refuses_bytes():
  with pytest.raises(TypeError, match='uint8'):
    score(np.zeros((1, 8, 32, 32, 3), np.uint8))


@pytest.mark.parametrize('action', ACTIONS)
def test_fits_find_each_law_and_no_other(action):
  own = ACTIONS.index(action)
  reach = np.array([0.7, 0.66])
  for frameskip, frames in ((1, 8), (1, 16), (4, 8)):
    t = frameskip * np.arange(frames)
    motions = draw_motions(action, 100)
    paths = np.stack([motion.path(t, reach) for motion in motions])
    reaches = np.tile(reach, (100, 1))
    at_rest = np.repeat(paths[:, :1], frames, 1)
    assert path_errors(at_rest, reaches, frameskip).min() > 1 / 32
    errors = path_errors(paths, reaches, frameskip)
    assert errors.shape == (100, 4)
    assert errors[:, own].max() < 1e-3
    assert (errors.argmin(1) == own).all()


@pytest.mark.parametrize('num_frames', [1, 2, 3])
def test_too_few_frames_are_judged_as_pictures(num_frames):
  """Nothing is said of motion; each frame has its clip's label."""
  data = {'name': 'moving_shapes', 'num_frames': num_frames}
  source = MovingShapes(num_frames=num_frames, split='validation')
  clips = [source.clip(i) for i in range(6)]
  videos = to_float(np.stack([clip['video'] for clip in clips]))
  label = np.stack([clip['label'] for clip in clips])
  shares = evaluation.evaluate(videos, data, label)
  whole = dict.fromkeys(('objects', 'constancy', 'shape', 'colour'), 1.0)
  assert shares == {'held-out': whole, 'samples': whole}
  videos[:3, 0] = videos[3:, 0]  # others' frames: of other classes
  shares = evaluation.evaluate(videos, data, label)['samples']
  wrong = label[:3] // 4 % 6 != label[3:] // 4 % 6
  assert wrong.any()
  assert shares['colour'] == pytest.approx(1 - wrong.sum() / 6 / num_frames)
