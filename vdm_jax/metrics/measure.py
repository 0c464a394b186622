"""From stored features to numbers, each with its error and its floor.

    value   the metric, of all real and all generated videos
    error   its standard deviation over bootstrap samples: generated videos
            drawn with replacement, against the same real ones.  Frames of a
            video, and videos of one real clip, are drawn together
    floor   the same metric of real videos against other real videos: what a
            perfect model would get from as many

A Fréchet distance needs the moments alone, which are gathered shard by shard:
memory does not grow with the number of videos.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator

import numpy as np

from vdm_jax.metrics import frechet, inception_score, kernel
from vdm_jax.metrics.moments import Moments
from vdm_jax.metrics.protocol import Metric
from vdm_jax.metrics.store import FeatureStore

Times = np.ndarray | None
"""How often each video counts, [N]; None is once."""


@dataclasses.dataclass(frozen=True)
class Result:
  """A number with what it needs to be read.

  Attributes:
    value: of all videos.
    error: its standard deviation over bootstrap samples.
    floor: real videos against other real ones; of a score, the real videos'.
    floor_counts: how many on each side.
  """

  value: float
  error: float
  floor: float
  floor_counts: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Videos:
  """All videos of a store, or every second one.

  Attributes:
    store: of their features.
    group: consecutive videos that belong to one real clip.
    half: 0 or 1 for every second group, None for all.
  """

  store: FeatureStore
  group: int = 1
  half: int | None = None

  def _chosen(self) -> np.ndarray:
    groups = np.arange(self.store.total) // self.group
    if self.half is None:
      return np.ones(self.store.total, bool)
    return groups % 2 == self.half

  def __len__(self) -> int:
    return int(self._chosen().sum())

  def resample(self, rng: np.random.Generator) -> np.ndarray:
    """How often each video counts in a bootstrap sample, [N]."""
    groups = -(-self.store.total // self.group)
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups))
    return drawn.repeat(self.group)[: self.store.total]

  def parts(self, metric: Metric, times: Times) -> Iterator[tuple]:
    """(features [n, D], how often each counts [n]), a shard at a time."""
    weights = self._chosen() * (1 if times is None else times)
    first = 0
    for part in self.store.features(metric.extractor, metric.output):
      count = weights[first : first + len(part)]
      first += len(part)
      if metric.frames == 'all':
        yield part.reshape(-1, part.shape[-1]), count.repeat(part.shape[1])
      elif metric.frames == 'mean':
        yield part.mean(1, dtype=np.float64), count
      else:
        yield (part[:, 0] if metric.frames == 'first' else part), count

  def moments(self, metric: Metric, times: Times = None) -> Moments:
    """Moments of the features."""
    parts = (Moments.of(*part) for part in self.parts(metric, times))
    return functools.reduce(operator.add, parts)

  def all(
    self, metric: Metric, times: Times = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """(features [N, D] of the chosen videos, how often each counts [N])."""
    parts = zip(*self.parts(metric, times), strict=True)
    features, counts = (np.concatenate(part) for part in parts)
    return features[counts > 0], counts[counts > 0]


def measure(
  metric: Metric,
  real: Videos,
  generated: Videos,
  other_real: Videos | None = None,
  *,
  resamples: int = 20,
  seed: int = 0,
) -> Result:
  """Measures generated videos.

  Args:
    metric: what to measure.
    real: the reference.
    generated: the videos.
    other_real: real videos that are not in `real`, for the floor; None takes
      the halves of `real`.
    resamples: bootstrap samples.
    seed: of the bootstrap.

  Raises:
    ValueError: for features that are not finite, or too few of them.
  """
  rng = np.random.default_rng(seed)
  value = _against(metric, real)
  drawn = [value(generated, generated.resample(rng)) for _ in range(resamples)]
  left, right, floor = real, other_real or real, value
  if metric.needs_real and other_real is None:
    left, right = (dataclasses.replace(real, half=half) for half in (0, 1))
    floor = _against(metric, left)
  return Result(
    value=value(generated, None),
    error=float(np.std(drawn, ddof=1)),
    floor=floor(right, None),
    floor_counts=(len(left), len(right)),
  )


def _against(metric: Metric, real: Videos) -> Callable[[Videos, Times], float]:
  """The metric as a function of videos, each counted as often as given."""
  if metric.statistic == 'frechet':
    reference = frechet.Reference(real.moments(metric), metric.ddof)
    return lambda videos, times: reference.distance(
      videos.moments(metric, times)
    )
  if metric.statistic == 'kernel':
    features, _ = real.all(metric)

    def kernel_distance(videos: Videos, times: Times) -> float:
      others, counts = videos.all(metric, times)
      return kernel.distance(features, others, times=counts)

    return kernel_distance

  def score(videos: Videos, times: Times) -> float:
    logits, counts = videos.all(metric, times)
    logits = logits.repeat(counts, 0)
    if times is not None:  # copies of a video belong into different splits
      logits = np.random.default_rng(0).permutation(logits)
    return inception_score.score(logits, metric.splits)

  return score
