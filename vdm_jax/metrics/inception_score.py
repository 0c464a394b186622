"""Inception score of class probabilities p(y | x) (Salimans et al. 2016).

    IS = exp(mean_x KL(p(y | x) || p(y))),   p(y) = mean_x p(y | x)        (1)

between 1 and the number of classes.  `splits` parts of the samples give a mean
of as many scores, each of fewer samples and so lower: a score of ten splits is
not one of one split.  UCF101 scores of C3D have one split, and are repeated
with other samples for their spread.
"""

import itertools

import numpy as np

from vdm_jax.metrics.moments import check


def score(logits: np.ndarray, splits: int = 1) -> float:
  """The inception score (1), averaged over splits in the order given.

  Args:
    logits: class scores before the softmax, [N, K].
    splits: parts of nearly equal size.

  Raises:
    ValueError: for fewer samples than splits, or values not finite.
  """
  logits = check(logits)
  if not 1 <= splits <= len(logits):
    raise ValueError(
      f'{splits} splits of {len(logits)} samples: give 1 to {len(logits)}.'
    )
  logits = logits - logits.max(1, keepdims=True)
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  edges = [i * len(log_p) // splits for i in range(splits + 1)]
  parts = [log_p[a:b] for a, b in itertools.pairwise(edges)]
  return float(np.mean([_score(part) for part in parts]))


def _score(log_p: np.ndarray) -> float:
  p = np.exp(log_p)
  marginal = p.mean(0)
  # A class that underflowed for every sample adds 0 log 0 = 0.
  entropy = -(marginal * np.log(np.where(marginal > 0, marginal, 1))).sum()
  return float(np.exp((p * log_p).sum(1).mean() + entropy))
