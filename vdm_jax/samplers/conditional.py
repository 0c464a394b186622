"""Conditional samples of an unconditional model, VDM section 3.1.

What is known of a video is a *measurement*, a differentiable map from a video
to numbers (`samplers.measurements`), and its value x^a.

    reconstruction guidance, eq. (7) and (8):
      x~ = x_hat(z) - (w alpha / 2) grad_z |x^a - measure(x_hat(z))|^2

The norm is a sum over pixels.  Where pixels themselves are known there is
nothing to guide; they follow the forward process instead,

    replacement:
      z_s^a ~ q(z_s^a | x^a, z_t^a)      by x_hat^a = x^a in any sampler, or
      z_s^a ~ q(z_s^a | x^a)             drawn anew after every step

Replacement alone makes x^b agree with the noisy z^a, not with x^a: new frames
do not continue the known ones, and no number of steps repairs that (it tells
VideoFusion's base frame, which sees no other frame, nothing at all).  Guidance
adds the missing gradient of log q(x^a | z), approximated by a Gaussian.

Everything here maps a DenoiseFn to a DenoiseFn or a corrector to a corrector,
and so works with every sampler, corrector and guidance, and but for redrawing
with every noise prior: `samplers.misfit` has eq. (7) where frames share noise.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from vdm_jax.diffusion import gaussian
from vdm_jax.diffusion.noise import Independent, NoisePrior
from vdm_jax.diffusion.schedules import Schedule
from vdm_jax.samplers.guidance import clip
from vdm_jax.samplers.loop import Corrector, Sampler, State, sample
from vdm_jax.samplers.measurements import (
  Measure,
  check_value,
  region,
  together,
)
from vdm_jax.samplers.misfit import Misfit, Shared, White
from vdm_jax.shapes import DenoiseFn, LogSNR, PRNGKey, Video


def guide_by_reconstruction(
  denoise: DenoiseFn,
  measure: Measure,
  value: Any,
  weight: float,
  misfit: Misfit = White(),
) -> DenoiseFn:
  """Pulls x_hat towards videos that measure `value`, eq. (7) and (8).

  Args:
    denoise: the unguided estimate, not clipped: a clipped pixel has no
      gradient.
    measure: a differentiable map from a video to a tree of arrays.
    value: what it should give, of the same structure.
    weight: w_r; 0 is no guidance.
    misfit: the squared norm, `White` or of noise that frames share.
  """

  def guided(z: Video, logsnr: LogSNR) -> Video:
    x_hat, pull_back = jax.vjp(lambda z: denoise(z, logsnr), z)
    gradient = pull_back(jax.grad(distance)(x_hat))[0]
    pull = 0.5 * weight * gaussian.alpha(logsnr) * misfit.step(gradient)
    return x_hat - pull

  def distance(x_hat: Array) -> Array:
    return misfit(jax.tree.map(jnp.subtract, value, measure(x_hat)))

  return guided


def replace_known(
  denoise: DenoiseFn, observed: ArrayLike, mask: ArrayLike
) -> DenoiseFn:
  """Puts `observed` into x_hat where `mask` is 1.

  Any sampler then draws z_s^a from its own q(z_s^a | x^a, z_t^a).
  """

  def replaced(z: Video, logsnr: LogSNR) -> Video:
    return jnp.where(jnp.asarray(mask, bool), observed, denoise(z, logsnr))

  return replaced


@dataclasses.dataclass(frozen=True)
class Redraw:
  """Draws z_s^a from q(z_s^a | x^a), then lets another corrector move.

  Attributes:
    observed: known pixels, broadcastable to [B, F, H, W, C].
    mask: 1 where they are known, broadcastable likewise.
    corrector: applied afterwards; None is none.
  """

  observed: ArrayLike
  mask: ArrayLike
  corrector: Corrector | None = None

  def __call__(
    self,
    key: Array,
    denoise: DenoiseFn,
    z: Array,
    *,
    logsnr: Array,
    noise: NoisePrior,
  ) -> Array:
    """Returns z_s with its known part redrawn."""
    draw_key, move_key = jax.random.split(key)
    observed = jnp.broadcast_to(self.observed, z.shape)
    drawn = gaussian.corrupt(observed, noise.sample(draw_key, z.shape), logsnr)
    z = jnp.where(jnp.asarray(self.mask, bool), drawn, z)
    if self.corrector is None:
      return z
    return self.corrector(move_key, denoise, z, logsnr=logsnr, noise=noise)


def sample_given(
  key: PRNGKey,
  denoise: DenoiseFn,
  observed: ArrayLike,
  mask: ArrayLike,
  *,
  schedule: Schedule,
  sampler: Sampler,
  num_steps: int,
  method: str = 'reconstruction',
  weight: float = 2.0,
  redraw: bool = False,
  measure: Measure | None = None,
  value: Any = None,
  measured: ArrayLike = True,
  shape: tuple[int, ...] | None = None,
  clipped: bool = False,
  noise: NoisePrior = Independent(),
  corrector: Corrector | None = None,
  progress: Callable[[Any], None] | None = None,
  steps: tuple[int, int] | None = None,
  state: State | None = None,
) -> Any:
  """Draws videos of which some pixels are known.

  Frames before, after or between others, a masked region, and with `measure`
  anything else that is known beside them, e.g. a lower resolution.

  Args:
    key: random key.
    denoise: (z [B, F, H, W, C], logsnr []) -> x_hat, not clipped.
    observed: known pixels in [-1, 1], broadcastable to [B, F, H, W, C];
      values where `mask` is 0 are ignored.
    mask: 1 where a pixel is known, else 0; broadcastable likewise.
    schedule: t -> logsnr.
    sampler: the method of the unknown part.
    num_steps: its number of steps.
    method: 'reconstruction' guides the unknown pixels, eq. (7);
      'replacement' does not.
    weight: w_r of eq. (7).
    redraw: whether known pixels are drawn from q(z_s | x) after each step,
      not from q(z_s | x, z_t) within it.
    measure: something else that is known, see `guide_by_reconstruction`;
      needs method 'reconstruction'.
    value: what `measure` gives for the true video.
    measured: which of these numbers are known, broadcastable to `value`; says
      what noise that frames share needs to know.
    shape: (B, F, H, W, C); None takes what observed and mask broadcast to.
    clipped: whether the guided x_hat is clipped to [-1, 1].
    noise: the noise prior that the denoiser was trained with.
    corrector: applied after every step but the last.
    progress: called on the host with the number of finished steps.
    steps: see `samplers.sample`; so is `state`.
    state: likewise.

  Returns:
    Videos, float32, equal to `observed` where `mask` is 1; a `State` if `steps`
    stop before the last one.

  Raises:
    ValueError: for an unknown method, a measure that the method ignores or
      that has no value, arrays that do not fit, pixels out of range, or
      `redraw` under noise that frames share.
  """
  if method not in ('reconstruction', 'replacement'):
    raise ValueError(
      f'method={method!r} is unknown: choose "reconstruction" or "replacement".'
    )
  if (measure is None) != (value is None):
    raise ValueError('sample_given got one of measure and value: give both.')
  if measure is not None and method != 'reconstruction':
    raise ValueError(
      'method="replacement" cannot use a measure: choose "reconstruction".'
    )
  independent = isinstance(noise, Independent)
  if redraw and not independent:
    raise ValueError(
      'redraw=True draws the noise of known pixels apart from that of others, '
      f'but {type(noise).__name__} lets frames share noise: set redraw=False.'
    )
  shape = _checked_shape(jnp.shape(observed), jnp.shape(mask), shape)
  if clipped:
    _check_range(observed, mask)
  mask = jnp.asarray(mask, bool)
  observed = jnp.broadcast_to(jnp.asarray(observed, jnp.float32), shape)
  known, target, where = region(mask), jnp.where(mask, observed, 0.0), mask
  if measure is not None:
    check_value(measure, value, shape)
    known, target = together(known, measure), (target, value)
    where = mask, measured

  given = denoise
  if method == 'reconstruction':
    misfit = White()
    if not independent:
      misfit = Shared.of(noise.covariance(shape[1]), target, where)
    given = guide_by_reconstruction(denoise, known, target, weight, misfit)
  if redraw:
    corrector = Redraw(observed, mask, corrector)
  else:
    given = replace_known(given, observed, mask)
  x = sample(
    key,
    clip(given) if clipped else given,
    shape,
    schedule=schedule,
    sampler=sampler,
    num_steps=num_steps,
    noise=noise,
    corrector=corrector,
    progress=progress,
    steps=steps,
    state=state,
  )
  cut = steps is not None and steps[1] < num_steps
  return x if cut else jnp.where(mask, observed, x)


def _checked_shape(
  observed: tuple[int, ...], mask: tuple[int, ...], shape: Any
) -> tuple[int, ...]:
  """Returns the videos' shape, which `observed` and `mask` broadcast to."""
  try:
    whole = jnp.broadcast_shapes(observed, mask, shape or ())
  except ValueError:
    whole = ()
  if len(whole) != 5 or (shape and whole != tuple(shape)):
    raise ValueError(
      f'observed of shape {observed} and mask of shape {mask} do not make '
      f'videos of {tuple(shape) if shape else "[B, F, H, W, C]"}.'
    )
  return whole


def _check_range(observed: ArrayLike, mask: ArrayLike) -> None:
  """Raises ValueError for known pixels far from [-1, 1], where they are values.

  Inside of a compiled function they are not yet known.
  """
  if isinstance(observed, Tracer) or isinstance(mask, Tracer):
    return
  known = np.where(np.asarray(mask, bool), np.asarray(observed), 0.0)
  worst = float(np.abs(known).max())
  if not worst <= 1.5:  # resizing overshoots a little
    raise ValueError(
      f'known pixels reach {worst:g}; give them in [-1, 1], uint8 divided by '
      '127.5 minus 1.'
    )
