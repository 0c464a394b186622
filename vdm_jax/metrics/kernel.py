"""Kernel distance: KVD, KID.

The unbiased estimate of the squared maximum mean discrepancy (Gretton et al.
2012, eq. (3)) of features x_1..x_m and y_1..y_n in D dimensions,

    d = sum_{i != j} k(x_i, x_j) / (m (m - 1))
      + sum_{i != j} k(y_i, y_j) / (n (n - 1))
      - 2 sum_{i, j} k(x_i, y_j) / (m n)                                   (1)

    k(x, y) = (x^T y / D + 1)^3                                            (2)

with the kernel (2) of KID (Binkowski et al. 2018).  All vectors are one block,
as in KVD (Unterthiner et al. 2019): no subsets are drawn, so no seed is part of
the number.  It may be negative: it is unbiased about zero.
"""

import numpy as np

from vdm_jax.metrics.moments import check

_ROWS = 1024  # of the kernel matrix at once


def distance(
  real: np.ndarray,
  generated: np.ndarray,
  real_times: np.ndarray | None = None,
  times: np.ndarray | None = None,
) -> float:
  """The unbiased squared kernel distance (1).

  Args:
    real: features [M, D].
    generated: features [N, D].
    real_times: weight of each real one, [M]; None is 1.  A vector never makes a
      pair with itself, however large its weight.
    times: weight of each generated one, [N].

  Raises:
    ValueError: for fewer than two vectors a side, or values not finite.
  """
  x, y = check(real), check(generated)
  if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
    raise ValueError(
      f'features of shapes {x.shape} and {y.shape} do not compare: give at '
      'least two vectors of each, of the same network.'
    )
  u = np.ones(len(x)) if real_times is None else real_times.astype(float)
  v = np.ones(len(y)) if times is None else times.astype(float)
  across = _sum(x, u, y, v) / (u.sum() * v.sum())
  return _mean_of_pairs(x, u) + _mean_of_pairs(y, v) - 2 * across


def _mean_of_pairs(x: np.ndarray, u: np.ndarray) -> float:
  """Mean kernel (2) of all pairs i != j with weights u_i u_j."""
  alone = u @ (u * ((x * x).sum(1) / x.shape[1] + 1) ** 3)
  return (_sum(x, u, x, u) - alone) / (u.sum() ** 2 - u @ u)


def _sum(x: np.ndarray, u: np.ndarray, y: np.ndarray, v: np.ndarray) -> float:
  """Weighted sum of the kernel (2) over all pairs, a few rows at a time."""
  rows = (slice(i, i + _ROWS) for i in range(0, len(x), _ROWS))
  return sum(
    float(u[r] @ ((x[r] @ y.T / x.shape[1] + 1) ** 3) @ v) for r in rows
  )
