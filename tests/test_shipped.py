"""The models that come with the package: whole, and as good as their cards."""

import json
import re

import jax
import numpy as np
import pytest

import vdm_jax
from vdm_jax import evaluation
from vdm_jax.loading import find

NAMES = sorted(path.name for path in find('moving_shapes').parent.iterdir())


@pytest.mark.parametrize('name', NAMES)
def test_the_card_is_of_the_model(name):
  folder, model = find(name), vdm_jax.load(name)
  card = (folder / 'README.md').read_text()
  numbers = sum(leaf.size for leaf in jax.tree.leaves(model.params))
  assert f'{numbers:,} parameters' in card
  assert f'{model.step:,} steps' in card
  assert sum(p.stat().st_size for p in folder.rglob('*')) < 8e6


@pytest.mark.slow
def test_samples_of_moving_shapes_are_as_its_card_says():
  """Within four standard deviations of each share, by seeds it has not seen."""
  folder, model = find('moving_shapes'), vdm_jax.load('moving_shapes')
  data = json.loads((folder / 'config.json').read_text())['data']
  num = 96
  label = model.conditions.labels_in_turn(num)
  videos = model.sample(jax.random.key(7), num, label=label, batch_size=32)
  measured = evaluation.evaluate(videos, data, label)['samples']
  card = (folder / 'README.md').read_text()
  rows = re.findall(r'^\| (\w+) \| ([\d.]+) % \|', card, re.MULTILINE)
  assert {name for name, _ in rows} == measured.keys()
  for name, percent in rows:
    share = float(percent) / 100
    spread = np.sqrt(max(share * (1 - share), 0.01) / num)
    assert abs(measured[name] - share) < 4 * spread, name
