"""Which family to choose: the answer, how sure it is, what would change it."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jaxgen.report import outlook, stability
from jaxgen.report.fields import (
  AXES,
  QUALITY,
  RATE,
  baseline,
  complete,
  describe,
  either,
  is_finite,
  is_level,
  labels,
  listed,
  percent,
  score,
  short,
)
from jaxgen.report.ranking import Ranking, rankings

MORE_SEEDS = 3  # the fewest that have a standard deviation worth its name


class Pick(NamedTuple):
  """The best of one axis: labels of rows that are level, and the evidence."""

  axis: str
  winners: tuple[str, ...]
  evidence: str


def answer(results: Mapping) -> dict[str, dict[str, Any]]:
  """The verdict as a report has it.

  Returns:
    By axis, of quality, diversity, speed and short_training those that were
    measured: "winners", labels of all models whose interval overlaps that of
    the best, which comes first; "close", whether there are several; "metric",
    its key; "values", {label: [mean, low, high]}, best first, low and high of
    a 95% interval or None. A short training is the round nearest to 25% of the
    budget, and has its "share".
  """
  return {
    key: {
      "winners": list(r.winners),
      "close": r.close,
      "metric": r.metric,
      "values": {name: list(s) for name, s in r.scores.items()},
    }
    | ({} if r.share is None else {"share": r.share})
    for key, r in rankings(results).items()
  }


def picks(results: Mapping) -> list[Pick]:
  """The best of each axis, where it was measured, with the evidence."""
  results = complete(results)
  return [Pick(r.axis, r.winners, _evidence(results, r)) for r in rankings(results).values()]


def _evidence(results: Mapping, r: Ranking) -> str:
  """Numbers that speak for the winner of an axis."""
  (_, best), *_ = r.scores.items()
  others = [(name, s) for name, s in r.scores.items() if name not in r.winners]
  if r.metric == RATE:
    text = f"{short(best.mean)} samples a second"
    if others:
      text += f"; {short(best.mean / others[0][1].mean)} times as fast as {others[0][0]}"
    return text
  real = results["real"]["metrics"].get(r.metric)
  text = f"{describe(r.metric).label} {short(best.mean)}"
  text += f" at {percent(r.share)} of the budget" if r.share is not None else ""
  text += f"; real data {short(real)}" if is_finite(real) else ""
  text += f"; next {others[0][0]} {short(others[0][1].mean)}" if others else ""
  return text


def sentence(results: Mapping) -> str:
  """The answer: which family to choose on this data, in one sentence."""
  results = complete(results)
  data, rows, order = results["dataset"], results["rows"], rankings(results)
  if not order:
    return f"On {data}, no model has been measured yet."
  if len(rows) == 1:
    return f"On {data}, only {labels(rows)[0]} was measured: nothing to choose."
  clear = _by_winner(r for r in order.values() if not r.close)
  close = _by_winner(r for r in order.values() if r.close)
  parts = []
  if clear:
    choices = [f"{who[0]} for {listed(axes)}" for who, axes in clear.items()]
    parts.append(f"choose {listed(choices, ', ')}")
  if close:
    ties = [f"{listed(axes)} ({either(who)})" for who, axes in close.items()]
    parts.append(f"too close to call for {listed(ties, ', ')}")
  if (names := unbeaten(results)) and set(names) == set(order["quality"].scores):
    parts.append(f"but nobody beats {baseline(results)} yet")
  return f"On {data}, {'; '.join(parts)}."


def _by_winner(order: Iterable[Ranking]) -> dict[tuple[str, ...], list[str]]:
  """Axes by who is best at them."""
  axes: dict[tuple[str, ...], list[str]] = {}
  for r in order:
    axes.setdefault(tuple(sorted(r.winners)), []).append(r.axis[0].lower() + r.axis[1:])
  return axes


def trust(results: Mapping) -> str:
  """What the answer stands on: share of the budget, trainings, sets."""
  results = complete(results)
  budget, seeds = results["budget"], results["counts"].get("seeds") or 1
  parts, spent = [], budget.get("share")
  if is_finite(spent):
    whole = f"the budget of {budget.get('text')}" if budget.get("text") else "the budget"
    parts.append(
      f"The answer stands on all of {whole}."
      if spent >= 1
      else f"The answer stands on {percent(spent)} of {whole} so far."
    )
  if seeds > 1:
    parts.append(
      f"{seeds} trainings of each model were seen, with different seeds: intervals are over them."
    )
    parts += _seeds_alone(results)
  else:
    parts.append(
      "One training of each model was seen: intervals are over sets of its samples, "
      "and another seed may come out differently."
    )
  return " ".join(filter(None, [*parts, _ground(results), _ceiling(results)]))


def _seeds_alone(results: Mapping) -> list[str]:
  """How many seeds by themselves would have led to the same, in a sentence."""
  texts = []
  for axis in stability.ROUND_AXES:
    right, n = stability.agreement(results, axis)
    if n > 1 and axis in rankings(results):
      texts.append(f"{right} of {n} in {axis}")
  return [f"By themselves, {listed(texts)} lead to a winner named here."] if texts else []


def unbeaten(results: Mapping) -> list[str]:
  """Who is not better in quality than the baseline, where that was judged."""
  results = complete(results)
  quality = rankings(results).get("quality")
  base = quality and score(results["baseline"], quality.metric)
  if not base:
    return []
  better, margin = describe(quality.metric).better, AXES[QUALITY][1]
  return [
    name
    for name, s in quality.scores.items()
    if better * (s.mean - base.mean) <= 0 or is_level(base, s, margin)
  ]


def _ground(results: Mapping) -> str:
  """Who has learned next to nothing, in a sentence; or ""."""
  if not (names := unbeaten(results)):
    return ""
  quality = rankings(results)["quality"]
  metric = describe(quality.metric).label
  base = short(results["baseline"]["metrics"][quality.metric])
  who = (
    "Nobody is"
    if len(names) == len(quality.scores)
    else f"{listed(names)} {'are' if names[1:] else 'is'} not"
  )
  return (
    f"{who} better than {baseline(results)} ({metric} {base}), which knows their means "
    "and covariances alone: there is little to choose by before that is beaten."
  )


def _ceiling(results: Mapping) -> str:
  """Who scores no worse than real data, beyond which a judge sees nothing; or ""."""
  quality = rankings(results).get("quality")
  real = quality and results["real"]["metrics"].get(quality.metric)
  if not is_finite(real):
    return ""
  better = describe(quality.metric).better
  names = [name for name, s in quality.scores.items() if better * (s.mean - real) >= 0]
  if not names:
    return ""
  return (
    f"{listed(names)} scored no worse than real test data do: beyond them this judge "
    "sees nothing, or they are unlike the training data."
  )


def changes(results: Mapping) -> list[str]:
  """What would change the answer, in sentences that begin with what it takes."""
  results = complete(results)
  texts = [outlook.more_time(results), outlook.more_data(results)]
  close = [r.axis[0].lower() + r.axis[1:] for r in rankings(results).values() if r.close]
  if close and results["budget"] and (results["counts"].get("seeds") or 1) < 2:
    texts.append(
      f"More trainings: --seeds {MORE_SEEDS} would tell luck from merit where it is too close to "
      f"call ({listed(close)})."
    )
  return [text for text in texts if text]
