"""Mean opinion scores, and how sure they are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.study.score import ENOUGH

# Of listening quality, ITU-T P.800 (1996), table B.2.
LABELS = {5: "Excellent", 4: "Good", 3: "Fair", 2: "Poor", 1: "Bad"}
BOOTSTRAP = "bootstrap over visitors and clips"
SIMPLE = "bootstrap over ratings, as if they were independent"


class Opinion(NamedTuple):
  """The result of one system so far.

  Attributes:
    system: Its name.
    mean: Of its ratings, 1 to 5.
    interval: 95% of the mean; None for a single rating.
    how: The interval came about: BOOTSTRAP or SIMPLE.
    ratings, visitors, clips: How many.
    counts: Of ratings 1 to 5.
  """

  system: str
  mean: float
  interval: tuple[float, float] | None
  how: str
  ratings: int
  visitors: int
  clips: int
  counts: tuple[int, ...]


def score(rows: Sequence[Mapping[str, Any]]) -> list[Opinion]:
  """Of recorded ratings, the best system first."""
  systems = sorted({row["system"] for row in rows})
  opinions = [opinion(s, [r for r in rows if r["system"] == s]) for s in systems]
  return sorted(opinions, key=lambda o: -o.mean)


def opinion(system: str, rows: Sequence[Mapping[str, Any]]) -> Opinion:
  """Of one system's ratings."""
  values = np.array([row["rating"] for row in rows])
  visitors, i = np.unique([row["visitor"] for row in rows], return_inverse=True)
  clips, j = np.unique([row["clip"] for row in rows], return_inverse=True)
  if min(len(visitors), len(clips)) >= ENOUGH:
    interval, how = bootstrap(values, i, j), BOOTSTRAP
  else:
    interval, how = bootstrap(values, np.arange(len(values)), 0 * values), SIMPLE
    interval = interval if len(values) > 1 else None
  counts = tuple(int(np.sum(values == k)) for k in range(1, 6))
  mean = float(values.mean())
  return Opinion(system, mean, interval, how, len(values), len(visitors), len(clips), counts)


def bootstrap(
  values: np.ndarray,
  visitors: np.ndarray,
  clips: np.ndarray,
  level: float = 0.95,
  draws: int = 4000,
  seed: int = 0,
) -> tuple[float, float]:
  """Interval of a mean; visitors and clips are drawn with replacement.

  Percentiles of means in which a rating counts as often as its visitor was drawn
  times as often as its clip was (Owen 2007, the pigeonhole bootstrap): ratings
  of one visitor, and of one clip, are not independent.

  Args:
    values: Ratings [n].
    visitors: Number of each rating's visitor [n], from 0.
    clips: Likewise.
    level: Of the interval.
    draws: Of the bootstrap.
    seed: Of these.
  """
  shape = visitors.max() + 1, clips.max() + 1
  total, count = np.zeros(shape), np.zeros(shape)
  np.add.at(total, (visitors, clips), values)
  np.add.at(count, (visitors, clips), 1)
  rng, means = np.random.default_rng(seed), []
  for part in np.array_split(np.arange(draws), max(1, draws * max(shape) // 10**7)):
    u, v = (rng.multinomial(n, np.full(n, 1 / n), len(part)) for n in shape)
    weight = np.sum((u @ count) * v, 1)
    seen = weight > 0  # else none of what was rated was drawn
    means.append(np.sum((u @ total) * v, 1)[seen] / weight[seen])
  low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def summary(opinions: Sequence[Opinion]) -> str:
  """Opinions in lines for the terminal."""
  if not opinions:
    return "no ratings yet"
  wide = max(len(o.system) for o in opinions)
  lines = [f"mean opinion scores, 1 (bad) to 5 (excellent), of {len(opinions)} systems"]
  for o in opinions:
    span = f" ({o.interval[0]:.2f} to {o.interval[1]:.2f})" if o.interval else ""
    plural = "s" if o.visitors > 1 else ""
    lines.append(
      f"{o.system:{wide}}  {o.mean:.2f}{span}; {o.ratings:,} ratings by {o.visitors:,} "
      f"visitor{plural} of {o.clips:,} clips"
    )
  for how in sorted({o.how for o in opinions}):
    systems = "" if len({o.how for o in opinions}) == 1 else " of some"
    lines.append(f"95% intervals{systems}: {how}")
  if any(o.how == SIMPLE for o in opinions):
    lines.append(f"with {ENOUGH} visitors and clips or more they are over these")
  return "\n".join(lines)
