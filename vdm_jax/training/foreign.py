"""Starting a U-Net from weights of other libraries, by a map of names.

A map says what each module is called there.  Those of diffusers and of ADM are
known, see `foreign_names`; any other is a JSON file beside the weights,
MODEL.names.json for MODEL.safetensors:

    {"modules": {"in": "conv_in", "mid_0/spatial/qkv": ["q", "k", "v"], ...},
     "cosine_first": false, "heads_first": false}

Several names are joined one after another.  Layouts are PyTorch's: kernels
[out, in, height, width], and [out, in] or [out, in, 1] where that is 1 x 1.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from vdm_jax.metrics import weights as files
from vdm_jax.metrics.layers import kernel
from vdm_jax.networks.attention import heads_of
from vdm_jax.networks.unet import UNet
from vdm_jax.training.foreign_names import NameMap, family_of, name_map

_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}


def start(
  path: str | Path, params: Any, system: Any, part: str
) -> dict[str, Any]:
  """Returns what a file has for a part of a system, see `read`.

  Args:
    path: the file.
    params: parameters of the whole system, or their shapes.
    system: its U-Nets are its attributes, by the names of their parts.
    part: of its parameters; 'all' is the whole of a system of one network.

  Raises:
    ValueError: that is no U-Net; else see `read`.
  """
  network = getattr(system, 'network' if part == 'all' else part, None)
  if not isinstance(network, UNet):
    raise ValueError(
      f'config.init.{part}={path} is a file of weights, which only a U-Net can '
      'start from: give the part that is one, or a workdir.'
    )
  return read(path, params if part == 'all' else params[part], network)


def read(path: str | Path, like: Any, network: UNet) -> dict[str, Any]:
  """Returns the parameters that a file has for a network.

  Args:
    path: a file that `metrics.weights.read` reads.
    like: parameters of the network, or their shapes.
    network: what they are of.

  Returns:
    nested dictionaries, with what is in both; arrays of the file that have no
    place here keep their names there, so that `transfer` can report them.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it cannot be read, its names are unknown, or the network is not
      told noise levels as such networks are.
  """
  path = Path(path)
  arrays = {name: np.asarray(a) for name, a in files.read(path).items()}
  if network.noise_level == 'logsnr':
    raise ValueError(
      f'{path} is of another library, where a network is told the step of a '
      "discrete schedule: set noise_level='linear' or 'cosine', whichever it "
      'was trained with, in its section of config.network.'
    )
  own: dict[str, Any] = dict(traverse_util.flatten_dict(like, sep='/'))
  names = _names(path, arrays, {key.rpartition('/')[0] for key in own})
  taken, used = {}, set()
  for key, leaf in own.items():
    module, _, kind = key.rpartition('/')
    there = names.modules.get(module, ())
    there = (there,) if isinstance(there, str) else there
    wanted = [f'{name}.{_LEAVES.get(kind, kind)}' for name in there]
    if wanted and all(name in arrays for name in wanted):
      value = np.concatenate([arrays[name] for name in wanted]).astype('f4')
      if not np.isfinite(value).all():
        raise ValueError(
          f'{path} has values in {wanted[0]} that are not finite.'
        )
      taken[key] = _arranged(value, key, leaf.shape, names, network.head_dim)
      used.update(wanted)
  rest = {name: arrays[name] for name in arrays.keys() - used}
  return traverse_util.unflatten_dict(taken, sep='/') | rest


def _arranged(
  value: np.ndarray,
  key: str,
  shape: tuple[int, ...],
  names: NameMap,
  head_dim: int,
) -> np.ndarray:
  """A parameter in the layout of this library."""
  if names.heads_first and '/qkv/' in key:
    heads = heads_of(len(value) // 3, head_dim)
    apart = value.reshape(heads, 3, -1, *value.shape[1:])
    value = apart.swapaxes(0, 1).reshape(value.shape)
  if key.startswith('out/'):  # some predict variances too, after the means
    value = value[: shape[-1]]
  if not key.endswith('/kernel'):
    return value
  if len(shape) == 4:
    area = value.shape[2:] if value.ndim == 4 else (1, 1)
    return kernel(value.reshape(*value.shape[:2], *area))
  value = value.reshape(len(value), -1).T
  if key == 'embedding/noise_level/kernel' and names.cosine_first:
    value = np.roll(value, len(value) // 2, 0)
  return value


def _names(
  path: Path, arrays: Mapping[str, Any], modules: Collection[str]
) -> NameMap:
  """The map beside a file, or the one that its names are of."""
  beside = path.with_suffix('.names.json')
  if beside.exists():
    try:
      names = NameMap(**json.loads(beside.read_text(encoding='utf-8')))
      unknown = sorted(names.modules.keys() - modules)
    except (ValueError, TypeError, AttributeError) as error:
      raise ValueError(f'{beside} is no map of names: {error}') from error
    if unknown:
      raise ValueError(
        f'{beside} names {", ".join(unknown[:5])}, which the network lacks; it '
        f'has e.g. {", ".join(sorted(modules)[:5])}.'
      )
    return names
  if family := family_of(arrays):
    return name_map(family, modules)
  raise ValueError(
    f'{path} has names of neither diffusers nor ADM, e.g. '
    f'{next(iter(arrays), "none")}: put a map of names beside it, '
    f'{beside.name}.'
  )
