"""Plans: work and memory counted by hand, by XLA, and by the arrays there."""

import dataclasses
import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies

from tests.command_line import SHAPES, command, fails
from vdm_jax.data.pipeline import Pipeline
from vdm_jax.job import build
from vdm_jax.networks.convolution import conv2d
from vdm_jax.networks.materialization import materialize
from vdm_jax.planning import blocks, compiler
from vdm_jax.planning.advice import changed, cheapest
from vdm_jax.planning.chips import CHIPS, Topology
from vdm_jax.planning.estimate import Estimate, Micro
from vdm_jax.planning.program import Program
from vdm_jax.planning.roofline import cost
from vdm_jax.planning.workload import Workload

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
V4 = CHIPS['v4']


def array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def flops(function, *arguments):
  return cost(Program.trace(function, *arguments), V4).flops


def config(name='moving_shapes', variant='', **changes):
  get_config = runpy.run_path(str(CONFIGS / f'{name}.py'))['get_config']
  names = {key.replace('__', '.'): value for key, value in changes.items()}
  return changed(get_config(variant).to_dict(), names)


SMALL = {  # few layers to trace
  'network__width': 32,
  'network__multipliers': (1,),
  'network__attention_resolutions': (),
  'train__batch_size': 8,
}


def workload(chips=1, **changes):
  return Workload(build(config(**(SMALL | changes))), chips)


# --- a program ----------------------------------------------------------------


def test_products_count_twice_their_multiplications():
  a, b, c = array(5, 8), array(8, 16), array(16, 3)
  assert flops(lambda a, b, c: a @ b @ c, a, b, c) == 2 * (
    5 * 8 * 16 + 5 * 16 * 3
  )
  batched = array(4, 5, 8), array(4, 8, 16)
  assert flops(jnp.matmul, *batched) == 2 * 4 * 5 * 8 * 16
  x, kernel = array(2, 6, 8, 8, 3), array(3, 3, 3, 5)
  whole = 2 * 12 * 64 * 9 * 3 * 5
  assert flops(conv2d, x, kernel) == whole
  assert flops(lambda x, k: conv2d(x, k, 2), x, kernel) == whole / 4


@pytest.mark.parametrize('stride', [1, 2])
def test_a_gradient_is_the_product_twice_more(stride):
  """By x and by the kernel; zeros between strides do not count."""

  def loss(x, kernel):
    return conv2d(x, kernel, stride).sum()

  x, kernel = array(2, 8, 8, 3), array(3, 3, 3, 5)
  gradient = jax.value_and_grad(loss, (0, 1))
  assert flops(gradient, x, kernel) == 3 * flops(loss, x, kernel)


def test_the_gradient_of_a_kernel_fills_the_matrix_unit_with_pixels():
  """However few frames there are: it is a product over all pixels."""

  def loss(x, kernel):
    return conv2d(x, kernel).sum()

  x = array(1, 64, 64, 1024, dtype=jnp.bfloat16)
  kernel = array(3, 3, 1024, 1024, dtype=jnp.bfloat16)
  by_kernel = Program.trace(jax.grad(loss, 1), x, kernel)
  found = cost(by_kernel, V4)
  assert found.seconds == pytest.approx(found.flops / V4.peak, rel=0.1)


def test_loops_repeat_and_what_no_result_needs_is_left_out():
  a = array(4, 4)
  once = 2 * 4**3

  def repeated(a):
    return lax.scan(lambda c, _: (c @ a, None), a, None, length=5)[0]

  def unused(a):
    _ = a @ a
    return a @ a.T

  assert flops(repeated, a) == 5 * once
  assert flops(unused, a) == once


def test_the_branch_of_an_accelerator_is_taken():
  def run(a):
    return lax.platform_dependent(
      a, cpu=lambda a: a @ a @ a @ a, default=lambda a: a @ a
    )

  assert flops(run, array(4, 4)) == 2 * 4**3
  kernels = Program.trace(lambda a: materialize(a) + 1, array(4)).kernels
  assert len(kernels) == 1  # nothing but the sum


def test_recomputation_runs_the_forward_pass_once_more():
  def loss(x, w, remat):
    def layer(x, w):
      return jnp.tanh(x @ w)

    for _ in range(4):
      x = (jax.checkpoint(layer) if remat else layer)(x, w)
    return x.sum()

  x, w = array(256, 32), array(32, 32)
  plain, again = (
    Program.trace(jax.value_and_grad(functools.partial(loss, remat=r), 1), x, w)
    for r in (False, True)
  )
  once = 2 * 256 * 32 * 32
  # No gradient by the first x.
  assert cost(plain, V4).flops == 4 * once + 4 * once + 3 * once
  assert cost(again, V4).flops == cost(plain, V4).flops + 4 * once


def test_what_is_alive_is_what_is_still_read():
  x, w = array(64, 64), array(64, 64)
  size = 64 * 64 * 4

  def chain(x, w):
    for _ in range(6):
      x = jnp.tanh(x @ w) * 2  # read by the next product: stored, not fused
    return x.sum()

  def kept(x, w):
    found = []
    for _ in range(6):
      x = x @ w
      found.append(x)
    return sum(jnp.sum(v @ v) for v in found)

  # A product, and what the next one reads of it.
  assert Program.trace(chain, x, w).alive() <= 2 * size + 8
  assert 6 * size <= Program.trace(kept, x, w).alive() <= 7 * size + 64
  # Of outputs only a chip's share counts.
  product = Program.trace(lambda x, w: x @ w, x, w)
  assert (product.alive(), product.alive(0.25)) == (size, size / 4)
  # Elementwise work is stored nowhere: four bytes of the sum.
  fused = Program.trace(lambda x: jnp.sum(jnp.tanh(x * 2) + x), x)
  assert fused.alive() <= 8


def test_work_is_that_of_xla():
  """Which counts elementwise work too, and no zeros beyond the edge."""
  load = workload(data__height=64, data__width=64)
  own = cost(load.forward(), V4).flops
  lowered = jax.jit(load.loss).trace(load.state.params, load.batch())
  xla = lowered.lower(lowering_platforms=('tpu',)).cost_analysis()
  assert xla is not None
  assert own == pytest.approx(xla['flops'], rel=0.1)


# --- a job on chips -----------------------------------------------------------


@pytest.mark.parametrize('mesh', [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_a_chip_holds_what_a_device_holds(mesh):
  data, fsdp, model = mesh
  load = workload(
    8, mesh__data=data, mesh__fsdp=fsdp, mesh__model=model, network__width=64
  )
  job = load.job
  places = jax.tree.map(
    lambda a: a.sharding,
    abstract(job, job.mesh.build()),
  )
  state = jax.jit(
    lambda: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), load.state),
    out_shardings=places,
  )()
  held = sum(
    a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(state)
  )
  assert load.held(load.state) == held


def abstract(job, mesh):
  from vdm_jax.training.loop import abstract_state

  transformation = job.optimizer.transformation()
  return abstract_state(job.system, transformation, job.video_shape, mesh)


@pytest.mark.parametrize(
  ('variant', 'changes'),
  [('', {}), ('', {'train__num_images': 2}), ('pyoco,sr', {})],
)
def test_batches_are_those_of_the_pipeline(variant, changes, tmp_path):
  made = {**config(variant=variant), 'visual': {'encoder': 'thumbnail'}}
  if 'sr' in variant:
    del made['visual']
  else:
    made['network']['visual_dim'] = 48
  job = build(
    changed(
      made,
      {
        k.replace('__', '.'): v
        for k, v in (changes | {'train__batch_size': 2}).items()
      },
    )
  )
  batch = next(iter(Pipeline(job.source(tmp_path), batch_size=2, seed=0)))
  found = {
    name: (a.shape, a.dtype)
    for name, a in batch.items()
    if isinstance(a, np.ndarray)
  }
  expected = {
    name: (a.shape, a.dtype) for name, a in Workload(job, 1).batch().items()
  }
  assert {k: found[k] for k in expected} == expected


@pytest.mark.parametrize(
  'variant',
  [
    *('', 'pyoco', 'pyoco,sr'),
    pytest.param('videofusion', marks=pytest.mark.slow),
  ],
)
def test_blocks_have_every_parameter_once(variant):
  """But for the prior of VideoFusion, which is no U-Net."""
  load = Workload(build(config(variant=variant)), 1)
  found = 0
  for block, count in blocks.distinct(load).items():
    (params, _, _) = block.step()[1]
    found += count * sum(a.size for a in jax.tree.leaves(params))
  parts = load.state.params
  prior = parts.get('prior', {})
  assert found == load.parameters - sum(a.size for a in jax.tree.leaves(prior))


def test_micro_batches_and_recomputation_trade_memory_for_work():
  def of(**changes):
    load = workload(**changes)
    topology = Topology(V4, (1, 1, 1))
    return Estimate.of(load, topology, Micro.of(load, V4))

  plain, remat, halves = (
    of(),
    of(network__remat=True),
    of(train__accumulate=2),
  )
  assert remat.activations < plain.activations
  assert halves.activations == pytest.approx(plain.activations / 2, rel=0.1)
  assert halves.gradients == 2 * plain.gradients
  assert plain.model_flops == pytest.approx(plain.flops, rel=0.05)
  assert halves.model_flops == pytest.approx(plain.model_flops, rel=1e-3)
  assert remat.model_flops == plain.model_flops
  assert 1.2 < remat.flops / plain.flops <= 4 / 3


@pytest.mark.slow
def test_the_advice_fits_and_is_among_the_fastest():
  made = config(**(SMALL | {'train__batch_size': 4}))
  loads = [
    Workload(build(changed(made, {'mesh.fsdp': n})), 4) for n in (1, 2, 4)
  ]
  micro = Micro.of(loads[0], V4)
  found = [Estimate.of(load, Topology(V4, (2, 2, 1)), micro) for load in loads]
  sizes = [estimate.memory for estimate in found]
  assert sizes == sorted(sizes, reverse=True)

  def advised(memory):
    chip = dataclasses.replace(V4, memory=memory)
    return cheapest(made, Topology(chip, (2, 2, 1)))

  change, estimate = advised(sizes[0])
  assert estimate.memory <= sizes[0]
  assert estimate.seconds <= 1.05 * found[0].seconds  # which fits as well
  for memory in (sizes[0] - 1, sizes[2] - 1):
    change, estimate = advised(memory)
    assert change
    assert estimate.fits
    assert estimate.memory <= memory
  assert advised(1000) is None


# --- the compiler, and the command line ---------------------------------------


def test_cycles_of_a_loop_count_as_often_as_it_runs():
  text = """HloModule jit_f
%body.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %a = f32[4]{0} fusion(%p), backend_config={"estimated_cycles":"30"}
}
%condition.1 (p: (s32[], f32[4])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%p, %constant.1), direction=LT
}
%unused (p: f32[4]) -> f32[4] {
  %b = f32[4]{0} fusion(%p), backend_config={"estimated_cycles":"1000"}
}
ENTRY %main.2 (p: f32[4]) -> f32[4] {
  %c = f32[4]{0} fusion(%p), backend_config={"estimated_cycles":"7"}
  %w = (s32[], f32[4]) while(%t), condition=%condition.1, body=%body.1
}
"""
  assert compiler.cycles(text) == 7 + 5 * 30


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('v3:2x2', 'give a generation, one of v4, v5e, v5p, v6e'),
    ('v4:4x4', 'in 3 axes, e.g. v4:4x4x4'),
    ('v5e:0x4', 'v4:4x4x8 or v5e:4x4'),
    ('v4', 'and chips by axis'),
  ],
)
def test_topologies_are_of_known_chips(text, message):
  with pytest.raises(ValueError, match=message):
    Topology.parse(text)
  assert Topology.parse('v4:4x4x8').size == 128
  assert str(Topology.parse('v5e:4x8')) == 'v5e:4x8'


def test_the_command_line_plans_and_writes_nothing(capsys, tmp_path):
  asked = '--mode=plan', SHAPES, '--config.train.batch_size=8'
  command(None, *asked, '--topology=v5e:2x2')
  said = capsys.readouterr().out
  assert 'on v5e:2x2, 4 chips: data 4 x fsdp 1 x model 1' in said
  assert 'of 15.8 GiB, fits: state' in said
  for arguments, message in (
    ((), 'needs --topology'),
    (('--topology=v4:2x2',), 'chips of v4 are in 3 axes'),
    (('--topology=v5e:4x4',), 'does not divide by 16'),
    (('--topology=v5e:2x2', '--num=3'), '--num says nothing to --mode=plan'),
  ):
    assert message in fails(capsys, None, *asked, *arguments)
  assert 'leave --workdir out' in fails(capsys, tmp_path, *asked)
  assert 'needs --workdir' in fails(capsys, None, SHAPES)


def test_the_peak_is_what_the_matrix_units_can_do():
  """Tile x tile multiplications and sums a cycle, of 8 or 4 units a chip."""
  for chip in CHIPS.values():
    units = chip.peak / (2 * chip.tile**2 * chip.clock)
    assert units == pytest.approx(round(units), rel=1e-2)
    assert round(units) in (4, 8)


def test_without_the_compiler_a_plan_says_what_to_install(capsys, monkeypatch):
  def absent(**options):
    raise NotImplementedError('no TPU support')

  monkeypatch.setattr(topologies, 'get_topology_desc', absent)
  asked = '--mode=plan', SHAPES, '--config.train.batch_size=8'
  for what in ('blocks', 'step'):
    options = '--topology=v5e:2x2', f'--compile={what}'
    said = fails(capsys, None, *asked, *options)
    assert 'for v5e:2x2, and it said: no TPU support' in said
    assert 'pip install "vdm_jax[tpu]"' in said


@pytest.mark.slow
def test_the_compiler_is_asked_once_for_each_block(tmp_path, monkeypatch):
  """And what it says of memory is near the plan's; times need real sizes."""
  pytest.importorskip('libtpu')
  topology = Topology.parse('v5e:2x2')
  load = Workload(build(config(**(SMALL | {'optimizer__name': 'adam'}))), 4)
  planned = Estimate.of(load, topology, Micro.of(load, topology.chip))
  step = compiler.step(load, topology)
  beside = planned.gradients + planned.activations
  assert 0.5 < step.temporary / beside < 2
  assert step.arguments >= planned.state  # small arrays fill whole tiles
  first = blocks.seconds(load, topology, tmp_path)
  assert 0.2 < first / step.seconds < 2
  monkeypatch.setattr(compiler.Compiled, 'of', None)  # not asked again
  assert blocks.seconds(load, topology, tmp_path) == first
