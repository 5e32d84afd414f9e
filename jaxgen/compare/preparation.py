"""Before a choice spends anything: a judge, trials of contenders, the plan."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Sequence

import jax

from jaxgen.checkpoint import meta
from jaxgen.compare import rows
from jaxgen.compare.agenda import Agenda
from jaxgen.compare.budget import steps_within
from jaxgen.compare.comparison import SETS, results_of
from jaxgen.compare.measure import EXTRAS, STEPS, Entry
from jaxgen.compare.rounds import Rounds
from jaxgen.compare.trial import try_out
from jaxgen.config import build
from jaxgen.evaluation.judge import (
  FEWEST,
  LARGEST_SET,
  ImageJudge,
  Judge,
  intervals,
  means,
  open_judge,
)
from jaxgen.monitor.progress import duration
from jaxgen.report.fields import percent

SHARE = 0.03  # of a budget of time, that sampling takes in a round
LEARNING = 0.15  # the most of a budget of time that accuracy scores may take
LEAST_SET, CPU_SET = 100, 200  # samples; in budgets of time, and of other kinds on CPUs

announce = functools.partial(rows.announce, "choose")


def prepare(
  home: pathlib.Path, entries: Sequence[Entry], agenda: Agenda, lines: Sequence[str]
) -> Rounds:
  """Opens the judge and tries out contenders, unless that was done before.

  Args:
    home: Of the choice, locked.
    entries: Its contenders.
    agenda: Gets a trial of each, and the size of sets of samples.
    lines: What was said of the data.
  """
  data, seeds, trials = entries[0].config.data, agenda.spec["seeds"], {}
  announce(f"preparing to judge samples of {data.source}")
  judge = open_judge(data, str(home / "judge"), agenda.spec["features"] or None, SETS)
  for entry in entries:
    if entry.name not in agenda.trials:
      announce(f"{entry.name}: compiling, and timing a few steps and samples")
      trials[entry.name] = try_out(entry, judge.count)
      agenda.trials[entry.name] = trials[entry.name].facts | {
        "judge_seconds": 0.0,
        "full_seconds": 0.0,
      }
      agenda.save()
  if not agenda.rounds:  # else all stays as it was planned
    agenda.set_size = set_size(agenda)
  if isinstance(judge, ImageJudge):
    judge = dataclasses.replace(judge, most=agenda.set_size)
  start = time.perf_counter()
  floor = means(judge.floor())
  scoring = time.perf_counter() - start
  if not agenda.rounds:
    plan_judging(entries, agenda, judge, scoring)
    agenda.save()
  results = results_of(data, judge, floor, seeds) | {"survey": list(lines)}
  if isinstance(judge, ImageJudge):
    scores = judge.baseline()
    results["baseline"] = {"metrics": means(scores), "intervals": intervals(scores)}
  return Rounds(home, entries, judge, agenda, results, trials)


def plan_judging(entries: Sequence[Entry], agenda: Agenda, judge: Judge, scoring: float) -> None:
  """Adds to trials how long judging is going to take; leaves out what takes too long.

  `scoring` is the seconds that it took to judge real images.
  """
  seeds, learning = agenda.spec["seeds"], accuracy_seconds(judge)
  most = LEARNING * agenda.budget.amount if agenda.budget.kind == "time" else math.inf
  rare = {"accuracy"} if seeds * len(entries) * learning > most else set()
  agenda.extras = [e for e in EXTRAS if e not in rare]
  for entry in entries:
    facts = agenda.trials[entry.name]
    sampling = judge.count * facts["sample_seconds"]
    facts["judge_seconds"] = seeds * (sampling + scoring)
    facts["full_seconds"] = sampling * sweep_cost(entry) + scoring
    if "accuracy" in agenda.extras:
      facts["full_seconds"] += seeds * learning


def set_size(agenda: Agenda) -> int:
  """Of how many samples each of the SETS is that are judged.

  As --num says. Else, of a budget of time, as many as take a SHARE of it in
  every round; of other budgets so many whatever the clock says, for the same
  command has to give the same numbers.
  """
  if agenda.spec["num"]:
    return max(agenda.spec["num"] // SETS, FEWEST)
  if agenda.budget.kind != "time":
    return CPU_SET if jax.default_backend() == "cpu" else LARGEST_SET
  each = agenda.spec["seeds"] * sum(t["sample_seconds"] for t in agenda.trials.values())
  return min(max(int(SHARE * agenda.budget.amount / each / SETS), LEAST_SET), LARGEST_SET)


def accuracy_seconds(judge: Judge) -> float:
  """Seconds that an accuracy score takes: as long as the judge's own classifier."""
  if not isinstance(judge, ImageJudge) or not judge.classifies:
    return 0.0
  return float(meta.latest(judge.network.home).get("seconds") or 0.0)


def sweep_cost(entry: Entry) -> float:
  """Of `measure.quality_by_cost`, in units of what judging samples."""
  model = build(entry.config.model)
  if "steps" not in model.knobs:
    return 1 / 4
  return sum(model.nfe(steps=s) for s in STEPS) / model.nfe() / 4


def plan_lines(rounds: Rounds, seconds: float) -> list[str]:
  """What a choice is going to do, after so many seconds of preparing."""
  agenda, position, lines = rounds.agenda, rounds.position(), []
  shares, part = agenda.plan(position)
  costs = agenda.costs(position.now)
  for name in position.now if shares else ():
    facts = agenda.trials[name]
    steps = steps_within(1.0, part, costs[name])
    lines.append(
      f"{name}: {facts['params']:,} parameters; batches of {facts['batch']}, "
      f"{facts['step_seconds']:.2g} s and {facts['flops']:.2g} operations a step: "
      f"{steps:,} steps, {steps * facts['batch']:,} {rounds.noun}; {facts['programs']} programs "
      f"compiled in {facts['compile_seconds']:.0f} s; judged in {position.judging[name]:.0f} s"
    )
  if isinstance(rounds.judge, ImageJudge) and rounds.judge.classifies:
    if "accuracy" not in agenda.extras:
      lines.append("no accuracy scores: their classifiers take too much of this budget")
  ends = ", ".join(map(percent, shares))
  left = agenda.seconds_left(position)
  lines.append(f"judged by {rounds.judge.count:,} samples of each in every round")
  lines.append(
    f"{agenda.trainings()} trainings; rounds end at {ends or 'no more'} of {agenda.budget.text}"
  )
  if agenda.spec["halves"]:
    lines.append("then each is trained on half of the data, to where it stood at half of its part")
  lines.append(
    f"prepared in {duration(seconds)}; to come: about {duration(left)}; "
    f"in all about {duration(seconds + left)}"
  )
  return lines
