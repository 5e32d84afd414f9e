"""What more time and more data would do to the answer, from curves seen so far.

Scores are taken to go on as in the last round: distances as powers of time,
other metrics by so much for each doubling. That is a guess, and only told for
a few doublings.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxgen.report.fields import (
  MOVED,
  QUALITY,
  Metric,
  Score,
  complete,
  deciding_metric,
  describe,
  either,
  is_level,
  labels,
  listed,
  percent,
  score,
  share,
  short,
)
from jaxgen.report.ranking import Ranking, leads

# How many times the training is looked ahead: two more doublings. Curves bend,
# and a pace of one doubling tells nothing about the fifth.
HORIZON = 4.0


class Trend(NamedTuple):
  """How a model's quality went.

  before, now: its scores in the last two rounds.
  height: of the newest on a scale where it goes on in a straight line.
  pace: by how much that improves with each doubling of the training so far.
  """

  before: Score
  now: Score
  height: float
  pace: float

  def is_improving(self) -> bool:
    """Whether the last round made it better by more than noise."""
    return self.pace > 0 and not is_level(self.before, self.now, MOVED)


def trend(rounds: Sequence[Mapping], key: str, metric: Metric) -> Trend | None:
  """Of a model's rounds; None for fewer than two with this metric."""
  points = [(share(r), score(r, key)) for r in rounds]
  points = [(part, s) for part, s in points if s is not None and part > 0]
  if len(points) < 2 or points[-1][0] <= points[-2][0]:
    return None
  (part0, before), (part1, now) = points[-2:]
  power = metric.better < 0 and min(before.mean, now.mean) > 0
  old, new = (metric.better * (math.log(s.mean) if power else s.mean) for s in (before, now))
  return Trend(before, now, new, (new - old) / math.log2(part1 / part0))


def trends(results: Mapping) -> dict[str, Trend]:
  """By label, of models with two rounds or more."""
  key = deciding_metric(results, QUALITY)
  if key is None:
    return {}
  names = labels(results["rows"])
  paces = {
    name: trend(row["rounds"], key, describe(key))
    for name, row in zip(names, results["rows"], strict=True)
    if not row["stopped"]
  }
  return {name: t for name, t in paces.items() if t}


def more_time(results: Mapping) -> str:
  """Who improves how fast, and whether somebody is about to lead; "" if unknown."""
  results = complete(results)
  paces, rounds = trends(results), leads(results)
  if not paces or not rounds:
    return ""
  parts = [_history(rounds), _improvement(results, paces)]
  if rounds[-1].winners[0] in paces and len(paces) > 1:
    parts.append(_forecast(paces, rounds[-1].winners[0]))
  return f"More time: {' '.join(parts)}"


def _history(rounds: Sequence[Ranking]) -> str:
  """Since when the best is the best."""
  best = rounds[-1].winners[0]
  behind = [i for i, r in enumerate(rounds[:-1]) if best not in r.winners]
  if not behind:
    level = " or as good as the best" if any(r.close for r in rounds) else ""
    return f"{best} was best{level} in quality in every round."
  before = rounds[behind[-1]]
  level = " is best or as good" if any(r.close for r in rounds[behind[-1] + 1 :]) else " leads"
  return (
    f"{either(before.winners)} led in quality at {percent(before.share)} of the budget; "
    f"{best}{level} from {percent(rounds[behind[-1] + 1].share)} on."
  )


def _improvement(results: Mapping, paces: Mapping[str, Trend]) -> str:
  """Who still improves, and by how much in the last round."""
  better = [name for name, t in paces.items() if t.is_improving()]
  if not better:
    return "Nobody improved by more than noise in the last round."
  metric = describe(deciding_metric(results, QUALITY)).label
  steps = [
    f"{name} ({metric} {short(paces[name].before.mean)} to {short(paces[name].now.mean)})"
    for name in better
  ]
  still = [name for name in paces if name not in better]
  text = f"In the last round {listed(steps)} improved"
  return f"{text}, {listed(still)} did not." if still else f"{text}."


def _forecast(paces: Mapping[str, Trend], best: str) -> str:
  """Whether somebody would overtake the best, if all go on like this."""
  times = {name: crossing(paces[best], t) for name, t in paces.items() if name != best}
  times = {name: x for name, x in times.items() if x <= HORIZON}
  if not times:
    return f"At this pace nobody overtakes {best} within {HORIZON:g} times the training so far."
  texts = [f"{name} would overtake {best} at {short(x)} times" for name, x in times.items()]
  return f"At this pace {listed(texts)} the training so far."


def crossing(best: Trend, other: Trend) -> float:
  """At how many times the time so far `other` is as good as `best`; or inf."""
  if other.pace <= max(best.pace, 0) or not other.is_improving():
    return math.inf
  doublings = (best.height - other.height) / (other.pace - best.pace)
  return 2.0 ** min(doublings, 1e3)


def more_data(results: Mapping) -> str:
  """What the other half of the data brought, where rows have a "half"; else "".

  row["half"] is {"share", "metrics", "intervals"} of the same training on half of
  the data; it is compared with the row's round of that share.
  """
  results = complete(results)
  key, texts = deciding_metric(results, QUALITY), []
  for name, row in zip(labels(results["rows"]), results["rows"], strict=True):
    half = row.get("half")
    if key is None or not half:
      continue
    small = score(
      {"metrics": half.get("metrics") or {}, "intervals": half.get("intervals") or {}}, key
    )
    same = [r for r in row["rounds"] if share(r) == share(half)]
    whole = score(same[0], key) if same else None
    if small is None or whole is None:
      continue
    gain = describe(key).better * (whole.mean - small.mean)
    numbers = f"({describe(key).label} {short(small.mean)} with half, {short(whole.mean)} with all)"
    if is_level(small, whole, MOVED):
      texts.append(f"half of them made no difference to {name} {numbers}")
    elif gain > 0:
      texts.append(f"{name} is short of data {numbers}")
    else:
      texts.append(f"{name} did better with half of them in this time {numbers}")
  return f"More data: {'; '.join(texts)}." if texts else ""
