"""What the modules of a U-Net are called in other libraries.

    down_0_1/block/conv_1    down_blocks.0.resnets.1.conv1     diffusers
                             input_blocks.2.0.in_layers.2      adm

'diffusers' is its UNet2DModel where that has this network's blocks
(resnet_time_scale_shift='scale_shift'), 'adm' the networks of Dhariwal and
Nichol 2021 and of Nichol and Dhariwal 2021.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

_BLOCK = {
  'diffusers': {
    'norm_1': ('norm1',),
    'conv_1': ('conv1',),
    'modulation': ('time_emb_proj',),
    'norm_2': ('norm2',),
    'conv_2': ('conv2',),
    'shortcut': ('conv_shortcut',),
  },
  'adm': {
    'norm_1': ('in_layers.0',),
    'conv_1': ('in_layers.2',),
    'modulation': ('emb_layers.1',),
    'norm_2': ('out_layers.0',),
    'conv_2': ('out_layers.3',),
    'shortcut': ('skip_connection',),
  },
}
_ATTENTION = {
  'diffusers': {
    'norm': ('group_norm',),
    'qkv': ('to_q', 'to_k', 'to_v'),
    'out': ('to_out.0',),
  },
  'adm': {'norm': ('norm',), 'qkv': ('qkv',), 'out': ('proj_out',)},
}
_ENDS = {
  'diffusers': {
    'in': ('conv_in',),
    'embedding/noise_level': ('time_embedding.linear_1',),
    'embedding/layer_1': ('time_embedding.linear_2',),
    'out_norm': ('conv_norm_out',),
    'out': ('conv_out',),
  },
  'adm': {
    'in': ('input_blocks.0.0',),
    'embedding/noise_level': ('time_embed.0',),
    'embedding/layer_1': ('time_embed.2',),
    'out_norm': ('out.0',),
    'out': ('out.2',),
  },
}
_RESAMPLING = {  # of a single convolution, where it is no residual block
  'diffusers': {'down': 'conv', 'up': 'conv'},
  'adm': {'down': 'op', 'up': 'conv'},
}


@dataclasses.dataclass(frozen=True)
class NameMap:
  """What modules are called elsewhere.

  Attributes:
    modules: names there by the path here; several are joined.
    cosine_first: whether the noise level is told in cosines, then sines.
    heads_first: whether queries, keys and values lie head by head.
  """

  modules: Mapping[str, str | Sequence[str]]
  cosine_first: bool = False
  heads_first: bool = False


def family_of(names: Collection[str]) -> str:
  """Returns which library's names arrays have; '' for none that is known."""
  for family, ends in _ENDS.items():
    if f'{ends["in"][0]}.weight' in names:
      return family
  return ''


def name_map(family: str, modules: Collection[str]) -> NameMap:
  """Returns the map of a library for the network that has these modules."""
  levels, blocks = np.max([_place(name) for name in modules], 0) + 1
  names: dict[str, tuple[str, ...]] = dict(_ENDS[family])
  stages = {'diffusers': _diffusers, 'adm': _adm}[family]
  for here, there in stages(int(levels), int(blocks), modules):
    kind = _ATTENTION if here.endswith('/spatial') else _BLOCK
    for own, others in kind[family].items():
      names[f'{here}/{own}'] = tuple(f'{there}.{name}' for name in others)
    if '/' not in here:
      names[here] = (f'{there}.{_RESAMPLING[family][here.split("_")[0]]}',)
  return NameMap(names, cosine_first=True, heads_first=family == 'adm')


def _place(module: str) -> tuple[int, int]:
  """Level and number of a stage on the way down, (0, 0) of anything else."""
  found = re.match(r'down_(\d+)_(\d+)/', module)
  return (int(found[1]), int(found[2])) if found else (0, 0)


def _diffusers(
  levels: int, blocks: int, modules: Collection[str]
) -> Iterator[tuple[str, str]]:
  """Blocks, attentions and resamplings are counted apart in each level."""
  del modules
  for level in range(levels):
    for way, place, count in (
      ('down', level, blocks),
      ('up', levels - 1 - level, blocks + 1),
    ):
      there = f'{way}_blocks.{place}'
      yield f'{way}_{level}', f'{there}.{way}samplers.0'
      for i in range(count):
        yield f'{way}_{level}_{i}/block', f'{there}.resnets.{i}'
        yield f'{way}_{level}_{i}/spatial', f'{there}.attentions.{i}'
  yield 'mid_0/block', 'mid_block.resnets.0'
  yield 'mid_0/spatial', 'mid_block.attentions.0'
  yield 'mid_1/block', 'mid_block.resnets.1'


def _adm(
  levels: int, blocks: int, modules: Collection[str]
) -> Iterator[tuple[str, str]]:
  """Stages are counted through all levels; a doubling is in the last one."""
  a_level = blocks + 1
  for level in range(levels):
    first = level * a_level
    for i in range(blocks):
      yield f'down_{level}_{i}/block', f'input_blocks.{first + i + 1}.0'
      yield f'down_{level}_{i}/spatial', f'input_blocks.{first + i + 1}.1'
    yield f'down_{level}', f'input_blocks.{first + a_level}.0'
    first = (levels - 1 - level) * a_level
    for i in range(a_level):
      yield f'up_{level}_{i}/block', f'output_blocks.{first + i}.0'
      yield f'up_{level}_{i}/spatial', f'output_blocks.{first + i}.1'
    attends = f'up_{level}_{blocks}/spatial/qkv' in modules
    yield f'up_{level}', f'output_blocks.{first + blocks}.{1 + attends}'
  yield 'mid_0/block', 'middle_block.0'
  yield 'mid_0/spatial', 'middle_block.1'
  yield 'mid_1/block', 'middle_block.2'
