"""VideoFusion, sections 4.6 and 4.7, by the exact measurement of moving_shapes.

  python benchmarks/content.py long WORKDIR [--overlap N] [--png FILE]
  python benchmarks/content.py control WORKDIR [--png FILE]

`long` extends videos by replacement, with the clip's own base noise kept and
with one drawn anew in every block, and says how much of the first block's
content is left after how many frames.  With an overlap of half a block or more
the base frame is known in every block, and says the content by itself.
`control` draws every content with every motion, for a model that
was trained so (configs/moving_shapes.py:actions), and says how far the noise
decides what is seen and how it moves.
"""

import argparse
import itertools

import jax
import numpy as np

import vdm_jax
from vdm_jax import samplers, video
from vdm_jax.data.moving_shapes_measure import measure


def seen(videos: np.ndarray):
  """What is measured in videos [N, F, H, W, 3] in [-1, 1]."""
  return measure(0.5 + 0.5 * np.clip(videos, -1.0, 1.0), 0.28)


def background(videos: np.ndarray) -> np.ndarray:
  """Median colour of the four corners of each frame, [N, F, 3]."""
  corners = videos[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
  return np.median(corners, 2)


def long(model: vdm_jax.Model, args: argparse.Namespace) -> None:
  window = model.video_shape[0]
  settings = {'sampler': samplers.DDIM(), 'num_steps': args.num_steps}
  key = jax.random.key(args.seed)
  first = model.sample(
    key, args.num, content=range(args.num), show_progress=True, **settings
  )
  ends = [e for e in (16, 64, 128, 256, 512) if e <= args.frames]
  print(f'{args.num} videos of {window} frames, extended to {args.frames}')
  print(f'{"base noise":12}' + ''.join(f'{f"frame {e}":>20}' for e in ends))
  start = seen(first)
  colour = np.array([np.bincount(row).argmax() for row in start.colour])
  place = background(first).mean(1)
  rows = []
  for kind, noise in (('fixed', 'shared'), ('fresh', 'fresh')):
    whole = model.extend(
      key,
      first,
      args.frames,
      overlap=args.overlap,
      method='replacement',
      block_noise=noise,
      **settings,
    )
    line = f'{kind:12}'
    for end in ends:
      part = whole[:, end - window : end]
      found = seen(part)
      same = found.whole & (found.colour == colour[:, None])
      drift = np.abs(background(part) - place[:, None]).mean()
      line += f'{same.mean():12.0%} {drift:7.3f}'
    print(line)
    places = [e - 1 for e in ends]
    rows.append(np.concatenate([whole[:2, :1], whole[:2, places]], 1))
  print('per cell: frames of one object of the first colour; change of ground')
  if args.png:
    video.save(args.png, np.concatenate(rows))


def control(model: vdm_jax.Model, args: argparse.Namespace) -> None:
  side = args.num
  content, motion = np.array(list(itertools.product(range(side), repeat=2))).T
  videos = model.sample(
    jax.random.key(args.seed),
    side * side,
    content=content,
    motion=motion,
    num_steps=args.num_steps,
    sampler=samplers.DDIM(),
    show_progress=True,
  )
  found = seen(videos)
  colour = np.array([np.bincount(row).argmax() for row in found.colour])
  path = found.centre - found.centre[:, :1]
  path = path.reshape(len(path), -1)
  path /= np.maximum(np.linalg.norm(path, axis=1, keepdims=True), 1e-6)
  ground = background(videos).mean(1)
  rows = []
  for i, j in itertools.combinations(range(len(videos)), 2):
    kind = int(content[i] == content[j]), int(motion[i] == motion[j])
    apart = np.abs(ground[i] - ground[j]).mean()
    rows.append((*kind, colour[i] == colour[j], apart, path[i] @ path[j]))
  table = np.array(rows, float)
  print(f'{side} contents, each with {side} motions; pairs of videos')
  print(f'{"":28}{"same colour":>14}{"ground apart":>14}{"paths agree":>14}')
  for name, kind in (
    ('same content, other motion', (1, 0)),
    ('other content, same motion', (0, 1)),
    ('both others', (0, 0)),
  ):
    chosen = table[(table[:, :2] == kind).all(1)].mean(0)
    print(f'{name:28}{chosen[2]:14.0%}{chosen[3]:14.3f}{chosen[4]:14.2f}')
  print(f'frames with one object: {found.whole.mean():.0%}')
  if args.png:
    video.save(args.png, videos[(content < 3) & (motion < 3)])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('what', choices=['long', 'control'])
  parser.add_argument('workdir')
  parser.add_argument('--num', type=int, default=8)
  parser.add_argument('--frames', type=int, default=512)
  parser.add_argument('--overlap', type=int, help='default: half a block')
  parser.add_argument('--num_steps', type=int, default=16)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--png')
  args = parser.parse_args()
  model = vdm_jax.load(args.workdir)
  {'long': long, 'control': control}[args.what](model, args)


if __name__ == '__main__':
  main()
