"""Mode coverage: every rule is a config, and rows survive what stops them."""

import importlib.util
import json
import pathlib
import types

import numpy as np
import PIL.Image
import pytest
from verbs import call, tree

from jaxgen import config
from jaxgen.compare import modes
from jaxgen.config import build
from jaxgen.errors import Diverged, UserError
from jaxgen.monitor import pictures

ROOT = pathlib.Path(__file__).parents[2]
PAIRS = [(d, r) for d in modes.DATA for r in modes.RULES]


@pytest.mark.parametrize("data, rule", PAIRS)
def test_every_pair_is_a_config(data, rule):
  c = modes.load_config(data, rule, 0, debug=False)
  like = config.load(f"configs/modes.py:{data}-hinge")
  assert (c.steps, c.batch, c.data) == (like.steps, like.batch, like.data)
  model = build(c.model)
  assert set(c.optim) == {p.moves for p in model.players}
  for spec in c.optim.values():
    build(spec)(steps=c.steps)
  assert c.data.classes == 0  # nobody is told the modes


def test_only_the_rule_differs():
  path = str(ROOT / "configs" / "modes.py")
  spec = importlib.util.spec_from_file_location("modes_config", path)
  config.share_siblings(path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  assert list(module.SOURCES) == list(modes.DATA)
  assert [*module.RULES, *module.FAMILIES, *modes.ELSEWHERE] == list(modes.RULES)
  for data in modes.DATA:
    games = [config.load(f"configs/modes.py:{data}-{rule}") for rule in module.RULES]
    for part in ("gen", "disc", "z_dim"):
      assert len({str(c.model[part]) for c in games}) == 1
    rates = {(c.steps, c.batch, str(c.ema), c.optim.gen.lr, c.optim.disc.lr) for c in games}
    assert len(rates) == 1


@pytest.mark.parametrize("arg", ["ring9-hinge", "hing", "stacked"])
def test_strange_arguments_are_told_the_names(arg):
  with pytest.raises(UserError, match=f"no '{arg}'.*want DATA-RULE, of ring8"):
    config.load(f"configs/modes.py:{arg}")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
  common = (f"--out={tmp_path / 'out'}", "--debug", "--num=256")
  return lambda *argv: call(capsys, monkeypatch, "modes", *common, *argv)


def test_rows_are_made_once(run, tmp_path):
  home, flags = tmp_path / "out", ("--data=ring8", "--rules=hinge")
  status, out, lines = run(*flags)
  assert status == 0 and "ring8-hinge-0: modes" in lines[-1]
  results = json.loads((home / "modes.json").read_text())
  (row,) = results["rows"]
  assert set(row["scores"]) >= {"modes", "kl", "high_quality"}
  assert row["num"] == 256 and row["train_seconds"] > 0 and row["nfe"] == 1
  assert results["floors"]["ring8"]["modes"] == 8
  assert "| real test data | 8 |" in out and "\n| hinge | " in out
  assert (home / "modes.md").read_text() + "\n" == out
  pictures.read_info(home / "modes.png")
  # The same again finds it there.
  before = tree(home)
  status, again, lines = run(*flags)
  assert status == 0 and again == out
  assert not [line for line in lines if "[modes]" in line]
  assert tree(home) == before
  # Samples that are gone are drawn again, by the model that is there.
  (home / "ring8-hinge-0" / "samples.npz").write_bytes(b"PK")
  assert run(*flags)[0] == 0
  after = json.loads((home / "modes.json").read_text())["rows"][0]
  assert after["scores"] == row["scores"]
  assert after["train_seconds"] == row["train_seconds"]
  assert modes.read_samples(home, row).shape == (256, 2)
  # Another rule is added; more seeds have a spread.
  status, out, lines = run("--data=ring8", "--rules=hinge,vae", "--seeds=2")
  assert [line.split()[1] for line in lines if line.endswith(" 20 steps")] == [
    "ring8-vae-0:",
    "ring8-hinge-1:",
    "ring8-vae-1:",
  ]
  assert out.count(" ± ") == 7 and "\n| VAE | " in out


def test_a_rule_that_diverges_is_a_row(run, tmp_path, monkeypatch):
  def diverge(c, workdir, quiet):
    raise Diverged("20 updates in a row were not finite")

  monkeypatch.setattr(modes.train, "train", diverge)
  flags = "--data=ring8", "--rules=minimax"
  status, out, lines = run(*flags)
  assert status == 0 and "not finite" in lines[-1]
  assert "| minimax | (1 diverged) |" in out
  assert not [x for x in run(*flags)[2] if "[modes]" in x]


def test_what_was_stopped_is_not_judged(run, tmp_path, monkeypatch):
  state = types.SimpleNamespace(step=np.int32(7))
  monkeypatch.setattr(modes.train, "train", lambda c, workdir, quiet: state)
  status, _, lines = run("--data=ring8", "--rules=minimax")
  assert status == 2 and "stopped at step 7" in lines[-1]
  assert not (tmp_path / "out" / "modes.json").exists()


@pytest.mark.parametrize(
  "flags, says",
  [
    (["--data=ring9"], "--data=ring9: want some of ring8,grid25,stacked"),
    (["--rules=hing"], "did you mean 'hinge'"),
    (["--rules="], "want some of minimax"),
    (["--seeds=0"], "seeds=0"),
    (["--num=3"], "num=3"),
    (["--seeds=two"], "whole number"),
  ],
)
def test_slips_are_one_line(run, tmp_path, flags, says, capsys, monkeypatch):
  status, _, lines = run(*flags)
  assert status == 2 and len(lines) == 1 and says in lines[0]
  assert not (tmp_path / "out").exists()
  status, _, lines = call(capsys, monkeypatch, "modes")
  assert status == 2 and lines == ["jaxgen: modes needs --out=FOLDER"]


@pytest.mark.parametrize("text", ["[]", "{", '{"rows": [{}]}'])
def test_a_strange_file_is_not_overwritten(run, tmp_path, text):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "modes.json").write_text(text)
  status, _, lines = run()
  assert status == 2 and "no result of modes" in lines[-1]
  assert (tmp_path / "out" / "modes.json").read_text() == text


def row(data, rule, seed, **scores):
  return {"data": data, "rule": rule, "seed": seed, "num": 99, "scores": scores}


def test_the_table_is_in_order_and_has_spreads():
  score = dict(kl=0.5, high_quality=0.25)
  text = modes.table(
    {
      "rows": [
        row("grid25", "vae", 0, modes=20, **score),
        row("ring8", "hinge", 0, modes=6, **score),
        row("ring8", "hinge", 1, modes=8, **score),
      ],
      "floors": {d: dict(score, modes=9) for d in ("ring8", "grid25")},
      "judges": {d: {"features": "xy", "protocol": "as ever"} for d in ("ring8", "grid25")},
    }
  )
  lines = text.splitlines()
  assert lines[0].startswith("|  | ring of 8: modes | ring of 8: KL |")
  assert lines[3] == ("| hinge | 7 ± 1 | 0.500 ± 0 | 0.250 ± 0 |  |  |  |")
  assert lines[4] == "| VAE |  |  |  | 20 | 0.500 | 0.250 |"
  assert "Trainings in a row: 1 to 2;" in text
  assert "- ring of 8: 99 samples by xy; as ever." in lines


def test_panels_stand_where_they_belong(tmp_path):
  red, blue = (np.broadcast_to(np.uint8(c), (8, 8, 3)) for c in ((255, 0, 0), (0, 0, 255)))
  got = pictures.panels({"a": {"real": red, "x": blue}, "b": {"x": red}}, ["real", "x"])
  assert got.dtype == np.uint8 and got.shape[2] == 3
  high, wide, _ = got.shape
  at = lambda i, j: tuple(
    got[int(high * (0.3 + 1.7 * (i + 0.5)) / 3.7), int(wide * (0.3 + 1.7 * (j + 0.5)) / 3.7)]
  )
  assert at(0, 0) == at(1, 1) == (255, 0, 0) and at(0, 1) == (0, 0, 255)
  assert at(1, 0) == (255, 255, 255)  # missing
  pictures.save_png(tmp_path / "x.png", got)
  assert PIL.Image.open(tmp_path / "x.png").size == (wide, high)


def test_the_picture_has_a_panel_for_every_rule(tmp_path):
  rng = np.random.default_rng(0)
  rows = []
  for data, source in (("ring8", "points:ring8"), ("stacked", "stacked_digits")):
    c = {"data": {"source": source}}
    rows.append(row(data, "vae", 0) | {"config": c})
    x = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    x = rng.normal(size=(50, 2)) if data == "ring8" else x
    (tmp_path / modes.name(rows[-1])).mkdir()
    np.savez(tmp_path / modes.name(rows[-1]) / "samples.npz", x)
  rows.append(row("ring8", "wgan", 0) | {"config": c, "diverged": "so"})
  got = modes.portraits(tmp_path, rows)
  assert got.shape[1] > got.shape[0]  # real, WGAN, VAE by two
