"""The page of `jaxgen control --table`: what each method made of the same request, then numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.monitor.table import aligned
from jaxgen.report import fields
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, facts_of, render
from jaxgen.tasks.memorisation import CopyCheck, gallery

NOTE = (
  "Units are standard deviations of an attribute in real test images. Asked for are the values "
  "that these have. 'Uncontrolled' is the same error of samples as they come; 'others' is by how "
  "much the other attributes of a sample changed; likeness is the cosine of the judge's features "
  "of a sample before and after; same class: as the judge sees it."
)
CLASS_NOTE = (
  "Of classes, asked for are those of real test images, and the error is the share of samples "
  "that the judge, {judge}, takes for another one."
)
INTERVALS = (
  "Intervals are of 95%: over samples by Student's t, of shares by Wilson's rule; of Fréchet "
  "distances over draws (--seeds), in their logarithm."
)
ASKED, REST = "What is asked for", "What else there is"
COLUMNS = (  # field, head, +1 more is better, group
  ("error", "Error", -1, ASKED),
  ("uncontrolled", "Uncontrolled", 0, ASKED),
  ("others", "Others moved", -1, REST),
  ("likeness", "Likeness", 1, REST),
  ("same_class", "Same class", 1, REST),
  ("frechet", "Fréchet", -1, REST),
  ("frechet_before", "Fréchet before", 0, REST),
  ("copies", "Copies", -1, REST),
)


class Result(NamedTuple):
  """One method and one attribute.

  Attributes:
    method: Name of the method.
    attribute: Of the attribute that was asked for.
    numbers: By name.
    intervals: Of numbers, 95%, where they are known.
    passes: What a sample costs.
    png: Samples (rows): as they come, then with rising values.
    is_class: Whether errors are shares of samples of another class.
    copies: Copies of training images among samples, if they were looked for.
  """

  method: str
  attribute: str
  numbers: dict[str, float]
  intervals: dict[str, tuple[float, float]]
  passes: str
  png: bytes
  is_class: bool = False
  copies: CopyCheck | None = None

  @property
  def card(self) -> dict[str, Any]:
    """For a JSON file."""
    return self._asdict() | {"png": None, "copies": self.copies and self.copies.card}

  def score(self, field: str) -> fields.Score | None:
    """A number with its interval; None where it was not measured."""
    if field == "copies" and self.copies:
      return fields.Score(self.copies.share, *self.copies.interval)
    if field not in self.numbers:
      return None
    return fields.with_interval(self.numbers[field], self.intervals.get(field))


class About(NamedTuple):
  """Of what results are: the last facts of a page.

  Attributes:
    num, seeds: Samples of each method, attribute and draw; draws.
    judge: Who sees features and classes.
    images: Real test images.
    cards: Of the models by method.
    command: Which makes the page again.
  """

  num: int
  seeds: int
  judge: str
  images: int
  cards: Mapping[str, Mapping[str, Any]]
  command: str


def note_of(results: Sequence[Result], judge: str) -> str:
  """What the numbers are."""
  classes = [CLASS_NOTE.format(judge=judge)] if any(r.is_class for r in results) else []
  return " ".join([NOTE, *classes, INTERVALS])


def page(results: Sequence[Result], about: About) -> str:
  """The page as HTML."""
  parts: list[Gallery | Table] = []
  for name in dict.fromkeys(r.attribute for r in results):
    of = [r for r in results if r.attribute == name]
    steps = "Rows are samples: as they come in the first column, then with rising values."
    parts.append(Gallery(name, steps, [Picture(r.png, r.method, r.passes) for r in of]))
  for name in dict.fromkeys(r.attribute for r in results):
    of = [r for r in results if r.attribute == name]
    note = CLASS_NOTE.format(judge=about.judge) if of[0].is_class else ""
    if name == results[0].attribute:
      note = note_of(of, about.judge)
    parts.append(Table(f"{name}, in numbers", note, [r.method for r in of], columns_of(of)))
  if checks := [r.copies for r in results if r.copies]:
    parts.append(gallery(*checks))
  draws = f", in {about.seeds} draws" if about.seeds > 1 else ""
  facts = [
    ("Samples", f"{about.num * about.seeds} of each method and attribute{draws}"),
    ("Judge", f"{about.judge}; {about.images} real test images"),
    *facts_of(about.cards),
  ]
  return render("Explicit control", verdict(results), parts, facts, about.command)


def columns_of(results: Sequence[Result]) -> list[Column]:
  """Those numbers that there are."""
  columns = []
  for field, head, better, group in COLUMNS:
    scores = [r.score(field) for r in results]
    values = [s and s.mean for s in scores]
    columns.append(Column(head, better, values, group=group, scores=scores))
  return [c for c in columns if c.has_values()]


def verdict(results: Sequence[Result]) -> str:
  """What came out, in a sentence."""

  def mean(field: str, method: str, is_class: bool) -> float | None:
    of = [r.numbers[field] for r in results if (r.method, r.is_class) == (method, is_class)]
    return float(np.mean(of)) if of else None

  clauses = []
  for m in dict.fromkeys(r.method for r in results):
    words, likeness = [], mean("likeness", m, False)
    if (error := mean("error", m, False)) is not None:
      free = mean("uncontrolled", m, False)
      words.append(f"misses by {error:.2f} standard deviations (as they come {free:.2f})")
      words.append(f"keeps a likeness of {likeness:.2f}")
    if (error := mean("error", m, True)) is not None:
      free = mean("uncontrolled", m, True)
      words.append(f"meets the class in {1 - error:.0%} (as they come {1 - free:.0%})")
    clauses.append(f"{m} {', '.join(words)}")
  sentence = "; ".join(clauses)
  return f"{sentence[0].upper()}{sentence[1:]}."


def text(results: Sequence[Result]) -> str:
  """The table for a terminal."""
  rows = [("", "attribute", *(head for _, head, *_ in COLUMNS), "cost of a sample")]
  for r in results:
    scores = [(r.score(field), better) for field, _, better, _ in COLUMNS]
    cells = (
      "-" if s is None else str(s) if better else fields.short(s.mean) for s, better in scores
    )
    rows.append((r.method, r.attribute, *cells, r.passes))
  return aligned(rows)
