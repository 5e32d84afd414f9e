"""Patches of the photographs that scikit-learn and scikit-image ship.

No download: the files lie in their wheels (scikit-image's in the extra
`photos`). Training and test patches are of different photographs, so that
what is measured on the test split is never a matter of having seen it.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np

from jaxgen.data import image
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError

# Cat, cup and dahlia are held out: everyday things, of fur, wood grain, glaze
# and petals. The motorcycle's stereo twin is left out, and what is drawn or
# grey.
PHOTOS = {
  "train": (
    "sklearn/datasets/images/china.jpg",
    "skimage/data/astronaut.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/rocket.jpg",
    "skimage/data/ihc.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/retina.jpg",
  ),
  "test": (
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
  ),
}
SIZE = 64  # pixels of a patch's side
STRIDE = 20  # pixels from one patch to the next, at every scale
SHRINKS = 1, 2, 4  # of a photograph, by box means
SHORT = 400  # larger photographs are shrunk first: about this short a side
FLAT = 8.0  # patches whose grey values vary less (their std) are left out


def open_photos(split: str, size: int | None, channels: int | None) -> Arrays:
  """Patches uint8 [N, 64, 64, 3]; y: which photograph of its split it is of.

  At a size that divides 64, patches are exact box means of those at 64,
  rounded once, ties up: `size` 16, 32 and 64 are the same patches, in the
  same order. So a cascade's stages agree on what they see. Other sizes are
  made as everywhere, see image.crop.

  There are as many `classes` as training photographs, in both splits: labels
  of either fit a model of the other. But a label of the test split is of a
  photograph that no training patch has: nothing that learned labels from
  `train` can be right or wrong about `test`.

  Args:
    split: "train" or "test".
    size: Side of the patches; by default 64.
    channels: 1 or 3; by default 3.

  Raises:
    UserError: for another split, or without scikit-image.
  """
  if split not in PHOTOS:
    raise UserError(f"photos has the splits train and test, not {split}")
  x, y = patches(split)
  small = means(x, SIZE // size) if size and SIZE % size == 0 else x
  fit = image.fit(small, size, channels)
  # Random crops are cut from the patches at 64.
  original = None if fit.shape == x.shape else image.Stack(x, fit.shape[-1])
  return Arrays("photos", fit, y, len(PHOTOS["train"]), original=original)


@functools.lru_cache(maxsize=2)
def patches(split: str) -> tuple[np.ndarray, np.ndarray]:
  """The patches of a split: x uint8 [N, 64, 64, 3], y int32 [N].

  Photograph by photograph, from fine to coarse, row by row.
  """
  x = [of_photo(image.decode(locate(f), None, 3)) for f in PHOTOS[split]]
  y = np.repeat(np.arange(len(x), dtype=np.int32), [len(a) for a in x])
  x = np.concatenate(x)
  for a in (x, y):  # they are shared
    a.setflags(write=False)
  return x, y


def of_photo(photo: np.ndarray) -> np.ndarray:
  """The patches of one photograph uint8 [H, W, 3], uint8 [n, 64, 64, 3]."""
  least = max(1, min(photo.shape[:2]) // SHORT)
  patches = []
  for shrink in SHRINKS:
    x = means(photo, least * shrink)
    tiles = np.lib.stride_tricks.sliding_window_view(x, (SIZE, SIZE), (0, 1))
    tiles = tiles[::STRIDE, ::STRIDE].transpose(0, 1, 3, 4, 2)
    patches.append(tiles.reshape(-1, SIZE, SIZE, 3))
  patches = np.concatenate(patches)
  return patches[patches.mean(-1).std((1, 2)) >= FLAT]


def means(x: np.ndarray, box: int) -> np.ndarray:
  """Over boxes, uint8 [.., H, W, C] -> [.., H // box, W // box, C]; ties up.

  In integers, unlike PIL's, which errs where `box` is no power of two.
  """
  *batch, h, w, channels = x.shape
  h, w = h // box, w // box
  x = x[..., : h * box, : w * box, :]
  boxes = x.reshape(*batch, h, box, w, box, channels)
  sums = boxes.sum((-4, -2), dtype=np.uint32)
  return ((2 * sums + box**2) // (2 * box**2)).astype(np.uint8)


def locate(name: str) -> Path:
  """A file within an installed package, which is not imported."""
  package, _, file = name.partition("/")
  spec = importlib.util.find_spec(package)
  if spec is None:
    raise UserError(
      "photos wants the pictures that scikit-image ships: pip install 'jaxgen[photos]'"
    )
  path = Path(spec.submodule_search_locations[0], file)
  if not path.is_file():
    raise UserError(
      f"this version of {package} has no {file}: photos wants"
      " scikit-image 0.26 and scikit-learn 1.6 or newer"
    )
  return path
