"""The trilemma: twins are one model, every point once, one program for all steps."""

import json
import shutil

import numpy as np
import pytest
from verbs import call, tree

from jaxgen import config, train
from jaxgen.compare import costs, curve_settings, trilemma, twins
from jaxgen.compare.measure import Entry
from jaxgen.errors import UserError
from jaxgen.monitor import pictures
from jaxgen.report.fields import RATE
from jaxgen.sampling import presets
from jaxgen.sampling.sampler import load


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  """A diffusion model, and a GAN with two seeds, hardly trained."""
  home = tmp_path_factory.mktemp("trilemma")
  for name, seed in (("points_diffusion", 0), ("points_gan-0", 0), ("points_gan-1", 1)):
    c = config.load(f"configs/{name.partition('-')[0]}.py:debug")
    c.log.pictures, c.seed = 0, seed
    train.train(c, str(home / name), quiet=True)
  return home


@pytest.fixture
def run(workdirs, tmp_path, capsys, monkeypatch):
  def verb(*argv, models=("points_diffusion", "points_gan-0", "points_gan-1"), out="out"):
    paths = ",".join(str(workdirs / m) for m in models)
    common = (f"--workdirs={paths}", f"--out={tmp_path / out}", "--num=64")
    return call(capsys, monkeypatch, "trilemma", *common, *argv)

  return verb


def stored(home):
  return json.loads((home / "trilemma.json").read_text())


def told(lines):
  """Points that were measured, by what stderr says of them."""
  return [x.partition("] ")[2].partition(":")[0] for x in lines if "samples/s" in x]


FLAGS = ("--samplers=ddim,heun", "--nfe=1,4", "--truncation=0.5,1")


def test_every_point_once_and_twins_together(run, workdirs, tmp_path):
  home = tmp_path / "out"
  status, out, lines = run(*FLAGS)
  assert status == 0, lines
  assert told(lines) == [
    "points_diffusion ddim 1",
    "points_diffusion ddim 4",
    "points_diffusion heun 1",
    "points_diffusion heun 3",  # two steps: 2 n - 1
    *["points_gan truncation 0.5", "points_gan truncation 1"] * 2,
  ]
  results = stored(home)
  assert out.splitlines() == results["verdict"]
  assert [m["name"] for m in results["models"]] == ["points_diffusion", "points_gan"]
  assert [len(m["workdirs"]) for m in results["models"]] == [1, 2]
  assert results["models"][0]["flops"]["mean"] > 0 < results["models"][1]["train_seconds"]["low"]
  points, rows = results["points"], results["rows"]
  assert [(p["sampler"], p["nfe"], p["trainings"]) for p in points] == [
    ("ddim", 1, 1), ("ddim", 4, 1), ("heun", 1, 1), ("heun", 3, 1), ("", 1, 2), ("", 1, 2)
  ]  # fmt: skip
  # Means and ranges are those of the rows of both trainings.
  pair = [r for r in rows if r["told"]["knobs"] == {"truncation": 0.5}]
  for key, score in points[4]["scores"].items():
    values = [r["scores"].get(key) for r in pair]
    if None not in values:
      assert score == {"mean": np.mean(values), "low": min(values), "high": max(values)}
  rates = [r["batch"]["size"] / r["batch"]["median"] for r in pair]
  assert points[4]["scores"][RATE]["mean"] == pytest.approx(np.mean(rates))
  # What was judged are the very samples that a loaded model draws.
  model = load(workdirs / "points_gan-1")
  judge = trilemma.open_judge({"source": "points:grid25"})
  scores = judge.scores(model.sample(0, 64, truncation=0.5), None)
  assert pair[1]["scores"]["frechet@xy"] == pytest.approx(np.mean(scores["frechet@xy"]))
  assert any(p["front"] for p in points)
  pictures.read_info(home / "trilemma.png")
  page = (home / "trilemma.html").read_text()
  assert "points_gan" in page and page.count("<svg") == 4 and "jaxgen trilemma --workdirs" in page
  # The same again finds all of it there; another point is added to it.
  before = tree(home)
  status, _, lines = run(*FLAGS)
  assert status == 0 and not told(lines) and tree(home) == before
  status, _, lines = run("--samplers=ddim", "--nfe=1,2", "--truncation=1")
  assert told(lines) == ["points_diffusion ddim 2"]
  # It is drawn as it was asked for; nothing that was measured is lost.
  assert len(stored(home)["points"]) == 3 and len(stored(home)["rows"]) == 9


def test_what_was_killed_goes_on(run, tmp_path):
  """Of a file that stops half-way only what is missing is measured."""
  home, models = tmp_path / "out", ("points_diffusion", "points_gan-0")
  run(*FLAGS, models=models)
  whole = stored(home)
  half = {"rows": whole["rows"][:3], "costs": {}}
  shutil.rmtree(home)
  home.mkdir()
  (home / "trilemma.json").write_text(json.dumps(half))
  status, _, lines = run(*FLAGS, models=models)
  assert status == 0, lines
  names = ["points_diffusion heun 3", "points_gan-0 truncation 0.5", "points_gan-0 truncation 1"]
  assert told(lines) == names
  after = stored(home)
  assert after["rows"][:3] == whole["rows"][:3]
  assert [r["scores"] for r in after["rows"]] == [r["scores"] for r in whole["rows"]]
  # A training that went on, or more samples, are measured anew.
  status, _, lines = run("--samplers=ddim", "--nfe=1", "--num=65", models=models[:1])
  assert told(lines) == ["points_diffusion ddim 1"]


def test_one_program_for_all_steps(workdirs, tmp_path, monkeypatch):
  """And one for single samples: turning knobs compiles nothing."""
  opened = []

  def remember(*args, **how):
    opened.append(load(*args, **how))
    return opened[-1]

  monkeypatch.setattr(trilemma, "load", remember)
  judge = trilemma.open_judge({"source": "points:grid25"})
  lab = trilemma.Lab(tmp_path, judge, 64, 0, {"rows": [], "costs": {}})
  names = ["points_diffusion", "points_gan-0", "points_gan-1"]
  for group in twins.grouped(twins.entries_of([str(workdirs / n) for n in names])):
    for curve in curve_settings.curves(group.config, ("ddim", "heun"), (1, 2, 4, 8), (0.5, 1, 2)):
      assert len(lab.points(group, curve)) >= 3
  assert [model.program._cache_size() for model in opened] == [2, 2, 2]


def test_names_of_twins():
  assert twins.common_name(["ddpm-0", "ddpm-1"]) == "ddpm"
  assert twins.common_name(["gan", "gan-seed1"]) == "gan"
  assert twins.common_name(["vae_s3", "vae_s4"]) == "vae"
  assert twins.common_name(["r3gan2"]) == "r3gan2"
  assert twins.common_name(["a", "b"]) == "a"


def test_only_luck_makes_twins(tmp_path):
  """Seeds, what is logged, and where a teacher lies; nothing else."""

  def entry(name, **changes):
    c = config.load("configs/points_gan.py:debug")
    with c.unlocked():
      c.update_from_flattened_dict(changes)
      for key in [k for k in changes if k.endswith("workdir")]:
        c.model[key.rpartition(".")[2]] = changes[key]
    return Entry(name, tmp_path / name, (), c)

  first = entry("gan-0")
  assert len(twins.grouped([first, entry("gan-1", seed=1)])) == 1
  assert len(twins.grouped([first, entry("gan-1", **{"log.every": 7})])) == 1
  for change in ({"batch": 64}, {"steps": 21}, {"model.z_dim": 3}, {"data.source": "points:ring8"}):
    both = twins.grouped([first, entry("gan-1", **change)])
    assert [g.name for g in both] == ["gan-0", "gan-1"]
  taught = [entry(f"few-{i}", seed=i) for i in range(2)]
  for i, one in enumerate(taught):
    one.config.unlock()
    one.config.model.teacher_workdir = f"ddpm-{i}"
  (group,) = twins.grouped(taught)
  assert group.name == "few" and len(group.entries) == 2
  assert len(twins.grouped([*taught, first])) == 2


def test_settings_of_every_family():
  gan = curve_settings.curves(config.load("configs/points_gan.py:debug"))
  assert [c.knobs for c in gan] == [({"truncation": 0.5}, {"truncation": 1.0}, {})]
  vae = curve_settings.curves(config.load("configs/points_vae.py:debug"))
  assert [c.knobs for c in vae] == [({"temperature": 0.5}, {"temperature": 0.8}, {})]
  style = curve_settings.curves(config.load("configs/stylegan2.py:debug"), truncation=(0.7,))
  assert [c.knobs for c in style] == [({"psi": 0.7},)]
  heun, ddim, dpm = curve_settings.curves(config.load("configs/points_diffusion.py:debug"))
  assert [c.name for c in (heun, ddim, dpm)] == ["heun", "ddim", "dpmpp_2m"]
  assert [c.sampler for c in (heun, ddim, dpm)] == [None, "ddim", "dpmpp_2m"]
  evaluations = lambda model, curve: [model.nfe(**k) for k in curve.knobs]
  by_heun = config.load("configs/points_diffusion.py:debug").model
  by_ddim = presets.with_sampler(by_heun, "ddim")
  assert evaluations(config.build(by_ddim), ddim) == [1, 2, 4, 8, 25]
  assert evaluations(config.build(by_heun), heun) == [1, 3, 7, 25]

  class Chain:  # of four steps, which takes no more
    knobs = {"steps": 4.0}
    nfe = staticmethod(lambda steps=4.0: min(int(steps), 4))

  few = curve_settings.curve(None, "", Chain, (1, 2, 8, 25), ())
  assert evaluations(Chain, few) == [1, 2, 4] and few.knobs[-1] == {"steps": 4.0}
  one = curve_settings.curve(None, "", Chain, (0.5,), ())
  assert one.knobs == ({},) and evaluations(Chain, one) == [4]
  taught = config.load("configs/points_diffusion.py:debug")
  taught.model.name = "models.diffusion.Few"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(curve_settings, "build", lambda model: Chain)
    (curve,) = curve_settings.curves(taught, ("ddim", "heun"))
  assert (curve.sampler, curve.name) == (None, "heun")  # its own alone
  own = curve_settings.curves(config.load("configs/digits_diffusion.py:debug"))
  assert [(c.name, c.sampler) for c in own] == [("ddim", None), ("dpmpp_2m", "dpmpp_2m")]


def test_teachers_and_codecs_are_paid_for_once(workdirs, monkeypatch):
  """And what these were trained from; a circle ends."""
  c = config.load("configs/points_gan.py:debug")
  chain = {"student": ("teacher", "codec"), "teacher": ("old", "codec"), "old": ("student", None)}

  def settings_of(name):
    other = config.load("configs/points_gan.py:debug")
    other.unlock()
    teacher, codec = chain.get(name, (None, None))
    other.model.teacher_workdir, other.model.codec_workdir = teacher or "", codec or ""
    return other

  monkeypatch.setattr(costs.meta, "latest", lambda w: w)
  monkeypatch.setattr(costs.meta, "settings", settings_of)
  roles = costs.upstream(settings_of("student"))
  assert roles == {"codec": "codec", "teacher": "teacher", "old": "teacher", "student": "teacher"}
  monkeypatch.undo()
  own = costs.cost_of(str(workdirs / "points_gan-0"))
  c.unlock()
  c.model.teacher_workdir = str(workdirs / "points_gan-1")
  total = costs.training_cost(c, str(workdirs / "points_gan-0"))
  assert total["flops"] == 2 * own["flops"] and total["train_images"] == 2 * own["train_images"]
  assert [u["role"] for u in total["upstream"]] == ["teacher"]
  c.model.teacher_workdir = str(workdirs / "gone")
  total = costs.training_cost(c, str(workdirs / "points_gan-0"))
  assert total["flops"] == own["flops"] and "flops" not in total["upstream"][0]


def test_operations_of_twins_are_counted_once(monkeypatch):
  calls = []
  count = lambda experiment, source, batch: calls.append(batch) or {(0, 1): 10.0}
  monkeypatch.setattr(costs, "step_costs", {})
  monkeypatch.setattr(costs, "step_flops", count)
  monkeypatch.setattr(costs, "mean_over_cycle", lambda model, flops: flops[0, 1])
  c = config.load("configs/points_gan.py:debug")
  assert costs.training_flops(c, 3) == 30.0
  c.seed = 1
  assert costs.training_flops(c, 4) == 40.0 and len(calls) == 1
  c.batch = 32
  assert costs.training_flops(c, 4) == 40.0 and calls == [16, 32]


@pytest.mark.parametrize(
  "flags, says",
  [
    (["--nfe=ten"], "--nfe=ten: want numbers"),
    (["--nfe=0"], "--nfe=0: want at least 1"),
    (["--samplers=hoin"], "no sampler 'hoin'"),
    (["--truncation=-1"], "truncation=-1: want more than 0"),
    (["--truncation=x"], "--truncation=x: want numbers"),
    (["--metrics=modez", "--nfe=1"], "no such metric"),
    (["--speed=light"], "--speed=light: want rate, latency or evaluations"),
    (["--num=5"], "--num=5: want at least 32"),
  ],
)
def test_slips_are_one_line(run, tmp_path, flags, says):
  status, _, lines = run(*flags)
  assert status == 2 and lines[-1].startswith("jaxgen: ") and says in lines[-1], lines
  assert not (tmp_path / "out").exists()


def test_models_that_do_not_belong(run, workdirs, tmp_path, capsys, monkeypatch):
  other = config.load("configs/points_gan.py:debug")
  other.steps, other.log.pictures, other.data.source = 2, 0, "points:ring8"
  train.train(other, str(tmp_path / "ring"), quiet=True)
  home = f"--out={tmp_path / 'out'}"
  for paths, says in (
    (("points_gan-0", "points_gan-0"), "is named twice"),
    (("points_gan-0", str(tmp_path / "ring")), "only like can be compared"),
    (("points_gan-0", str(tmp_path / "nothing")), "nothing"),
  ):
    status, _, lines = run(models=paths)
    assert status == 2 and len(lines) == 1 and says in lines[0], lines
  status, _, (line,) = call(capsys, monkeypatch, "trilemma", home)
  assert status == 2 and "needs --workdirs" in line
  # A cascade, a codec without its prior, and an upsampler make nothing from noise alone.
  up = Entry("up", tmp_path / "up", (), config.load("configs/sr3.py:debug"))
  with pytest.raises(UserError, match="up is a Diffusion that makes x from low_res: leave it out"):
    twins.check_free(up)
  codec = Entry("codec", tmp_path / "codec", (), config.load("configs/vqvae2.py:debug"))
  with pytest.raises(UserError, match="a codec: its samples want a model of its latents"):
    twins.check_free(codec)
  (tmp_path / "chain").mkdir()
  text = json.dumps({"stages": [{"workdir": "a"}, {"workdir": "b"}]})
  (tmp_path / "chain" / "cascade.json").write_text(text)
  with pytest.raises(UserError, match="holds a cascade"):
    twins.entries_of([str(tmp_path / "chain")])


@pytest.mark.parametrize("text", ["[]", '{"rows": [{"told": 3}]}', '{"rows": [], "costs": 1}'])
def test_a_strange_file_is_not_overwritten(run, tmp_path, text):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "trilemma.json").write_text(text)
  status, _, lines = run("--nfe=4")
  assert status == 2 and "no result of a trilemma" in lines[-1]
  assert (tmp_path / "out" / "trilemma.json").read_text() == text
