"""The page of a task, such as editing or anomalies: pictures first, then numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxgen.monitor.page_style import CSS
from jaxgen.report.charts import escape
from jaxgen.report.page import PAGE, definitions
from jaxgen.report.page_numbers import Column, columns_table
from jaxgen.report.page_parts import figure, section

WIDE = 2048  # pixels of a picture at the most


class Picture(NamedTuple):
  """A PNG file, its name, and what is to be seen on it."""

  png: bytes | None
  name: str
  note: str = ""


class Gallery(NamedTuple):
  """Pictures under one heading: side by side, or `wide`, one below the other."""

  title: str
  note: str
  pictures: Sequence[Picture]
  wide: bool = False


class Table(NamedTuple):
  """Numbers under one heading: `rows` are the names of what each row is of."""

  title: str
  note: str
  rows: Sequence[str]
  columns: Sequence[Column]


def render(
  title: str,
  verdict: str,
  parts: Sequence[Gallery | Table],
  facts: Sequence[tuple[str, Any]],
  command: str,
  lead: str = "",
) -> str:
  """One self-contained HTML page.

  Args:
    title: Of the page.
    verdict: What came out, in a sentence.
    parts: In the order in which they are shown: pictures first.
    facts: How the numbers were made, (title, text or texts) each.
    command: Which makes the page again.
    lead: A remark below the verdict.
  """
  note = f'<p class="note">{escape(lead)}</p>' if lead else ""
  size = " long" if len(verdict) > 90 else ""
  sections = [
    f"<header><h1>{escape(title)}</h1>"
    f'<p class="verdict{size}">{escape(verdict)}</p>{note}</header>',
    *(_gallery(part) if isinstance(part, Gallery) else _table(part) for part in parts),
    section("How the numbers were made", "", [definitions(facts)]),
    section("Do it again", "", [f"<pre>{escape(command)}</pre>"]),
  ]
  return PAGE.format(title=escape(title), css=CSS, body="".join(sections))


def _gallery(part: Gallery) -> str:
  natural = part.wide or len(part.pictures) == 1  # nothing beside it to be as wide as
  figures = [figure(p.png, p.name, p.note, WIDE, natural) for p in part.pictures]
  if part.wide:
    return section(part.title, escape(part.note), figures)
  grid = [f'<div class="samples">{"".join(figures)}</div>'] if figures else []
  return section(part.title, escape(part.note), grid)


def _table(part: Table) -> str:
  table = columns_table(part.columns, [escape(r) for r in part.rows])
  return section(part.title, escape(part.note), [table])


def facts_of(cards: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
  """Cards of models by name -> facts: where each is from."""
  return [
    (name, "\n".join(f"{k}: {v}" for k, v in card.items() if v not in (None, "")))
    for name, card in cards.items()
  ]
