"""PRDC against brute force, hand-made cases and the direction of each."""

import tracemalloc

import numpy as np
import pytest

from jaxgen.metrics import pairwise
from jaxgen.metrics.copies import copies
from jaxgen.metrics.prdc import PRDC, half_precision_recall, prdc


def brute(fake, real, k=3, k_ball=5):
  """The definitions, point by point, with exact distances."""
  d = lambda a, b: float(np.sum((a - b) ** 2))

  def radius(points, i, k):
    others = [d(points[i], p) for j, p in enumerate(points) if j != i]
    return sorted(others)[k - 1]

  r_real = [radius(real, i, k) for i in range(len(real))]
  r_ball = [radius(real, i, k_ball) for i in range(len(real))]
  r_fake = [radius(fake, i, k) for i in range(len(fake))]
  pairs = [[d(f, r) for r in real] for f in fake]
  inside = [any(x <= r for x, r in zip(p, r_real, strict=True)) for p in pairs]
  columns = list(zip(*pairs, strict=True))
  recalled = [any(x <= r for x, r in zip(c, r_fake, strict=True)) for c in columns]
  balls = [sum(x < r for x, r in zip(p, r_ball, strict=True)) for p in pairs]
  covered = [min(c) < r for c, r in zip(columns, r_ball, strict=True)]
  return PRDC(
    float(np.mean(inside)),
    float(np.mean(recalled)),
    float(np.mean(balls)) / k_ball,
    float(np.mean(covered)),
  )


@pytest.mark.parametrize("tile", [(1, 2), (7, 1), (16, 20), (2048, 8192)])
def test_prdc_is_brute_force_whatever_the_tile(tile, monkeypatch):
  monkeypatch.setattr(pairwise, "ROWS", tile[0])
  monkeypatch.setattr(pairwise, "COLUMNS", tile[1])
  rng = np.random.default_rng(0)
  fake = rng.standard_normal((60, 3)) * 0.8 + 0.3
  real = rng.standard_normal((45, 3))
  np.testing.assert_allclose(prdc(fake, real), brute(fake, real), rtol=1e-12)


def test_ties_count_for_precision_and_not_for_density():
  # On an integer lattice distances tie exactly: <= and < differ a lot.
  rng = np.random.default_rng(1)
  fake = rng.integers(2, 12, (50, 6)).astype(np.float32)
  real = rng.integers(0, 9, (40, 6)).astype(np.float32)
  got = prdc(fake, real)
  np.testing.assert_allclose(got, brute(fake, real), rtol=1e-12)
  assert 0 < got.precision < 1 and 0 < got.coverage < 1
  swapped = brute(real, fake)
  assert got.precision != swapped.precision and got.recall != swapped.recall


def test_a_line_of_five_by_hand():
  real = np.arange(5.0)[:, None]  # radii to the 1st neighbour: all 1
  fake = np.array([[0.0], [5.0], [5.5], [9.0]])  # radii: 5, .5, .5, 3.5
  got = prdc(fake, real, k=1, k_ball=1)
  assert got.precision == 0.5  # 0 and 5: the latter just, by <=
  assert got.recall == 1.0  # the ball of the fake at 0 reaches all
  assert got.density == 0.25  # 0 is in the ball of 0 alone: 1 is a tie
  assert got.coverage == 0.2  # and so is 0 alone covered


def test_precision_is_fidelity_and_recall_is_diversity():
  rng = np.random.default_rng(2)
  real = np.concatenate([rng.normal(m, 1, (100, 2)) for m in (0, 20)])
  collapsed = rng.normal(0, 1, (200, 2))  # one mode of two, well drawn
  got = prdc(collapsed, real)
  assert got.precision > 0.9 and got.density > 0.8
  assert 0.3 < got.recall < 0.6 and 0.3 < got.coverage < 0.6
  noisy = np.concatenate([real[::2], rng.normal(60, 1, (100, 2))])
  got = prdc(noisy, real)  # both modes, and as much that is nonsense
  assert 0.4 < got.precision < 0.6 and 0.4 < got.density < 0.6
  assert got.recall > 0.9 and got.coverage > 0.9


def test_equal_distributions_score_near_one():
  rng = np.random.default_rng(3)
  got = prdc(*rng.standard_normal((2, 1000, 4)))
  assert abs(got.density - 1) < 0.1
  # Naeem et al., eq. 9: E[coverage] = 1 - prod (M - i) / (M + N - i), about
  # 1 - 2^-k for as many fakes as reals.
  assert abs(got.coverage - (1 - 2**-5)) < 0.02


def test_too_few_rows_are_refused():
  with pytest.raises(ValueError, match="neighbours"):
    prdc(np.zeros((9, 2)), np.zeros((5, 2)))
  with pytest.raises(ValueError, match="width"):
    prdc(np.zeros((9, 2)), np.zeros((9, 3)))


def test_memory_is_bounded_by_the_tile(monkeypatch):
  # The matrix of distances alone would be 48 MB.
  monkeypatch.setattr(pairwise, "ROWS", 256)
  monkeypatch.setattr(pairwise, "COLUMNS", 512)
  rng = np.random.default_rng(4)
  fake = rng.standard_normal((3000, 16), np.float32)
  real = rng.standard_normal((2000, 16), np.float32)
  tracemalloc.start()
  prdc(fake, real)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 12e6


def test_progress_is_told_to_the_end():
  rng = np.random.default_rng(5)
  ticks = []
  prdc(*rng.standard_normal((2, 30, 2)), tick=ticks.append)
  assert ticks == sorted(ticks) and ticks[-1] == 90


def test_float16_ties_count_as_inside():
  # Features like Inception's: squared norms of a few hundred, where float16
  # knows steps of 0.25 alone.
  rng = np.random.default_rng(6)
  real = np.abs(rng.standard_normal((150, 256))) + 0.6
  fake = np.abs(rng.standard_normal((120, 256))) + 0.62
  exact, half = prdc(fake, real), half_precision_recall(fake, real)
  assert half[0] >= exact.precision and half[1] >= exact.recall
  np.testing.assert_allclose(half, exact[:2], atol=0.1)
  # Where float16 is exact, so are they.
  lattice = rng.integers(0, 4, (2, 60, 8))
  np.testing.assert_allclose(half_precision_recall(*lattice), prdc(*lattice)[:2])
  # And where it overflows, as the evaluator does, float32 steps in.
  np.testing.assert_allclose(half_precision_recall(fake * 100, real * 100), exact[:2])


def test_nearest_is_brute_force(monkeypatch):
  monkeypatch.setattr(pairwise, "ROWS", 8)
  monkeypatch.setattr(pairwise, "COLUMNS", 5)
  rng = np.random.default_rng(7)
  x, y = rng.standard_normal((21, 3)), rng.standard_normal((18, 3))
  d = ((x[:, None] - y) ** 2).sum(-1)
  got, index = pairwise.nearest(x, y, 7)
  np.testing.assert_array_equal(index, np.argsort(d, 1)[:, :7])
  np.testing.assert_allclose(got, np.sort(d, 1)[:, :7], atol=1e-12)


def test_copies_are_found_and_new_data_are_not():
  rng = np.random.default_rng(8)
  real, new = rng.standard_normal((400, 6)), rng.standard_normal((300, 6))
  own = copies(real[[7, 3, 399]], real, k=3)
  np.testing.assert_array_equal(own.index[:, 0], [7, 3, 399])
  assert (own.distance[:, 0] == 0).all() and own.identical == 1
  assert own.authenticity == 0
  d = np.sqrt(((new[:, None] - real) ** 2).sum(-1))
  other = copies(new, real, k=3)
  np.testing.assert_allclose(other.distance, np.sort(d, 1)[:, :3])
  among = np.sqrt(((real[:, None] - real) ** 2).sum(-1))
  np.fill_diagonal(among, np.inf)
  ratio = d.min(1) / among.min(1)[d.argmin(1)]
  np.testing.assert_allclose(other.ratio, ratio)
  assert other.identical == 0 and 0.35 < other.authenticity < 0.75
  # Training images that occur twice are copied all the same.
  twice = np.concatenate([real, real])
  assert copies(real[:5], twice).identical == 1
