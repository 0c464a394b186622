"""Videos longer than a model's: which frames each call knows and makes.

A model of N frames makes a longer video block by block, VDM section 3.1:

    extend        each block repeats the last frames and makes the next ones
    interpolate   given frames lie `factor` apart, each block fills the gaps
    mixed         a model of every `factor`-th frame extends, then another
                  one interpolates

A block is a list of frames of the long video, in the order in which the model
sees them, those that it knows among them.  A plan is a list of blocks: data,
to be printed before it is run.  A frame that one block made and a later one
does not know is made again.  Only one block is on the device at a time: memory
there does not grow with the length.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

Draw = Callable[[Array, 'Block', np.ndarray, np.ndarray], Array]
"""(key, block, observed [B, N, H, W, C], mask [1, N, 1, 1, 1]) -> videos."""


@dataclasses.dataclass(frozen=True)
class Block:
  """One call of the model.

  Attributes:
    frames: places of the model's frames in the long video.
    known: whether each is there already.
  """

  frames: tuple[int, ...]
  known: tuple[bool, ...]

  @property
  def stride(self) -> int:
    """Distance of the frames."""
    return self.frames[1] - self.frames[0] if len(self.frames) > 1 else 1

  def __str__(self) -> str:
    """Like `4. 5. 6  7`: a dot follows every known frame."""
    return ' '.join(
      f'{frame}{"." if known else " "}'
      for frame, known in zip(self.frames, self.known, strict=True)
    ).rstrip()


def extend(
  num_given: int, num_frames: int, window: int, overlap: int | None = None
) -> list[Block]:
  """Plans `num_frames` frames from the first `num_given`, left to right.

  Args:
    num_given: frames that exist; 0 starts from nothing.
    num_frames: frames wanted.
    window: frames of the model.
    overlap: known frames of a block, at least 1 and below `window`; None is
      half of `window`.

  Raises:
    ValueError: for numbers that do not fit.
  """
  if window < 2:
    raise ValueError(
      'a model of single frames cannot extend a video: train one of 2 frames '
      'or more.'
    )
  if overlap is None:
    overlap = window // 2
  if not 1 <= overlap < window:
    raise ValueError(
      f'overlap={overlap} is not allowed: give at least 1 and fewer than the '
      f"model's {window} frames."
    )
  if num_frames < num_given:
    raise ValueError(
      f'num_frames={num_frames} is less than the {num_given} frames given.'
    )
  blocks: list[Block] = []
  done = num_given
  while done < num_frames:
    # The last block knows more, rather than run over the end.
    start = max(0, min(done - overlap, num_frames - window))
    frames = tuple(range(start, start + window))
    blocks.append(Block(frames, tuple(frame < done for frame in frames)))
    done = start + window
  return blocks


def interpolate(num_given: int, factor: int, window: int) -> list[Block]:
  """Plans the `factor` - 1 frames between each two of `num_given`.

  Blocks share their end frames, so that each starts where the last one ends.

  Raises:
    ValueError: for fewer than 2 frames, a factor below 2, or gaps that do not
      fit into the model.
  """
  if num_given < 2 or factor < 2:
    raise ValueError(
      f'{num_given} frames at factor={factor} have nothing between them: give '
      'at least 2 frames and a factor of at least 2.'
    )
  if factor >= window:
    raise ValueError(
      f'factor={factor} leaves gaps that do not fit into the {window} frames '
      'of the model: interpolate in several passes of smaller factors.'
    )
  total = (num_given - 1) * factor + 1
  reach = (window - 1) // factor * factor  # from the first known to the last
  blocks: list[Block] = []
  start, done = 0, set(range(0, total, factor))
  while start < total - 1:
    first = max(0, min(start, total - window))
    frames = tuple(range(first, first + window))
    blocks.append(Block(frames, tuple(frame in done for frame in frames)))
    start += reach
    done.update(range(start + 1))  # later frames have not seen what follows
  return blocks


def mixed(
  num_given: int,
  num_frames: int,
  window: int,
  factor: int,
  overlap: int | None = None,
) -> list[Block]:
  """Plans every `factor`-th frame left to right, then those between.

  Errors that grow from block to block then have `factor` times fewer blocks to
  grow in.  Two models run it: one of frames `factor` apart, one of neighbours.

  Args:
    num_given: frames that exist, the first ones.
    num_frames: frames wanted.
    window: frames of both models.
    factor: distance of the frames that come first.
    overlap: as for `extend`.

  Raises:
    ValueError: for numbers that do not fit.
  """
  if num_frames <= num_given:
    return extend(num_given, num_frames, window, overlap)
  given = -(-num_given // factor)
  coarse = -(-(num_frames - 1) // factor) + 1
  plan = [
    Block(tuple(factor * frame for frame in block.frames), block.known)
    for block in extend(given, max(given, coarse), window, overlap)
  ]
  for block in interpolate(coarse, factor, window) if coarse > 1 else []:
    pairs = zip(block.frames, block.known, strict=True)
    known = tuple(there or frame < num_given for frame, there in pairs)
    if not all(known):
      plan.append(Block(block.frames, known))
  return plan


def whole_ratio(slow: float, fast: float) -> int:
  """Returns how many times `fast` goes into `slow`; 0 if not a whole number."""
  ratio = round(slow / fast)
  return ratio if math.isclose(slow, ratio * fast) else 0


def frames_of(videos: Any, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
  """Returns the frames of known videos, float32 [B, H, W, C] by their place.

  Args:
    videos: [B, n, H, W, C] in [-1, 1].
    shape: (H, W, C).

  Raises:
    ValueError: for another shape, no frames, or values out of range.
  """
  videos = np.asarray(videos)
  if videos.ndim != 5 or videos.shape[2:] != shape or not videos.size:
    raise ValueError(
      f'videos have shape {videos.shape}; this model takes [B, n, '
      f'{", ".join(map(str, shape))}], float32 in [-1, 1].'
    )
  # Resizing overshoots a little; integers up to 255 are another matter.
  if not np.abs(videos).max() <= 1.5:
    raise ValueError(
      f'videos range from {videos.min()} to {videos.max()}; this model takes '
      'float32 in [-1, 1]: divide uint8 by 127.5 and subtract 1.'
    )
  return dict(enumerate(np.moveaxis(videos.astype(np.float32), 1, 0)))


def run(
  key: Array,
  draw: Draw,
  known: dict[int, np.ndarray],
  shape: tuple[int, ...],
  blocks: Sequence[Block],
) -> np.ndarray:
  """Makes a long video.

  Args:
    key: random key.
    draw: makes one block.
    known: frames that exist, [B, H, W, C] by their place.
    shape: (B, H, W, C).
    blocks: the plan.

  Returns:
    float32 [B, F, H, W, C], all frames in order; known ones as given.

  Raises:
    ValueError: if a block knows a frame that is not there by then.
  """
  frames = dict(known)
  nothing = np.zeros(shape, np.float32)
  for index, block in enumerate(tqdm(blocks, unit='block', leave=False)):
    places = list(zip(block.frames, block.known, strict=True))
    if missing := [f for f, there in places if there and f not in frames]:
      raise ValueError(
        f'Block {index} ({block}) knows frames {missing}, which no block '
        'before it makes.'
      )
    observed = np.stack([frames[f] if k else nothing for f, k in places], 1)
    mask = np.reshape(block.known, (1, -1, 1, 1, 1))
    block_key = jax.random.fold_in(key, index)
    # A copy: a view would keep every block's device memory in use.
    made = np.array(draw(block_key, block, observed, mask))
    frames |= {f: made[:, i] for i, (f, k) in enumerate(places) if not k}
  return np.stack([frames[f] for f in sorted(frames)], 1)
