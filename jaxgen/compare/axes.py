"""Axes, ticks and text of charts, as inline SVG that follows the theme."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxgen.errors import printable

CHAR = 6.7  # width of a 12 px character, about


def escape(text: object) -> str:
  """A name or number as text of a page: it means nothing to a browser."""
  return html.escape(printable(text))


class Axis(NamedTuple):
  """Maps values in [lo, hi] to pixels, linearly or by their logarithm."""

  lo: float
  hi: float
  start: float
  end: float
  log: bool = False

  def at(self, value: float) -> float:
    f = math.log10 if self.log else float
    share = (f(value) - f(self.lo)) / (f(self.hi) - f(self.lo))
    return self.start + share * (self.end - self.start)

  def ticks(self, count: int = 4) -> list[float]:
    if self.log:
      low, high = (math.log10(v) for v in (self.lo, self.hi))
      powers = range(math.floor(low), math.ceil(high) + 1)
      for digits in ((1, 2, 5), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits]
        ticks = [t for t in ticks if self.lo <= t <= self.hi]
        if len(ticks) <= count + 3:
          break
      return ticks[:: math.ceil(len(ticks) / (count + 3)) or 1]
    step = (self.hi - self.lo) / count
    power = 10.0 ** math.floor(math.log10(step))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)
    first = math.ceil(self.lo / step - 1e-9)
    last = math.floor(self.hi / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def axis(
  values: Sequence[float], start: float, end: float, log: bool = False
) -> Axis:
  """An axis with some air around the values."""
  lo, hi = min(values), max(values)
  if log:
    air = max(0.12 * math.log10(hi / lo), 0.15)
    return Axis(lo / 10**air, hi * 10**air, start, end, True)
  air = 0.08 * (hi - lo) or 0.1 * abs(hi) or 1.0
  return Axis(lo - air, hi + air, start, end)


def seconds(value: float) -> str:
  """1 ms, 0.25 s, 40 s, 15 min."""
  if value < 0.1:
    return f"{value * 1e3:.3g} ms"
  return f"{value:.3g} s" if value < 600 else f"{value / 60:,.3g} min"


def short(value: float) -> str:
  """A tick's label: 0.25, 50, 20k, 3M."""
  for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if abs(value) >= unit * 9.999 or (unit > 1e3 and abs(value) >= unit):
      return f"{value / unit:.4g}{name}"
  return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def frame(x: Axis, y: Axis, x_ticks, y_ticks) -> list[str]:
  """Grid lines with their labels."""
  parts = []
  for value, text in y_ticks:
    at = y.at(value)
    parts.append(
      f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}"'
      f' y2="{at:.1f}"/>' + text_at(x.start - 7, at + 4, text, "end")
    )
  for value, text in x_ticks:
    parts.append(text_at(x.at(value), y.start + 17, text, "middle"))
  return parts


def text_at(x, y, text: str, anchor: str, kind: str = "tick") -> str:
  """A text at its baseline; `kind` is its class in the style sheet."""
  return (
    f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    f"{escape(text)}</text>"
  )


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
  """The whole picture, which scales with the page."""
  return (
    f'<svg viewBox="0 0 {width} {height}" role="img"'
    f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
  )
