"""Who wins, what is too close to call, and what would change that."""

import choices
import numpy as np
import pytest

from jaxgen.report import outlook, verdict
from jaxgen.report.ranking import leads

FID, COVERAGE = "frechet@f", "coverage@f"


def row(family, fid, interval=None, **more):
  intervals = {} if interval is None else {FID: interval}
  return {"name": family, "family": family, "metrics": {FID: fid}, "intervals": intervals} | more


def report(*rows, **more):
  return {"dataset": "d", "features": "f", "rows": list(rows)} | more


def rounds(*values, half=0.0):
  """Rounds at 1/4, 1/2, 1, or as many of the last, with intervals of mean ± half."""
  shares = (0.0625, 0.125, 0.25, 0.5, 1.0)[-len(values) :]
  return [
    {"share": s, "metrics": {FID: v}, "intervals": {FID: [v - half, v + half]} if half else {}}
    for s, v in zip(shares, values, strict=True)
  ]


def trained(family, *values, half=0.0, **more):
  seen = rounds(*values, half=half)
  return row(family, values[-1], seen[-1]["intervals"].get(FID), rounds=seen, **more)


def test_disjoint_intervals_have_one_winner():
  answer = verdict.answer(report(row("A", 5.0, [4.0, 6.0]), row("B", 7.0, [6.1, 7.9])))
  assert answer == {
    "quality": {
      "winners": ["A"],
      "close": False,
      "metric": FID,
      "values": {"A": [5.0, 4.0, 6.0], "B": [7.0, 6.1, 7.9]},
    }
  }


def test_all_whose_interval_overlaps_the_best_one_may_be_best():
  """Not those that overlap each other only."""
  rows = row("C", 9.0, [7.5, 10.5]), row("B", 7.0, [5.9, 8.0]), row("A", 5.0, [4.0, 6.0])
  (quality,) = verdict.answer(report(*rows)).values()
  assert quality["winners"] == ["A", "B"] and quality["close"]
  assert list(quality["values"]) == ["A", "B", "C"]
  assert verdict.sentence(report(*rows)) == "On d, too close to call for quality (A or B)."


def test_the_answer_is_that_of_brute_force():
  rng = np.random.default_rng(0)
  for _ in range(200):
    means, halves = rng.uniform(1, 10, 5), rng.uniform(0.1, 3, 5)
    rows = [row(n, m, [m - h, m + h]) for n, m, h in zip("ABCDE", means, halves, strict=True)]
    best = int(means.argmin())
    level = [n for n, r in zip("ABCDE", rows, strict=True) if overlap(r, rows[best])]
    assert sorted(verdict.answer(report(*rows))["quality"]["winners"]) == level


def overlap(a, b):
  (low0, high0), (low1, high1) = a["intervals"][FID], b["intervals"][FID]
  return max(low0, low1) <= min(high0, high1)


@pytest.mark.parametrize("interval", [None, [None, None], [float("nan")] * 2, [2.0, 1.0]])
def test_without_intervals_margins_decide(interval):
  near = row("A", 5.0, interval), row("B", 5.09, [5.08, 5.1])
  far = row("A", 5.0, interval), row("B", 5.2, [5.19, 5.21])
  assert verdict.answer(report(*near))["quality"]["winners"] == ["A", "B"]
  assert verdict.answer(report(*far))["quality"]["winners"] == ["A"]
  assert verdict.answer(report(*far))["quality"]["values"]["A"] == [5.0, None, None]


def test_speed_has_an_interval_if_it_was_measured_often():
  rows = [row(n, 5.0, samples_per_second=v) for n, v in (("A", 100.0), ("B", 80.0))]
  assert verdict.answer(report(*rows))["speed"]["winners"] == ["A"]
  for r, interval in zip(rows, ([70.0, 130.0], [72.0, 88.0]), strict=True):
    r["intervals"] = {"samples_per_second": interval}
  assert verdict.answer(report(*rows))["speed"]["winners"] == ["A", "B"]


def test_a_short_training_is_the_round_nearest_to_a_quarter():
  slow, fast = trained("slow", 60, 40, 20, 8, 4), trained("fast", 20, 15, 12, 11, 10)
  answer = verdict.answer(report(slow, fast))
  assert answer["quality"]["winners"] == ["slow"]
  short = answer["short_training"]
  assert short["winners"] == ["fast"] and short["share"] == 0.25
  assert short["values"] == {"fast": [12, None, None], "slow": [20, None, None]}
  # Of an answer so far it is an earlier round; of the first there is none.
  for r in (slow, fast):
    r["rounds"] = r["rounds"][:3]
  assert verdict.answer(report(slow, fast))["short_training"]["share"] == 0.125
  for r in (slow, fast):
    r["rounds"] = r["rounds"][:1]
  assert "short_training" not in verdict.answer(report(slow, fast))


def test_the_sentence_tells_what_is_sure_from_what_is_not():
  results = choices.results()
  assert verdict.sentence(results) == (
    "On photos, choose Diffusion for quality, VAE for speed, and GAN for a short training; "
    "too close to call for diversity (Diffusion or VAE)."
  )
  evidence = {p.axis: p.evidence for p in verdict.picks(results)}
  assert " at 25% of the budget; real data 1.64" in evidence["A short training"]
  assert [r.winners for r in leads(results)] == [("GAN",)] * 3 + [("Diffusion",)] * 2


def test_trust_tells_the_share_of_the_budget_and_the_trainings():
  text = verdict.trust(choices.results(rounds=3))
  assert "25% of the budget of 30m so far" in text and "One training of each" in text
  text = verdict.trust(choices.results() | {"counts": {"seeds": 3}})
  assert "all of the budget of 30m" in text and "3 trainings of each" in text


def test_scores_at_the_real_data_are_the_end_of_what_a_judge_sees():
  rows = row("A", 5.0), row("B", 7.0)
  real = lambda fid: {"real": {"metrics": {FID: fid}}}
  assert "A scored no worse than real test data do" in verdict.trust(report(*rows, **real(5.5)))
  assert "A and B scored no worse" in verdict.trust(report(*rows, **real(8.0)))
  assert "no worse" not in verdict.trust(report(*rows, **real(4.0)))
  assert "no worse" not in verdict.trust(report(*rows))


def test_samples_near_known_modes_say_more_than_moments():
  good = {"family": "A", "metrics": {FID: 0.02, "high_quality": 0.9}}
  bad = {"family": "B", "metrics": {FID: 0.01, "high_quality": 0.05}}
  quality = verdict.answer(report(good, bad))["quality"]
  assert (quality["metric"], quality["winners"]) == ("high_quality", ["A"])


def test_when_curves_will_cross():
  """A distance that falls as a power of time falls so again: 16 -> 8 -> 4 in two doublings."""
  rows = trained("still", 7.0, 7.0), trained("falls", 16.0, 8.0)
  seen = outlook.trends(verdict.complete(report(*rows)))
  doublings = np.log2(8.0 / 7.0)
  assert outlook.crossing(seen["still"], seen["falls"]) == pytest.approx(2**doublings)
  text = outlook.more_time(report(*rows))
  assert "falls would overtake still at 1.14 times the training so far." in text
  assert "In the last round falls (Fréchet 16.0 to 8.00) improved, still did not." in text
  far = trained("still", 1.0, 1.0), trained("falls", 16.0, 8.0)  # after 3 doublings
  assert "nobody overtakes still within 4 times" in outlook.more_time(report(*far))
  noise = trained("still", 7.0, 7.0, half=1), trained("falls", 8.1, 7.9, half=1)
  assert "Nobody improved by more than noise" in outlook.more_time(report(*noise))


def test_curves_of_what_grows_go_on_by_as_much():
  seen = [
    {"share": s, "metrics": {"high_quality": v}} for s, v in ((0.25, 0.2), (0.5, 0.3), (1.0, 0.4))
  ]
  best = [{"share": s, "metrics": {"high_quality": 0.5}} for s in (0.25, 0.5, 1.0)]
  rows = [
    {"family": "up", "metrics": {"high_quality": 0.4}, "rounds": seen},
    {"family": "flat", "metrics": {"high_quality": 0.5}, "rounds": best},
  ]
  both = outlook.trends(verdict.complete(report(*rows)))
  assert both["up"].pace == pytest.approx(0.1)
  assert outlook.crossing(both["flat"], both["up"]) == pytest.approx(2)


def test_who_led_before():
  changed = outlook.more_time(report(trained("a", 9, 7, 3), trained("b", 5, 5, 5)))
  assert "b led in quality at 50% of the budget; a leads from 100% on." in changed
  always = outlook.more_time(report(trained("a", 3, 2, 1), trained("b", 5, 5, 5)))
  assert "a was best in quality in every round." in always


def test_one_round_tells_nothing_of_more_time():
  assert outlook.more_time(report(trained("a", 3), trained("b", 5))) == ""
  assert verdict.changes(report(row("a", 3.0), row("b", 5.0))) == []
  assert verdict.changes({}) == []


@pytest.mark.parametrize(
  "half, words", [(9.0, "short of data"), (5.1, "no difference"), (3.0, "better with half")]
)
def test_what_half_of_the_data_tell_of_more(half, words):
  (before, after) = rounds(5.0, 2.0)  # it is compared with its like, not with the end
  part = {"share": 0.5, "metrics": {FID: half}}
  results = report(row("a", 2.0, rounds=[before, after], half=part), row("b", 6.0))
  text = outlook.more_data(results)
  assert text.startswith("More data: ") and words in text and "5.00 with all" in text


def test_seeds_are_proposed_where_it_is_close():
  close = report(row("A", 5.0, [4, 6]), row("B", 5.5, [5, 6]), budget={"text": "9m", "share": 1.0})
  (text,) = verdict.changes(close)
  assert text.startswith("More trainings: --seeds 3") and "(quality)" in text
  assert verdict.changes(close | {"counts": {"seeds": 3}}) == []


def test_who_is_no_better_than_a_gaussian_of_pixels_is_named():
  rows = row("A", 5.0, [4, 6]), row("B", 7.0, [6.5, 7.5]), row("C", 9.0, [8, 10])
  for base, names in ((20.0, []), (7.2, ["B", "C"]), (5.5, ["A", "B", "C"])):
    results = report(*rows, baseline={"metrics": {FID: base}, "intervals": {}})
    results["baseline"]["intervals"] = {FID: [base - 0.1, base + 0.1]}
    assert verdict.unbeaten(results) == names
    nobody = "but nobody beats a Gaussian of pixels yet" in verdict.sentence(results)
    assert nobody == (len(names) == 3)
    said = f"{' and '.join(names)} are not better than" if len(names) == 2 else "Nobody is better"
    assert (said in verdict.trust(results | {"budget": {"share": 1.0}})) == bool(names)
  assert verdict.unbeaten(report(*rows)) == []
