"""docs/reliability.md names what is tested, and all of it."""

import ast
import pathlib
import re

TESTS = pathlib.Path(__file__).parent
TABLE = TESTS.parent / 'docs' / 'reliability.md'
FAULTS = {*range(1, 36)} - {15}  # a number that was never given


def marked():
  """{file::test: the numbers in its mark `fault`}."""
  found = {}
  for path in TESTS.glob('test_*.py'):
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
      for mark in getattr(node, 'decorator_list', ()):
        if ast.unparse(mark).startswith('pytest.mark.fault('):
          numbers = {argument.value for argument in mark.args}
          found[f'{path.stem}::{node.name}'] = numbers
  return found


def listed():
  """{number of a fault: (tests, outcome)} of the table."""
  rows = {}
  for line in TABLE.read_text(encoding='utf-8').splitlines():
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if len(cells) == 5 and cells[0].isdecimal():
      assert int(cells[0]) not in rows
      tests = re.findall(r'`(test_\w+::test_\w+)`', cells[-1])
      rows[int(cells[0])] = set(tests), cells[-2]
  return rows


def test_every_fault_has_its_row():
  assert set(listed()) == FAULTS
  for number, (tests, outcome) in listed().items():
    assert tests or outcome.startswith('Not covered'), number


def test_rows_and_marks_name_the_same_tests():
  by_row = {(n, test) for n, (tests, _) in listed().items() for test in tests}
  assert by_row == {(n, test) for test, ns in marked().items() for n in ns}
