"""Mixtures of Gaussians in the plane: every mode of the data is known."""

import numpy as np

from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError

COUNT = {"train": 100_000, "test": 20_000}
MIXTURES = ("ring8", "grid25")
PREFIX = "points:"


def is_points(source: str) -> bool:
  """Whether config.data.source names a mixture."""
  return source.startswith(PREFIX)


def modes(name: str) -> tuple[np.ndarray, float]:
  """The modes' centres [K, 2] and their common std, in the units of x.

  "ring8": 8 modes on a circle of radius 2, std .02 (Metz et al., Unrolled
  GANs, 2017), divided by 2.5. "grid25": coordinates -4, -2, .., 4 squared,
  std .05 (Lin et al., PacGAN, 2018), divided by 5. So the outermost centres
  lie .8 from the origin along an axis and every draw within [-1, 1].
  """
  name = name.removeprefix(PREFIX)
  if name == "ring8":
    angle = np.arange(8) * np.pi / 4
    return 2 / 2.5 * np.stack([np.cos(angle), np.sin(angle)], 1), 0.02 / 2.5
  if name == "grid25":
    line = np.arange(-4, 5, 2) / 5
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    return grid.reshape(25, 2), 0.05 / 5
  raise UserError(f"there are no points '{name}'; there are {' and '.join(MIXTURES)}")


def open_points(name: str, split: str) -> Arrays:
  """A fixed table of draws: x float32 [N, 2], y the mode it came from.

  Every mode has the same number of draws; the splits are drawn apart.
  """
  centres, std = modes(name)
  if split not in COUNT:
    raise UserError(f"points:{name} has the splits train and test, not {split}")
  rng = np.random.Generator(np.random.Philox([list(COUNT).index(split), 8]))
  y = np.arange(COUNT[split]) % len(centres)
  x = centres[y] + std * rng.standard_normal((len(y), 2))
  return Arrays(f"points:{name}", x.astype(np.float32), y.astype(np.int32), len(centres))
