"""Charts as inline SVG, drawn by hand so that they follow the page's theme.

Colours are the page's CSS variables (--c0, --c1, ... by family), text is
escaped, and nothing is ever fetched.
"""

import html
import itertools
import math
from collections.abc import Mapping, Sequence
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


def axis(values: Sequence[float], start: float, end: float, log: bool = False) -> Axis:
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
    f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
  )


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
  """The whole picture, which scales with the page."""
  return (
    f'<svg viewBox="0 0 {width} {height}" role="img"'
    f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
  )


class Series(NamedTuple):
  """A family in the trade-off chart: points (x, y, label), joined if many."""

  label: str
  colour: int
  points: Sequence[tuple[float, float, str]]


def trade_off(
  series: Sequence[Series],
  floor: float | None,
  y_label: str,
  better_up: bool,
  width: int,
  height: int,
) -> str:
  """Quality against seconds per 1,000 samples (log), families as colours.

  `floor` is what real data score, a dashed line. Points with x <= 0 or values
  that are not finite are left out; without any there is no chart ("").
  """
  series = [s._replace(points=[p for p in s.points if _drawable(p)]) for s in series]
  points = [p for s in series for p in s.points]
  if not points:
    return ""
  ys = [p[1] for p in points] + ([] if floor is None else [floor])
  log = min(ys) > 0 and max(ys) / min(ys) > 20
  x = axis([p[0] for p in points], 56, width - 16, True)
  y = axis(ys, height - 50, 34, log)
  parts = frame(
    x, y, [(t, seconds(t)) for t in x.ticks(width // 90)], [(t, short(t)) for t in y.ticks(5)]
  )
  taken = [b for s in series for b in _covered(_pixels(x, y, s.points))]
  if floor is not None:
    parts += _floor(floor, x, y, taken)
  for s in series:
    parts += _drawn(s, x, y, taken)
  title = f"{y_label} · better {'↖' if better_up else '↙'}"
  cost = "seconds per 1,000 samples"
  parts.append(text_at(x.start, 14, title, "start", "ink"))
  parts.append(text_at((x.start + x.end) / 2, height - 8, cost, "middle"))
  return svg(width, height, f"{y_label} against {cost}", parts)


def _floor(floor: float, x: Axis, y: Axis, taken: list) -> list[str]:
  """The dashed line of what real data score, with its label."""
  at = y.at(floor)
  text = f"real data {short(float(f'{floor:.3g}'))}"
  wide = CHAR * len(text)
  taken.append((x.end - wide / 2, at - 10, wide, 14))
  taken.append(((x.start + x.end) / 2, at, x.end - x.start, 2))
  return [
    f'<line class="floor" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>',
    text_at(x.end, at - 6, text, "end"),
  ]


def _drawable(point) -> bool:
  return point[0] > 0 and all(map(math.isfinite, point[:2]))


def _pixels(x: Axis, y: Axis, points) -> list[tuple[float, float]]:
  return [(x.at(p[0]), y.at(p[1])) for p in points]


def _covered(spots) -> list[tuple[float, float, float, float]]:
  """Boxes (centre, size) over dots and the lines between them."""
  boxes = [(px, py, 10, 10) for px, py in spots]
  for (x0, y0), (x1, y1) in itertools.pairwise(spots):
    n = math.ceil(math.hypot(x1 - x0, y1 - y0) / 8)
    boxes += [(x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n, 4, 4) for i in range(1, n)]
  return boxes


def _drawn(s: Series, x: Axis, y: Axis, taken: list) -> list[str]:
  """One family's line, dots and labels; boxes it covers go into `taken`."""
  spots = _pixels(x, y, s.points)
  parts = []
  if len(spots) > 1:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
    parts.append(f'<polyline class="line c{s.colour}" points="{path}"/>')
  brief = _brief([p[2] for p in s.points])
  for (px, py), point, text in zip(spots, s.points, brief, strict=True):
    tip = ", ".join(filter(None, (s.label, point[2])))
    tip = f"{tip}: {point[1]:.4g}, {seconds(point[0])}"
    parts.append(
      f'<circle class="dot c{s.colour}" cx="{px:.1f}" cy="{py:.1f}" r="5">'
      f"<title>{escape(tip)}</title></circle>"
    )
    kind = "small"
    if len(spots) == 1:
      text, kind = s.label, f"name f{s.colour}"
    if at := _place(px, py, 1.1 * CHAR * len(text), taken, x):
      parts.append(text_at(*at, text, "middle", kind))
  if len(spots) > 1:
    wide = 1.2 * CHAR * len(s.label)
    if at := _place(*spots[-1], wide, taken, x) or _place(*spots[0], wide, taken, x):
      parts.append(text_at(*at, s.label, "middle", f"name f{s.colour}"))
  return parts


def _brief(labels: list[str]) -> list[str]:
  """["3 steps", "5 steps", ...] -> ["3 steps", "5", ...]."""
  units = {label.partition(" ")[2] for label in labels}
  if len(units) > 1:
    return labels
  return labels[:1] + [label.partition(" ")[0] for label in labels[1:]]


def _place(px, py, wide, taken, x: Axis) -> tuple[float, float] | None:
  """A free spot near a dot for a centred text; None where all are taken."""
  side = wide / 2 + 11
  for dx, dy in (
    *((0, -12), (side, 4), (side, -8), (-side, 4), (0, 21), (-side, -8)),
    *((side, 16), (-side, 16), (0, -27), (0, 36), (side, -22), (side, 30)),
  ):
    box = (px + dx, py + dy - 4, wide, 13)
    left, right = box[0] - wide / 2, box[0] + wide / 2
    if left < x.start + 2 or right > x.end + 14 or box[1] < 28:
      continue
    if not any(
      abs(box[0] - b[0]) * 2 < wide + b[2] and abs(box[1] - b[1]) * 2 < 13 + b[3] for b in taken
    ):
      taken.append(box)
      return px + dx, py + dy
  return None


def lines(
  title: str,
  curves: Mapping[str, Sequence[tuple[float, float]]],
  colour: int,
  width: int = 340,
  height: int = 190,
) -> str:
  """Scalars over training steps; "" if there is nothing finite to draw."""
  curves = {k: _thin(v or ()) for k, v in curves.items()}
  curves = {k: v for k, v in curves.items() if v}
  if not curves:
    return ""
  x = axis([p[0] for v in curves.values() for p in v], 44, width - 12)
  y = axis([p[1] for v in curves.values() for p in v], height - 26, 40)
  x = x._replace(lo=max(x.lo, 0)) if x.hi > 0 else x
  parts = frame(x, y, [(t, short(t)) for t in x.ticks()], [(t, short(t)) for t in y.ticks()])
  parts.append(text_at(4, 14, title, "start", "ink"))
  left = 44.0
  for i, (name, points) in enumerate(curves.items()):
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in _pixels(x, y, points))
    style = f'class="line c{colour} dash{i % 3}"'
    parts.append(f'<polyline {style} points="{path}"/>')
    if len(curves) > 1:
      parts.append(f'<line {style} x1="{left}" x2="{left + 18}" y1="26" y2="26"/>')
      parts.append(text_at(left + 23, 30, name, "start", "small"))
      left += 38 + CHAR * len(name)
  return svg(width, height, f"{title} over steps", parts)


def _thin(points, most: int = 300) -> list[tuple[float, float]]:
  """At most `most` points: means of neighbours; what is not finite is out."""
  points = [(float(a), float(b)) for a, b in points if b is not None]
  points = [p for p in points if all(map(math.isfinite, p))]
  n = math.ceil(len(points) / most)
  groups = [points[i : i + n] for i in range(0, len(points), n or 1)]
  return [(g[-1][0], sum(p[1] for p in g) / len(g)) for g in groups]
