"""`jaxgen import` and `export`: other people's weights are ours, and back."""

import hashlib
import importlib
import shutil

import jax
import numpy as np
import pytest
from verbs import tree

import jaxgen
from jaxgen import config, core, experiment, sharding, train
from jaxgen.checkpoint.restore import latest_meta, restore_subset
from jaxgen.config import build
from jaxgen.convert import initial_state
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import names, tensor_files
from jaxgen.sampling import trained

ADM = "configs/digits_adm.py:debug"
SMALL = f"--config={ADM}", "--config.model.net.mults=(1,)"


def small(name=ADM):
  """A config with a net of one level."""
  c = config.load(name)
  c.model.net.mults, c.data.channels = (1,), 0
  if "head" in c.model.net:
    c.model.net.head = 16
  return c


def write_checkpoint(path, c, source):
  """A checkpoint of random weights for a config's net -> our tree of them."""
  model, rng = build(c.model), np.random.default_rng(0)
  batch = {"x": jax.ShapeDtypeStruct((1, 8, 8, 1), np.uint8)}
  if c.data.classes:
    batch["y"] = jax.ShapeDtypeStruct((1,), np.int32)
  shapes, _ = jax.eval_shape(lambda b: model.init(core.on_device(b), jax.random.key(0)), batch)
  weights = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32) / 9, shapes["net"])
  tensor_files.write(path, names.give(weights, source))
  return weights


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  """-> workdir of an import, its file, and the weights; not to be changed."""
  folder = tmp_path_factory.mktemp("imported")
  weights = write_checkpoint(folder / "theirs.pt", small(), "adm")
  import_weights(folder / "theirs.pt", folder / "w", "adm", small(), size=8, licence="MIT, by X")
  return folder / "w", folder / "theirs.pt", weights


def test_every_weight_and_average_is_theirs(imported):
  workdir, file, weights = imported
  like = Experiment.of(small()).abstract(
    initial_state.DataSpec("digits", (8, 8, 1), 10), sharding.make_mesh()
  )
  step, state, _ = restore_subset(
    workdir, {"params": like.params, "ema": like.ema, "opt": like.opt}
  )
  assert step == 0
  for ours in (state["params"], state["ema"]["main"]):
    jax.tree.map(np.testing.assert_array_equal, ours["net"], weights)
  opt = jax.tree.leaves(state["opt"])
  assert opt and not any(map(np.any, opt))
  meta = latest_meta(workdir)
  note = meta["import"]
  assert note["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
  assert (note["source"], note["file"], note["licence"]) == ("adm", "theirs.pt", "MIT, by X")
  assert meta["data"]["shape"] == [8, 8, 1]
  assert meta["data"]["fingerprint"] is None


def test_an_import_samples(imported):
  model = jaxgen.load(str(imported[0]))
  x = model.sample(0, 2, labels=[3, 7], steps=2)
  assert x.shape == (2, 8, 8, 1) and x.dtype == np.uint8 and x.std() > 0


@pytest.mark.parametrize("end", ["pt", "safetensors"])
def test_out_again_bit_by_bit(end, imported, tmp_path, verb):
  workdir, file, _ = imported
  before = tree(workdir)
  status, out, lines = verb("export", f"--workdir={workdir}", f"--out={tmp_path}/x.{end}")
  assert (status, lines) == (0, [])
  assert "of step 0" in out and "theirs.pt: MIT, by X" in out
  theirs, back = tensor_files.read(file), tensor_files.read(tmp_path / f"x.{end}")
  assert set(back) == set(theirs)
  for name, tensor in theirs.items():
    assert back[name].read().tobytes() == tensor.read().tobytes()
  if end == "pt":
    assert (tmp_path / "x.pt").read_bytes() == file.read_bytes()
  assert tree(workdir) == before


@pytest.mark.slow
def test_fine_tuning_goes_on_from_an_import(imported, tmp_path):
  """With other settings at first; from then on it is a run like any other."""
  _, _, weights = imported
  workdir, c = tmp_path / "w", small()
  shutil.copytree(imported[0], workdir)
  c.model.bound = 2.0
  with pytest.raises(UserError, match="config.model.bound is 2.0"):
    train.train(c, str(workdir), quiet=True)
  c = small()
  c.steps, c.batch, c.log.pictures = 1, 4, 0
  c.optim.net.lr, c.data.split = 1e-6, "test"
  state = train.train(c, str(workdir), quiet=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.params["net"], weights
  )
  meta = latest_meta(workdir)
  assert meta["step"] == 1 and meta["import"]["licence"] == "MIT, by X"
  assert meta["data"]["fingerprint"]
  c.optim.net.lr = 1e-5
  with pytest.raises(UserError, match="began with"):
    train.train(c, str(workdir), quiet=True)
  c.optim.net.lr = 1e-6
  open_data = experiment.open_data

  def other(c):
    c = c.copy_and_resolve_references()
    c.data.split = "train"
    return open_data(c)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, "open_data", other)
    with pytest.raises(UserError, match="other data"):
      train.train(c, str(workdir), quiet=True)


def test_classifiers_and_other_sources(tmp_path):
  """A guide of ADM's kind; SR3, whose code wants its schedule beside; one with a target net."""
  for name, source, more in (
    ("configs/digits_guide.py:debug", "adm", 0),
    ("configs/sr3.py:debug", "sr3", 12),
    ("configs/consistency.py:debug", "consistency", 0),
  ):
    file, workdir = tmp_path / f"{source}.pt", tmp_path / source
    weights = write_checkpoint(file, small(name), source)
    import_weights(file, workdir, source, small(name), size=8)
    jax.tree.map(
      np.testing.assert_array_equal, trained.load_trained(workdir).params["net"], weights
    )
    done = export_weights(workdir, tmp_path / "x.safetensors")
    theirs, back = tensor_files.read(file), tensor_files.read(tmp_path / "x.safetensors")
    assert done["tensors"] == len(back) == len(theirs) + more
    for key, tensor in theirs.items():
      assert back[key].read().tobytes() == tensor.read().tobytes()


def test_heads_are_sayable(imported, tmp_path, verb):
  """Flags go into the config, with one or without; what is unknown is asked."""
  _, file, weights = imported
  argv = ["import", "--source=adm", "--size=8", f"--checkpoint={file}"]
  facts = ["--heads=4", "--heads_up=2", "--attention_order=new"]
  status, _, lines = verb(*argv, f"--workdir={tmp_path / 'w'}", *SMALL, *facts)
  assert status == 0, lines
  net = latest_meta(tmp_path / "w")["config"]["model"]["net"]
  assert (net["heads"], net["heads_up"], net["split_first"]) == (4, 2, True)
  jax.tree.map(
    np.testing.assert_array_equal, trained.load_trained(tmp_path / "w").params["net"], weights
  )
  line = mistake(verb(*argv, f"--workdir={tmp_path / 'w2'}"))
  assert "--heads=4" in line and "--schedule" in line
  assert not (tmp_path / "w2").exists()


def test_names_that_are_no_text(imported, tmp_path, verb):
  """A file, and a folder, whose names are not UTF-8, or hold escapes."""
  folder = tmp_path / "\udcff\x1b[2J"
  folder.mkdir()
  for end in ("pt", "safetensors"):
    file = folder / f"\udcfe.{end}"
    tensor_files.write(file, tensor_files.read(imported[1]))
    argv = "import", "--source=adm", "--size=8", f"--checkpoint={file}", *SMALL
    status, out, lines = verb(*argv, f"--workdir={tmp_path / end}", "--config.model.net.head=16")
    assert status == 0 and "step 0" in out, lines
    assert out.encode() and out.strip().isprintable()
    report = export_weights(str(tmp_path / end), str(folder / f"out.{end}"))
    assert report["import"]["file"] == file.name


def mistake(ended):
  """The one line with which a verb ended."""
  status, out, lines = ended
  assert (status, out, len(lines)) == (2, "", 1), lines
  return lines[0]


IMPORT = {
  "nothing": (["--source="], "--source= is empty"),
  "source": (["--source=amd"], "no source 'amd'; did you mean 'adm'?"),
  "file": (["--checkpoint={}/x.pt"], "there is no file"),
  "key": (["--key=ema"], "no tensors under --key=ema"),
  "size": (["--size=0"], "give --size"),
  "net": (
    ["--config.model.net.width=32"],
    "time_embed.0.weight: file has [64, 16], config wants [128, 32], ",
  ),
  "one head": (["--source=sr3"], "sr3's attention has one head"),
  "names": (["--source=sr3", "--heads=1"], "sr3 has no name for this net's label/embed"),
  "heads": (["--source=diffusers"], "set heads=1 or split_first=True"),
  "split": (["--heads=3"], "16 channels cannot be split into 3 heads"),
  "heads_up": (
    ["--heads_up=5", "--config.model.net.attend=(8,)"],
    "16 channels cannot be split into 5 heads",
  ),
  "number": (["--heads=x"], "flag --heads=x: want"),
  "none": (["--heads=0"], "--heads=0: want at least 1"),
  "order": (["--attention_order=old"], "want new or legacy"),
  "labels": (["--config.model.classes=9"], "data.classes=10"),
  "whole": (["--workdir={imported}"], "holds checkpoints already"),
  "place": (["--workdir={file}/w"], "cannot write"),
}


EXPORT = {
  "nothing": (["--out="], "export needs --workdir"),
  "workdir": (["--workdir={}/none"], "there is no folder"),
  "name": (["--out={}/x.npz"], "ends in .bin, .ckpt, .pt"),
  "source": (["--source=adn"], "did you mean 'adm'?"),
  "profile": (["--ema=mian"], "did you mean 'main'?"),
  "step": (["--step=3"], "there are [0]"),
  "heads": (["--source=diffusers"], "set heads=1"),
}


CASES = [("import", *case) for case in IMPORT.values()]
CASES += [("export", *case) for case in EXPORT.values()]


@pytest.mark.parametrize("name, argv, message", CASES, ids=[*IMPORT, *EXPORT])
def test_mistakes(name, argv, message, imported, tmp_path, verb, monkeypatch):
  """One line, and nothing is written."""
  workdir, file, _ = imported
  before = tree(workdir)
  monkeypatch.setattr("jaxgen.monitor.progress.Progress.at", lambda *_: None)
  common = {
    "import": (
      f"--checkpoint={file}",
      f"--workdir={tmp_path / 'w'}",
      "--source=adm",
      "--size=8",
      *SMALL,
    ),
    "export": (f"--workdir={workdir}", f"--out={tmp_path}/x.pt"),
  }[name]
  places = {"{}": tmp_path, "{imported}": workdir, "{file}": file}
  for key, place in places.items():
    argv = [a.replace(key, str(place)) for a in argv]
  assert message in mistake(verb(name, *common, *argv))
  assert not any(tmp_path.iterdir()) and tree(workdir) == before


def test_a_file_that_wants_code_ends_the_verb(tmp_path, verb):
  file = "--checkpoint=tests/golden/torch_module.pt"
  line = mistake(verb("import", "--source=adm", file, f"--workdir={tmp_path / 'w'}"))
  assert "asks for torch.nn.modules.linear.Linear: refused" in line


def test_the_verb_is_a_module_though_its_name_is_a_keyword():
  verb = importlib.import_module("jaxgen.convert.import_")
  assert "--source adm" in verb.__doc__
