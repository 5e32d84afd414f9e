"""The trilemma in words: who is on the front, and whether its corner is taken."""

from collections.abc import Mapping, Sequence

from jaxgen.report import fields
from jaxgen.report.fields import SPEED, listed, short
from jaxgen.report.pareto import (
  DISTANCE,
  SHARE,
  SLOWER,
  WORDS,
  Axis,
  beats,
  far_from_real,
  front,
  heights,
  near,
)


def setting(point: Mapping, brief: bool = False) -> str:
  """A point's place on its curve: "ddim, 8 evaluations", "truncation 0.5" or "".

  `brief`: without the sampler: "8", "0.5".
  """
  axis, knobs = point.get("axis"), point["knobs"]
  if axis == "steps":
    count = f"{point['nfe']:g}"
    if brief:
      return count
    plural = "" if point["nfe"] == 1 else "s"
    return ", ".join(filter(None, (point["sampler"], f"{count} evaluation{plural}")))
  values = [f"{v:g}" if brief else f"{k} {v:g}" for k, v in knobs.items()]
  return ", ".join(values)


def name(point: Mapping) -> str:
  """A point for readers: "ddpm (ddim, 8 evaluations)"."""
  where = setting(point)
  return f"{point['model']} ({where})" if where else point["model"]


def names(points: Sequence[Mapping]) -> str:
  """Points by model: "ddpm (ddim, 4 and 8 evaluations) and gan"."""
  models: dict[str, list[Mapping]] = {}
  for point in points:
    models.setdefault(point["model"], []).append(point)
  return listed([_settings(model, own) for model, own in models.items()])


def _settings(model: str, points: Sequence[Mapping]) -> str:
  """A model with its settings in brackets, counts of one sampler together."""
  curves: dict[tuple[str, str], list[Mapping]] = {}
  for point in points:
    curves.setdefault((point["sampler"], point.get("axis") or ""), []).append(point)
  parts = []
  for (sampler, axis), own in curves.items():
    if axis == "steps":
      counts = listed([setting(p, brief=True) for p in own])
      plural = "" if counts == "1" else "s"
      parts.append(", ".join(filter(None, (sampler, f"{counts} evaluation{plural}"))))
    else:
      values = [setting(p, brief=True) or "its own" for p in own]
      if values != ["its own"]:
        parts.append(f"{axis} {listed(values)}")
  return f"{model} ({'; '.join(parts)})" if parts else model


def verdict(
  points: Sequence[Mapping],
  axes: Sequence[Axis],
  data: str,
  real: Mapping[str, float] | None = None,
) -> list[str]:
  """Sentences: the corner first, then the front, then its edges and how that was judged.

  Args:
    points: Of all models.
    axes: What judges them.
    data: Its name.
    real: What real test data score, by key.
  """
  places = [heights(p, axes) for p in points]
  kept = front(places)
  best = [p for p, k in zip(points, kept, strict=True) if k]
  if not best:
    return [f"On {data}, nothing was measured on {listed([a.title.lower() for a in axes])}."]
  return [
    corner(best, points, axes, data, real or {}),
    f"On the front: {names(best)}.",
    *_beaten(points, places, kept),
    *_edges(points, axes),
    _terms(points, axes, real or {}),
  ]


def corner(
  best: Sequence[Mapping],
  points: Sequence[Mapping],
  axes: Sequence[Axis],
  data: str,
  real: Mapping[str, float],
) -> str:
  """Whether somebody is good, diverse and fast at once; else who comes nearest.

  As that is beside the others, it says so where nobody comes near real data.

  Args:
    best: The points on the front: who is near the corner and beaten is not told.
    points: All of them.
    axes: What judges them.
    data: Its name.
    real: What real test data score, by key.
  """
  what = listed([WORDS[a.title] for a in axes])
  inside = [p for p in best if all(near(p, points, a) for a in axes)]
  if inside:
    verb = "is" if len({p["model"] for p in inside}) == 1 else "are"
    if far := _far(points, axes, real):
      return f"On {data}, {names(inside)} {verb} {what} beside the others, but {far}."
    return f"On {data}, the corner is taken: {names(inside)} {verb} {what} at once."
  closest = min(best, key=lambda p: sorted((a.behind(p, points) for a in axes), reverse=True))
  lacks = [_lack(closest, points, a) for a in axes if not near(closest, points, a)]
  far = _far(points, axes, real)
  return (
    f"On {data}, the corner is empty: nothing is {what} at once. "
    f"Nearest comes {name(closest)}, {listed(lacks, ', ')}" + (f"; but {far}." if far else ".")
  )


def _far(points: Sequence[Mapping], axes: Sequence[Axis], real: Mapping[str, float]) -> str:
  """How far from real test data even the best are, in words; "" where they are near."""
  texts = [
    f"{a.label} {short(a.best(points))} at best against {short(real[a.key])}"
    for a in axes
    if far_from_real(points, a, real.get(a.key))
  ]
  return f"nothing comes near real test data: {listed(texts, ', ')}" if texts else ""


def _lack(point: Mapping, points: Sequence[Mapping], axis: Axis) -> str:
  """How far a point is from the best of an axis, in words."""
  best, own = axis.best(points), axis.value(point)
  if axis.title == SPEED:
    ratio = best / own if axis.better > 0 else own / best
    return f"{short(ratio)} times as slow as the fastest"
  return f"with {axis.label} {short(own)} where the best has {short(best)}"


def _beaten(
  points: Sequence[Mapping], places: Sequence[Sequence[float]], kept: Sequence[bool]
) -> list[str]:
  """Models that something beats at every setting, and who beats most of theirs."""
  models = dict.fromkeys(p["model"] for p in points)
  on = {p["model"] for p, k in zip(points, kept, strict=True) if k}
  texts = []
  for model in models:
    if model in on:
      continue
    own = [place for p, place in zip(points, places, strict=True) if p["model"] == model]
    wins = {
      other: len({i for i, place in enumerate(own) if any(beats(b, place) for b in theirs)})
      for other in on
      if (theirs := [b for p, b in zip(points, places, strict=True) if p["model"] == other])
    }
    first = max(models, key=lambda m: wins.get(m, 0))
    texts.append(f"{model} (by {first})" if wins.get(first) else model)
  return [f"Beaten at every setting: {listed(texts)}."] if texts else []


def _edges(points: Sequence[Mapping], axes: Sequence[Axis]) -> list[str]:
  """For each pair of axes, who has these two and lacks the third."""
  if len(axes) < 3:
    return []
  texts = []
  for lacking in axes[::-1]:
    pair = [a for a in axes if a is not lacking]
    own = [
      p for p in points if all(near(p, points, a) for a in pair) and not near(p, points, lacking)
    ]
    who = listed(list(dict.fromkeys(p["model"] for p in own))) or "nobody"
    words = [WORDS[a.title] for a in pair]
    texts.append(f"{' and '.join(words).capitalize()}, but not {WORDS[lacking.title]}: {who}.")
  return texts


def _terms(points: Sequence[Mapping], axes: Sequence[Axis], real: Mapping[str, float]) -> str:
  """What good, diverse and fast mean here."""
  texts = []
  for a in axes:
    best, limit = a.best(points), a.limit(points)
    if a.title == SPEED:
      how = f"at most {SLOWER:g} times as slow as the fastest"
    elif a.better > 0:
      how = f"at least {fields.percent(SHARE)} of the best"
    else:
      how = f"at most {DISTANCE:g} times the best"
    numbers = f"{short(best)}: {short(limit)}"
    if fields.is_finite(real.get(a.key)):
      numbers += f"; real data {short(real[a.key])}"
    texts.append(f"{WORDS[a.title]}: {a.label} {how} ({numbers})")
  text = "; ".join(texts)
  return f"{text[:1].upper()}{text[1:]}."
