"""Statistics and pixels beside other implementations (slow, needs them).

  pip install '.[parity]' && pytest -m slow -n 0 -s tests/test_metrics_parity.py

prints the table of docs/evaluation.md.
"""

import warnings

import numpy as np
import pytest

from vdm_jax.metrics import frechet, inception_score, kernel, resize
from vdm_jax.metrics.features import _pil_bicubic
from vdm_jax.metrics.moments import Moments

pytestmark = pytest.mark.slow
torch = pytest.importorskip('torch')


@pytest.fixture(scope='module', autouse=True)
def _torchvision():
  from tests import reference_networks

  return reference_networks


def features(count, dim, seed=0):
  rng = np.random.default_rng(seed)
  mixing = rng.standard_normal((dim, dim)) / dim**0.5
  drawn = rng.standard_normal((count, dim)) @ mixing + seed
  return drawn.astype(np.float32)


def report(what, ours, theirs, limit, scale=None):
  scale = np.abs(theirs).max() if scale is None else scale
  gap = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max() / scale)
  print(f'| {what} | {gap:.1e} |')
  assert gap < limit


@pytest.mark.parametrize(('count', 'dim'), [(2048, 400), (300, 400)])
def test_frechet_distance(count, dim):
  a, b = features(count, dim), features(count, dim, 1)
  ours = frechet.distance(Moments.of(a), Moments.of(b))
  statistics = [
    (x.astype(np.float64).mean(0), np.cov(x.astype(np.float64).T))
    for x in (a, b)
  ]
  size = f'N = {count}, D = {dim}'
  fidelity = pytest.importorskip('torch_fidelity.metric_fid')
  theirs = fidelity.fid_statistics_to_metric(
    *({'mu': m, 'sigma': c} for m, c in statistics), verbose=False
  )['frechet_inception_distance']
  report(f'Fréchet distance, {size}, torch-fidelity', ours, theirs, 1e-5)
  classic = pytest.importorskip('pytorch_fid.fid_score')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    theirs = classic.calculate_frechet_distance(
      statistics[0][0], statistics[0][1], *statistics[1]
    )
  report(f'Fréchet distance, {size}, pytorch-fid', ours, theirs, 1e-5)
  video = pytest.importorskip('cdfvd.third_party.i3d.utils')
  theirs = video.frechet_distance(*(torch.tensor(x).double() for x in (a, b)))
  report(f'Fréchet distance, {size}, cd-fvd', ours, float(theirs), 1e-5)


def test_kernel_distance():
  a, b = features(500, 400), features(500, 400, 1)
  module = pytest.importorskip('torch_fidelity.metric_kid')
  theirs = module.kid_features_to_metric(
    torch.tensor(a).double(),
    torch.tensor(b).double(),
    kid_subsets=1,
    kid_subset_size=500,
    verbose=False,
  )['kernel_inception_distance_mean']
  report('kernel distance, torch-fidelity', kernel.distance(a, b), theirs, 1e-9)


@pytest.mark.parametrize('splits', [1, 10])
def test_inception_score(splits):
  logits = 3 * features(2048, 101)
  module = pytest.importorskip('torch_fidelity.metric_isc')
  theirs = module.isc_features_to_metric(
    torch.tensor(logits).double(), splits=splits, shuffle=False
  )['inception_score_mean']
  ours = inception_score.score(logits, splits)
  what = f'inception score, {splits} split(s), torch-fidelity'
  report(what, ours, theirs, 1e-9)


@pytest.mark.parametrize(
  ('size', 'target'),
  [((64, 64), 224), ((128, 128), 224), ((256, 256), 224), ((240, 320), 299)],
)
def test_resizing(size, target):
  image = np.random.default_rng(0).integers(0, 256, (2, *size, 3))
  image = image.astype(np.float32)
  first = torch.tensor(image.transpose(0, 3, 1, 2).copy())
  shape = f'{size[0]} x {size[1]} to {target}'
  module = pytest.importorskip('torch_fidelity.interpolate_compat_tensorflow')
  theirs = module.interpolate_bilinear_2d_like_tensorflow1x(
    first, size=(target, target), align_corners=False
  )
  ours = np.asarray(resize.bilinear(image, target, target, 'tf1_legacy'))
  theirs = theirs.numpy().transpose(0, 2, 3, 1)
  report(f'TensorFlow 1 resize, {shape}, torch-fidelity', ours, theirs, 1e-5)
  for grid, corners in (('half_pixel', False), ('corners', True)):
    theirs = torch.nn.functional.interpolate(
      first, (target, target), mode='bilinear', align_corners=corners
    )
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    ours = np.asarray(resize.bilinear(image, target, target, grid))
    # A position near 320 in float32 is known to 3e-5 of a pixel.
    report(f'{grid} resize, {shape}, PyTorch', ours, theirs, 5e-5)


@pytest.mark.parametrize('size', [(64, 64), (240, 321), (500, 333)])
def test_pixels_that_clip_sees(size):
  from PIL import Image

  transforms = pytest.importorskip('torchvision.transforms')
  frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  chain = transforms.Compose(
    [
      transforms.Resize(
        224, interpolation=transforms.InterpolationMode.BICUBIC
      ),
      transforms.CenterCrop(224),
    ]
  )
  theirs = np.asarray(chain(Image.fromarray(frame)))
  ours = _pil_bicubic(frame[None, None], 224)[0, 0]
  report(f'CLIP pixels, {size[0]} x {size[1]}, torchvision', ours, theirs, 1e-9)
