"""Three real digits as the three channels of one image: 1,000 known modes."""

from pathlib import Path

import numpy as np

from jaxgen.data.arrays import Arrays
from jaxgen.data.digits import open_digits
from jaxgen.errors import UserError

# Tests of mode coverage draw 25,600 samples: so many real ones stand beside.
COUNT = {"train": 50_000, "test": 25_600}
MODES = 1000


def open_stacked(split: str, size: int | None, channels: int | None, root: Path) -> Arrays:
  """Images uint8 [N, 8, 8, 3]; y: the number that their digits spell, 0..999.

  Red is the hundreds' digit, green the tens', blue the ones'. What Metz et
  al. (Unrolled GANs, 2017, section 3.3.1) and Srivastava et al. (VEEGAN, 2017,
  section 5.1) make of MNIST, made of the built-in digits: train from training
  digits, test from test digits. Numbers are drawn evenly and apart from each
  other, then a digit of each class: a fixed table, the same on every machine.
  """
  if split not in COUNT:
    raise UserError(f"stacked_digits has the splits train and test, not {split}")
  if channels not in (None, 3):
    raise UserError(f"stacked_digits has 3 channels, not {channels}")
  x, y = open_digits(split, size, 1, root).arrays()
  rng = np.random.Generator(np.random.Philox([list(COUNT).index(split), 1000]))
  numbers = rng.integers(MODES, size=COUNT[split], dtype=np.int32)
  digits = spell(numbers)  # [N, 3]
  counts = np.bincount(y, minlength=10)
  # The examples of digit d, from firsts[d] on, when sorted by their digit.
  by_digit, firsts = np.argsort(y, kind="stable"), np.cumsum(counts) - counts
  rows = by_digit[firsts[digits] + rng.integers(counts[digits])]
  images = np.moveaxis(x[rows, :, :, 0], 1, -1)  # [N, 3, H, W] -> [N, H, W, 3]
  return Arrays("stacked_digits", np.ascontiguousarray(images), numbers, MODES)


def spell(numbers: np.ndarray) -> np.ndarray:
  """Numbers 0..999 [N] -> digits [N, 3], hundreds first."""
  return np.stack([numbers // 100, numbers // 10 % 10, numbers % 10], 1)
