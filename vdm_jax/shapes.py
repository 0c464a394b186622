"""Names of array types: the axes that every module of the library agrees on.

The letters are bound once per call when the tests run under jaxtyping's import
hook: two arguments of type `Video` must then have the same shape.

    b  videos of a batch     h, w  rows and columns of pixels
    f  frames of a video     c     channels, RGB in [-1, 1] at the borders
"""

from collections.abc import Callable

from jax import Array
from jaxtyping import Float, Int, Key

Video = Float[Array, 'b f h w c']
"""Videos, clean or noisy; an image is a video of one frame."""

LogSNR = Float[Array, ''] | Float[Array, 'b']
"""log(alpha^2 / sigma^2): one for the whole batch, or one for each video."""

Times = Float[Array, 'b']
"""Diffusion times in [0, 1]: 0 is data, 1 is noise."""

Labels = Int[Array, 'b']
"""Class labels in [0, num_classes)."""

PRNGKey = Key[Array, '']
"""A new-style random key, `jax.random.key`."""

DenoiseFn = Callable[[Array, Array], Array]
"""(z, logsnr) -> x_hat, the currency between networks and samplers."""
