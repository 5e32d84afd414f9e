"""FID, KID, precision, recall, ... of features, by names such as "fid@adm".

The formulas are in jaxgen/metrics; in what reference evaluators differ stands
in protocols.py.
"""

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
FRECHET = ("fid", "sfid", "frechet", "sfrechet")
LOWER = (*FRECHET, *(f"r{name}" for name in FRECHET), "kid")  # is better; r: reconstructions
HIGHER = ("is", "precision", "recall", "density", "coverage", "cas", "psnr", "ssim", "cycle_psnr")


@dataclasses.dataclass(eq=False)
class Comparison:
  """All that a metric may look at: samples (`own`) and the reference.

  Attributes:
    own, real: Features of samples and of the reference.
    taps: That the extractor has.
    protocol: How metrics are made.
    labels: Of samples and of the reference, where they are known.
    manifold: Rows of the reference that manifolds are made of; None: all.
    tick: Hears of progress: what, how many are done, of how many.
    class_names: Of the classes, in the order of labels.
    by_class, copies: What a metric found beside its number.
  """

  own: Collected
  real: Collected
  taps: tuple[str, ...]
  protocol: Protocol
  labels: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
  manifold: np.ndarray | None = None
  tick: Callable[[str, int, int], object] = lambda *_: None
  class_names: tuple[str, ...] = ()
  by_class: dict[str, float] = dataclasses.field(default_factory=dict)
  copies: Copies | None = None

  @property
  def x(self) -> np.ndarray:
    """Features of samples, [N, D]."""
    return self.own.rows[main_tap(self.taps, self.protocol)]

  @property
  def y(self) -> np.ndarray:
    """Features of the reference, [M, D]: all of them."""
    return self.real.rows[main_tap(self.taps, self.protocol)]

  @property
  def near(self) -> np.ndarray:
    """Those of the reference that manifolds are made of."""
    return self.y if self.manifold is None else self.y[self.manifold]

  def name_of(self, label: int) -> str:
    """Of a class, if that is known, or its number."""
    if not self.class_names:
      return str(label)
    return self.class_names[label] if label < len(self.class_names) else f"#{label}"

  @functools.cached_property
  def prdc(self) -> PRDC:
    """Precision, recall, density and coverage are made in one go."""
    p, total = self.protocol, 2 * len(self.x) + len(self.near)
    tick = lambda n: self.tick("pr", n, total)
    return prdc(self.x, self.near, k=p.k, k_ball=p.k_ball, tick=tick)


def _fid(c: Comparison, name: str, tap: str) -> Values:
  a, b = c.own.moments[tap], c.real.moments[tap]
  return {name: (frechet(a.mu, a.sigma, b.mu, b.sigma), None)}


def _inception_score(c: Comparison, name: str, tap: str) -> Values:
  p = c.protocol
  how = dict(splits=p.splits, size=p.split_size, shuffle=p.shuffle)
  return {name: inception_score(c.own.rows[tap], **how)}


def _kid(c: Comparison, name: str, tap: str) -> Values:
  p, x, y = c.protocol, c.x, c.near
  size = min(p.kid_size, len(x), len(y)) if p.kid_shrinks else p.kid_size
  tick = lambda n: c.tick("kid", n, p.kid_subsets)
  return {name: kernel_distance(x, y, p.kid_subsets, size, p.kid_seed, tick)}


def _precision_recall(c: Comparison, name: str, tap: str) -> Values:
  return {"precision": (c.prdc.precision, None), "recall": (c.prdc.recall, None)}


def _density_coverage(c: Comparison, name: str, tap: str) -> Values:
  return {"density": (c.prdc.density, None), "coverage": (c.prdc.coverage, None)}


def _half_precision_recall(c: Comparison, name: str, tap: str) -> Values:
  p, r = half_precision_recall(c.x, c.near, c.protocol.k)
  return {"precision_fp16": (p, None), "recall_fp16": (r, None)}


def _fid_infinity(c: Comparison, name: str, tap: str) -> Values:
  return {name: tuple(frechet_infinity(c.x, c.real.moments[tap]))}


def _fid_by_class(c: Comparison, name: str, tap: str) -> Values:
  u, v = c.labels
  if u is None or v is None:
    raise ValueError("labels of samples and of the reference must be known")
  for label in np.intersect1d(u, v):
    x, y = c.x[u == label], c.y[v == label]
    if min(len(x), len(y)) > 1:
      c.by_class[c.name_of(label)] = frechet_rows(x, y)
  if not c.by_class:
    raise ValueError("no class has two images of either kind")
  return {name: (float(np.mean(list(c.by_class.values()))), None)}


def _copies(c: Comparison, name: str, tap: str) -> Values:
  x, y = c.x, c.y
  tick = lambda n: c.tick("copies", n, len(x) + len(y))
  c.copies = find_copies(x, y, min(5, len(y) - 1), tick)
  return {"authenticity": (c.copies.authenticity, None), "identical": (c.copies.identical, None)}


class Metric(NamedTuple):
  """How a metric is measured, and on what.

  Attributes:
    measure: (comparison, name, tap) -> values.
    tap: of the extractor; "" is the main one, "logits" the protocol's.
    moments, own, real: whether it takes moments of both, rows of samples, rows
      of the reference.
  """

  measure: Callable[[Comparison, str, str], Values]
  tap: str = ""
  moments: bool = False
  own: bool = False
  real: bool = False


METRICS = {
  "fid": Metric(_fid, moments=True),
  "sfid": Metric(_fid, "spatial", moments=True),
  "fid64": Metric(_fid, "64", moments=True),
  "fid192": Metric(_fid, "192", moments=True),
  "fid768": Metric(_fid, "768", moments=True),
  "is": Metric(_inception_score, "logits", own=True),
  "kid": Metric(_kid, own=True, real=True),
  "pr": Metric(_precision_recall, own=True, real=True),
  "pr_fp16": Metric(_half_precision_recall, own=True, real=True),
  "dc": Metric(_density_coverage, own=True, real=True),
  "fid_infinity": Metric(_fid_infinity, moments=True, own=True),
  "fid_by_class": Metric(_fid_by_class, own=True, real=True),
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
  if metric == "fid_by_class":
    if any(y is None for y in labels):
      return "labels of samples and of the reference must be known"
    if not np.intersect1d(*labels).size:
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
  rows: np.ndarray | None = None,
) -> tuple[Plan, Plan]:
  """What to keep of features: the samples', and of some rows the reference's."""
  uses = [(METRICS[m], tap_of(m, taps, protocol)) for m in metrics]
  moments = tuple(dict.fromkeys(tap for about, tap in uses if about.moments))
  own = tuple(dict.fromkeys(tap for about, tap in uses if about.own))
  real = tuple(dict.fromkeys(tap for about, tap in uses if about.real))
  return Plan(moments, own), Plan(moments, real, rows)


def full_name(name: str, extractor: str, protocol: Protocol) -> str:
  """fid -> fid@adm; with other features frechet@dinov2."""
  if extractor == "inception":  # the one that FID is defined by
    return f"{name}@{protocol.name}"
  return name.replace("fid", "frechet") + f"@{extractor}"


def singular(what: str, n: int, width: int) -> list[str]:
  """A warning if n images are too few for so many features; n = 0: unknown."""
  if not 0 < n <= width:
    return []
  return [
    f"fewer {what} ({n:,}) than dimensions ({width:,}): "
    "covariances are singular, and FID is far too high"
  ]


def score(
  compared: Comparison, metrics: tuple[str, ...], extractor: str, strict: bool = False
) -> tuple[Values, list[str]]:
  """Numbers by full name, and warnings of what could not be made.

  Raises:
    UserError: too few images, if `strict`.
  """
  scores, warnings = {}, []
  for metric in metrics:
    tap = tap_of(metric, compared.taps, compared.protocol)
    try:
      values = METRICS[metric].measure(compared, metric, tap)
    except ValueError as e:
      if strict:
        raise UserError(f"{metric} cannot be measured: {e}") from e
      warnings.append(f"{metric} is left out: {e}")
      continue
    scores |= {full_name(k, extractor, compared.protocol): v for k, v in values.items()}
  return scores, warnings
