"""Tables as text, and numbers as people read them."""

import math
from collections.abc import Sequence

from jaxgen.errors import printable

Row = Sequence[str]


def aligned(rows: Sequence[Row]) -> str:
  """Columns for a terminal: names to the left, values to the right."""
  width = max(map(len, rows))
  rows = [[*map(printable, row)] + [""] * (width - len(row)) for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
    for row in rows
  )


def markdown(head: Row, rows: Sequence[Row]) -> str:
  """A table in Markdown: names to the left, values to the right."""
  rule = ["---", *["---:"] * (len(head) - 1)]
  return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def number(x: float) -> str:
  """Three digits, 3.00 or 0.500, or all before the point."""
  if isinstance(x, int) or x >= 100:
    return f"{x:,.0f}"
  return f"{x:#.3g}".removesuffix(".") if x else "0"


def si(x: float, unit: str) -> str:
  """1.25e12, "FLOP/s" -> "1.25 TFLOP/s"."""
  power = min(max(int(math.log10(x)) // 3, 0), 6) if x >= 1 else 0
  return f"{number(x / 1000**power)} {('', *'kMGTPE')[power]}{unit}"


def seconds(x: float) -> str:
  """0.00125 -> "1.25 ms"."""
  for unit, worth in (("s", 1), ("ms", 1e-3)):
    if x >= worth:
      return f"{number(x / worth)} {unit}"
  return f"{number(x / 1e-6)} us"


def size(x: int) -> str:
  """Bytes -> "1.25 GiB"."""
  for unit, worth in (("GiB", 2**30), ("MiB", 2**20)):
    if x >= worth:
      return f"{number(x / worth)} {unit}"
  return f"{number(x / 2**10)} KiB"


def share(x: float) -> str:
  """0.256 -> "25.6%"."""
  return f"{100 * x:.3g}%"
