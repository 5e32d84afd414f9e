"""PRDC against brute force, hand-made cases and the direction of each."""

import numpy as np
import pytest

from jaxgen.metrics import prdc as module
from jaxgen.metrics.prdc import PRDC, prdc


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
  found = [any(x <= r for x, r in zip(c, r_fake, strict=True)) for c in columns]
  balls = [sum(x < r for x, r in zip(p, r_ball, strict=True)) for p in pairs]
  covered = [min(c) < r for c, r in zip(columns, r_ball, strict=True)]
  return PRDC(
    float(np.mean(inside)),
    float(np.mean(found)),
    float(np.mean(balls)) / k_ball,
    float(np.mean(covered)),
  )


@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_prdc_is_brute_force_whatever_the_block(block, monkeypatch):
  monkeypatch.setattr(module, "BLOCK", block)
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
