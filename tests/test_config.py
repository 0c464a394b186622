"""Configs: constructors are the schema, and errors say what is near."""

import dataclasses
import pathlib
import runpy
from typing import Literal

import pytest

from vdm_jax.config import ConfigError, construct, differences
from vdm_jax.job import build

CONFIG = pathlib.Path(__file__).parent.parent / 'configs/moving_shapes.py'


@dataclasses.dataclass
class Part:
  width: int
  rate: float = 0.5
  sizes: tuple[int, ...] = (1, 2)
  kind: Literal['a', 'b'] = 'a'
  share: float | tuple[float, ...] = 0.5
  frame: int | None = None
  on: bool = False
  path: str = ''


def test_values_reach_the_constructor():
  built = construct(
    Part,
    {'width': 3, 'rate': 1, 'sizes': [4, 5], 'kind': 'b', 'share': [0.1, 1]},
    'config.part',
  )
  assert built == Part(3, 1.0, (4, 5), 'b', (0.1, 1.0))
  assert isinstance(built.rate, float)
  assert construct({'x': Part}, {'name': 'x', 'width': 1}, 'c') == Part(1)
  assert construct(Part, {'frame': None}, 'c', width=2) == Part(2)


@pytest.mark.fault(14)
@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'widht': 3}, r"config\.part\.widht is not a field .* mean 'width'"),
    ({'width': '3'}, r"config\.part\.width is '3' of type str.* type int"),
    ({'width': 3.0}, r'width is 3\.0 of type float; it must be of type int'),
    ({'width': True}, 'width is True of type bool'),
    ({'rate': 'fast'}, "rate is 'fast' of type str; .* type float"),
    ({'sizes': 3}, r'sizes is 3 of type int; .* tuple\[int, \.\.\.\]'),
    ({'sizes': (1, 'x')}, "sizes is 'x'"),
    ({'kind': 'c'}, r"kind is 'c' .* Literal\['a', 'b'\]"),
    ({'on': 1}, 'on is 1 of type int; it must be of type bool'),
    ({'path': 4}, 'path is 4 of type int; it must be of type str'),
    ({'frame': 'last'}, "frame is 'last'"),
  ],
)
def test_a_wrong_field_is_named(section, message):
  with pytest.raises(ConfigError, match=message):
    construct(Part, {'width': 1} | section, 'config.part')


@pytest.mark.fault(14)
def test_a_wrong_choice_is_named():
  with pytest.raises(ConfigError, match="name is 'prat'.* mean 'part'"):
    construct({'part': Part}, {'name': 'prat'}, 'config.x')


def test_differences_are_by_flat_name():
  old = {'a': {'b': 1, 'c': (1, 2)}, 'd': 3}
  new = {'a': {'b': 2, 'c': [1, 2]}, 'e': 4}
  assert differences(old, new) == {
    'a.b': (1, 2),
    'd': (3, None),
    'e': (None, 4),
  }


def test_the_learning_rate_falls_over_the_whole_run_and_no_less():
  config = runpy.run_path(str(CONFIG))['get_config']()
  config.train.num_steps = 5000
  assert config.to_dict()['optimizer']['decay_steps'] == 5000
  build(config.to_dict())
  config.optimizer.decay_steps = 400  # most of the run would learn nothing
  assert config.train.num_steps == 5000
  message = 'decay_steps is 400, where the learning rate reaches zero, before'
  with pytest.raises(ConfigError, match=message):
    build(config.to_dict())
