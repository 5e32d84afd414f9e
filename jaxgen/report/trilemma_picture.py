"""The trilemma drawn: quality against speed, against diversity, and what it cost.

Better is up and to the right everywhere. A curve is a model with one sampler,
its colour the family; the number in a mark says how many evaluations, or which
truncation. Marks on the front are full, those that something beats are hollow;
a line joins what nothing beats in that panel alone. The tinted corner holds
what is near the best of both.
"""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxgen.errors import printable
from jaxgen.monitor import pictures, table
from jaxgen.monitor.progress import duration
from jaxgen.report import charts, fields, label_placement, trilemma_verdict
from jaxgen.report.charts import LOG_ABOVE, THEME
from jaxgen.report.fields import DIVERSITY, QUALITY, SPEED
from jaxgen.report.pareto import WORDS, Axis, front

COLOURS = 8  # of the page
WIDTH, HEIGHT, DPI = 1560, 760, 144  # of the PNG: points, and dots per inch
MARK, SLOW_MARK, FAST_MARK = 15, 12, 25  # points across
BEATEN, LEAST_WITH_TEXT = 0.55, 11.5  # part of that, where crowded; the least that holds letters
LONGEST = 26  # letters of a curve's name
LETTERS = 168  # in a line of the verdict
ROWS = 8  # of the costs, at least, so that bars are no blocks
BEYOND = 3.0  # times the best of the worst curve: what is worse is in tables alone


class Curve(NamedTuple):
  """A model with one sampler: its points, from fast to slow or by truncation."""

  name: str
  colour: str
  points: Sequence[Mapping]
  number: int  # among those of its model
  alone: bool  # whether it is the model's only one


def curves_of(results: Mapping) -> list[Curve]:
  """All curves, named by model, and by sampler where a model has several."""
  families = colours(results)
  own = {m["name"]: m["family"] for m in results["models"]}
  groups: dict[tuple[str, str], list[Mapping]] = {}
  for point in results["points"]:
    groups.setdefault((point["model"], point["sampler"]), []).append(point)
  samplers = {m: [s for other, s in groups if other == m] for m, _ in groups}
  return [
    Curve(
      cut(f"{model} {sampler}" if len(samplers[model]) > 1 else model),
      families[own[model]],
      # A model's own truncation is the widest.
      sorted(points, key=lambda p: (p["nfe"], *(p["knobs"].values() or [math.inf]))),
      samplers[model].index(sampler),
      len(samplers[model]) == 1,
    )
    for (model, sampler), points in groups.items()
  ]


def colours(results: Mapping) -> dict[str, str]:
  """{family: colour}, in the order of the models."""
  families = dict.fromkeys(m["family"] for m in results["models"])
  return {f: THEME[f"c{i % COLOURS}"] for i, f in enumerate(families)}


def cut(name: str) -> str:
  """A name as it stands in a picture."""
  name = printable(name)
  return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def axis_named(results: Mapping, title: str) -> Axis | None:
  """What judges quality, diversity or speed; None where nothing does."""
  return next((Axis(*a) for a in results["axes"] if a[0] == title), None)


def png(results: Mapping) -> np.ndarray:
  """All panels side by side: uint8 [H, W, 3]."""
  ratios = {"width_ratios": (1.15, 1.15, 0.62)}
  with charts.canvas(WIDTH, HEIGHT, DPI, ncols=3, gridspec_kw=ratios) as (figure, axes):
    figure.set_facecolor(THEME["page"])
    figure.get_layout_engine().set(w_pad=0.16, h_pad=0.1, wspace=0.03)
    _headline(figure, results)
    _legend(figure, results)
    panels = [speed_panel(axes[0], results), diversity_panel(axes[1], results)]
    _cost(axes[2], results)
    figure.draw_without_rendering()
    for panel, one in zip(panels, axes, strict=False):
      place_names(one, panel)
    return pictures.pixels_of(figure)


def _headline(figure, results: Mapping) -> None:
  """What it is of, and the verdict's first sentence."""
  verdict = textwrap.fill(printable(results["verdict"][0]), LETTERS)
  style = {"x": 0.012, "ha": "left", "fontsize": 15, "fontweight": "bold", "color": THEME["ink"]}
  figure.suptitle(verdict, **style)


def _legend(figure, results: Mapping) -> None:
  """Families as dots, and what full and hollow marks mean, below the panels."""
  from matplotlib.lines import Line2D

  dot = {"linestyle": "", "marker": "o", "markersize": 10}
  marks = [
    (Line2D([], [], color=colour, **dot), family) for family, colour in colours(results).items()
  ]
  grey = {"color": THEME["muted"]}
  marks += [
    (Line2D([], [], **grey, **dot), "on the front: nothing beats it at all three"),
    (Line2D([], [], **grey, **dot, markerfacecolor=THEME["page"], markeredgewidth=1.6), "beaten"),
    (Line2D([], [], color=THEME["ink"], linewidth=1.2), "nothing beats these in this panel"),
    (Line2D([], [], linestyle=""), "numbers: evaluations, or truncation"),
  ]
  artists, words = zip(*marks, strict=True)
  style = {"frameon": False, "fontsize": 11.5, "handletextpad": 0.4, "columnspacing": 1.6}
  columns = len(marks) if len(marks) < 9 else -(-len(marks) // 2)  # one row, or two
  figure.legend(artists, words, loc="outside lower left", ncols=columns, **style)


class Panel(NamedTuple):
  """What stands in a panel, for names to keep clear of."""

  curves: Sequence[tuple[Curve, np.ndarray, np.ndarray]]  # with x and y [n] of points
  sizes: Sequence[np.ndarray]  # of marks [n], in points across
  front: np.ndarray  # [m, 2], corners of the line of what nothing beats
  tips: Sequence[str]  # what is told where the page's reader points at a mark


def speed_panel(axes, results: Mapping) -> Panel:
  """Quality against speed."""
  speed = axis_named(results, SPEED)
  return _panel(axes, results, speed, axis_named(results, QUALITY), None)


def diversity_panel(axes, results: Mapping) -> Panel:
  """Quality against diversity; fast models have large marks."""
  speed = axis_named(results, SPEED)
  return _panel(axes, results, axis_named(results, DIVERSITY), axis_named(results, QUALITY), speed)


def _panel(axes, results: Mapping, x: Axis | None, y: Axis | None, size: Axis | None) -> Panel:
  """Curves over two axes, with the front of these two, and their corner."""
  if x is None or y is None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "not measured by this judge", transform=axes.transAxes, ha="center")
    return Panel([], [], np.zeros((0, 2)), [])
  drawn, sizes, points = [], [], results["points"]
  diameter = _diameters(points, size)
  for curve in curves_of(results):
    own = [p for p in curve.points if math.isfinite(x.value(p)) and math.isfinite(y.value(p))]
    if own:
      curve = curve._replace(points=own)
      drawn.append((curve, *(np.array([a.value(p) for p in own]) for a in (x, y))))
      sizes.append(np.array([diameter(p) for p in own]))
  for axis, one in ((axes.xaxis, x), (axes.yaxis, y)):
    _prepare(axis, one, results)
  _shade_corner(axes, x, y, points)
  steps = _draw_front(axes, x, y, points)
  tips: list[str] = []
  for (curve, xs, ys), across in zip(drawn, sizes, strict=True):
    _draw(axes, curve, xs, ys, across, (x, y), tips)
  axes.set_title(f"{y.label} against {x.label.lower()} · better ↗")
  return Panel(drawn, sizes, steps, tips)


def _diameters(points: Sequence[Mapping], size: Axis | None):
  """f(point) -> points across its mark: by speed, or all alike."""
  if size is None:
    return lambda p: MARK
  values = [math.log(v) for p in points if (v := size.value(p)) > 0]
  low, high = min(values, default=0), max(values, default=0)

  def diameter(p):
    part = (math.log(size.value(p)) - low) / (high - low) if high > low else 0.5
    across = SLOW_MARK + (FAST_MARK - SLOW_MARK) * (part if size.better > 0 else 1 - part)
    return across if p["front"] else BEATEN * across

  return diameter


def _prepare(axis, one: Axis, results: Mapping) -> None:
  """Scale, ticks and label of an axis, the better end up or to the right."""
  points, real = results["points"], results["real"]["metrics"].get(one.key)
  values = [v for p in points if math.isfinite(v := one.value(p))]
  values = [v for v in values if one.better * v >= one.better * _worst_shown(results, one)]
  values += [real] if fields.is_finite(real) else []
  wide = one.better < 0 and max(values) > LOG_ABOVE * min(values)  # shares stay as they are
  log = min(values) > 0 and (one.title == SPEED or wide)
  form = charts.seconds if one.key == "latency" else charts.short
  charts.scale(axis, form, 6, log_of=values if log else ())
  low, high = min(values), max(values)
  if log:
    pad = max((high / low) ** 0.07, 1.05)
    low, high = low / pad, high * pad
  else:
    pad = 0.07 * (high - low) or 0.05 * abs(high) or 1
    low, high = low - pad, high + pad
  ends = (low, high) if one.better > 0 else (high, low)
  set_ends = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
  set_ends(*ends)
  axis.set_label_text(one.label)
  if fields.is_finite(real):
    line = axis.axes.axvline if axis.axis_name == "x" else axis.axes.axhline
    line(real, color=THEME["muted"], linewidth=1.2, linestyle=charts.FLOOR, zorder=1)
    _name_real(axis, real)


def _name_real(axis, real: float) -> None:
  """Writes "real data" at its line: at the left end, or upright at the lower one."""
  axes, style = axis.axes, {"color": THEME["muted"], "fontsize": 10, "va": "bottom"}
  if axis.axis_name == "x":
    place = {"xycoords": axes.get_xaxis_transform(), "rotation": 90, "ha": "right"}
    axes.annotate("real data", (real, 0), (-3, 6), textcoords="offset points", **place, **style)
  else:
    place = {"xycoords": axes.get_yaxis_transform(), "ha": "left"}
    axes.annotate("real data", (0, real), (6, 2), textcoords="offset points", **place, **style)


def _worst_shown(results: Mapping, axis: Axis) -> float:
  """The worst value that is drawn: every curve is seen, if not to its end.

  Distances of one step may be hundreds of times the best, and would leave no
  room for all others.
  """
  if axis.better > 0 or axis.title == SPEED:
    return -axis.better * math.inf
  best = [axis.best(curve.points) for curve in curves_of(results)]
  return max([v for v in best if math.isfinite(v)], default=0) * BEYOND


def _shade_corner(axes, x: Axis, y: Axis, points: Sequence[Mapping]) -> None:
  """Tints what is near the best of both axes, to the upper right."""
  from matplotlib.patches import Rectangle

  left, low = x.limit(points), y.limit(points)
  right, top = axes.get_xlim()[1], axes.get_ylim()[1]
  style = {"facecolor": THEME["good"], "edgecolor": "none", "zorder": 0}
  axes.add_patch(Rectangle((left, low), right - left, top - low, **style))
  words = f"{WORDS[y.title]} and {WORDS[x.title]}"
  place = {"xytext": (-6, -6), "textcoords": "offset points", "ha": "right", "va": "top"}
  axes.annotate(words, (right, top), color=THEME["good-ink"], fontsize=10.5, **place)


def _draw_front(axes, x: Axis, y: Axis, points: Sequence[Mapping]) -> np.ndarray:
  """Joins what nothing beats on these two axes alone, in steps -> their corners [n, 2]."""
  places = [(x.better * x.value(p), y.better * y.value(p)) for p in points]
  best = sorted({place for place, kept in zip(places, front(places), strict=True) if kept})
  if not best:
    return np.zeros((0, 2))
  # From the left edge to the lower edge: above and to the right of it is nothing.
  corners = [(axes.get_xlim()[0], y.better * best[0][1])]
  for (a, b), (_, after) in itertools.pairwise([*best, (0, math.nan)]):
    corners += [(x.better * a, y.better * b), (x.better * a, y.better * after)]
  corners[-1] = (corners[-1][0], axes.get_ylim()[0])
  steps = np.array(corners)
  axes.plot(*steps.T, color=THEME["ink"], alpha=0.75, linewidth=1.2, zorder=2)
  return steps


def _draw(axes, curve: Curve, xs, ys, across, judges: Sequence[Axis], tips: list[str]) -> None:
  """A curve with whiskers, its marks, and in them what was turned."""
  dashes = charts.DASHES[curve.number % len(charts.DASHES)]
  axes.plot(xs, ys, color=curve.colour, linewidth=1.6, linestyle=dashes, alpha=0.6, zorder=3)
  for point, x, y, size in zip(curve.points, xs, ys, across, strict=True):
    _whiskers(axes, point, (x, y), judges, curve.colour)
    full = point["front"]
    order = 6 if full else 4
    style = {"markersize": size, "markeredgewidth": 1.4, "zorder": order}
    face, edge = (curve.colour, THEME["card"]) if full else (THEME["card"], curve.colour)
    axes.plot(
      x, y, "o", gid=f"tip {len(tips)}", markerfacecolor=face, markeredgecolor=edge, **style
    )
    values = (f"{j.label} {fields.short(j.value(point))}" for j in judges)
    tips.append(f"{trilemma_verdict.name(point)}: {', '.join(values)}")
    text = trilemma_verdict.setting(point, brief=True)
    if text and len(text) <= 4 and size >= LEAST_WITH_TEXT:
      letters = max(min(0.62 * size, 9.5) * (1, 1, 0.88, 0.68, 0.55)[len(text)], 5)
      ink = THEME["card"] if full else curve.colour
      place = {"ha": "center", "va": "center_baseline", "zorder": order + 0.5}
      weight = {"fontsize": letters, "fontweight": "bold", "color": ink}
      axes.annotate(text, (x, y), in_layout=False, **place, **weight)


def _whiskers(axes, point: Mapping, place, judges: Sequence[Axis], colour: str) -> None:
  """The range over several trainings, both ways."""
  if point["trainings"] < 2:
    return
  for i, judge in enumerate(judges):
    score = point["scores"][judge.key]
    ends = [list(place), list(place)]
    ends[0][i], ends[1][i] = score["low"], score["high"]
    axes.plot(*zip(*ends, strict=True), color=colour, linewidth=1.3, zorder=3.5, marker="")


def place_names(axes, panel: Panel) -> list[np.ndarray]:
  """Writes each curve's name beside one of its marks, where nothing else is.

  A name that had to go far away is tied to its mark by a thin line.

  Returns: left, low, right, top of each name in pixels.
  """
  k = axes.figure.dpi / 72
  to_pixels = axes.transData.transform
  marks = [to_pixels(np.column_stack([xs, ys])) for _, xs, ys in panel.curves]
  discs = [
    np.column_stack([xy, across * k / 2 + 1]) for xy, across in zip(marks, panel.sizes, strict=True)
  ]
  lines = [label_placement.between(xy) for xy in (*marks, to_pixels(panel.front))]
  obstacles = label_placement.Obstacles(
    np.concatenate([np.zeros((0, 3)), *discs]), np.concatenate(lines), axes.bbox.extents
  )
  taken: list[np.ndarray] = []
  # Curves with few points have few places: they choose first.
  for i in sorted(range(len(marks)), key=lambda i: len(marks[i])):
    curve = panel.curves[i][0]
    style = {"fontsize": 11, "fontweight": "bold", "color": curve.colour, "zorder": 8}
    where = {"xycoords": "figure pixels", "in_layout": False, "va": "center"}
    note = axes.annotate(curve.name, (0, 0), **where, **style)
    box = note.get_window_extent()
    worse = np.array([1.5 * (curve.alone and not p["front"]) for p in curve.points])
    radii = panel.sizes[i] * k / 2
    size = (box.width, box.height)
    spot = label_placement.place(marks[i], radii, worse, size, obstacles, taken, k)
    if spot is None:
      note.remove()
      continue
    taken.append(spot.box)
    left, low, right, top = spot.box
    note.set_position((left, (low + top) / 2))
    note.xy = note.get_position()
    if spot.tied:
      x, y = marks[i][spot.mark]
      end = min(max(x, left), right), min(max(y, low), top)
      line = axes.transData.inverted().transform([(x, y), end])
      axes.plot(*line.T, color=curve.colour, linewidth=0.8, alpha=0.8, zorder=2.5)
  return taken


def _cost(axes, results: Mapping) -> None:
  """What training took, a bar for each model: operations, and time in words."""
  families, models = colours(results), results["models"][::-1]
  known = [m["flops"]["mean"] for m in models if m["flops"]]
  most = max(known, default=0) or 1
  for i, m in enumerate(models):
    colour, total = families[m["family"]], m["flops"]["mean"] if m["flops"] else 0
    further = sum(u.get("flops") or 0 for u in m["upstream"])
    bar = {"height": 0.34, "left": 0, "zorder": 3}
    axes.barh(i - 0.2, total, color=colour, alpha=0.35, **bar)
    axes.barh(i - 0.2, max(total - further, 0), color=colour, **bar)
    axes.text(0, i + 0.22, cut(m["name"]), color=colour, fontweight="bold", fontsize=11)
    axes.text(most, i + 0.22, spent(m), color=THEME["muted"], fontsize=10.5, ha="right")
  low = min(-0.8, len(models) - 0.2 - ROWS)
  axes.set(ylim=(low, len(models) - 0.2), xlim=(0, most), yticks=(), xticks=())
  axes.grid(visible=False)
  pale = any(m["upstream"] for m in models)
  axes.set_title("Training, in operations" + (" · pale: codec, teacher" if pale else ""))


def spent(model: Mapping) -> str:
  """Operations and time of a training, in words."""
  parts = []
  if model["flops"]:
    parts.append(table.si(model["flops"]["mean"], "FLOP"))
  if model["train_seconds"]:
    parts.append(duration(model["train_seconds"]["mean"]))
  return " · ".join(parts) or "cost unknown"


def panel_svg(results: Mapping, which: str, width: int, height: int) -> str:
  """One panel for the page: "speed" or "diversity"; "" where nothing can be drawn."""
  axes_known = {a[0] for a in results["axes"]}
  if not {QUALITY, SPEED if which == "speed" else DIVERSITY} <= axes_known:
    return ""
  with charts.canvas(width, height) as (figure, axes):
    panel = (speed_panel if which == "speed" else diversity_panel)(axes, results)
    figure.draw_without_rendering()
    place_names(axes, panel)
    return charts.svg(figure, f"Quality against {which}", panel.tips)
