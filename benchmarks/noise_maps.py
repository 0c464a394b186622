"""PYoCo's Figure 2 and Table 1: the noise that frames of a video are made of.

  python benchmarks/noise_maps.py WORKDIR [--png docs/noise_maps.png]

WORKDIR has a model of single frames.  Frames of real videos go back to their
noise by the probability flow; the tables have the cosine similarity of the
noise of two frames, of one video and of two, and by their distance in one, and
the same of the noise priors.  The picture has a t-SNE map of the noise of the
frames, a colour for each video, and of the priors'.
"""

import argparse
import itertools
import pathlib

import jax
import numpy as np

import vdm_jax
from vdm_jax import job as jobs
from vdm_jax.data.pixels import to_float
from vdm_jax.data.reference import RealClips
from vdm_jax.diffusion.noise import Independent, Mixed, Progressive
from vdm_jax.samplers.inversion import invert

PRIORS = {
  'independent': Independent(),
  'mixed, alpha 1': Mixed(1.0),
  'progressive, alpha 2': Progressive(2.0),
}


def noise_of(model: vdm_jax.Model, videos: np.ndarray, steps: int):
  """Noise of each frame, [N, F, D]."""
  system = model.system
  back = jax.jit(
    lambda params, x: invert(
      system.denoiser(params),
      x,
      schedule=system.sample_schedule or system.schedule,
      num_steps=steps,
    )
  )
  maps = [np.asarray(back(model.params, video[:, None])) for video in videos]
  return np.stack(maps).reshape(*videos.shape[:2], -1)


def similarities(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Cosines of frames, of one video [N, F, F], and of two [N (N - 1), F, F]."""
  unit = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
  cosines = np.einsum('nfd,mgd->nmfg', unit, unit)
  own = np.eye(len(maps), dtype=bool)
  return cosines[own], cosines[~own]


def plot(path: pathlib.Path, maps: dict[str, np.ndarray]) -> None:
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt
  from sklearn.manifold import TSNE

  figure, axes = plt.subplots(1, len(maps), figsize=(4 * len(maps), 4))
  for axis, (name, values) in zip(axes, maps.items(), strict=True):
    count, frames = values.shape[:2]
    flat = values.reshape(count * frames, -1)
    place = TSNE(init='pca', random_state=0).fit_transform(flat)
    place = place.reshape(count, frames, 2)
    for video, colour in zip(place, itertools.cycle(range(20)), strict=False):
      axis.plot(*video.T, '.', color=plt.get_cmap('tab20')(colour))
    axis.set(title=name, xticks=[], yticks=[])
  figure.tight_layout()
  figure.savefig(path, dpi=110)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--num', type=int, default=16, help='videos')
  parser.add_argument('--frames', type=int, default=16)
  parser.add_argument('--num_steps', type=int, default=64)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--png', type=pathlib.Path)
  args = parser.parse_args()
  data = jobs.read_config(args.workdir)['data'] | {'num_frames': args.frames}
  split = 'validation' if data['name'] == 'moving_shapes' else None
  clips = RealClips(data, num=args.num, split=split, seed=args.seed)
  videos = to_float(clips(0, args.num))
  model = vdm_jax.load(args.workdir)
  maps = {'real frames': noise_of(model, videos, args.num_steps)}
  shape = args.num, args.frames, *model.video_shape[1:]
  for name, prior in PRIORS.items():
    eps = prior.sample(jax.random.key(args.seed), shape)
    maps[name] = np.asarray(eps).reshape(args.num, args.frames, -1)
  print(f'{"cosine similarity":24}   one video      two videos   deviation')
  later = np.triu(np.ones((args.frames, args.frames), bool), 1)
  for name, values in maps.items():
    own, other = similarities(values)
    same = own[:, later]
    print(
      f'{name:24}{same.mean():7.3f} +-{same.std():6.3f}'
      f'{other.mean():8.3f} +-{other.std():6.3f}{values.std():9.3f}'
    )
  print('The paper has 0.206 +- 0.156 and 0.001 +- 0.009.')
  apart = [2**i for i in range(args.frames.bit_length()) if 2**i < args.frames]
  print(f'{"frames apart":24}' + ''.join(f'{d:8}' for d in apart))
  for name, values in maps.items():
    own, _ = similarities(values)
    means = [own.diagonal(d, 1, 2).mean() for d in apart]
    print(f'{name:24}' + ''.join(f'{mean:8.3f}' for mean in means))
  if args.png:
    plot(args.png, maps)


if __name__ == '__main__':
  main()
