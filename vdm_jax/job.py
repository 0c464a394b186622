"""A run as its config describes it: every part built and checked.

A workdir belongs to one config, kept there as config.json.  The same command
goes on where the run stopped; a command with another config is refused, but
for `identity.FREE`, the fields that change how long a run is and how it is
watched, not what is trained.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from vdm_jax.conditions import Conditions, Pictures, Texts
from vdm_jax.config import ConfigError, construct, nearest
from vdm_jax.data.joint import Joint
from vdm_jax.data.registry import build_source, video_shape
from vdm_jax.data.text import ClipTextSettings, TextSettings
from vdm_jax.data.visual import VisualSettings
from vdm_jax.systems.protocol import System
from vdm_jax.systems.registry import (
  build_corrector,
  build_sampler,
  build_system,
)
from vdm_jax.systems.shares import check_labels
from vdm_jax.training.identity import changed_fields, identity
from vdm_jax.training.loop import TrainSettings
from vdm_jax.training.optimizer import OPTIMIZERS, Adam
from vdm_jax.training.sampling import SampleSettings
from vdm_jax.training.sharding import MeshShape, check_batch
from vdm_jax.training.step_directory import StepDirectory

SECTIONS = (
  'data',
  'system',
  'network',
  'text',
  'clip_text',
  'visual',
  'optimizer',
  'train',
  'mesh',
  'sample',
  'init',
)


@dataclasses.dataclass(frozen=True)
class Job:
  """The parts of a run, all but the data, which may be far away.

  Attributes:
    config: the whole config, plain values.
    seed: of parameters, data order and noise.
    system: what is trained and sampled.
    video_shape: (F, H, W, C).
    text: where captions are encoded.
    clip_text: where they are by a second encoder.
    visual: where middle frames are.
    optimizer: settings of the optimizer.
    train: how long and how to train.
    sample: how videos are drawn.
    mesh: shape of the device mesh.
    init: workdirs whose models training starts from, by part of the
      parameters; the whole is 'all'.
  """

  config: dict[str, Any]
  seed: int
  system: System
  video_shape: tuple[int, int, int, int]
  text: TextSettings
  clip_text: ClipTextSettings
  visual: VisualSettings
  optimizer: Adam
  train: TrainSettings
  sample: SampleSettings
  mesh: MeshShape
  init: Mapping[str, str]

  def conditions(self, workdir: pathlib.Path) -> Conditions:
    """Returns what the model can be asked for; opens nothing yet."""
    system = self.system

    def given(kind, settings, dim):
      return kind(settings, dim, workdir) if dim else None

    return Conditions(
      system.num_classes,
      given(Texts, self.text, system.text_dim),
      given(Pictures, self.visual, system.visual_dim),
      given(Texts, self.clip_text, system.clip_text_dim),
    )

  def build_mesh(self) -> Mesh:
    """Returns the device mesh.

    Raises:
      ValueError: if it does not fit the devices or the batches.
    """
    mesh = self.mesh.build()
    check_batch(
      mesh, self.train.batch_size, 'config.train', self.train.accumulate
    )
    return mesh

  def source(self, workdir: pathlib.Path) -> Any:
    """Opens the data, with tokens and images where the job asks for them.

    Raises:
      ConfigError: if the data has other classes than the network.
      ValueError, OSError: if there is no usable data.
    """
    source = self.clips(workdir)
    if self.train.num_images:
      source = Joint(source, self.train.num_images)
    return source

  def clips(self, workdir: pathlib.Path) -> Any:
    """Opens the data, as `source` but without images beside the clips."""
    wanted = self.conditions(workdir)
    for texts in wanted.by_encoder:
      texts.store()  # says what is missing before files are examined
    return wanted.along(self._plain_clips())

  def _plain_clips(self) -> Any:
    source = build_source(self.config['data'])
    classes = getattr(source, 'num_classes', 0)
    if self.system.num_classes not in (0, classes):
      raise ConfigError(
        f'config.network.classes make {self.system.num_classes} classes, but '
        f'the data has {classes}: use these, or () for a model without.'
      )
    check_labels(getattr(self.system, 'attributes', ()), classes)
    return source

  def encode(self, workdir: pathlib.Path) -> list[str]:
    """Writes what encoders make of the data where the job reads it.

    That is the tokens of the captions and the embeddings of middle frames, as
    far as the networks take them and they are not made while training.

    Returns:
      a sentence for each store.

    Raises:
      ConfigError: if the networks take neither, or the data has no captions.
      ValueError, OSError: if encoder or data cannot be read.
    """
    captions = bool(self.config['data'].get('captions'))
    done = self.conditions(workdir).encode(self._plain_clips, captions)
    if not done:
      raise ConfigError(
        'there is nothing to encode: set config.network.text_dim to the width '
        'of the tokens and config.data.captions to True, or '
        'config.network.visual_dim to that of the visual embeddings and '
        'config.visual.encoder to a folder.'
      )
    return done


def build(config: Mapping[str, Any]) -> Job:
  """Returns the job of a config.

  Raises:
    ConfigError: for a section, field or value that is not allowed.
    ValueError: for values that do not fit each other.
  """
  for name in config:
    if name not in (*SECTIONS, 'seed'):
      raise ConfigError(
        f'config.{name} is not a field.{nearest(name, (*SECTIONS, "seed"))} '
        f'Allowed: seed, {", ".join(SECTIONS)}.'
      )
  for name in ('data', 'system', 'network', 'train'):
    if name not in config:
      raise ConfigError(f'config.{name} is missing.')
  sample = dict(config.get('sample', {}))
  if 'sampler' in sample:
    sample['sampler'] = build_sampler(sample['sampler'])
  if sample.get('corrector') is not None:
    sample['corrector'] = build_corrector(sample['corrector'])
  system = build_system(config['system'], config['network'])
  optimizer = construct(
    OPTIMIZERS,
    {'name': 'adam', **config.get('optimizer', {})},
    'config.optimizer',
  )
  frozen = dict.fromkeys(getattr(system, 'frozen', ()), 0.0)
  job = Job(
    config=json.loads(json.dumps(config)),
    seed=config.get('seed', 0),
    system=system,
    video_shape=video_shape(config['data']),
    text=construct(TextSettings, config.get('text', {}), 'config.text'),
    clip_text=construct(
      ClipTextSettings, config.get('clip_text', {}), 'config.clip_text'
    ),
    visual=construct(VisualSettings, config.get('visual', {}), 'config.visual'),
    optimizer=dataclasses.replace(
      optimizer, scales={**optimizer.scales, **frozen}
    ),
    train=construct(TrainSettings, config['train'], 'config.train'),
    sample=construct(SampleSettings, sample, 'config.sample'),
    mesh=construct(MeshShape, config.get('mesh', {}), 'config.mesh'),
    init={k: v for k, v in config.get('init', {}).items() if v},
  )
  job.system.check(job.video_shape)
  if 0 < job.optimizer.decay_steps < job.train.num_steps:
    raise ConfigError(
      f'config.optimizer.decay_steps is {job.optimizer.decay_steps}, where the '
      f'learning rate reaches zero, before the last of the '
      f'{job.train.num_steps} steps: set it to config.train.num_steps, or to 0 '
      'for no decay.'
    )
  conditional = system.num_classes or system.text_dim or system.visual_dim
  if job.sample.guidance_scale != 1.0 and not conditional:
    raise ConfigError(
      f'config.sample.guidance_scale is {job.sample.guidance_scale}, but the '
      'network has nothing to guide to: set config.network.classes, '
      '.text_dim or .visual_dim, or leave it at 1.'
    )
  for section, what in (
    ('text', 'text tokens'),
    ('clip_text', 'text tokens of a second encoder'),
    ('visual', 'visual embeddings'),
  ):
    if section in config and not getattr(system, f'{section}_dim'):
      raise ConfigError(
        f'config.{section} is set, but the network takes no {what}: set '
        f'config.network.{section}_dim to their width.'
      )
  return job


def open_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Makes the workdir this config's own.

  Raises:
    ConfigError: if it holds a run of another config.
    CheckpointError: if another run is using it.
    OSError: if it cannot be written.
  """
  path = workdir / 'config.json'
  if path.exists():
    stored = identity(read_config(workdir))
    if changed := changed_fields(stored, identity(config)):
      raise ConfigError(
        f'{workdir} holds a run of another config ({changed}): use its values, '
        'or another --workdir.'
      )
  workdir.mkdir(parents=True, exist_ok=True)
  if jax.process_index() != 0:  # one lock and one file for all hosts
    return
  steps = StepDirectory(workdir / 'checkpoints')
  if steps.path.exists():
    steps.lock().close()  # or says which run has it
  temporary = workdir / f'config.{os.getpid()}.tmp'
  temporary.write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
  os.replace(temporary, path)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the config that a workdir was made with.

  Raises:
    FileNotFoundError: if the folder is not a workdir.
  """
  path = workdir / 'config.json'
  if not path.exists():
    raise FileNotFoundError(
      f'{workdir} is not a workdir: it has no config.json. Train first, or '
      'give the --workdir of a run.'
    )
  return json.loads(path.read_text(encoding='utf-8'))
