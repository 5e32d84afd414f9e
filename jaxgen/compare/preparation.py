"""Before a choice spends anything: a judge, trials of contenders, the plan."""

import functools
import pathlib
import time
from collections.abc import Sequence

from jaxgen.checkpoint import meta
from jaxgen.checkpoint.restore import NoCheckpoint
from jaxgen.compare import rows
from jaxgen.compare.agenda import Agenda
from jaxgen.compare.budget import steps_within
from jaxgen.compare.comparison import results_of
from jaxgen.compare.measure import STEPS, Entry
from jaxgen.compare.rounds import Rounds
from jaxgen.compare.trial import try_out
from jaxgen.config import build
from jaxgen.evaluation.judge import means, open_judge
from jaxgen.monitor.progress import duration

announce = functools.partial(rows.announce, "choose")


def prepare(
  home: pathlib.Path, entries: Sequence[Entry], agenda: Agenda, lines: Sequence[str]
) -> Rounds:
  """Opens the judge and tries out contenders, unless that was done before.

  Args:
    home: Of the choice, locked.
    entries: Its contenders.
    agenda: Gets a trial of each.
    lines: What was said of the data.
  """
  data, seeds = entries[0].config.data, agenda.spec["seeds"]
  announce(f"preparing to judge samples of {data.source}")
  judge = open_judge(data, str(home / "judge"))
  start = time.perf_counter()
  floor = means(judge.floor())
  scoring, steps = time.perf_counter() - start, {}
  learning = accuracy_seconds(home / "judge") if any("cas@" in k for k in floor) else 0.0
  for entry in entries:
    if entry.name in agenda.trials:
      continue
    announce(f"{entry.name}: compiling, and timing a few steps and samples")
    facts, steps[entry.name] = try_out(entry, judge.count)
    sampling = judge.count * facts["sample_seconds"]
    full = seeds * learning + sampling * sweep_cost(entry) + scoring
    facts |= {"judge_seconds": seeds * (sampling + scoring), "full_seconds": full}
    agenda.trials[entry.name] = facts
    agenda.save()
  results = results_of(data, judge, floor, seeds) | {"survey": list(lines)}
  return Rounds(home, entries, judge, agenda, results, steps)


def accuracy_seconds(folder: pathlib.Path) -> float:
  """Seconds that an accuracy score takes: as long as the judge's own classifier."""
  try:
    return float(meta.latest(folder).get("seconds") or 0.0)
  except NoCheckpoint:  # it was not trained here
    return 0.0


def sweep_cost(entry: Entry) -> float:
  """Of `measure.quality_by_cost`, in units of what judging samples."""
  model = build(entry.config.model)
  if "steps" not in model.knobs:
    return 1 / 4
  return sum(model.nfe(steps=s) for s in STEPS) / model.nfe() / 4


def plan_lines(rounds: Rounds, seconds: float) -> list[str]:
  """What a choice is going to do, after so many seconds of preparing."""
  agenda, at, lines = rounds.agenda, rounds.position(), []
  shares, part = agenda.plan(at)
  if not shares and not agenda.rounds:
    return []
  costs = agenda.costs(at.now)
  for name in at.now:
    facts = agenda.trials[name]
    steps = steps_within(1.0, part, costs[name])
    lines.append(
      f"{name}: {facts['params']:,} parameters; batches of {facts['batch']}, "
      f"{facts['step_seconds']:.2g} s and {facts['flops']:.2g} operations a step: "
      f"{steps:,} steps, {steps * facts['batch']:,} images; {facts['programs']} programs "
      f"compiled in {facts['compile_seconds']:.0f} s; judged in {at.judging[name]:.0f} s"
    )
  ends = ", ".join(f"{100 * share:.3g}%" for share in shares)
  left = agenda.seconds_left(at)
  lines.append(
    f"{agenda.trainings()} trainings; rounds end at {ends or 'no more'} of {agenda.budget.text}"
  )
  lines.append(
    f"prepared in {duration(seconds)}; to come: about {duration(left)}; "
    f"in all about {duration(seconds + left)}"
  )
  return lines
