"""The paths from pixels to features that published numbers took.

`load` finds the weights of one in a folder of files that the user has put
there: nothing is downloaded, and none of the published licences lets this
library bring them along.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdm_jax.metrics import c3d, clip, i3d, inception_v3, weights
from vdm_jax.metrics.features import Extractor, WeightFile

_I3D = Extractor(
  i3d.I3D(),
  i3d.lookup,
  i3d.SIZE,
  'tf1_legacy',
  (
    WeightFile(
      'i3d_k400.flax', 'google-research/magvit, metrics/frechet_distance'
    ),
    WeightFile('i3d_pretrained_400.pt', 'songweige/TATS, tats/fvd'),
    WeightFile(
      'i3d-kinetics-400/variables/variables.index',
      'TensorFlow Hub, deepmind/i3d-kinetics-400/1, unpacked',
    ),
  ),
  frames=(i3d.MIN_FRAMES, None),
)

EXTRACTORS: Mapping[str, Extractor] = {
  # FVD as first published.
  'i3d': _I3D,
  # The PyTorch ports of TATS, VideoGPT and cd-fvd.
  'i3d_torch': dataclasses.replace(
    _I3D, network=i3d.I3D(eps=1e-5), resize='half_pixel'
  ),
  # TGANv2's evaluation of UCF101.
  'c3d': Extractor(
    c3d.C3D(),
    c3d.lookup,
    c3d.SIZE,
    'corners',
    (
      WeightFile(
        'conv3d_deepnetA_ucf.npz', 'rezoo/tgan2, release v1.0', 'mean2.npz'
      ),
      WeightFile(
        'c3d_ucf101.flax', 'google-research/magvit, metrics/inception_score'
      ),
    ),
    frames=(c3d.FRAMES, c3d.FRAMES),
  ),
  # FID as first published.
  'inception': Extractor(
    inception_v3.InceptionV3(),
    inception_v3.lookup,
    inception_v3.SIZE,
    'tf1_legacy',
    (
      WeightFile(
        'pt_inception-2015-12-05-6726825d.pth',
        'mseitzer/pytorch-fid, release fid_weights',
        sha256='6726825d',
      ),
      WeightFile(
        'weights-inception-2015-12-05-6726825d.pth',
        'toshas/torch-fidelity, release v0.2.0',
        sha256='6726825d',
      ),
    ),
    per_frame=True,
  ),
  # clean-fid's CLIP-FID.
  'clip': Extractor(
    clip.CLIP(),
    clip.lookup,
    clip.SIZE,
    'pil_bicubic',
    (
      WeightFile(
        'ViT-B-32.pt',
        'openai/CLIP',
        sha256='40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af',
      ),
      WeightFile(
        'clip-vit-base-patch32.safetensors',
        'model.safetensors of openai/clip-vit-base-patch32, renamed',
      ),
    ),
    per_frame=True,
  ),
}


@dataclasses.dataclass(frozen=True)
class Weights:
  """Parameters and what they came from.

  Attributes:
    params: nested dictionaries of arrays.
    file: its name, or 'random'.
    sha256: its hash, '' for random ones.
  """

  params: Any
  file: str
  sha256: str


def load(name: str, folder: str | Path) -> Weights:
  """Reads the weights of an extractor.

  Args:
    name: in EXTRACTORS.
    folder: that holds one of its files.

  Raises:
    FileNotFoundError: none of them is there.
    ValueError: a file is damaged, or not the published one.
  """
  extractor, folder = EXTRACTORS[name], Path(folder)
  for file in extractor.files:
    if (folder / file.name).is_file():
      break
  else:
    raise FileNotFoundError(missing(name, folder))
  if file.beside and not (folder / file.beside).is_file():
    raise FileNotFoundError(
      f'{folder / file.name} needs {file.beside} ({file.origin}) beside it.'
    )
  digest = weights.digest(folder / file.name)
  if not digest.startswith(file.sha256):
    raise ValueError(
      f'{folder / file.name} has the SHA-256 {digest}; that of {file.origin} '
      f'begins with {file.sha256}: it is damaged or another file.'
    )
  arrays = dict(weights.read(folder / file.name))
  if file.beside:
    arrays |= weights.read(folder / file.beside)
  try:
    params = weights.fill(extractor.shapes(), arrays, extractor.lookup)
  except ValueError as error:
    raise ValueError(f'{folder / file.name}: {error}') from None
  return Weights(params, file.name, digest)


def missing(name: str, folder: str | Path) -> str:
  """What to say where no weights of an extractor are there."""
  network = type(EXTRACTORS[name].network).__name__
  files = ', or '.join(
    f'{f.name}{f" with {f.beside}" * bool(f.beside)} ({f.origin})'
    for f in EXTRACTORS[name].files
  )
  return f'{folder} lacks the weights of {network}: put there {files}.'
