"""VideoFusion (Luo et al. 2023), assembled.

Two generators share the work of one: eq. (11) to (13), `systems.generators`.
Together they are one DenoiseFn.  Both are conditioned on the visual embedding
of the middle frame, which a prior makes from classes, captions or nothing
(section 4.1).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from vdm_jax.diffusion.decomposed import BaseResidual
from vdm_jax.diffusion.noise import NoisePrior
from vdm_jax.systems import shares
from vdm_jax.systems.draw import aside
from vdm_jax.systems.generators import Generators, Training
from vdm_jax.systems.prior import EmbeddingPrior, unit
from vdm_jax.systems.protocol import Batch, Cond, Params
from vdm_jax.systems.sampled import Sampled


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoFusion(Sampled):
  """A diffusion model of videos with a base and a residual generator.

  Attributes:
    base: image network on the base frame, e.g. `UNet(temporal=False)`.
    residual: video network, told each frame's place.
    prior: makes visual embeddings; None where they are given, or not used.
    noise: shares of the base noise, and the base frame.
    training: what trains the base generator, see `Generators`.
    attributes: sizes of the attributes of the data's labels, see `shares`.
    content: which of them make videos of a batch share their base noise.
    motion: which make them share their residual noise.
    fitted_share: whether base shares are fitted to each video, and made by the
      prior for new ones (`systems.shares`).
  """

  base: nn.Module
  residual: nn.Module
  prior: EmbeddingPrior | None = None
  noise: NoisePrior = BaseResidual()
  training: Training = 'stop_gradient'
  attributes: tuple[int, ...] = ()
  content: tuple[int, ...] = ()
  motion: tuple[int, ...] = ()
  fitted_share: bool = False

  def __post_init__(self):
    super().__post_init__()
    shares.check_attributes(self.attributes, self.content, self.motion)
    if not isinstance(self.noise, BaseResidual):
      raise ValueError(
        'VideoFusion needs the noise prior base_residual, not '
        f'{type(self.noise).__name__}.'
      )
    if self.fitted_share and not self.prior:
      raise ValueError('fitted_share needs a prior: set config.network.prior.')
    if self.prior and not self.visual_dim and not self.fitted_share:
      raise ValueError(
        'the prior has nothing to make: set visual_dim of base and residual.'
      )

  @property
  def networks(self) -> list[nn.Module]:
    """Base, residual, and the prior's where there is one."""
    prior = [self.prior.network] if self.prior else []
    return [self.base, self.residual, *prior]

  @property
  def completes(self) -> bool:
    """Whether the prior makes what is not given."""
    return self.prior is not None

  @property
  def frozen(self) -> tuple[str, ...]:
    """Parts of the parameters that training leaves as they are."""
    return ('base',) if self.training == 'fixed' else ()

  @property
  def _generators(self) -> Generators:
    return Generators(
      self.base,
      self.residual,
      self.parameterization,
      self.training,
      self.fitted_share,
    )

  def check(self, video_shape: tuple[int, ...]) -> None:
    """Raises ValueError if videos [F, H, W, C] do not fit."""
    self._generators.check(video_shape)
    noise = self._noise({})
    noise.shares(video_shape[0])
    own, usual = (n.index(video_shape[0]) for n in (noise, BaseResidual()))
    if self.visual_dim and own != usual:
      raise ValueError(
        f'config.system.noise.base_frame={own} is not allowed with visual '
        f'embeddings, which are of frame {usual}: leave it out.'
      )

  def init(self, key: Array, video_shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters: 'base', 'residual' and 'prior'."""
    self.check(video_shape)
    key, prior_key = jax.random.split(key)
    params = self._generators.init(key, video_shape, self._noise({}))
    if self.prior:
      dim = self._code_dim(video_shape[0])
      params['prior'] = self.prior.init(prior_key, dim)
    return params

  def _code_dim(self, num_frames: int) -> int:
    """Numbers that the prior makes of a video: an embedding, and shares."""
    return self.visual_dim + num_frames * self.fitted_share

  def _noise(self, given: Mapping[str, Any]) -> BaseResidual:
    noise: Any = self.noise_given(given)
    return noise

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Adds every random choice, and what the prior is to make."""
    if self.attributes:  # videos of a batch share noise by their labels
      named = {'content': self.content, 'motion': self.motion}
      batch = batch | {
        name: shares.numbers(batch['label'], self.attributes, chosen)
        for name, chosen in named.items()
        if chosen
      }
    if self.fitted_share:
      index = self._noise({}).index(batch['video'].shape[1])
      batch = batch | {'share': shares.fit(batch['video'], index)}
    drawn = super().draw(key, batch)
    wanted = [batch['visual']] if self.visual_dim else []
    if self.fitted_share:
      drawn['share'] = batch['share']
      wanted.append(shares.encode(batch['share']))
    if self.prior:
      vectors = jnp.concatenate(wanted, -1)
      drawn |= self.prior.draw(aside(key), vectors)
    return drawn

  def loss(self, params: Params, key: Array, drawn: Batch) -> Array:
    """Returns eq. (14), and the prior's own loss added: a scalar."""
    loss = super().loss(params, key, drawn)
    if self.prior:
      loss += self.prior.loss(params['prior'], drawn)
    return loss

  def seen(self, drawn: Batch, x: Array) -> dict[str, Array]:
    """Returns the fitted shares, where they are."""
    del x
    return {'share': drawn['share']} if self.fitted_share else {}

  def output(
    self,
    params: Params,
    z: Array,
    logsnr: Array,
    given: Mapping[str, Any],
    *,
    num_images: int = 0,
    key: Array | None = None,
  ) -> Array:
    """Returns what both generators predict together, eq. (13)."""
    noise = self._noise({k: given[k] for k in ('share',) if k in given})
    return self._generators(
      params, z, logsnr, given, noise, num_images=num_images, key=key
    )

  def complete(
    self, params: Params, key: Array, shape: tuple[int, ...], cond: Cond
  ) -> Cond:
    """Lets the prior make the embeddings and shares that are not given."""
    wanted = ['visual'] * bool(self.visual_dim) + ['share'] * self.fitted_share
    if self.prior is None or all(name in cond for name in wanted):
      return cond
    size = shape[0], self._code_dim(shape[1])
    known = cond.get('visual')
    made = self.prior.sample(params['prior'], key, size, cond, known)
    visual, code = jnp.split(made, [self.visual_dim], 1)
    parts = {'visual': unit(visual), 'share': shares.decode(code)}
    return {name: parts[name] for name in wanted} | dict(cond)
