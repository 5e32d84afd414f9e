"""How sure one is of a rate."""

import math
from statistics import NormalDist


def rate_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
  """Where a rate lies of which k of n independent trials were seen (Wilson 1927)."""
  if not 0 <= k <= n or not n:
    raise ValueError(f"{k} of {n} is no rate.")
  z = NormalDist().inv_cdf((1 + level) / 2)
  middle, half = k + z**2 / 2, z * math.sqrt(k * (n - k) / n + z**2 / 4)
  low = 0.0 if k == 0 else (middle - half) / (n + z**2)
  return low, 1.0 if k == n else (middle + half) / (n + z**2)
