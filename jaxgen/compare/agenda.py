"""What a choice is going to do next, and what it has spent: OUT/plan.json.

The file is written before every slice of training, so that whoever goes on
after a kill takes the same decisions. Budgets of images and operations become
steps by division alone: rounds are the same however often it was killed.
Budgets of time become steps by the seconds that steps have taken so far.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from jaxgen import files, forms
from jaxgen.checkpoint import meta
from jaxgen.checkpoint.restore import NoCheckpoint
from jaxgen.compare.budget import SHARES, Budget, affordable, split, steps_within
from jaxgen.compare.measure import EXTRAS
from jaxgen.compare.rows import damage
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.forms import Each, Whole
from jaxgen.monitor.goodput import STEPPING

JUDGING = 0.35  # the most of a budget of time that judging may take
SLICE = 3.0  # seconds beside its steps, until a slice was seen
REPORT = 3.0  # seconds that a report takes, until one was written
LONG = 30.0  # seconds; longer slices are cut, to correct their length on the way
LEG = 0.8  # of what is left is the first part of a long slice
IDLE = 2.0  # seconds that are not worth a slice
MORE = 1.25  # times what trainings had, for another round of a time budget to be worth it
HALF = 0.5  # of the data, and of its part of the budget, for a training on halves
TRIAL = dict.fromkeys(("step_seconds", "flops", "judge_seconds", "full_seconds"), float)
FORM = {
  "spec": Each(object),
  "budget": {"kind": {"time", "flop", "img"}, "amount": float, "text": str},
  "trials": Each(TRIAL | {"params": Whole(0), "batch": Whole(1)}),
  "rounds": [{"share": float, "target": float, "steps": Each(Whole(1))}],
  "stopped": Each(str),
  "set_size": Whole(0),
  "extras": [str],
  "spent": {"train": float, "slices": Whole(0), "report": float, "reports": Whole(0)},
}
DECIDED = ("trials", "rounds", "stopped", "set_size", "extras", "spent")  # on the way
Round = dict[str, Any]  # see FORM


class Progress(NamedTuple):
  """How far a training is."""

  step: int
  seconds: float  # that its steps took, with waiting for data, without compiling


class Position(NamedTuple):
  """Where a choice stands; of contenders that were not stopped.

  now: how far trainings are, by contender and seed.
  judging: seconds that it takes to judge each, as far as is known.
  judged: seconds of judging so far, of all contenders.
  """

  now: dict[str, list[Progress]]
  judging: dict[str, float]
  judged: float


def progress(workdir: pathlib.Path) -> Progress:
  """That of a workdir's newest checkpoint."""
  try:
    card = meta.latest(workdir)
  except NoCheckpoint:
    return Progress(0, 0.0)
  seconds = (card.get("goodput") or {}).get("seconds") or {}
  return Progress(card["step"], sum(seconds.get(phase, 0.0) for phase in STEPPING))


@dataclasses.dataclass
class Agenda:
  """Plan and account of a choice.

  Attributes:
    path: Of plan.json.
    spec: Data, contenders and all else by which choices differ, as JSON.
    budget: Of the whole choice.
    trials: What `trial.try_out` measured, by contender, with judge_seconds, that
      judging it once takes, and full_seconds, what the last time takes more.
    rounds: Begun so far: share of the budget that is spent at its end; target,
      the same for each training in units of the budget; steps, that each
      workdir is to be trained to.
    stopped: Why, by contender that goes on no more.
    set_size: Of the sets of samples that are judged; 0: not decided.
    extras: What is measured at the end alone, see `measure.measure`.
    spent: Seconds of slices and of reports, but for what a kill cut short; and
      how many they are.
  """

  path: pathlib.Path
  spec: dict[str, Any]
  budget: Budget
  trials: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  rounds: list[Round] = dataclasses.field(default_factory=list)
  stopped: dict[str, str] = dataclasses.field(default_factory=dict)
  set_size: int = 0
  extras: list[str] = dataclasses.field(default_factory=lambda: list(EXTRAS))
  spent: dict[str, float] = dataclasses.field(
    default_factory=lambda: {"train": 0.0, "slices": 0, "report": 0.0, "reports": 0}
  )

  def save(self) -> None:
    """Writes plan.json; of several processes the first does, and all take its plan."""
    self.agree()
    if join.is_main_process():
      own = {f.name: vars(self)[f.name] for f in dataclasses.fields(self) if f.name != "path"}
      files.write_json(self.path, own | {"budget": dataclasses.asdict(self.budget)})

  def agree(self) -> None:
    """Takes what process 0 has decided, and what its clock has measured."""
    if join.joined():
      vars(self).update(join.share(lambda: files.plain({k: vars(self)[k] for k in DECIDED})))

  def is_last(self, number: int) -> bool:
    """Whether a round spends the budget to its end."""
    return self.rounds[number]["share"] == SHARES[-1]

  def trainings(self) -> int:
    """How many trainings get a part of the budget."""
    return len(self.spec["contenders"]) * self.spec["seeds"]

  def parts(self) -> float:
    """Into how many parts the budget is divided."""
    return self.trainings() + self.half_parts(self.spec["contenders"])

  def half_parts(self, names: Collection[str]) -> float:
    """How many parts these contenders' trainings on halves of the data take."""
    return HALF * len(names) if self.spec.get("halves") else 0.0

  def half_round(self) -> int | None:
    """The round that trainings on halves are compared with, once all are planned."""
    shares = [r["share"] for r in self.rounds]
    if not self.spec.get("halves") or not shares or shares[-1] < SHARES[-1]:
      return None
    near = [i for i, share in enumerate(shares) if share < 1.5 * HALF]
    return min(near, key=lambda i: abs(shares[i] - HALF), default=None)

  def next_round(
    self, position: Position, workdirs: Mapping[str, Sequence[pathlib.Path]]
  ) -> Round | None:
    """Plans one more round, or None where the budget is spent.

    Raises:
      UserError: The budget is too small for a single step of each.
    """
    shares, part = self.plan(position)
    if not shares:
      return None
    target, steps = shares[0] * part, {}
    if self.budget.kind == "time" and self.rounds:  # parts are known better and better
      seconds = [p.seconds for own in position.now.values() for p in own]
      self.rounds[-1]["target"] = sum(seconds) / len(seconds)  # as it came out
      for before in self.rounds:
        before["share"] = before["target"] / part
    if self.budget.kind != "time":  # of time slice by slice, see `next_goal`
      costs = self.costs(position.now)
      steps = {
        w.name: steps_within(1.0, target, costs[n]) for n in position.now for w in workdirs[n]
      }
    self.rounds.append({"share": shares[0], "target": target, "steps": steps})
    return self.rounds[-1]

  def check_own(self, workdirs: Mapping[str, Sequence[pathlib.Path]]) -> None:
    """UserError if somebody trained on where a choice would go on from."""
    for place in itertools.chain(*workdirs.values()):
      planned = max((r["steps"].get(place.name, 0) for r in self.rounds), default=0)
      if (step := progress(place).step) > planned:
        raise UserError(
          f"{place} was trained to step {step:,}, and this choice to {planned:,} only: move it "
          "away, for a larger budget goes on from its own trainings, or take another --out"
        )

  def plan(self, position: Position) -> tuple[list[float], float]:
    """Shares at which rounds to come end, and each training's part of the budget.

    Raises:
      UserError: As `next_round`.
    """
    if not position.now:
      return [], 0.0
    if self.budget.kind == "time":
      return self._plan_time(position)
    done = {name: max(p.step for p in own) for name, own in position.now.items()}
    costs = self.costs(position.now)
    shares = split(self.budget, costs, self.parts(), done if self.rounds else None)
    return [s for s in shares if s in self._later()], self.budget.amount / self.parts()

  def seconds_left(self, position: Position) -> float:
    """Seconds that all that is to come takes, but for preparing."""
    shares, part = self.plan(position)
    if self.budget.kind == "time":
      return self.remaining(position)
    costs, count = self.costs(position.now), sum(map(len, position.now.values()))
    seconds = len(shares) * (sum(position.judging.values()) + count * SLICE)
    for name, own in position.now.items() if shares else ():
      steps = sum(steps_within(1.0, part, costs[name]) - p.step for p in own)
      steps += steps_within(self.half_parts([name]), part, costs[name])
      seconds += steps * self.pace(name, own) + self.trials[name]["full_seconds"]
    return seconds + self._half_seconds(position)

  def _later(self) -> list[float]:
    """Shares that are still to come."""
    last = self.rounds[-1]["share"] if self.rounds else 0.0
    return [share for share in SHARES if share > last * (1 + 1e-9)]

  def _plan_time(self, position):
    """What is left of a time budget beside judging, at the pace so far."""
    costs, once = self.costs(position.now), sum(position.judging.values())
    later = self._later() or [SHARES[-1]]  # of time that a faster machine left over
    shares = affordable(later, once, JUDGING * self.budget.amount - position.judged)
    past, part = self.rounds[-1]["target"] if self.rounds else 0.0, 0.0
    while shares:
      part = self._part(position, len(shares))
      first = shares[0] * part
      if first >= MORE * past and all(
        first >= max(p.seconds for p in own) + costs[n] for n, own in position.now.items()
      ):
        return shares, part
      shares = shares[1:]
    if not self.rounds:
      raise UserError(self._too_short(costs, self._part(position, 1)))
    return [], part

  def _part(self, position, rounds):
    """Seconds that the steps of each training get in all, if so many rounds come."""
    trained = sum(p.seconds for own in position.now.values() for p in own)
    count = sum(map(len, position.now.values()))
    left = self.remaining(position) - rounds * (
      sum(position.judging.values()) + self.report_seconds()
    )
    left -= sum(self.trials[name]["full_seconds"] for name in position.now)
    left -= self.slice_seconds(trained) * count * (rounds + 1)  # the last may be cut
    left -= self._half_seconds(position)
    return (trained + left) / (count + self.half_parts(position.now))

  def _half_seconds(self, position):
    """Seconds that trainings on halves take beside their steps."""
    if not self.spec.get("halves"):
      return 0.0
    each = (position.judging[name] / self.spec["seeds"] + SLICE for name in position.now)
    return sum(each) + self.report_seconds()

  def _too_short(self, costs, part):
    """Why a budget of time is too small, from what would be left to each training."""
    name, count = max(costs, key=costs.__getitem__), self.parts()
    beside = self.budget.amount - count * part
    return (
      f"--budget={self.budget.text} is too small: all but training (loading, judging, the report) "
      f"takes about {beside:.3g} s here, and each step of {name} {costs[name]:.2g} s; want "
      f"{beside + count * costs[name]:.3g}s or more"
    )

  def remaining(self, position: Position) -> float:
    """Seconds of a time budget that are not spent yet."""
    return self.budget.amount - self.spent["train"] - self.spent["report"] - position.judged

  def report_seconds(self) -> float:
    """Seconds that it takes to write a report."""
    return self.spent["report"] / self.spent["reports"] if self.spent["reports"] else REPORT

  def slice_seconds(self, trained: float) -> float:
    """Seconds that a slice takes beside its steps."""
    if not self.spent["slices"]:
      return SLICE
    return max(self.spent["train"] - trained, 0.0) / self.spent["slices"]

  def costs(self, now: Mapping[str, Sequence[Progress]]) -> dict[str, float]:
    """What a step of each costs, in units of the budget; seconds by the pace so far."""
    if self.budget.kind == "time":
      return {name: self.pace(name, own) for name, own in now.items()}
    field = {"flop": "flops", "img": "batch"}[self.budget.kind]
    return {name: float(self.trials[name][field]) for name in now}

  def pace(self, name: str, own: Sequence[Progress]) -> float:
    """Seconds of a contender's step, so far or when it was timed."""
    steps = sum(p.step for p in own)
    if not steps:
      return self.trials[name]["step_seconds"]
    return sum(p.seconds for p in own) / steps

  def next_goal(self, name: str, workdir: pathlib.Path, number: int) -> int | None:
    """To which step a training goes on in a round; None: it has done its part.

    Long slices of a time budget are cut, so that a pace that changed on the way
    is noticed.
    """
    goals, now = self.rounds[number]["steps"], progress(workdir)
    if now.step < goals.get(workdir.name, 0):
      return goals[workdir.name]  # as it was decided
    if self.budget.kind != "time":
      return None
    target, pace = self.rounds[number]["target"], self.pace(name, [now])
    left = target - now.seconds
    if workdir.name in goals and left < max(IDLE, pace, 0.03 * target):
      return None
    left = LEG * left if left > LONG else left
    goals[workdir.name] = now.step + max(1, int(left / pace))
    return goals[workdir.name]


def stored_plan(path: pathlib.Path) -> dict[str, Any] | None:
  """A plan as it was written; None if there is none yet."""
  try:
    return forms.read(path, FORM, functools.partial(damage, path, "a choice"))
  except FileNotFoundError:
    return None


def open_agenda(path: pathlib.Path, spec: Mapping[str, Any], budget: Budget) -> Agenda:
  """The agenda at `path`, if there is one; else a new one.

  A larger budget of the same kind goes on from what a smaller one paid for:
  shares of the rounds so far shrink.

  Raises:
    UserError: It is of another choice, or of a larger budget.
  """
  stored = join.share(lambda: stored_plan(path))
  if stored is None:
    return Agenda(path, dict(spec), budget)
  if stored["spec"] != spec:
    if not stored["rounds"]:
      return Agenda(path, dict(spec), budget)
    different = [k for k in spec if stored["spec"].get(k) != spec[k]]
    raise UserError(
      f"{path.parent} holds a choice with other {', '.join(different)}: take another --out, or "
      "say it as before"
    )
  before = Budget(**{k: stored["budget"][k] for k in ("kind", "amount", "text")})
  if stored["rounds"] and (before.kind != budget.kind or before.amount > budget.amount):
    raise UserError(
      f"{path.parent} holds a choice of --budget={before.text}: say so, or a larger one of that "
      "kind, or take another --out"
    )
  for begun in stored["rounds"]:
    begun["share"] *= before.amount / budget.amount
  rest = {k: stored[k] for k in DECIDED}
  return Agenda(path, dict(spec), budget, **rest)
