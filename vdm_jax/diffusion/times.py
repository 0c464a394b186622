"""Diffusion times for a training batch.

Eq. (2) of VDM takes an expectation over t ~ U[0, 1].  Spreading the times of
one batch evenly keeps each of them uniform and removes most of the variance of
their mean (Kingma et al. 2021, Variational Diffusion Models, Appendix I.1).
"""

import jax
import jax.numpy as jnp

from vdm_jax.shapes import PRNGKey, Times


def low_discrepancy(key: PRNGKey, batch_size: int) -> Times:
  """Returns t_i = (u + i / B) mod 1 with one u ~ U[0, 1], in random order.

  The order is shuffled because neighbours in a batch may be related (clips of
  one file, micro-batches): no position may always see the same noise level.
  """
  offset_key, order_key = jax.random.split(key)
  u = jax.random.uniform(offset_key)
  t = (u + jnp.arange(batch_size) / batch_size) % 1.0
  return jax.random.permutation(order_key, t)
