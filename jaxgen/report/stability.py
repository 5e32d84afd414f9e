"""How soon a verdict stands, and how often another training turns it.

What is known after a share of the budget, or from one training alone, is a
report of its own, judged by the same rules. Its leader was right where it is
among the winners that the report to compare with has: they may be several.

  python -m jaxgen.report.stability A/choice.json B/choice.json    # a table
"""

import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.errors import UserError
from jaxgen.report.fields import complete, percent, share
from jaxgen.report.ranking import Ranking, rankings

ROUND_AXES = ("quality", "diversity")  # of which every round has numbers


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
  """How often an early verdict is the last, and one seed's another's, as Markdown.

  Every training counts by itself. Cells are how often the leader was right, of
  how many; in brackets how often the winners were the very same.
  """
  parts = sorted({part for results in reports for part in shares(results)} - {1.0})
  head = ("data", "axis", *map(percent, parts), "another seed")
  rows = [head, ("---",) * len(head)]
  for results, axis in itertools.product(reports, ROUND_AXES):
    seeds = [of_seed(results, i) for i in range(seed_count(results))]
    ends = [rankings(s).get(axis) for s in seeds]
    cells = []
    for part in parts:
      early = [rankings(as_of(s, part)).get(axis) for s in seeds]
      cells.append(hits(zip(early, ends, strict=True)) if part in shares(results) else "")
    rows.append((results["dataset"], axis, *cells, hits(itertools.permutations(ends, 2))))
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shares(results: Mapping) -> set[float]:
  """Of the budget, at which rounds ended."""
  return {share(r) for row in complete(results)["rows"] for r in row["rounds"]}


def hits(pairs: Iterable[tuple[Ranking | None, Ranking | None]]) -> str:
  """How often the leader of the first is right by the second, as in a `table`."""
  pairs = list(pairs)
  same = sum(bool(a and b and set(a.winners) == set(b.winners)) for a, b in pairs)
  return f"{sum(is_right(a, b) for a, b in pairs)} of {len(pairs)} ({same})"


def read(path: str) -> dict[str, Any]:
  """A choice.json.

  Raises:
    UserError: It is none.
  """
  try:
    results = json.loads(Path(path).read_text())
  except (OSError, ValueError) as e:
    raise UserError(f"{path}: {e.strerror if isinstance(e, OSError) else 'it is no JSON'}") from e
  if not isinstance(results, dict) or not {"dataset", "budget", "rows"} <= results.keys():
    raise UserError(f"{path} was not written by jaxgen choose: want its choice.json")
  return results


if __name__ == "__main__":
  try:
    print(table([read(path) for path in sys.argv[1:]]))
  except UserError as e:
    sys.exit(f"jaxgen: {e}")
