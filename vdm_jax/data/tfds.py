"""Videos of TensorFlow Datasets: UCF101, BAIR, and any builder of that layout.

    ucf101                      'video' [F, H, W, 3] and 'label'
    bair_robot_pushing_small    a sequence of steps with 'image_aux1'

The data must have been prepared (`tfds build`); nothing is downloaded here.
Records are read at random from ArrayRecord or TFRecord files alike, and of a
record only the frames of the clip are decoded.  Needs tensorflow_datasets and
tensorflow, the extra `tfds`; TensorFlow's own reader would have an order of its
own, which no other number of hosts or workers repeats.
"""

import functools
import hashlib
import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image

from vdm_jax.data import prompts
from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.pixels import Framing
from vdm_jax.data.recorded import Recorded
from vdm_jax.data.tfrecord import TFRecords
from vdm_jax.data.window import Window

FORMAT = 1  # counts every change that alters a clip
CAPTIONS = ('', 'name', 'templates', 'prompt')


class TFDS(Recorded):
  """Random access to clips of a prepared builder.

  Attributes:
    num_classes: of its labels; 0 without.
    captions: whether clips carry captions.
  """

  def __init__(
    self,
    builder: str,
    split: str = 'train',
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    *,
    frameskip: int = 1,
    fit: str = 'crop',
    short: str = 'skip',
    flip: bool = False,
    captions: str = '',
    frames: str = '',
    data_dir: str = '',
  ):
    """Opens the builder's files.

    Args:
      builder: e.g. 'ucf101' or 'ucf101/ucf101_1', as `tfds.builder` takes it.
      split: e.g. 'train', 'test', 'train+test' or 'train[:10%]'.
      num_frames: frames of a clip, F.
      height: rows of a frame, H.
      width: columns of a frame, W.
      frameskip: distance of the frames that are taken.
      fit: how a frame becomes [H, W]; see `Framing`.
      short: see `Window`.
      flip: mirror half of the clips left to right.
      captions: of classes: 'name' in words, 'templates' of PYoCo at random,
        'prompt' of UCF-101; '' for none.
      frames: which feature has the frames; '' finds the only one that can be.
      data_dir: where the data was prepared; '' is TFDS's own place.

    Raises:
      FileNotFoundError: there is no such builder, or it is not prepared.
      ValueError: for an argument that the builder or its features do not have,
        or if tensorflow_datasets is not installed.
    """
    if captions not in CAPTIONS:
      raise ValueError(f'captions is {captions!r}; it must be in {CAPTIONS}.')
    self.builder, self.split = builder, split
    self._caption_kind = captions
    self.captions = bool(captions)
    window = Window(num_frames, frameskip, short)
    super().__init__(window, Framing(fit, height, width), flip)
    self._data_dir = data_dir
    self._asked_frames = frames
    self._open()

  def _open(self) -> None:
    builder = _builder(self.builder, self._data_dir)
    features = builder.info.features
    steps = hasattr(features, 'feature')  # a sequence of steps, as in BAIR
    if steps:
      features = features.feature
    self._frames_key = _frames_of(features, steps, self._asked_frames)
    label = dict(features.items()).get('label')
    self._names = list(getattr(label, 'names', None) or ())
    self.num_classes = len(self._names)
    if self.captions and not self._names:
      raise ValueError(f'{self.builder} has no classes to make captions of.')
    self._examples = _examples(
      builder, self.split, {self._frames_key: _encoded()}
    )
    self._version = f'{builder.info.full_name}, {len(self._examples)} records'

  def __getstate__(self) -> dict:
    """What goes to worker processes: all but open files."""
    return {k: v for k, v in self.__dict__.items() if k != '_examples'}

  def __setstate__(self, state: dict):
    self.__dict__.update(state)
    self._open()

  def __len__(self) -> int:
    return len(self._examples)

  def fingerprint(self) -> str:
    """Short hash of the builder, its version and the clip rule."""
    framing = self.framing.fit, self.framing.height, self.framing.width
    window = self.window.num_frames, self.window.frameskip, self.window.short
    rule = FORMAT, self._version, self.split, self._frames_key, framing, window
    whole = json.dumps((rule, self.flip, self._caption_kind))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]

  def class_names(self, label: int) -> str:
    """The name of a class."""
    return self._names[label]

  def texts(self) -> list[str]:
    """Every caption that a clip may carry."""
    return sorted({c for name in self._names for c in self._captions_of(name)})

  def _captions_of(self, name: str) -> tuple[str, ...]:
    words = _in_words(name)
    return {
      'name': (words,),
      'templates': prompts.captions(words),
      'prompt': (prompts.UCF101.get(name, words),),
    }[self._caption_kind]

  def _example(
    self, index: int, rng: np.random.Generator, window: Window
  ) -> dict[str, Any]:
    where = f'{self.builder}, {self.split}, record {index}'
    try:
      example = self._examples[index]
      frames = example[self._frames_key]
      if reason := self.window.too_short(len(frames)):
        raise UnreadableClip(where, reason)
      chosen = [frames[i] for i in window.draw(len(frames), rng)]
      video = self._framed([_pixels(frame) for frame in chosen], rng)
    except (OSError, ValueError, struct.error) as error:
      if isinstance(error, UnreadableClip):
        raise
      raise UnreadableClip(where, f'corrupt: {error}') from None
    clip: dict[str, Any] = {'video': video}
    if self._names:
      clip['label'] = np.int32(example['label'])
    if self.captions:
      choices = self._captions_of(self._names[int(example['label'])])
      clip['caption'] = choices[int(rng.integers(len(choices)))]
    return clip

  def _framed(
    self, frames: list[Image.Image], rng: np.random.Generator
  ) -> np.ndarray:
    width, height = frames[0].size
    rows, columns = self.framing.scaled(height, width)
    if (rows, columns) != (height, width):
      size, bicubic = (columns, rows), Image.Resampling.BICUBIC
      frames = [frame.resize(size, bicubic) for frame in frames]
    video = np.stack([np.asarray(frame) for frame in frames])
    return self.framing.finish(video, rng, self.flip)


def _builder(name: str, data_dir: str) -> Any:
  """A builder of TFDS.

  Raises:
    ValueError: tensorflow_datasets is not installed.
    FileNotFoundError: there is no such builder.
  """
  try:
    import tensorflow_datasets as tfds  # pyright: ignore
  except ModuleNotFoundError:
    raise ValueError(
      'tensorflow_datasets is not installed: pip install '
      "'vdm_jax[tfds]' brings what reads its data."
    ) from None
  try:
    return tfds.builder(name, data_dir=data_dir or None)
  except (tfds.core.DatasetNotFoundError, ValueError) as error:
    first = str(error).strip().splitlines()[0]
    raise FileNotFoundError(f'TFDS has no builder {name!r}: {first}') from None


def _examples(builder: Any, split: str, decoders: Any) -> Any:
  """Examples by number.

  Raises:
    FileNotFoundError: the data is not prepared.
    ValueError: there is no such split.
  """
  try:
    try:
      return builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError:
      return TFRecords(builder, split, decoders)
  except (AssertionError, KeyError, ValueError) as error:
    if not builder.is_prepared():
      raise FileNotFoundError(
        f'{builder.info.full_name} is not prepared in {builder.data_path}: '
        f'run `tfds build {builder.info.full_name.rsplit("/", 1)[0]} '
        '--file_format=array_record` first, or set config.data.data_dir.'
      ) from None
    if 'truncated' in str(error):
      raise
    raise ValueError(
      f'{builder.info.full_name} has no split {split!r}; it has '
      f'{", ".join(builder.info.splits)}, and parts and sums of these.'
    ) from None


def _frames_of(features: Any, steps: bool, asked: str) -> str:
  """Which feature has the frames: a sequence of images, or one in each step."""
  import tensorflow_datasets as tfds  # pyright: ignore

  names = []
  for name, feature in features.items():
    image = feature if steps else getattr(feature, 'feature', None)
    if isinstance(image, tfds.features.Image):
      names.append(name)
  if asked in names:
    return asked
  if asked or len(names) != 1:
    raise ValueError(
      f'config.data.frames is {asked!r}; the features with frames are '
      f'{", ".join(sorted(names)) or "none"}: name one of them.'
    )
  return names[0]


@functools.cache
def _encoded() -> Any:
  """A decoder that leaves frames as they are stored."""
  import tensorflow_datasets as tfds  # pyright: ignore

  class Encoded(tfds.decode.SkipDecoding):
    def decode_batch_example_np(self, serialized: Any) -> Any:
      return serialized

  return Encoded()


def _pixels(frame: bytes | np.ndarray) -> Image.Image:
  """A frame stored as PNG or JPEG, or as pixels."""
  if isinstance(frame, np.ndarray):
    return Image.fromarray(frame)
  return Image.open(io.BytesIO(frame)).convert('RGB')


def _in_words(name: str) -> str:
  """'ApplyEyeMakeup' as 'apply eye makeup'."""
  parts = ''.join(f' {c}' if c.isupper() else c for c in name)
  return ' '.join(parts.replace('_', ' ').lower().split())
