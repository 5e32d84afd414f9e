"""Fréchet distances of two files of statistics: no images, no network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.scores import METRICS, check_metric, full_name
from jaxgen.evaluation.statistics import Statistics, load
from jaxgen.files import plain
from jaxgen.metrics.distances import frechet


@dataclasses.dataclass(frozen=True)
class Pair:
  """Statistics of samples and of what they imitate.

  Attributes:
    own, real: Each of them.
    protocol: How they are said to be made.
    features: Of which network: its name, and what else is known of it.
    metrics: That are wanted, and can be made.
  """

  own: Statistics
  real: Statistics
  protocol: Protocol
  features: dict[str, Any]
  metrics: tuple[str, ...]

  @classmethod
  def open(
    cls,
    own: Path,
    real: Path,
    protocol: Protocol,
    features: str,
    metrics: Sequence[str] | None = None,
  ) -> "Pair":
    """Reads both; UserError unless they can be compared in that way."""
    pair = [load(p, protocol, features) for p in (own, real)]
    told = {"name": features, "sha256": None}
    for one in pair:
      if not one.made:
        continue
      was = one.made["protocol"]["resize"]
      if was != protocol.resize:
        raise UserError(
          f"{one.path} was made with resize {was}, and protocol "
          f"{protocol.name} has {protocol.resize}"
        )
      if told["sha256"] not in (None, one.made["features"]["sha256"]):
        raise UserError(
          f"{own} and {real} are of features of other weights: these cannot be compared"
        )
      told = one.made["features"]
    return cls(*pair, protocol, told, chosen(*pair, metrics))

  def head(self) -> dict[str, Any]:
    """All of a card but its numbers."""
    return cards.head(self.protocol, self.features, self.real.card | {"manifold": 0}, self.own.card)

  def card(self) -> dict[str, Any]:
    """The card of the comparison."""
    scores, warnings, head = {}, [], self.head()
    for metric in self.metrics:
      a, b = (s.of[METRICS[metric].tap] for s in (self.own, self.real))
      try:
        scores[full_name(metric, self.features["name"], self.protocol)] = frechet(
          a.mu, a.sigma, b.mu, b.sigma
        )
      except ValueError as e:
        raise UserError(f"{metric} cannot be measured: {e}") from e
    for what, s in (("images", self.own), ("reference images", self.real)):
      n, wide = s.card.get("images"), max(len(g.mu) for g in s.of.values())
      if n and n <= wide:
        warnings.append(
          f"fewer {what} ({n:,}) than dimensions ({wide:,}): covariances are "
          "singular, and FID is far too high"
        )
      if not s.made:
        warnings.append(
          f"{s.path.name} does not say how it was made: that it was by "
          f"protocol {self.protocol.name} is taken on trust"
        )
    return plain(head | {"scores": scores, "spread": {}, "warnings": warnings + cards.doubts(head)})


def chosen(own: Statistics, real: Statistics, metrics: Sequence[str] | None) -> tuple[str, ...]:
  """Metrics that both are good for, or UserError."""
  there = [
    m
    for m, about in METRICS.items()
    if about.moments and not about.own and about.tap in own.of and about.tap in real.of
  ]
  widths = [[len(g.mu) for g in s.of.values()] for s in (own, real)]
  if not there or any(
    len(own.of[METRICS[m].tap].mu) != len(real.of[METRICS[m].tap].mu) for m in there
  ):
    raise UserError(
      f"{own.path} is of {widths[0]} features, and {real.path} of {widths[1]}: these are others"
    )
  for metric in metrics or ():
    check_metric(metric)
    if metric not in there:
      raise UserError(
        f"{metric} cannot be made of these two files of "
        f"statistics: --metrics={','.join(there)} would fit"
      )
  return tuple(dict.fromkeys(metrics or there))
