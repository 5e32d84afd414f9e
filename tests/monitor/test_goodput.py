"""Where the time went, with a clock of our own."""

import random

import pytest

from jaxgen.monitor.goodput import Goodput, Loss, loss


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def test_phases_share_the_whole_time():
  clock, chance = Clock(), random.Random(0)
  times, truth = Goodput(clock=clock), {"init": 0.0}
  for _ in range(200):
    pause = chance.random()
    clock.now += pause
    truth[times.phase] = truth.get(times.phase, 0.0) + pause
    times.enter(chance.choice(["data", "step", "checkpoint"]))
  with times.during("pictures"):
    clock.now += 3
  totals = times.totals()
  assert totals.pop("pictures") == pytest.approx(3)
  assert totals == pytest.approx(truth)
  whole = clock.now - 100
  assert times.scalars()["goodput/share"] == pytest.approx(truth["step"] / whole)
  assert sum(v for k, v in times.scalars().items() if k.endswith("_seconds")) == pytest.approx(
    whole
  )


def test_lives_add_up():
  """Three lives: all seconds between the first and the last are accounted."""
  rows = [
    {"start": 0, "time": 10.0},
    {"step": 5, "time": 20.0},
    {"step": 10, "time": 30.0},  # saved here, at 30.5
    {"step": 15, "time": 40.0},
    {"step": 20, "time": 50.0},  # killed
    {"start": 10, "time": 57.0},
    {"step": 15, "time": 60.0},
  ]  # again
  gone = loss(rows, 30.5, 10, 65.0)
  assert gone == Loss(steps=10, seconds=19.5 + 3, down=7 + 5)
  assert gone.seconds + gone.down == 65.0 - 30.5
  times = Goodput(clock=Clock())
  times.resume({"init": 0.5, "step": 20.0}, gone, 10)
  assert sum(times.totals().values()) == 65.0 - 10
  assert times.scalars()["goodput/share"] == 20 / 55
  assert times.line() == ("goodput 36.4% of 0:55: lost 0:22, step 0:20, down 0:12, init 0:00")


def test_nothing_is_lost_of_what_was_saved():
  rows = [{"start": 0, "time": 10.0}, {"step": 7, "time": 20.0}]
  assert loss(rows, 20.25, 7, 30.0) == Loss(0, 0.0, 9.75)
  assert loss([], None, 0, 30.0) == Loss(0, 0.0, 0.0)
  # Killed before the first checkpoint: all of it is.
  assert loss(rows, None, 0, 30.0) == Loss(7, 10.0, 10.0)
  # A clock that goes back gives no negative times.
  assert loss([*rows, {"step": 8, "time": 5.0}], 20.25, 7, 1.0) == Loss(0, 0.0, 0.0)


def test_patience_grows_with_the_steps():
  clock = Clock()
  times = Goodput(stall=45, clock=clock)
  clock.now += 7
  assert times.beat() == (0, "init", 7, 40 * 45, "")
  for i in range(30):
    times.stepped(i)
    assert (times.beat().limit == 40 * 45) == (i < 16)
    times.enter("data")
    clock.now += 1
    times.enter("step")
    clock.now += 9 if i > 9 else 0
  assert times.beat()[:3] == (29, "step", 9)
  assert 45 < times.beat().limit <= 10 * 10
  times.enter("eval")
  assert times.beat().limit == 40 * 45
