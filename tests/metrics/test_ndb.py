"""Bins against brute force, tests against SciPy's, histograms against closed forms."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist, jensenshannon

from jaxgen.metrics import ndb


@pytest.fixture(scope="module")
def blobs():
  rng = np.random.default_rng(0)
  return (rng.normal(size=(900, 2)) + 20 * np.arange(3).repeat(300)[:, None]).astype(np.float32)


def test_bins_are_the_cells_of_the_nearest_centre(blobs):
  bins = ndb.Bins.of(blobs, 7)
  cells = cdist(blobs, bins.centres).argmin(1)
  np.testing.assert_array_equal(bins.count(blobs), np.bincount(cells, minlength=7))
  np.testing.assert_array_equal(bins.counts, bins.count(blobs))


def test_bins_of_blobs_are_the_blobs(blobs):
  bins = ndb.Bins.of(blobs, 3)
  means = blobs.reshape(3, 300, 2).mean(1)
  np.testing.assert_allclose(bins.centres[bins.centres[:, 0].argsort()], means, atol=1e-4)
  assert bins.counts.tolist() == [300] * 3


def test_lost_blobs_are_different_bins(blobs):
  bins = ndb.Bins.of(blobs, 3)
  assert bins.compare(blobs[::2]) == (0, pytest.approx(0, abs=1e-12))
  lost = bins.compare(blobs[:600:2])
  assert lost.share == 1
  want = jensenshannon([0.5, 0.5, 0], [1 / 3] * 3) ** 2
  assert lost.divergence == pytest.approx(want, rel=1e-9)
  assert bins.compare(blobs[:300]).share == 1


def test_proportions_are_tested_as_tables_are():
  # Without Yates's correction chi squared of a 2x2 table is the square of z.
  rng = np.random.default_rng(1)
  a, b = rng.integers(1, 90, 60), rng.integers(1, 90, 60)
  n, m = a.sum(), b.sum()
  want = [
    scipy.stats.chi2_contingency([[x, n - x], [y, m - y]], correction=False).pvalue < 0.05
    for x, y in zip(a, b, strict=True)
  ]
  got = ndb.differ(a, b)
  np.testing.assert_array_equal(got, want)
  assert 5 < sum(want) < 55
  assert not ndb.differ(np.array([0, 5]), np.array([0, 9])).any()


def test_a_twentieth_of_bins_differs_by_chance():
  rng = np.random.default_rng(2)
  p = np.full(50, 0.02)
  shares = [ndb.differ(*rng.multinomial(5000, p, 2)).mean() for _ in range(100)]
  assert np.mean(shares) == pytest.approx(0.05, abs=0.01)


def test_few_rows_make_few_bins(blobs):
  assert len(ndb.Bins.of(blobs[:60:3], 50).counts) == 2
  with pytest.raises(ValueError, match="nothing"):
    ndb.differ(np.zeros(3, int), np.ones(3, int))


def test_divergences_of_histograms_apart_and_alike():
  a, b = np.array([5, 0]), np.array([0, 3])
  assert ndb.jensen_shannon(a, b) == pytest.approx(np.log(2))
  assert ndb.jensen_shannon(a, 7 * a) == 0
