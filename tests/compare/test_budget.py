"""Budgets: how they are written, and how they become rounds and steps."""

import itertools

import pytest

from jaxgen.compare.budget import SHARES, Budget, affordable, parse, split, steps_within
from jaxgen.errors import UserError


@pytest.mark.parametrize(
  "text, kind, amount",
  [
    ("90s", "time", 90),
    ("30m", "time", 1800),
    ("1h30m", "time", 5400),
    ("1.5h", "time", 5400),
    ("1h0m5s", "time", 3605),
    ("3e15flop", "flop", 3e15),
    ("2.5Pflop", "flop", 2.5e15),
    ("2Mimg", "img", 2e6),
    ("500kimg", "img", 5e5),
    ("20000img", "img", 2e4),
  ],
)
def test_budgets_are_read(text, kind, amount):
  assert parse(text) == Budget(kind, amount, text)


@pytest.mark.parametrize(
  "text",
  ["", "30", "30min", "m", "1m1h", "-5m", "5 m", "kimg", "2mimg", "1e3", "0s", "0img", "nan"],
)
def test_what_is_no_budget_is_told_what_one_is(text):
  with pytest.raises(
    UserError, match=f"^--budget={text}: want (a time such as 30m|more than noth)"
  ):
    parse(text)


def test_an_endless_budget_is_none():
  with pytest.raises(UserError, match="finite"):
    parse("1e999img")


def test_steps_are_what_a_share_pays_for():
  assert steps_within(1 / 16, 1600, 10) == 10
  assert steps_within(0.1, 30, 1) == 3  # 0.1 * 30 is less than 3 in floats
  assert steps_within(1.0, 99.9, 10) == 9
  with pytest.raises(UserError, match="at most 2147483647"):
    steps_within(1.0, 1e30, 1)


def test_a_budget_is_divided_alike_and_never_overspent():
  costs = {"a": 64.0, "b": 128.0, "c": 100.0}
  budget = parse("300kimg")
  assert split(budget, costs, 3) == list(SHARES)
  part = budget.amount / 3
  for name, cost in costs.items():
    steps = [steps_within(s, part, cost) for s in SHARES]
    assert all(a < b for a, b in itertools.pairwise(steps)), name
    assert 0 <= part - steps[-1] * cost < cost  # all of it but for a step


def test_a_small_budget_has_fewer_rounds():
  # Parts of 32 images: batches of 8 take .5, 1, 2, 3 and 4 steps of 10.
  assert split(Budget("img", 64, ""), {"a": 8.0}, 2) == [1 / 4, 1 / 2, 1.0]
  assert split(Budget("img", 64, ""), {"a": 8.0, "b": 32.0}, 2) == [1.0]
  with pytest.raises(UserError) as e:
    split(parse("60img"), {"a": 8.0, "b": 32.0}, 2)
  assert "each training gets 30 images, and one step of b takes 32" in str(e.value)
  assert "want 64 images or more" in str(e.value)


def test_a_larger_budget_goes_on_from_a_smaller_one():
  # 40 steps each were trained of 40; of twice as much, half is spent.
  costs, taken = {"a": 10.0}, {"a": 40}
  assert split(Budget("img", 800, ""), costs, 1, taken) == [1.0]
  assert split(Budget("img", 6400, ""), costs, 1, taken) == [1 / 8, 1 / 4, 1 / 2, 1.0]
  assert split(Budget("img", 401, ""), costs, 1, taken) == []


def test_judging_that_takes_long_is_done_less_often():
  assert affordable(SHARES, 10, 50) == list(SHARES)
  assert affordable(SHARES, 10, 29) == [1 / 2, 1.0]
  assert affordable(SHARES, 10, 0) == [1.0]  # the last in any case
  assert affordable(SHARES, 10, -5) == [1.0]
  assert affordable(SHARES, 0.0, 0) == list(SHARES)
