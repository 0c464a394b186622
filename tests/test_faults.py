"""What may happen to a whole run, and what becomes of it.

Faults of single parts are in the tests of these parts; `pytest -m fault` runs
them all, docs/reliability.md lists them.
"""

import contextlib
import dataclasses
import os
import signal
import time

import jax
import numpy as np
import pytest

from tests.checkpoint_cases import names
from tests.test_step import SHAPE, Line
from tests.test_train import (
  SETTINGS,
  assert_equal_states,
  metrics,
  run,
  undisturbed,
)
from vdm_jax.config import ConfigError
from vdm_jax.training import manifest
from vdm_jax.training.checkpoint import Checkpointer
from vdm_jax.training.finite import NonFiniteError
from vdm_jax.training.loop import abstract_state
from vdm_jax.training.optimizer import Adam
from vdm_jax.training.sharding import MeshShape

__all__ = ['undisturbed']  # a fixture

SHORT = dataclasses.replace(SETTINGS, num_steps=4)


@pytest.mark.fault(7)
def test_a_signal_during_a_save_changes_nothing(
  tmp_path, undisturbed, monkeypatch
):
  write, signals = manifest.write, []

  def interrupted(*args):
    if not signals:
      signals.append(os.kill(os.getpid(), signal.SIGTERM))
    write(*args)

  monkeypatch.setattr(manifest, 'write', interrupted)
  saving = dataclasses.replace(SETTINGS, save_every=1)
  first = run(tmp_path, settings=saving)
  assert first.stopped
  # The save that was under way is whole, and so is that of the last step.
  assert set(names(tmp_path / 'checkpoints')) == {
    str(step) for step in range(1, first.step + 1)[-3:]
  }
  second = run(tmp_path)
  assert not second.stopped
  assert_equal_states(second.state, undisturbed[1].state)


@pytest.mark.fault(28)
def test_a_clock_that_goes_back_changes_nothing(
  tmp_path, undisturbed, monkeypatch
):
  """By a year at every look at it."""
  now, looks = time.time, []

  def falling():
    looks.append(1)
    return now() - 365 * 24 * 3600 * len(looks)

  monkeypatch.setattr(time, 'time', falling)
  monkeypatch.setattr(time, 'time_ns', lambda: int(falling() * 1e9))
  run(tmp_path, settings=SHORT)
  second = run(tmp_path)
  monkeypatch.undo()
  assert looks
  assert_equal_states(second.state, undisturbed[1].state)
  for name in ('', 'checkpoints'):
    assert names(tmp_path / name) == names(undisturbed[0] / name)
  for line, other in zip(
    metrics(tmp_path), metrics(undisturbed[0]), strict=True
  ):
    assert (line['step'], line['loss']) == (other['step'], other['loss'])
    assert 0 < line['seconds_per_step'] < 600
    assert line['videos_per_second'] > 0


def _poisoned(workdir, part):
  """Saves one more step, whole by its manifest, with a NaN in it."""
  mesh, optimizer = MeshShape().build(), Adam(learning_rate=0.01)
  like = abstract_state(Line(), optimizer.transformation(), SHAPE, mesh)
  with contextlib.closing(Checkpointer(workdir / 'checkpoints')) as checkpoints:
    step, state, metadata = checkpoints.restore(like)
    leaves, structure = jax.tree.flatten(getattr(state, part))
    place = max(range(len(leaves)), key=lambda i: leaves[i].size)
    leaves[place] = leaves[place].at[3, 5].set(np.nan)
    broken = {part: jax.tree.unflatten(structure, leaves)}
    checkpoints.save(step + 1, dataclasses.replace(state, **broken), metadata)


@pytest.mark.fault(23)
@pytest.mark.parametrize(
  'part',
  [
    'ema',
    pytest.param('params', marks=pytest.mark.slow),
    pytest.param('opt_state', marks=pytest.mark.slow),
  ],
)
def test_a_checkpoint_with_a_nan_is_not_gone_on_from(
  tmp_path, undisturbed, part
):
  run(tmp_path, settings=SHORT)
  _poisoned(tmp_path, part)
  with pytest.raises(NonFiniteError, match=f'Step 5 .* in {part}/.*kernel'):
    run(tmp_path)
  (tmp_path / 'checkpoints' / '5').rename(tmp_path / 'away')
  assert_equal_states(run(tmp_path).state, undisturbed[1].state)


@pytest.mark.fault(22)
def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
  """Its batches were finite: loss and gradient do not show it in time."""
  far = Adam(learning_rate=3e38, warmup_steps=0, weight_decay=9.0)
  saving = dataclasses.replace(SETTINGS, save_every=1)
  with pytest.raises(NonFiniteError, match='after step 1 .*params/kernel'):
    run(tmp_path, settings=saving, optimizer=far)
  assert names(tmp_path / 'checkpoints') == []


@pytest.mark.fault(13)
def test_a_checkpoint_of_another_config_is_refused_before_it_is_read(tmp_path):
  """Though every array of it would fit."""
  config = {'system.parameterization': 'eps', 'seed': 0}
  run(tmp_path, settings=SHORT, config=config)
  directory = tmp_path / 'checkpoints'
  data_file_of = max(
    (p for p in (directory / '4').rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  whole = data_file_of.read_bytes()
  data_file_of.write_bytes(b'')  # to see that nobody looks
  other = config | {'system.parameterization': 'v'}
  with pytest.raises(
    ConfigError, match=r"parameterization is 'v', there it is 'eps'"
  ):
    run(tmp_path, config=other)
  assert names(directory) == ['4']
  data_file_of.write_bytes(whole)
  assert run(tmp_path, config=config).step == 6


@pytest.mark.slow
@pytest.mark.fault(10)
def test_a_run_goes_on_with_another_mesh(tmp_path):
  """1, 4, 2, 8 devices: the same batches, losses but for the order of sums."""
  settings = dataclasses.replace(SETTINGS, log_every=1)
  run(tmp_path / 'whole', settings=settings)
  shapes = MeshShape(data=1), MeshShape(fsdp=2), MeshShape(), MeshShape(fsdp=4)
  for devices, shape, until in zip(
    (1, 4, 2, 8), shapes, (1, 3, 4, 6), strict=True
  ):
    result = run(
      tmp_path / 'parts',
      settings=dataclasses.replace(settings, num_steps=until),
      mesh=shape.build(jax.devices()[:devices]),
    )
    assert len(result.state.params['kernel'].sharding.device_set) == devices
  for part, whole in zip(
    metrics(tmp_path / 'parts'), metrics(tmp_path / 'whole'), strict=True
  ):
    assert part['step'] == whole['step']
    np.testing.assert_allclose(part['loss'], whole['loss'], rtol=1e-5)


@pytest.mark.fault(30)
def test_a_run_is_a_function_of_its_seed(tmp_path, undisturbed):
  again = run(tmp_path / 'again')
  assert_equal_states(again.state, undisturbed[1].state)
  other = run(tmp_path / 'other', seed=1)
  assert (
    metrics(tmp_path / 'other')[0]['loss'] != metrics(undisturbed[0])[0]['loss']
  )
  difference = other.state.params['kernel'] - again.state.params['kernel']
  assert np.abs(difference).min() > 0
