"""Student's interval of a mean."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
  """Where the mean of what two or more values are draws of lies, by Student's t."""
  n = len(values)
  half = stdtrit(n - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n)
  return float(np.mean(values) - half), float(np.mean(values) + half)
