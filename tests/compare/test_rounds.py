"""The order of a choice, in a world where training and judging take no time."""

import json
import random

import numpy as np
import pytest

from jaxgen.compare import agenda as agendas
from jaxgen.compare import measure, rounds
from jaxgen.compare.agenda import Progress, open_agenda
from jaxgen.compare.budget import parse
from jaxgen.compare.contenders import load_contenders
from jaxgen.compare.rounds import Rounds
from jaxgen.errors import Diverged, UserError

GAN, VAE = "points_gan", "points_vae"
DATA = {"source": "points:grid25", "size": 0, "channels": 0, "classes": 25, "holdout": 0.2}
TRIAL = {"params": 1, "batch": 16, "flops": 1e6, "full_seconds": 6.0}
TRIALS = {
  GAN: TRIAL | {"step_seconds": 0.05, "judge_seconds": 2.0},
  VAE: TRIAL | {"step_seconds": 0.02, "judge_seconds": 1.0},
}

SPEC = {"contenders": {GAN: {}, VAE: {}}}


def trial(entry):
  return TRIALS[entry.contender]


class Killed(BaseException):
  """What nobody catches, as SIGKILL."""


class World:
  """What takes time elsewhere; trainings are files, so that they outlive kills.

  Attributes:
    clock: Seconds since its beginning.
    slower: How many times as long as in the trial steps take.
    life: Events until a kill; None: nobody kills.
    events: What was done, as (what, which, to where).
  """

  def __init__(self, patch, home, seeds=1, halves=False):
    self.halves = halves
    self.home, self.seeds, self.clock, self.slower, self.life = home, seeds, 0.0, 1.0, None
    self.events, self.stopped, self.ill = [], False, ""
    patch.setattr(rounds.time, "perf_counter", lambda: self.clock)
    patch.setattr(agendas, "progress", self.progress)
    patch.setattr(rounds, "progress", self.progress)
    patch.setattr(Rounds, "slice", self.slice)
    patch.setattr(measure, "measure", self.measure)
    patch.setattr(rounds, "load", lambda _: None)
    patch.setattr(measure, "real_data", lambda *_: ({}, {}))
    patch.setattr(rounds, "render", lambda results, _: self.spend(2.0) or json.dumps(results))

  def spend(self, seconds):
    if self.life is not None:
      self.life -= 1
      if self.life < 0:
        raise Killed
    self.clock += seconds

  def progress(self, workdir):
    try:
      return Progress(*json.loads((workdir / "progress").read_text()))
    except FileNotFoundError:
      return Progress(0, 0.0)

  def slice(self, entry, seed, workdir, goal):
    if entry.name == self.ill and goal > 100:
      raise Diverged("20 updates in a row were not finite, up to step 101; the last good ..")
    now = self.progress(workdir)
    for step in sorted({(now.step + goal) // 2, goal} - {now.step}):  # a checkpoint on the way
      seconds = (step - now.step) * trial(entry)["step_seconds"] * self.slower
      self.spend(seconds + 0.5)
      now = Progress(step, now.seconds + seconds)
      workdir.mkdir(parents=True, exist_ok=True)
      (workdir / "progress").write_text(json.dumps(now))
    self.events.append(("train", workdir.name, goal))
    self.spend(0.0)
    return goal

  def measure(self, entry, judge, extras, grid, model):
    self.spend(self.measure_seconds(trial(entry)) + 2.0 * len(extras))
    step = self.progress(entry.workdir).step
    self.events.append(("judge", entry.name, step))
    row = {"name": entry.name, "grid": grid, "step": step, "extras": extras, "seeds": []}
    row |= {"metrics": {"frechet": 1 / step}, "spread": {}, "intervals": {}}
    return row, {grid: b"png"}

  def measure_seconds(self, trial):
    return trial["judge_seconds"]

  def choose(self, budget):
    """A choice from its beginning, or from where it was killed -> choice.json."""
    entries = load_contenders([f"{GAN}:debug", f"{VAE}:debug"], DATA, self.home, self.seeds)
    spec = SPEC | {"seeds": self.seeds, "halves": self.halves}
    agenda = open_agenda(self.home / "plan.json", spec, budget)
    agenda.trials = dict(TRIALS)
    assert Rounds(self.home, entries, None, agenda, {}).run(lambda: self.stopped)
    return json.loads((self.home / "choice.json").read_text())


@pytest.fixture
def world(tmp_path, monkeypatch):
  return World(monkeypatch, tmp_path / "out")


def without_times(value):
  if isinstance(value, dict):
    return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "judge_seconds")}
  return [without_times(v) for v in value] if isinstance(value, list) else value


def test_all_are_trained_and_judged_in_turn(world):
  results = world.choose(parse("3200img"))  # 100 steps of 16 for each
  steps = [6, 12, 25, 50, 100]
  events = [(what, name, n) for n in steps for name in (GAN, VAE) for what in ("train", "judge")]
  assert world.events == events
  for row in results["rows"]:
    assert [r["step"] for r in row["rounds"]] == steps and row["extras"] and row["step"] == 100
    assert [r["grid"] for r in row["rounds"]] == [f"{row['name']}-{i}" for i in range(5)]
    assert row["rounds"][-1]["flops"] == 1e8 and row["rounds"][-1]["images"] == 1600


def test_operations_are_divided_alike(world):
  results = world.choose(parse("100Mflop"))
  assert [row["step"] for row in results["rows"]] == [50, 50]
  assert results["budget"]["share"] == 1.0


def test_a_kill_at_any_moment_changes_nothing(world, tmp_path, monkeypatch):
  chance = random.Random(0)
  calm = without_times(world.choose(parse("3200img")))
  for _ in range(6):
    rough = World(monkeypatch, tmp_path / f"rough{chance.random()}")
    lives = 0
    while True:
      rough.life, lives = chance.randint(1, 12), lives + 1
      try:
        results = rough.choose(parse("3200img"))
        break
      except Killed:
        pass
    assert lives > 2
    again = json.loads(json.dumps(results).replace(str(rough.home), str(world.home)))
    assert without_times(again) == calm
    assert len(set(rough.events)) == len(rough.events) == len(world.events)  # nothing twice


def test_what_is_done_is_not_done_again(world):
  world.choose(parse("3200img"))
  before = world.clock, len(world.events)
  world.choose(parse("3200img"))
  assert (world.clock, len(world.events)) == before


@pytest.mark.parametrize("slower", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_budget_of_time_is_spent_and_not_more(tmp_path, monkeypatch, slower, seeds):
  world = World(monkeypatch, tmp_path / "out", seeds)
  world.slower = slower
  results = world.choose(parse("10m"))
  assert abs(world.clock - 600) < 30  # though the trial was wrong
  assert results["budget"]["share"] == 1.0
  gan, vae = (row["rounds"][-1]["seconds"] for row in results["rows"])
  assert abs(gan - vae) < 0.03 * gan  # equal time of training


def test_a_machine_that_gets_slower_is_noticed(world, monkeypatch):
  slow = world.slice

  def slice(_, entry, seed, workdir, goal):
    world.slower = 1.5 if world.clock > 300 else 1.0
    return slow(entry, seed, workdir, goal)

  monkeypatch.setattr(Rounds, "slice", slice)
  world.choose(parse("10m"))
  assert abs(world.clock - 600) < 60


def test_time_that_a_faster_machine_leaves_over_is_spent(world, monkeypatch):
  slow = world.slice

  def slice(_, entry, seed, workdir, goal):
    world.slower = 4.0 if world.clock < 60 else 0.5
    return slow(entry, seed, workdir, goal)

  monkeypatch.setattr(Rounds, "slice", slice)
  seconds = lambda _, trial: trial["judge_seconds"] * 8 * world.slower
  monkeypatch.setattr(World, "measure_seconds", seconds)
  results = world.choose(parse("10m"))
  assert abs(world.clock - 600) < 60
  shares = results["budget"]["rounds"]
  assert shares == sorted(shares) and shares[-1] == 1.0
  ends = np.mean([[r["seconds"] for r in row["rounds"]] for row in results["rows"]], 0)
  assert ends / ends[-1] == pytest.approx(shares, abs=0.05)


def test_judging_that_takes_long_leaves_rounds_out(world, monkeypatch):
  monkeypatch.setitem(TRIALS, GAN, TRIALS[GAN] | {"judge_seconds": 40.0})
  results = world.choose(parse("5m"))
  assert results["budget"]["rounds"] == pytest.approx([0.5, 1.0], abs=0.05)
  assert abs(world.clock - 300) < 30
  with pytest.raises(UserError, match="--budget=50s is too small: .* takes about 68 s here"):
    World(monkeypatch, world.home.with_name("other")).choose(parse("50s"))


def test_a_larger_budget_goes_on(world, tmp_path, monkeypatch):
  whole = world.choose(parse("3200img"))
  other = World(monkeypatch, tmp_path / "other")
  other.choose(parse("1600img"))
  results = other.choose(parse("3200img"))
  assert results["budget"]["rounds"] == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
  assert [[r["step"] for r in row["rounds"]] for row in results["rows"]] == [
    [3, 6, 12, 25, 50, 100]
  ] * 2
  for a, b in zip(whole["rows"], results["rows"], strict=True):
    assert a["metrics"] == b["metrics"]
  for text in ("1600img", "1h", "1e9flop"):
    with pytest.raises(UserError, match="holds a choice of --budget=3200img: say so, or a larger"):
      other.choose(parse(text))
  other.seeds = 2
  with pytest.raises(UserError, match="holds a choice with other seeds: take another --out"):
    other.choose(parse("3200img"))


def test_who_diverges_is_stopped_and_the_others_go_on(world):
  world.ill = GAN
  results = world.choose(parse("6400img"))
  gan, vae = results["rows"]
  assert gan["stopped"] == "diverged: 20 updates in a row were not finite, up to step 101"
  assert [r["step"] for r in gan["rounds"]] == [12, 25, 50, 100] and vae["step"] == 200
  assert vae["stopped"] == "" and results["budget"]["share"] == 1.0


def test_seeds_are_parts_of_the_budget(tmp_path, monkeypatch):
  world = World(monkeypatch, tmp_path / "out", seeds=2)
  results = world.choose(parse("3200img"))
  assert [row["step"] for row in results["rows"]] == [50, 50]
  assert [n for what, _, n in world.events if what == "train"][-4:] == [50] * 4
  assert {name for what, name, _ in world.events if what == "train"} == {
    *(GAN, VAE, f"{GAN}-seed1", f"{VAE}-seed1")
  }


def test_halves_are_trained_to_where_half_of_the_budget_led(tmp_path, monkeypatch):
  calm = World(monkeypatch, tmp_path / "calm", halves=True)
  results = calm.choose(parse("4800img"))  # three parts, one of them for two halves
  halves = [(what, f"{name}-half", 50) for name in (GAN, VAE) for what in ("train", "judge")]
  assert calm.events[-4:] == halves and calm.events[-5] == ("judge", VAE, 100)
  assert results["budget"]["halves"] == 2
  for r in results["rows"]:
    assert r["half"]["share"] == 0.5 and r["half"]["metrics"] == r["rounds"][-2]["metrics"]
  before = calm.clock, len(calm.events)
  calm.choose(parse("4800img"))
  assert (calm.clock, len(calm.events)) == before
  rough, lives = World(monkeypatch, tmp_path / "rough", halves=True), 0
  while True:
    rough.life, lives = 7, lives + 1
    try:
      again = rough.choose(parse("4800img"))
      break
    except Killed:
      pass
  again = json.loads(json.dumps(again).replace(str(rough.home), str(calm.home)))
  assert lives > 2 and without_times(again) == without_times(results)
  assert sorted(rough.events) == sorted(calm.events)


@pytest.mark.parametrize("slower", [0.7, 1.6])
def test_halves_are_part_of_a_budget_of_time(tmp_path, monkeypatch, slower):
  world = World(monkeypatch, tmp_path / "out", halves=True)
  world.slower = slower
  results = world.choose(parse("10m"))
  assert abs(world.clock - 600) < 40 and results["budget"]["halves"] == 2


def test_what_was_trained_on_by_others_is_not_gone_on_from(world):
  world.choose(parse("1600img"))
  (world.home / VAE / "progress").write_text("[200, 4.0]")
  with pytest.raises(UserError, match="points_vae was trained to step 200, and .* to 50 only"):
    world.choose(parse("3200img"))
