"""One evaluation, from images to a card."""

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation.collect import Collected, Extractor, Plan, collect, forget
from jaxgen.evaluation.images import Images, across, span_of
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.samplefile import SampleFile
from jaxgen.evaluation.scores import (
  METRICS,
  Comparison,
  check_metric,
  lacks,
  main_tap,
  plans,
  score,
  singular,
  tap_of,
)
from jaxgen.evaluation.statistics import Reference
from jaxgen.files import plain
from jaxgen.metrics.copies import Copies
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
      made. A metric by name that cannot be made is an error.
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
    if self.reference.info:
      self._check_info(self.reference.info)
    metrics = dict.fromkeys(self.metrics or self.protocol.metrics)
    self.possible = tuple(m for m in metrics if self._is_possible(m))
    if not self.possible:
      raise UserError(
        f"nothing can be measured against "
        f"{self.reference.card['name']}: " + "; ".join(self.warnings)
      )
    near = None
    if images is not None and images.count > most:
      order = np.random.RandomState(0).permutation(images.count)
      near = np.sort(order[:most])
    all_rows = {"copies", "fid_by_class"} & set(self.possible)
    self.manifold = near if all_rows else None
    self.plan_own, self.plan_real = plans(
      self.possible, self.extractor.taps, self.protocol, None if all_rows else near
    )
    self.near = min(images.count, most) if self.plan_real.rows else 0

  def _check_info(self, info: Mapping[str, Any]) -> None:
    """UserError if our own statistics were made in another way."""
    for field, now in (("resize", self.protocol.resize), ("sha256", self.extractor.sha256)):
      before = {**info["protocol"], **info["features"]}[field]
      if before != now:
        raise UserError(
          f"{self.reference.card['statistics']} was made with "
          f"{field} {before}, and this is {now}: make it anew"
        )

  def _is_possible(self, metric: str) -> bool:
    """Whether a metric can be made; UserError if it can't and is required."""
    taps, statistics = self.extractor.taps, self.reference.statistics
    check_metric(metric)
    tap, wants = tap_of(metric, taps, self.protocol), METRICS[metric]
    others = [m for m, about in METRICS.items() if about.tap and about.tap in statistics]
    key, why = "" if tap == self.main else tap, None
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
    """UserError if a required metric cannot be made of such samples.

    As far as counts and sizes tell, before anything is looked at.
    """
    real, shape = self.reference.images, self.extractor.shape
    for what, all_sizes in (("samples", sizes), ("the reference", real.sizes if real else ())):
      if shape and any(s != tuple(shape[:2]) for s in all_sizes):
        raise UserError(
          f"{self.extractor.name} looks at images of "
          f"{across(shape[:2])}, and {what}: {span_of(all_sizes)}"
        )
    both = None, None
    if "fid_by_class" in self.possible:
      both = labels, real and numbered(real, class_names)
    for metric in self.possible if self.strict else ():
      if why := lacks(metric, count, real.count if real else 0, both, self.protocol):
        raise UserError(f"{metric} cannot be measured: {why}")

  def head(self, images: Images) -> dict[str, Any]:
    """All of a card but what is measured."""
    network, real = self.extractor, self.reference.images
    return cards.head(
      self.protocol,
      {"name": network.name, "sha256": network.sha256}
      | {k: network.card[k] for k in ("network", "resize") if k in network.card},
      ({"size": span_of(real.sizes)} if real else {})
      | self.reference.card
      | {"manifold": self.near},
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
    self.check(images.count, images.labels, images.sizes, images.class_names)
    card = self.head(images)
    try:
      compared = self._compare(images, card, folder)
      card |= self._scores(compared, images, card)
      if compared.copies is not None:
        card["copies"] = self._nearest(compared.copies, images, picture)
    except UserError as e:
      if folder and folder.exists():
        raise UserError(f"{e}; what was done is kept: the same command goes on from there") from e
      raise
    finally:
      self.bars.end()
    if folder and join.is_main_process():
      forget_all(folder)
    return plain(card)

  def _compare(self, images: Images, card: Mapping[str, Any], folder: Path | None) -> Comparison:
    """Features of images, and of the reference."""
    # Whoever mends the one side need not look at the other one again; nor is it
    # another evaluation if it goes on on more devices, or on fewer.
    kind = {k: v for k, v in card["device"].items() if k != "count"}
    key, key_of_real = (
      cards.key_of({k: v for k, v in card.items() if k != other} | {"device": kind})
      for other in ("reference", "samples")
    )
    own = collect(
      images,
      self.extractor,
      self.plan_own,
      key=key,
      widths={k or self.main: len(v.mu) for k, v in self.reference.statistics.items()},
      folder=folder and folder / "samples",
      tick=self.bars.of("images", images.count),
    )
    real, names = self.reference.images, images.class_names
    return Comparison(
      own,
      self.measure(key_of_real, folder),
      self.extractor.taps,
      self.protocol,
      (images.labels, real and numbered(real, names)),
      self.manifold,
      self.bars,
      names or (real.class_names if real else ()),
    )

  def _scores(
    self, compared: Comparison, images: Images, head: Mapping[str, Any]
  ) -> dict[str, Any]:
    """What a card says beside its head."""
    values, missing = score(compared, self.possible, self.extractor.name, self.strict)
    if not values:
      raise UserError("; ".join(missing))
    parts = {
      "scores": {k: v for k, (v, _) in values.items()},
      "spread": {k: v for k, (_, v) in values.items() if v is not None},
      "warnings": [
        *images.warnings,
        *self.warnings,
        *missing,
        *cards.doubts(head),
        *self.doubts(compared.own, compared.real),
      ],
    }
    return parts | ({"by_class": compared.by_class} if compared.by_class else {})

  def measure(self, key: str = "", folder: Path | None = None) -> Collected:
    """What is to be known of the reference; looked at once."""
    if self.measured is None:
      images, statistics = self.reference.images, self.reference.statistics
      plan, real = self.plan_real, Collected(0, {}, {}, np.zeros(3))
      if statistics:
        plan = Plan((), plan.rows, plan.indices)
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
    warnings = []
    if not self.extractor.card.get("published", True):
      warnings.append(f"the weights of {self.extractor.name} are not those that were published")
    if own.n < self.protocol.images:
      warnings.append(
        f"{own.n:,} images: protocol {self.protocol.name} counts "
        f"{self.protocol.images:,}, and fewer raise FID"
      )
    width = max((len(g.mu) for g in own.moments.values()), default=0)
    warnings += singular("images", own.n, width) + singular("reference images", real.n, width)
    if own.colour.max() <= 1:
      warnings.append(
        "images are black, or nearly so: were floats in [0, 1] made bytes without a factor of 255?"
      )
    a, b = own.colour, real.colour
    apart, swapped = np.linalg.norm(a - b), np.linalg.norm(a[::-1] - b)
    if real.n and apart > 10 and swapped < apart / 2:
      warnings.append(
        "red and blue seem to be swapped: mean colours are "
        f"{np.round(a).astype(int).tolist()}, of the reference "
        f"{np.round(b).astype(int).tolist()}"
      )
    return warnings

  def _nearest(self, copies: Copies, images: Images, picture: Path | None) -> list[dict[str, Any]]:
    """The samples nearest to the reference, and their neighbours."""
    worst = np.argsort(copies.ratio, kind="stable")[:10]
    if picture:  # several processes draw together
      samples = pick(images, worst)
      neighbours = iter(pick(self.reference.images, copies.index[worst].ravel()))
      k, size = copies.index.shape[1], samples[0].shape[1::-1]
      rows = [[x, *itertools.islice(neighbours, k)] for x in samples]
      tiles = [np.asarray(Image.fromarray(x).resize(size)) for row in rows for x in row]
      if join.is_main_process():
        pictures.save_png(
          picture,
          pictures.grid(np.stack(tiles), k + 1),
          {"columns": "a sample, then its nearest in the reference"},
        )
    return [
      {
        "sample": int(i),
        "ratio": float(copies.ratio[i]),
        "nearest": copies.index[i],
        "distances": copies.distance[i],
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
  own = real.class_names
  if real.labels is None or not own or not class_names or own == class_names:
    return real.labels
  place = {name: i for i, name in enumerate(class_names)}
  return np.array([place.get(n, -1) for n in own], np.int32)[real.labels]


def pick(images: Images, indices: np.ndarray) -> list[np.ndarray]:
  """Single images uint8 [H, W, 3], in the order of `indices`."""
  if not isinstance(images, SampleFile):
    return [next(images.read(int(i), int(i) + 1))[0] for i in indices]
  by_index, numbers = {}, set(map(int, indices))
  at = first = min(numbers)
  for batch in images.read(first, max(numbers) + 1):  # in one pass
    by_index |= {i: batch[i - at] for i in numbers if at <= i < at + len(batch)}
    at += len(batch)
  return [by_index[int(i)] for i in indices]
