"""Packed data in a bucket: the same examples as in a folder, asked for once."""

import pickle

import numpy as np
import pytest

from jaxgen.bucket import objects, replica
from jaxgen.data.pack import packed
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError

pytestmark = pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)


@pytest.fixture
def pair(bucket, tmp_path, monkeypatch):
  """Packed images here, and an address with the same."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
  here = tmp_path / "set"
  packed("a set", here, 20, lambda i: (x[i], i % 3), 3, ("a", "b", "c"))
  for file in here.iterdir():
    objects.write(f"{bucket.folder}/set/{file.name}", file.read_bytes())
  return open_source(f"packed:{here}"), f"packed:{bucket.folder}/set"


def test_examples_are_the_same(pair):
  here, name = pair
  there = open_source(name, size=8, channels=3)
  for field in ("classes", "class_names", "fingerprint", "shape", "dtype", "skipped"):
    assert getattr(here, field) == getattr(there, field)
  assert len(there) == 20 and there.name == name
  order = np.array([7, 3, 7, 19, -1, 0])
  cut = lambda k, image: image.crop((k, 0, 8 + k, 8))
  for how in ({}, {"cut": cut}):
    one, other = here.read(order, **how), there.read(order, **how)
    assert all(np.array_equal(one[k], other[k]) for k in "xy")
  assert np.array_equal(here[5]["x"], there[5]["x"]) and here[5]["y"] == there[5]["y"]
  again = pickle.loads(pickle.dumps(there))  # as for a worker process
  assert np.array_equal(again.read(order)["x"], here.read(order)["x"])
  assert all(np.array_equal(a, b) for a, b in zip(here.arrays(), there.arrays(), strict=True))


def test_rows_are_asked_for_once(pair, bucket):
  here, name = pair
  there = open_source(name)
  there.read(np.arange(10))
  before = sum(bucket.answers.values())
  again = there.read(np.arange(10))["x"]
  assert sum(bucket.answers.values()) == before and np.array_equal(again, here.x[:10])
  there.read(np.arange(9, 12))
  assert sum(bucket.answers.values()) == before + 2
  there.kept.x[3] = 0  # as a crash may leave it
  assert np.array_equal(there.read(np.arange(5))["x"], here.x[:5])
  assert sum(bucket.answers.values()) == before + 3


def test_no_more_is_kept_than_may_be(pair, bucket, monkeypatch):
  here, name = pair
  monkeypatch.setenv(replica.LIMIT, str(5 * here.x[0].nbytes / 1e9))
  there = open_source(name)
  for _ in range(2):
    assert np.array_equal(there.read(np.arange(4))["x"], here.x[:4])
    assert np.array_equal(there.read(np.arange(4, 12))["x"], here.x[4:12])
  assert np.count_nonzero(there.kept.sums) == 4


def test_another_set_under_the_same_name_is_another(pair, bucket):
  here, name = pair
  open_source(name).read(np.arange(20))
  objects.write(f"{bucket.folder}/set/x.bin", (255 - here.x).tobytes())
  assert np.array_equal(open_source(name).read(np.arange(20))["x"], 255 - here.x)


def test_what_is_no_packed_set(pair, bucket):
  here, name = pair
  with pytest.raises(UserError, match=r"holds \[8, 8, 3\]: pack it anew"):
    open_source(name, size=16)
  with pytest.raises(UserError, match="one split, called train"):
    open_source(name, split="test")
  with pytest.raises(UserError, match="there are no packed data in .*none"):
    open_source(f"packed:{bucket.folder}/none")
  objects.write(f"{bucket.folder}/set/meta.json", b'{"count": 3}')
  with pytest.raises(UserError, match="damaged: meta.json is not as"):
    open_source(name)
