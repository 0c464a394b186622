"""Softmax attention: by hand, and its two forms for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm_jax.networks import softmax_attention
from vdm_jax.networks.softmax_attention import (
  attend,
  attend_in_frames,
  attend_over_time,
)


def naive_attention(q, k, v, bias):
  """softmax(q k^T / sqrt(d) + bias) v by loops, float64; [n, heads, d]."""
  q, k, v, bias = (np.asarray(a, np.float64) for a in (q, k, v, bias))
  out = np.zeros_like(q)
  for head in range(q.shape[1]):
    for i in range(len(q)):
      logits = np.array(
        [q[i, head] @ k[j, head] + bias[head, i, j] for j in range(len(k))]
      )
      weights = np.exp(logits / np.sqrt(q.shape[2]))
      out[i, head] = (weights / weights.sum()) @ v[:, head]
  return out


def test_attend_is_softmax_attention_with_relative_positions():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 3, 4))
  relative = jax.random.normal(jax.random.key(1), (5, 5, 4))
  out = attend(q, k, v, relative=relative)
  for row in range(2):
    bias = np.einsum('ihd,ijd->hij', q[row], relative)
    np.testing.assert_allclose(
      out[row], naive_attention(q[row], k[row], v[row], bias), atol=1e-5
    )


def test_attend_looks_only_where_the_mask_allows():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 4, 2, 4))
  mask = jnp.array([True, True, False, False]).reshape(1, 1, 1, 4)
  masked = attend(q, k, v, mask=mask)
  np.testing.assert_allclose(
    masked, attend(q, k[:, :2], v[:, :2]), rtol=1e-5, atol=1e-6
  )


def value_and_gradients(function, *arrays):
  """Of a sum with random weights, which sees every entry of the result."""

  def loss(*arrays):
    out = function(*arrays)
    return (out * jax.random.normal(jax.random.key(9), out.shape)).sum(), out

  numbers = tuple(range(len(arrays)))
  gradients, out = jax.jit(jax.grad(loss, numbers, has_aux=True))(*arrays)
  return out, *gradients


def assert_same(ours, theirs):
  for mine, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(mine, other, atol=2e-5, rtol=2e-5)


def by_frame(q, k, v):
  """Two heads in each frame, as one product."""
  heads_apart = (*q.shape[:2], q.shape[2] * q.shape[3], 2, -1)
  return attend(*(a.reshape(heads_apart) for a in (q, k, v))).reshape(q.shape)


@pytest.mark.parametrize('frames_at_once', [1, 2, 3, 5, 6])
@pytest.mark.parametrize('sharpness', [1.0, 100.0])
def test_frames_in_parts_are_frames_at_once(
  monkeypatch, frames_at_once, sharpness
):
  """Values and gradients, also of softmaxes that are all but one-hot."""
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 6, 2, 4, 8))
  one_frame = 4 * 2 * 8**2  # bytes of logits of two heads
  monkeypatch.setattr(softmax_attention, '_ON_CHIP', frames_at_once * one_frame)
  ours = value_and_gradients(
    lambda *arrays: attend_in_frames(*arrays, 2), sharpness * q, k, v
  )
  theirs = value_and_gradients(by_frame, sharpness * q, k, v)
  scale = (1, 1, sharpness, 1)  # gradients of keys grow with the queries
  assert_same(
    [a / s for a, s in zip(ours, scale, strict=True)],
    [a / s for a, s in zip(theirs, scale, strict=True)],
  )


def test_logits_of_all_frames_are_never_there(monkeypatch):
  """Neither forward nor back is an array larger than those of two frames."""
  x = jax.ShapeDtypeStruct((1, 8, 8, 8, 4), jnp.float32)
  logits = 64**2  # of a frame and its one head
  monkeypatch.setattr(softmax_attention, '_ON_CHIP', 2 * 4 * logits)

  def largest(function):
    text = jax.jit(lambda *a: value_and_gradients(function, *a))
    text = text.lower(x, x, x).compile().as_text()
    shapes = (
      shape.split(']')[0].split(',')
      for shape in text.split('f32[')[1:]
      if not shape.startswith(']')
    )
    return max(np.prod([int(size) for size in shape]) for shape in shapes)

  assert largest(lambda *a: attend_in_frames(*a, 1)) == 2 * logits
  assert largest(lambda *a: by_frame(*a)) >= 8 * logits


@pytest.mark.parametrize(
  ('frames', 'sides'), [(5, (2, 4)), (16, (2, 4)), (5, (1, 7)), (16, (4, 8))]
)
def test_pixels_that_share_a_product_are_pixels_alone(frames, sides):
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, frames, *sides, 12))
  relative = jax.random.normal(jax.random.key(1), (frames, frames, 4))

  def alone(q, k, v, relative):
    pixels_first = (2, frames, -1, 3, 4)
    q, k, v = (a.reshape(pixels_first).swapaxes(1, 2) for a in (q, k, v))
    out = attend(q, k, v, relative=relative)
    return out.swapaxes(1, 2).reshape(2, frames, *sides, 12)

  def together(q, k, v, relative):
    q, k, v = (a.reshape(2, frames, -1, 12) for a in (q, k, v))
    out = softmax_attention._pixels_together(q, k, v, relative)
    return out.reshape(2, frames, *sides, 12)

  expected = value_and_gradients(alone, q, k, v, relative)
  assert_same(value_and_gradients(together, q, k, v, relative), expected)
  assert_same(
    value_and_gradients(attend_over_time, q, k, v, relative), expected
  )


@pytest.mark.parametrize('platform', ['tpu', 'cuda', 'cpu'])
def test_pixels_share_a_product_on_an_accelerator(platform):
  x = jax.ShapeDtypeStruct((1, 16, 4, 4, 64), jnp.bfloat16)
  relative = jax.ShapeDtypeStruct((16, 16, 64), jnp.bfloat16)
  traced = jax.jit(attend_over_time).trace(x, x, x, relative)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  full = '1x2x1x128x128xf32'  # eight pixels of 16 frames, of 128 rows
  assert (full in program) == (platform != 'cpu')
