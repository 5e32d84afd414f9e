"""One tensor of a file: its shape is known, its values are read when wanted."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
  """A tensor that still lies in its file.

  Attributes:
    shape: Of what `read` returns.
    dtype: Likewise; bfloat16 is that of ml_dtypes.
    read: () -> its values; each call reads them anew.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]


def lazy(array: np.ndarray) -> Tensor:
  """An array in memory, seen as such a tensor."""
  return Tensor(array.shape, array.dtype, lambda: array)
