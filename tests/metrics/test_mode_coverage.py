"""Modes found, by hand and against the closed form."""

import numpy as np

from jaxgen.metrics.mode_coverage import modes

RING = np.stack([np.cos(np.arange(8)), np.sin(np.arange(8))], 1)


def test_a_perfect_sampler():
  rng = np.random.default_rng(0)
  y = np.arange(40_000) % 8
  x = RING[y] + 0.02 * rng.standard_normal((len(y), 2))
  got = modes(x, RING, 0.02)
  assert got.covered == 8
  # |x - centre|^2 / std^2 is chi-squared with two degrees of freedom.
  np.testing.assert_allclose(got.high_quality, 1 - np.exp(-4.5), atol=2e-3)
  assert got.kl < 1e-3


def test_a_collapsed_sampler():
  got = modes(np.tile(RING[3], (50, 1)), RING, 0.02)
  assert got.covered == 1 and got.high_quality == 1
  np.testing.assert_allclose(got.kl, np.log(8))


def test_a_mode_needs_one_good_sample_only():
  centres = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
  x = np.array([[0.0, 0.0], [0.0, 2.9], [10.0, 3.1], [np.nan, 0.0]])
  got = modes(x, centres, 1.0)
  assert got.covered == 1 and got.high_quality == 0.5
  q = np.array([2, 1]) / 3
  np.testing.assert_allclose(got.kl, np.sum(q * np.log(3 * q)))
  assert modes(x, centres, 1.0, radius=3.2).covered == 2
  assert modes(x[3:], centres, 1.0) == (0, 0.0, np.inf)
