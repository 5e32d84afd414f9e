"""Sweeps: every setting once, on top of what is there, or one line."""

import json

import numpy as np
import pytest
from verbs import call, tree

import jaxgen
from jaxgen import config, train
from jaxgen.compare import sweep
from jaxgen.data.sources import open_source
from jaxgen.monitor import pictures
from jaxgen.sampling import latents


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  """A diffusion model and GANs, hardly trained."""
  home = tmp_path_factory.mktemp("sweep")
  for name in ("points_diffusion", "points_gan", "digits_gan"):
    c = config.load(f"configs/{name}.py:debug")
    c.log.pictures = 0
    train.train(c, str(home / name), quiet=True)
  return home


@pytest.fixture
def run(workdirs, tmp_path, capsys, monkeypatch):
  def verb(*argv, model="points_diffusion"):
    common = (f"--workdir={workdirs / model}", f"--out={tmp_path / 'out'}", "--num=64")
    return call(capsys, monkeypatch, "sweep", *common, *argv)

  return verb


def test_every_setting_has_its_row(run, tmp_path):
  flags = "--samplers=euler,heun", "--nfe=8,5"
  status, out, lines = run(*flags)
  assert status == 0 and len([x for x in lines if "[sweep]" in x]) == 4
  rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
  assert [r["told"]["knobs"]["steps"] for r in rows] == [8, 5, 4, 3]
  assert [r["nfe"] for r in rows] == [8, 5, 7, 5]  # heun: 2 n - 1
  assert all(r["scores"] for r in rows)
  assert "| evaluations | 5 | 7 | 8 |" in out
  assert (tmp_path / "out" / "sweep.md").read_text() in out + "\n"
  pictures.read_info(tmp_path / "out" / "sweep.png")
  # The same again finds all of it there; more is added to it.
  before = tree(tmp_path / "out")
  status, _, lines = run(*flags)
  assert status == 0 and not [x for x in lines if "[sweep]" in x]
  assert tree(tmp_path / "out") == before
  status, _, lines = run("--samplers=euler", "--nfe=8,2")
  assert len([x for x in lines if "[sweep]" in x]) == 1
  after = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
  assert after[:4] == rows and len(after) == 5


class Brightness:
  """A judge of one number that needs no training."""

  features, count, card = "pixels", 64, {"features": "pixels"}

  def scores(self, x, y, cas=True):
    return {"mean": [float(np.mean(x, dtype=np.float64))]}

  def floor(self):
    return {"mean": [0.0]}


def test_every_truncation_has_statistics_of_its_own(run, workdirs, tmp_path, monkeypatch):
  """The very samples of a sampler that was settled for it."""
  monkeypatch.setattr(sweep, "open_judge", lambda *_: Brightness())
  status, _, lines = run("--over=truncation=0.5,2", "--standing=2", model="digits_gan")
  assert status == 0, lines
  rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
  model = jaxgen.load(workdirs / "digits_gan")
  for row, bound in zip(rows, (0.5, 2), strict=True):
    assert row["told"]["card"]["standing"]["truncation"] == bound
    x = latents.settle(model, bound, 2).sample(0, 64, truncation=bound)
    assert row["scores"]["mean"] == np.mean(x, dtype=np.float64)
  status, _, (line,) = run("--over=temperature=1", "--standing=2", model="points_gan")
  assert status == 2 and "has no statistics to settle" in line


def test_a_knob_is_the_axis_where_all_cost_alike(run, tmp_path):
  flags = ("--over=temperature=0.5,1,2", "--metrics=modes,frechet")
  status, out, _ = run(*flags, model="points_gan")
  assert status == 0
  rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
  assert [sweep.label(r) for r in rows] == [f"GAN temperature={t}" for t in ("0.5", "1", "2")]
  lines = out.splitlines()
  assert lines[0].startswith("modes, frechet@xy (real test data: modes 25")
  assert "| temperature | 0.5 | 1 | 2 |" in lines
  assert [line.split(" | ")[0] for line in lines[4:6]] == ["| GAN modes", "| GAN frechet@xy"]


@pytest.mark.slow
def test_upsamplers_are_swept_on_small_test_images(tmp_path, capsys, monkeypatch):
  c = config.load("configs/cdm.py:debug")
  c.steps, c.log.pictures = 2, 0
  train.train(c, str(tmp_path / "up"), quiet=True)
  flags = ("--nfe=2", "--respacing=warped", "--over=bend=1,3", "--over=level=0,0.3", "--num=16")
  paths = (f"--workdir={tmp_path / 'up'}", f"--out={tmp_path / 'out'}")
  status, out, _ = call(capsys, monkeypatch, "sweep", *paths, *flags)
  assert status == 0 and out.startswith("psnr (bicubic: psnr ")
  rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
  assert len({r["scores"]["psnr"] for r in rows}) == len(rows) == 4
  low, y = open_source("digits", "test", 4), open_source("digits", "test")
  x, y = y.arrays()
  i = np.arange(16) * len(x) // 16
  got = jaxgen.load(tmp_path / "up", respacing="warped").sample(
    0, 16, y[i], low_res=low.arrays()[0][i], steps=2, bend=3, level=0.3
  )
  mse = np.mean((got / 255.0 - x[i] / 255.0) ** 2, (1, 2, 3))
  assert rows[-1]["told"]["knobs"] == {"bend": 3, "level": 0.3, "steps": 2}
  # (The judge's small images are means rounded once, these twice.)
  assert abs(rows[-1]["scores"]["psnr"] - np.mean(-10 * np.log10(mse))) < 0.1


@pytest.mark.parametrize(
  "flags, model, says",
  [
    (["--metrics=modez", "--nfe=4"], "points_diffusion", "no such metric"),
    (["--nfe=ten"], "points_diffusion", "--nfe=ten: want numbers"),
    (["--nfe=0"], "points_diffusion", "takes more for a single step"),
    (["--nfe=5"], "points_gan", "does not sample in steps"),
    (["--over=eta"], "points_diffusion", "--over=eta: want knob="),
    (["--over=etta=1"], "points_diffusion", "no knob 'etta'"),
    (["--samplers=hoin"], "points_diffusion", "no sampler 'hoin'"),
  ],
)
def test_slips_are_one_line(run, tmp_path, flags, model, says):
  status, out, lines = run(*flags, model=model)
  assert status == 2 and lines[-1].startswith("jaxgen: ") and says in lines[-1]
  assert not (tmp_path / "out").exists()


def test_a_strange_file_is_not_overwritten(run, tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "sweep.json").write_text("[]")
  status, _, lines = run("--nfe=4")
  assert status == 2 and "no result of a sweep" in lines[-1]
  assert (tmp_path / "out" / "sweep.json").read_text() == "[]"
