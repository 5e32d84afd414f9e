"""Perceptual hashes of images, and which images are near duplicates.

An image is described by the lowest frequencies of its cosine transform, as by
pHash (Zauner 2010): they survive another file format, another size, a little
blur. Their signs against the median are a hash of 64 bits; pairs whose hashes
differ in few bits are compared by the frequencies themselves.

The limits were set on 3,969 patches of photographs at 64x64: of copies, those
saved as JPEG of quality 75 or 50, halved and enlarged again, or brightened by a
twentieth are 0.01 to 0.06 apart at the median, 0.03 to 0.10 at the 99th
percentile, those cropped by 3% 0.24. Different patches are 0.12 apart at least
(they overlap), 0.19 in 99 of 100 cases; different 8x8 digits 0.19 at least.
"""

from collections.abc import Iterator

import numpy as np

SIDE = 8  # frequencies of each direction
MANY = 100_000  # images of which fewer pairs are looked at, see `near_pairs`
APART = 0.12  # distance of near duplicates, as a share of what is in the image
FLAT = 2.0  # root mean square of grey levels below which an image is of one colour
GRAIN = 2.0**16  # of frequencies: grey levels are cut so finely
CHUNK = 4096


def describe(x: np.ndarray) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> their lowest frequencies, float64 [N, 64].

  Orthonormal DCT-II of luma, divided by sqrt(H W), so that sizes compare: the
  sum of squares is the mean square of grey levels. The mean, [:, 0], is not
  among them: it is 0. Frequencies that a small image lacks are 0, too. Rounded
  to 2^-16, so that no other order of sums turns a bit of the hash.
  """
  n, h, w, _ = x.shape
  rows, columns = cosines(h), cosines(w)
  f = np.empty((n, SIDE, SIDE))
  for i in range(0, n, CHUNK):
    f[i : i + CHUNK] = rows @ luma(x[i : i + CHUNK]) @ columns.T
  f[:, 0, 0] = 0
  return np.round(f.reshape(n, -1) / np.sqrt(h * w) * GRAIN) / GRAIN


def cosines(n: int) -> np.ndarray:
  """The first 8 rows of the orthonormal DCT-II of n points, float64 [8, n]."""
  k, i = np.arange(SIDE)[:, None], np.arange(n)
  matrix = np.sqrt(np.where(k, 2, 1) / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
  return np.where(k < n, matrix, 0)


def luma(x: np.ndarray) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> grey levels float64 [N, H, W], by ITU-R 601."""
  weights = np.array([0.299, 0.587, 0.114] if x.shape[-1] == 3 else [1.0])
  return x @ weights


def hashes(x: np.ndarray, f: np.ndarray) -> np.ndarray:
  """Images uint8 [N, H, W, C] and `describe` of them -> uint64 [N].

  Bit k says whether frequency k is above the median of those there are. An
  image of one colour has none: its hash is that colour, in steps of 16.
  """
  there = (cosines(x.shape[1]).any(1)[:, None] & cosines(x.shape[2]).any(1)).ravel()
  there[0] = False
  bits = (f > np.median(f[:, there], axis=1, keepdims=True)) & there
  flat = is_flat(f)
  bits[flat] = False
  colour = x[flat].mean((1, 2)).astype(np.uint8) >> 4  # [n, C]
  for c in range(colour.shape[1]):
    bits[flat, 1 + 4 * c : 5 + 4 * c] = np.unpackbits(colour[:, c, None], axis=1)[:, 4:]
  return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def is_flat(f: np.ndarray) -> np.ndarray:
  """Which images [N, 64] are of one colour, as far as low frequencies say."""
  return np.linalg.norm(f, axis=1) < FLAT


def near_pairs(h: np.ndarray, f: np.ndarray, apart: float = APART) -> np.ndarray:
  """Pairs (i, j), i < j, of near duplicates, int64 [P, 2], sorted.

  Hashes that differ in at most 7 of 64 bits agree in one of eight bytes: pairs
  are looked for among those alone, N^2 / 64 of them for hashes by chance. Of
  more than 100,000 images hashes may differ in 3 bits: they agree in one of four
  words of 16.

  Args:
    h: Hashes [N].
    f: Frequencies [N, 64]; or what else describes images, on the same scale.
    apart: Distance of near duplicates, as a share of what is in the image.
  """
  word = np.uint8 if len(h) <= MANY else np.uint16
  most = h.itemsize // np.dtype(word).itemsize - 1
  size, flat = np.linalg.norm(f, axis=1), is_flat(f)
  pairs = [np.empty((0, 2), np.int64)]
  for i, j in candidates(h, word):
    close = np.bitwise_count(h[i] ^ h[j]) <= most
    i, j = i[close], j[close]
    far = [np.linalg.norm(f[a] - f[b], axis=1) for a, b in zip(split(i), split(j), strict=True)]
    alike = np.concatenate(far) <= apart * np.minimum(size[i], size[j])
    alike = np.where(flat[i] | flat[j], flat[i] & flat[j] & (h[i] == h[j]), alike)
    pairs.append(np.sort(np.stack([i[alike], j[alike]], 1), axis=1))
  return np.unique(np.concatenate(pairs), axis=0)


def split(rows: np.ndarray) -> list[np.ndarray]:
  """Rows in parts of which descriptions find room in memory."""
  return np.array_split(rows, len(rows) // (4 * CHUNK) + 1)


def candidates(h: np.ndarray, word: type) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Index arrays (i, j) of all pairs of hashes with a word in common."""
  for column in h[:, None].view(word).T:
    order = np.argsort(column, kind="stable")
    end = np.searchsorted(column[order], column[order], side="right")
    later = end - np.arange(len(column)) - 1  # of the same word, for each
    for rows in parts(later):
      i = np.repeat(np.arange(rows.start, rows.stop), later[rows])
      first = np.repeat(np.cumsum(later[rows]) - later[rows], later[rows])
      yield order[i], order[i + 1 + np.arange(len(i)) - first]


def parts(counts: np.ndarray, most: int = 1 << 21) -> Iterator[slice]:
  """Slices of rows whose counts add up to about `most`."""
  part = np.cumsum(counts) // most
  edges = np.flatnonzero(np.diff(part, prepend=-1))
  for a, b in zip(edges, [*edges[1:], len(counts)], strict=True):
    yield slice(a, b)


def groups(n: int, pairs: np.ndarray) -> np.ndarray:
  """Number of each of n images' group, int64 [n]: pairs are of one group.

  A group has the number of its first image.
  """
  first = np.arange(n)
  while True:
    low = np.minimum(first[pairs[:, 0]], first[pairs[:, 1]])
    new = first.copy()
    np.minimum.at(new, pairs.ravel(), np.repeat(low, 2))
    new = new[new]
    if (new == first).all():
      return first
    first = new
