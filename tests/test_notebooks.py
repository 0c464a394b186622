"""Every notebook runs from its first cell to its last, at smoke size."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = pathlib.Path(__file__).parents[1] / 'notebooks'
SMALL = {  # in place of the cell with the tag 'parameters'
  'noise_priors': 'NUM_DRAWS = 256',
  'train': 'NUM_STEPS, NUM_SAMPLES = 2, 4',
  'sample': 'NUM_STEPS, GUIDED_STEPS = 2, 2',
  'three_systems': 'NUM_STEPS, IMAGE_STEPS, NUM_SAMPLES = 2, 2, 4',
}


def test_every_notebook_has_a_smoke_size():
  assert {path.stem for path in NOTEBOOKS.glob('*.ipynb')} == SMALL.keys()


@pytest.mark.slow  # CI runs them
@pytest.mark.parametrize('name', SMALL)
def test_a_notebook_runs(tmp_path, monkeypatch, name):
  root = str(NOTEBOOKS.parent)
  monkeypatch.setenv('PYTHONPATH', root)
  monkeypatch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=0')
  monkeypatch.setenv('MPLBACKEND', 'module://matplotlib_inline.backend_inline')
  book = nbformat.read(NOTEBOOKS / f'{name}.ipynb', as_version=4)
  install, *cells = [cell for cell in book.cells if cell.cell_type == 'code']
  assert '%pip install' in install.source
  (given,) = (c for c in cells if c.metadata.get('tags') == ['parameters'])
  given.source += f'\n{SMALL[name]}'
  client = NotebookClient(
    book,
    timeout=1800,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},  # files go there
  )
  client.execute()
  drawn = [
    out
    for c in cells
    for out in c.outputs
    if 'image/png' in out.get('data', {})
  ]
  assert drawn, 'a notebook without a picture'
