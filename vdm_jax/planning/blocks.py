"""The time of a step by its blocks, each compiled for the chip once.

A whole step of a large network takes the TPU compiler an hour on a small
machine.  But it is made of few distinct blocks: residual blocks, attentions
and convolutions of a few sizes.  Each is compiled alone, forward and back, and
counts as often as it occurs.  What the compiler would do across blocks is left
out, and so are the embedding of conditions and the loss.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import SingleDeviceSharding

from vdm_jax.networks.blocks import Stage
from vdm_jax.networks.efficient import EfficientUNet, Level
from vdm_jax.networks.unet import UNet
from vdm_jax.planning import compiler
from vdm_jax.planning.chips import Topology
from vdm_jax.planning.workload import Workload

_NETWORKS = (UNet, EfficientUNet)
_MADE_OF_BLOCKS = (*_NETWORKS, Stage, Level)


@dataclasses.dataclass(frozen=True)
class Block:
  """A layer and the arrays that it is given.

  Attributes:
    module: the layer, outside of any network.
    shapes: of the arrays, and their types.
    recomputed: whether the backward pass runs it once more.
  """

  module: nn.Module
  shapes: tuple[jax.ShapeDtypeStruct | None, ...]
  recomputed: bool

  def step(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns its forward and backward pass, and what that is given."""

    def run(params, *arrays):
      rngs = {'dropout': jax.random.key(0)}
      return self.module.apply(params, *arrays, rngs=rngs)

    def both(params, arrays, gradient):
      function = jax.checkpoint(run) if self.recomputed else run
      out, back = jax.vjp(function, params, *arrays)
      gradients = jax.tree.leaves(back(gradient))
      # Of whole numbers and truth values there are none.
      return out, [g for g in gradients if g.dtype != jax.dtypes.float0]

    params = jax.eval_shape(self.module.init, jax.random.key(0), *self.shapes)
    out = jax.eval_shape(run, params, *self.shapes)
    return both, (params, self.shapes, out)


def distinct(load: Workload) -> dict[Block, int]:
  """Returns the blocks of a micro-batch, and how often each occurs."""
  found: dict[str, tuple[Block, int]] = {}

  def record(call, arguments, options, context):
    module = context.module
    inside = isinstance(module.parent, _MADE_OF_BLOCKS)
    arrays = all(a is None or hasattr(a, 'shape') for a in arguments)
    if inside and not isinstance(module, _MADE_OF_BLOCKS) and arrays:
      network = module
      while not isinstance(network, _NETWORKS):
        network = network.parent
      shapes = tuple(
        None if a is None else jax.ShapeDtypeStruct(a.shape, a.dtype)
        for a in arguments
      )
      alone = module.clone(parent=None, name=None)
      block = Block(alone, shapes, network.remat)
      _, count = found.get(repr(block), (block, 0))
      found[repr(block)] = block, count + 1
    return call(*arguments, **options)

  params = load.state.params  # its making runs every layer too
  with nn.intercept_methods(record):
    jax.eval_shape(load.loss, params, load.batch())
  return dict(found.values())


def _seconds(lowered: Any, topology: Topology, cache: pathlib.Path) -> float:
  """Compiles a block, or reads how long it took the last time."""
  import libtpu  # type: ignore

  said = f'{libtpu.__version__} {topology.chip} {lowered.as_text()}'
  name = hashlib.sha256(said.encode()).hexdigest()[:32]
  path = cache / f'{name}.json'
  if path.exists():
    return json.loads(path.read_text(encoding='utf-8'))
  found = compiler.Compiled.of(lowered.compile(), topology).seconds
  cache.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix(f'.{os.getpid()}.tmp')
  temporary.write_text(json.dumps(found), encoding='utf-8')
  os.replace(temporary, path)
  return found


def seconds(load: Workload, topology: Topology, cache: pathlib.Path) -> float:
  """Returns the time of a micro-batch, the sum of its blocks.

  Args:
    load: the job.
    topology: the chips; one of them is compiled for.
    cache: folder where times are kept.

  Raises:
    ValueError: without the TPU compiler.
  """
  place = SingleDeviceSharding(compiler.devices(topology)[0])
  found, total = distinct(load), 0.0
  for number, (block, count) in enumerate(found.items(), 1):
    what = type(block.module).__name__
    logging.info('Block %d of %d: %s.', number, len(found), what)
    function, shapes = block.step()
    placed = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes
    )
    lowered = jax.jit(function).lower(*placed)
    total += count * _seconds(lowered, topology, cache)
  return total
