"""Metrics: what was written is what can be read back."""

import json
import resource

import pytest

from vdm_jax.training.writers import MetricWriter

LOSSES = {10: 0.5, 20: 0.25, 30: 0.125}


def write(workdir, start, losses):
  writer = MetricWriter(workdir, start)
  for step, loss in losses.items():
    writer.write(step, {'loss': loss})
  writer.close()


def lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return {x['step']: x['loss'] for x in map(json.loads, text.splitlines())}


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
  """Steps after the checkpoint, and a line that a kill cut short."""
  write(tmp_path, 0, LOSSES)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 20, "lo')
  write(tmp_path, 10, {20: 0.75})
  assert lines(tmp_path) == {10: 0.5, 20: 0.75}


@pytest.mark.fault(8)
def test_a_full_disk_is_said_and_the_next_run_writes_on(tmp_path):
  write(tmp_path, 0, {10: 0.5})
  path = tmp_path / 'metrics.jsonl'
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  writer = MetricWriter(tmp_path, 10)
  full = path.stat().st_size + 5, limits[1]
  resource.setrlimit(resource.RLIMIT_FSIZE, full)
  try:
    with pytest.raises(OSError, match=r'metrics\.jsonl cannot be .* free some'):
      writer.write(20, {'loss': 0.25})
    writer.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert path.read_text().endswith('{"ste')
  write(tmp_path, 10, {20: 0.25})
  assert lines(tmp_path) == {10: 0.5, 20: 0.25}


def test_tensorboard_reads_the_same_numbers(tmp_path):
  for name in ('tensorflow', 'tensorboard'):
    pytest.importorskip(name, reason='needs the extra `tensorboard`')
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util

  write(tmp_path, 0, LOSSES)
  events = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
  events.Reload()
  read = {
    event.step: float(tensor_util.make_ndarray(event.tensor_proto))
    for event in events.Tensors('loss')
  }
  assert read == LOSSES == lines(tmp_path)
