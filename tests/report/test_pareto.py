"""The front against its definition, the corner, and both in words."""

import itertools
import math

import numpy as np
import pytest

from jaxgen.report import pareto, trilemma_verdict
from jaxgen.report.fields import DIVERSITY, QUALITY, RATE, SPEED
from jaxgen.report.pareto import Axis

AXES = [Axis(QUALITY, "frechet@xy", -1), Axis(DIVERSITY, "coverage@xy", 1), Axis(SPEED, RATE, 1)]


def point(model, frechet, coverage, rate, steps=None, sampler=""):
  scores = {"frechet@xy": frechet, "coverage@xy": coverage, RATE: rate}
  return {
    "model": model,
    "sampler": sampler,
    "axis": "steps" if steps else "",
    "knobs": {"steps": steps} if steps else {},
    "nfe": steps or 1,
    "scores": {k: {"mean": v, "low": v, "high": v} for k, v in scores.items()},
    "trainings": 1,
  }


DDPM = [point("ddpm", 1.0, 0.95, 10, 25, "ddim"), point("ddpm", 4.0, 0.90, 30, 8, "ddim")]
GAN = point("gan", 1.2, 0.30, 2000)
VAE = point("vae", 9.0, 0.92, 2000)
WORSE = point("slow", 5.0, 0.80, 9, 25, "heun")


@pytest.mark.parametrize("seed", range(6))
def test_the_front_is_as_it_is_defined(seed):
  """Nothing else is as good everywhere and better somewhere; ties stay, NaNs do not."""
  rng = np.random.default_rng(seed)
  places = [tuple(map(float, p)) for p in rng.integers(0, 5, (60, 3))]
  places += places[:5] + [(9.0, math.nan, 9.0), (math.inf, 1.0, 1.0)]
  finite = [p for p in places if all(map(math.isfinite, p))]

  def beaten(p):
    return any(
      all(a >= b for a, b in zip(q, p, strict=True))
      and any(a > b for a, b in zip(q, p, strict=True))
      for q in finite
    )

  want = [p in finite and not beaten(p) for p in places]
  assert pareto.front(places) == want
  assert 0 < sum(want) < len(finite)
  # It depends on no order.
  order = rng.permutation(len(places))
  assert pareto.front([places[i] for i in order]) == [want[i] for i in order]


def test_a_single_axis_has_the_best_alone():
  assert pareto.front([(1.0,), (3.0,), (2.0,), (3.0,)]) == [False, True, False, True]
  assert pareto.front([]) == []


def test_near_is_within_the_limits():
  points = [*DDPM, GAN, VAE]
  assert [pareto.near(p, points, AXES[0]) for p in points] == [True, False, True, False]
  assert [pareto.near(p, points, AXES[1]) for p in points] == [True, True, False, True]
  assert [pareto.near(p, points, AXES[2]) for p in points] == [False, False, True, True]
  for axis, p in itertools.product(AXES, points):
    assert (axis.behind(p, points) <= 1 + 1e-9) == pareto.near(p, points, axis)
  assert AXES[2].behind(DDPM[0], points) == pytest.approx(math.log10(200))
  latency = Axis(SPEED, "latency", -1)
  points = [{"scores": {"latency": {"mean": v}}} for v in (0.01, 0.1, 0.11)]
  assert [pareto.near(p, points, latency) for p in points] == [True, True, False]


def test_an_empty_corner_says_what_is_missing():
  points = [*DDPM, GAN, VAE, WORSE]
  real = {"coverage@xy": 0.97}
  head, best, beaten, *edges, terms = trilemma_verdict.verdict(points, AXES, "xy", real)
  assert head == (
    "On xy, the corner is empty: nothing is good, diverse and fast at once. Nearest comes ddpm "
    "(ddim, 25 evaluations), 200 times as slow as the fastest."
  )
  assert best == "On the front: ddpm (ddim, 25 and 8 evaluations), gan and vae."
  assert beaten == "Beaten at every setting: slow (by ddpm)."
  assert edges == [
    "Good and diverse, but not fast: ddpm.",
    "Good and fast, but not diverse: gan.",
    "Diverse and fast, but not good: vae.",
  ]
  assert terms == (
    "Good: Fréchet at most 1.5 times the best (1.00: 1.50); diverse: Coverage at least 90% of the "
    "best (0.950: 0.855; real data 0.970); fast: samples a second at most 10 times as slow as the "
    "fastest (2,000: 200)."
  )


def test_far_from_real_data_nobody_is_good():
  """The best of bad models takes no corner; near is by the quality's own limits."""
  taker = point("few", 1.1, 0.94, 900, 1)
  points = [*DDPM, GAN, VAE, taker]
  verdict = lambda points, **real: trilemma_verdict.verdict(
    points, AXES, "xy", {f"{k}@xy": v for k, v in real.items()}
  )
  assert verdict(points, frechet=0.67, coverage=1.8)[0].startswith("On xy, the corner is taken")
  assert verdict(points, frechet=0.66, coverage=1.8)[0] == (
    "On xy, few (1 evaluation) is good, diverse and fast beside the others, but nothing comes near "
    "real test data: Fréchet 1.00 at best against 0.660."
  )
  assert "Coverage 0.950 at best against 2.00" in verdict(points, coverage=2.0)[0]
  empty = verdict([*DDPM, GAN, VAE], frechet=0.1)[0]
  assert empty.endswith(
    "as the fastest; but nothing comes near real test data: Fréchet 1.00 at best against 0.100."
  )


def test_a_taken_corner_says_by_whom():
  taker = point("few", 1.1, 0.94, 900, 1)
  head, best, beaten, *edges, _ = trilemma_verdict.verdict([*DDPM, GAN, VAE, taker], AXES, "xy")
  assert head == "On xy, the corner is taken: few (1 evaluation) is good, diverse and fast at once."
  assert best == "On the front: ddpm (ddim, 25 evaluations), gan, vae and few (1 evaluation)."
  assert beaten.startswith("Good and diverse")  # everybody has a point on the front
  assert edges[-1] == "Diverse and fast, but not good: vae."
  both = [*DDPM, taker, point("fewer", 1.2, 0.93, 1000, 2)]
  assert (
    "few (1 evaluation) and fewer (2 evaluations) are"
    in trilemma_verdict.verdict(both, AXES, "xy")[0]
  )


def test_settings_in_words():
  assert trilemma_verdict.setting(point("m", 1, 1, 1, 1)) == "1 evaluation"
  assert trilemma_verdict.setting(DDPM[1]) == "ddim, 8 evaluations"
  assert trilemma_verdict.setting(DDPM[1], brief=True) == "8"
  cut = GAN | {"axis": "truncation", "knobs": {"truncation": 0.5}}
  assert trilemma_verdict.setting(cut) == "truncation 0.5" and trilemma_verdict.name(GAN) == "gan"
  own = GAN | {"axis": "truncation"}
  assert trilemma_verdict.names([cut, own]) == "gan (truncation 0.5 and its own)"
  more = point("ddpm", 2.0, 0.9, 10, 25, "heun")
  assert (
    trilemma_verdict.names([*DDPM, more])
    == "ddpm (ddim, 25 and 8 evaluations; heun, 25 evaluations)"
  )


def test_axes_are_the_judges_or_those_chosen():
  points = [GAN]
  points[0]["scores"] |= {k: {"mean": 0.5} for k in ("precision@xy", "recall@xy")}
  keys = [a.key for a in pareto.axes_of(points, "xy")]
  assert keys == ["frechet@xy", "coverage@xy", RATE]
  axes = pareto.axes_of(points, "xy", ["recall@xy", "precision@xy"], "nfe")
  assert axes == [
    Axis(QUALITY, "precision@xy", 1),
    Axis(DIVERSITY, "recall@xy", 1),
    (SPEED, "nfe", -1),
  ]
  assert pareto.axes_of([], "xy") == [Axis(SPEED, RATE, 1)]
  assert trilemma_verdict.verdict([], pareto.axes_of([], "xy"), "xy") == [
    "On xy, nothing was measured on speed."
  ]
