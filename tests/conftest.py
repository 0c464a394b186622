"""Strict mode: shapes checked at every call, no silent broadcasting.

The flags must be set before jax is imported.  Eight CPU devices stand for the
chips of a pod; machine code is not optimized, because tests compile much and
compute little.
"""

import os

os.environ['XLA_FLAGS'] = ' '.join(
  [
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    os.environ.get('XLA_FLAGS', ''),
  ]
)
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook(
  ['vdm_jax.diffusion', 'vdm_jax.networks', 'vdm_jax.samplers'],
  'beartype.beartype',
)


@pytest.fixture(autouse=True)
def _strict():
  with jax.numpy_rank_promotion('raise'):
    yield
