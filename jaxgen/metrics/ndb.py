"""Number of statistically different bins (NDB): which parts of the data are lost.

Richardson & Weiss 2018 ("On GANs and GMMs"), Sec. 2: training features fall into
the cells of K-means; a cell whose share of samples differs from its share of
training data, by a two-proportion z-test, is a different bin.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from jaxgen.metrics.pairwise import nearest

BINS = 50  # DiffWave's, Sec. 4.2
LEVEL = 0.05  # of the test
RESTARTS = 3  # of K-means; the one of least inertia is taken


class Different(NamedTuple):
  """How samples fall into bins.

  Attributes:
    share: Of bins that differ, NDB / K, in [0, 1]; LEVEL by chance.
    divergence: Jensen-Shannon, of samples' and training data's bins, in nats:
      from 0 to ln 2.
  """

  share: float
  divergence: float


class Bins(NamedTuple):
  """Cells of K-means.

  Attributes:
    centres: Of cells, [K, D].
    counts: Training rows in each, int [K].
  """

  centres: np.ndarray
  counts: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray, count: int = BINS, seed: int = 0) -> "Bins":
    """Of training features [M, D], as they are.

    Args:
      features: Training rows.
      count: K, at most a tenth of M, so that cells are no single rows.
      seed: Of where K-means begins.
    """
    from sklearn.cluster import KMeans  # a second, which not every verb should take

    k = max(min(count, len(features) // 10), 1)
    means = KMeans(k, n_init=RESTARTS, random_state=seed).fit(features)
    return cls(means.cluster_centers_, np.bincount(means.labels_, minlength=k))

  def count(self, features: np.ndarray) -> np.ndarray:
    """How many rows [N, D] fall into each bin, int [K]."""
    _, index = nearest(features, self.centres, 1)
    return np.bincount(index[:, 0], minlength=len(self.centres))

  def compare(self, features: np.ndarray) -> Different:
    """Samples' features [N, D] with training data's."""
    own = self.count(features)
    return Different(float(np.mean(differ(own, self.counts))), jensen_shannon(own, self.counts))


def differ(a: np.ndarray, b: np.ndarray, level: float = LEVEL) -> np.ndarray:
  """Whether shares differ, bin by bin: two-sided two-proportion z-tests.

  Args:
    a, b: Counts of two sets, int [K].
    level: Of each test: there is no correction for so many, as published.

  Returns:
    bool [K]; False where neither set has anything, or both have all.
  """
  n, m = a.sum(), b.sum()
  if not n or not m:
    raise ValueError("Shares of nothing.")
  p = (a + b) / (n + m)
  error = np.sqrt(p * (1 - p) * (1 / n + 1 / m))
  gap = np.abs(a / n - b / m)
  return gap > error * -ndtri(level / 2)


def jensen_shannon(a: np.ndarray, b: np.ndarray) -> float:
  """Of two histograms' shares, in nats."""
  p, q = a / a.sum(), b / b.sum()
  middle = (p + q) / 2

  def kl(p):
    return np.sum(p[p > 0] * np.log(p[p > 0] / middle[p > 0]))

  return float((kl(p) + kl(q)) / 2)
