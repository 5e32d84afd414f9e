"""Choices on points and a few steps: rounds, kills, larger budgets, slips."""

import json
import random

import pytest
from kill import hashes
from verbs import call, tree

from jaxgen import cli, files
from jaxgen.compare import choose, measure, rounds
from jaxgen.errors import Diverged, UserError

NAMES = ("points_gan", "points_vae")
FLAGS = ("--data=points:grid25", f"--contenders={','.join(f'{n}:debug' for n in NAMES)}")
SMALL = "--budget=320img"  # 10 steps of 16 for each of two
TIMES = (
  *("created", "workdir", "commands", "next", "samples_per_second", "train_seconds", "seconds"),
  *("judge_seconds",),
)


class Killed(BaseException):
  """What nobody catches, as SIGKILL."""


def run(home, *more, flags=FLAGS):
  return choose.main(cli.parse(choose, ["jaxgen choose", *flags, f"--out={home}", *more]))


def read(home):
  return json.loads((home / "choice.json").read_text())


def timeless(value):
  """Results without what the clock or the folder says."""
  if isinstance(value, dict):
    return {k: timeless(v) for k, v in value.items() if k not in TIMES}
  return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
  """A choice that nobody disturbs."""
  home, patch = tmp_path_factory.mktemp("choose") / "out", pytest.MonkeyPatch()
  patch.setattr(measure, "STEPS", (2, 4))
  assert run(home, SMALL) == 0
  yield home
  patch.undo()


def test_every_round_is_judged_and_told(peace):
  results = read(peace)
  assert results["budget"] == {
    **{"text": "320img", "kind": "img", "amount": 320.0, "share": 1.0},
    "rounds": [1 / 8, 1 / 4, 1 / 2, 1.0],  # a sixteenth is less than a step
  }
  assert [row["name"] for row in results["rows"]] == list(NAMES)
  for row in results["rows"]:
    assert [r["step"] for r in row["rounds"]] == [1, 2, 5, 10]
    assert [r["images"] for r in row["rounds"]] == [16, 32, 80, 160]
    assert [r["share"] for r in row["rounds"]] == results["budget"]["rounds"]
    seconds, flops = ([r[k] for r in row["rounds"]] for k in ("seconds", "flops"))
    assert 0 < seconds[0] < seconds[-1] and flops[-1] == 10 * flops[0] > 0
    assert row["metrics"] == row["rounds"][-1]["metrics"] and "frechet@xy" in row["metrics"]
    assert row["step"] == 10 and row["stopped"] == ""
    assert "--config.steps=10" in row["commands"][0] and "--config.steps=40" in row["next"][0]
    for i in range(4):
      assert (peace / "rounds" / f"{row['name']}-{i}.png").read_bytes()[:4] == b"\x89PNG"
  assert "one training of each was seen" in results["trust"]
  page = (peace / "report.html").read_text()
  assert "points_gan" in page and "http" not in page


def test_learning_rates_do_not_look_at_the_end(peace):
  plan = json.loads((peace / "plan.json").read_text())
  gan = plan["spec"]["contenders"]["points_gan"]
  assert {o["decay"] for o in gan["optim"].values()} == {"constant"}
  (row, _) = read(peace)["rows"]
  assert "--config.optim.gen.decay=constant" in row["commands"][0]


def test_the_same_command_again_does_nothing(peace, capsys, monkeypatch):
  def never(*_, **__):
    raise AssertionError("nothing is left to train or to judge")

  monkeypatch.setattr(rounds.train, "train", never)
  monkeypatch.setattr(measure, "measure", never)
  before = {k: v for k, v in tree(peace).items() if k.name not in ("choice.json", "report.html")}
  status, out, _ = call(capsys, monkeypatch, "choose", *FLAGS, SMALL, f"--out={peace}")
  assert status == 0 and out.splitlines()[-1] == str(peace / "report.html")
  assert out.splitlines()[-2].startswith("On points:grid25, choose ")
  after = tree(peace)
  assert all(after[k] == v for k, v in before.items() if k.name != ".jaxgen.lock")


def test_kills_change_nothing(peace, tmp_path, monkeypatch):
  """Killed before or after what is written, at moments by chance."""
  home, chance, left = tmp_path / "out", random.Random(0), [0]
  write, save = files.write_bytes, rounds.train.Hooks.save

  def count():
    left[0] -= 1
    if left[0] == 0:
      raise Killed

  def write_bytes(*args):
    count()
    write(*args)
    count()

  def hook(*args):
    count()
    save(*args)
    count()

  monkeypatch.setattr(files, "write_bytes", write_bytes)
  monkeypatch.setattr(rounds.train.Hooks, "save", hook)
  trained, judged = [], []
  train, measured = rounds.train.train, measure.measure
  note = lambda done, what, f: lambda *a, **k: (done.append(what(*a)), f(*a, **k))[1]
  monkeypatch.setattr(rounds.train, "train", note(trained, lambda c, w, *_: (w, c.steps), train))
  monkeypatch.setattr(measure, "measure", note(judged, lambda e, *_: e.name, measured))
  lives = 0
  while True:
    left[0] = chance.randint(5, 40)
    lives += 1
    try:
      assert run(home, SMALL) == 0
      break
    except Killed:
      continue
  assert lives > 3
  assert timeless(read(home)) == timeless(read(peace))
  for name in NAMES:
    assert hashes(home / name) == hashes(peace / name)
  # All that was cut short was done once more, and nothing else.
  assert len(trained) + len(judged) <= 16 + lives


def test_a_larger_budget_goes_on(peace, tmp_path, monkeypatch):
  home = tmp_path / "out"
  assert run(home, "--budget=160img") == 0
  monkeypatch.setattr(files, "write_text", files.write_text)
  assert run(home, SMALL) == 0
  results, whole = read(home), read(peace)
  assert results["budget"]["rounds"] == [1 / 8, 1 / 4, 1 / 2, 1.0]
  assert [[r["step"] for r in row["rounds"]] for row in results["rows"]] == [[1, 2, 5, 10]] * 2
  for row, other in zip(results["rows"], whole["rows"], strict=True):
    assert row["metrics"] == other["metrics"]
  with pytest.raises(UserError, match="holds a choice of --budget=320img"):
    run(home, "--budget=160img")
  with pytest.raises(UserError, match="holds a choice of --budget=320img"):
    run(home, "--budget=1h")
  with pytest.raises(UserError, match="with other seeds: take another --out"):
    run(home, SMALL, "--seeds=2")


def test_who_diverges_is_stopped_and_the_others_go_on(tmp_path, monkeypatch):
  train = rounds.train.train

  def diverge(config, workdir, **how):
    if "gan" in workdir and config.steps > 2:
      raise Diverged("20 updates in a row were not finite, up to step 4; the last good ..")
    return train(config, workdir, **how)

  monkeypatch.setattr(rounds.train, "train", diverge)
  assert run(tmp_path, SMALL) == 0
  gan, vae = read(tmp_path)["rows"]
  assert gan["stopped"] == "diverged: 20 updates in a row were not finite, up to step 4"
  assert gan["rounds"][-1]["step"] == gan["step"] == 2 and vae["step"] == 10


def test_a_dry_run_ends_with_the_plan(tmp_path, capsys, monkeypatch):
  home = tmp_path / "out"
  flags = ("choose", *FLAGS, SMALL, f"--out={home}", "--dry_run")
  status, out, _ = call(capsys, monkeypatch, *flags)
  assert status == 0
  lines = out.splitlines()
  assert any("points_gan" in x and "parameters" in x and "10 steps, 160 images" in x for x in lines)
  assert any("12.5%, 25%, 50%, 100% of 320img" in x for x in lines)
  assert "prepared in" in lines[-1] and "in all about" in lines[-1]
  assert sorted(p.name for p in home.iterdir()) == [".jaxgen.lock", "plan.json"]
  # What was timed is not timed again.
  monkeypatch.setattr("jaxgen.compare.preparation.try_out", None)
  assert call(capsys, monkeypatch, *flags)[0] == 0


def test_seconds_become_steps(tmp_path):
  """A budget of time is spent by the clock, on whatever machine."""
  assert run(tmp_path, "--budget=20s") == 0
  results, plan = read(tmp_path), json.loads((tmp_path / "plan.json").read_text())
  assert results["budget"]["kind"] == "time"
  assert len({row["rounds"][-1]["share"] for row in results["rows"]}) == 1
  for row in results["rows"]:
    own = row["rounds"]
    assert all(a["step"] < b["step"] for a, b in zip(own, own[1:], strict=False))
    assert plan["rounds"][-1]["steps"][row["name"]] == row["step"]


def test_seeds_are_parts_of_the_budget(tmp_path):
  assert run(tmp_path, SMALL, "--seeds=2") == 0
  results = read(tmp_path)
  assert "2 trainings of each" in results["trust"]
  for row in results["rows"]:
    assert row["step"] == 5
    low, high = row["intervals"]["frechet@xy"]
    assert low < row["metrics"]["frechet@xy"] < high
    first, second = (hashes(tmp_path / n) for n in (row["name"], f"{row['name']}-seed1"))
    assert first != second


@pytest.mark.parametrize(
  "flags, says",
  [
    ([], "choose needs --data=SOURCE, --budget=30m and --out=FOLDER"),
    (["--budget=soon"], "--budget=soon: want a time such as 30m"),
    (["--budget=31img"], "one step of points_gan takes 16; want 32 images or more"),
    (["--budget=1h", "--contenders=points_gan:debg"], "did you mean 'debug'"),
    (["--budget=1h", "--contenders=points_gan,points_gan"], "two models are called"),
    (["--budget=1h", "--contenders=digits_gan"], "digits_gan"),
    (["--budget=1h", "--data=points:grid26"], "there are no points 'grid26'"),
    (["--budget=1h", "--data=/nowhere"], "there is no data set"),
  ],
)
def test_slips_are_one_line(tmp_path, capsys, monkeypatch, flags, says):
  out = tmp_path / "out"
  status, _, lines = call(capsys, monkeypatch, "choose", *FLAGS, f"--out={out}", *flags)
  assert status == 2 and lines[-1].startswith("jaxgen: ") and says in lines[-1]
  assert not (out / "choice.json").exists()


def test_a_strange_folder_is_left_alone(tmp_path, capsys, monkeypatch):
  (tmp_path / "plan.json").write_text("{}")
  (tmp_path / "choice.json").write_text("mine")
  before = tree(tmp_path)
  status, _, lines = call(capsys, monkeypatch, "choose", *FLAGS, SMALL, f"--out={tmp_path}")
  assert status == 2 and "plan.json" in lines[-1]
  assert {k: v for k, v in tree(tmp_path).items() if k.name[0] != "."} == before
