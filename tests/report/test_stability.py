"""How soon a verdict stands, and how often another training turns it."""

import json

import pytest

from jaxgen.errors import UserError
from jaxgen.report import stability, verdict

FID = "frechet@f"


def scores(*values):
  """Of one training each, with intervals of 0.1 about them; together their mean."""
  seeds = [{"metrics": {FID: v}, "intervals": {FID: [v - 0.1, v + 0.1]}} for v in values]
  mean = sum(values) / len(values)
  together = {"metrics": {FID: mean}, "intervals": {FID: [mean - 0.1, mean + 0.1]}}
  return together | {"seeds": seeds}


def row(name, *rounds):
  history = [scores(*r) | {"share": s} for s, r in zip((0.25, 0.5, 1.0), rounds, strict=True)]
  return {"name": name, "family": name} | history[-1] | {"rounds": history}


# a leads early in both trainings; at the end in the first alone.
RESULTS = {
  "dataset": "d",
  "features": "f",
  "counts": {"seeds": 2},
  "rows": [row("a", (3, 3), (2, 3), (1, 3)), row("b", (5, 5), (4, 2), (3, 2))],
}


def test_every_training_is_a_report_of_its_own():
  alone = [verdict.answer(stability.of_seed(RESULTS, i))["quality"] for i in (0, 1)]
  assert [a["winners"] for a in alone] == [["a"], ["b"]]
  assert alone[1]["values"] == {"b": [2, 1.9, 2.1], "a": [3, 2.9, 3.1]}
  assert stability.agreement(RESULTS, "quality") == (1, 2)  # together a has 2.0, b 2.5
  assert "By themselves, 1 of 2 in quality lead" in verdict.trust(RESULTS)


def test_what_was_known_early():
  early = verdict.answer(stability.as_of(RESULTS, 0.25))["quality"]
  assert early["winners"] == ["a"] and early["values"]["a"][0] == 3
  assert stability.as_of(RESULTS, 0.1)["rows"] == []


def test_the_table_counts_trainings():
  assert stability.table([RESULTS]).splitlines() == [
    "| data | axis | 25% | 50% | another seed |",
    "| --- | --- | --- | --- | --- |",
    "| d | quality | 1 of 2 (1) | 2 of 2 (2) | 0 of 2 (0) |",
    "| d | diversity | 0 of 2 (0) | 0 of 2 (0) | 0 of 2 (0) |",
  ]


@pytest.mark.parametrize(
  "text, says", [(None, "No such file"), ("{", "no JSON"), ("{}", "not written by jaxgen choose")]
)
def test_what_is_no_choice_is_refused(tmp_path, text, says):
  path = tmp_path / "choice.json"
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError, match=says):
    stability.read(str(path))
  path.write_text(json.dumps(RESULTS | {"budget": {}}))
  assert stability.read(str(path))["rows"] == RESULTS["rows"]
