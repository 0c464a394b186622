"""How long a program takes, by what the chip can do.

    time of a kernel = max(work / peak, traffic / bandwidth)

Work is that of the products, with what a matrix unit of tile x tile wastes:
output channels are rounded up to whole tiles, and fewer input channels than a
tile count as one.  Traffic is what a kernel reads and writes.  A compiler may
fuse more than `program` assumes, and do with less traffic.
"""

import dataclasses
import math
from typing import Self

from vdm_jax.planning.chips import Chip
from vdm_jax.planning.program import Equation, Kernel, Program


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program costs on one chip.

  Attributes:
    flops: floating-point operations of its products, waste left out.
    seconds: by the roofline.
  """

  flops: float = 0.0
  seconds: float = 0.0

  def __add__(self, other: Self) -> 'Cost':
    return Cost(
      self.flops + other.flops,
      self.seconds + other.seconds,
    )

  def __mul__(self, times: float) -> 'Cost':
    return Cost(times * self.flops, times * self.seconds)


def cost(program: Program, chip: Chip) -> Cost:
  """Returns the sum of all kernels."""
  return sum((_cost(k, chip) for k in program.kernels), Cost())


def _cost(kernel: Kernel, chip: Chip) -> Cost:
  equation = kernel.equation
  if equation and equation.body:
    return cost(equation.body, chip) * equation.times
  traffic = sum(v.size for v in (*kernel.reads, *kernel.writes))
  flops, filled = _product(equation, chip.tile)
  seconds = max(flops / filled / chip.peak, traffic / chip.bandwidth)
  return Cost(flops, seconds)


def _product(equation: Equation | None, tile: int) -> tuple[float, float]:
  """Returns operations, and the share of the matrix unit that they fill."""
  if equation is None or None in equation.inputs:
    return 0.0, 1.0
  if equation.name == 'dot_general':
    (left, right), (left_batch, right_batch) = equation.params[
      'dimension_numbers'
    ]
    a, b = (value.shape for value in equation.inputs)  # type: ignore
    inner = math.prod(a[axis] for axis in left)
    rows = math.prod(a) / inner / math.prod(a[axis] for axis in left_batch)
    columns = math.prod(
      b[axis] for axis in range(len(b)) if axis not in (*right, *right_batch)
    )
    flops = 2.0 * math.prod(equation.outputs[0].shape) * inner
    # Either factor can be the one that stays in the matrix unit.
    return flops, max(_filled(inner, n, tile) for n in (columns, int(rows)))
  if equation.name == 'conv_general_dilated':
    params, out = equation.params, equation.outputs[0].shape
    kernel = equation.inputs[1].shape  # type: ignore
    spec = params['dimension_numbers'].rhs_spec
    inner, columns = kernel[spec[1]], kernel[spec[0]]
    per_output = math.prod(kernel) / columns
    if per_output > 9 * inner:  # a kernel's gradient: a sum over all pixels
      inner = int(per_output)
    flops = 2.0 * math.prod(out) * per_output
    # Zeros between the numbers of a strided convolution's gradient.
    flops /= math.prod(params['lhs_dilation'])
    return flops, _filled(inner, columns, tile)
  return 0.0, 1.0


def _filled(inner: int, columns: int, tile: int) -> float:
  """The share of whole tiles that a factor [inner, columns] fills."""
  whole = math.ceil(columns / tile) * tile
  return min(1.0, inner / tile) * columns / whole
