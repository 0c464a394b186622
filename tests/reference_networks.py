"""Feature networks as others wrote them, in PyTorch.

Imported only where PyTorch is: by the slow tests, and as a program, which
writes what the default tests compare with:

  python tests/reference_networks.py
"""

import json
import pathlib

import numpy as np
import torch

from tests.random_weights import fill, sports_mean

GOLDEN = pathlib.Path(__file__).parent / 'golden'


def _patch_torchvision():
  """The torchvision of PyPI fails beside a torch for CPUs without this."""
  library = torch.library.Library('torchvision', 'DEF')
  for name in ('nms', 'qnms'):
    library.define(f'{name}(Tensor a, Tensor b, float c) -> Tensor')
  return library


_LIBRARY = _patch_torchvision()


def _channels_first(array):
  return torch.tensor(np.moveaxis(array, -1, 1).copy())


def i3d(eps=1e-3):
  """(network, function of a video) of cd-fvd."""
  from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d

  network = InceptionI3d(400, in_channels=3).eval()
  for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm3d):
      module.eps = eps

  def run(video):
    return {'logits': network(_channels_first(video)).reshape(len(video), 400)}

  return network, run


class _C3D(torch.nn.Module):
  """C3D by hand: no package has it with the pools of Chainer."""

  def __init__(self):
    super().__init__()
    sizes = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    for i, name in enumerate(('1a', '2a', '3a', '3b', '4a', '4b', '5a', '5b')):
      conv = torch.nn.Conv3d(sizes[i], sizes[i + 1], 3, padding=1)
      setattr(self, f'conv{name}', conv)
    self.fc6 = torch.nn.Linear(8192, 4096)
    self.fc7 = torch.nn.Linear(4096, 4096)
    self.fc8 = torch.nn.Linear(4096, 101)

  def forward(self, x):
    relu, pool = torch.relu, torch.nn.functional.max_pool3d
    x = pool(relu(self.conv1a(x)), (1, 2, 2))
    x = pool(relu(self.conv2a(x)), 2)
    x = pool(relu(self.conv3b(relu(self.conv3a(x)))), 2)
    x = pool(relu(self.conv4b(relu(self.conv4a(x)))), 2)
    x = pool(relu(self.conv5b(relu(self.conv5a(x)))), 2, ceil_mode=True)
    x = relu(self.fc7(relu(self.fc6(x.flatten(1)))))
    return {'features': x, 'logits': self.fc8(x)}


def c3d():
  """(network, function of a video in [-1, 1])."""
  network = _C3D().eval()
  mean = torch.tensor(sports_mean()[:, :, :, 8:120, 8:120])

  def run(video):
    return network(_channels_first((video[..., ::-1] + 1) * 127.5) - mean)

  return network, run


def inception_v3():
  """(network, function of images in [-1, 1]) of torch-fidelity."""
  from torch_fidelity import feature_extractor_inceptionv3 as module

  kind = module.FeatureExtractorInceptionV3
  load, kind.load_state_dict = kind.load_state_dict, lambda *_, **__: None
  empty = GOLDEN / 'empty.pth'
  torch.save({}, empty)
  try:
    network = kind('inception', ['2048', 'logits'], str(empty)).eval()
  finally:
    kind.load_state_dict = load
    empty.unlink()

  def run(image):  # it takes whole numbers and scales them itself
    pixels = _channels_first(np.rint((image + 1) * 127.5)).to(torch.uint8)
    return dict(zip(('features', 'logits'), network(pixels), strict=True))

  return network, run


def clip():
  """(network, function of images in [-1, 1]) of transformers."""
  from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

  config = CLIPVisionConfig(patch_size=32, projection_dim=512)
  network = CLIPVisionModelWithProjection(config).eval()
  mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
  spread = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)

  def run(image):
    pixels = ((_channels_first(image) + 1) / 2 - mean) / spread
    return {'features': network(pixels).image_embeds}

  return network, run


REFERENCES = {
  'i3d': (i3d, (1, 9, 224, 224, 3)),
  'c3d': (c3d, (1, 16, 112, 112, 3)),
  'inception_v3': (inception_v3, (2, 299, 299, 3)),
  'clip': (clip, (2, 224, 224, 3)),
}


SOURCES = {
  'i3d': 'cd-fvd',
  'c3d': 'PyTorch by hand',
  'inception_v3': 'torch-fidelity',
  'clip': 'transformers',
}


def example(shape):
  """Whole numbers of pixels, so that every network sees the same."""
  pixels = np.random.default_rng(1).integers(0, 256, shape)
  return (pixels / 127.5 - 1).astype(np.float32)


def shapes_of(network):
  """Names and shapes of the floating-point weights."""
  state = network.state_dict()
  return {
    name: list(value.shape)
    for name, value in state.items()
    if value.is_floating_point()
  }


def load(network, weights):
  """Puts weights by name into a network."""
  tensors = {name: torch.tensor(value) for name, value in weights.items()}
  network.load_state_dict(tensors, strict=False)


class Small(torch.nn.Module):
  """Tensors of every kind, as PyTorch stores them."""

  def __init__(self):
    super().__init__()
    numbers = torch.arange(24.0)
    self.inner = torch.nn.Linear(3, 2)
    with torch.no_grad():
      self.inner.weight.copy_(numbers[:6].reshape(2, 3))
      self.inner.bias.copy_(numbers[6:8])
    self.register_buffer('turned', numbers.reshape(4, 6).T)  # strides (1, 6)
    self.register_buffer('part', numbers[8:12])  # the same storage, offset 8
    self.register_buffer('halved', numbers[:4].half())
    self.register_buffer('count', torch.tensor(7))

  def forward(self, x):
    return self.inner(x)


def main():
  """Writes names, shapes and outputs of every reference."""
  small = Small().eval()
  torch.save(small.state_dict(), GOLDEN / 'small.pth')
  torch.jit.trace(small, torch.zeros(1, 3)).save(GOLDEN / 'small_script.pt')
  for name, (build, shape) in REFERENCES.items():
    network, run = build()
    shapes = shapes_of(network)
    load(network, fill(shapes))
    with torch.no_grad():
      outputs = {k: v.numpy() for k, v in run(example(shape)).items()}
    described = np.array(json.dumps(shapes))
    np.savez_compressed(GOLDEN / f'{name}.npz', shapes=described, **outputs)
    print(
      name, len(shapes), {k: (v.shape, v.std()) for k, v in outputs.items()}
    )


if __name__ == '__main__':
  main()
