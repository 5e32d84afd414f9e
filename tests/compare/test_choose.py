"""Choices from data to page, on points and a few steps; order see test_rounds."""

import contextlib
import io
import json
import random
import threading

import pytest
from kill import hashes
from kill_choice import timeless
from verbs import call, tree

from jaxgen import cli, config, files
from jaxgen.compare import choose, contenders, measure, preparation, rounds
from jaxgen.data.survey import SIZES
from jaxgen.distributed import cores

NAMES = ("points_gan", "points_vae")
FLAGS = ("--data=points:grid25", f"--contenders={','.join(f'{n}:debug' for n in NAMES)}")
SMALL = "--budget=160img"  # 5 steps of 16 for each of two


class Killed(BaseException):
  """What nobody catches, as SIGKILL."""


def run(home, *more, flags=FLAGS):
  return choose.main(cli.parse(choose, ["jaxgen choose", *flags, f"--out={home}", *more]))


def read(home):
  return json.loads((home / "choice.json").read_text())


def plan(home, *more):
  """What a dry run says."""
  with contextlib.redirect_stdout(io.StringIO()) as out:
    assert run(home, SMALL, "--dry_run", *more) == 0
  return out.getvalue().splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """A folder with the plan of a choice."""
  home = tmp_path_factory.mktemp("choose") / "out"
  lines = plan(home)
  assert any("points_gan" in x and "parameters" in x and "5 steps, 80 images" in x for x in lines)
  assert any("25%, 50%, 100% of 160img" in x for x in lines)
  assert "prepared in" in lines[-1] and "in all about" in lines[-1]
  assert sorted(p.name for p in home.iterdir()) == [".jaxgen.lock", "plan.json"]
  return home


@pytest.fixture(scope="module")
def peace(home):
  """A choice that was planned, and that nobody disturbs."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(preparation, "try_out", None)  # what was timed is not timed again
    assert run(home, SMALL) == 0
  return home


def test_every_round_is_judged_and_told(peace):
  results = read(peace)
  assert results["budget"] == {
    **{"text": "160img", "kind": "img", "amount": 160.0, "share": 1.0},
    "rounds": [1 / 4, 1 / 2, 1.0],  # an eighth is less than a step
    "halves": 0,
  }
  assert [row["name"] for row in results["rows"]] == list(NAMES)
  for row in results["rows"]:
    assert [r["step"] for r in row["rounds"]] == [1, 2, 5]
    assert [r["images"] for r in row["rounds"]] == [16, 32, 80]
    assert [r["share"] for r in row["rounds"]] == results["budget"]["rounds"]
    seconds, flops = ([r[k] for r in row["rounds"]] for k in ("seconds", "flops"))
    assert 0 < seconds[0] < seconds[-1] and flops[-1] == 5 * flops[0] > 0
    assert row["metrics"] == row["rounds"][-1]["metrics"] and "frechet@xy" in row["metrics"]
    assert row["step"] == 5 and row["stopped"] == ""
    assert "--config.steps=5" in row["commands"][0]
    copy = f"cp -r {peace / row['name']} {row['name']} && jaxgen train "
    assert row["next"][0].startswith(copy) and "--config.steps=20" in row["next"][0]
    for i in range(3):
      assert (peace / "rounds" / f"{row['name']}-{i}.png").read_bytes()[:4] == b"\x89PNG"
  assert "One training of each model was seen" in results["trust"]
  assert set(results["verdict"]) == {"quality", "diversity", "speed", "short_training"}
  page = (peace / "report.html").read_text()
  assert "points_gan" in page and "http" not in page


def test_learning_rates_do_not_look_at_the_end(peace):
  stored = json.loads((peace / "plan.json").read_text())
  gan = stored["spec"]["contenders"]["points_gan"]
  assert {o["decay"] for o in gan["optim"].values()} == {"constant"}
  (row, _) = read(peace)["rows"]
  assert "--config.optim.gen.decay=constant" in row["commands"][0]


def test_the_same_command_again_does_nothing(peace, capsys, monkeypatch):
  def never(*_, **__):
    raise AssertionError("nothing is left to train or to judge")

  monkeypatch.setattr(rounds.train, "train", never)
  monkeypatch.setattr(measure, "measure", never)
  before = tree(peace)
  status, out, _ = call(capsys, monkeypatch, "choose", *FLAGS, SMALL, f"--out={peace}")
  assert status == 0 and out.splitlines()[-1] == str(peace / "report.html")
  assert out.splitlines()[-2].startswith("On points:grid25, choose ")
  assert tree(peace) == before


def test_kills_change_nothing(peace, tmp_path, monkeypatch):
  """Killed before or after what is written, at moments by chance."""
  home, chance, left = tmp_path / "out", random.Random(0), [0]
  monkeypatch.setattr(rounds, "render", lambda *_: "")
  stored = json.loads((peace / "plan.json").read_text())
  files.write_json(home / "plan.json", stored | {"rounds": []})
  write, save = files.write_bytes, rounds.train.Hooks.save

  def count():
    if threading.current_thread() is not threading.main_thread():
      return  # a checkpoint's
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
    left[0] = chance.randint(8, 30)
    lives += 1
    try:
      assert run(home, SMALL) == 0
      break
    except Killed:
      continue
  assert lives > 2
  assert timeless(read(home)) == timeless(read(peace))
  for name in NAMES:
    assert hashes(home / name) == hashes(peace / name)
  # All that was cut short was done once more, and nothing else.
  assert len(trained) + len(judged) <= 12 + lives


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
    (["--budget=1h", "--features=incepton"], "--features=incepton: want inception or dinov2"),
    (["--budget=1h", "--data=/nowhere"], "there is no data set"),
  ],
)
def test_slips_are_one_line(tmp_path, capsys, monkeypatch, flags, says):
  out = tmp_path / "out"
  status, _, lines = call(capsys, monkeypatch, "choose", *FLAGS, f"--out={out}", *flags)
  assert status == 2 and lines[-1].startswith("jaxgen: ") and says in lines[-1]
  assert not (out / "choice.json").exists()


def test_what_others_call_rounds_is_left_alone(tmp_path, capsys, monkeypatch):
  (tmp_path / "rounds").mkdir()
  (tmp_path / "rounds" / "points_gan-0.png").write_text("mine")
  before = tree(tmp_path)
  status, _, lines = call(capsys, monkeypatch, "choose", *FLAGS, SMALL, f"--out={tmp_path}")
  assert status == 2 and "rounds is there" in lines[-1]
  assert tree(tmp_path) == before


def test_a_strange_folder_is_left_alone(tmp_path, capsys, monkeypatch):
  (tmp_path / "plan.json").write_text("{}")
  (tmp_path / "choice.json").write_text("mine")
  before = tree(tmp_path)
  status, _, lines = call(capsys, monkeypatch, "choose", *FLAGS, SMALL, f"--out={tmp_path}")
  assert status == 2 and "plan.json" in lines[-1]
  assert {k: v for k, v in tree(tmp_path).items() if k.name[0] != "."} == before


@pytest.mark.parametrize(
  "source, size", [("digits", 8), *(("folder:x", s) for s in SIZES if 32 <= s <= 128)]
)
def test_devices_are_made_for_the_smallest_batch_of_our_own(source, size):
  """On CPUs, for which alone they count."""
  for path in contenders.default_paths(source, size):
    assert config.load(path).batch % contenders.SMALLEST == 0, path


@pytest.mark.parametrize(
  "paths, source, sound, batches",
  [
    ([], "digits", False, [contenders.SMALLEST]),
    ([], "folder:x", True, None),
    ([], "points:ring8", False, None),
    (["points_gan"], "points:ring8", False, None),
    (["digits_gan", "digits_diffusion"], "digits", False, [128, 64]),
  ],
)
def test_devices_by_what_is_trained(monkeypatch, paths, source, sound, batches):
  asked = []
  monkeypatch.setattr(cores, "make_devices", asked.append)
  contenders.make_devices([f"configs/{p}.py" for p in paths], source, sound)
  assert asked == ([] if batches is None else [batches])
