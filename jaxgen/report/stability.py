"""How soon a verdict stands, and how often another training turns it.

What is known after a share of the budget, or from one training alone, is a
report of its own, judged by the same rules. Its leader was right where it is
among the winners that the report to compare with has: they may be several.

  python -m jaxgen.report.stability A/choice.json B/choice.json    # a table
"""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.report.fields import complete, percent, share
from jaxgen.report.ranking import Ranking, rankings

AXES = ("quality", "diversity")  # of which every round has numbers
HEAD = ("data", "axis", "share", "leader in the end's winners", "same winners")


def as_of(results: Mapping, part: float) -> dict[str, Any]:
  """The report as it was after a share of the budget; later rounds are unknown."""
  results = complete(results)
  rows = []
  for row in results["rows"]:
    if history := [r for r in row["rounds"] if share(r) <= part * (1 + 1e-9)]:
      scores = {k: history[-1].get(k) for k in ("metrics", "intervals", "seeds")}
      rows.append(row | scores | {"rounds": history})
  return results | {"rows": rows}


def of_seed(results: Mapping, seed: int) -> dict[str, Any]:
  """The report as one training of each model makes it."""
  results = complete(results)
  alone = lambda scores: scores | (scores.get("seeds") or [{}] * (seed + 1))[seed]
  rows = [alone(row) | {"rounds": [alone(r) for r in row["rounds"]]} for row in results["rows"]]
  return results | {"rows": rows}


def seed_count(results: Mapping) -> int:
  """Of how many trainings of each model there are numbers."""
  return min((len(row.get("seeds") or [0]) for row in results["rows"]), default=0)


def is_right(then: Ranking | None, now: Ranking | None) -> bool:
  """Whether the leader of one ranking is among the winners of another."""
  return bool(then and now and next(iter(then.scores)) in now.winners)


def agreement(results: Mapping, axis: str) -> tuple[int, int]:
  """How many trainings by themselves lead to a winner of all together; of how many."""
  n, whole = seed_count(results), rankings(results).get(axis)
  return sum(is_right(rankings(of_seed(results, i)).get(axis), whole) for i in range(n)), n


def table(reports: Sequence[Mapping]) -> str:
  """For each data set and axis how often an early verdict is the last, as Markdown.

  Every training counts by itself, against its own end; the last row of each
  axis is of the ends of other trainings.
  """
  lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
  for results, axis in itertools.product(reports, AXES):
    seeds = [of_seed(results, i) for i in range(seed_count(results))]
    ends = [rankings(s).get(axis) for s in seeds]
    parts = sorted({share(r) for row in complete(results)["rows"] for r in row["rounds"]})
    for part in parts[:-1]:
      early = [rankings(as_of(s, part)).get(axis) for s in seeds]
      pairs = list(zip(early, ends, strict=True))
      lines.append(_line(results, axis, percent(part), pairs))
    if len(ends) > 1:
      lines.append(_line(results, axis, "another seed", list(itertools.permutations(ends, 2))))
  return "\n".join(lines)


def _line(results, axis, part, pairs):
  right = sum(is_right(a, b) for a, b in pairs)
  same = sum(bool(a and b and set(a.winners) == set(b.winners)) for a, b in pairs)
  cells = (results["dataset"], axis, part, f"{right} of {len(pairs)}", f"{same} of {len(pairs)}")
  return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
  print(table([json.loads(Path(path).read_text()) for path in sys.argv[1:]]))
