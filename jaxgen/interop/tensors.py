"""One tensor of a file: its shape is known, its values are read when wanted."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
  """A tensor that still lies in its file.

  Attributes:
    shape: Shape of what `read` returns.
    dtype: Likewise; bfloat16 is that of ml_dtypes.
    read: () -> its values; each call reads them anew.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  def map(
    self, function: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...] | None = None
  ) -> "Tensor":
    """A function of its values, of another shape or the same."""
    shape = self.shape if shape is None else shape
    return Tensor(shape, self.dtype, lambda: function(self.read()))


def lazy(array: np.ndarray) -> Tensor:
  """An array in memory, seen as such a tensor."""
  return Tensor(array.shape, array.dtype, lambda: array)
