"""Packed clips: what comes out is what went in, whatever happened meanwhile."""

import json
import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest

from vdm_jax.data.decode import UnreadableClip
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.pack import INDEX, pack
from vdm_jax.data.packed import Packed
from vdm_jax.data.pipeline import Pipeline

SPAWN = multiprocessing.get_context('spawn')


class Source:
  """Clips of 8 frames whose levels say index, draw and frame."""

  num_classes = 3

  def __init__(self, size=10, bad=(), delay=0.0):
    self.size, self.bad, self.delay = size, bad, delay

  def __len__(self):
    return self.size

  def fingerprint(self):
    return f'source of {self.size}'

  def class_names(self, label):
    return 'abc'[label]

  def clip(self, index, rng):
    time.sleep(self.delay)
    if index in self.bad:
      raise UnreadableClip(f'{index}.mp4', 'corrupt: on purpose')
    levels = 10 * index + np.arange(8)
    video = np.tile(levels[:, None, None, None], (1, 16, 24, 3))
    video[..., 1] = rng.integers(200)
    tokens = np.zeros((5, 2), np.float16)
    tokens[: index % 5 + 1] = index
    return {
      'video': video.astype(np.uint8),
      'label': np.int32(index % 3),
      'caption': f'number {index}',
      'tokens': tokens,
      'token_mask': np.arange(5) <= index % 5,
    }


def packed(path, **options):
  return Packed(
    str(path), **{'num_frames': 8, 'height': 16, 'width': 24, **options}
  )


def rng(seed=0):
  return np.random.default_rng(seed)


def test_raw_clips_come_back_to_the_bit(tmp_path):
  source = Source()
  index = pack(source, tmp_path, codec='raw', shard_size=4, clips_per_video=2)
  assert [shard['clips'] for shard in index['shards']] == [4] * 5
  reader = packed(tmp_path, captions=True)
  assert len(reader) == 20
  for place in range(20):
    expected = source.clip(place // 2, np.random.default_rng((0, place)))
    clip = reader.clip(place, rng())
    np.testing.assert_array_equal(clip['video'], expected['video'])
    for name in ('label', 'caption', 'tokens', 'token_mask'):
      np.testing.assert_array_equal(clip[name], expected[name])
  assert [reader.class_names(i) for i in range(reader.num_classes)] == [*'abc']
  assert reader.texts() == sorted(f'number {i}' for i in range(10))


@pytest.mark.parametrize(('codec', 'limit'), [('jpeg', 40), ('av1', 30)])
def test_compressed_clips_are_close(tmp_path, codec, limit):
  source = MovingShapes(num_frames=16, height=64, width=64)
  few = type(
    'Few', (), {
      '__len__': lambda self: 2,
      'fingerprint': lambda self: 'few',
      'clip': lambda self, index, rng: source.clip(index),
    },
  )()  # fmt: skip
  index = pack(few, tmp_path, codec=codec)
  reader = packed(tmp_path, num_frames=16, height=64, width=64)
  for place in range(2):
    expected = source.clip(place)['video'].astype(float)
    error = ((reader.clip(place, rng())['video'] - expected) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > limit  # decibels
  assert index['shards'][0]['bytes'] < 0.4 * 2 * expected.size


def test_clips_are_windows_of_the_stored_ones(tmp_path):
  pack(Source(), tmp_path, codec='raw')
  reader = packed(tmp_path, num_frames=3, frameskip=2)
  starts = set()
  for seed in range(60):
    levels = reader.clip(4, rng(seed))['video'][:, 0, 0, 0] - 40
    assert np.diff(levels).tolist() == [2, 2]
    starts.add(int(levels[0]))
  assert starts == {0, 1, 2, 3}
  image = reader.image(4, rng())['video']
  assert image.shape == (1, 16, 24, 3)
  smaller = packed(tmp_path, num_frames=3, height=8, width=8)
  assert smaller.clip(0, rng())['video'].shape == (3, 8, 8, 3)
  with pytest.raises(UnreadableClip, match='too short: 8 of 9 frames'):
    packed(tmp_path, num_frames=9).clip(0, rng())
  assert reader.fingerprint() != smaller.fingerprint()


def test_clips_that_cannot_be_read_are_left_out_and_named(tmp_path):
  index = pack(Source(bad=(3, 7)), tmp_path, codec='raw', shard_size=5)
  skipped = {k: v for s in index['shards'] for k, v in s['skipped'].items()}
  assert skipped == dict.fromkeys(('3.mp4', '7.mp4'), 'corrupt: on purpose')
  reader = packed(tmp_path)
  assert len(reader) == 8
  levels = [reader.clip(i, rng())['video'][0, 0, 0, 0] // 10 for i in range(8)]
  assert levels == [0, 1, 2, 4, 5, 6, 8, 9]
  with pytest.raises(ValueError, match='none of 2 clips'):
    pack(Source(size=2, bad=(0, 1)), tmp_path / 'none')


def contents(path):
  return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.fault(34)
def test_killed_at_random_times_it_ends_as_if_nothing_had_happened(tmp_path):
  straight = tmp_path / 'straight'
  pack(Source(30), straight, codec='raw', shard_size=3)
  path, kills = tmp_path / 'killed', 0
  for seed in range(4):
    process = SPAWN.Process(
      target=pack,
      args=(Source(30, delay=0.03), path),
      kwargs={'codec': 'raw', 'shard_size': 3},
    )
    process.start()
    while process.is_alive() and not any(path.glob('*.tmp')):
      time.sleep(0.005)  # until it is at work, or through
    process.join(0.2 * np.random.default_rng(seed).random())
    if process.is_alive():
      os.kill(process.pid, signal.SIGKILL)
      kills += 1
    process.join()
    # Under its final name a shard is always whole.
    for word in path.glob('0*.json'):
      said = json.loads(word.read_text())
      assert (path / said['file']).stat().st_size == said['bytes']
    if (path / INDEX).exists():
      index = json.loads((path / INDEX).read_text())
      if not index['complete']:
        with pytest.raises(ValueError, match='unfinished'):
          packed(path)
  assert kills >= 3
  pack(Source(30), path, codec='raw', shard_size=3)
  assert contents(path) == contents(straight)
  reader = packed(path)
  levels = [reader.clip(i, rng())['video'][0, 0, 0, 0] for i in range(25)]
  assert levels == list(range(0, 250, 10))


def test_finished_shards_are_not_written_again(tmp_path):
  pack(Source(), tmp_path, codec='raw', shard_size=4)
  before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob('*.array*')}
  pack(Source(), tmp_path, codec='raw', shard_size=4)
  after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob('*.array*')}
  assert before == after


@pytest.mark.fault(34)
def test_a_damaged_shard_is_written_anew(tmp_path):
  pack(Source(), tmp_path, codec='raw', shard_size=4)
  path = tmp_path / '00001.array_record'
  whole = bytearray(path.read_bytes())
  whole[len(whole) // 2] ^= 1  # the size stays
  path.write_bytes(whole)
  last = tmp_path / '00002.array_record'
  for lose in (lambda: last.write_bytes(b''), last.unlink):
    lose()
    with pytest.raises(ValueError, match=r'00002.* 0 bytes.*run --mode=pack'):
      packed(tmp_path)
  pack(Source(), tmp_path, codec='raw', shard_size=4)
  reader = packed(tmp_path)
  levels = [reader.clip(i, rng())['video'][0, 0, 0, 0] for i in range(10)]
  assert levels == list(range(0, 100, 10))


def test_another_pack_in_the_folder_is_refused(tmp_path):
  pack(Source(), tmp_path, codec='raw')
  with pytest.raises(ValueError, match='another pack .codec differ'):
    pack(Source(), tmp_path, codec='jpeg')
  with pytest.raises(ValueError, match='source differ'):
    pack(Source(11), tmp_path, codec='raw')
  with pytest.raises(ValueError, match='codec'):
    pack(Source(), tmp_path / 'x', codec='zip')
  with pytest.raises(ValueError, match='1 or more'):
    pack(Source(), tmp_path / 'x', clips_per_video=0)
  with pytest.raises(FileNotFoundError, match='is no pack'):
    packed(tmp_path / 'x')


def test_a_pipeline_reads_it_in_any_process(tmp_path):
  pack(Source(), tmp_path, codec='jpeg', shard_size=3)
  reader = packed(tmp_path)
  reader.clip(0, rng())  # files are open
  copy = pickle.loads(pickle.dumps(reader))
  np.testing.assert_array_equal(
    copy.clip(5, rng())['video'], reader.clip(5, rng())['video']
  )
  batch = next(iter(Pipeline(reader, batch_size=4, seed=0)))
  assert batch['video'].shape == (4, 8, 16, 24, 3)
  assert batch['tokens'].shape == (4, 5, 2)
