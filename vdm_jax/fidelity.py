"""A trained model measured by a protocol: FVD, KVD, IS, FID and CLIP-FID.

Real clips and samples pass the feature networks, and their features are kept
in the workdir, so that a killed evaluation goes on where it was.  What comes
out is a report: every number with the protocol it was measured by, its error,
its floor, and whether it compares with published ones, and why not.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vdm_jax.conditions import in_turn
from vdm_jax.config import ConfigError, nearest
from vdm_jax.data.pixels import to_float, to_uint8
from vdm_jax.data.prompts import UCF101
from vdm_jax.data.reference import RealClips
from vdm_jax.drawing import check_draws
from vdm_jax.evaluation import write
from vdm_jax.metrics.extractors import EXTRACTORS, Weights, load, missing
from vdm_jax.metrics.features import Network, random_params
from vdm_jax.metrics.measure import Videos, measure
from vdm_jax.metrics.protocol import METRICS, PROTOCOLS, Protocol
from vdm_jax.metrics.store import Draw, FeatureStore
from vdm_jax.model import Model

RANDOM = 'random'
"""In place of a folder of weights: networks that know nothing, for a try."""


def build_protocol(
  name: str,
  num_real: int | None = None,
  num_generated: int | None = None,
  num_frames: int | None = None,
) -> Protocol:
  """Returns a protocol by its name, with other numbers if given.

  Raises:
    ConfigError: there is no such protocol, or a number is below 4.
  """
  if name not in PROTOCOLS:
    raise ConfigError(
      f'--protocol={name} is not one.{nearest(name, PROTOCOLS)} Allowed: '
      f'{", ".join(PROTOCOLS)}.'
    )
  numbers = {
    'num_real': num_real,
    'num_generated': num_generated,
    'num_frames': num_frames,
  }
  given = {k: number for k, number in numbers.items() if number is not None}
  for key, number in given.items():
    least = 1 if key == 'num_frames' else 4
    if number < least:
      raise ConfigError(f'{key} is {number}: give at least {least}.')
  return dataclasses.replace(PROTOCOLS[name], **given)


def load_weights(protocol: Protocol, folder: str) -> dict[str, Weights]:
  """Returns the weights of every network that a protocol needs.

  Args:
    protocol: what is to be measured.
    folder: that holds the files, or RANDOM.

  Raises:
    ConfigError: no folder is given.
    FileNotFoundError, ValueError: from `load`.
  """
  names = list(
    dict.fromkeys(METRICS[name].extractor for name in protocol.metrics)
  )
  if folder == RANDOM:
    return {
      name: Weights(random_params(EXTRACTORS[name]), RANDOM, '')
      for name in names
    }
  if not folder:
    raise ConfigError(
      f'{", ".join(protocol.metrics)} need pretrained networks: give the '
      f'folder of their weights as --weights=DIR. {missing(names[0], "DIR")} '
      f'--weights={RANDOM} tries everything without them, to no meaning.'
    )
  return {name: load(name, folder) for name in names}


def evaluate(
  model: Model,
  data: Mapping[str, Any],
  workdir: Path,
  *,
  protocol: str = 'own',
  weights: str = '',
  num_real: int | None = None,
  num_generated: int | None = None,
  num_frames: int | None = None,
) -> dict[str, Any]:
  """Measures a model by a protocol and writes the report as JSON.

  Args:
    model: what was trained.
    data: the section `config.data` of the real clips.
    workdir: features and the report are kept in its folder `evaluation`.
    protocol: its name.
    weights: folder of the weight files, or RANDOM.
    num_real: real clips, where not the protocol's.
    num_generated: videos, likewise.
    num_frames: of each, likewise; more than the model makes at once are made
      block by block, of fewer the first are taken.

  Returns:
    The report, plain values; 'path' is where it was written.

  Raises:
    ConfigError, ValueError, OSError: nothing is drawn before the weights and
      the real clips are there and the networks take the model's videos.
  """
  chosen = build_protocol(protocol, num_real, num_generated, num_frames)
  found = load_weights(chosen, weights)
  evaluation = _Evaluation(model, data, workdir, protocol, chosen, found)
  report = json.loads(json.dumps(evaluation.report()))
  suffix = '_random_weights' if weights == RANDOM else ''
  path = workdir / 'evaluation' / f'{protocol}{suffix}.json'
  if jax.process_index() == 0:
    write(path, report)
  return {**report, 'path': str(path)}


class _Evaluation:
  """One model, one protocol."""

  def __init__(
    self,
    model: Model,
    data: Mapping[str, Any],
    workdir: Path,
    name: str,
    protocol: Protocol,
    weights: Mapping[str, Weights],
  ):
    check_draws(model.system)
    num_frames = protocol.num_frames or model.video_shape[0]
    for extractor in weights:
      EXTRACTORS[extractor].check(num_frames)
    self._model, self._protocol, self._workdir = model, protocol, workdir
    self._shape = num_frames, *model.video_shape[1:]
    self._name, self._weights = name, weights
    self._real = RealClips(
      {**data, 'num_frames': num_frames},
      num=protocol.num_real,
      split=protocol.split,
      clips=protocol.clips,
      replacement=protocol.replacement,
      seed=protocol.seed,
    )
    self._generated = _Generated(model, protocol, self._real, num_frames)
    self._networks = {
      extractor: Network(EXTRACTORS[extractor], found.params)
      for extractor, found in weights.items()
    }
    self._of_data: dict[str, Any] = {
      'protocol': {'name': name, **dataclasses.asdict(protocol)},
      'data': dict(data),
      'weights': {
        extractor: {'file': found.file, 'sha256': found.sha256}
        for extractor, found in weights.items()
      },
    }
    settings = {k: repr(v) for k, v in vars(model.settings).items()}
    self._of_model = {
      'step': model.step,
      'model': model.fingerprint,
      'sample': settings,
    }

  def report(self) -> dict[str, Any]:
    """Gathers the features that are not there yet, and measures."""
    real, protocol = self._real, self._protocol
    reference = self._gather('real', real, real.total, self._of_data)
    other = None
    if real.has_more:
      draw = functools.partial(real, stream=1)
      other = self._gather('other real', draw, real.total, self._of_data)
    generated = self._gather(
      'generated',
      self._generated,
      protocol.num_generated,
      self._of_data | self._of_model,
      protocol.per_clip,
    )
    measured = {}
    for name in protocol.metrics:
      result = measure(METRICS[name], reference, generated, other)
      recipe = {'recipe': METRICS[name].recipe()}
      measured[name] = recipe | dataclasses.asdict(result)
    return {
      **self._of_data,
      **self._of_model,
      'real': real.total,
      'generated': protocol.num_generated,
      'frames': self._shape[0],
      'frames_at_once': self._model.video_shape[0],
      'skipped': real.skipped,
      'not_comparable': self._objections(),
      'metrics': measured,
    }

  def _gather(
    self, title: str, draw: Draw, total: int, about: Any, group: int = 1
  ) -> Videos:
    """Features of a set of videos, from disk where they are there."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    folder = f'{title.replace(" ", "_")}_{digest.hexdigest()[:12]}'
    place = self._workdir / 'evaluation' / folder
    size = self._model.settings.batch_size
    store = FeatureStore(place, about, total, size)
    host, hosts = jax.process_index(), jax.process_count()
    store.fill(draw, self._networks, title, host, hosts)
    if hosts > 1:
      multihost_utils.sync_global_devices(folder)
    return Videos(store, group)

  def _objections(self) -> list[str]:
    """Why the numbers do not compare with published ones."""
    protocol, data = self._protocol, self._of_data['data']
    found = protocol.differences(data, self._shape)
    published = PROTOCOLS[self._name]
    for field in ('num_real', 'num_generated'):
      ours, theirs = (getattr(p, field) for p in (protocol, published))
      if ours != theirs:
        found.append(f'{field} is {ours}, not {theirs}')
    if not self._real.has_split:
      found.append(f'the data has no split {protocol.split!r}: it is all of it')
    if any(weights.file == RANDOM for weights in self._weights.values()):
      found.append('the feature networks have random weights')
    if self._name == 'own':
      found.append('no paper measures so: compare models of this data only')
    return found


class _Generated:
  """Videos of a protocol, drawn by number: (first, count) -> uint8."""

  def __init__(
    self, model: Model, protocol: Protocol, real: RealClips, num_frames: int
  ):
    self._model, self._protocol, self._real = model, protocol, real
    self._num_frames = num_frames
    total = protocol.num_generated
    self._label = model.conditions.labels_in_turn(total)
    if protocol.prompts == 'ucf101':
      if model.conditions.texts is None:
        raise ConfigError(
          'this protocol asks for sentences, but the model takes no text: '
          'measure it by vdm_ucf101 or pyoco_ucf101.'
        )
      self._prompt = in_turn(total, list(UCF101.values()))
    else:
      self._prompt = model.conditions.captions_in_turn(total)

  def __call__(self, first: int, count: int) -> np.ndarray:
    protocol, model = self._protocol, self._model
    key = jax.random.fold_in(jax.random.key(protocol.seed), first)
    key, more_key = jax.random.split(key)
    asked: dict[str, Any] = {
      name: values[first : first + count]
      for name, values in (('label', self._label), ('prompt', self._prompt))
      if values is not None
    }
    if protocol.known_frames:
      known = self._begin(first, count)
    else:
      size = model.settings.batch_size
      known = model.sample(key, count, batch_size=size, **asked)
    if known.shape[1] >= self._num_frames:
      return to_uint8(known[:, : self._num_frames])
    return to_uint8(model.extend(more_key, known, self._num_frames, **asked))

  def _begin(self, first: int, count: int) -> np.ndarray:
    """What each video begins with: `per_clip` neighbours share a real clip."""
    protocol = self._protocol
    # With replacement, the truth is drawn with "another random seed".
    stream = int(protocol.replacement)
    indices = range(first, first + count)
    clips = [self._real(i // protocol.per_clip, 1, stream)[0] for i in indices]
    return to_float(np.stack(clips)[:, : protocol.known_frames])
