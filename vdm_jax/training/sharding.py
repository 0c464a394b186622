"""The device mesh and where arrays live on it.

    data    copies of the model, each with its share of the batch
    fsdp    the batch is shared out here too, and so are the parameters,
            gathered when they are used (ZeRO-3)
    model   parameters are shared out by output channel (tensor parallelism)

One device is a 1 x 1 x 1 mesh and runs the same program.  Shardings are
annotations: the compiler inserts the communication, results do not depend on
them beyond rounding.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

BATCH_AXES = ('data', 'fsdp')
AnyMesh = Mesh | AbstractMesh

# Smaller arrays cost more to gather than to keep.
_MIN_SHARDED_SIZE = 2**12


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Sizes of the mesh axes; -1 for `data` takes the devices that are left.

  Attributes:
    data: copies of the model.
    fsdp: devices that share the parameters of a copy.
    model: devices that share the channels of a layer.
  """

  data: int = -1
  fsdp: int = 1
  model: int = 1

  def sizes(self, devices: int) -> tuple[int, int, int]:
    """Returns the sizes of data, fsdp and model over so many devices.

    Raises:
      ValueError: if they do not multiply to that number.
    """
    inner = self.fsdp * self.model
    data = devices // inner if self.data == -1 and inner > 0 else self.data
    if min(data, self.fsdp, self.model) < 1 or data * inner != devices:
      raise ValueError(
        f'config.mesh is data={self.data}, fsdp={self.fsdp}, '
        f'model={self.model}, but there are {devices} devices: the three '
        'must multiply to that number (data=-1 takes what is left).'
      )
    return data, self.fsdp, self.model

  def build(self, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh over devices, by default all; raises as `sizes`."""
    return jax.make_mesh(
      self.sizes(len(devices) if devices else jax.device_count()),
      (*BATCH_AXES, 'model'),
      axis_types=(AxisType.Auto,) * 3,
      devices=devices,
    )


def check_batch(
  mesh: AnyMesh, batch_size: int, section: str, accumulate: int = 1
) -> None:
  """Raises ValueError unless a batch cuts evenly over the mesh."""
  shards = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size % (shards * accumulate):
    raise ValueError(
      f'{section}.batch_size={batch_size} does not divide by {shards} '
      f'(data x fsdp devices) x {accumulate} (micro-batches): use a multiple '
      f'of {shards * accumulate}.'
    )


def rounded_up(mesh: Mesh, batch_size: int) -> int:
  """Returns the least size from `batch_size` that cuts evenly over the mesh."""
  shards = mesh.shape['data'] * mesh.shape['fsdp']
  return -(-batch_size // shards) * shards


def parameter_spec(shape: tuple[int, ...], mesh: AnyMesh) -> PartitionSpec:
  """Returns how an array of the train state is shared out.

  The last axis, output channels, goes to `model`; of what is left the largest
  axis that divides goes to `fsdp`.  What is small, or does not divide, is
  replicated.
  """
  spec: list[str | None] = [None] * len(shape)
  if np.prod(shape, dtype=int) < _MIN_SHARDED_SIZE:
    return PartitionSpec(*spec)
  if mesh.shape['model'] > 1 and shape[-1] % mesh.shape['model'] == 0:
    spec[-1] = 'model'
  if mesh.shape['fsdp'] > 1:
    for axis in sorted(range(len(shape)), key=lambda a: -shape[a]):
      if spec[axis] is None and shape[axis] % mesh.shape['fsdp'] == 0:
        spec[axis] = 'fsdp'
        break
  return PartitionSpec(*spec)


def state_shardings(state: Any, mesh: Mesh) -> Any:
  """Returns a NamedSharding for every array of a (possibly abstract) tree."""
  return jax.tree.map(
    lambda a: NamedSharding(mesh, parameter_spec(a.shape, mesh)), state
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Videos of a batch are shared out over `data` and `fsdp`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def global_batch(local: dict[str, np.ndarray], mesh: Mesh) -> Any:
  """Returns the global batch of which this host holds the rows `local`."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in local.items()
  }
