"""How strong an image's details are, by scale: what labels say little of.

A network that learned labels need not see noise or blur. Strengths of Haar
wavelets do, and how sparse they are tells photographs from Gaussian noise of
the same spectrum (Field 1987; Simoncelli & Olshausen 2001).
"""

from typing import NamedTuple

import numpy as np

LEVELS = 3  # scales: details of 2, 4 and 8 pixels
LEAST = 16  # pixels of a side, for there to be so many
MOST = 256  # images at a time
FLOOR = 0.25  # of a byte's step, added to strengths: no logarithm of zero
STEADY = 0.05  # standard deviation, of strengths that hardly differ: they are not all there is
# Of the variance of learned features. On photographs at 32 pixels noise of 10 and
# a Gaussian of pixels scored 4 and 52 without textures, images of other
# photographs 66; with a quarter 74, 131 and 87; with as much 300, 374 and 143, but
# then no real image lies near another in k-nearest-neighbour metrics.
WEIGHT = 0.25
# Brightness and two contrasts of colours, orthonormal (Ohta et al. 1980).
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]).T / np.sqrt([3, 2, 6])


def strengths(x: np.ndarray) -> np.ndarray:
  """Logarithms of how strong details are, and how sparse.

  Args:
    x: Images uint8 [N, H, W, 1 or 3], of LEAST pixels or more.

  Returns:
    float32 [N, D]: for each colour, scale and direction (across, down, both) ln
    of the root mean square of the details, and of that over their mean.
  """
  return np.concatenate([_strengths(x[i : i + MOST]) for i in range(0, len(x), MOST)])


def _strengths(x: np.ndarray) -> np.ndarray:
  low, parts = x.astype(np.float32), []
  if low.shape[-1] == 3:
    low = low @ COLOURS.astype(np.float32)
  for _ in range(LEVELS):
    low, details = haar(low)
    for d in details:
      rms = np.sqrt(np.mean(d**2, (1, 2))) + FLOOR
      mean = np.mean(np.abs(d), (1, 2)) + FLOOR
      parts += [np.log(rms), np.log(rms / mean)]
  return np.concatenate(parts, 1)


def haar(x: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
  """[N, H, W, C] -> means of squares of 2x2, and details across, down and both."""
  h, w = (n // 2 * 2 for n in x.shape[1:3])
  a, b = x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2]
  c, d = x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]
  return (a + b + c + d) / 4, ((a - b + c - d) / 4, (a + b - c - d) / 4, (a - b - c + d) / 4)


class Texture(NamedTuple):
  """Strengths as features, beside others of an image.

  Attributes:
    mean: Of training images' strengths, [D].
    scale: That gives each the same variance.
  """

  mean: np.ndarray
  scale: np.ndarray

  @classmethod
  def of(cls, x: np.ndarray, f: np.ndarray) -> "Texture":
    """Of training images [M, H, W, C], whose other features are f [M, F].

    All strengths together have WEIGHT times the variance of these.
    """
    values = strengths(x)
    each = np.sqrt(WEIGHT * f.var(0).sum() / values.shape[1])
    return cls(values.mean(0), each / np.maximum(values.std(0), STEADY))

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] -> features [N, D]."""
    return (strengths(x) - self.mean) * self.scale
