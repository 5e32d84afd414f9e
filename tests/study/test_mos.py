"""Mean opinion scores: intervals that cover, and words for them."""

import numpy as np
import pytest

from jaxgen.study import mos


def rows(values, system="a"):
  """Ratings [visitors, clips] as they are recorded."""
  return [
    {"visitor": f"v{i}", "system": system, "clip": f"{j}.wav", "rating": int(r)}
    for i, own in enumerate(values)
    for j, r in enumerate(own)
  ]


def test_few_ratings_are_drawn_one_by_one():
  (o,) = mos.score(rows([[4, 5, 3, 4]]))
  assert (o.mean, o.ratings, o.visitors, o.clips, o.how) == (4.0, 4, 1, 4, mos.SIMPLE)
  assert o.counts == (0, 0, 1, 2, 1) and o.interval[0] < 4 < o.interval[1]
  # A mean of 4 draws: 3.25 is the 2.5% quantile of all 4^4 of them.
  assert o.interval == (3.25, 4.75)
  assert mos.score(rows([[4]]))[0].interval is None
  assert mos.score([]) == [] and mos.summary([]) == "no ratings yet"


def test_intervals_cover_where_visitors_and_clips_differ():
  """Means of 12 visitors and 10 clips that spread: single ratings are too sure."""
  rng, simple, both = np.random.default_rng(0), 0, 0
  trials = 60
  for _ in range(trials):
    x = 3 + 0.6 * rng.standard_normal((12, 1)) + 0.6 * rng.standard_normal((1, 10))
    values = np.clip(np.rint(x + 0.5 * rng.standard_normal((12, 10))), 1, 5).ravel()
    i, j = np.divmod(np.arange(120), 10)
    low, high = mos.bootstrap(values, i, j, draws=200)
    both += low <= 3 <= high
    low, high = mos.bootstrap(values, np.arange(120), 0 * i, draws=200)
    simple += low <= 3 <= high
  assert simple / trials < 0.7 and 0.85 < both / trials


def test_bootstrap_of_equal_ratings_is_a_point():
  o, p = mos.score(rows(np.full((6, 6), 2), "b") + rows(np.full((6, 6), 5), "real"))
  assert (o.system, o.interval, o.how) == ("real", (5.0, 5.0), mos.BOOTSTRAP)
  assert (p.system, p.interval) == ("b", (2.0, 2.0))
  text = mos.summary([o, p])
  assert "real  5.00 (5.00 to 5.00); 36 ratings by 6 visitors of 6 clips" in text
  assert text.splitlines()[-1] == f"95% intervals: {mos.BOOTSTRAP}"


@pytest.mark.parametrize("n", [1, 3])
def test_words_say_what_few_visitors_lack(n):
  text = mos.summary(mos.score(rows(np.tile([1, 4], (n, 1)))))
  assert "by 1 visitor of" in text if n == 1 else "by 3 visitors of" in text
  assert "with 5 visitors and clips or more" in text
