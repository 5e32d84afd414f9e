"""Charts of the report: matplotlib's SVG in the page's own colours and fonts.

They are artists in the colours of the light theme, which then become the page's
CSS variables, so that a chart follows the theme. Text stays text.
"""

import contextlib
import html
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxgen.errors import printable
from jaxgen.monitor.page_style import CSS

THEME = dict(re.findall(r"--(\w+): (#\w{6})", CSS.partition("@media")[0]))
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
  with _canvas(width, height) as (figure, axes):
    _scale(axes.xaxis, seconds, width // 90, log_of=[p[0] for p in points])
    _scale(axes.yaxis, short, 5, log_of=ys if min(ys) > 0 and max(ys) > 20 * min(ys) else ())
    axes.set_title(f"{y_label} · better {'↖' if better_up else '↙'}")
    axes.set_xlabel("seconds per 1,000 samples")
    if floor is not None:
      axes.axhline(floor, color=THEME["muted"], linewidth=1.5, linestyle=(0, (4, 4)))
      text = f"real data {short(float(f'{floor:.3g}'))}"
      place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
      axes.annotate(text, (1, floor), (0, 3), ha="right", va="bottom", **place)
    tips: list[str] = []
    for s in series:
      colour = THEME[f"c{s.colour}"]
      axes.plot([p[0] for p in s.points], [p[1] for p in s.points], color=colour)
      dot = {"color": colour, "markeredgecolor": THEME["card"], "markersize": 10, "zorder": 3}
      for x, y, text in s.points:
        axes.plot(x, y, "o", gid=f"tip {len(tips)}", **dot)
        tips.append(f"{', '.join(filter(None, (s.label, text)))}: {y:.4g}, {seconds(x)}")
    figure.draw_without_rendering()
    for s in series:
      _label(axes, s.points, -1 if better_up else 1)
    return _svg(figure, f"{y_label} against seconds per 1,000 samples", tips)


def _label(axes, points: Sequence[tuple[float, float, str]], side: int) -> None:
  """Writes "3 steps", "5", ... beside the points of a curve, where there is room.

  To the upper right (side 1) or upper left (-1), off the curve; else below.
  """
  if len(points) < 2:
    return
  units = {text.partition(" ")[2] for *_, text in points}
  for i, (x, y, text) in enumerate(points):
    text = printable(text if i == 0 or len(units) > 1 else text.partition(" ")[0])
    for d in (side, -side):
      taken = [t.get_window_extent() for t in axes.texts]
      note = axes.annotate(
        text,
        (x, y),
        (6 * d, 6 * d * side),
        textcoords="offset points",
        ha="left" if d > 0 else "right",
        va="bottom" if d * side > 0 else "top",
        fontsize=11,
        color=THEME["ink"],
      )
      if not note.get_window_extent().count_overlaps(taken):
        break
      note.remove()


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
  with _canvas(width, height) as (figure, axes):
    artists = [
      axes.plot(*zip(*points, strict=True), color=THEME[f"c{colour}"], linestyle=DASHES[i % 3])[0]
      for i, points in enumerate(curves.values())
    ]
    _scale(axes.xaxis, short, 4)
    _scale(axes.yaxis, short, 4)
    axes.set_title(printable(title))
    if len(curves) > 1:
      # (A name that begins with "_" would be left out.)
      names = [f"\N{ZERO WIDTH SPACE}{printable(k)}" for k in curves]
      place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
      legend = axes.legend(artists, names, ncols=len(names), frameon=False, fontsize=11, **place)
      legend.set_in_layout(False)  # it stands beside the title, however long it is
    return _svg(figure, f"{title} over steps", ())


def _thin(points: Sequence, most: int = 300) -> list[tuple[float, float]]:
  """At most `most` points: means of neighbours; what is not finite is out."""
  points = [(float(a), float(b)) for a, b in points if b is not None]
  points = [p for p in points if all(map(math.isfinite, p))]
  n = math.ceil(len(points) / most)
  groups = [points[i : i + n] for i in range(0, len(points), n or 1)]
  return [(g[-1][0], sum(p[1] for p in g) / len(g)) for g in groups]


@contextlib.contextmanager
def _canvas(width: int, height: int) -> Iterator[tuple[Any, Any]]:
  """An empty figure of so many pixels and its axes, in the page's style."""
  import matplotlib.figure  # slow to load, and no use but here

  with matplotlib.rc_context(RC):
    size = width / 72, height / 72
    figure = matplotlib.figure.Figure(size, dpi=72, layout="constrained")
    axes = figure.subplots()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=THEME["muted"])
    axes.grid(axis="y", color=THEME["rule"], linewidth=1)
    axes.set_axisbelow(True)
    yield figure, axes


def _scale(axis, form: Callable[[float], str], count: int, log_of: Sequence[float] = ()) -> None:
  """About `count` ticks written by `form`; a log scale if there are values for it."""
  from matplotlib import ticker

  axis.set_major_locator(ticker.MaxNLocator(count, steps=(1, 2, 5, 10)))
  if log_of:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    many = 3 * math.log10(max(log_of) / min(log_of)) > count
    axis.set_major_locator(ticker.LogLocator(subs=(1,) if many else (1, 2, 5)))
    axis.set_minor_locator(ticker.NullLocator())
  axis.set_major_formatter(lambda value, _: form(value))


def _svg(figure, label: str, tips: Sequence[str]) -> str:
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
