"""What `trends.py` compares: tables of the papers that two cores can train."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

from trend_measures import (
  Measured,
  borders,
  fusion_quality,
  inflation_quality,
  sample_quality,
)

import vdm_jax


@dataclasses.dataclass(frozen=True)
class Cell:
  """A model to train.

  Attributes:
    fields: of the config to change.
    variant: of the config.
    base: the cell whose model this one starts from, if any.
    part: what of the parameters starts there, `config.init.PART`.
  """

  fields: Mapping[str, Any]
  variant: str = ''
  base: Self | None = None
  part: str = 'base'

  def changed(self, fields: Mapping[str, Any]) -> Self:
    """The same with other fields."""
    return dataclasses.replace(self, fields={**self.fields, **fields})


@dataclasses.dataclass(frozen=True)
class Study:
  """Cells to compare.

  Attributes:
    title: what the paper says.
    cells: by name.
    measure: (model, config, seed) -> numbers.
  """

  title: str
  cells: Mapping[str, Cell]
  measure: Callable[[vdm_jax.Model, dict[str, Any], int], Measured]


# --- the studies --------------------------------------------------------------

SMALL = {
  'train.batch_size': 2,
  'sample.num_evaluated': 1,
  'sample.batch_size': 1,
}
IMAGES = {
  f'{k} images': Cell({**SMALL, 'train.num_steps': 600, 'train.num_images': k})
  for k in (0, 4, 8)
}
BORDERS = Cell({**SMALL, 'train.num_steps': 1500, 'train.num_images': 8})
# The base generator learns from other pictures than the videos, as in the
# paper: other shapes, on other grounds.
PICTURES = Cell(
  {
    **SMALL,
    'train.batch_size': 16,
    'train.num_steps': 600,
    'data.shapes': ('triangle', 'cross'),
    'data.backgrounds': ('striped', 'checkered'),
  },
  'image',
)
SCRATCH = Cell({**SMALL, 'train.num_steps': 500}, 'videofusion')
FUSION = dataclasses.replace(SCRATCH, base=PICTURES)
# PYoCo: one image model; videos of it, of progressive noise where not said.
FRAMES = Cell(
  {**SMALL, 'train.batch_size': 16, 'train.num_steps': 1000, 'sample.num': 1},
  'pyoco,image',
)
INFLATED = Cell(
  {**SMALL, 'train.num_steps': 500, 'sample.num': 1}, 'pyoco', FRAMES, 'all'
)


def correlated(correlation: float | str, name: str = 'progressive') -> Cell:
  """The video model of a correlation; 'inf', as JSON has no such number."""
  fields: dict[str, Any] = {'system.noise.correlation': correlation}
  if name != 'progressive':
    fields['system.noise.name'] = name
  return INFLATED.changed(fields)


INDEPENDENT = correlated(0.0)  # whatever its name
STUDIES = {
  'images': Study(
    'VDM Table 4: 0, 4 and 8 independent images beside each video, in rising '
    'order of quality',
    IMAGES,
    sample_quality,
  ),
  'borders': Study(
    'VDM Table 6: reconstruction guidance continues blocks, replacement does '
    'not',
    {'8 images': BORDERS},
    borders,
  ),
  'share': Study(
    'VideoFusion Table 5: base shares of 0.25 and 0.5 are better than 0.1 and '
    '0.75; its section 5 hopes for shares fitted to each video',
    {
      **{
        f'base share {s}': FUSION.changed({'system.noise.base_share': s})
        for s in (0.1, 0.25, 0.75)
      },
      'base share 0.5': FUSION,
      'fitted shares': FUSION.changed({'system.fitted_share': True}),
    },
    fusion_quality,
  ),
  'pretraining': Study(
    'VideoFusion Table 6: better with a pretrained base generator, and better '
    'than VDM without one',
    {
      'VDM': Cell(SCRATCH.fields),
      'without pretraining': SCRATCH,
      'with pretraining': FUSION,
    },
    fusion_quality,
  ),
  'training': Study(
    'VideoFusion Table 7: a fixed base generator, a trained one, and one whose '
    'gradient stops at the base frame, in rising order of quality',
    {
      'fixed': FUSION.changed({'system.training': 'fixed'}),
      'without stop-gradient': FUSION.changed({'system.training': 'joint'}),
      'with stop-gradient': FUSION,
    },
    fusion_quality,
  ),
  'inflation': Study(
    'PYoCo Table 5: from scratch, from an image model, and that with mixed or '
    'progressive noise, in rising order of quality, the last two level',
    {
      'image model': FRAMES,
      'from scratch': dataclasses.replace(INDEPENDENT, base=None),
      'independent': INDEPENDENT,
      'mixed': correlated(1.0, 'mixed'),
      'progressive': correlated(2.0),
    },
    inflation_quality,
  ),
  'correlation': Study(
    'PYoCo Figure 7: best at alpha 1 of mixed and 2 of progressive noise; '
    'frozen videos at infinity',
    {
      'alpha 0': INDEPENDENT,
      **{
        f'{name}, alpha {alpha:g}': correlated(alpha, name)
        for name in ('mixed', 'progressive')
        for alpha in (0.5, 1.0, 2.0, 5.0)
      },
      'alpha inf': correlated('inf'),
    },
    inflation_quality,
  ),
}
