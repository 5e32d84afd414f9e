"""Contenders trained in turn, in slices of a budget, and judged after each round.

A slice is the ordinary training of a config, to a step that the agenda names.
Each state of affairs is a file that is written whole or not at all: a slice's
end is a checkpoint, a judgement OUT/rounds/NAME-R.json, a decision plan.json.
So whoever comes after a kill finds what is done, and does nothing twice.
Several processes train and sample together; what is decided by a clock or by
files the first of them decides, which alone writes.

Nobody is stopped for trailing: as long as budget is left, a contender that is
behind may still win, and early rounds are what families differ in. A contender
is stopped where nothing can come any more: its updates are not finite. What is
left of a time budget then goes to the others.
"""

import functools
import pathlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxgen import experiment, files, sharding, train
from jaxgen.compare import measure, rows, standings
from jaxgen.compare.agenda import Agenda, Position, Round, progress
from jaxgen.compare.contenders import on_half
from jaxgen.compare.measure import Entry, command
from jaxgen.compare.trial import Trial
from jaxgen.distributed import join
from jaxgen.errors import Diverged
from jaxgen.evaluation.judge import Judge
from jaxgen.experiment import Compiled
from jaxgen.monitor.progress import duration
from jaxgen.report import verdict
from jaxgen.report.fields import percent
from jaxgen.report.page import render
from jaxgen.sampling.sampler import load

SAVE = 60.0  # seconds of training between checkpoints, about
SMALL = "-small "  # ends the argument of configs that have a larger net without it

announce = functools.partial(rows.announce, "choose")


class Rounds:
  """A choice under way: call `run`."""

  def __init__(
    self,
    home: pathlib.Path,
    entries: Sequence[Entry],
    judge: Judge,
    agenda: Agenda,
    results: Mapping[str, Any],
    trials: Mapping[str, Trial] | None = None,
  ):
    """
    Args:
      home: Folder of the choice, which this process has locked.
      entries: The contenders.
      judge: Of their data.
      agenda: With a trial of each contender.
      results: What the report says beside rows, budget and trust.
      trials: With programs that were compiled before, by contender.
    """
    self.home, self.entries, self.judge, self.agenda = home, entries, judge, agenda
    self.results = dict(results)
    self.steps = {name: trial.step for name, trial in (trials or {}).items()}
    self.samplers = {name: trial.sampler for name, trial in (trials or {}).items()}
    self.halves = [on_half(e, home) for e in entries] if agenda.spec.get("halves") else []
    self.real, self.results["real"] = measure.real_data(
      entries[0].config.data, self.results.get("real", {"grid": "real"})
    )

  @property
  def noun(self) -> str:
    """What examples are."""
    return self.results["noun"]

  def run(self, stopped: Callable[[], bool]) -> bool:
    """Until the budget is spent: True; or until a signal asks for an end."""
    number = 0
    while self.begin(number):
      for entry in self.active():
        if not self.train(entry, number) or not self.judge_round(entry, number, stopped):
          return False
      if number == len(self.agenda.rounds) - 1:  # or a newer one was reported
        self.report(number)
      number += 1
    return self.run_halves(stopped)

  def run_halves(self, stopped: Callable[[], bool]) -> bool:
    """Trains each on half of its data, as far as the round at half of the budget.

    That costs half of a training, and tells who is short of data. False if a
    signal ended it early.
    """
    number, agenda = self.agenda.half_round(), self.agenda
    if number is None:
      return True
    for half, entry in zip(self.halves, self.entries, strict=True):
      if entry.name in agenda.stopped or half.name in agenda.stopped:
        continue
      goal = agenda.rounds[number]["steps"][entry.workdir.name]
      if progress(half.workdir).step < goal and not self.advance(half, 0, goal):
        return False
      if not self.judge_round(half, number, stopped):
        return False
    self.report(len(agenda.rounds) - 1)
    return True

  def active(self) -> list[Entry]:
    """Contenders that were not stopped."""
    return [e for e in self.entries if e.name not in self.agenda.stopped]

  def begin(self, number: int) -> Round | None:
    """A round as it is planned; None where there is none any more."""
    if number == len(self.agenda.rounds):
      self.agenda.check_own(self.workdirs())
      if self.agenda.next_round(self.position(), self.workdirs()) is None:
        return None
      self.agenda.save()
    return self.agenda.rounds[number]

  def workdirs(self) -> dict[str, tuple[pathlib.Path, ...]]:
    """Of all trainings that go on, by contender."""
    return {e.name: e.workdirs for e in self.active()}

  def position(self) -> Position:
    """How far trainings are, and what judging takes."""
    judged = [*self.entries, *self.halves]
    seconds = join.share(
      lambda: standings.judge_seconds(self.home, judged, len(self.agenda.rounds))
    )
    trials, workdirs = self.agenda.trials, self.workdirs()
    return Position(
      now={name: [progress(w) for w in own] for name, own in workdirs.items()},
      judging={n: (seconds[n] or [trials[n]["judge_seconds"]])[-1] for n in workdirs},
      judged=sum(map(sum, seconds.values())),
    )

  def train(self, entry: Entry, number: int) -> bool:
    """A contender's part of a round; False if a signal ended it early."""
    if self.is_judged(entry, number):
      return True
    for seed, workdir in enumerate(entry.workdirs):
      while goal := self.agenda.next_goal(entry.name, workdir, number):
        if not self.advance(entry, seed, goal):
          return False
        if entry.name in self.agenda.stopped:
          return True
    return True

  def is_judged(self, entry: Entry, number: int) -> bool:
    """Whether a contender's round is written, as the first of several processes sees it."""
    return join.share(lambda: bool(standings.read_round(self.home, entry.name, number)))

  def advance(self, entry: Entry, seed: int, goal: int) -> bool:
    """A slice, and its account; False if a signal ended it early."""
    self.agenda.save()
    start = time.perf_counter()
    try:
      step = self.slice(entry, seed, entry.workdirs[seed], goal)
    except Diverged as e:
      self.agenda.stopped[entry.name] = f"diverged: {str(e).partition(';')[0]}"
      announce(f"{entry.name} {self.agenda.stopped[entry.name]}; it is stopped")
      self.agenda.save()
      return True
    self.agenda.spent["train"] += time.perf_counter() - start
    self.agenda.spent["slices"] += 1
    self.agenda.save()
    return step == goal

  def slice(self, entry: Entry, seed: int, workdir: pathlib.Path, goal: int) -> int:
    """Trains to a step; answers the step that was reached."""
    settings = entry.config.copy_and_resolve_references()
    pace = self.agenda.trials[entry.contender]["step_seconds"]
    settings.seed += seed
    settings.steps = goal
    settings.checkpoint.every = max(1, round(SAVE / pace))
    left = goal - progress(workdir).step
    announce(f"{workdir.name}: to step {goal:,}, about {duration(left * pace)}")
    if entry.contender not in self.steps:
      built = experiment.Experiment.of(settings)
      self.steps[entry.contender] = Compiled(built, sharding.make_mesh(settings.mesh))
    state = train.train(settings, str(workdir), quiet=True, step=self.steps[entry.contender])
    return int(state.step)

  def judge_round(self, entry: Entry, number: int, stopped: Callable[[], bool]) -> bool:
    """Judges a contender, unless that is done, or it was stopped.

    False if a signal asked for an end: what judging trained is not complete then.
    """
    if entry.name in self.agenda.stopped or self.is_judged(entry, number):
      return not stopped()
    announce(f"{entry.name}: sampling and judging")
    start = time.perf_counter()
    is_last = self.agenda.is_last(number) and not entry.half_of
    extras = self.agenda.extras if is_last else ()
    grid = f"{entry.name}-{number}"
    before = self.samplers.get(entry.contender)  # its program is compiled
    model = before.reload(entry.workdir) if before else load(entry.workdir)
    self.samplers[entry.contender] = model
    row, pictures = measure.measure(entry, self.judge, extras, grid, model)
    if stopped():
      return False
    row |= commands(entry, self.home / "judge")
    seconds = time.perf_counter() - start
    now, facts = [progress(w) for w in entry.workdirs], self.agenda.trials[entry.contender]
    if join.is_main_process():
      standings.write_round(self.home, number, row, now, facts, pictures, seconds)
    return True

  def report(self, number: int) -> None:
    """Rewrites the page and choice.json, from all rounds up to this one.

    The latter last: where it is of that round, the page is, too.
    """
    if join.is_main_process():
      self.write_report(number)
    self.agenda.save()

  def write_report(self, number: int) -> None:
    """Does so, unless it is done."""
    budget = standings.account(self.home, self.halves, self.agenda, number)
    if standings.report_budget(self.home) == budget:
      return
    start = time.perf_counter()
    models, images = standings.rows_of(self.home, self.entries, self.halves, self.agenda, number)
    results = self.results | {"budget": budget, "rows": models}
    results |= {
      "verdict": verdict.answer(results),
      "trust": verdict.trust(results),
      "changes": verdict.changes(results),
    }
    files.write_text(self.home / "report.html", render(results, images | self.real))
    files.write_json(self.home / "choice.json", results)
    self.agenda.spent["report"] += time.perf_counter() - start
    self.agenda.spent["reports"] += 1
    announce(f"{percent(budget['share'])} of the budget: {self.home / 'report.html'}")


def commands(entry: Entry, judge: pathlib.Path) -> dict[str, list[str]]:
  """What made a contender's row, and what to type next.

  The next are of a copy: a larger budget has to go on from where this one ended.
  """
  step = progress(entry.workdir).step
  out = f"{entry.name}_clips" if entry.config.data.get("rate") else f"{entry.name}.png"
  (train,), place, name = entry.commands, shlex.quote(str(entry.workdir)), entry.name
  elsewhere = lambda where: train.replace(f"--workdir={place}", f"--workdir={shlex.quote(where)}")
  texts = [
    f"cp -r {place} {shlex.quote(name)} && {elsewhere(name)} --config.steps={4 * step}",
    command("sample", workdir=name, num=64, out=out),
    command("evaluate", workdir=name, judge=judge),
  ]
  if SMALL in train:
    full = elsewhere(f"{name}_full").replace(SMALL, " ", 1)
    texts += ["# the net that this is a small one of, on an accelerator of 16 GiB:", full]
  again = command("evaluate", workdir=entry.workdir, judge=judge)
  return {"commands": [f"{train} --config.steps={step}", again], "next": texts}
