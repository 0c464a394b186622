"""A report of an evaluation, as a table for people."""

from collections.abc import Mapping
from typing import Any


def table(report: Mapping[str, Any]) -> str:
  """Returns a report for people."""
  protocol = report['protocol']
  lines = [
    f'Protocol {protocol["name"]}: {protocol["source"]}.',
    f'{report["generated"]} videos of {report["frames"]} frames (made '
    f'{report["frames_at_once"]} at once) against {report["real"]} real clips '
    f'({protocol["split"]}, {protocol["clips"]}), seed {protocol["seed"]}, '
    f'step {report["step"]}, {report["sample"]["sampler"]}, '
    f'{report["sample"]["num_steps"]} steps.',
    f'{"":12}{"value":>12}{"error":>10}{"floor":>12}  recipe',
  ]
  for name, result in report['metrics'].items():
    counts = ' / '.join(map(str, result['floor_counts']))
    lines.append(
      f'{name:12}{result["value"]:12.4g}{result["error"]:10.2g}'
      f'{result["floor"]:12.4g}  {result["recipe"]}; floor of {counts}'
    )
  lines += [
    f'{name}: {found["file"]} {found["sha256"][:16]}'
    for name, found in report['weights'].items()
  ]
  if report['not_comparable']:
    why = '; '.join(report['not_comparable'])
    lines.append(f'NOT COMPARABLE with published numbers: {why}.')
  return '\n'.join(lines)
