"""Imports point one way, and files stay small."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'vdm_jax'
FILES = sorted(PACKAGE.rglob('*.py'))

# A module may import modules of its own layer's name and of lower ranks.
RANK = {
  'shapes': 0,
  'config': 0,
  'video': 2,
  'diffusion': 1,
  'networks': 1,
  'data': 1,
  'metrics': 1,
  'samplers': 2,
  'systems': 3,
  'training': 4,
  'conditions': 2,
  'drawing': 5,
  'refining': 5,
  'errors': 5,
  'job': 5,
  'model': 6,
  'loading': 7,
  'cascade': 7,
  'evaluation': 5,
  'results': 6,
  'fidelity': 7,
  'planning': 6,
  'tasks': 7,
  'commands': 8,
  'process': 0,
  'main': 9,
}


def layer(path):
  return path.relative_to(PACKAGE).with_suffix('').parts[0]


def imported(path):
  """(module imported, whether at import time) of a file."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize(
  'path', FILES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_one_way(path):
  if path == PACKAGE / '__init__.py':
    return  # the door to everything, opened lazily
  own = layer(path)
  for module in imported(path):
    parts = module.split('.')
    if parts[0] != 'vdm_jax' or len(parts) == 1 or parts[1] not in RANK:
      continue
    other = parts[1]
    assert own == other or RANK[other] < RANK[own], f'{own} imports {other}'


@pytest.mark.parametrize(
  'path', FILES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_each_layer_knows_only_its_trade(path):
  roots = {module.split('.')[0] for module in imported(path)}
  if layer(path) in ('data', 'video', 'config', 'conditions'):
    assert not roots & {'jax', 'flax', 'optax', 'orbax'}
  if layer(path) in ('diffusion', 'samplers'):
    assert not roots & {'flax', 'optax', 'orbax', 'grain', 'absl'}
  if layer(path) != 'main':
    assert 'absl.flags' not in set(imported(path)) or layer(path) == 'data'


def test_files_are_short():
  for path in FILES:
    lines = len(path.read_text(encoding='utf-8').splitlines())
    assert lines <= (200 if layer(path) == 'systems' else 300), path
    assert path.stem not in ('utils', 'util', 'helpers', 'misc', 'common')
