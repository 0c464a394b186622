"""Convolution against a sum written out by hand, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vdm_jax.networks.convolution import Conv, conv2d


def by_hand(x, kernel, stride):
  """Sum over the taps of one image batch [N, H, W, C], float64 numpy."""
  size = kernel.shape[0]
  edge = size // 2
  height, width = x.shape[1:3]
  padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
  return sum(
    padded[:, i : i + height : stride, j : j + width : stride] @ kernel[i, j]
    for i in range(size)
    for j in range(size)
  )


def drawn(*shapes, dtype=np.float64):
  rng = np.random.default_rng(0)
  return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def gradients(convolve, x, kernel, g):
  return jax.jit(lambda x, k: jax.vjp(convolve, x, k)[1](g))(x, kernel)


def close(a, b, tolerance):
  b = np.asarray(b, np.float64)
  error = np.abs(np.asarray(a, np.float64) - b).max()
  assert error < tolerance * np.abs(b).max()


CASES = [(1, 1), (1, 2), (3, 1), (3, 2)]


@pytest.mark.parametrize(('size', 'stride'), CASES)
@pytest.mark.parametrize('height', [4, 7])
def test_values_are_the_sum_over_taps(size, stride, height):
  x, kernel = drawn((3, height, 6, 5), (size, size, 5, 2))
  y = conv2d(jnp.float32(x), jnp.float32(kernel), stride)
  close(y, by_hand(x, kernel, stride), 1e-6)


def test_stride_two_halves_even_sizes():
  x, kernel = map(
    jnp.asarray, drawn((2, 8, 6, 3), (3, 3, 3, 4), dtype=np.float32)
  )
  full = conv2d(x, kernel)
  close(conv2d(x, kernel, 2), full[:, ::2, ::2], 1e-6)


@pytest.mark.parametrize(('size', 'stride'), CASES)
@pytest.mark.parametrize(
  ('dtype', 'tolerance'),
  [(np.float32, 1e-5), (np.float64, 1e-13), (jnp.bfloat16, 2e-2)],
)
def test_gradients_are_those_of_lax(size, stride, dtype, tolerance):
  """Both gradients, uneven sizes, more channels in than out and fewer."""
  with jax.enable_x64(dtype == np.float64):
    for channels in ((5, 2), (2, 5)):
      x, kernel = drawn((3, 5, 6, channels[0]), (size, size, *channels))
      g = by_hand(x, kernel, stride)
      exact = drawn_vjp(x, kernel, g, stride)
      x, kernel, g = (jnp.asarray(a, dtype) for a in (x, kernel, g))
      ours = gradients(lambda x, k: conv2d(x, k, stride), x, kernel, g)
      for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        close(a, b, tolerance)


def drawn_vjp(x, kernel, g, stride):
  """The adjoint of `by_hand` in x and in the kernel, written out in numpy."""
  size = kernel.shape[0]
  edge = size // 2
  height, width = x.shape[1:3]
  padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
  dx, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
  for i in range(size):
    for j in range(size):
      rows = slice(i, i + height, stride)
      columns = slice(j, j + width, stride)
      dkernel[i, j] = np.einsum('nhwc,nhwo->co', padded[:, rows, columns], g)
      dx[:, rows, columns] += g @ kernel[i, j].T
  return dx[:, edge : edge + height, edge : edge + width], dkernel


def test_every_leading_axis_is_a_batch_axis():
  shapes = (2, 3, 2, 4, 6, 3), (3, 3, 3, 2), (2, 3, 2, 4, 6, 2)
  x, kernel, g = map(jnp.asarray, drawn(*shapes, dtype=np.float32))
  one_by_one = [
    (conv2d(a, kernel), *gradients(conv2d, a, kernel, b))
    for a, b in zip(x.reshape(-1, 4, 6, 3), g.reshape(-1, 4, 6, 2), strict=True)
  ]
  y, dx, dkernel = (np.stack(parts) for parts in zip(*one_by_one, strict=True))
  close(conv2d(x, kernel), y.reshape(g.shape), 1e-6)
  ours = gradients(conv2d, x, kernel, g)
  close(ours[0], dx.reshape(x.shape), 1e-5)
  close(ours[1], dkernel.sum(0), 1e-5)


def test_under_vmap_and_remat():
  x, kernel = map(
    jnp.asarray, drawn((4, 2, 6, 5, 3), (3, 3, 3, 2), dtype=np.float32)
  )

  def loss(kernel, x):
    return jnp.sin(conv2d(x, kernel)).sum()

  each = jax.vmap(jax.grad(loss), (None, 0))(kernel, x)
  alone = jnp.stack([jax.grad(loss)(kernel, a) for a in x])
  close(each, alone, 1e-5)
  close(jax.grad(jax.remat(loss))(kernel, x), alone.sum(0), 1e-5)


def test_videos_spread_over_devices_stay_there():
  """Only the sum of the kernel's gradient crosses devices."""
  devices = np.array(jax.devices()[:8])
  assert devices.size == 8
  mesh = Mesh(devices, ('data',))
  spread = NamedSharding(mesh, PartitionSpec('data'))
  whole = NamedSharding(mesh, PartitionSpec())
  x, kernel, g = drawn(
    (8, 2, 4, 6, 3), (3, 3, 3, 2), (8, 2, 4, 6, 2), dtype=np.float32
  )

  def both(x, kernel, g):
    y, pullback = jax.vjp(conv2d, x, kernel)
    return y, *pullback(g)

  compiled = (
    jax.jit(
      both,
      in_shardings=(spread, whole, spread),
      out_shardings=(spread, spread, whole),
    )
    .lower(x, kernel, g)
    .compile()
  )
  program = compiled.as_text()
  assert 'all-reduce' in program
  for forbidden in ('all-gather', 'all-to-all', 'collective-permute'):
    assert forbidden not in program
  arguments = (
    jax.device_put(x, spread),
    jax.device_put(kernel, whole),
    jax.device_put(g, spread),
  )
  for a, b in zip(
    compiled(*arguments), jax.jit(both)(x, kernel, g), strict=True
  ):
    close(a, b, 1e-5)


def test_an_accelerator_gets_the_plain_program():
  """One convolution each for the value and both gradients, no products."""

  def both(x, kernel):
    y, pullback = jax.vjp(conv2d, x, kernel)
    return y, *pullback(y)

  x, kernel = map(
    jnp.asarray, drawn((2, 4, 6, 3), (3, 3, 3, 2), dtype=np.float32)
  )
  for platform in ('tpu', 'cuda'):
    lowered = (
      jax.jit(both).trace(x, kernel).lower(lowering_platforms=(platform,))
    )
    program = lowered.as_text()
    assert program.count('stablehlo.convolution') == 3
    assert 'dot_general' not in program


def test_module_adds_a_bias_and_keeps_float32_parameters():
  x, kernel, bias = map(
    jnp.asarray, drawn((2, 3, 4, 6, 3), (3, 3, 3, 2), (2,), dtype=np.float32)
  )
  layer = Conv(2, stride=2, dtype=jnp.bfloat16)
  initial = layer.init(jax.random.key(0), x)['params']
  assert {k: (v.shape, v.dtype) for k, v in initial.items()} == {
    'kernel': ((3, 3, 3, 2), jnp.float32),
    'bias': ((2,), jnp.float32),
  }
  y = layer.apply({'params': {'kernel': kernel, 'bias': bias}}, x)
  assert y.dtype == jnp.bfloat16
  frames = by_hand(
    np.reshape(x, (-1, 4, 6, 3)), np.asarray(kernel), 2
  ) + np.asarray(bias)
  close(y, frames.reshape(2, 3, 2, 3, 2), 2e-2)


@pytest.mark.parametrize(
  ('x', 'kernel', 'stride', 'message'),
  [
    ((2, 4, 4, 3), (5, 5, 3, 2), 1, '3, 3, in, out'),
    ((2, 4, 4, 3), (3, 3, 4, 2), 1, 'needs'),
    ((4, 3), (3, 3, 3, 2), 1, 'needs'),
    ((2, 4, 4, 3), (3, 3, 3, 2), 0, 'stride is 0'),
  ],
)
def test_what_does_not_fit_is_refused(x, kernel, stride, message):
  with pytest.raises(ValueError, match=message):
    conv2d(jnp.zeros(x), jnp.zeros(kernel), stride)
