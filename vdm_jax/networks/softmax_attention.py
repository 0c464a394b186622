"""Softmax attention, and two forms of it that suit an accelerator.

    logit_ij = q_i . (k_j + r_ij) / sqrt(d)
    p_ij     = exp(logit_ij) / sum over j of exp(logit_ij)
    out_i    = sum over j of p_ij v_j

`attend` is that.  The others give the same numbers:

`attend_in_frames` keeps the logits of all frames, gigabytes, out of memory.  A
few frames at a time go through, few enough for the logits of a video to stay
on the chip, and the backward pass computes them again (FlashAttention: Dao et
al. 2022, section 3).  With Q already divided by sqrt(d), l_i the log of the sum
over j of exp(logit_ij), and P = exp(Q K^T - l), its equations for a frame are

    dV = P^T dO,    dS = P * (dO V^T - rowsum(dO * O)),
    dQ = dS K,      dK = dS^T Q

so that only reverse differentiation is possible where frames are many.

`attend_over_time` has tiny sequences, the frames of a pixel, in great number:
matrices of 16 x 16 leave a matrix unit of 128 x 128 almost idle.  Several
neighbouring pixels become one sequence, in which each sees its own frames.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax

# Bytes of logits of a video at once: the fast memory of v4 to v6e is 128 MiB.
_ON_CHIP = 64 * 2**20
_MATRIX_UNIT = 128  # rows


def attend(
  q: Array,
  k: Array,
  v: Array,
  *,
  relative: Array | None = None,
  mask: Array | None = None,
) -> Array:
  """Softmax attention over the third last axis.

  Args:
    q: queries, [..., n, heads, d].
    k: keys, [..., m, heads, d].
    v: values, [..., m, heads, d].
    relative: [n, m, d], added to the keys that query i sees.
    mask: broadcastable to [..., heads, n, m], False where a query may not
      look.

  Returns:
    [..., n, heads, d].  Logits and softmax are float32.
  """
  q = q / math.sqrt(q.shape[-1])
  logits = _product('...nhd,...mhd->...hnm', q, k)
  if relative is not None:
    logits += _product('...nhd,nmd->...hnm', q, relative)
  if mask is not None:
    logits = jnp.where(mask, logits, -jnp.inf)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum('...hnm,...mhd->...nhd', weights, v)


def attend_in_frames(q: Array, k: Array, v: Array, heads: int) -> Array:
  """Attention of each pixel to its frame; all are [B, F, H, W, heads d]."""
  height = q.shape[2]
  q, k, v = (
    rearrange(a, 'b f y x (h d) -> b f (y x) h d', h=heads) for a in (q, k, v)
  )
  _, num_frames, n, _, _ = q.shape
  if num_frames * _size_of_logits(n, heads) <= _ON_CHIP:
    out = attend(q, k, v)
  else:
    out = _in_parts(q / math.sqrt(q.shape[-1]), k, v)
  return rearrange(out, 'b f (y x) h d -> b f y x (h d)', y=height)


def _size_of_logits(n: int, heads: int) -> int:
  """Bytes of a frame's."""
  return 4 * heads * n * n


@jax.custom_vjp
def _in_parts(q: Array, k: Array, v: Array) -> Array:
  return _part_by_part(_forward, q, k, v)[0]


def _saving(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
  out, log_sum = _part_by_part(_forward, q, k, v)
  return out, (q, k, v, out, log_sum)


def _gradients(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
  return _part_by_part(_backward, *saved, g)


_in_parts.defvjp(_saving, _gradients)


def _part_by_part(
  function: Callable[..., tuple[Array, ...]], *arrays: Array
) -> tuple[Array, ...]:
  """Applies a function of [B, F, ...] to a few frames after the other."""
  _, num_frames, n, heads, _ = arrays[0].shape
  fit = max(1, _ON_CHIP // _size_of_logits(n, heads))
  size = _largest_divisor(num_frames, fit)
  parts = (rearrange(a, 'b (g f) ... -> g b f ...', f=size) for a in arrays)
  done = lax.map(lambda part: function(*part), tuple(parts))
  return tuple(rearrange(a, 'g b f ... -> b (g f) ...') for a in done)


def _forward(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
  """Returns O, and l [..., heads, n, 1]."""
  logits = _product('...nhd,...mhd->...hnm', q, k)
  largest = logits.max(-1, keepdims=True)
  weights = jnp.exp(logits - largest).astype(v.dtype)
  # A value of 1 beside the others sums the weights, on the matrix unit.
  ones = jnp.ones((*v.shape[:-1], 1), v.dtype)
  out = _product(
    '...hnm,...mhd->...nhd', weights, jnp.concatenate([v, ones], -1)
  )
  out, total = out[..., :-1], out[..., -1:]
  log_sum = largest + jnp.log(total).swapaxes(-3, -2)
  return (out / total).astype(v.dtype), log_sum


def _backward(
  q: Array, k: Array, v: Array, out: Array, log_sum: Array, g: Array
) -> tuple[Array, Array, Array]:
  """Returns dQ, dK and dV for g = dO."""
  logits = _product('...nhd,...mhd->...hnm', q, k)
  weights = jnp.exp(logits - log_sum)
  along = _product('...nhd,...nhd->...hn', g, out)[..., None]
  ds = weights * (_product('...nhd,...mhd->...hnm', g, v) - along)
  weights, ds = weights.astype(q.dtype), ds.astype(q.dtype)
  dq = jnp.einsum('...hnm,...mhd->...nhd', ds, k)
  dk = jnp.einsum('...hnm,...nhd->...mhd', ds, q)
  return dq, dk, jnp.einsum('...hnm,...nhd->...mhd', weights, g)


def attend_over_time(q: Array, k: Array, v: Array, relative: Array) -> Array:
  """Attention of each pixel to itself in all frames.

  Args:
    q: queries, [B, F, H, W, heads d].
    k: keys, likewise.
    v: values, likewise.
    relative: [F, F, d], added to the key of frame j that frame i sees.

  Returns:
    [B, F, H, W, heads d].
  """
  height = q.shape[2]
  arrays = (rearrange(a, 'b f y x c -> b f (y x) c') for a in (q, k, v))
  # On a CPU the products with what is masked cost more than they save.
  out = lax.platform_dependent(
    *arrays, relative, cpu=_each_pixel, default=_pixels_together
  )
  return rearrange(out, 'b f (y x) c -> b f y x c', y=height)


def _each_pixel(q: Array, k: Array, v: Array, relative: Array) -> Array:
  width = relative.shape[-1]
  q, k, v = (
    rearrange(a, 'b f p (h d) -> b p f h d', d=width) for a in (q, k, v)
  )
  out = attend(q, k, v, relative=relative)
  return rearrange(out, 'b p f h d -> b f p (h d)')


def _pixels_together(q: Array, k: Array, v: Array, relative: Array) -> Array:
  _, num_frames, num_pixels, _ = q.shape
  width = relative.shape[-1]
  size = _largest_divisor(num_pixels, max(1, _MATRIX_UNIT // num_frames))
  q, k, v = (
    rearrange(a, 'b f (g p) (h d) -> b g h (f p) d', p=size, d=width)
    for a in (q / math.sqrt(width), k, v)
  )
  by_frame = rearrange(q, 'b g h (f p) d -> b g h f p d', p=size)
  places = _product('bghfpd,fnd->bghfpn', by_frame, relative)
  places = rearrange(places, 'b g h f p n -> b g h (f p) n')
  logits = _product('...id,...jd->...ij', q, k) + jnp.repeat(places, size, -1)
  pixel = jnp.arange(num_frames * size) % size
  own = (pixel[:, None] == pixel[None])[None, None, None]
  logits = jnp.where(own, logits, -jnp.inf)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  out = jnp.einsum('...ij,...jd->...id', weights, v)
  return rearrange(out, 'b g h (f p) d -> b f (g p) (h d)', p=size)


def _product(equation: str, a: Array, b: Array) -> Array:
  return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _largest_divisor(number: int, limit: int) -> int:
  return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)
