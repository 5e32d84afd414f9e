"""Charts of the report: matplotlib's SVG in the page's own colours and fonts.

They are artists in the colours of the light theme, which then become the page's
CSS variables, so that a chart follows the theme. Text stays text.
"""

import contextlib
import html
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxgen.errors import printable
from jaxgen.monitor.page_style import CSS

THEME = dict(re.findall(r"--([\w-]+): (#\w{6})", CSS.partition("@media")[0]))
RC = {
  "svg.fonttype": "none",
  "svg.hashsalt": "jaxgen",
  "text.parse_math": False,
  "font.size": 12,
  "text.color": THEME["muted"],
  "axes.labelcolor": THEME["muted"],
  "axes.titlecolor": THEME["ink"],
  "axes.titlelocation": "left",
  "axes.titlesize": 12,
  "axes.titleweight": "bold",
  "lines.linewidth": 2,
}
TIME = "training time of each model"
LOG_ABOVE = 8  # times the least that the greatest of values on a log scale is
LONG = 14  # letters of a name that stands beside its curve
FLOOR = (0, (4, 4))
DASHES = ("-", (0, (6, 3)), (0, (2, 3)))


def escape(text: object) -> str:
  """A name or number as text of a page: it means nothing to a browser."""
  return html.escape(printable(text))


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
  drawable = lambda p: p[0] > 0 and all(map(math.isfinite, p[:2]))
  series = [s._replace(points=list(filter(drawable, s.points))) for s in series]
  points = [p for s in series for p in s.points]
  if not points:
    return ""
  ys = [p[1] for p in points] + ([] if floor is None else [floor])
  with canvas(width, height) as (figure, axes):
    scale(axes.xaxis, seconds, width // 90, log_of=[p[0] for p in points])
    scale(axes.yaxis, short, 5, log_of=ys if min(ys) > 0 and max(ys) > LOG_ABOVE * min(ys) else ())
    axes.set_title(f"{y_label} · better {'↖' if better_up else '↙'}")
    axes.set_xlabel("seconds per 1,000 samples")
    if floor is not None:
      axes.axhline(floor, color=THEME["muted"], linewidth=1.5, linestyle=FLOOR)
    tips: list[str] = []
    for s in series:
      colour = THEME[f"c{s.colour}"]
      axes.plot([p[0] for p in s.points], [p[1] for p in s.points], color=colour)
      dot = {"color": colour, "markeredgecolor": THEME["card"], "markersize": 10, "zorder": 3}
      for x, y, text in s.points:
        axes.plot(x, y, "o", gid=f"tip {len(tips)}", **dot)
        tips.append(f"{', '.join(filter(None, (s.label, text)))}: {y:.4g}, {seconds(x)}")
    axes.margins(0.08, 0.1)  # for words
    figure.draw_without_rendering()
    if floor is not None:
      _name_floor(axes, floor, [s.points for s in series])
    for s in series:
      _label(axes, s, -1 if better_up else 1)
    for s in series:
      _name(axes, s, [s.points for s in series])
    return svg(figure, f"{y_label} against seconds per 1,000 samples", tips)


def _name_floor(axes, floor: float, curves: Sequence[Sequence[Sequence]]) -> None:
  """Writes "real data 1.64" at the line, at an end where no curve is near."""
  text = f"real data {short(float(f'{floor:.3g}'))}"
  place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
  ways = [(x, up) for x in (1, 0) for up in (True, False)]
  clear = {}
  for x, up in ways:
    side = {"ha": "right" if x else "left", "va": "bottom" if up else "top"}
    note = axes.annotate(text, (x, floor), (0, 4 if up else -4), **side, **place)
    box = note.get_window_extent()
    inside = axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
    clear[x, up] = _clearance(axes, box, curves) if inside or up else -1.0
    note.remove()
  # The first that has room for a dot, or else the one with the most.
  x, up = next((way for way in ways if clear[way] > 10), max(ways, key=clear.get))
  side = {"ha": "right" if x else "left", "va": "bottom" if up else "top"}
  axes.annotate(text, (x, floor), (0, 4 if up else -4), **side, **place)


def _clearance(axes, box, curves: Sequence[Sequence[Sequence]]) -> float:
  """The distance in pixels of a box from the nearest point of any curve."""
  nearest = math.inf
  for points in curves:
    pixels = [axes.transData.transform(p[:2]) for p in points]
    ends = zip(pixels, pixels[1:] or pixels, strict=False)
    for (x0, y0), (x1, y1) in ends:
      for t in (i / 16 for i in range(17)):
        x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
        dx, dy = max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0)
        nearest = min(nearest, math.hypot(dx, dy))
  return nearest


def _label(axes, series: Series, side: int) -> None:
  """Writes "3 steps", "5", ... beside the points of a curve, where there is room.

  To the upper right (side 1) or upper left (-1), off the curve; else below.
  """
  if len(series.points) < 2:
    return
  units = {text.partition(" ")[2] for *_, text in series.points}
  for i, (x, y, text) in enumerate(series.points):
    text = text if i == 0 or len(units) > 1 else text.partition(" ")[0]
    for d in (side, -side):
      taken = [t.get_window_extent() for t in axes.texts]
      note = _write(axes, text, (x, y), (d, d * side), fontsize=11, color=THEME["ink"])
      if not note.get_window_extent().count_overlaps(taken):
        break
      note.remove()


def _name(axes, series: Series, curves: Sequence[Sequence[Sequence]]) -> None:
  """Writes a family's name at one of its points, where nothing else is.

  Names that are long are in the legend alone.
  """
  if len(series.label) > LONG:
    return
  style = {"fontweight": "bold", "color": THEME[f"c{series.colour}"]}
  for (x, y, _), dx, dy in itertools.product(series.points[::-1], (1, -1), (-1, 1)):
    taken = [t.get_window_extent() for t in axes.texts]
    note = _write(axes, series.label, (x, y), (dx, dy), **style)
    box = note.get_window_extent()
    inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
    inside = inside and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
    if inside and not box.count_overlaps(taken) and _clearance(axes, box, curves) > 8:  # a dot
      return
    note.remove()


def _write(axes, text: str, place: tuple[float, float], way: tuple[int, int], **style):
  """Text off a point, to the right (1) or left (-1), above (1) or below (-1)."""
  dx, dy = way
  side = {"ha": "left" if dx > 0 else "right", "va": "bottom" if dy > 0 else "top"}
  how = {"textcoords": "offset points", **side, **style}
  return axes.annotate(printable(text), place, (6 * dx, 6 * dy), **how)


class Band(NamedTuple):
  """A family over its training: points (x, y, low, high), and its name."""

  label: str
  colour: int
  points: Sequence[tuple[float, float, float | None, float | None]]


def progress(
  bands: Sequence[Band],
  floor: float | None,
  y_label: str,
  better_up: bool,
  x_label: str,
  width: int,
  height: int,
) -> str:
  """Quality against what training took (log), families as colours.

  A band from low to high lies around each curve. `floor` is as in `trade_off`;
  so are points that cannot be drawn. `x_label` is TIME for seconds.
  """
  drawable = lambda p: p[0] > 0 and all(map(math.isfinite, p[:2]))
  bands = [b._replace(points=sorted(filter(drawable, b.points))) for b in bands]
  bands = [b for b in bands if b.points]
  if not bands:
    return ""
  ys = [v for b in bands for p in b.points for v in p[1:] if v is not None and math.isfinite(v)]
  ys += [] if floor is None else [floor]
  with canvas(width, height) as (figure, axes):
    form = seconds if x_label == TIME else short
    scale(axes.xaxis, form, width // 90, log_of=[p[0] for b in bands for p in b.points])
    scale(axes.yaxis, short, 5, log_of=ys if min(ys) > 0 and max(ys) > LOG_ABOVE * min(ys) else ())
    axes.set_title(f"{y_label} · better {'↑' if better_up else '↓'}")
    axes.set_xlabel(x_label)
    if floor is not None:
      axes.axhline(floor, color=THEME["muted"], linewidth=1.5, linestyle=FLOOR)
    tips: list[str] = []
    for b in bands:
      colour = THEME[f"c{b.colour}"]
      sure = [p for p in b.points if p[2] is not None and p[3] is not None]
      if sure:
        x, _, low, high = zip(*sure, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
      axes.plot([p[0] for p in b.points], [p[1] for p in b.points], color=colour)
      dot = {"color": colour, "markeredgecolor": THEME["card"], "markersize": 8, "zorder": 3}
      for x, y, *_ in b.points:
        axes.plot(x, y, "o", gid=f"tip {len(tips)}", **dot)
        tips.append(f"{b.label}: {y:.4g}, {form(x)}")
    _name_ends(figure, axes, bands)
    if floor is not None:
      _name_floor(axes, floor, [b.points for b in bands])
    return svg(figure, f"{y_label} against {x_label}", tips)


def _name_ends(figure, axes, bands: Sequence[Band], apart: float = 15) -> None:
  """Writes names to the right of where curves end, one under the other."""
  if max(len(b.label) for b in bands) > LONG:
    return  # there is a legend, and no room
  place = {"textcoords": "offset points", "ha": "left", "va": "center", "fontweight": "bold"}
  right = max(p[0] for b in bands for p in b.points)
  notes = [
    axes.annotate(
      printable(b.label), (right, b.points[-1][1]), (10, 0), color=THEME[f"c{b.colour}"], **place
    )
    for b in bands
  ]
  figure.draw_without_rendering()
  heights = [axes.transData.transform((right, b.points[-1][1]))[1] for b in bands]
  at, low = {}, -math.inf
  for i in sorted(range(len(bands)), key=heights.__getitem__):
    at[i] = low = max(heights[i], low + apart)
  for i, note in enumerate(notes):
    note.set_position((10, at[i] - heights[i]))


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
  with canvas(width, height) as (figure, axes):
    artists = [
      axes.plot(*zip(*points, strict=True), color=THEME[f"c{colour}"], linestyle=DASHES[i % 3])[0]
      for i, points in enumerate(curves.values())
    ]
    scale(axes.xaxis, short, 4)
    scale(axes.yaxis, short, 4)
    axes.set_title(printable(title))
    if len(curves) > 1:
      # (A name that begins with "_" would be left out.)
      names = [f"\N{ZERO WIDTH SPACE}{printable(k)}" for k in curves]
      place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
      legend = axes.legend(artists, names, ncols=len(names), frameon=False, fontsize=11, **place)
      legend.set_in_layout(False)  # it stands beside the title, however long it is
    return svg(figure, f"{title} over steps", ())


def _thin(points: Sequence, most: int = 300) -> list[tuple[float, float]]:
  """At most `most` points: means of neighbours; what is not finite is out."""
  points = [(float(a), float(b)) for a, b in points if b is not None]
  points = [p for p in points if all(map(math.isfinite, p))]
  n = math.ceil(len(points) / most)
  groups = [points[i : i + n] for i in range(0, len(points), n or 1)]
  return [(g[-1][0], sum(p[1] for p in g) / len(g)) for g in groups]


@contextlib.contextmanager
def canvas(width: int, height: int, dpi: int = 72, **grid: Any) -> Iterator[tuple[Any, Any]]:
  """An empty figure of so many points and its axes, in the page's style.

  `grid` is as of matplotlib's `subplots`: of several axes, an array of them.
  """
  import matplotlib.figure  # slow to load, and no use but here
  import numpy as np

  with matplotlib.rc_context(RC):
    size = width / 72, height / 72
    figure = matplotlib.figure.Figure(size, dpi=dpi, layout="constrained")
    axes = figure.subplots(**grid)
    for one in np.ravel(axes):
      one.spines[:].set_visible(False)
      one.tick_params(length=0, labelcolor=THEME["muted"])
      one.grid(axis="y", color=THEME["rule"], linewidth=1)
      one.set_axisbelow(True)
    yield figure, axes


def scale(axis, form: Callable[[float], str], count: int, log_of: Sequence[float] = ()) -> None:
  """About `count` ticks written by `form`; a log scale if there are values for it."""
  from matplotlib import ticker

  axis.set_major_locator(ticker.MaxNLocator(count, steps=(1, 2, 5, 10)))
  if log_of:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    decades = math.log10(max(log_of) / min(log_of))
    # Where there are less than two decades, powers of ten may be a single tick.
    many = 3 * decades > count and decades >= 2
    axis.set_major_locator(ticker.LogLocator(subs=(1,) if many else (1, 2, 5)))
    axis.set_minor_locator(ticker.NullLocator())
  axis.set_major_formatter(lambda value, _: form(value))


def svg(figure, label: str, tips: Sequence[str]) -> str:
  """A figure as an element of the page; `tips` show over what has gid "tip N"."""
  file = io.StringIO()
  nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
  figure.savefig(file, format="svg", transparent=True, metadata=nothing)
  text = re.sub(r" clip-path=\"[^\"]*\"|font-family: [^;\"]*;? ?", "", file.getvalue())
  for i, tip in enumerate(tips):
    text = text.replace(f'<g id="tip {i}">', f"<g><title>{escape(tip)}</title>")
  for name, colour in THEME.items():
    text = text.replace(colour, f"var(--{name})")
  (box,) = re.findall(r'viewBox="[^"]*"', text)
  _, _, body = text.partition("</defs>")
  return f'<svg {box} role="img" aria-label="{escape(label)}">{body.strip()}'
