"""A choice as it stands: what was judged, the newest complete round first.

OUT/rounds/NAME-R.json    contender NAME in round R: its row, and the round
OUT/rounds/NAME-R.png     a picture of its samples
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen import files, forms
from jaxgen.compare.agenda import Agenda, Progress
from jaxgen.compare.measure import Entry, file_name
from jaxgen.compare.rows import Row, damage
from jaxgen.forms import NUMBER, Each

SCORES = Each(NUMBER)
FORM = {
  "row": {"name": str, "metrics": SCORES, "spread": SCORES, "intervals": Each([float])},
  "round": {"seconds": float, "images": float, "step": float, "grid": str, "metrics": SCORES},
  "judge_seconds": float,
}
FIELDS = ("metrics", "spread", "intervals", "seeds", "grid")  # of a row, that rounds have too


def round_file(home: pathlib.Path, name: str, number: int) -> pathlib.Path:
  """The file of a contender's round."""
  return home / "rounds" / f"{name}-{number}.json"


def write_round(
  home: pathlib.Path,
  number: int,
  row: Row,
  now: Sequence[Progress],
  facts: Mapping[str, Any],
  pictures: Mapping[str, bytes],
  seconds: float,
) -> None:
  """Writes what was judged, pictures first: the file says that all is there.

  Args:
    home: Of the choice.
    number: Of the round.
    row: Of the contender.
    now: How far its trainings are, by seed.
    facts: Of its trial.
    pictures: PNGs by the names that the row has for them.
    seconds: That judging took.
  """
  step = now[0].step
  entry = {
    "seconds": float(np.mean([p.seconds for p in now])),
    "images": step * facts["batch"],
    "flops": step * facts["flops"],
    "step": step,
  } | {k: row[k] for k in FIELDS}
  path = round_file(home, row["name"], number)
  for name, picture in pictures.items():
    files.write_bytes(path.parent / file_name(name), picture)
  files.write_json(path, {"row": row, "round": entry, "judge_seconds": seconds})


def read_round(home: pathlib.Path, name: str, number: int) -> dict[str, Any] | None:
  """What `write_round` wrote; None if there is nothing yet."""
  path = round_file(home, name, number)
  try:
    stored = forms.read(path, FORM, lambda why: damage(path, "a choice", why))
  except FileNotFoundError:
    return None
  for part in (stored["row"], stored["round"]):
    for field in ("metrics", "spread"):
      part[field] = {k: forms.number(v) for k, v in part.get(field, {}).items()}
  return stored


def judge_seconds(
  home: pathlib.Path, entries: Sequence[Entry], rounds: int
) -> dict[str, list[float]]:
  """Seconds that judging took, round by round, by contender."""
  stored = {e.name: [read_round(home, e.name, i) for i in range(rounds)] for e in entries}
  return {name: [s["judge_seconds"] for s in own if s] for name, own in stored.items()}


def rows_of(
  home: pathlib.Path, entries: Sequence[Entry], halves: Sequence[Entry], agenda: Agenda, last: int
) -> tuple[list[Row], dict[str, bytes]]:
  """Rows of the report after round `last`, and the pictures that they name.

  A row is that of its contender's newest round; of `halves`, trainings on half of
  the data, it has what was judged.
  """
  models, images = [], {}
  half_rounds = judged_halves(home, halves, agenda)
  for entry in entries:
    stored = {i: s for i in range(last + 1) if (s := read_round(home, entry.name, i))}
    row = stored[max(stored)]["row"] if stored else unjudged_row(entry, agenda)
    history = [s["round"] | {"share": agenda.rounds[i]["share"]} for i, s in stored.items()]
    for s in stored.values():
      for grid in (s["row"]["grid"], (s["row"].get("copies") or {}).get("grid")):
        if grid:
          images[grid] = (home / "rounds" / f"{grid}.png").read_bytes()
    for name in (c[k] for c in row.get("clips") or () for k in ("sound", "picture")):
      images[name] = (home / "rounds" / file_name(name)).read_bytes()
    row |= {"rounds": history, "stopped": agenda.stopped.get(entry.name, "")}
    models.append(row | {"half": half_rounds.get(entry.name)})
  return models, images


def judged_halves(
  home: pathlib.Path, halves: Sequence[Entry], agenda: Agenda
) -> dict[str, dict[str, Any]]:
  """By contender, how it did on half of its data, at the share to compare with."""
  if (number := agenda.half_round()) is None:
    return {}
  share = {"share": agenda.rounds[number]["share"]}
  stored = {h.contender: read_round(home, h.name, number) for h in halves}
  return {name: s["round"] | share for name, s in stored.items() if s}


def unjudged_row(entry: Entry, agenda: Agenda) -> Row:
  """The row of a contender that was stopped before it was judged."""
  return {
    "name": entry.name,
    "family": str(entry.config.model.name).rpartition(".")[2],
    "config": entry.name,
    "workdir": str(entry.workdir),
    "params": agenda.trials[entry.name]["params"],
    "commands": list(entry.commands),
  }


def account(
  home: pathlib.Path, halves: Sequence[Entry], agenda: Agenda, last: int
) -> dict[str, Any]:
  """The budget, and which share of it stands behind the report.

  With trainings on `halves` of the data also how many of them do.
  """
  budget = agenda.budget
  return {
    "text": budget.text,
    "kind": budget.kind,
    "amount": budget.amount,
    "share": agenda.rounds[last]["share"],
    "rounds": [r["share"] for r in agenda.rounds[: last + 1]],
    "halves": len(judged_halves(home, halves, agenda)),
  }


def report_budget(home: pathlib.Path) -> Any:
  """The account of the report that is there; None if there is none."""
  try:
    return json.loads((home / "choice.json").read_text()).get("budget")
  except (OSError, ValueError, AttributeError):
    return None
