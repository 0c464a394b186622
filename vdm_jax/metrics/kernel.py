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


def distance(real: np.ndarray, generated: np.ndarray) -> float:
  """The unbiased squared kernel distance (1).

  Args:
    real: features [M, D].
    generated: features [N, D].

  Raises:
    ValueError: for fewer than two vectors a side, or values not finite.
  """
  x, y = check(real), check(generated)
  if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
    raise ValueError(
      f'features of shapes {x.shape} and {y.shape} do not compare: give at '
      'least two vectors of each, of the same network.'
    )
  mean = _sum(x, y) / (len(x) * len(y))
  return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * mean


def _mean_of_pairs(x: np.ndarray) -> float:
  """Mean kernel (2) of all pairs i != j."""
  alone = ((x * x).sum(1) / x.shape[1] + 1) ** 3
  return (_sum(x, x) - alone.sum()) / (len(x) * (len(x) - 1))


def _sum(x: np.ndarray, y: np.ndarray) -> float:
  """Sum of the kernel (2) over all pairs, a few rows at a time."""
  parts = (x[first : first + _ROWS] for first in range(0, len(x), _ROWS))
  return sum(float(((p @ y.T / x.shape[1] + 1) ** 3).sum()) for p in parts)
