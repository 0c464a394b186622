"""The exact evaluation of a moving_shapes model, beside its ceiling.

Held-out real clips and samples are judged by the same rules, which need no
network and no weights: `vdm_jax.data.moving_shapes_score`.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vdm_jax.data.moving_shapes_score import MIN_FRAMES, score
from vdm_jax.data.pixels import to_float
from vdm_jax.data.registry import build_source

_OF_PICTURES = ('objects', 'constancy', 'shape', 'colour')


def evaluate(
  videos: np.ndarray, data: dict[str, Any], label: np.ndarray | None
) -> dict[str, dict[str, float]]:
  """Judges samples and as many held-out clips.

  Args:
    videos: samples, [N, F, H, W, 3] in [-1, 1].
    data: the section `config.data` that the model was trained on.
    label: classes that the samples were asked for, [N].

  Returns:
    Shares of clips that pass each check, for 'held-out' and 'samples'.  Videos
    of too few frames to show a motion are judged as pictures, frame by frame.
  """
  held_out = build_source({**data, 'split': 'validation'})
  clips = [held_out.clip(i) for i in range(len(videos))]
  real = to_float(np.stack([clip['video'] for clip in clips]))
  rules = {k: data[k] for k in ('frameskip', 'radius') if k in data}
  real_label = None if label is None else np.stack([c['label'] for c in clips])

  def judged(videos, label):
    frames = videos.shape[1]
    if frames >= MIN_FRAMES:
      return score(videos, **rules).summary(label, held_out.classes)
    stills = videos.reshape(-1, 1, *videos.shape[2:]).repeat(MIN_FRAMES, 1)
    label = None if label is None else label.repeat(frames)
    shares = score(stills, **rules).summary(label, held_out.classes)
    return {name: shares[name] for name in _OF_PICTURES if name in shares}

  return {
    'held-out': judged(real, real_label),
    'samples': judged(videos, label),
  }


def describe(data: dict[str, Any], label: np.ndarray) -> list[str]:
  """Returns what classes [N] show, e.g. 'red circle slides'."""
  source = build_source(data)
  names = (source.class_names(int(index)) for index in label)
  return [f'{colour} {shape} {action}s' for shape, colour, action in names]


def labels_of(data: dict[str, Any], captions: Sequence[str]) -> np.ndarray:
  """Returns the classes that captions of the data name, [N]."""
  known = build_source(data).texts()
  return np.array([known[caption] for caption in captions])


def table(results: dict[str, dict[str, float]]) -> str:
  """Returns the shares as a table for people."""
  names = list(next(iter(results.values())))
  lines = [' ' * 10 + ''.join(f'{name:>12}' for name in names)]
  lines += [
    f'{which:10}' + ''.join(f'{shares[name]:12.1%}' for name in names)
    for which, shares in results.items()
  ]
  return '\n'.join(lines)


def write(path: pathlib.Path, results: dict[str, Any]) -> None:
  """Writes results as JSON, whole or not at all."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(results, indent=2) + '\n', encoding='utf-8')
  os.replace(temporary, path)
