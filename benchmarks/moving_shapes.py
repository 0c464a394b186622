"""Clips per second and core that moving_shapes renders and scores.

    python -m benchmarks.moving_shapes

Times are CPU seconds of this process.
"""

import time

import numpy as np

from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.moving_shapes_score import score

SIZES = ((16, 32), (16, 64), (8, 32))
CLIPS = 1000
SCORED = 128


def main():
  print('frames x side   render: CPU s  clips/s   score: CPU s  clips/s')
  for frames, side in SIZES:
    source = MovingShapes(num_frames=frames, height=side, width=side)
    start = time.process_time()
    clips = [source.clip(i)['video'] for i in range(CLIPS)]
    render = time.process_time() - start
    videos = np.stack(clips[:SCORED]) / np.float32(127.5) - 1
    start = time.process_time()
    score(videos)
    judge = time.process_time() - start
    print(
      f'{frames:2d} x {side} x {side}   {render:13.2f} {CLIPS / render:8.0f}'
      f'   {judge:12.2f} {SCORED / judge:8.0f}'
    )


if __name__ == '__main__':
  main()
