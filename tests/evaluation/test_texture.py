"""Strengths of details: closed forms, and what learned labels do not see."""

import numpy as np
import pytest

from jaxgen.evaluation import texture
from jaxgen.evaluation.texture import FLOOR, LEVELS, WEIGHT, Texture, haar, strengths


def test_haar_keeps_all_energy_and_finds_directions():
  x = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
  low, details = haar(x)
  energy = 4 * sum(np.sum(a**2) for a in (low, *details))
  assert energy == pytest.approx(np.sum(x**2))
  stripes = np.tile([0.0, 2.0], 4)[None, None, :, None] * np.ones((1, 8, 8, 1))
  low, (across, down, both) = haar(stripes)
  assert (low == 1).all() and (across == -1).all() and not down.any() and not both.any()


def test_strengths_are_roots_of_mean_squares_and_how_sparse_they_are(monkeypatch):
  x = np.zeros((3, 16, 16, 1), np.uint8)
  x[1, :, ::2] = 20  # stripes one pixel wide
  x[2, 0, 0] = 160  # a single point
  f = strengths(x).reshape(3, LEVELS, 3, 2)  # scales, directions, (rms, sparsity)
  assert f[0] == pytest.approx(np.tile([np.log(FLOOR), 0.0], (LEVELS, 3, 1)), abs=1e-5)
  assert f[1, 0, 0] == pytest.approx([np.log(10 + FLOOR), 0.0], abs=1e-5)
  assert f[1, 0, 1:, 0] == pytest.approx(np.log(FLOOR), abs=1e-5)
  rms, mean = 40 / 8, 40 / 64  # one of the 64 squares of 2x2 has details, of 40
  assert f[2, 0, 0] == pytest.approx([np.log(rms + 0.25), np.log(5.25 / (mean + 0.25))], abs=1e-5)
  monkeypatch.setattr(texture, "MOST", 2)
  np.testing.assert_array_equal(strengths(x).ravel(), f.ravel())


def test_noise_and_blur_are_far_and_spread_is_the_features():
  rng = np.random.default_rng(0)
  smooth = rng.normal(size=(40, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
  x = np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)
  f = 3.0 * rng.normal(size=(40, 7))
  look = Texture.of(x, f)
  own = look(x)
  varies = strengths(x).std(0) > 0.05
  assert own.mean(0) == pytest.approx(0, abs=1e-4)
  assert own[:, varies].var(0) == pytest.approx(WEIGHT * f.var(0).sum() / own.shape[1], rel=1e-3)
  noisy = np.clip(x + 5 * rng.normal(size=x.shape), 0, 255).astype(np.uint8)
  assert np.linalg.norm(look(noisy).mean(0)) > 3 * np.linalg.norm(own.std(0))
