"""The stream of batches is a pure function of (seed, step)."""

import collections
import itertools
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from jaxgen.data import order
from jaxgen.data.arrays import Arrays
from jaxgen.data.pipeline import batches, epoch, throughput
from jaxgen.errors import UserError

rng = np.random.default_rng(0)
N = 50
X = rng.integers(0, 256, (N, 4, 6, 3), dtype=np.uint8)
SOURCE = Arrays("random", X, np.arange(N, dtype=np.int32), N)


def take(n, source=SOURCE, *, seed=7, batch=16, **kwargs):
  stream = batches(source, batch=batch, seed=seed, **kwargs)
  try:
    return list(itertools.islice(stream, n))
  finally:
    stream.close()


def assert_same(a, b):
  assert len(a) == len(b)
  for left, right in zip(a, b, strict=True):
    assert left.keys() == right.keys()
    for name in left:
      np.testing.assert_array_equal(left[name], right[name])
      assert left[name].dtype == right[name].dtype


def test_words_are_splitmix64():
  # The published first outputs of the generator for seed 1234567.
  published = [
    6457827717110365317, 3203168211198807973, 9817491932198370423,
    4593380528125082431, 16408922859458223821,
  ]  # fmt: skip
  assert order.words(1234567, np.arange(5)).tolist() == published


def test_order_is_pinned():
  # A change here would break the resumption of every stopped run.
  assert order.permutation(0, 0, 8).tolist() == [0, 1, 5, 3, 2, 7, 6, 4]
  assert order.permutation(3, 5, 8).tolist() == [0, 6, 5, 7, 3, 1, 2, 4]
  assert order.flips(0, np.arange(12)).astype(int).tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0]


def test_every_order_is_about_as_likely():
  # 24 orders of 4: chi-squared with 23 degrees of freedom, 6 sigma.
  counts = collections.Counter(tuple(order.permutation.__wrapped__(1, e, 4)) for e in range(4800))
  assert len(counts) == 24
  chi2 = sum((c - 200) ** 2 / 200 for c in counts.values())
  assert chi2 < 23 + 6 * np.sqrt(46)


def test_flips_are_fair_and_apart_from_the_order():
  coins = order.flips(0, np.arange(100_000))
  assert abs(coins.mean() - 0.5) < 6 * 0.5 / np.sqrt(100_000)
  lag = (coins[1:] == coins[:-1]).mean()
  assert abs(lag - 0.5) < 6 * 0.5 / np.sqrt(100_000)


def test_each_example_once_per_epoch_in_another_order():
  y = np.concatenate([b["y"] for b in take(25, batch=8)]).reshape(4, N)
  for row in y:
    assert sorted(row) == list(range(N))
  assert len({tuple(row) for row in y}) == 4
  assert take(1)[0]["y"].tolist() != take(1, seed=8)[0]["y"].tolist()


@pytest.mark.parametrize("start", [1, 3, 17])
def test_start_equals_skipping(start):
  expected = take(start + 3, flip=True)
  assert_same(take(3, start=start, flip=True), expected[start:])


def test_far_start():
  assert len(take(1, start=10**9)[0]["x"]) == 16


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_shares_make_up_the_same_global_batch(processes):
  shares = [take(5, flip=True, process=p, processes=processes) for p in range(processes)]
  assert_same(joined(shares), take(5, flip=True))


def joined(shares):
  """Batches of several processes as those of one."""
  return [
    {k: np.concatenate([s[k] for s in step]) for k in step[0]} for step in zip(*shares, strict=True)
  ]


def test_threads_and_worker_make_no_difference():
  expected = take(5, flip=True, start=2)
  assert_same(take(5, flip=True, start=2, threads=2), expected)
  assert_same(take(5, flip=True, start=2, workers=1), expected)
  assert not multiprocessing.active_children()


def test_flip_mirrors_about_half_and_leaves_the_source_alone():
  before = X.copy()
  plain, flipped = take(20), take(20, flip=True)
  mirrored = 0
  for a, b in zip(plain, flipped, strict=True):
    for left, right in zip(a["x"], b["x"], strict=True):
      same = (left == right).all()
      assert same or (left[:, ::-1] == right).all()
      mirrored += not same
  assert 110 < mirrored < 210  # of 320: 5.6 sigma
  np.testing.assert_array_equal(X, before)


def test_batch_larger_than_the_data():
  y = take(1, batch=2 * N)[0]["y"]
  assert np.bincount(y).tolist() == [2] * N


def test_epoch_in_order_with_a_short_end():
  parts = list(epoch(SOURCE, 16))
  assert [len(p["x"]) for p in parts] == [16, 16, 16, 2]
  np.testing.assert_array_equal(np.concatenate([p["x"] for p in parts]), X)


def test_unlabelled():
  assert take(1, Arrays("random", X))[0].keys() == {"x"}


@pytest.mark.parametrize("wrong", [
  dict(batch=6, processes=4), dict(batch=0), dict(batch=4, process=2, processes=2),
  dict(batch=4, start=-1), dict(batch=4, workers=-1),
])  # fmt: skip
def test_bad_sizes(wrong):
  with pytest.raises(UserError):
    batches(SOURCE, seed=0, **wrong)


def test_flip_of_points():
  with pytest.raises(UserError, match="mirrors images"):
    batches(Arrays("p", np.zeros((4, 2))), batch=2, seed=0, flip=True)


def test_throughput_counts():
  t = throughput(SOURCE, 16, seconds=0.05)
  per_example = X[0].nbytes + 4
  assert t["mb_per_s"] * 1e6 == pytest.approx(t["examples_per_s"] * per_example)


def test_no_jax_and_no_tensorflow(tmp_path):
  code = f"""
import sys
import jaxgen.data.pipeline, jaxgen.data.sources
import jaxgen.data.catalogue, jaxgen.data.prepare
from jaxgen.data import folder, npz, pack
source = jaxgen.data.sources.open_source("digits", data_dir={str(tmp_path)!r})
stream = jaxgen.data.pipeline.batches(source, batch=4, seed=0, flip=True)
assert next(stream)["x"].shape == (4, 8, 8, 1)
print([m for m in ("jax", "tensorflow") if m in sys.modules])
"""
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert run.stdout.strip() == "[]"


def test_unclosed_stream_ends_quietly():
  code = """
from jaxgen.data.pipeline import batches
from jaxgen.data.sources import open_source
stream = batches(open_source("points:ring8"), batch=4, seed=0, threads=2)
next(stream)
"""
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert run.stderr == ""
