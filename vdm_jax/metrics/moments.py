"""Mean and covariance of features, gathered piece by piece.

With n vectors, their mean m and their scatter S = sum (x - m)(x - m)^T, two
pieces a and b merge to (Chan, Golub and LeVeque 1983)

    n = n_a + n_b
    m = m_a + (m_b - m_a) n_b / n
    S = S_a + S_b + (m_b - m_a)(m_b - m_a)^T n_a n_b / n

in any order and grouping: memory does not grow with the number of videos, and
hosts add up what each of them has seen.  All of it is float64, because the
scatter of ten thousand float32 vectors is not exact to float32 (a sum of
squares minus a square of sums is not either, and is not used).
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Moments:
  """Count, mean and scatter of vectors; `+` merges two sets of them.

  Attributes:
    count: how many vectors.
    mean: float64 [D].
    scatter: float64 [D, D], the sum of outer products about the mean.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @classmethod
  def none(cls, dim: int) -> 'Moments':
    """Moments of no vectors, the zero of `+`."""
    return cls(0, np.zeros(dim), np.zeros((dim, dim)))

  @classmethod
  def of(
    cls, features: np.ndarray, times: np.ndarray | None = None
  ) -> 'Moments':
    """Moments of vectors.

    Args:
      features: [N, D].
      times: how often each counts, whole numbers [N]; None is once.

    Raises:
      ValueError: for another number of axes, or a value that is not finite.
    """
    features = check(features)
    if times is not None:
      features, times = features[times > 0], times[times > 0, None]
    count = len(features) if times is None else int(times.sum())
    if not count:
      return cls.none(features.shape[1])
    weighted = features if times is None else features * times
    mean = weighted.sum(0) / count
    centred = features - mean
    weighted = centred if times is None else centred * times
    return cls(count, mean, weighted.T @ centred)

  def __add__(self, other: 'Moments') -> 'Moments':
    if not self.count or not other.count:
      return other if not self.count else self
    count = self.count + other.count
    step = other.mean - self.mean
    return Moments(
      count,
      self.mean + step * (other.count / count),
      self.scatter
      + other.scatter
      + np.outer(step, step) * (self.count * other.count / count),
    )

  def covariance(self, ddof: int = 1) -> np.ndarray:
    """The scatter over count - ddof, [D, D].

    Raises:
      ValueError: for too few vectors.
    """
    if self.count <= ddof:
      raise ValueError(
        f'a covariance needs at least {ddof + 1} vectors; there are '
        f'{self.count}.'
      )
    return self.scatter / (self.count - ddof)


def check(features: np.ndarray) -> np.ndarray:
  """Returns features [N, D] as float64.

  Raises:
    ValueError: for another number of axes, or a value that is not finite.
  """
  features = np.asarray(features, np.float64)
  if features.ndim != 2:
    raise ValueError(
      f'features have shape {features.shape}; they must be [N, D].'
    )
  finite = np.isfinite(features).all(1)
  if not finite.all():
    raise ValueError(
      f'{(~finite).sum()} of {len(features)} feature vectors are not finite, '
      f'the first is number {int(np.argmin(finite))}: look at that video.'
    )
  return features
