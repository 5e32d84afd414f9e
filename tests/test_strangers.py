"""Workdirs and files that came from others, or were edited: one line each."""

import copy
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from jaxgen import config, forms
from jaxgen import train as training
from jaxgen.checkpoint import disk, step_folder
from jaxgen.compare import modes, sweep, trilemma
from jaxgen.compare.comparison import check_alike
from jaxgen.compare.comparison import train_entries as entries
from jaxgen.compare.measure import command, curves
from jaxgen.errors import UserError, guarding, printable
from jaxgen.evaluation import cards
from jaxgen.forms import NUMBER, Each, Whole
from jaxgen.monitor import log, pictures
from jaxgen.monitor.goodput import loss
from jaxgen.report.page import render
from jaxgen.sampling.stages import stages_of
from jaxgen.sampling.trained import load_trained as read_model
from jaxgen.study import record

CONFIG = "configs/points_diffusion.py:debug"
STEPS = ("--config.steps=2", "--config.checkpoint.every=2", "--config.log.pictures=0")
GONE = object()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A tiny trained diffusion model."""
  path = tmp_path_factory.mktemp("strangers") / "w"
  c = config.load(CONFIG)
  c.steps = c.checkpoint.every = 2
  c.log.pictures = 0
  training.train(c, str(path), quiet=True)
  return path


def changed(tree, path, value):
  """A copy of JSON with another value at a.b.c, or without it."""
  tree = copy.deepcopy(tree)
  *parents, last = path.split(".")
  node = tree
  for key in parents:
    node = node[int(key)] if isinstance(node, list) else node[key]
  last = int(last) if isinstance(node, list) else last
  if value is GONE:
    del node[last]
  else:
    node[last] = value
  return tree


def forged(workdir, to, path, value):
  """A copy of a workdir whose meta says something else, and is sealed."""
  shutil.copytree(workdir, to)
  step = to / "checkpoints" / "2"
  file = step / "meta" / "metadata"
  meta = changed(json.loads(file.read_text()), path, value)
  meta["digest"] = disk.digest(meta)
  file.write_text(json.dumps(meta))
  (step / step_folder.SEAL).unlink()
  disk.seal(epath.Path(step))
  return to


def deep(levels):
  """Lists in lists."""
  value = []
  for _ in range(levels):
    value = [value]
  return value


# What a stranger's meta says at a field, and what the line names.
META = {
  "no config": ("config", GONE, "config is missing"),
  "null config": ("config", None, "config is None"),
  "list of configs": ("config", [1], "config is a list"),
  "no data": ("config.data", GONE, "config.data is missing"),
  "source of numbers": ("config.data.source", 3, "config.data.source is 3"),
  "no split": ("config.data.split", GONE, "config.data.split is missing"),
  "size": ("config.data.size", "8", "config.data.size is '8'"),
  "model as a word": ("config.model", "x", "config.model is 'x'"),
  "nameless model": ("config.model.name", GONE, "config.model.name is miss"),
  "sampler": ("config.model.sampler", 3, "config.model.sampler is 3"),
  "optimiser": ("config.optim.net", None, "config.optim.net is None"),
  "averages": ("config.ema", [], "config.ema is a list"),
  "steps": ("config.steps", "2", "config.steps is '2'"),
  "huge batch": ("config.batch", 10**30, "config.batch is 1000"),
  "shape": ("data.shape", [2, "x"], "data.shape[1] is 'x'"),
  "huge shape": ("data.shape", [2**20] * 3, "no example is so large"),
  "no classes": ("data.classes", GONE, "data.classes is missing"),
  "negative classes": ("data.classes", -1, "data.classes is -1"),
  "dtype": ("data.dtype", "object", "want float32 or int16 or uint8"),
  "seconds": ("seconds", "long", "seconds is 'long'"),
  "nan": ("seconds", float("nan"), "seconds is nan"),
  "goodput": ("goodput.seconds", [1], "goodput.seconds is a list"),
  "import": ("import", {"source": 1, "file": "x"}, "import.source is 1"),
  "leaves": ("leaves", [], "leaves is a list"),
  "leaf": ("leaves.step", None, "leaves.step is None"),
  "shape of a leaf": ("leaves.step.shape", "", "leaves.step.shape is ''"),
  "deep": ("config.model.net", deep(40), "levels deep"),
  "foreign module": ("config.model.net.name", "os.system", "'os.system'"),
  "module that writes": ("config.model.net.name", "checkpoint.Checkpoints", "'checkpoint.Check"),
  "no model": ("config.model", {"name": "optim.adam"}, "of no model"),
  "argument": ("config.model.net.wdth", 3, "did you mean 'width'?"),
  "type of an argument": ("config.model.net.width", [1, 2], "want a whole"),
  "endless net": ("config.model.net.depth", 10**9, "far more parts"),
  "path": ("config.model.path", None, "of no model"),
  "other arrays": ("config.model.net.width", 64, "but the model wants"),
}


@pytest.mark.parametrize("case", META)
def test_meta_of_a_stranger(case, workdir, tmp_path, verb):
  path, value, said = META[case]
  w = forged(workdir, tmp_path / "w", path, value)
  status, out, lines = verb("sample", f"--workdir={w}", "--num=2", f"--out={tmp_path / 'x.npz'}")
  assert (status, out, len(lines)) == (2, "", 1), lines
  (line,) = lines
  assert said in line and str(w) in line or "name=" in line or "no argument" in line


@pytest.mark.parametrize(
  "path, value, said",
  [
    ("config.model.path.lo", "x", "lo='x': want a number"),
    ("config.model.path.rho", None, "rho=None: want a number"),
  ],
)
def test_what_only_sampling_meets(path, value, said, workdir, tmp_path, verb):
  w = forged(workdir, tmp_path / "w", path, value)
  for argv in (
    ("sample", "--num=2", f"--out={tmp_path / 'x.npz'}"),
    ("bench", "sample", "--batch=2", "--seconds=0.01"),
  ):
    status, _, lines = verb(*argv, f"--workdir={w}")
    assert status == 2 and said in lines[-1], lines


READING = {
  "sample": ("--out={}/x.npz",),
  "evaluate": (),
  "export": ("--out={}/x.pt", "--source=adm"),
  "likelihood": ("--method=ode",),
  "sweep": ("--out={}/sweep",),
  "train": (f"--config={CONFIG}", *STEPS, "--config.steps=3"),
}


@pytest.mark.parametrize("name", [*READING, "compare", "trilemma", "bench", "classifier"])
def test_every_verb_that_reads_a_workdir(name, workdir, tmp_path, verb):
  w = forged(workdir, tmp_path / "w", "data.shape", None)
  argv = {
    "compare": ("compare", f"--workdirs={w}", f"--out={tmp_path / 'c'}"),
    "trilemma": ("trilemma", f"--workdirs={w}", f"--out={tmp_path / 't'}"),
    "bench": ("bench", "sample", f"--workdir={w}"),
    "classifier": f"sample --workdir={workdir} --classifier={w} --out={tmp_path}/x.npz".split(),
  }.get(name) or (name, f"--workdir={w}", *(a.format(tmp_path) for a in READING[name]))
  status, _, lines = verb(*argv)
  said = [line for line in lines if line.startswith("jaxgen: ")]
  assert status == 2 and len(said) == 1, lines
  assert f"{w}/checkpoints/2/meta" in said[0]
  assert "data.shape is None: want a list" in said[0]
  assert (w / "checkpoints" / "2").is_dir()  # it is no damage: all stays


LOG = [
  {"start": 0, "time": 1.0},
  {"step": 1, "net/loss": 1.0, "time": 2.0},
  {"step": 2, "net/loss": 0.5, "time": 3.0},
]
ROWS = {
  "no step": {"time": 2.0, "net/loss": 1.0},
  "null": None,
  "a list": [1],
  "a word": "x",
  "step of a word": {"step": "1"},
  "a half": {"step": 0.5},
  "nothing": {},
  "before": {"step": -1},
  "huge step": {"step": 10**30},
  "a word for a number": {"step": 1, "net/loss": "low"},
  "no number": {"step": 1, "net/loss": None},
  "nested": {"step": 1, "net/loss": {"a": 1}},
  "deep": deep(300),
  "huge": {"step": 1, "skips": 10**400},
  "time": {"step": 1, "time": "now"},
  "start": {"start": "x"},
}
TEXTS = {
  "binary": b"\xff\xfe\x00",
  "deeper": b"[" * 10**5,
  "digits": b"1" * 5000,
  "not JSON": b"step 1",
}


@pytest.mark.parametrize("case", [*ROWS, *TEXTS])
def test_rows_of_the_log(case, tmp_path):
  text = TEXTS.get(case) or json.dumps(ROWS[case]).encode()
  rows = [json.dumps(row).encode() for row in LOG]
  (tmp_path / log.FILE).write_bytes(b"\n".join([rows[0], text, *rows[1:], b""]))
  with pytest.raises(UserError, match=r"line 2 is damaged \(.*\); delete"):
    log.read_jsonl(tmp_path / log.FILE)


def test_a_log_that_lacks_less(tmp_path):
  (tmp_path / log.FILE).write_text(
    "\n".join([json.dumps(LOG[1]), '{"step": 2, "net/loss": "nan"}', '{"st'])
  )
  rows = log.read_jsonl(tmp_path / log.FILE)
  assert np.isnan(rows[1]["net/loss"]) and len(rows) == 2
  assert curves(rows)["loss"]["net/loss"][0] == [1, 1.0]
  assert loss(rows, 1.0, 1, 4.0).steps == 0  # of a row without a time
  (tmp_path / "d").mkdir()
  with pytest.raises(UserError, match="is no file"):
    log.read_jsonl(tmp_path / "d")


def test_training_goes_on_with_no_odd_log(workdir, tmp_path, verb):
  w = tmp_path / "w"
  shutil.copytree(workdir, w)
  (w / log.FILE).write_text('{"net/loss": 1.0}\n{"step": 2}\n')
  status, _, lines = verb(
    "train", f"--workdir={w}", f"--config={CONFIG}", *STEPS, "--config.steps=3"
  )
  assert status == 2 and "line 1 is damaged (step is missing)" in lines[-1]


SCORES = {"modes": 8, "kl": "nan"}
SETTING = {"card": {"family": "Diffusion", "sampler": "heun"}, "knobs": {"steps": 4}}
SWEEP = {"rows": [dict(told=SETTING, nfe=7, seconds=1.0, scores=SCORES, spread={})]}
TIMES = {"size": 64, "median": 0.1, "min": 0.1, "max": 0.2}
PLACE = dict(workdir="w", config="c", step=1, sampler=None, knobs={"steps": 4.0}, num=64)
POINT = dict(told=PLACE | dict(judge="j", device="d"), family="GAN", nfe=1, params=3)
COST = {"told": {"config": "c", "step": 1}, "train_seconds": 2.0, "upstream": []}
TRILEMMA = {
  "rows": [POINT | dict(scores=SCORES, spread={}, batch=TIMES, single=TIMES)],
  "costs": {"w": COST},
}
RING8 = {"data": {"source": "points:ring8"}}
MODES = {
  "rows": [dict(data="ring8", rule="vae", seed=0, num=64, config=RING8, scores=SCORES)],
  "floors": {"ring8": SCORES},
  "judges": {"ring8": {"features": "xy", "protocol": "p"}},
}
CARD = {
  **dict(kind=cards.KIND, protocol={"name": "adm"}, features={}, reference={"name": "r"}),
  **dict(samples={"images": 9}, scores={"fid": 3.0, "kid": None, "is": "inf"}),
}
CASCADE = {"stages": [{"stage": "0"}, {"workdir": "/runs/up"}]}
CHOICE = dict(visitor="v", trial=0, real="a", fake="b", left="a", choice="left", ms=12)
STUDY = [{"study": {"num": 3}}, CHOICE | {"fooled": False}]
FILES = {  # of JSON that is kept: what reads it, a good one
  "sweep.json": (sweep.read_rows, SWEEP),
  "trilemma.json": (trilemma.read, TRILEMMA),
  "modes.json": (modes.read_modes, MODES),
  "card.json": (lambda path: cards.rank({"a": cards.load(path)}), CARD),
  "cascade.json": (lambda path: stages_of(path.parent), CASCADE),
  "study.jsonl": (record.read, STUDY),
}
FIELDS = {
  "sweep.json": """
    rows rows.0 rows.0.told rows.0.told.card rows.0.told.card.family rows.0.told.knobs rows.0.nfe
    rows.0.scores rows.0.scores.modes
  """,
  "trilemma.json": """
    rows rows.0 rows.0.told rows.0.told.workdir rows.0.told.knobs rows.0.told.judge
    rows.0.told.device rows.0.family rows.0.nfe rows.0.params rows.0.scores rows.0.scores.modes
    rows.0.batch rows.0.batch.size rows.0.batch.median rows.0.single.max costs.w
    costs.w.told.config costs.w.upstream
  """,
  "modes.json": """
    rows rows.0 rows.0.data rows.0.rule rows.0.seed rows.0.num rows.0.config.data.source
    rows.0.scores rows.0.scores.modes floors floors.ring8 judges judges.ring8.features
  """,
  "card.json": "kind protocol.name reference reference.name samples samples.images scores",
  "cascade.json": "stages stages.0 stages.0.stage stages.1.workdir",
  "study.jsonl": "0 0.study 1 1.visitor 1.trial 1.fooled 1.ms",
}
# Fields that may be missing.
SPARE = "rows.0 rows.0.scores.modes stages.0 0 1 floors.ring8 samples.images costs.w".split()
ODD = [None, -0.5, True, [1, "a"], {"a": {"b": None}}, deep(50), float("nan")]


KINDS = dict(study=dict, nfe=float, modes=(float, bool), ms=float, fooled=bool, samples=dict)
KINDS["images"] = type(None)  # as of statistics


def put(path, value):
  """As JSON, or as lines of JSON."""
  rows = value if path.suffix == ".jsonl" and isinstance(value, list) else [value]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", FILES)
def test_stored_json_field_by_field(name, tmp_path):
  read, good = FILES[name]
  path = tmp_path / name
  put(path, good)
  read(path)
  for field in FIELDS[name].split():
    for value in ODD:
      if isinstance(value, KINDS.get(field.rpartition(".")[2], ())) and (value == value):
        continue  # as it may be
      put(path, changed(good, field, value))
      with pytest.raises(UserError) as e:
        read(path)
      assert str(path) in str(e.value), (field, value)
    if field not in SPARE:
      put(path, changed(good, field, GONE))
      with pytest.raises(UserError):
        read(path)


@pytest.mark.parametrize("name", FILES)
def test_stored_json_that_is_none(name, tmp_path):
  path = tmp_path / name
  long = b"[" * 10**5, b'{"a":' * 10**5, b"1" * 5000
  for text in (b"null", b"[]", b"{}", b"", b"\xff\xfe{", *long):
    path.write_bytes(text + b"\n")
    with pytest.raises(UserError):
      FILES[name][0](path)
  path.unlink()
  os.mkfifo(path)  # nobody will ever write there
  if name != "study.jsonl":
    with pytest.raises(UserError, match="no file"):
      FILES[name][0](path)


def test_scores_that_were_not_finite_are_numbers_again(tmp_path):
  put(tmp_path / "sweep.json", SWEEP)
  (row,) = sweep.read_rows(tmp_path / "sweep.json")
  assert np.isnan(row["scores"]["kl"]) and row["scores"]["modes"] == 8
  put(tmp_path / "modes.json", MODES)
  (row,) = modes.read_modes(tmp_path / "modes.json")["rows"]
  assert np.isnan(row["scores"]["kl"])
  assert "inf" in cards.rank({"a": CARD}) and "3*" in cards.rank({"a": CARD})


def test_cascades_that_have_no_end(tmp_path):
  put(tmp_path / "cascade.json", {"stages": [{"workdir": str(tmp_path)}]})
  with pytest.raises(UserError, match="stage 0, .*, is a cascade itself"):
    stages_of(tmp_path)
  for stages, said in (
    ([], "no stages"),
    ([{"stage": "../.."}], "stage is"),
    ([{"stage": "1"}], "stage is"),
  ):
    put(tmp_path / "cascade.json", {"stages": stages})
    with pytest.raises(UserError, match=said):
      stages_of(tmp_path)


FORM = {"a": Whole(1), "b?": float, "c": [{"x", "y"}], "d": Each(NUMBER)}


@pytest.mark.parametrize(
  "value, said",
  [
    ({"a": 1, "c": [], "d": {}}, None),
    ({"a": 1, "b": None, "c": ["x"], "d": {"k": "nan"}, "e": [[]]}, None),
    ({"a": 1, "b": 2, "c": ["y"], "d": {"k": True}}, None),
    ({"a": 0, "c": [], "d": {}}, "a is 0: want a whole number, at least 1"),
    ({"a": True, "c": [], "d": {}}, "a is True: want a whole number"),
    ({"a": 1.0, "c": [], "d": {}}, "a is 1.0: want a whole number"),
    ({"a": 1, "b": True, "c": [], "d": {}}, "b is True: want a finite number"),
    ({"a": 1, "b": float("inf"), "c": [], "d": {}}, "b is inf: want a finite"),
    ({"a": 1, "c": ["z"], "d": {}}, "c[0] is 'z': want x or y"),
    ({"a": 1, "c": [["x"]], "d": {}}, "c[0] is a list: want x or y"),
    ({"a": 1, "c": [], "d": {"k": "?"}}, "d.k is '?': want a finite number"),
    ({"a": 1, "c": []}, "d is missing"),
    ([], "it is a list: want an object"),
    ({"a": 1, "c": [], "d": {}, "e": deep(99)}, "levels deep"),
    ({"a": "x" * 999, "c": [], "d": {}}, "..."),
  ],
)
def test_forms(value, said):
  why = forms.misfit(value, FORM)
  assert why is None if said is None else said in why and len(why) < 150


# Names.


@pytest.mark.parametrize(
  "name, shown",
  [
    ("plain näme 日本 \U0001f600", "plain näme 日本 \U0001f600"),
    ("a\x1b[31mred", r"a\x1b[31mred"),
    ("a\x9b31m\x7f\x00", r"a\x9b31m\x7f\x00"),
    ("one\ntwo\r\t", r"one\x0atwo\x0d\x09"),
    ("\u202egpj", r"\u202egpj"),
    ("\u2066a\u2029", r"\u2066a\u2029"),
    (os.fsdecode(b"a\xff\x9b"), r"a\xff\x9b"),
    ("\ud800", r"\ud800"),
    (pathlib.Path("x\x07"), r"x\x07"),
  ],
)
def test_names_for_a_terminal(name, shown):
  assert printable(name) == shown
  shown.encode()


@pytest.mark.parametrize(
  "name", ["a\x1b]0;title\x07", "b\x9b31m", "c\u202e", os.fsdecode(b"d\xff")]
)
def test_no_verb_writes_a_name_raw(name, workdir, tmp_path, verb):
  here = tmp_path / name
  here.mkdir()
  shutil.copytree(workdir, here / "w")
  for argv in (
    ("sample", f"--workdir={here / 'w'}", f"--out={here / 'x.npz'}", "--num=2", "--steps=2"),
    ("train", f"--workdir={here / 'w'}", f"--config={CONFIG}", *STEPS),
    ("sample", f"--workdir={here}", f"--out={here / 'y.npz'}"),
    ("train", f"--workdir={here / 'v'}", f"--config={here}"),
    ("compare", f"--cards={here}"),
    ("bench", name),
    ("study", f"--report={here}"),
    (name,),
  ):
    _, out, lines = verb(*argv)
    text = "".join([out.replace("\n", ""), *lines])
    assert text and printable(text) == text, argv


def test_a_checkpoint_that_is_passed_over_is_named_well(workdir, tmp_path, verb):
  here = tmp_path / "a\x1b[2J"
  shutil.copytree(workdir, here)
  (here / "checkpoints" / "2" / "meta" / "metadata").write_text("{}")
  _, _, lines = verb("sample", f"--workdir={here}", "--out=x.npz")
  assert len(lines) == 2 and printable("".join(lines)) == "".join(lines)


def test_names_on_a_page():
  names = ["<script>alert(1)</script>", "a&b\"'", "\x1b[31m", "$x_1$", os.fsdecode(b"\xff")]
  rows = [
    dict.fromkeys(("name", "family", "config", "grid"), n)
    | dict(workdir=f"/r/{n}", commands=[f"jaxgen evaluate --workdir {n}"], warnings=[n])
    | dict(metrics={"frechet@x": 1.0, n: 2.0}, samples_per_second=3.0, settings={n: 1})
    | dict(curves={"loss": {n: [[1, 2.0], [2, 1.0]]}, "health": {}})
    for n in names
  ]
  n = names[0]
  page = render(dict(dataset=n, features=n, rows=rows, machine={"cpu": n}, judge={"protocol": n}))
  page.encode()
  assert "<script" not in page and "\x1b" not in page
  assert "&lt;script&gt;" in page and "$x_1$" in page


def test_names_in_a_picture():
  names = ("$x_1$", r"$\nothing{$", "_left out", "a\x1b\ud800", "${")
  plain = pictures.curves({"b": [(1, 2.0), (2, 3.0)]}, x="x", y="y")
  for name in names:
    shown = pictures.curves(
      {name: [(1, 2.0), (2, 3.0)]}, x=name, y=name, floor=2.5, floor_name=name
    )
    assert not np.array_equal(shown, plain)
    pictures.panels({name: {name: plain}}, [name])
  shown = pictures.curves({"_left out": [(1, 2.0), (2, 3.0)]}, x="x", y="y")
  legend = shown[:, int(0.7 * shown.shape[1]) :]
  assert (legend < 128).any()  # it is not left out


def test_commands_are_for_a_shell():
  assert command("train", workdir="plain/w") == "jaxgen train --workdir plain/w"
  assert command("train", workdir="a;rm -rf b") == ("jaxgen train --workdir 'a;rm -rf b'")


def test_no_model_is_called_as_the_report_calls_real_data(workdir, tmp_path, monkeypatch):
  (tmp_path / "real").symlink_to(workdir)
  with pytest.raises(UserError, match="'real'"):
    entries([], [str(tmp_path / "real")], tmp_path)
  monkeypatch.chdir(workdir)
  (here,) = entries([], ["."], tmp_path)
  assert here.name == workdir.name
  check_alike([here])


def test_guarding_leaves_what_is_no_mistake_of_a_config():
  for error in (RuntimeError, OSError, MemoryError, KeyboardInterrupt):
    with pytest.raises(error), guarding("w"):
      raise error
  for error in (TypeError, KeyError, RecursionError, NotImplementedError):
    with pytest.raises(UserError, match=f"w: {error.__name__}"), guarding("w"):
      raise error("x\ny")


def test_a_good_workdir_is_read_as_ever(workdir):
  assert read_model(str(workdir)).step == 2
