"""Fréchet distance of two Gaussians: FVD, FID, CLIP-FID.

    d^2 = |m_a - m_b|^2 + tr A + tr B - 2 tr (A^(1/2) B A^(1/2))^(1/2)     (1)

for means m and covariances A, B (Dowson and Landau 1982; FID: Heusel et al.
2017; FVD: Unterthiner et al. 2018).  The root of (1) is taken of symmetric
matrices by their eigenvalues, in float64: no complex numbers appear, singular
covariances need no small number on the diagonal, and nothing depends on a
matrix square root that libraries change.

Never average distances of parts of the samples: (1) is biased by a term that
falls as 1 / N, so eight parts of 256 give several times the distance of all
2048 together.
"""

import numpy as np

from vdm_jax.metrics.moments import Moments


class Reference:
  """One side of (1), with the root of its covariance taken once."""

  def __init__(self, moments: Moments, ddof: int = 1):
    """Takes the root.

    Args:
      moments: of the features of real videos.
      ddof: 1 divides by N - 1, 0 by N, on both sides.

    Raises:
      ValueError: for fewer than two vectors.
    """
    self.moments, self.ddof = moments, ddof
    self._covariance = moments.covariance(ddof)
    values, vectors = np.linalg.eigh(self._covariance)
    roots = np.sqrt(np.maximum(values, 0))
    self._root = (vectors * roots) @ vectors.T

  def distance(self, moments: Moments) -> float:
    """The squared distance d^2 of (1) to other features.

    Raises:
      ValueError: for fewer than two vectors, or another width.
    """
    if moments.mean.shape != self.moments.mean.shape:
      raise ValueError(
        f'features of width {len(self.moments.mean)} and {len(moments.mean)} '
        'do not compare: they are of different networks.'
      )
    other = moments.covariance(self.ddof)
    shift = self.moments.mean - moments.mean
    product = self._root @ other @ self._root
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(product), 0)).sum()
    traces = np.trace(self._covariance) + np.trace(other)
    # Rounding may leave -1e-12 where the two sides are the same.
    return max(0.0, float(shift @ shift + traces - 2 * overlap))


def distance(real: Moments, generated: Moments, ddof: int = 1) -> float:
  """The squared Fréchet distance (1), symmetric in its two sides."""
  return Reference(real, ddof).distance(generated)
