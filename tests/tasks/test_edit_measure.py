"""Methods of editing measured: at equal cost, each once, whoever kills the run."""

import json
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from editing import SHAPE, game, loaded
from ml_collections import ConfigDict
from verbs import tree

from jaxgen import cli
from jaxgen.data.sources import open_split
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.tasks import edit_benchmark, edit_page, edit_trials
from jaxgen.tasks.editor import Editor

KEEP = degrade.centre(8, 8)
WORDS = "edit --workdir=W --measure --num=6 --strengths=0.2 --budget=6".split()


def stand_ins(put):
  """Puts a model with random weights, of digits, in the place of the workdir's."""
  data, shape = ConfigDict(dict(source="digits", split="train", size=0)), (8, 8, 1)
  put(edit_benchmark, "load", lambda w, **_: loaded(game(10), 10, shape))
  put(edit_benchmark, "data_of", lambda w: data)


def test_methods_are_measured_at_equal_cost(monkeypatch, verb, tmp_path):
  stand_ins(monkeypatch.setattr)
  status, out, _ = verb(
    "edit", "--workdir=W", "--measure", "--num=6", "--hows=replacement,pigdm",
    "--budget=6,30", "--strengths=0.2,0.8", f"--out={tmp_path / 'report'}", "--guidance=1",
  )  # fmt: skip
  assert status == 0 and out.strip().endswith("edit.html")
  report = json.loads((tmp_path / "report" / "edit.json").read_text())
  cells = [(r["how"], r["steps"], r["evaluations"]) for r in report["methods"]]
  assert cells == [
    ("replacement", 6, 6), ("replacement", 30, 30), ("pigdm", 2, 6), ("pigdm", 10, 30)
  ]  # fmt: skip
  assert all(np.isfinite(r["psnr"]) and r["seconds"] > 0 for r in report["methods"])
  weak, strong = report["sdedit"]
  assert weak["psnr"] > strong["psnr"] and weak["evaluations"] < strong["evaluations"]
  page = (tmp_path / "report" / "edit.html").read_text()
  assert page.index("<img") < page.index("Numbers of the methods")


def test_images_are_judged_where_they_are_enough():
  """A Fréchet distance of results, with another network's judge in the place of the real one."""
  test = open_split(ConfigDict(dict(source="digits", split="train", size=0)), "test")
  x = test.read(np.arange(8))["x"]
  judge = types.SimpleNamespace(scores=lambda x, y, cas: {"kid@j": [0.0], "frechet@j": [2.0, 4.0]})
  keep = np.broadcast_to(KEEP, (8, 8, 8, 1))
  bench = edit_trials.Bench(None, x, None, keep, "mask", judge, 0, 8)
  assert bench.frechet(x) == ("frechet@j", 3.0)
  found = edit_benchmark.reference(bench, x)
  assert found["originals"] == {"frechet": 3.0, "features": "frechet@j"}
  mean = np.round((keep * x).sum((1, 2)) / keep.sum((1, 2)))[0]
  error = (mean - x[0, 2:6, 2:6]) ** 2
  first = edit_page.hole_psnr(np.full_like(x, mean)[:1], x[:1], keep[:1])
  np.testing.assert_allclose(first, 10 * np.log10(255**2 / error.mean()))


def test_masks_of_the_benchmark():
  text, keep = edit_benchmark.mask_of("boxes:0.25,0.5", 5, SHAPE, 0)
  assert text == "mask boxes:0.25,0.5" and keep.shape == (5, 8, 8, 1)
  with pytest.raises(UserError, match="want centre:0.5 or boxes:0.25,0.5"):
    edit_benchmark.mask_of("m.png", 5, SHAPE, 0)
  with pytest.raises(UserError, match="leaves nothing to fill"):
    edit_benchmark.mask_of("centre:0.01", 5, SHAPE, 0)


def test_a_killed_run_goes_on_after_the_last_row(monkeypatch, verb, tmp_path):
  home = tmp_path / "report"
  words = [*WORDS, f"--out={home}", "--hows=replacement,pigdm"]
  read = lambda: json.loads((home / "edit.json").read_text())
  killed = subprocess.run([sys.executable, __file__, *words], timeout=300, check=False)
  assert killed.returncode == -signal.SIGKILL
  (first,), left = read()["methods"], sorted(p.name for p in home.rglob("*"))
  assert first["how"] == "replacement"
  assert left == ["edit.json", "replacement-6.npz", "samples"]

  stand_ins(monkeypatch.setattr)
  assert verb(*words)[0] == 0
  report, page = read(), (home / "edit.html").read_text()
  assert [r["how"] for r in report["methods"]] == ["replacement", "pigdm"]
  assert report["methods"][0] == first and len(report["sdedit"]) == 1  # its seconds, too

  with monkeypatch.context() as patch:  # all is there: nothing is edited again
    patch.setattr(Editor, "__call__", None)
    assert verb(*words)[0] == 0
    assert read() == report and (home / "edit.html").read_text() == page

  more = [w for w in words if "hows" not in w] + ["--hows=replacement", "--budget=30,6"]
  assert verb(*more)[0] == 0  # a row more, and what is there stays
  assert [(r["how"], r["steps"]) for r in read()["methods"]] == [
    ("replacement", 6), ("pigdm", 2), ("replacement", 30)
  ]  # fmt: skip
  assert ">pigdm" not in (home / "edit.html").read_text()

  (home / "samples" / "pigdm-2.npz").write_bytes(b"")  # its pictures are lost: once more
  assert verb(*words)[0] == 0 and len(read()["methods"]) == 3
  assert read()["methods"][-1]["psnr"] == report["methods"][1]["psnr"]


OTHERS = {
  "--seed=1": "was measured with seed 0, and here it is 1: give another folder, or move",
  "--num=5": "was measured with num 6, and here it is 5",
  "--mask=centre:0.7": "was measured with operator mask centre:0.5, and here it is mask centre:0.7",
  "--respacing=ddim25": "--respacing=ddim25 sets the steps, as --budget does with --measure",
  "--guidance=2": "was measured with knobs none, and here it is {'guidance': 2.0}",
}


def test_other_arguments_say_what_differs(monkeypatch, verb, tmp_path):
  stand_ins(monkeypatch.setattr)
  words = [*WORDS, f"--out={tmp_path / 'report'}", "--hows=replacement"]
  assert verb(*words)[0] == 0
  before = tree(tmp_path)
  for word, says in OTHERS.items():
    status, _, err = verb(*words, word)
    assert status == 2 and says in err[-1] and tree(tmp_path) == before, err
  report = json.loads((tmp_path / "report" / "edit.json").read_text())
  del report["settings"]
  (tmp_path / "report" / "edit.json").write_text(json.dumps(report))
  status, _, err = verb(*words)
  assert status == 2 and "no measurement of edits to go on from (settings is missing)" in err[-1]


if __name__ == "__main__":
  stand_ins(setattr)
  compile_program = edit_trials.compile_program

  def die_at_the_second(bench, editor, *more):
    if editor.how == "pigdm":
      os.kill(os.getpid(), signal.SIGKILL)
    compile_program(bench, editor, *more)

  edit_trials.compile_program = die_at_the_second
  cli.main(["jaxgen", *sys.argv[1:]])
