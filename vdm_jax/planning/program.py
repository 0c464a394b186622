"""A traced program as one list of kernels, as an accelerator would run it.

A compiler computes cheap elementwise work where its result is read, and stores
the rest.  So values are of two kinds:

    stored    inputs and outputs of the program; what products, reductions and
              random draws make; what products read; what is behind a barrier;
              a sum of two large stored values that several equations read (a
              residual stream)
    fused     all others: known by the stored values that they are made of

Each stored value is written by one kernel, which reads the stored values that
its operands are made of.  From that follow the work, the traffic to and from
memory, and, by the order of the program, the most that is alive at once.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.extend import core

PRODUCTS = {'dot_general', 'conv_general_dilated'}
_LOOPS = {'scan', 'while'}
_STORED = {
  *PRODUCTS,
  *_LOOPS,
  *('argmax', 'argmin', 'cumsum', 'gather', 'random_bits', 'scatter'),
  *('scatter-add', 'sort', 'random_wrap', 'random_unwrap', 'random_fold_in'),
  'optimization_barrier',
}
_VIEWS = {'reshape', 'squeeze', 'expand_dims', 'transpose', 'copy'}
_MANY = 8  # stored values that one fused value is made of, at most


@dataclasses.dataclass(frozen=True)
class Value:
  """An array of the program.

  Attributes:
    number: its place in the program.
    shape: of the array.
    itemsize: bytes of a number.
  """

  number: int
  shape: tuple[int, ...]
  itemsize: int

  @property
  def size(self) -> int:
    """Bytes."""
    return math.prod(self.shape) * self.itemsize


@dataclasses.dataclass(frozen=True)
class Equation:
  """One operation, outside of any function.

  Attributes:
    name: of the primitive.
    params: of the primitive.
    inputs: arrays that it reads; None for a constant.
    outputs: arrays that it makes.
    body: what it repeats.
    times: how often it repeats that.
  """

  name: str
  params: Mapping[str, Any]
  inputs: tuple[Value | None, ...]
  outputs: tuple[Value, ...]
  body: 'Program | None' = None
  times: int = 1

  @property
  def read(self) -> list[Value]:
    """The inputs that are no constants."""
    return [value for value in self.inputs if value is not None]


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What runs at once.

  Attributes:
    equation: the product, reduction or loop in it; None for elementwise work.
    reads: stored values.
    writes: likewise.
  """

  equation: Equation | None
  reads: frozenset[Value]
  writes: tuple[Value, ...]


@dataclasses.dataclass(frozen=True)
class Program:
  """A flat program.

  Attributes:
    inputs: its arguments.
    outputs: its results.
    kernels: all of it, in order.
  """

  inputs: tuple[Value, ...]
  outputs: tuple[Value, ...]
  kernels: tuple[Kernel, ...]

  @classmethod
  def trace(cls, function: Callable[..., Any], *arguments: Any) -> Self:
    """Returns a function's program for an accelerator; computes nothing."""
    return cls.of(jax.make_jaxpr(function)(*arguments).jaxpr)

  @classmethod
  def of(cls, jaxpr: core.Jaxpr) -> Self:
    """Returns the program of a jaxpr."""
    flat = _Flat()
    known = {v: flat.value(v) for v in (*jaxpr.constvars, *jaxpr.invars)}
    inputs = tuple(known.values())
    found = flat.add(jaxpr, known)
    outputs = tuple(value for value in found if value is not None)
    used = _used(flat.equations, outputs)
    return cls(inputs, outputs, tuple(_fused(inputs, used, outputs)))

  def alive(self, share: float = 1.0) -> int:
    """Returns the bytes of the most stored values that are alive at once.

    Inputs do not count: they are there before.  Of outputs a share does.
    """
    kept = dict.fromkeys(self.outputs, share)
    last = dict.fromkeys(self.outputs, len(self.kernels))
    for place, kernel in enumerate(self.kernels):
      last |= {v: max(place, last.get(v, 0)) for v in kernel.reads}
    freed = collections.defaultdict(int)
    there = set(self.inputs)
    alive = most = 0
    for place, kernel in enumerate(self.kernels):
      for value in kernel.writes:
        if value not in there:
          there.add(value)
          size = round(kept.get(value, 1.0) * value.size)
          alive += size
          freed[last.get(value, place)] += size
      body = kernel.equation.body if kernel.equation else None
      most = max(most, alive + (body.alive() if body else 0))
      alive -= freed.pop(place, 0)
    return most


class _Flat:
  """Equations of a jaxpr and of all functions that it calls."""

  def __init__(self):
    self.equations: list[Equation] = []
    self._count = 0

  def value(self, var: Any) -> Value:
    self._count += 1
    dtype = var.aval.dtype
    key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return Value(self._count, var.aval.shape, 8 if key else dtype.itemsize)

  def add(self, jaxpr: core.Jaxpr, known: dict) -> list[Value | None]:
    """Appends a jaxpr whose inputs are known; returns its results."""

    def look(atom):
      return None if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
      inputs = [look(atom) for atom in equation.invars]
      inner = _called(equation)
      if inner is None:
        found = [self.value(var) for var in equation.outvars]
        self.equations.append(_equation(equation, inputs, found))
      else:
        given = inputs[-len(inner.invars) :] if inner.invars else []
        told = dict(zip(inner.invars, given, strict=True))
        told |= {var: self.value(var) for var in inner.constvars}
        found = self.add(inner, told)
      known.update(zip(equation.outvars, found, strict=True))
    return [look(atom) for atom in jaxpr.outvars]


def _called(equation: Any) -> core.Jaxpr | None:
  """The function that an equation calls once, if it does."""
  name, params = equation.primitive.name, equation.params
  if name in _LOOPS:
    return None
  if name == 'cond':
    platforms = params.get('branches_platforms') or ()
    # The branch of what is not named, which is an accelerator; else the last.
    branch = platforms.index(None) if None in platforms else -1
    return params['branches'][branch].jaxpr
  function = params.get('jaxpr', params.get('call_jaxpr'))
  return getattr(function, 'jaxpr', function)


def _equation(equation: Any, inputs: list, outputs: list) -> Equation:
  name, params = equation.primitive.name, equation.params
  body, times = None, 1
  if name == 'scan':
    body, times = Program.of(params['jaxpr'].jaxpr), params['length']
  elif name == 'while':
    body = Program.of(params['body_jaxpr'].jaxpr)
  return Equation(name, params, tuple(inputs), tuple(outputs), body, times)


def _used(
  equations: list[Equation], outputs: tuple[Value, ...]
) -> list[Equation]:
  """Equations that an output needs."""
  needed, kept = set(outputs), []
  for equation in reversed(equations):
    if needed & set(equation.outputs):
      needed.update(equation.read)
      kept.append(equation)
  return kept[::-1]


def _fused(
  inputs: tuple[Value, ...],
  equations: list[Equation],
  outputs: tuple[Value, ...],
) -> Iterator[Kernel]:
  """Yields the kernels that store what is to be stored."""
  readers = collections.Counter(v for e in equations for v in e.read)
  readers.update(outputs)
  # Of each value the stored ones that it is made of.
  made: dict[Value, frozenset[Value]]
  made = {value: frozenset([value]) for value in inputs}
  views: dict[Value, Value] = {}  # of a stored value, in another shape

  def store(value: Value) -> Iterator[Kernel]:
    """Makes a fused value a stored one."""
    original = views.get(value, value)
    if made[original] != {original}:
      yield Kernel(None, made[original], (original,))
    made[original] = made[value] = frozenset([original])

  for equation in equations:
    read = equation.read
    if equation.name in _VIEWS and read:
      views[equation.outputs[0]] = views.get(read[0], read[0])
    if equation.name in PRODUCTS or equation.body:
      for value in read:
        yield from store(value)
    sources = frozenset().union(*(made[value] for value in read))
    if equation.name in _STORED or equation.name.startswith('reduce'):
      yield Kernel(equation, sources, equation.outputs)
      made |= {value: frozenset([value]) for value in equation.outputs}
      continue
    made |= dict.fromkeys(equation.outputs, sources)
    for value in equation.outputs:
      large = [v for v in sources if 2 * v.size >= value.size]
      joined = equation.name in ('add', 'add_any') and len(large) > 1
      if (joined and readers[value] > 1) or len(sources) > _MANY:
        yield from store(value)
  for value in outputs:
    yield from store(value)
