"""Mistakes end in one line on stderr and status 2, and leave no trace."""

import json
import pathlib
import subprocess
import sys

import pytest
from verbs import POINTS, finish, start, tree

from jaxgen import config, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A tiny trained GAN: no test may change a byte of it."""
  workdir = tmp_path_factory.mktemp("trained") / "w"
  c = config.load("configs/points_gan.py:debug")
  c.steps, c.checkpoint.every, c.log.pictures = 4, 2, 0
  train.train(c, str(workdir), quiet=True)
  return workdir


def written(folder, name, text):
  (folder / name).write_text(text)
  return f"--config={folder / name}"


# What the line must say; {} is a folder of the test's own.
TRAIN = {
  "key": ([POINTS, "--config.stpes=3"], "'stpes'; did you mean 'steps'?"),
  "deep key": ([POINTS, "--config.model.gen.widht=3"], "'widht'; did you mean 'width'?"),
  "not a number": ([POINTS, "--config.steps=many"], "want a whole number"),
  "a fraction": ([POINTS, "--config.batch=1.5"], "want a whole number"),
  "not a float": ([POINTS, "--config.optim.gen.lr=big"], "want a number"),
  "not a bool": ([POINTS, "--config.data.flip=3"], "want true or false"),
  "no config": (["--config=configs/nope.py"], "points_gan"),
  "folder as config": (["--config={}"], "no config at"),
  "config forgotten": ([], "train needs --config"),
  "data": ([POINTS, "--config.data.source=grid25"], "did you mean points:grid25"),
  "data of a kind": ([POINTS, "--config.data.source=points:x"], "ring8"),
  "other data": ([POINTS, "--config.data.source=digits"], "the model makes samples of shape (2,)"),
  "labels": (["--config=configs/digits_vae.py:debug", "--config.data.classes=9"], "digits has 10"),
  "no steps": ([POINTS, "--config.steps=0"], "steps=0: want"),
  "negative": ([POINTS, "--config.seed=-1"], "seed=-1: want"),
  "parts": ([POINTS, "--config.accumulate=3"], "such as 15"),
  "no parts": ([POINTS, "--config.accumulate=0"], "accumulate=0"),
  "keep": ([POINTS, "--config.checkpoint.keep=1"], "keep=1: want"),
  "keep_every": ([POINTS, "--config.checkpoint.keep_every=7"], "keep_every"),
  "mirrored points": ([POINTS, "--config.data.flip=true"], "holds none"),
  "size": (
    ["--config=configs/stylegan2.py:debug", "--config.data.size=6"],
    "(6, 6, 1): images of height 6: want a power of two",
  ),
  "remat": (
    ["--config=configs/adm_imagenet64.py:debug", "--config.model.net.remat=64"],
    "heights of 8, 4",
  ),
  "name": ([POINTS, "--config.model.gen.name=nets.mlp.Genrator"], "did you mean 'Generator'?"),
  "foreign name": ([POINTS, "--config.model.gen.name=os.system"], "os.system"),
  "choice": ([POINTS, "--config.optim.gen.decay=linaer"], "cosine"),
  "flag": ([POINTS, "--wrokdir=x"], "workdir"),
  "word": ([POINTS, "more"], "what is 'more'?"),
}


@pytest.mark.parametrize("case", TRAIN)
def test_mistake_of_training(case, verb, tmp_path):
  argv, said = TRAIN[case]
  argv = [word.replace("{}", str(tmp_path)) for word in argv]
  status, out, lines = verb("train", f"--workdir={tmp_path / 'w'}", *argv)
  assert (status, out, len(lines)) == (2, "", 1), lines
  assert lines[0].startswith("jaxgen: ") and said in lines[0]
  assert not any(tmp_path.iterdir())


FILE = """from configs import points_gan


def get_config():
  c = points_gan.get_config("debug")
  {}
  return c
"""
FILES = {
  "key": (FILE.format("c.stpes = 3"), "config.stpes means nothing; did you mean 'steps'?"),
  "deep key": (
    FILE.format("c.log.evry = 3"),
    "config.log.evry means nothing; did you mean 'every'?",
  ),
  "argument": (FILE.format("c.model.gen.dpeth = 3"), "did you mean 'depth'?"),
  "type": (FILE.format("c.steps = 3.5"), "field 'steps'"),
  "range": (FILE.format("c.log.every = 0"), "config.log.every=0: want"),
  "group": (FILE.format("del c.optim.gen"), "needs optim.gen"),
  "spec": (FILE.format("del c.ema.main.name"), "config.ema.main must be"),
  "syntax": ("def get_config(:\n", "SyntaxError"),
  "function": ("x = 1\n", "get_config"),
  "error": ("def get_config():\n  return 1 / 0\n", "ZeroDivisionError"),
}


@pytest.mark.parametrize("case", FILES)
def test_mistake_in_a_config_file(case, verb, tmp_path):
  text, said = FILES[case]
  status, out, lines = verb(
    "train", f"--workdir={tmp_path / 'w'}", written(tmp_path, "mine.py", text)
  )
  assert (status, out, len(lines)) == (2, "", 1), lines
  assert said in lines[0] and not (tmp_path / "w").exists()


@pytest.mark.parametrize("there", [False, True])
def test_folder_without_images(there, verb, tmp_path):
  images, home = tmp_path / "images", tmp_path / "home"
  home.mkdir()
  if there:
    images.mkdir()
  status, _, lines = verb(
    "train",
    f"--workdir={home / 'w'}",
    written(
      tmp_path,
      "mine.py",
      (
        "from configs import _base\n\n\ndef get_config():\n"
        f"  c = _base.base('folder:{images}', steps=2, batch=2, size=8)\n"
        "  c.model = dict(name='models.vae.VAE', net=dict("
        "name='nets.convs.Codec', size=8, channels=3, z_dim=4, width=8))\n"
        "  c.optim.net = dict(name='optim.adam', lr=1e-3)\n  return c\n"
      ),
    ),
  )
  assert (status, len(lines)) == (2, 1) and str(images) in lines[0]
  assert not any(home.iterdir())


@pytest.mark.parametrize("where", ["file", "file/w"])
def test_workdir_that_cannot_be(where, verb, tmp_path):
  (tmp_path / "file").write_text("mine")
  status, _, lines = verb("train", POINTS, f"--workdir={tmp_path / where}")
  assert (status, len(lines)) == (2, 1) and "cannot write" in lines[0]
  assert (tmp_path / "file").read_text() == "mine"


def test_workdir_of_another_config(verb, trained):
  before = tree(trained)
  status, _, lines = verb("train", POINTS, "--config.optim.gen.lr=1", f"--workdir={trained}")
  assert (status, len(lines)) == (2, 1)
  assert "config.optim.gen.lr is 1" in lines[0] and "began with" in lines[0]
  assert tree(trained) == before


def test_workdir_of_other_data(verb, trained, monkeypatch):
  before = tree(trained)
  monkeypatch.setattr("jaxgen.data.arrays.Arrays.fingerprint", "changed")
  status, _, lines = verb(
    "train",
    POINTS,
    "--config.steps=4",
    "--config.checkpoint.every=2",
    "--config.log.pictures=0",
    f"--workdir={trained}",
  )
  assert (status, len(lines)) == (2, 1) and "other data" in lines[0]
  assert tree(trained) == before


SAMPLE = {
  "nothing": (["--workdir=", "--out="], "sample needs --workdir"),
  "workdir": (["--workdir={}/none"], "there is no folder"),
  "untrained": (["--workdir={}"], "train first"),
  "step": (["--step=3"], "there are [2, 4]"),
  "knob": (["--guidance=2"], "no knob 'guidance'; it knows temperature"),
  "knob's value": (["--temperature=nan"], "finite"),
  "labels": (["--labels=3"], "without labels"),
  "labels' kind": (["--labels=x"], "want numbers"),
  "num": (["--num=-1"], "num=-1: want"),
  "num's kind": (["--num=x"], "want a whole number"),
  "seed": (["--seed=-1"], "seed=-1: want"),
  "batch": (["--batch=0"], "batch=0: want"),
  "profile": (["--ema=mian"], "did you mean 'main'?"),
  "width": (["--ema=0.1"], "no profile of ema.power"),
  "kind": (["--out={}/x.gif"], "x.png, x.npz or a folder"),
  "flag": (["--lables=3"], "labels"),
}


@pytest.mark.parametrize("case", SAMPLE)
def test_mistake_of_sampling(case, verb, trained, tmp_path):
  argv, said = SAMPLE[case]
  argv = [word.replace("{}", str(tmp_path)) for word in argv]
  before = tree(trained)
  status, out, lines = verb("sample", f"--workdir={trained}", f"--out={tmp_path / 'x.png'}", *argv)
  assert (status, out, len(lines)) == (2, "", 1), lines
  assert said in lines[0]
  assert not any(tmp_path.iterdir()) and tree(trained) == before


def test_samples_that_cannot_be_written(verb, trained, tmp_path):
  (tmp_path / "file").write_text("mine")
  status, _, lines = verb(
    "sample", f"--workdir={trained}", "--num=2", f"--out={tmp_path / 'file' / 'x.npz'}"
  )
  assert (status, len(lines)) == (2, 1) and "is no folder" in lines[0]
  assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
  ("word", "said"), [("trian", "did you mean 'train'?"), ("", "it knows anomaly, augment")]
)
def test_unknown_verb(word, said, verb):
  status, out, lines = verb(word)
  assert (status, out, len(lines)) == (2, "", 1) and said in lines[0]


def test_help_names_verbs_and_flags(verb, capsys, monkeypatch):
  from jaxgen import cli

  cli.main(["jaxgen"])
  assert "compare" in capsys.readouterr().out
  status, out, lines = verb("sample", "--help")
  assert (status, lines) == (0, []) and "--labels" in out


@pytest.mark.parametrize(
  "error", [RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), MemoryError()]
)
def test_programs_that_do_not_fit_end_in_a_line(error, verb, monkeypatch, tmp_path):
  def lack(*_):
    raise error

  monkeypatch.setattr("jaxgen.train.train", lack)
  status, _, err = verb("train", "--config=configs/points_vae.py:debug", f"--workdir={tmp_path}/w")
  (line,) = err
  assert status == 2 and line.startswith("jaxgen: out of memory (") and "--config.batch" in line


def test_devices_that_do_not_divide_the_batch(tmp_path):
  """And the true way out of the process."""
  status, out, lines = finish(
    start("train", POINTS, "--config.batch=18", f"--workdir={tmp_path / 'w'}", devices=4)
  )
  assert (status, out, len(lines)) == (2, "", 1), lines
  assert "4 devices" in lines[0] and "such as 16" in lines[0]
  assert not any(tmp_path.iterdir())


def test_a_good_run_is_quiet_and_its_end_prompt(trained, tmp_path):
  """Nothing on stderr but our own lines; sampling says one line."""
  training = start(
    "train",
    POINTS,
    "--config.steps=4",
    "--config.log.pictures=2",
    "--config.checkpoint.every=2",
    f"--workdir={tmp_path / 'w'}",
  )
  sampling = start("sample", f"--workdir={trained}", "--num=3", f"--out={tmp_path / 'x.npz'}")
  status, out, lines = finish(training)
  assert (status, out) == (0, "")
  # The table of parameters, the progress, where the time went.
  strange = [
    line
    for line in lines
    if line[:1] not in "+|" and not line.startswith(("Total", "1/4", "4/4", "goodput"))
  ]
  assert not strange
  assert finish(sampling) == (0, f"3 samples -> {tmp_path / 'x.npz'}\n", [])
  last = (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()[-1]
  assert json.loads(last)["step"] == 4
  assert len(list(pathlib.Path(tmp_path / "w" / "samples").iterdir())) == 2


def test_help_needs_no_heavy_library():
  """Help comes without what only trainings, data sets and pictures need."""
  code = """
import contextlib, importlib, io, sys
import jaxgen
from jaxgen import cli
assert "jax" not in sys.modules
for module, _ in cli.VERBS.values():
  verb = importlib.import_module(f"jaxgen.{module}")
  with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    cli.parse(verb, ["jaxgen", "--help"])
heavy = {"orbax", "tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "clu"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
  process = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
  )
  assert (process.stdout, process.stderr) == ("[]\n", "")


def test_a_switch_of_the_environment_that_means_nothing(verb, monkeypatch):
  monkeypatch.setenv("JAXGEN_ATTENTION", "flash")
  status, out, lines = verb("train", POINTS)
  assert (status, out, len(lines)) == (2, "", 1) and "JAXGEN_ATTENTION=flash" in lines[0]
