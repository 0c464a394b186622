"""TPUs as a plan sees them: how much a chip holds, and how fast it works.

Peaks are those of matrix products in bfloat16; of a link between chips the
speed of one direction counts.  Source: Cloud TPU's pages of each generation;
clocks are what turns the compiler's cycles into seconds.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip of a generation.

  Attributes:
    name: of the generation.
    memory: bytes of its memory that a program can have, by the compiler.
    peak: floating-point operations per second.
    bandwidth: bytes per second from its memory.
    link: bytes per second to each neighbour, one way.
    clock: cycles per second.
    tile: rows and columns of a matrix unit.
    axes: of the torus.
    host: chips of one host, by axis.
    config: what the compiler calls its cores as one device.
  """

  name: str
  memory: float
  peak: float
  bandwidth: float
  link: float
  clock: float
  tile: int
  axes: int
  host: tuple[int, ...]
  config: str


CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      'v4',
      *(30.75 * 2**30, 275e12, 1.228e12, 45e9, 1.05e9),
      *(128, 3, (2, 2, 1), 'megacore'),
    ),
    Chip(
      'v5e',
      *(15.75 * 2**30, 197e12, 0.819e12, 45e9, 1.5e9),
      *(128, 2, (2, 2, 1), 'default'),
    ),
    Chip(
      'v5p',
      *(95.73 * 2**30, 459e12, 2.765e12, 90e9, 1.75e9),
      *(128, 3, (2, 2, 1), 'megacore'),
    ),
    Chip(
      'v6e',
      *(31.24 * 2**30, 918e12, 1.64e12, 90e9, 1.75e9),
      *(256, 2, (2, 2, 1), 'default'),
    ),
  )
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Chips in a torus.

  Attributes:
    chip: of which generation.
    shape: chips along each axis.
  """

  chip: Chip
  shape: tuple[int, ...]

  @classmethod
  def parse(cls, text: str) -> 'Topology':
    """Returns what 'v4:4x4x8' says.

    Raises:
      ValueError: for another generation, number of axes, or size.
    """
    name, _, sizes = text.partition(':')
    parts = sizes.split('x')
    if name not in CHIPS or not all(p.isdecimal() and int(p) for p in parts):
      raise ValueError(
        f'--topology={text} is not allowed: give a generation, one of '
        f'{", ".join(CHIPS)}, and chips by axis, e.g. v4:4x4x8 or v5e:4x4.'
      )
    chip, shape = CHIPS[name], tuple(map(int, parts))
    if len(shape) != chip.axes:
      raise ValueError(
        f'--topology={text} is not allowed: chips of {name} are in {chip.axes} '
        f'axes, e.g. {name}:{"x".join("4" * chip.axes)}.'
      )
    return cls(chip, shape)

  @property
  def size(self) -> int:
    """Number of chips."""
    return math.prod(self.shape)

  def __str__(self) -> str:
    return f'{self.chip.name}:{"x".join(map(str, self.shape))}'
