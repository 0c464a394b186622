"""Laws of the training step: randomness, accumulation, guard, sharding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdm_jax.training import sharding
from vdm_jax.training.optimizer import Adam, Muon, decayed
from vdm_jax.training.state import TrainState
from vdm_jax.training.step import ema_decay, make_step


@dataclasses.dataclass(frozen=True)
class Line:
  """The smallest system: one weight matrix, fitted to noisy videos."""

  dropout: float = 0.0

  def check(self, video_shape):
    del video_shape

  def init(self, key, video_shape):
    size = video_shape[-1]
    return {
      'kernel': jax.random.normal(key, (size, 128)),
      'bias': jnp.zeros(128),
    }

  def draw(self, key, batch):
    x = batch['video']
    return {'video': x, 'eps': jax.random.normal(key, x.shape)}

  def loss(self, params, key, drawn):
    x = drawn['video'] + drawn['eps']
    if self.dropout:
      x *= jax.random.bernoulli(key, 1 - self.dropout, x.shape)
    out = jnp.einsum('bfhwc,cd->bfhwd', x, params['kernel'])
    out = out + params['bias'].reshape(1, 1, 1, 1, -1)
    return jnp.square(out - 1.0).mean()

  def sample(self, params, key, shape, **options):
    raise AssertionError('not part of a step')


SHAPE = (2, 4, 4, 64)
OPTIMIZER = Adam(learning_rate=0.1, warmup_steps=0, clip_norm=10.0)


def fresh(optimizer=OPTIMIZER):
  params = Line().init(jax.random.key(0), SHAPE)
  return TrainState.create(params, optimizer.transformation())


def batch(seed=0, size=8):
  rng = np.random.default_rng(seed)
  return {'video': jnp.asarray(rng.normal(size=(size, *SHAPE)), jnp.float32)}


def stepper(optimizer=OPTIMIZER, system=None, **options):
  options = {'seed': 0, 'decay': 0.9} | options
  step = make_step(system or Line(), optimizer.transformation(), **options)
  return jax.jit(step)


def assert_trees(compare, a, b, **tolerance):
  jax.tree.map(lambda x, y: compare(x, y, **tolerance), a, b)


def test_accumulation_gives_the_same_step():
  state, data = fresh(), batch()
  whole, m1 = stepper()(state, data)
  parts, m2 = stepper(accumulate=4)(state, data)
  np.testing.assert_allclose(m1['loss'], m2['loss'], rtol=1e-5)
  assert_trees(
    np.testing.assert_allclose, whole.params, parts.params, rtol=1e-4, atol=1e-5
  )
  # With dropout each micro-batch draws its own.
  dropped = stepper(system=Line(0.5), accumulate=4)(state, data)[1]
  assert abs(dropped['loss'] - m1['loss']) > 1e-3


def test_noise_depends_on_seed_and_step_alone():
  step, data = stepper(), batch()
  state = fresh()
  first, again = step(state, data)[1], step(state, data)[1]
  assert float(first['loss']) == float(again['loss'])
  later = dataclasses.replace(state, step=state.step + 1)
  assert float(step(later, data)[1]['loss']) != float(first['loss'])
  other = stepper(seed=1)(state, data)[1]
  assert float(other['loss']) != float(first['loss'])


@pytest.mark.fault(22)
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_batch_that_is_not_finite_changes_nothing_but_the_counters(bad):
  step = stepper()
  state, _ = step(fresh(), batch())
  broken = batch()
  broken['video'] = broken['video'].at[0, 0, 0, 0, 0].set(bad)
  after, metrics = step(state, broken)
  for part in ('params', 'ema', 'opt_state'):
    assert_trees(
      np.testing.assert_array_equal, getattr(after, part), getattr(state, part)
    )
  assert (int(after.skipped), int(after.skipped_run)) == (1, 1)
  assert int(metrics['skipped_run']) == 1
  after, _ = step(after, broken)
  assert (int(after.skipped), int(after.skipped_run)) == (2, 2)
  after, _ = step(after, batch())
  assert (int(after.skipped), int(after.skipped_run)) == (2, 0)
  assert int(after.step) == 4


def test_ema_is_the_weighted_mean_of_all_parameters():
  step, state = stepper(decay=0.5), fresh()
  expected = np.asarray(state.params['kernel'], np.float64)
  for i in range(4):
    state, _ = step(state, batch(i))
    keep = min(0.5, (1 + i) / (10 + i))
    now = np.asarray(state.params['kernel'], np.float64)
    expected = keep * expected + (1 - keep) * now
  # Values near 1 in float32: an absolute part for the small ones.
  np.testing.assert_allclose(
    state.ema['kernel'], expected, rtol=1e-5, atol=1e-6
  )
  assert float(ema_decay(jnp.array(10**7), 0.9999)) == pytest.approx(0.9999)


@pytest.mark.parametrize('kind', [Adam, Muon])
def test_weight_decay_acts_on_kernels_only(kind):
  """Decay shrinks a parameter by learning rate x decay, beside the update."""
  start = Line().init(jax.random.key(0), SHAPE)
  start['bias'] = jnp.ones_like(start['bias'])
  data = batch()

  def moved(weight_decay):
    optimizer = kind(
      learning_rate=0.1,
      warmup_steps=0,
      clip_norm=10.0,
      weight_decay=weight_decay,
    )
    state = TrainState.create(start, optimizer.transformation())
    return stepper(optimizer)(state, data)[0].params

  plain, shrunk = moved(0.0), moved(0.5)
  np.testing.assert_allclose(
    shrunk['kernel'],
    plain['kernel'] - 0.1 * 0.5 * start['kernel'],
    rtol=1e-5,
    atol=1e-6,
  )
  np.testing.assert_array_equal(shrunk['bias'], plain['bias'])
  assert decayed({'a': {'kernel': 1, 'bias': 2, 'positions': 3}}) == {
    'a': {'kernel': True, 'bias': False, 'positions': False}
  }


def test_muon_steps_equally_far_in_all_directions_of_a_kernel():
  """Oracle: U V^T of the gradient's SVD, at the size of a step of Adam.

  Muon iterates towards U V^T and stops at singular values near 1, not at 1.
  """
  rate = 0.1
  optimizer = Muon(learning_rate=rate, warmup_steps=0, clip_norm=1e9)
  rng = np.random.default_rng(0)
  skewed = rng.normal(size=(54, 8)) * np.logspace(0, -2, 8)
  params = {'kernel': jnp.zeros((3, 3, 6, 8)), 'bias': jnp.zeros(8)}
  grads = {
    'kernel': jnp.asarray(skewed.reshape(3, 3, 6, 8), jnp.float32),
    'bias': jnp.asarray(rng.normal(size=8), jnp.float32),
  }
  updates = {}
  for name, transformation in (
    ('muon', optimizer.transformation()),
    ('adam', optax.adamw(rate, b2=0.99, weight_decay=0, nesterov=True)),
  ):
    updates[name], _ = transformation.update(
      grads, transformation.init(params), params
    )
  moved = -np.asarray(updates['muon']['kernel']).reshape(54, 8)
  u, _, vt = np.linalg.svd(skewed, full_matrices=False)
  lengths = np.diag(u.T @ moved @ vt.T) / (0.2 * rate * 54**0.5)
  assert np.all((lengths > 0.65) & (lengths < 1.25))
  other = u.T @ moved @ vt.T - np.diag(np.diag(u.T @ moved @ vt.T))
  assert np.abs(other).max() < 0.05 * np.abs(moved @ vt.T).max()
  np.testing.assert_allclose(
    updates['muon']['bias'], updates['adam']['bias'], rtol=1e-5
  )


def test_learning_rate_warms_up_and_decays():
  rate = Adam(learning_rate=1.0, warmup_steps=10, decay_steps=110).schedule()
  np.testing.assert_allclose(
    [rate(s) for s in (0, 5, 10, 60, 110)], [0, 0.5, 1, 0.5, 0], atol=1e-6
  )
  constant = Adam(learning_rate=1.0, warmup_steps=4).schedule()
  np.testing.assert_allclose([constant(s) for s in (2, 4, 999)], [0.5, 1, 1])
  assert Adam(learning_rate=1.0, warmup_steps=0).schedule()(0) == 1.0
  with pytest.raises(
    ValueError, match='decay_steps=20 is not allowed: give more'
  ):
    Adam(warmup_steps=20, decay_steps=20)


def test_gradients_are_clipped_by_their_global_norm():
  """Adam forgets scale, so look at its first moment: (1 - beta1) g."""
  optimizer = dataclasses.replace(OPTIMIZER, clip_norm=1e-3)
  state, metrics = stepper(optimizer)(fresh(optimizer), batch())
  assert float(metrics['grad_norm']) > 1e-2  # reported before clipping
  (moment,) = (
    s.mu
    for s in jax.tree.leaves(
      state.opt_state, is_leaf=lambda s: hasattr(s, 'mu')
    )
    if hasattr(s, 'mu')
  )
  norm = float(optax.tree.norm(moment)) / (1 - optimizer.beta1)
  assert norm == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.fault(10)
@pytest.mark.parametrize(
  ('shape', 'shard'),
  [
    ((8, 1, 1), (64, 128)),
    ((1, 8, 1), (64, 16)),
    ((2, 2, 2), (32, 64)),
    ((1, 1, 8), (64, 16)),
  ],
  ids=['data', 'fsdp', 'all', 'model'],
)
def test_every_mesh_takes_the_same_step(shape, shard):
  data, state = batch(), fresh()
  expected, m = stepper()(state, data)
  mesh = sharding.MeshShape(*shape).build()
  places = sharding.state_shardings(state, mesh)
  step = jax.jit(
    make_step(Line(), OPTIMIZER.transformation(), seed=0, decay=0.9),
    out_shardings=(places, None),
  )
  local = {k: np.asarray(v) for k, v in data.items()}
  sharded, metrics = step(
    jax.device_put(state, places), sharding.global_batch(local, mesh)
  )
  np.testing.assert_allclose(metrics['loss'], m['loss'], rtol=1e-5)
  # Adam's first step is the sign of the gradient: rounding may flip a zero.
  assert_trees(
    np.testing.assert_allclose, sharded.params, expected.params, atol=1e-4
  )
  kernel = sharded.params['kernel']
  assert kernel.shape == (64, 128)
  assert kernel.addressable_shards[0].data.shape == shard
  assert sharded.params['bias'].sharding.is_fully_replicated


def test_mesh_must_hold_all_devices():
  assert dict(sharding.MeshShape(-1, 2, 2).build().shape) == {
    'data': 2,
    'fsdp': 2,
    'model': 2,
  }
  for bad in [(3, 1, 1), (-1, 3, 1), (0, 1, 1), (-1, 0, 1), (4, 4, 4)]:
    with pytest.raises(ValueError, match='there are 8 devices'):
      sharding.MeshShape(*bad).build()


def test_batch_must_divide_over_the_mesh():
  mesh = sharding.MeshShape(2, 2, 2).build()
  sharding.check_batch(mesh, 8, 'config.train', 2)
  with pytest.raises(ValueError, match=r'batch_size=6 does not divide by 4'):
    sharding.check_batch(mesh, 6, 'config.train')
  with pytest.raises(ValueError, match='use a multiple of 12'):
    sharding.check_batch(mesh, 16, 'config.train', 3)
