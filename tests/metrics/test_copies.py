"""Copies of training images among samples, by what new images are like."""

import numpy as np
import pytest

from jaxgen.metrics.copies import copy_share, nearness

RNG = np.random.default_rng(0)
REAL, HELD, OTHER = (RNG.integers(0, 256, (n, 4, 4, 3)).astype(np.uint8) for n in (60, 40, 80))


def near(x):
  """Features are the pixels themselves, their mean over mirror images."""
  look = lambda a: (a.astype(float) + a[:, :, ::-1]).reshape(len(a), -1) / 2
  return nearness(look(x), x, look(REAL), REAL)


def test_distances_by_brute_force():
  own = near(HELD)
  f = lambda a: (a.astype(float) + a[:, ::-1]) / 2
  for i, x in enumerate(HELD):
    d = [np.linalg.norm(f(x) - f(y)) for y in REAL]
    y = REAL[np.argmin(d)].astype(float)
    assert own.image[i] == np.argmin(d) and own.features[i] == pytest.approx(min(d))
    pixels = min(np.sqrt(np.mean((x - z) ** 2)) for z in (y, y[:, ::-1]))
    assert own.pixels[i] == pytest.approx(pixels)


def test_copies_are_counted_and_shown_first():
  held = near(HELD)
  # A copy, one with a little noise, a mirror image; and new ones.
  noisy = np.clip(REAL[7].astype(int) + RNG.integers(-3, 4, (4, 4, 3)), 0, 255).astype(np.uint8)
  x = np.concatenate([OTHER[:37], REAL[[3]], noisy[None], REAL[[9], :, ::-1]])
  share = copy_share(near(x), held, most=3)
  assert set(share.samples) == {37, 38, 39} and set(share.images) == {3, 7, 9}
  assert list(share.samples)[-1] == 38  # the only one that is not exact
  others = copy_share(near(OTHER[:37]), held).share
  assert share.share == pytest.approx((3 + 37 * others) / 40)


def test_new_images_are_no_copies():
  held = near(HELD)
  again, others = copy_share(held, held), copy_share(near(OTHER), held)
  assert again.share == again.floor <= 0.05
  assert others.floor == again.floor and others.share <= 0.15
  assert copy_share(near(REAL), held).share == 1
