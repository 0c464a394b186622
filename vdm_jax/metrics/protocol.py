"""What a number was measured by: a `Protocol` names everything that moves it.

The same samples give another FVD against another split, with other clips of
the same videos, at another frame rate or size, resized by another filter, or
counted by another number.  The papers' protocols are here by name; whoever
measures by one of them is told where the data or the weights at hand differ
from it, and a number that differs is marked as not comparable.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Metric:
  """One way from features to a number.

  Of frames, 'mean' averages activations over a video, as VDM says of FID-avg
  and IS-avg; 'all' takes every frame as an image of its own.

  Attributes:
    extractor: name in `features.EXTRACTORS`.
    output: 'logits' or 'features' of its network.
    statistic: 'frechet', 'kernel' or 'score'.
    frames: 'video' where the network sees whole videos, else 'mean', 'first' or
      'all'.
    ddof: of covariances; 1 divides by N - 1.
    splits: of the inception score.
  """

  extractor: str
  output: str
  statistic: str
  frames: str = 'video'
  ddof: int = 1
  splits: int = 1

  @property
  def needs_real(self) -> bool:
    """Whether it compares with real videos."""
    return self.statistic != 'score'

  def recipe(self) -> str:
    """What moves the number, in short."""
    detail = {
      'frechet': f'frechet, 1/(N-{self.ddof})' if self.ddof else 'frechet, 1/N',
      'kernel': 'unbiased cubic kernel, one block',
      'score': f'{self.splits} split' + 's' * (self.splits > 1),
    }[self.statistic]
    frames = '' if self.frames == 'video' else f', frames: {self.frames}'
    return f'{self.extractor} {self.output}{frames}, {detail}'


METRICS = {
  'fvd': Metric('i3d', 'logits', 'frechet'),
  'fvd_torch': Metric('i3d_torch', 'logits', 'frechet'),
  'kvd': Metric('i3d', 'logits', 'kernel'),
  'is_i3d': Metric('i3d', 'logits', 'score'),
  'is_c3d': Metric('c3d', 'logits', 'score'),
  'fid_c3d': Metric('c3d', 'features', 'frechet'),
  'fid_avg': Metric('inception', 'features', 'frechet', 'mean'),
  'fid_first': Metric('inception', 'features', 'frechet', 'first'),
  'fid_frames': Metric('inception', 'features', 'frechet', 'all'),
  'is_avg': Metric('inception', 'logits', 'score', 'mean'),
  'is_avg_10': Metric('inception', 'logits', 'score', 'mean', splits=10),
  'is_first': Metric('inception', 'logits', 'score', 'first'),
  'is_first_10': Metric('inception', 'logits', 'score', 'first', splits=10),
  'clip_fid': Metric('clip', 'features', 'frechet', 'all'),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """Which videos are compared, and by which metrics.

  Attributes:
    source: where it is from.
    metrics: names in METRICS.
    split: of the real videos.
    clips: how they are cut, one of each video: 'random', or 'first', those that
      it begins with.
    num_real: real clips; 0 is every one that `clips` gives.
    num_generated: videos drawn.
    num_frames, height, width: of both; 0 is what the model makes.
    frameskip: distance of the frames; 0 is the model's.
    data: the builder of TFDS or the layout of lists that has it, '' for any.
    known_frames: real frames that a generated video begins with.
    per_clip: videos drawn for each real clip, where frames are known.
    prompts: what a model of text is asked for, 'ucf101' for the sentences of
      `data.prompts`; '' is the captions of its own data in turn.
    replacement: whether real clips are drawn with replacement, and those that
      the model continues by another seed.
    seed: of the choice of real clips and of the samples.
  """

  source: str
  metrics: tuple[str, ...]
  split: str = 'train'
  clips: str = 'random'
  num_real: int = 2048
  num_generated: int = 2048
  num_frames: int = 16
  height: int = 64
  width: int = 64
  frameskip: float = 1
  data: str = ''
  known_frames: int = 0
  per_clip: int = 1
  prompts: str = ''
  replacement: bool = False
  seed: int = 0

  def differences(
    self, data: Mapping[str, Any], video_shape: tuple[int, ...]
  ) -> list[str]:
    """Where a model's data and videos are not those of the protocol.

    Args:
      data: the section `config.data`.
      video_shape: (F, H, W, C) of the model.
    """
    found = []
    builder = data.get('builder', '').split('/')[0]
    if self.data and self.data not in (builder, data.get('layout')):
      found.append(f'data is {builder or data["name"]}, not {self.data}')
    sizes = zip(('num_frames', 'height', 'width'), video_shape[:3], strict=True)
    found += [
      f'{name} is {value}, not {wanted}'
      for name, value in sizes
      if (wanted := getattr(self, name)) not in (0, value)
    ]
    skip = data.get('frameskip', 1)
    if self.frameskip not in (0, skip):
      found.append(f'frameskip is {skip:g}, not {self.frameskip:g}')
    return found


_TEXT = ('fvd', 'fid_avg', 'is_avg', 'is_avg_10', 'fid_first', 'is_first')
_KINETICS = Protocol(
  'VDM, section 4.2, Table 3',
  ('fvd', 'is_i3d'),
  split='test',
  num_real=50_000,
  num_generated=50_000,
  data='kinetics',
  known_frames=5,
)
PROTOCOLS = {
  'own': Protocol(
    'this library: whatever the model makes, against held-out clips',
    ('fvd', 'kvd', 'fid_avg', 'fid_first', 'clip_fid'),
    split='validation',
    num_frames=0,
    height=0,
    width=0,
    frameskip=0,
  ),
  'vdm_ucf101': Protocol(
    'VDM, section 4.1, Table 1',
    ('is_c3d', 'fid_c3d'),
    num_real=95_370,
    num_generated=10_000,
    data='ucf101',
  ),
  'vdm_bair': Protocol(
    'VDM, section 4.2, Table 2',
    ('fvd',),
    split='test',
    clips='first',
    num_real=256,
    num_generated=25_600,
    data='bair_robot_pushing_small',
    known_frames=1,
    per_clip=100,
  ),
  'vdm_kinetics600': _KINETICS,
  'vdm_kinetics600_replacement': dataclasses.replace(
    _KINETICS,
    source='VDM, section 4.2: sampled with replacement, as others did',
    replacement=True,
  ),
  'vdm_text_train': Protocol(
    'VDM, section 4.3, Tables 4 to 6, first numbers',
    _TEXT,
    num_real=4096,
    num_generated=4096,
  ),
  'vdm_text_validation': Protocol(
    'VDM, section 4.3, Tables 4 to 6, second numbers',
    _TEXT,
    split='validation',
    num_real=4096,
    num_generated=4096,
  ),
  'videofusion_ucf101': Protocol(
    'VideoFusion, section 4.2, and TATS: 2048 against 2048',
    ('fvd_torch', 'kvd', 'is_c3d'),
    data='ucf101',
  ),
  'pyoco_ucf101': Protocol(
    'PYoCo, section 5.2, Table 4',
    ('is_c3d', 'fvd_torch', 'fid_frames'),
    data='ucf101',
  ),
  'pyoco_ucf101_zero_shot': Protocol(
    'PYoCo, section 5.1, Table 2, FVD',
    ('fvd_torch',),
    data='ucf101',
    prompts='ucf101',
  ),
  'pyoco_ucf101_zero_shot_is': Protocol(
    'PYoCo, section 5.1, Table 2, IS: 20 videos of each prompt',
    ('is_c3d',),
    num_generated=20 * 101,
    data='ucf101',
    prompts='ucf101',
  ),
  'pyoco_msrvtt': Protocol(
    'PYoCo, section 5.1, Table 3: a video for every caption of the test set',
    ('clip_fid', 'fid_frames'),
    split='test',
    clips='first',
    num_real=2990,
    num_generated=59_794,
    num_frames=76,
    height=256,
    width=256,
    data='msrvtt',
  ),
}
