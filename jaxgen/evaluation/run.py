"""One evaluation, from images to a card."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgen.distributed import gather
from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation.collect import Collected, Extractor, Plan, collect, forget
from jaxgen.evaluation.images import Images, across, span_of
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.reference import Reference
from jaxgen.evaluation.samplefile import SampleFile
from jaxgen.evaluation.scores import (
  METRICS,
  Given,
  check_metric,
  lacks,
  main_tap,
  plans,
  score,
  tap_of,
)
from jaxgen.files import plain
from jaxgen.monitor import pictures
from jaxgen.monitor.progress import Bars


@dataclasses.dataclass
class Evaluation:
  """Judges sets of images against one reference, in one way.

  Attributes:
    reference: what they are compared with; looked at once.
    extractor: what looks.
    protocol: how.
    metrics: of scores.METRICS; None: the protocol's, as far as they can be
      made. What is asked for and cannot be made is an error.
    bars: where progress goes.
  """

  reference: Reference
  extractor: Extractor
  protocol: Protocol
  metrics: tuple[str, ...] | None = None
  bars: Bars = dataclasses.field(default_factory=Bars)
  measured: Collected | None = None

  def __post_init__(self):
    self.strict = self.metrics is not None
    self.main = main_tap(self.extractor.taps, self.protocol)
    images, most = self.reference.images, self.protocol.manifold
    self.warnings = list(images.warnings if images else ())
    if made := self.reference.made:
      self._check_made(made)
    self.wanted = tuple(
      m for m in dict.fromkeys(self.metrics or self.protocol.metrics) if self._can(m)
    )
    if not self.wanted:
      raise UserError(
        f"nothing can be measured against "
        f"{self.reference.card['name']}: " + "; ".join(self.warnings)
      )
    near = None
    if images is not None and images.count > most:
      order = np.random.RandomState(0).permutation(images.count)
      near = np.sort(order[:most])
    whole = {"copies", "fid_by_class"} & set(self.wanted)
    self.manifold = near if whole else None
    self.plan_own, self.plan_real = plans(
      self.wanted, self.extractor.taps, self.protocol, None if whole else near
    )
    self.near = min(images.count, most) if self.plan_real.rows else 0

  def _check_made(self, made: Mapping[str, Any]) -> None:
    """UserError if our own statistics were made in another way."""
    for field, now in (("resize", self.protocol.resize), ("sha256", self.extractor.sha256)):
      was = {**made["protocol"], **made["features"]}[field]
      if was != now:
        raise UserError(
          f"{self.reference.card['statistics']} was made with "
          f"{field} {was}, and this is {now}: make it anew"
        )

  def _can(self, metric: str) -> bool:
    """Whether a metric can be made; UserError if it was asked for."""
    taps, statistics = self.extractor.taps, self.reference.statistics
    check_metric(metric)
    tap, wants = tap_of(metric, taps, self.protocol), METRICS[metric]
    others = [m for m, about in METRICS.items() if about.tap and (about.tap in statistics)]
    key = "" if tap == self.main else tap
    why = None
    if tap is None:
      why = f"{self.extractor.name} has no features '{wants.tap}'"
    elif wants.real and self.reference.images is None:
      why = "the reference is statistics, without images"
    elif wants.moments and statistics and key not in statistics:
      why = f"the reference's statistics do not cover features '{tap}'" + (
        f": --metrics={','.join(others)} would fit" if others else ""
      )
    if why and self.strict:
      raise UserError(f"{metric} cannot be measured: {why}")
    if why:
      self.warnings.append(f"{metric} is left out: {why}")
    return why is None

  def check(
    self,
    count: int,
    labels: np.ndarray | None,
    sizes: list[tuple[int, int]],
    class_names: tuple[str, ...] = (),
  ) -> None:
    """UserError if what is asked for cannot be made of such samples.

    As far as counts and sizes tell, before anything is looked at.
    """
    real, shape = self.reference.images, getattr(self.extractor, "shape", None)
    for what, those in (("samples", sizes), ("the reference", real.sizes if real else ())):
      if shape and any(s != tuple(shape[:2]) for s in those):
        raise UserError(
          f"{self.extractor.name} looks at images of "
          f"{across(shape[:2])}, and {what}: {span_of(those)}"
        )
    both = None, None
    if "fid_by_class" in self.wanted:
      both = labels, real and numbered(real, class_names)
    for metric in self.wanted if self.strict else ():
      if why := lacks(metric, count, real.count if real else 0, both, self.protocol):
        raise UserError(f"{metric} cannot be measured: {why}")

  def head(self, images: Images) -> dict[str, Any]:
    """All of a card but what is measured."""
    looks = self.extractor
    told = getattr(looks, "card", {})
    real = self.reference.images
    known = {"size": span_of(real.sizes)} if real else {}
    return cards.head(
      self.protocol,
      {"name": looks.name, "sha256": looks.sha256}
      | {k: told[k] for k in ("network", "resize") if k in told},
      known | self.reference.card | {"manifold": self.near},
      images.card | {"size": span_of(images.sizes)},
    )

  def run(
    self, images: Images, folder: Path | None = None, picture: Path | None = None
  ) -> dict[str, Any]:
    """Judges images -> their card.

    Args:
      images: the generated ones.
      folder: for what is done so far: a killed process goes on there. It is
        gone at the end.
      picture: a PNG file for copies of the reference, where they are sought.

    Raises:
      UserError: images, features or numbers are not fit. What was done until
        then stays in `folder`.
    """
    names = getattr(images, "class_names", ())
    self.check(images.count, images.labels, images.sizes, names)
    card = self.head(images)
    # Whoever mends the one side need not look at the other one again.
    key, of_real = (
      cards.key_of({k: v for k, v in card.items() if k != other})
      for other in ("reference", "samples")
    )
    widths = {k or self.main: len(v.mu) for k, v in self.reference.statistics.items()}
    try:
      own = collect(
        images,
        self.extractor,
        self.plan_own,
        key=key,
        widths=widths,
        folder=folder and folder / "samples",
        tick=self.bars.of("images", images.count),
      )
      real = self.measure(of_real, folder)
      there = self.reference.images
      given = Given(
        own,
        real,
        self.extractor.taps,
        self.protocol,
        (images.labels, there and numbered(there, names)),
        self.manifold,
        self.bars,
        names or getattr(there, "class_names", ()),
      )
      card |= self.scored(given, images, card)
      if given.copies is not None:
        card["copies"] = self.told(given, images, picture)
    except UserError as e:
      if folder and folder.exists():
        raise UserError(f"{e}; what was done is kept: the same command goes on from there") from e
      raise
    finally:
      self.bars.end()
    if folder:
      forget_all(folder)
    return plain(card)

  def scored(self, given: Given, images: Images, head: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says beside its head."""
    values, missing = score(given, self.wanted, self.extractor.name, self.strict)
    if not values:
      raise UserError("; ".join(missing))
    found = {
      "scores": {k: v for k, (v, _) in values.items()},
      "spread": {k: v for k, (_, v) in values.items() if v is not None},
      "warnings": [
        *images.warnings,
        *self.warnings,
        *missing,
        *cards.doubts(head),
        *self.doubts(given.own, given.real),
      ],
    }
    return found | ({"by_class": given.by_class} if given.by_class else {})

  def measure(self, key: str = "", folder: Path | None = None) -> Collected:
    """What is to be known of the reference; looked at once."""
    if self.measured is None:
      images, statistics = self.reference.images, self.reference.statistics
      plan, real = self.plan_real, Collected(0, {}, {}, np.zeros(3))
      if statistics:
        plan = Plan((), plan.rows, plan.kept)
      if plan.taps:
        real = collect(
          images,
          self.extractor,
          plan,
          key=key,
          folder=folder and folder / "reference",
          tick=self.bars.of("reference images", images.count),
        )
      real.moments |= {k or self.main: v for k, v in statistics.items()}
      self.measured = real
    return self.measured

  def doubts(self, own: Collected, real: Collected) -> list[str]:
    """What a reader of the numbers should know."""
    found = []
    if not getattr(self.extractor, "card", {}).get("published", True):
      found.append(f"the weights of {self.extractor.name} are not those that were published")
    if own.n < self.protocol.images:
      found.append(
        f"{own.n:,} images: protocol {self.protocol.name} counts "
        f"{self.protocol.images:,}, and fewer raise FID"
      )
    for what, n in (("images", own.n), ("reference images", real.n)):
      wide = max((len(g.mu) for g in own.moments.values()), default=0)
      if 0 < n <= wide:
        found.append(
          f"fewer {what} ({n:,}) than dimensions ({wide:,}): "
          "covariances are singular, and FID is far too high"
        )
    if own.colour.max() <= 1:
      found.append(
        "images are black, or nearly so: were floats in [0, 1] made bytes without a factor of 255?"
      )
    a, b = own.colour, real.colour
    apart, swapped = np.linalg.norm(a - b), np.linalg.norm(a[::-1] - b)
    if real.n and apart > 10 and swapped < apart / 2:
      found.append(
        "red and blue seem to be swapped: mean colours are "
        f"{np.round(a).astype(int).tolist()}, of the reference "
        f"{np.round(b).astype(int).tolist()}"
      )
    return found

  def told(self, given: Given, images: Images, picture: Path | None) -> list[dict[str, Any]]:
    """The samples nearest to the reference, and their neighbours."""
    found = given.copies
    worst = np.argsort(found.ratio, kind="stable")[:10]
    if picture:  # several processes draw together
      rows = pick(images, worst), pick(self.reference.images, found.index[worst].ravel())
      k = found.index.shape[1]
      shown = [x for i, a in enumerate(rows[0]) for x in (a, *rows[1][i * k : (i + 1) * k])]
      size = shown[0].shape[1::-1]
      shown = [np.asarray(Image.fromarray(x).resize(size)) for x in shown]
      if gather.is_main_process():
        pictures.save_png(
          picture,
          pictures.grid(np.stack(shown), k + 1),
          {"columns": "a sample, then its nearest in the reference"},
        )
    return [
      {
        "sample": int(i),
        "ratio": float(found.ratio[i]),
        "nearest": found.index[i],
        "distances": found.distance[i],
      }
      for i in worst
    ]


def forget_all(folder: Path) -> None:
  """Removes what was done so far; what others put there stays."""
  for part in ("samples", "reference"):
    forget(folder / part)
  with contextlib.suppress(OSError):
    folder.rmdir()


def numbered(real: Images, class_names: tuple[str, ...]) -> np.ndarray | None:
  """Labels of a reference in the numbers that samples have; -1: unknown there.

  By name, where both know the names of their classes.
  """
  own = getattr(real, "class_names", ())
  if real.labels is None or not own or not class_names or own == class_names:
    return real.labels
  place = {name: i for i, name in enumerate(class_names)}
  return np.array([place.get(n, -1) for n in own], np.int32)[real.labels]


def pick(images: Images, indices: np.ndarray) -> list[np.ndarray]:
  """Single images uint8 [H, W, 3], in the order of `indices`."""
  if not isinstance(images, SampleFile):
    return [next(images.read(int(i), int(i) + 1))[0] for i in indices]
  found, wanted = {}, set(map(int, indices))
  at = first = min(wanted)
  for batch in images.read(first, max(wanted) + 1):  # in one pass
    found |= {i: batch[i - at] for i in wanted if at <= i < at + len(batch)}
    at += len(batch)
  return [found[int(i)] for i in indices]
