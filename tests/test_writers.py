"""Metrics: what was written is what can be read back."""

import json

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
