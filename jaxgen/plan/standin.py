"""A data set that need not be there: what a plan asks of it is its shape."""
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxgen.convert.initial_state import Data
from jaxgen.errors import UserError

# As they are stored; what has a size is resized to it.
STORED = {
    "digits": (8, 8, 1), "stacked_digits": (8, 8, 3), "photos": (64, 64, 3),
    "points": (2,), "tfds:cifar10": (32, 32, 3), "tfds:cifar100": (32, 32, 3),
    "tfds:mnist": (28, 28, 1), "tfds:fashion_mnist": (28, 28, 1),
    "tfds:svhn_cropped": (32, 32, 3), "tfds:stl10": (96, 96, 3),
}


def stand_in(config: ConfigDict, shape: Sequence[int] | None = None) -> Data:
  """What the config trains on, without a look at it.

  Args:
    config: Of an experiment.
    shape: Of an example, in place of what the config's data tells.

  Raises:
    UserError: The config does not tell the shape.
  """
  name, size = config.data.source, config.data.size
  stored = STORED.get(name) or STORED.get(name.partition(":")[0])
  if shape is None and (size or stored):
    shape = stored if not size else (
        size, size, stored[-1] if stored else channels(config))
    if len(shape) == 3 and config.data.channels:
      shape = (*shape[:2], config.data.channels)
  if shape is None:
    raise UserError(f"the config does not say how large the images of {name} "
                    "are: say --shape=32,32,3 or --config.data.size=32")
  dtype = np.float32 if len(shape) == 1 else np.uint8
  return Data(name, tuple(shape), config.data.classes, np.dtype(dtype))


def channels(config: ConfigDict) -> int:
  """Of an image: those that a generator makes, or three."""
  return config.model.get("gen", {}).get("channels", 3)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
  """ "32,32,3" -> (32, 32, 3)."""
  try:
    shape = tuple(int(n) for n in text.split(",")) if text else None
  except ValueError:
    shape = (0,)
  if shape is not None and (min(shape) < 1 or len(shape) not in (1, 3)):
    raise UserError(f"shape={text}: want height, width and channels, such as "
                    "32,32,3, or the length of a point")
  return shape
