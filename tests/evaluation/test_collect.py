"""Collecting: batches, interruptions and order change nothing."""

import looks
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.evaluation import collect as module
from jaxgen.evaluation.collect import Plan, chunks, collect
from jaxgen.metrics.distances import moments

PLAN = Plan(("pool3", "spatial"), ("pool3", "logits"))


class Memory:
  """Images in memory, in batches of any length."""

  labels, warnings, card, class_names = None, [], {"name": "given"}, ()

  def __init__(self, x, batch=10):
    self.x, self.batch, self.count, self.starts = x, batch, len(x), []

  def read(self, start, stop):
    self.starts.append(start)
    for i in range(start, stop, self.batch):
      yield self.x[i : min(i + self.batch, stop)]


class Killed(Exception):
  pass


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(module, "CHUNK", 16)
  monkeypatch.setattr(module, "BLOCK", 32)
  monkeypatch.setattr(module, "SAVE_SECONDS", 0)


def same(a, b):
  assert a.n == b.n
  np.testing.assert_array_equal(a.colour, b.colour)
  for key in a.moments:
    for got, want in zip(a.moments[key], b.moments[key], strict=True):
      np.testing.assert_array_equal(got, want)
  for key in a.rows:
    np.testing.assert_array_equal(a.rows[key], b.rows[key])


@pytest.mark.parametrize("batch", [1, 7, 16, 64, 200])
def test_batches_change_no_bit(batch, small):
  x = looks.pictures(107)
  expected = collect(Memory(x, 107), looks.Stub(), PLAN)
  same(collect(Memory(x, batch), looks.Stub(), PLAN), expected)
  rows = looks.Stub().features([x], ("pool3", "spatial", "logits"))
  np.testing.assert_array_equal(expected.rows["pool3"], rows["pool3"])
  want = moments(rows["spatial"])
  np.testing.assert_allclose(expected.moments["spatial"].sigma, want.sigma, rtol=1e-9, atol=1e-15)
  np.testing.assert_allclose(expected.colour, x.mean((0, 1, 2)))


def test_chunks_are_whole_batches_of_the_network(small):
  class Counted(looks.Stub):
    batch, lengths = 12, []

    def features(self, images, taps):
      f = super().features(images, taps)
      self.lengths.append(len(f[taps[0]]))
      return f

  x = looks.pictures(70)
  same(collect(Memory(x), Counted(), PLAN), collect(Memory(x), looks.Stub(), PLAN))
  assert Counted.lengths == [24, 24, 22]


def test_order_changes_moments_by_round_off_alone(small):
  x = looks.pictures(300)
  a = collect(Memory(x), looks.Stub(), PLAN).moments["pool3"]
  b = collect(Memory(x[::-1]), looks.Stub(), PLAN).moments["pool3"]
  np.testing.assert_allclose(a.mu, b.mu, rtol=1e-12)
  np.testing.assert_allclose(a.sigma, b.sigma, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("rows", [None, np.array([3, 40, 41, 90, 106])])
@pytest.mark.parametrize("runs", [[20], [16, 16, 40], [90], [5, 5]])
def test_what_is_killed_goes_on(runs, rows, small, tmp_path):
  x, plan = looks.pictures(107), Plan(PLAN.moments, PLAN.rows, rows)
  expected = collect(Memory(x), looks.Stub(), plan)

  class Fragile(looks.Stub):
    def features(self, images, taps):
      if self.count >= self.most:
        raise Killed
      return super().features(images, taps)

  images, total = Memory(x), 0
  for most in runs:
    looking = Fragile()
    looking.most = most
    with pytest.raises(Killed):
      collect(images, looking, plan, key="k", folder=tmp_path)
    total += looking.count
  last = looks.Stub()
  same(collect(images, last, plan, key="k", folder=tmp_path), expected)
  if total >= 48:  # what was saved was not looked at again
    assert last.count < 107 and images.starts[-1] > 0
  if rows is not None:
    np.testing.assert_array_equal(
      expected.rows["pool3"], collect(Memory(x), looks.Stub(), PLAN).rows["pool3"][rows]
    )


def test_work_of_others_is_not_taken(small, tmp_path):
  x = looks.pictures(64)
  collect(Memory(x), looks.Stub(), PLAN, key="a", folder=tmp_path)
  for change in (dict(key="b"), dict(plan=Plan(("spatial",)))):
    collect(Memory(x), looks.Stub(), PLAN, key="a", folder=tmp_path)
    looking = looks.Stub()
    how = dict(plan=PLAN, key="a") | change
    collect(Memory(x), looking, folder=tmp_path, **how)
    assert looking.count == 64


@pytest.mark.parametrize("name", ["state.npz", "pool3-000000016.rows"])
def test_torn_work_is_begun_anew(name, small, tmp_path):
  x = looks.pictures(64)
  expected = collect(Memory(x), looks.Stub(), PLAN, key="a", folder=tmp_path)
  data = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(data[: len(data) // 2])
  looking = looks.Stub()
  same(collect(Memory(x), looking, PLAN, key="a", folder=tmp_path), expected)
  assert looking.count == 64


def test_images_of_any_size_are_regrouped():
  sizes = [3, 1, 8, 2, 2, 5]
  batches = [np.zeros((n, 4 + i, 4, 3), np.uint8) for i, n in enumerate(sizes)]
  groups = list(chunks(iter(batches), 6))
  assert [sum(map(len, g)) for g in groups] == [6, 6, 6, 3]
  shapes = [x.shape[1] for g in groups for x in g for _ in x]
  assert shapes == [4 + i for i, n in enumerate(sizes) for _ in range(n)]


def test_features_must_be_finite(small):
  class Ill(looks.Stub):
    def features(self, images, taps):
      f = super().features(images, taps)
      if self.count > 20:
        f["pool3"][7, 2] = np.nan
      return f

  with pytest.raises(UserError, match="not finite for image 23 of given"):
    collect(Memory(looks.pictures(40)), Ill(), PLAN)


def test_one_image_is_too_few():
  with pytest.raises(UserError, match="1 images are too few"):
    collect(Memory(looks.pictures(1)), looks.Stub(), PLAN)
