"""What training asks of a system; every paper's assembly offers it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jax import Array
from jax.typing import ArrayLike

Params = Any
"""A pytree of float32 arrays."""

Cond = Mapping[str, ArrayLike]
"""What videos are asked to show: nothing, or some of

'label' [B], classes; 'tokens' [B, L, D] and 'token_mask' [B, L], captions;
'clip_tokens' [B, L2, D2] and 'clip_token_mask' [B, L2], the same captions by a
second encoder; 'visual' [B, D], embeddings of the middle frames.  Of base and
residual noise also 'content' and 'motion' [B], numbers of videos that share a
part of it, and 'share' [B, F], shares of the base noise.  Of a part of a longer
video 'place' [], that of its first frame.  For models that refine 'low',
coarse videos.
"""

Batch = dict[str, Array]
"""'video' [B, F, H, W, C] in [-1, 1], and optionally the fields of `Cond`.

With independent images also 'images' [B, K, H, W, C] and the same fields for
them, 'image_label' [B, K] and so on.
"""


@runtime_checkable
class System(Protocol):
  """A trainable video model."""

  @property
  def num_classes(self) -> int:
    """Classes that it is conditioned on; 0 for none."""
    ...

  @property
  def text_dim(self) -> int:
    """Width of the tokens of its captions; 0 for none."""
    ...

  @property
  def clip_text_dim(self) -> int:
    """Width of their tokens by a second text encoder; 0 for none."""
    ...

  @property
  def visual_dim(self) -> int:
    """Width of its visual embeddings; 0 for none."""
    ...

  @property
  def times(self) -> tuple[float, float]:
    """The part of [0, 1] whose noise levels it is trained on."""
    ...

  @property
  def refines(self) -> tuple[int, int]:
    """How many times more frames, and larger ones, than 'low' has."""
    ...

  def levels(self, num_steps: int) -> Array:
    """Returns logsnr at the ends of sampling steps, [num_steps + 1]."""
    ...

  def logsnr_at(self, time: float) -> Array:
    """Returns the noise level of a time of training, []."""
    ...

  @property
  def completes(self) -> bool:
    """Whether `complete` makes conditions where none are given."""
    ...

  def complete(
    self, params: Params, key: Array, shape: tuple[int, ...], cond: Cond
  ) -> Cond:
    """Returns the conditions that videos of `shape` need, from those asked."""
    ...

  @property
  def continues(self) -> bool:
    """Whether parts of a longer video share noise unless told otherwise."""
    ...

  def noise_given(self, given: Mapping[str, Any]) -> Any:
    """Returns the noise prior of videos that share noise by their numbers."""
    ...

  def check(self, video_shape: tuple[int, ...]) -> None:
    """Raises ValueError if videos [F, H, W, C] cannot be modelled."""
    ...

  def init(self, key: Array, video_shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters for videos [F, H, W, C]."""
    ...

  def adapted(self, params: Params, fresh: Params) -> Params:
    """Returns trained parameters, to start from, in the shape of `fresh`."""
    ...

  def draw(self, key: Array, batch: Batch) -> Batch:
    """Adds to a batch every random choice of the diffusion process.

    Drawn once for the whole batch: how the batch is then cut, over devices
    and micro-batches, changes nothing.
    """
    ...

  def loss(self, params: Params, key: Array, drawn: Batch) -> Array:
    """Returns the loss of a drawn batch, a scalar; `key` is for dropout."""
    ...

  def sample(
    self,
    params: Params,
    key: Array,
    shape: tuple[int, ...],
    *,
    cond: Cond | None = None,
    **options: Any,
  ) -> Any:
    """Returns videos of `shape` [B, F, H, W, C]."""
    ...

  def sample_given(
    self,
    params: Params,
    key: Array,
    observed: ArrayLike,
    mask: ArrayLike,
    *,
    cond: Cond | None = None,
    **options: Any,
  ) -> Any:
    """Returns videos that equal `observed` where `mask` is 1."""
    ...
