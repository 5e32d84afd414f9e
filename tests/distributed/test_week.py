"""A week on a preemptible pod: its formula, and a short one."""

import argparse
import subprocess
import sys

import numpy as np
import pytest
import week
from verbs import ROOT


def played(rng, work, save, start, failures):
  """Seconds that a piece of work took, with failures at random moments."""
  total = 0.0
  while (until := rng.exponential(failures)) < work + save:
    total += until
    while (until := rng.exponential(failures)) < start:
      total += until
    total += start
  return total + work + save


@pytest.mark.parametrize("work, save, start, failures", [(5, 1, 3, 10), (20, 0.5, 4, 15)])
def test_the_formula_is_what_chance_does(work, save, start, failures):
  rng = np.random.default_rng(0)
  times = [played(rng, work, save, start, failures) for _ in range(4000)]
  error = np.std(times) / np.sqrt(len(times))
  expected = week.predicted(work, week.Costs(0.0, save, start), failures)
  assert abs(np.mean(times) - expected) < 4 * error < 0.1 * expected


def test_the_best_interval_is_youngs_where_failures_are_rare():
  costs, failures = week.Costs(0.0, 0.01, 1.0), 1000.0
  works = np.geomspace(0.5, 50, 400)
  lost = [week.predicted(w, costs, failures) / w for w in works]
  assert works[np.argmin(lost)] == pytest.approx((2 * costs.save * failures) ** 0.5, rel=0.02)


def test_harm_by_harm_counts_what_is_lost():
  """Ten steps of 1 s, a save of 1 s after each two, 5 s to start; by hand."""
  costs, meta = week.Costs(1.0, 1.0, 5.0), {"config": {"checkpoint": {"every": 2}}, "step": 10}
  took = lambda *harms: week.replayed(
    argparse.Namespace(pause=3.0), costs, [week.Harm(*h) for h in harms], meta
  )
  assert took() == 5 + 15
  assert took((3, "preemption")) == 3 + 20  # nothing was done yet
  assert took((10, "preemption")) == 10 + 5 + 12  # two of three steps were saved
  assert took((9.6, "maintenance")) == pytest.approx(9.6 + 5 + 10.5)  # and here all three
  assert took((10, "preemption"), (21.1, "corruption")) == pytest.approx(21.1 + 5 + 9)
  assert took((10, "slow host"), (12, "outage")) == 5 + 15 + 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_a_short_week(kind):
  words = "--day 6 --preemptions 0.5 --pause 2 --set steps=150 --set checkpoint.every=10"
  run = subprocess.run(
    [sys.executable, "tests/helpers/week.py", "--config=configs/points_gan.py:debug",
     f"--bucket={kind}", "--set=log.pictures=0", *words.split()],
    cwd=ROOT, text=True, capture_output=True, timeout=900,
  )  # fmt: skip
  assert run.returncode == 0, run.stdout + run.stderr
  assert "all the same, bit by bit, and all rows are there" in run.stdout
  assert "goodput measured" in run.stdout
