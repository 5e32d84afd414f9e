"""Fréchet distances of two files of statistics: no images, no network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation.collect import Collected
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.scores import METRICS, Comparison, check_metric, score, singular
from jaxgen.evaluation.statistics import Reference, load
from jaxgen.files import plain


@dataclasses.dataclass(frozen=True)
class StatisticsPair:
  """Statistics of samples and of what they imitate.

  Attributes:
    own, real: Each of them.
    protocol: How they are taken to be made.
    features: Of which network: its name, and what else is known of it.
    metrics: That are wanted, and can be made.
  """

  own: Reference
  real: Reference
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
  ) -> "StatisticsPair":
    """Reads both; UserError unless they can be compared in that way."""
    pair = [load(p, protocol, features) for p in (own, real)]
    network = {"name": features, "sha256": None}
    for one in pair:
      if not one.info:
        continue
      resize = one.info["protocol"]["resize"]
      if resize != protocol.resize:
        raise UserError(
          f"{one.path} was made with resize {resize}, and protocol "
          f"{protocol.name} has {protocol.resize}"
        )
      if network["sha256"] not in (None, one.info["features"]["sha256"]):
        raise UserError(
          f"{own} and {real} are of features of other weights: these cannot be compared"
        )
      network = one.info["features"]
    return cls(*pair, protocol, network, possible_metrics(*pair, metrics))

  def head(self) -> dict[str, Any]:
    """All of a card but its numbers."""
    return cards.head(self.protocol, self.features, self.real.card | {"manifold": 0}, self.own.card)

  def card(self) -> dict[str, Any]:
    main, warnings, head = self.protocol.layer, [], self.head()
    own, real = (
      Collected(0, {tap or main: g for tap, g in s.statistics.items()}, {}, np.zeros(3))
      for s in (self.own, self.real)
    )
    compared = Comparison(own, real, (main, *own.moments), self.protocol)
    values, _ = score(compared, self.metrics, self.features["name"], strict=True)
    for what, s in (("images", self.own), ("reference images", self.real)):
      width = max(len(g.mu) for g in s.statistics.values())
      warnings += singular(what, s.card.get("images") or 0, width)
      if not s.info:
        warnings.append(
          f"{s.path.name} does not say how it was made: that it was by "
          f"protocol {self.protocol.name} is taken on trust"
        )
    scores = {name: value for name, (value, _) in values.items()}
    return plain(head | {"scores": scores, "spread": {}, "warnings": warnings + cards.doubts(head)})


def possible_metrics(
  own: Reference, real: Reference, metrics: Sequence[str] | None
) -> tuple[str, ...]:
  """Metrics that both are good for, or UserError."""
  taps = own.statistics.keys() & real.statistics.keys()
  possible = [m for m, u in METRICS.items() if u.moments and not u.own and u.tap in taps]
  widths = [{tap: len(g.mu) for tap, g in s.statistics.items()} for s in (own, real)]
  if not possible or any(widths[0][tap] != widths[1][tap] for tap in taps):
    of = [list(w.values()) for w in widths]
    raise UserError(
      f"{own.path} is of {of[0]} features, and {real.path} of {of[1]}: these are others"
    )
  for metric in metrics or ():
    check_metric(metric)
    if metric not in possible:
      raise UserError(
        f"{metric} cannot be made of these two files of "
        f"statistics: --metrics={','.join(possible)} would fit"
      )
  return tuple(dict.fromkeys(metrics or possible))
