"""Laws of the pipeline: the order is a function of (seed, number) alone."""

import collections
import itertools

import numpy as np
import pytest

from tests.pipeline_cases import Records, same, take
from vdm_jax.data.folder import VideoFolder
from vdm_jax.data.moving_shapes import MovingShapes
from vdm_jax.data.pipeline import Pipeline, shuffled
from vdm_jax.data.pixels import to_float
from vdm_jax.video import save

# The order


def test_every_record_comes_once_in_each_epoch():
  _, data = take(15, Records(10), batch_size=4)
  epochs = data['label'].reshape(6, 10)
  assert (np.sort(epochs) == np.arange(10)).all()
  assert len({tuple(epoch) for epoch in epochs}) > 3
  _, other = take(15, Records(10), batch_size=4, seed=1)
  assert (other['label'] != data['label']).any()


def test_random_numbers_belong_to_the_example_and_not_to_the_record():
  _, data = take(15, Records(10))
  videos = data['video'].reshape(60, -1)
  assert len({video.tobytes() for video in videos}) == 60
  _, other = take(15, Records(7))
  np.testing.assert_array_equal(other['video'], data['video'])
  _, other = take(15, Records(10), seed=1)
  assert not (other['video'] == data['video']).all(axis=(1, 2, 3, 4)).any()


def test_no_example_sees_the_random_numbers_of_the_order():
  class Ranks(Records):
    def clip(self, index, rng):
      ranks = np.argsort(rng.bit_generator.random_raw(50))
      return {'video': ranks.astype(np.float32)}

  _, data = take(1, Ranks(50), batch_size=10)
  order = [shuffled(number, 50, seed=0) for number in range(50)]
  assert not (data['video'] == order).all(axis=-1).any()


@pytest.mark.fault(11)
@pytest.mark.parametrize('start', [1, 8, 9, 10, 13, 40])
def test_resuming_is_exact(start):
  _, whole = take(20, Records(10))
  _, rest = take(5, Records(10), start=start)
  same(rest, {key: value[start : start + 20] for key, value in whole.items()})


@pytest.mark.fault(11)
@pytest.mark.parametrize('num_hosts', [2, 4])
@pytest.mark.parametrize('start', [0, 5])
def test_hosts_together_have_the_batch_of_one(num_hosts, start):
  source, options = Records(10), {'batch_size': 8, 'start': start}
  one = list(itertools.islice(Pipeline(source, seed=3, **options), 4))
  hosts = [
    Pipeline(source, seed=3, host=host, num_hosts=num_hosts, **options)
    for host in range(num_hosts)
  ]
  several = [list(itertools.islice(host, 4)) for host in hosts]
  for number, batch in enumerate(one):
    for key, value in batch.items():
      parts = [mine[number][key] for mine in several]
      assert all(len(part) == 8 // num_hosts for part in parts)
      np.testing.assert_array_equal(np.concatenate(parts), value)


@pytest.mark.fault(11)
@pytest.mark.parametrize('num_threads', [1, 3, 16])
def test_threads_do_not_matter(num_threads):
  _, expected = take(10, Records(10, bad=[3]), num_threads=5)
  _, data = take(10, Records(10, bad=[3]), num_threads=num_threads)
  same(data, expected)


@pytest.mark.parametrize('size', [1, 2, 3, 7, 1000])
def test_small_orders_are_permutations(size):
  for epoch in (0, 1, 10**6):
    numbers = range(epoch * size, (epoch + 1) * size)
    records = [shuffled(number, size, seed=5) for number in numbers]
    assert sorted(records) == list(range(size))


def test_all_permutations_are_equally_likely():
  draws = 2400
  counts = collections.Counter(
    tuple(shuffled(4 * epoch + i, 4, seed=0) for i in range(4))
    for epoch in range(draws)
  )
  assert len(counts) == 24
  chi_square = sum((n - draws / 24) ** 2 for n in counts.values()) / (
    draws / 24
  )
  assert chi_square < 50  # 23 degrees of freedom: one in a thousand


def test_large_orders_are_shuffled_without_repeats():
  size = 2**32
  records = [shuffled(size + number, size, seed=1) for number in range(5000)]
  assert len(set(records)) == 5000
  assert 0 <= min(records) < size / 100
  assert size * 0.99 < max(records) < size
  steps = np.diff(records)
  assert (steps != 1).all()
  assert records != [shuffled(n, size, seed=1) for n in range(5000)]
  assert records != [shuffled(size + n, size, seed=2) for n in range(5000)]


# Clips that cannot be read


@pytest.mark.fault(16)
def test_an_unreadable_clip_gives_way_to_the_next_record():
  _, whole = take(10, Records(10))
  pipeline, data = take(10, Records(10, bad=[3, 9]))
  replaced = whole['label'].copy()
  replaced[replaced == 3] = 4
  replaced[replaced == 9] = 0
  np.testing.assert_array_equal(data['label'], replaced)
  np.testing.assert_array_equal(data['video'], whole['video'])  # same numbers
  assert pipeline.skipped == {
    '3.mp4': 'corrupt: on purpose',
    '9.mp4': 'corrupt: on purpose',
  }


def test_nothing_is_reported_before_it_was_met():
  pipeline = Pipeline(Records(1000, bad=[3]), batch_size=4, seed=0)
  next(iter(pipeline))
  assert pipeline.skipped == {}


@pytest.mark.fault(20)
@pytest.mark.parametrize(
  'num_workers', [0, pytest.param(1, marks=pytest.mark.slow)]
)
def test_only_unreadable_clips_are_an_error(num_workers):
  with pytest.raises(RuntimeError, match=r'None of the 3 .*\.mp4.*corrupt'):
    take(1, Records(3, bad=range(3)), num_workers=num_workers)


def test_other_errors_are_not_hidden():
  class Broken(Records):
    def clip(self, index, rng):
      raise KeyError('a mistake')

  with pytest.raises(KeyError, match='a mistake'):
    take(1, Broken(3))


# Batches


def test_batches_are_what_the_source_gave():
  source = MovingShapes(num_clips=5, num_frames=3, height=16, width=24)
  batch = next(iter(Pipeline(source, batch_size=5, seed=0)))
  assert set(batch) == {'video', 'label'}
  assert batch['video'].dtype == np.float32
  assert batch['label'].dtype == np.int32
  for row in range(5):
    clip = source.clip(shuffled(row, 5, seed=0), np.random.default_rng())
    assert batch['label'][row] == clip['label']
    np.testing.assert_array_equal(batch['video'][row], to_float(clip['video']))


def test_float_clips_pass_as_they_are():
  class Floats(Records):
    def clip(self, index, rng):
      return {'video': np.full((1, 2, 2, 3), index / 10, np.float32)}

  _, data = take(5, Floats(10))
  assert set(data) == {'video'}
  values = data['video'].reshape(2, 10, -1)[..., 0]
  np.testing.assert_allclose(np.sort(values), [np.arange(10) / 10] * 2)


def test_captions_are_strings():
  batch = next(iter(Pipeline(Records(10), batch_size=4, seed=0)))
  assert batch['caption'] == [f'number {i}' for i in batch['label']]


def test_iterating_again_begins_again():
  pipeline = Pipeline(Records(10), batch_size=4, seed=0, start=3)
  first, again = (list(itertools.islice(pipeline, 2)) for _ in range(2))
  for one, other in zip(first, again, strict=True):
    same(one, other)


@pytest.mark.parametrize(
  'num_workers', [0, pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_folder_of_videos_with_one_cut_file(tmp_path, num_workers):
  rng = np.random.default_rng(0)
  for number in range(3):
    noise = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    save(tmp_path / f'{number}.gif', noise)
  cut = tmp_path / '1.gif'
  cut.write_bytes(cut.read_bytes()[:-500])
  source = VideoFolder(tmp_path, 4, 16, 16)
  pipeline, data = take(3, source, num_workers=num_workers)
  assert pipeline.skipped == {str(cut): 'truncated: no end mark'}
  _, expected = take(3, VideoFolder(tmp_path, 4, 16, 16, cache_mb=0))
  same(data, expected)


# Wrong arguments


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'source': Records(0)}, 'has 0 records'),
    ({'batch_size': 0}, 'batch_size 0'),
    ({'batch_size': 6, 'num_hosts': 4}, 'batch_size 6 .* 4 hosts'),
    ({'num_hosts': 0}, 'among 0 hosts'),
    ({'host': 2, 'num_hosts': 2}, 'host is 2; it must be 0 to 1'),
    ({'start': -1}, 'start is -1'),
    ({'num_workers': -1}, 'num_workers is -1'),
    ({'num_threads': 0}, 'num_threads is 0'),
    ({'seed': -1}, 'seed is -1'),
    ({'seed': 2**64}, 'seed is 18446744073709551616'),
  ],
)
def test_arguments_out_of_range(options, words):
  options = {'source': Records(8), 'batch_size': 4, 'seed': 0, **options}
  with pytest.raises(ValueError, match=words):
    Pipeline(options.pop('source'), **options)
