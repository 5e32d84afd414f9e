"""What went wrong is told where it went wrong, and nowhere else."""

import choices
import pytest

from jaxgen.report.diagnosis import diagnose

KEYS = {k: f"{k}@f" for k in ("frechet", "precision", "recall", "coverage")}
REAL = {"frechet": 1.0, "precision": 0.9, "recall": 0.9, "coverage": 0.9}
GOOD = {"frechet": 3.0, "precision": 0.8, "recall": 0.8, "coverage": 0.8}


def named(scores):
  return {KEYS[k]: v for k, v in scores.items()}


def report():
  return {"features": "f", "real": {"metrics": named(REAL)}, "counts": {"samples": 1000}}


def row(*rounds, family="GAN", **more):
  """A row whose metrics are GOOD but for what each of its rounds says."""
  shares = (0.25, 0.5, 1.0)[-len(rounds) :]
  seen = [
    {"share": s, "images": int(1.2e6 * s), "metrics": named(GOOD | scores)}
    for s, scores in zip(shares, rounds, strict=True)
  ]
  metrics = seen[-1]["metrics"] if seen else named(GOOD)
  return {"name": "x", "family": family, "metrics": metrics, "rounds": seen} | more


def kinds(row):
  return [f.kind for f in diagnose(row, report())]


def test_nothing_is_wrong_with_what_is_well():
  assert kinds(row({}, {}, {})) == []
  assert kinds({}) == []


def test_a_collapse_is_told_with_its_curve():
  (finding,) = diagnose(row({"recall": 0.5}, {"recall": 0.6}, {"recall": 0.1}), report())
  assert finding.kind == "Collapsed" and finding.is_wrong
  assert "Recall fell from 0.600 to 0.100 at image 1.2M" in finding.text
  assert finding.curve == {"Recall": [(300_000, 0.5), (600_000, 0.6), (1_200_000, 0.1)]}


def test_what_fell_earlier_is_told_there_and_what_came_back_is_no_collapse():
  (finding, *_) = diagnose(row({"coverage": 0.7}, {"coverage": 0.2}, {"coverage": 0.1}), report())
  assert "Coverage fell from 0.700 to 0.200 at image 600k" in finding.text
  assert "Collapsed" not in kinds(row({"recall": 0.6}, {"recall": 0.1}, {"recall": 0.6}))
  assert "Collapsed" not in kinds(row({"recall": 0.08}, {"recall": 0.03}))  # noise


def test_quality_that_was_better_once():
  findings = diagnose(row({"frechet": 9.0}, {"frechet": 4.0}, {"frechet": 6.0}), report())
  (finding,) = findings
  assert finding.kind == "Worse since"
  assert "Fréchet was 4.00 at image 600k and is 6.00 now" in finding.text
  level = row({"frechet": 4.0}, {"frechet": 6.0})
  for entry in level["rounds"]:
    entry["intervals"] = {KEYS["frechet"]: [1.0, 9.0]}
  assert kinds(level) == []


def test_what_still_improves_is_no_fault():
  (finding,) = diagnose(row({"frechet": 9.0}, {"frechet": 4.0}), report())
  assert finding.kind == "Still improving" and not finding.is_wrong
  assert kinds(row({"frechet": 4.0}, {"frechet": 3.95})) == []


def test_precision_of_a_vae_is_called_blur():
  assert kinds(row({}, {}, family="VAE")) == []
  low = {"precision": 0.3}
  assert kinds(row(low, low, family="VAE")) == ["Blurry"]
  assert kinds(row(low, low, family="Diffusion")) == ["Unlike real data"]
  assert kinds(row({"coverage": 0.3}, {"coverage": 0.3})) == ["Narrow"]


@pytest.mark.parametrize(
  "share, floor, wrong",
  [
    (0.08, 0.03, True),  # 9 standard errors
    (0.04, 0.03, False),  # 1.9
    (0.009, 0.0, False),  # of no consequence
    (0.02, 0.0, True),
    (None, 0.0, False),
  ],
)
def test_copies_are_told_where_they_are_no_chance(share, floor, wrong):
  findings = kinds(row({}, copies={"share": share, "floor": floor}))
  assert findings == ["Copies training images"] * wrong


def test_who_stopped_and_what_health_said():
  curves = {"loss": {"a/loss": [[1, 2.0]]}, "health": {"disc/accuracy": [[1, 0.5], [2, 1.0]]}}
  text = "Step 9: The discriminator is right 99.9% of the time: the generator learns nothing."
  bad = row({}, stopped="diverged at step 400: not finite", warnings=[text, "else"], curves=curves)
  stopped, saturated, other = diagnose(bad, report())
  assert stopped.kind == "Stopped" and stopped.text == "Diverged at step 400: not finite."
  assert stopped.curve == curves["loss"]
  assert saturated.kind == "Saturated discriminator" and saturated.text == text
  assert saturated.curve == curves["health"] and not saturated.is_metric
  assert other.kind == "Warning" and other.curve == {}


def test_the_three_families_of_the_sample():
  results = choices.results()
  found = {r["family"]: [f.kind for f in diagnose(r, results)] for r in results["rows"]}
  assert found == {
    "Diffusion": ["Still improving"],
    "GAN": ["Collapsed", "Copies training images", "Saturated discriminator"],
    "VAE": ["Blurry"],
  }
