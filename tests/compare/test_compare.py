"""The comparison, from configs to the page, on points and a few steps."""

import json

import numpy as np
import pytest
from verbs import call

from jaxgen import config
from jaxgen.compare import comparison, measure
from jaxgen.compare.costs import charge, codec_cost
from jaxgen.evaluation.judge import open_judge
from jaxgen.sampling.sampler import load
from jaxgen.train import train

NAMES = ("points_diffusion", "points_gan", "points_vae")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  home = tmp_path_factory.mktemp("compare")
  patch = pytest.MonkeyPatch()
  patch.setattr(measure, "STEPS", (2, 4))
  comparison.compare([f"configs/{n}.py:debug" for n in NAMES], (), str(home))
  yield home
  patch.undo()


def test_the_report_has_a_row_for_every_model(home):
  results = json.loads((home / "report.json").read_text())
  assert [row["name"] for row in results["rows"]] == list(NAMES)
  assert [row["family"] for row in results["rows"]] == ["Diffusion", "GAN", "VAE"]
  page = (home / "report.html").read_text()
  for row in results["rows"]:
    assert row["step"] == 20 and row["train_images"] == 20 * 16
    assert row["train_seconds"] > 0 and row["peak_memory"] > 0
    assert row["samples_per_second"] > 0 and row["params"] > 1000
    assert all(command in page for command in row["commands"])
  assert "http" not in page
  assert results["real"]["metrics"]["modes"] == 25  # the floor knows all of them
  diffusion, gan, _ = results["rows"]
  # Diffusion is swept over steps.
  assert [p["knobs"] for p in diffusion["sampling"]] == [{"steps": 2}, {"steps": 4}]
  assert [p["nfe"] for p in diffusion["sampling"]] == [3, 7]  # Heun: 2 n - 1
  assert len(gan["sampling"]) == 1
  # Losses and health are shown.
  assert set(gan["curves"]["loss"]) == {"disc/loss", "gen/loss"}
  assert "gen/diversity" in gan["curves"]["health"]
  assert [step for step, _ in gan["curves"]["loss"]["disc/loss"]] == [5, 10, 15, 20]


def test_what_is_trained_is_not_trained_again(home):
  log = home / "points_vae" / "metrics.jsonl"
  before = log.read_bytes()
  (entry,) = comparison.train_entries(["configs/points_vae.py:debug"], (), home)
  assert entry.workdir == home / "points_vae" and log.read_bytes() == before
  (entry,) = comparison.train_entries((), [str(home / "points_gan")], home)
  assert entry.config.model.name == "models.gan.GAN"


def test_mistakes_end_in_a_line_before_anything_is_trained(home, tmp_path, capsys, monkeypatch):
  other = config.load("configs/points_vae.py:debug")
  other.data.source = "points:ring8"
  train(other, str(tmp_path / "other"), quiet=True)
  out = tmp_path / "out"
  for flags, words in (
    ([], "--configs"),
    ([f"--workdirs={home / 'points_gan'},{tmp_path / 'other'}"], "only like can be compared"),
    (["--configs=points_vae:debug,digits_vae:debug"], "only like"),
    (["--configs=points_vae:debug,points_vae:debug"], "two models"),
    (["--configs=digits_vae:debug,digits_latent:debug"], "train its codec"),
    (["--configs=points_vae:debug", "--num=9"], "--num=9: want at least 50"),
  ):
    status, _, err = call(capsys, monkeypatch, "compare", f"--out={out}", *flags)
    assert status == 2 and len(err) == 1 and words in err[0]
  assert not out.exists()


def test_a_model_of_latents_pays_for_its_codec(home):
  results = json.loads((home / "report.json").read_text())
  *_, vae = results["rows"]
  # Every weight is in one product per example: 2 operations forward, 4 backward.
  assert 4 < vae["flops"] / (vae["params"] * vae["train_images"]) < 8
  assert vae["codec"] == {} and "of which codec" not in (home / "report.html").read_text()
  settings = config.load("configs/digits_latent.py:vae")
  settings.model.codec_workdir = str(home / "points_vae")
  cost = codec_cost(settings)
  keys = ("step", "train_seconds", "train_images", "flops")
  assert cost == {"workdir": str(home / "points_vae")} | {k: vae[k] for k in keys}
  own = {"name": "m", "step": 7, "train_seconds": 2.0, "train_images": 100, "flops": 1e6}
  assert charge(own, cost) == own | {
    "train_seconds": 2.0 + vae["train_seconds"],
    "train_images": 100 + 320,
    "flops": 1e6 + vae["flops"],
    "codec": cost,
  }
  settings.model.codec_workdir = str(home / "gone")
  unknown = codec_cost(settings)
  assert charge(own, unknown) == own | {"codec": {"workdir": str(home / "gone")}}


def test_seeds_are_trainings_of_their_own(tmp_path):
  home = tmp_path / "seeds"
  comparison.compare(["configs/points_gan.py:debug"], (), str(home), 3)
  (row,) = json.loads((home / "report.json").read_text())["rows"]
  judge = open_judge(config.load("configs/points_gan.py").data)
  every = []
  for name in ("points_gan", "points_gan-seed1", "points_gan-seed2"):
    x = load(home / name).sample(0, judge.count)
    every.append(judge.scores(x, None)["frechet@xy"][0])
  assert len(set(every)) == 3
  assert row["metrics"]["frechet@xy"] == pytest.approx(np.mean(every))
  assert row["spread"]["frechet@xy"] == pytest.approx(np.std(every, ddof=1))
  assert "3 trainings with different seeds" in (home / "report.html").read_text()
