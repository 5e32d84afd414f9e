"""The comparison, from configs to the page, on points and a few steps."""

import json

import numpy as np
import pytest
from verbs import call

from jaxgen import config
from jaxgen.compare import compare
from jaxgen.evaluation.judge import open_judge
from jaxgen.sampling.sampler import load

NAMES = ("points_diffusion", "points_gan", "points_vae")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  home = tmp_path_factory.mktemp("compare")
  patch = pytest.MonkeyPatch()
  patch.setattr(compare, "STEPS", (2, 4))
  compare.compare([f"configs/{n}.py:debug" for n in NAMES], (), str(home))
  yield home
  patch.undo()


@pytest.fixture(scope="module")
def results(home):
  return json.loads((home / "report.json").read_text())


def test_the_report_has_a_row_for_every_model(home, results):
  assert [row["name"] for row in results["rows"]] == list(NAMES)
  assert [row["family"] for row in results["rows"]] == ["Diffusion", "GAN", "VAE"]
  page = (home / "report.html").read_text()
  for row in results["rows"]:
    assert row["step"] == 20 and row["train_images"] == 20 * 16
    assert row["train_seconds"] > 0 and row["peak_memory"] > 0
    assert row["samples_per_second"] > 0
    assert row["params"] > 1000
    for command in row["commands"]:
      assert command in page
  assert "http" not in page.replace("http://www.w3.org", "")


def test_diffusion_is_swept_over_steps(results):
  sweep = results["rows"][0]["sampling"]
  assert [p["knobs"] for p in sweep] == [{"steps": 2}, {"steps": 4}]
  assert [p["nfe"] for p in sweep] == [3, 7]  # Heun: 2 n - 1
  assert len(results["rows"][1]["sampling"]) == 1


def test_losses_and_health_are_told(results):
  gan = results["rows"][1]["curves"]
  assert set(gan["loss"]) == {"disc/loss", "gen/loss"}
  assert "gen/diversity" in gan["health"]
  assert [step for step, _ in gan["loss"]["disc/loss"]] == [5, 10, 15, 20]


def test_the_floor_knows_all_modes(results):
  assert results["real"]["metrics"]["modes"] == 25


def test_what_is_trained_is_not_trained_again(home, capsys):
  before = (home / "points_vae" / "metrics.jsonl").read_bytes()
  entries = list(compare.trained(["configs/points_vae.py:debug"], (), home))
  assert entries[0].workdir == home / "points_vae"
  assert (home / "points_vae" / "metrics.jsonl").read_bytes() == before


def test_workdirs_can_be_compared_too(home):
  (entry,) = compare.trained((), [str(home / "points_gan")], home)
  assert entry.config.model.name == "models.gan.GAN"


def test_unlike_data_are_not_compared(home, tmp_path, capsys, monkeypatch):
  other = config.load("configs/points_vae.py:debug")
  other.data.source = "points:ring8"
  from jaxgen.train import train

  train(other, str(tmp_path / "other"), quiet=True)
  status, _, err = call(
    capsys,
    monkeypatch,
    "compare",
    "--out",
    tmp_path / "out",
    "--workdirs",
    f"{home / 'points_gan'},{tmp_path / 'other'}",
  )
  assert status == 2 and "only like can be compared" in err[-1]
  assert not (tmp_path / "out" / "report.html").exists()


def test_mistakes_end_in_a_line(capsys, monkeypatch, tmp_path):
  status, _, err = call(capsys, monkeypatch, "compare", "--out", tmp_path)
  assert status == 2 and len(err) == 1 and "--configs" in err[0]


def test_unlike_configs_are_refused_before_any_is_trained(capsys, monkeypatch, tmp_path):
  status, _, err = call(
    capsys,
    monkeypatch,
    "compare",
    "--out",
    tmp_path / "out",
    "--configs",
    "points_vae:debug,digits_vae:debug",
  )
  assert status == 2 and len(err) == 1 and "only like" in err[0]
  status, _, err = call(
    capsys,
    monkeypatch,
    "compare",
    "--out",
    tmp_path / "out",
    "--configs",
    "points_vae:debug,points_vae:debug",
  )
  assert status == 2 and len(err) == 1 and "two models" in err[0]
  assert not (tmp_path / "out").exists()


def test_seeds_are_trainings_of_their_own(tmp_path):
  home = tmp_path / "seeds"
  compare.compare(["configs/points_gan.py:debug"], (), str(home), 3)
  results = json.loads((home / "report.json").read_text())
  row = results["rows"][0]
  judge = open_judge(config.load("configs/points_gan.py").data)
  every = []
  for name in ("points_gan", "points_gan-seed1", "points_gan-seed2"):
    x = load(home / name).sample(0, judge.count)
    every.append(judge.scores(x, None)["frechet@xy"][0])
  assert len(set(every)) == 3
  assert row["metrics"]["frechet@xy"] == pytest.approx(np.mean(every))
  assert row["spread"]["frechet@xy"] == pytest.approx(np.std(every, ddof=1))
  assert "3 trainings with different seeds" in (home / "report.html").read_text()
