"""What a choice may cost, and how that is cut into rounds.

A budget is of time on this machine ("30m"), of floating-point operations
("3e15flop") or of training images or clips seen ("2Mimg", "50kclips"). It is of
the whole choice: every training gets an equal part of it. Parts are spent in
rounds, each twice as long as what came before it, so that there is an answer
early, and that half of the budget is still to come when the last round but one is
judged.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from jaxgen.config import LARGEST
from jaxgen.errors import UserError

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of a part, spent at the end of each round
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
NUMBER = r"(\d+(?:\.\d+)?(?:e\d+)?)"
TIME = re.compile(rf"(?:{NUMBER}h)?(?:{NUMBER}m)?(?:{NUMBER}s)?")
COUNT = re.compile(rf"{NUMBER}([kMGTP]?)(flop|img|clips?)")
NOUNS = {"time": "seconds", "flop": "operations", "img": "images"}
EXAMPLES = (
  "a time such as 30m or 1h30m, images such as 500kimg (of sound 500kclips), or operations such as "
  "3e15flop"
)


@dataclasses.dataclass(frozen=True)
class Budget:
  """A budget of a whole choice.

  Attributes:
    kind: "time", "flop" or "img", which is of clips, too.
    amount: Seconds, operations, or images or clips.
    text: As it was written.
  """

  kind: str
  amount: float
  text: str


def parse(text: str) -> Budget:
  """A budget from "90s", "1h30m", "3e15flop", "500kimg" or "20000img".

  Raises:
    UserError: It is none of these, or nothing at all.
  """
  kind, amount = "", 0.0
  if text and (time := TIME.fullmatch(text)):
    parts = (float(n or 0) for n in time.groups())
    kind, amount = "time", sum(n * s for n, s in zip(parts, (3600, 60, 1), strict=True))
  elif count := COUNT.fullmatch(text):
    kind = "flop" if count[3] == "flop" else "img"
    amount = float(count[1]) * UNITS[count[2]]
  if not kind:
    raise UserError(f"--budget={text}: want {EXAMPLES}")
  if not 0 < amount < math.inf:
    raise UserError(f"--budget={text}: want more than nothing, and a finite number")
  return Budget(kind, amount, text)


def steps_within(share: float, part: float, cost: float) -> int:
  """Steps that a share of a part pays for, where each takes `cost`.

  Raises:
    UserError: More than a training can count.
  """
  steps = math.floor(share * part / cost * (1 + 1e-12))  # 0.1 * 30 is 3
  if steps > LARGEST:
    raise UserError(f"the budget is of {steps:.3g} steps a training: want at most {LARGEST}")
  return steps


def split(
  budget: Budget, costs: Mapping[str, float], parts: float, done: Mapping[str, int] | None = None
) -> list[float]:
  """The shares at which rounds end.

  Rounds in which somebody would take no step are left out: of a small budget
  the early ones, and all that are `done` when it is made larger.

  Args:
    budget: Of the whole choice.
    costs: What a step of each contender costs, in units of the budget.
    parts: Into how many the budget is divided, one for each training.
    done: Steps so far of each contender.

  Raises:
    UserError: It is too small for a single step of each.
  """
  part, before, shares = budget.amount / parts, dict(done or {}), []
  for share in SHARES:
    steps = {name: steps_within(share, part, cost) for name, cost in costs.items()}
    if all(n > before.get(name, 0) for name, n in steps.items()):
      shares.append(share)
      before = steps
  if not shares and not done:
    raise UserError(too_small(budget, costs, parts))
  return shares


def too_small(budget: Budget, costs: Mapping[str, float], parts: float) -> str:
  """Why a budget pays for no step of somebody, in one line."""
  name = max(costs, key=costs.__getitem__)
  noun, cost = NOUNS[budget.kind], costs[name]
  noun = "clips" if "clip" in budget.text else noun
  return (
    f"--budget={budget.text} is too small: each training gets {budget.amount / parts:.3g} {noun}, "
    f"and one step of {name} takes {cost:.3g}; want {cost * parts:.3g} {noun} or more"
  )


def affordable(shares: Sequence[float], seconds: float, most: float) -> list[float]:
  """The last of these shares that can be judged within `most` seconds.

  Args:
    shares: At which rounds end.
    seconds: That it takes to judge all contenders once.
    most: Of all rounds together; the last round is judged in any case.
  """
  count = len(shares) if seconds <= 0 else int(min(most / seconds, len(shares)))
  return list(shares[-max(count, 1) :])
