"""What one chip of a job holds and does in a step.

state      parameters, their average, the optimizer's moments: as shared
           out over the mesh, to the byte
gradient   its own part of the batch through the loss and back, once for
           every micro-batch
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh

from vdm_jax.job import Job
from vdm_jax.planning.program import Program
from vdm_jax.systems.protocol import Batch, Params
from vdm_jax.training import sharding
from vdm_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Workload:
  """A job on so many chips.

  Attributes:
    job: what is trained.
    chips: number of chips.
    known: shapes and types of the train state, where they are known.

  Raises:
    ValueError: if mesh and batch do not fit the chips.
  """

  job: Job
  chips: int
  known: TrainState | None = None

  def __post_init__(self):
    sharding.check_batch(
      self.mesh,
      self.job.train.batch_size,
      'config.train',
      self.job.train.accumulate,
    )

  @functools.cached_property
  def mesh(self) -> AbstractMesh:
    """The mesh, of no devices."""
    shape = self.job.mesh.sizes(self.chips)
    return AbstractMesh(shape, (*sharding.BATCH_AXES, 'model'))

  @functools.cached_property
  def videos(self) -> int:
    """Videos of a micro-batch on a chip."""
    shards = math.prod(self.mesh.shape[axis] for axis in sharding.BATCH_AXES)
    return self.job.train.batch_size // (shards * self.job.train.accumulate)

  @functools.cached_property
  def state(self) -> TrainState:
    """Shapes and types of the train state."""
    job = self.job
    return self.known or jax.eval_shape(
      lambda key: TrainState.create(
        job.system.init(key, job.video_shape), job.optimizer.transformation()
      ),
      jax.random.key(0),
    )

  @functools.cached_property
  def parameters(self) -> int:
    """Numbers that are trained."""
    return sum(a.size for a in jax.tree.leaves(self.state.params))

  def held(self, tree: Any) -> int:
    """Returns the bytes of a chip's part of a tree like the state."""

    def part(array):
      axes = [a for a in sharding.parameter_spec(array.shape, self.mesh) if a]
      cut = math.prod(self.mesh.shape[axis] for axis in axes)
      return array.size * array.dtype.itemsize // cut

    return sum(map(part, jax.tree.leaves(tree)))

  def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and types of a chip's micro-batch."""
    job, rows = self.job, self.videos
    system, images = job.system, job.train.num_images

    def array(*shape, dtype=jnp.float32):
      return jax.ShapeDtypeStruct(shape, dtype)

    def conditions(prefix, *lead):
      found = {}
      if system.num_classes:
        found['label'] = array(*lead, dtype=jnp.int32)
      for name, dim, settings in (
        ('', system.text_dim, job.text),
        ('clip_', system.clip_text_dim, job.clip_text),
      ):
        if dim:
          tokens = *lead, settings.max_length
          found[f'{name}tokens'] = array(*tokens, dim)
          found[f'{name}token_mask'] = array(*tokens, dtype=jnp.bool_)
      if system.visual_dim:
        found['visual'] = array(*lead, system.visual_dim)
      return {prefix + name: value for name, value in found.items()}

    batch = {'video': array(rows, *job.video_shape), **conditions('', rows)}
    if images:
      batch['images'] = array(rows, images, *job.video_shape[1:])
      batch |= conditions('image_', rows, images)
    return batch

  def gradient(self) -> Program:
    """Returns the program of one micro-batch: its loss and the gradient."""
    gradient = jax.value_and_grad(self.loss)
    return Program.trace(gradient, self.state.params, self.batch())

  def forward(self) -> Program:
    """Returns the program of its loss alone."""
    return Program.trace(self.loss, self.state.params, self.batch())

  def loss(self, params: Params, batch: Batch) -> Array:
    """Returns the loss of a micro-batch, drawn anyhow."""
    key = jax.random.key(0)
    return self.job.system.loss(params, key, self.job.system.draw(key, batch))
