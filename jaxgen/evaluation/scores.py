"""From collected features to numbers, each under a name that says its make."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgen.errors import UserError, nearest
from jaxgen.evaluation.collect import Collected, Plan
from jaxgen.evaluation.protocols import Protocol
from jaxgen.metrics.copies import Copies
from jaxgen.metrics.copies import copies as find_copies
from jaxgen.metrics.distances import frechet, frechet_infinity, frechet_rows
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kid import kid as kernel_distance
from jaxgen.metrics.prdc import PRDC, half_precision_recall, prdc

Values = dict[str, tuple[float, float | None]]  # name -> value, its spread
LOWER = ("fid", "sfid", "frechet", "sfrechet", "kid")  # is better
HIGHER = ("is", "precision", "recall", "density", "coverage", "cas")


@dataclasses.dataclass(eq=False)
class Given:
  """All that a metric may look at: samples (`own`) and the reference."""

  own: Collected
  real: Collected
  taps: tuple[str, ...]
  protocol: Protocol
  labels: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
  manifold: np.ndarray | None = None  # rows of the reference; None: all
  tick: Callable[[str, int, int], object] = lambda *_: None  # what, done, of
  class_names: tuple[str, ...] = ()
  by_class: dict[str, float] = dataclasses.field(default_factory=dict)
  copies: Copies | None = None

  @property
  def main(self) -> str:
    """The tap of Fréchet distances."""
    return main_tap(self.taps, self.protocol)

  @property
  def x(self) -> np.ndarray:
    """Features of samples, [N, D]."""
    return self.own.rows[self.main]

  @property
  def y(self) -> np.ndarray:
    """Features of the reference, [M, D]: all of them."""
    return self.real.rows[self.main]

  @property
  def near(self) -> np.ndarray:
    """Those of the reference that manifolds are made of."""
    return self.y if self.manifold is None else self.y[self.manifold]

  def name_of(self, label: int) -> str:
    """Of a class, if that is known, or its number."""
    if not self.class_names:
      return str(label)
    known = label < len(self.class_names)
    return self.class_names[label] if known else f"#{label}"

  @functools.cached_property
  def prdc(self) -> PRDC:
    """Precision, recall, density and coverage are made in one go."""
    total = 2 * len(self.x) + len(self.near)
    return prdc(
      self.x,
      self.near,
      k=self.protocol.k,
      k_ball=(self.protocol.k_ball),
      tick=lambda n: self.tick("pr", n, total),
    )


def _frechet(given: Given, name: str, tap: str) -> Values:
  a, b = given.own.moments[tap], given.real.moments[tap]
  return {name: (frechet(a.mu, a.sigma, b.mu, b.sigma), None)}


def _is(given: Given, name: str, tap: str) -> Values:
  p = given.protocol
  return {
    name: inception_score(
      given.own.rows[tap], splits=p.splits, size=p.split_size, shuffle=p.shuffle
    )
  }


def _kid(given: Given, name: str, tap: str) -> Values:
  p, x, y = given.protocol, given.x, given.near
  size = min(p.kid_size, len(x), len(y)) if p.kid_shrinks else p.kid_size
  return {
    name: kernel_distance(
      x, y, p.kid_subsets, size, p.kid_seed, lambda n: given.tick("kid", n, p.kid_subsets)
    )
  }


def _pr(given: Given, name: str, tap: str) -> Values:
  return {"precision": (given.prdc.precision, None), "recall": (given.prdc.recall, None)}


def _dc(given: Given, name: str, tap: str) -> Values:
  return {"density": (given.prdc.density, None), "coverage": (given.prdc.coverage, None)}


def _pr_fp16(given: Given, name: str, tap: str) -> Values:
  p, r = half_precision_recall(given.x, given.near, given.protocol.k)
  return {"precision_fp16": (p, None), "recall_fp16": (r, None)}


def _infinity(given: Given, name: str, tap: str) -> Values:
  return {name: tuple(frechet_infinity(given.x, given.real.moments[tap]))}


def _by_class(given: Given, name: str, tap: str) -> Values:
  (u, v), values = given.labels, given.by_class
  if u is None or v is None:
    raise ValueError("labels of samples and of the reference must be known")
  for label in np.intersect1d(u, v):
    x, y = given.x[u == label], given.y[v == label]
    if min(len(x), len(y)) > 1:
      values[given.name_of(label)] = frechet_rows(x, y)
  if not values:
    raise ValueError("no class has two images of either kind")
  return {name: (float(np.mean(list(values.values()))), None)}


def _copies(given: Given, name: str, tap: str) -> Values:
  x, y = given.x, given.y
  given.copies = find_copies(
    x, y, min(5, len(y) - 1), lambda n: given.tick("copies", n, len(x) + len(y))
  )
  return {
    "authenticity": (given.copies.authenticity, None),
    "identical": (given.copies.identical, None),
  }


class Metric(NamedTuple):
  """How a metric is made, and of what.

  tap: of the extractor; "" is the main one, "logits" the protocol's.
  moments, own, real: whether it takes moments of both, rows of samples, rows
    of the reference.
  """

  measure: Callable[[Given, str, str], Values]
  tap: str = ""
  moments: bool = False
  own: bool = False
  real: bool = False


METRICS = {
  "fid": Metric(_frechet, moments=True),
  "sfid": Metric(_frechet, "spatial", moments=True),
  "fid64": Metric(_frechet, "64", moments=True),
  "fid192": Metric(_frechet, "192", moments=True),
  "fid768": Metric(_frechet, "768", moments=True),
  "is": Metric(_is, "logits", own=True),
  "kid": Metric(_kid, own=True, real=True),
  "pr": Metric(_pr, own=True, real=True),
  "pr_fp16": Metric(_pr_fp16, own=True, real=True),
  "dc": Metric(_dc, own=True, real=True),
  "fid_infinity": Metric(_infinity, moments=True, own=True),
  "fid_by_class": Metric(_by_class, own=True, real=True),
  "copies": Metric(_copies, own=True, real=True),
}


def check_metric(name: str) -> None:
  """UserError with a guess, unless there is such a metric."""
  if name not in METRICS:
    digits = "".join(c for c in name if c.isdigit())
    layer = f"fid{digits}"  # fid_by_768, fid-768, 768: a layer's width
    raise UserError(
      f"there is no metric {name!r}"
      + (f"; did you mean {layer!r}?" if layer in METRICS and digits else nearest(name, METRICS))
    )


def lacks(
  metric: str, own: int, real: int, labels: tuple[Any, Any], protocol: Protocol
) -> str | None:
  """Why a metric cannot be made of so many images, if it cannot.

  Args:
    metric: One of METRICS.
    own: How many samples there are.
    real: Images of the reference; 0: none, its statistics are known.
    labels: Of samples and of the reference, or None.
    protocol: How it is made.
  """
  near = min(real, protocol.manifold)
  size, k = protocol.kid_size, protocol.k
  if metric == "kid" and not protocol.kid_shrinks and min(own, near) < size:
    return (
      f"KID on subsets of {size} needs as many images of each kind, and "
      f"there are {own} and {near}; use a smaller --kid_size"
    )
  far = k if metric == "pr_fp16" else max(k, protocol.k_ball)
  if metric in ("pr", "dc", "pr_fp16") and (own <= k or near <= far):
    return (
      f"{k} neighbours need more than {k} samples, and {far} need more "
      f"than {far} images of the reference: there are {own} and {near}"
    )
  if metric == "is" and own < (protocol.splits or 1):
    return f"{own} images do not make {protocol.splits} splits"
  if metric == "fid_infinity" and own < 6:
    return f"no line goes through subsets of {own} images"
  if metric == "fid_by_class" and any(y is None for y in labels):
    return "labels of samples and of the reference must be known"
  if metric == "fid_by_class" and not np.intersect1d(*labels).size:
    return "samples and the reference have no class in common"
  return None


def main_tap(taps: tuple[str, ...], protocol: Protocol) -> str:
  """The features of Fréchet distances: Inception's layer, or the first."""
  return protocol.layer if protocol.layer in taps else taps[0]


def tap_of(metric: str, taps: tuple[str, ...], protocol: Protocol) -> str | None:
  """What a metric looks at; None if the extractor has no such thing."""
  tap = METRICS[metric].tap
  if tap == "logits":
    tap = protocol.logits if protocol.logits in taps else "logits"
  tap = tap or main_tap(taps, protocol)
  return tap if tap in taps else None


def plans(
  metrics: tuple[str, ...],
  taps: tuple[str, ...],
  protocol: Protocol,
  kept: np.ndarray | None = None,
) -> tuple[Plan, Plan]:
  """What to keep of the samples' features, and of the reference's."""
  tap = {m: tap_of(m, taps, protocol) for m in metrics}
  moments, own, real = (
    tuple(dict.fromkeys(tap[m] for m in metrics if getattr(METRICS[m], k)))
    for k in ("moments", "own", "real")
  )
  return Plan(moments, own), Plan(moments, real, kept)


def full_name(name: str, extractor: str, protocol: Protocol) -> str:
  """fid -> fid@adm; with other features frechet@dinov2."""
  if extractor == "inception":  # the one that FID is defined by
    return f"{name}@{protocol.name}"
  return name.replace("fid", "frechet") + f"@{extractor}"


def score(
  given: Given, metrics: tuple[str, ...], extractor: str, strict: bool = False
) -> tuple[Values, list[str]]:
  """Numbers by full name, and warnings of what could not be made.

  Raises:
    UserError: too few images, if `strict`.
  """
  found: dict[str, Any] = {}
  warnings = []
  for metric in metrics:
    tap = tap_of(metric, given.taps, given.protocol)
    try:
      values = METRICS[metric].measure(given, metric, tap)
    except ValueError as e:
      if strict:
        raise UserError(f"{metric} cannot be measured: {e}") from e
      warnings.append(f"{metric} is left out: {e}")
      continue
    found |= {full_name(k, extractor, given.protocol): v for k, v in values.items()}
  return found, warnings
