"""Images spoilt on purpose, and masks of where: what a detector has to find."""

import numpy as np
from PIL import Image, ImageFilter

# Name -> what becomes of the spot.
KINDS = {
  "blur": "blurred by a Gaussian of a sixteenth of the side",
  "patch": "replaced by the same place of another image",
  "noise": "with Gaussian noise of 40 of 255 added",
}
SMALLEST, LARGEST = 0.1, 0.22  # half axes of a spot, as shares of the side


def spoil(x: np.ndarray, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Images with one elliptic spot each, and masks of the spots.

  Args:
    x: uint8 [N, H, W, C]; of "patch" at least two.
    kind: One of KINDS.
    seed: Of the spots.

  Returns:
    Images as they were but for the spots, and bool [N, H, W].
  """
  rng = np.random.default_rng(seed)
  masks = np.stack([spot(x.shape[1:3], rng) for _ in x])
  if kind == "patch":
    other = np.roll(x, 1, 0)
  elif kind == "blur":
    radius = max(x.shape[1:3]) / 16
    other = np.stack([blurred(image, radius) for image in x])
  elif kind == "noise":
    noisy = x + rng.normal(0, 40, x.shape)
    other = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
  else:
    raise ValueError(f"there is no blemish {kind!r}, but {', '.join(KINDS)}.")
  return np.where(masks[..., None], other, x), masks


def spot(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
  """An ellipse anywhere within an image, bool [H, W]."""
  side = np.array(shape)
  half = side * rng.uniform(SMALLEST, LARGEST, 2)
  centre = rng.uniform(half, side - half)
  y, x = (np.arange(n) + 0.5 for n in shape)
  return ((y[:, None] - centre[0]) / half[0]) ** 2 + ((x - centre[1]) / half[1]) ** 2 <= 1


def blurred(image: np.ndarray, radius: float) -> np.ndarray:
  """uint8 [H, W, C], by PIL's Gaussian."""
  grey = image.shape[-1] == 1
  picture = Image.fromarray(image[..., 0] if grey else image)
  return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius))).reshape(image.shape)
