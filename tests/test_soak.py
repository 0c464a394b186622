"""A run that was killed, cut and damaged ends as one that was left alone.

python -m tests.test_soak --cycles 200 --seed 0
"""

import argparse
import functools
import json
import pathlib
import tempfile

import pytest

from tests.soak import soak


@pytest.mark.fault(1, 2, 3, 4, 5, 7, 8)
@pytest.mark.slow
def test_random_harm_changes_no_bit(tmp_path):
  assert soak(tmp_path, cycles=15, seed=7)['bit_equal']


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--cycles', type=int, default=200)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  say = functools.partial(print, flush=True)
  with tempfile.TemporaryDirectory() as place:
    summary = soak(pathlib.Path(place), args.cycles, args.seed, say)
  print(json.dumps(summary))
  print('| what was done | cycles | exit codes | steps lost: mean | most |')
  print('|---|---|---|---|---|')
  for name, found in summary['harms'].items():
    codes = ', '.join(map(str, found['exit_codes']))
    counts = f'{found["mean_lost"]} | {found["most_lost"]}'
    print(f'| {name} | {found["cycles"]} | {codes} | {counts} |')


if __name__ == '__main__':
  main()
