"""Orderings that the papers report, seen at a size that two cores can train.

  python benchmarks/trends.py --study images,borders --seeds 0,1,2
  python benchmarks/trends.py --study share,pretraining,training --seeds 0,1,2
  python benchmarks/trends.py --study inflation,correlation --seeds 0,1,2
  python benchmarks/trends.py --table

A study (`trend_studies.py`) is a list of cells, each a config with some fields
changed, and a measurement of the model that it trains.  Every (study, cell,
seed) that is done is a line of the results file; the same command goes on with
those that are not, on any machine that has the file, and a training run that
was cut off goes on from its checkpoint.  Cells of different studies that are
the same share one run and one measurement.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
from trend_studies import STUDIES, Cell

import vdm_jax

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / 'benchmarks' / 'trends.jsonl'
CONFIG = 'configs/moving_shapes.py'


def train(cell: Cell, seed: int, runs: pathlib.Path) -> pathlib.Path:
  """Trains a cell's model, or goes on with it; returns its workdir."""
  flags = {**cell.fields, 'seed': seed}
  base = train(cell.base, seed, runs) if cell.base else None
  name = f'{CONFIG}:{cell.variant}'.rstrip(':')
  start = {f'init.{cell.part}': base.resolve()} if base else {}
  origin = base and [cell.part, base.name]
  said = json.dumps([name, flags, origin], sort_keys=True)
  workdir = runs / hashlib.sha256(said.encode()).hexdigest()[:12]
  done = workdir / 'trained'
  if not done.exists():
    command = [sys.executable, '-m', 'vdm_jax.main', f'--config={name}']
    command += [f'--config.{k}={v}' for k, v in {**flags, **start}.items()]
    command.append(f'--workdir={workdir.resolve()}')
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    done.touch()
  return workdir


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  if not path.exists():
    return []
  lines = path.read_text(encoding='utf-8').splitlines()
  return [json.loads(line) for line in lines]


def run(study: str, cell: str, seed: int, args: argparse.Namespace) -> None:
  """Trains and measures one cell, and appends its line."""
  chosen = STUDIES[study].cells[cell]
  start = time.monotonic()
  workdir = train(chosen, seed, args.runs)
  judge = STUDIES[study].measure
  measured = workdir / f'{judge.__name__}.json'
  if not measured.exists():
    config = json.loads((workdir / 'config.json').read_text(encoding='utf-8'))
    numbers = judge(vdm_jax.load(workdir), config, seed)
    measured.write_text(json.dumps(numbers), encoding='utf-8')
  line = {
    'study': study,
    'cell': cell,
    'seed': seed,
    'config': dict(chosen.fields),
    'result': json.loads(measured.read_text(encoding='utf-8')),
    'seconds': round(time.monotonic() - start),
    'machine': f'{platform.machine()}, {os.cpu_count()} cores, '
    f'{jax.devices()[0].platform}',
    'jax': jax.__version__,
  }
  with args.results.open('a', encoding='utf-8') as file:
    file.write(json.dumps(line) + '\n')
  print(json.dumps(line), flush=True)


def table(lines: list[dict[str, Any]], studies: list[str]) -> str:
  """Mean of each number over the seeds (lowest - highest)."""
  parts = []
  for study in studies:
    rows = [line for line in lines if line['study'] == study]
    cells = [c for c in STUDIES[study].cells if c in {r['cell'] for r in rows}]
    if not cells:
      continue
    parts.append(f'\n{STUDIES[study].title}\n')
    for cell in cells:
      of_cell = [row['result'] for row in rows if row['cell'] == cell]
      seeds = sorted(row['seed'] for row in rows if row['cell'] == cell)
      parts.append(f'{cell}, seeds {seeds}')
      for name in of_cell[0]:
        values = [result[name] for result in of_cell]
        parts.append(
          f'  {name:44} {np.mean(values):9.4f} '
          f'({min(values):.4f} - {max(values):.4f})'
        )
  return '\n'.join(parts)


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--study', default=','.join(STUDIES))
  parser.add_argument('--seeds', default='0')
  parser.add_argument('--runs', type=pathlib.Path, default='runs/trends')
  parser.add_argument('--results', type=pathlib.Path, default=RESULTS)
  parser.add_argument('--table', action='store_true', help='print, run nothing')
  args = parser.parse_args()
  args.study = args.study.split(',')
  if unknown := set(args.study) - set(STUDIES):
    parser.error(f'--study: {unknown} is none of {", ".join(STUDIES)}.')
  args.seeds = [int(seed) for seed in args.seeds.split(',')]
  return args


def main() -> None:
  args = parse()
  if not args.table:
    cells = [
      (study, cell, seed)
      for seed in args.seeds
      for study in args.study
      for cell in STUDIES[study].cells
    ]
    for study, cell, seed in cells:
      keys = ('study', 'cell', 'seed')
      done = {tuple(line[k] for k in keys) for line in read(args.results)}
      if (study, cell, seed) not in done:
        run(study, cell, seed, args)
  print(table(read(args.results), args.study))


if __name__ == '__main__':
  main()
