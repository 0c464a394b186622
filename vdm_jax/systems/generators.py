"""VideoFusion's base and residual generators as one network: eq. (11) to (13).

The base generator sees the base frame alone, once a step.  The residual
generator sees all frames without the base noise; of the base frame eq. (12)
leaves its estimate alpha x_hat, which the neighbours can so look at.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion import decomposed
from vdm_jax.diffusion.decomposed import BaseResidual
from vdm_jax.diffusion.parameterization import Parameterization
from vdm_jax.networks.embeddings import sinusoid
from vdm_jax.systems import conditioning
from vdm_jax.systems.draw import dropout
from vdm_jax.systems.protocol import Params

Training = Literal['stop_gradient', 'joint', 'fixed']
_FRAME_DIM = 64


@dataclasses.dataclass(frozen=True)
class Generators:
  """Two networks that estimate together what one would.

  Attributes:
    base: image network.
    residual: video network, told each frame's place by `cond` [B, F, D].
    parameterization: what both predict.
    training: where gradients of the loss reach the base generator: from its
      own frame, 'stop_gradient'; from all, 'joint'; from none, 'fixed' (Table
      7).  Reconstruction guidance, in sampling, needs and has them all.
    told_share: whether the residual generator is told the base shares.
  """

  base: nn.Module
  residual: nn.Module
  parameterization: Parameterization
  training: Training
  told_share: bool

  def check(self, video_shape: tuple[int, ...]) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit the networks."""
    for mixes in ('temporal', 'temporal_convolutions'):
      if getattr(self.base, mixes, False):
        raise ValueError(
          f'the base generator sees one frame: set config.network.base.{mixes} '
          f'to {False if mixes == "temporal" else 0}.'
        )
    for network in (self.base, self.residual):
      network.check(video_shape[-3], video_shape[-2])

  def init(
    self, key: Array, video_shape: tuple[int, ...], noise: BaseResidual
  ) -> dict[str, Params]:
    """Returns fresh parameters, 'base' and 'residual'."""
    base_key, residual_key = jax.random.split(key)
    z, logsnr = jnp.zeros((1, *video_shape)), jnp.zeros(1)
    told = self._told(noise, video_shape[0])
    base = self.base.init(base_key, z[:, :1], logsnr)
    residual = self.residual.init(residual_key, z, logsnr, cond=told)
    return {'base': base['params'], 'residual': residual['params']}

  def __call__(
    self,
    params: Params,
    z: Array,
    logsnr: Array,
    cond: Mapping[str, Any],
    noise: BaseResidual,
    *,
    num_images: int = 0,
    key: Array | None = None,
  ) -> Array:
    """Returns what one network on all frames would.

    Args:
      params: 'base' and 'residual'.
      z: noisy videos [B, F + K, H, W, C].
      logsnr: [B].
      cond: conditions, of which each network takes its own.
      noise: has the base frame, and the share of each frame.
      num_images: K, trailing frames that are images: the base generator's.
      key: for dropout; None is sampling.
    """
    training = 'joint' if key is None else self.training
    frames, images = jnp.split(z, [z.shape[1] - num_images], 1)
    num_frames = frames.shape[1]
    index, share = noise.index(num_frames), noise.shares(num_frames)
    keys = [None, None] if key is None else list(jax.random.split(key))
    base_frame = frames[:, index : index + 1]
    own = self._apply(
      'base',
      params,
      keys[0],
      jnp.concatenate([base_frame, images], 1),
      logsnr,
      cond,
      num_images=num_images,
    )
    if training == 'fixed':
      own = jax.lax.stop_gradient(own)
    base = own[:, :1]
    if training == 'stop_gradient':
      base = jax.lax.stop_gradient(base)
    base_noise = self.parameterization.predict(base, base_frame, logsnr).eps_hat
    rest = self._apply(
      'residual',
      params,
      keys[1],
      decomposed.without_base_noise(frames, base_noise, share, logsnr),
      logsnr,
      conditioning.of_video(cond),
      vectors=self._told(noise, num_frames),
    )
    output = decomposed.compose(base, rest, share)  # eq. (13)
    output = output.at[:, index].set(own[:, 0])
    return jnp.concatenate([output, own[:, 1:]], 1)

  def _told(self, noise: BaseResidual, num_frames: int) -> Array:
    """What the residual generator knows of each frame, [B or 1, F, D]."""
    frames = jnp.arange(num_frames) - noise.index(num_frames)
    told = sinusoid(frames, _FRAME_DIM)[None]
    if not self.told_share:
      return told
    share = jnp.atleast_2d(noise.shares(num_frames))
    told = jnp.broadcast_to(told, (*share.shape, _FRAME_DIM))
    return jnp.concatenate([told, share[..., None]], -1)

  def _apply(
    self,
    name: str,
    params: Params,
    key: Array | None,
    z: Array,
    logsnr: Array,
    cond: Mapping[str, Any],
    vectors: Array | None = None,
    **options: Any,
  ) -> Any:
    """Runs a generator on the conditions that it takes."""
    network: nn.Module = getattr(self, name)
    takes = conditioning.names([network])
    options |= {name: cond[name] for name in takes if name in cond}
    return network.apply(
      {'params': params[name]},
      self.parameterization.network_input(z, logsnr),
      logsnr,
      cond=vectors,
      **options,
      **dropout(key),
    )
