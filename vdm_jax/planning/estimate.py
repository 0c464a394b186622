"""What a step of a job takes of each chip: memory and time.

    memory    state + gradient + what is alive in it (+ gradients that
              micro-batches add up)
    compute   micro-batches x roofline, and the state once through memory
    links     gradients summed over the copies: 2 x their bytes; parameters
              gathered twice and gradients scattered once where they are shared
              out, for every micro-batch
    step      the larger of compute and links: they overlap
    model     3 x the operations of one forward pass, which a step cannot do
              without; the share of the peak that they are is the utilisation

Work that a `model` axis shares out is counted in full, and so are activations.
This is an estimate, not the compiler's word: `compiler` asks it.
"""

import dataclasses
from typing import Self

from vdm_jax.planning.chips import Chip, Topology
from vdm_jax.planning.program import Program
from vdm_jax.planning.roofline import Cost, cost
from vdm_jax.planning.workload import Workload


@dataclasses.dataclass(frozen=True)
class Micro:
  """A chip's micro-batch, through the loss and back.

  Attributes:
    cost: of all of it.
    forward: operations of the loss alone.
    program: what is alive in it.
  """

  cost: Cost
  forward: float
  program: Program

  @classmethod
  def of(cls, load: Workload, chip: Chip) -> Self:
    """Traces it; for a large network that takes seconds."""
    program = load.gradient()
    forward = cost(load.forward(), chip).flops
    return cls(cost(program, chip), forward, program)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What a chip does in a step.

  Attributes:
    topology: which chips, how many.
    parameters: numbers that are trained.
    state: bytes of the train state on a chip.
    gradients: bytes of its gradients.
    activations: bytes alive beside these, where most is alive.
    compute: seconds of its kernels.
    links: seconds of what it sends.
    model_flops: operations of a step that the model cannot do without.
    flops: operations of a step; more where activations are recomputed.
  """

  topology: Topology
  parameters: int
  state: int
  gradients: int
  activations: int
  compute: float
  links: float
  model_flops: float
  flops: float

  @classmethod
  def of(cls, load: Workload, topology: Topology, micro: Micro) -> Self:
    """Returns the estimate of a workload, whose micro-batch was traced."""
    chip, repeats = topology.chip, load.job.train.accumulate
    full = 4 * load.parameters
    own = load.held(load.state.params)
    state = load.held(load.state)
    update = (2 * state + own) / chip.bandwidth
    copies, shared = load.mesh.shape['data'], load.mesh.shape['fsdp']
    sent = 0.0
    if copies > 1:
      sent += 2 * own * (copies - 1) / copies
    if shared > 1:
      sent += 3 * full * repeats * (shared - 1) / shared
    return cls(
      topology=topology,
      parameters=load.parameters,
      state=state,
      gradients=own * (2 if repeats > 1 else 1),
      activations=max(micro.program.alive(own / full) - own, 0),
      compute=micro.cost.seconds * repeats + update,
      # A ring along each axis, in both directions.
      links=sent / (2 * chip.axes * chip.link),
      model_flops=3 * micro.forward * repeats,
      flops=micro.cost.flops * repeats,
    )

  @property
  def memory(self) -> int:
    """Bytes of a chip."""
    return self.state + self.gradients + self.activations

  @property
  def fits(self) -> bool:
    """Whether the chip has that."""
    return self.memory <= self.topology.chip.memory

  @property
  def seconds(self) -> float:
    """Of a step."""
    return max(self.compute, self.links)

  def utilisation(self, seconds: float) -> float:
    """Returns the share of the peak that the model uses in such a step."""
    return self.model_flops / seconds / self.topology.chip.peak
