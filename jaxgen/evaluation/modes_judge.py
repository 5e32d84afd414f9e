"""Judges of data whose modes are known: mixtures of points, stacked digits.

Both measure `modes`, how many are found; `high_quality`, the share of samples
that are near one; and `kl`, KL(shares of the modes || uniform) in nats.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxgen.data.arrays import Source
from jaxgen.data.points import is_points
from jaxgen.data.points import modes as modes_of
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.metrics.distances import frechet_rows
from jaxgen.metrics.mode_coverage import kl_to_uniform, modes

Scores = dict[str, list[float]]  # see judge.py
SURE = 0.9  # the least probability of a digit that is recognised


def has_known_modes(source: str) -> bool:
  """Whether a data set is judged by its modes."""
  return is_points(source) or source == "stacked_digits"


def check_look(real: Source, shape: tuple[int, ...], dtype: np.dtype) -> None:
  """UserError unless samples [N, ...] look like the data."""
  if tuple(shape[1:]) != tuple(real.shape) or dtype != real.dtype:
    raise UserError(
      f"samples are {np.dtype(dtype)} {list(shape[1:])}, but {real.name} is "
      f"{real.dtype} {list(real.shape)}"
    )


@dataclasses.dataclass(frozen=True)
class PointsJudge:
  """Knows the modes of a mixture.

  Attributes:
    name: Of the mixture.
    sets: Into which samples are cut, for numbers of each.
    features: In the name of the Fréchet distance, which is of coordinates.
    count: Samples that it likes to see.
  """

  name: str
  sets: int = 1
  features: str = "xy"
  count: int = 10_000

  floor_name = "real test data"

  @property
  def card(self) -> dict[str, Any]:
    return {
      "features": self.features,
      "reference": self.name,
      "protocol": "high quality: within 3 standard deviations of a mode; "
      "found: a mode with such a sample; KL of all samples' "
      "nearest modes" + (f"; means over {self.sets} sets of samples" if self.sets > 1 else ""),
    }

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """Modes found, share of high-quality samples, Fréchet of coordinates."""
    del y, cas
    real, _ = open_source(self.name).arrays()
    parts = np.array_split(x, self.sets)
    each = [modes(part, *modes_of(self.name)) for part in parts]
    return {
      "modes": [coverage.covered for coverage in each],
      "high_quality": [coverage.high_quality for coverage in each],
      "kl": [coverage.kl for coverage in each],
      "frechet@xy": [frechet_rows(part, real) for part in parts],
    }

  def floor(self) -> Scores:
    x, _ = open_source(self.name, split="test").arrays()
    return self.scores(x[: self.count], None)

  def copies(self, x: np.ndarray) -> None:
    """None: of points there are as many as one likes, and none to learn by heart."""


@dataclasses.dataclass(frozen=True, eq=False)
class StackedJudge:
  """Reads the number that three digits spell, by a classifier of digits.

  Attributes:
    test: Real test data.
    logits: Grey images uint8 [N, H, W, 1] -> [N, 10].
    about: Where the classifier comes from.
    count: Of samples, as in the papers.
  """

  test: Source
  logits: Callable[[np.ndarray], np.ndarray]
  about: dict[str, Any]
  features: str = "digits-cnn"
  count: int = 25_600

  floor_name = "real test data"

  @property
  def card(self) -> dict[str, Any]:
    return {
      "features": self.features,
      "classifier": self.about,
      "reference": f"{self.test.name} ({self.test.fingerprint})",
      "protocol": "found: a number that one sample or more is read as "
      "(papers count so), for sure: one of high quality; KL "
      "of all samples' numbers; high "
      "quality: every digit is read with a probability of "
      f"{SURE} or more",
    }

  def read(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, 3] -> numbers 0..999, least sureness in [0, 1]."""
    logits = self.logits(np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1))
    e = np.exp(logits - logits.max(-1, keepdims=True))
    sure = (e.max(-1) / e.sum(-1)).reshape(-1, 3)
    return logits.argmax(-1).reshape(-1, 3) @ [100, 10, 1], sure.min(1)

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """Modes found of 1,000, share of recognisable samples, KL to uniform.

    Whatever a classifier sees, it reads as some number: of an untrained net's
    samples as hundreds. So `modes_sure` counts what is found by high quality.

    Raises:
      UserError: samples do not look like the data.
    """
    del y, cas
    check_look(self.test, x.shape, x.dtype)
    number, sure = self.read(x)
    good = sure >= SURE
    return {
      "modes": [len(np.unique(number))],
      "modes_sure": [len(np.unique(number[good]))],
      "high_quality": [float(np.mean(good))],
      "kl": [kl_to_uniform(number, self.test.classes)],
    }

  def floor(self) -> Scores:
    return self.scores(self.test.arrays()[0][: self.count], None)

  def copies(self, x: np.ndarray) -> None:
    """None: copies of digits are put together in new ways."""
