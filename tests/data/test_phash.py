"""Near duplicates by perceptual hash: against brute force, and on real pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import phash
from jaxgen.data.sources import open_source


def texture(rng, size=32, channels=3):
  """A smooth random image of one tint, uint8 [size, size, channels]."""
  scales = [Image.fromarray(rng.integers(0, 256, (n, n), np.uint8)) for n in (3, 6, 12)]
  grey = np.mean([image.resize((size, size), Image.Resampling.BICUBIC) for image in scales], 0)
  return (grey[..., None] * rng.uniform(0.6, 1, channels)).astype(np.uint8)


@pytest.fixture(scope="module")
def textures():
  rng = np.random.default_rng(0)
  return np.stack([texture(rng) for _ in range(300)])


def saved(x, **how):
  file = io.BytesIO()
  Image.fromarray(x).save(file, **how)
  return np.asarray(Image.open(file).convert("RGB"))


def resized(x, size):
  return np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))


def test_frequencies_are_an_orthonormal_transform():
  x = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1), np.uint8)
  grey = x[..., 0].astype(float)
  f = phash.describe(x)
  # Parseval: all frequencies of an 8x8 image are there, but for the mean.
  np.testing.assert_allclose((f**2).sum(1), grey.var((1, 2)), rtol=1e-5)
  assert not f[:, 0].any()


def test_a_cosine_is_one_frequency():
  wave = 100 * np.cos(np.pi * 3 * (2 * np.arange(64) + 1) / 128)
  x = (128 + np.broadcast_to(wave, (64, 64))).round().astype(np.uint8)[None, ..., None]
  f = phash.describe(x)[0].reshape(8, 8)
  assert np.unravel_index(np.abs(f).argmax(), f.shape) == (0, 3)
  assert f[0, 3] == pytest.approx(100 / np.sqrt(2), rel=1e-2)


@pytest.mark.parametrize("word", [np.uint8, np.uint16])
def test_candidates_are_all_pairs_that_share_a_word(word):
  rng = np.random.default_rng(2)
  h = rng.integers(0, 1 << 18, 200, np.uint64)  # many high words are equal
  pairs = {
    (min(a, b), max(a, b)) for i, j in phash.candidates(h, word) for a, b in zip(i, j, strict=True)
  }
  words = h[:, None].view(word)
  share = (words[:, None] == words[None]).any(-1)
  assert pairs == {(i, j) for i in range(200) for j in range(i + 1, 200) if share[i, j]}


def test_near_pairs_are_those_of_brute_force(textures):
  rng = np.random.default_rng(3)
  noise = rng.normal(0, 12, textures.shape)
  x = np.concatenate([textures, np.clip(textures + noise, 0, 255).astype(np.uint8)])
  f = phash.describe(x)
  h = phash.hashes(x, f)
  size = np.linalg.norm(f, axis=1)
  near = {
    (i, j)
    for i in range(len(x))
    for j in range(i + 1, len(x))
    if bin(int(h[i]) ^ int(h[j])).count("1") <= 7
    and np.linalg.norm(f[i] - f[j]) <= phash.APART * min(size[i], size[j])
  }
  assert len(near) > 200
  assert set(map(tuple, phash.near_pairs(h, f))) == near


@pytest.mark.parametrize(
  "copy",
  [
    lambda x: saved(x, format="JPEG", quality=90),
    lambda x: saved(x, format="WEBP", quality=90),
    lambda x: np.clip(x.astype(int) + 10, 0, 255).astype(np.uint8),
    lambda x: resized(resized(x, 24), 32),
  ],
  ids=["jpeg", "webp", "brighter", "resized"],
)
def test_copies_are_near_and_others_are_not(textures, copy):
  x = np.concatenate([textures, np.stack([copy(image) for image in textures])])
  f = phash.describe(x)
  pairs = phash.near_pairs(phash.hashes(x, f), f)
  own = pairs[:, 1] - pairs[:, 0] == 300
  assert own.sum() > 270 and (~own).sum() == 0


def test_digits_of_different_people_are_not_near():
  x, _ = open_source("digits").arrays()
  f = phash.describe(x)
  assert len(phash.near_pairs(phash.hashes(x, f), f)) <= len(x) // 100


def test_images_of_one_colour_are_near_those_of_that_colour():
  colours = np.array([[0, 0, 0], [1, 1, 1], [255, 255, 255], [200, 10, 10]], np.uint8)
  x = np.broadcast_to(colours[:, None, None], (4, 16, 16, 3))
  f = phash.describe(x)
  assert phash.near_pairs(phash.hashes(x, f), f).tolist() == [[0, 1]]


def test_groups_are_connected_components():
  pairs = np.array([[7, 9], [1, 2], [2, 5], [5, 7], [3, 4]])
  assert phash.groups(10, pairs).tolist() == [0, 1, 1, 3, 3, 1, 6, 1, 8, 1]
  assert phash.groups(3, np.empty((0, 2), int)).tolist() == [0, 1, 2]
