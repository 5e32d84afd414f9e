"""The verb by protocol: what it takes, writes, refuses, and survives."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import looks
import numpy as np
import pytest
import xla
from ml_collections import ConfigDict
from PIL import Image
from verbs import ROOT, call, finish, tree

from jaxgen import config, load, train
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import collect, learned
from jaxgen.evaluation import features as evaluation_features
from jaxgen.evaluation import judge as judges
from jaxgen.evaluation.periodic import Periodic
from jaxgen.experiment import Experiment, open_data
from jaxgen.monitor import pictures
from jaxgen.monitor.log import read_jsonl

HERE = pathlib.Path(__file__).parents[1]
OPEN_EXTRACTOR = evaluation_features.open_extractor


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A tiny VAE of digits, its config and its last state."""
  workdir = tmp_path_factory.mktemp("eval") / "w"
  c = config.load("configs/digits_vae.py:debug")
  c.steps, c.checkpoint.every, c.log.pictures = 4, 2, 0
  return workdir, c, train.train(c, str(workdir), quiet=True)


@pytest.fixture
def verb(capsys, monkeypatch, tmp_path):
  """`jaxgen eval` within tmp_path -> status, what it printed, errors."""
  monkeypatch.setattr(evaluation_features, "open_extractor", looks.opened)
  monkeypatch.chdir(tmp_path)
  return lambda text: call(capsys, monkeypatch, "eval", *text.split())


@pytest.fixture
def judge(verb, tmp_path):
  """The verb for samples and a reference in the folder `in`, by adm."""
  (tmp_path / "in").mkdir()
  np.savez(tmp_path / "in/own.npz", looks.pictures(90, 1), np.arange(90) % 3)
  np.savez(tmp_path / "in/real.npz", looks.pictures(70, 2), np.arange(70) % 3)
  return lambda text: verb(f"--samples=in/own.npz --ref=in/real.npz --protocol=adm {text}")


def read(path):
  return json.loads(pathlib.Path(path).read_text())


def test_a_file_against_a_file(judge, tmp_path):
  status, printed, err = judge("--out=x.json")
  assert status == 0 and "fid@adm" in printed and "protocol adm" in printed
  card = read("x.json")
  assert set(card["scores"]) == {f"{k}@adm" for k in ("fid", "sfid", "is", "precision", "recall")}
  assert card["samples"]["images"] == 90
  sha256 = hashlib.sha256((tmp_path / "in/own.npz").read_bytes()).hexdigest()
  assert card["samples"]["sha256"] == sha256
  assert "90 images: protocol adm counts 50,000" in card["warnings"][0]
  assert card["warnings"][0] in err[0]
  assert {p.name for p in tmp_path.iterdir()} == {"in", "x.json"}


def test_few_images_are_warned_of(judge):
  np.savez("in/own.npz", looks.pictures(11))
  np.savez("in/real.npz", looks.pictures(12))
  status, _, err = judge("--metrics=fid")
  assert status == 0
  assert "fewer images (11) than dimensions (12)" in "".join(err)
  assert "fewer reference images (12) than dimensions (12)" in "".join(err)


def test_a_folder_scores_as_the_file_of_its_images(judge, tmp_path):
  folder(tmp_path / "in/own", *map(Image.fromarray, np.load("in/own.npz")["arr_0"]))
  for name in ("own", "own.npz"):
    assert judge(f"--samples=in/{name} --out={name}.json")[0] == 0
  a, b = read("own.json"), read("own.npz.json")
  assert a["scores"] == b["scores"]
  assert a["samples"]["sha256"] != b["samples"]["sha256"]


def test_a_model_is_judged_and_the_log_knows(verb, trained):
  workdir, _, _ = trained
  before = tree(workdir)
  status, printed, _ = verb(f"--workdir={workdir} --protocol=edm --num=64 --batch=24 --seed=3")
  assert status == 0 and "against digits, protocol edm" in printed
  card = read(workdir / "evals" / "00000004-edm-64.json")
  assert card["samples"]["step"] == 4 and card["samples"]["seed"] == 3
  assert card["samples"]["ema"] == "main" and card["samples"]["weights"]
  assert card["reference"]["name"] == "digits"
  row = read_jsonl(workdir / "metrics.jsonl")[-1]
  assert row["step"] == 4 and "net/loss" in row
  assert row["eval/fid@edm"] == card["scores"]["fid@edm"]
  after = tree(workdir)
  changed = {str(k) for k in after if after[k] != before.get(k)}
  assert {k for k in changed if not k.startswith("evals")} == {"metrics.jsonl"}
  # The images are those of `jaxgen sample`, whatever the batch.
  np.savez("own.npz", load(workdir).sample(3, 64))
  assert verb("--samples=own.npz --convert --protocol=edm --ref=digits --out=f.json")[0] == 0
  # (Rounding of halves apart: EDM's rule is up, sample's to even.)
  again = read("f.json")["scores"]
  assert again["fid@edm"] == pytest.approx(card["scores"]["fid@edm"], rel=1e-6)


def test_training_judges_as_the_verb_does(verb, trained):
  workdir, c, state = trained
  experiment = Experiment.of(c)
  periodic = Periodic(
    dict(every=2, num=48, batch=16),
    config.as_json(c),
    experiment.model,
    open_data(c),
    str(workdir),
    looks.opened,
  )
  assert periodic.due(4) and not periodic.due(3)
  scores = periodic.run(4, state)
  card = (workdir / "evals" / "00000004-adm-48.json").read_bytes()
  assert periodic.run(4, state) == scores  # the second time, too
  ill = state.replace(ema=jax.tree.map(lambda a: a * np.nan, state.ema))
  with pytest.warns(RuntimeWarning, match="not judged at step 4: samples 0 to"):
    assert periodic.run(4, ill) == {}
  verb(f"--workdir={workdir} --protocol=adm --num=48 --batch=16")
  now = (workdir / "evals" / "00000004-adm-48.json").read_bytes()
  assert now == card and json.loads(card)["scores"] == scores


def test_other_features_name_the_metrics(judge):
  status, printed, _ = judge("--features=dinov2 --metrics=fid,pr")
  assert status == 0 and "fid@" not in printed
  assert "frechet@dinov2" in printed and "precision@dinov2" in printed


def test_the_judge_lends_its_eyes_and_its_accuracy(verb, monkeypatch):
  full = learned.judge_config

  def short(*args):
    c = full(*args)
    c.steps = c.checkpoint.every = 2
    return c

  monkeypatch.setattr(learned, "judge_config", short)
  x, y = open_source("digits", split="test").arrays()
  np.savez("own.npz", x, y)
  status, printed, err = verb(
    "--samples=own.npz --convert --data=digits --protocol=adm --ref=digits --features=judge "
    "--judge=judge --metrics=fid,is,pr,cas --out=x.json"
  )
  assert status == 0, err
  scores = read("x.json")["scores"]
  judge = judges.open_judge(ConfigDict(dict(source="digits", split="train")), "judge")
  assert scores["cas@digits-cnn"] == judge.cas(x, y)
  # The built-in judge's own distance, of the same features.
  own = judge.distances(judge.embed(x))["frechet@digits-cnn"]
  assert scores["frechet@digits-cnn"] == pytest.approx(own, rel=1e-4)
  assert set(scores) == {f"{k}@digits-cnn" for k in ("frechet", "is", "precision", "recall", "cas")}


def test_cards_are_ranked_only_if_alike(judge, verb, tmp_path):
  np.savez("in/other.npz", looks.pictures(90, 5))
  np.savez("in/fewer.npz", looks.pictures(80, 5))
  for name in ("own", "other", "edm", "fewer"):
    change = "--protocol=edm" if name == "edm" else f"--samples=in/{name}.npz"
    assert judge(f"--metrics=fid,pr --out={name}.json {change}")[0] == 0
  status, printed, _ = verb("--card=own.json --against=other.json")
  assert status == 0 and "*" in printed and "* the best" in printed
  for name, message in (("edm", "protocol.floats is"), ("fewer", "images is 90")):
    status, printed, err = verb(f"--card=own.json --against={name}.json")
    assert (status, printed, len(err)) == (2, "", 1)
    assert "cannot be ranked" in err[0] and message in err[0]
    # And before the work, not after it.
    status, _, err = judge(f"--metrics=fid,pr --against={name}.json --out=new.json")
    assert status == 2 and message.split(" is")[0] in err[0]
    assert not (tmp_path / "new.json").exists()
  status, printed, _ = judge("--metrics=fid,pr --against=other.json")
  assert status == 0 and "this evaluation" in printed


def test_statistics_are_kept_for_next_time(judge):
  judge("--metrics=fid,sfid --save_ref=s.npz --out=a.json")
  assert judge("--ref=s.npz --metrics=fid,sfid --out=b.json")[0] == 0
  assert read("a.json")["scores"] == read("b.json")["scores"]


def folder(path, *images):
  path.mkdir()
  for i, image in enumerate(images):
    image.save(path / f"{i:02}.png")


def truncated(path, x):
  folder(path, *(Image.fromarray(a) for a in x[:4]))
  file = path / "02.png"
  file.write_bytes(file.read_bytes()[:60])


def nan(path, x):
  np.savez(path, x)
  evaluation_features.open_extractor = lambda *a, **k: looks.Stub(scale=np.nan)


X = looks.pictures(40)
PIL = [Image.fromarray(a) for a in X[:4]]
MISTAKES = {  # what `own` is -> flags, the message
  "truncated picture": (lambda p: truncated(p, X), "", "2.png cannot be read"),
  "grey pictures": (
    lambda p: folder(p, *(i.convert("L") for i in PIL)),
    "",
    "grey (L), not 8-bit RGB; --convert",
  ),
  "RGBA pictures": (
    lambda p: folder(p, *(i.convert("RGBA") for i in PIL)),
    "",
    "transparent (RGBA)",
  ),
  "mixed sizes": (lambda p: folder(p, *PIL, PIL[0].resize((9, 9))), "", "of one size"),
  "empty folder": (lambda p: p.mkdir(), "", "there are no images"),
  "one picture": (lambda p: folder(p, PIL[0]), "", "1 images are too few"),
  "floats in [0, 1]": (lambda p: np.savez(p, X / 255), "", "--floats=unit"),
  "floats in [-1, 1]": (lambda p: np.savez(p, X / 127.5 - 1), "", "--floats=signed"),
  "floats 0 .. 255": (lambda p: np.savez(p, X.astype("f4")), "", "--floats=bytes"),
  "float of other range": (lambda p: np.savez(p, X.astype("f4")), "--floats=signed", "cannot be"),
  "pickles": (lambda p: np.savez(p, np.array([{}], object)), "", "pickled Python objects"),
  "channels first": (lambda p: np.savez(p, X.transpose(0, 3, 1, 2)), "", "channels come first"),
  "nothing": (lambda p: None, "", "there is no file"),
  "NaN": (lambda p: np.savez(p, np.where(X > 9, X / 255, np.nan)), "--floats=unit", "holds NaN"),
  "features": (lambda p: nan(p, X), "", "not finite for image 0"),
  "few for KID": (
    lambda p: np.savez(p, X),
    "--metrics=fid,kid",
    "kid cannot be measured: KID on subsets of 1000",
  ),
  "few neighbours": (lambda p: np.savez(p, X[:3]), "--metrics=pr", "neighbours need more"),
  "fewer than asked": (lambda p: np.savez(p, X), "--num=41", "num=41, but"),
  "labels": (
    lambda p: np.savez(p, X),
    "--metrics=fid_by_class",
    "labels of samples and of the reference",
  ),
  "metric": (lambda p: np.savez(p, X), "--metrics=fdi", "did you mean 'fid'"),
  "protocol": (lambda p: np.savez(p, X), "--protocol=admm", "did you mean 'adm'"),
  "against": (lambda p: np.savez(p, X), "--against=none.json", "there is no card none.json"),
  "out": (lambda p: np.savez(p, X), "--out=x.txt", "want x.json"),
  "ref": (lambda p: np.savez(p, X), "--ref=", "--ref= is empty"),
}


EARLY = {  # flags and the message before any image is looked at
  "kid": ("--metrics=fid,kid", "kid cannot be measured: KID on subsets"),
  "kid of few": ("--metrics=kid --kid_size=80", "there are 90 and 70"),
  "neighbours": ("--metrics=pr --num=3", "neighbours need more"),
  "density": ("--metrics=dc --num=3", "neighbours need more"),
  "splits": ("--metrics=is --num=9 --protocol=edm", "9 images do not make 10 splits"),
  "no line": ("--metrics=fid_infinity --num=5", "subsets of 5 images"),
  "classes": ("--metrics=fid_by_class --ref=in/other.npz", "no class in common"),
  "no labels": (
    "--metrics=fid_by_class --ref=in/plain.npy",
    "labels of samples and of the reference",
  ),
  "grey reference": ("--ref=in/grey", "grey (L), not 8-bit RGB"),
  "mixed reference": ("--ref=in/mixed", "of one size"),
  "broken reference": ("--ref=in/broken", "cannot be read"),
  "floats of the reference": ("--ref=in/floats.npz", "say --floats=unit"),
  "floats": ("--floats=sined", "want one of signed, unit, bytes"),
  "metric": ("--metrics=fid_by_768", "did you mean 'fid768'?"),
  "another metric": ("--metrics=fid,768", "did you mean 'fid768'?"),
  "layer": ("--ref=in/768.npz", "--metrics=fid768 would fit"),
  "num": ("--num=1", "--num=1: want at least 2"),
  "kid_size": ("--kid_size=1 --metrics=kid", "--kid_size=1: want"),
  "batch": ("--batch=0", "--batch=0: want at least 1"),
  "save_ref": ("--save_ref=x.txt", "want x.npz"),
  "out is a folder": ("--out=in/folder.json", "is a folder"),
  "out where nothing is": ("--out=/proc/x.json", "nothing can be written"),
  "out is below a file": ("--out=in/own.npz/x.json", "in/own.npz is no folder"),
  "cas without data": ("--metrics=fid,cas", "cas wants labelled samples"),
  "cas of others": ("--metrics=fid,cas --data=digits", "labels of samples go up to 2"),
}


@pytest.mark.parametrize("case", EARLY)
def test_mistakes_are_said_before_the_work(case, judge, tmp_path, monkeypatch):
  flags, message = EARLY[case]
  work = []

  class Lazy(looks.Stub):
    def features(self, images, taps):
      work.append(taps)
      return super().features(images, taps)

  monkeypatch.setattr(evaluation_features, "open_extractor", lambda *a, **k: Lazy())
  monkeypatch.setattr(learned.train, "train", lambda *a, **k: work.append("cas"))
  files = tmp_path / "in"
  np.savez(files / "other.npz", X, np.full(40, 7))
  np.save(files / "plain.npy", X)
  np.savez(files / "floats.npz", X / 255)
  np.savez(files / "768.npz", mu=np.zeros(768), sigma=np.eye(768))
  folder(files / "grey", *(i.convert("L") for i in PIL))
  folder(files / "mixed", *PIL, PIL[0].resize((9, 9)))
  folder(files / "broken", *PIL)
  (files / "broken" / "03.png").write_bytes(b"no picture")
  (files / "folder.json").mkdir()
  before = tree(tmp_path)
  status, printed, err = judge(f"--metrics=fid,pr {flags}")
  assert (status, printed, len(err)) == (2, "", 1), err
  assert message in err[0] and not work and tree(tmp_path) == before


def test_the_judge_is_not_trained_for_samples_that_it_cannot_judge(verb, monkeypatch):
  trained = []
  monkeypatch.setattr(learned.train, "train", lambda *a, **k: trained.append(a))
  x = np.zeros((40, 8, 8, 1), np.uint8)
  for message, *arrays in (
    ("12 samples are too few", x[:12]),
    ("samples are uint8 [9, 9, 1]", np.zeros((40, 9, 9, 1), "u1")),
    ("labels of samples go up to 4", x, np.arange(40) % 5),
  ):
    np.savez("x.npz", *arrays)
    status, _, err = verb("--samples=x.npz --data=digits --judge=judge")
    assert status == 2 and message in err[0] and not trained


def test_a_late_refusal_keeps_what_was_done(judge, tmp_path, monkeypatch):
  monkeypatch.setattr(collect, "CHUNK", 16)
  monkeypatch.setattr(collect, "SAVE_SECONDS", 0)
  folder(tmp_path / "in/real", *map(Image.fromarray, looks.pictures(40, 2)))
  victim = tmp_path / "in/real/09.png"
  data = victim.read_bytes()
  victim.write_bytes(data[:-30])  # its head is all there

  def images_seen(status):
    stub = looks.Stub()
    monkeypatch.setattr(evaluation_features, "open_extractor", lambda *a, **k: stub)
    got, _, err = judge("--ref=in/real --metrics=fid --out=x.json")
    assert got == status, err
    return stub.count, err

  count, err = images_seen(2)
  assert "cannot be read" in err[0] and "what was done is kept" in err[0]
  assert count >= 90 and len(err) == 1
  victim.write_bytes(data)
  count, _ = images_seen(0)
  assert count <= 40 + 16  # the samples are not looked at again, bar a chunk
  assert not (tmp_path / "x.partial").exists()
  monkeypatch.setattr(collect, "SAVE_SECONDS", 30)
  first = read("x.json")
  images_seen(0)
  assert read("x.json") == first


def test_sizes_are_on_the_card_and_compared(judge):
  np.savez("in/small.npz", looks.pictures(60, 3, size=6))
  for ref, size in (("real.npz", "8x8"), ("small.npz", "6x6")):
    status, _, err = judge(f"--ref=in/{ref} --metrics=fid --out=x.json")
    card = read("x.json")
    assert status == 0
    assert card["samples"]["size"] == "8x8"
    assert card["reference"]["size"] == size
    warned = any("samples are 8x8 and the reference 6x6" in e for e in err)
    assert warned == (size == "6x6")
  # Of statistics of ours it is known, too.
  judge("--ref=in/small.npz --metrics=fid --save_ref=s.npz")
  _, _, err = judge("--ref=s.npz --metrics=fid")
  assert "samples are 8x8 and the reference 6x6" in "".join(err)


def test_black_images_are_suspected(judge):
  np.savez("in/own.npz", (X > 128).astype(np.uint8))
  status, _, err = judge("--metrics=fid")
  assert status == 0 and "images are black" in "".join(err)


def test_mixed_pictures_are_warned_of(judge, tmp_path):
  (tmp_path / "in/own").mkdir()
  for i, x in enumerate(X):
    info = {"workdir": "W", "step": i % 2, "seed": 0, "index": i}
    pictures.save_png(tmp_path / f"in/own/{i}.png", x, info)
  status, _, err = judge("--samples=in/own --metrics=fid --out=x.json")
  assert status == 0 and "several makings: 20 of W, step 0" in "".join(err)
  assert "several makings" in str(read("x.json")["warnings"])


SETTINGS = {
  "protocol": (dict(protocol="nonsense"), "there is no protocol 'nonsense'"),
  "protocol, off": (dict(protocol="nonsense", every=0), "no protocol"),
  "metrics": (dict(metrics=("fdi",)), "did you mean 'fid'"),
  "metrics as text": (dict(metrics="fid,kdi"), "did you mean 'kid'"),
  "metrics as numbers": (dict(metrics=(1,)), "want names"),
  "features": (dict(features="inceptoin"), "no network 'inceptoin'"),
  "weights": (dict(weights="/none.pth"), "there is no file /none.pth"),
  "ref": (dict(ref="none.npz"), "there is no file none.npz"),
  "ref of nothing": (dict(ref="none"), "no file, folder or data set 'none'"),
  "ref as number": (dict(ref=3), "want text"),
  "kid": (dict(metrics=("kid",), num=500), "KID on subsets of 1000"),
  "neighbours": (dict(metrics=("pr",), num=3), "neighbours need more"),
  "num": (dict(num=0), "at least 1"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_training_says_before_it_makes_anything(case, trained, tmp_path, monkeypatch):
  stub_or_real = lambda name, weights, resize: (
    looks.Stub() if name == "inception" and not weights else OPEN_EXTRACTOR(name, weights, resize)
  )
  monkeypatch.setattr(evaluation_features, "open_extractor", stub_or_real)
  c = trained[1].copy_and_resolve_references()
  with c.unlocked():
    c.log.eval = ConfigDict(dict(every=2) | SETTINGS[case][0])
  with pytest.raises(UserError, match=SETTINGS[case][1]):
    train.train(c, str(tmp_path / "w"), quiet=True)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_a_line_and_leave_nothing(case, judge, tmp_path):
  make, flags, message = MISTAKES[case]
  is_folder = "picture" in case or case in ("mixed sizes", "empty folder")
  own = "in/x" if is_folder else "in/x.npz"
  make(tmp_path / own)
  before = tree(tmp_path)
  status, printed, err = judge(f"--samples={own} --out=o/x.json {flags}")
  assert (status, printed, len(err)) == (2, "", 1), err
  assert message in err[0] and tree(tmp_path) == before


def test_weights_that_cannot_be_read(judge, tmp_path, monkeypatch):
  monkeypatch.setattr(evaluation_features, "open_extractor", OPEN_EXTRACTOR)
  (tmp_path / "in/w.pth").write_text("no weights")
  before = tree(tmp_path)
  status, _, err = judge("--inception=in/w.pth --out=x.json")
  assert status == 2 and len(err) == 1 and "w.pth" in err[0]
  assert tree(tmp_path) == before


RUN = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import looks
from jaxgen import cli
from jaxgen.evaluation import collect, features
collect.CHUNK, collect.SAVE_SECONDS = 16, 0

class Mortal(looks.Stub):
  def features(self, images, taps):
    if self.count >= int(sys.argv[2]):
      os.kill(os.getpid(), signal.SIGKILL)
    return super().features(images, taps)

stub = Mortal()
features.open_extractor = lambda *a, **k: stub
try:
  cli.main(["jaxgen", "eval", *sys.argv[3:]])
finally:
  print("seen", stub.count, file=sys.stderr)
"""


def begin(workdir, out, most=10**9, devices=1):
  """Judges 96 samples in another process, which dies after `most` images."""
  argv = [f"--workdir={workdir}", "--protocol=adm", "--num=96", f"--out={out}"]
  return subprocess.Popen(
    [sys.executable, "-c", RUN, str(HERE / "helpers"), str(most), *argv],
    cwd=ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env=os.environ | {"XLA_FLAGS": xla.devices(devices)},
  )


def test_a_killed_evaluation_goes_on_and_devices_do_not_matter(trained, tmp_path):
  workdir = trained[0]
  one, four = (
    begin(workdir, tmp_path / "one.json"),
    begin(workdir, tmp_path / "four.json", devices=4),
  )
  killed = begin(workdir, tmp_path / "k.json", most=64)
  assert finish(killed)[0] == -signal.SIGKILL
  assert not (tmp_path / "k.json").exists()
  assert (tmp_path / "k.partial" / "samples" / "state.npz").exists()
  # Once more, while it looks at the reference.
  assert finish(begin(workdir, tmp_path / "k.json", most=400))[0] == (-signal.SIGKILL)
  assert (tmp_path / "k.partial" / "reference" / "state.npz").exists()
  status, _, err = finish(begin(workdir, tmp_path / "k.json"))
  assert status == 0 and 0 < int(err[-1].split()[1]) < 1200  # of 96 + 1438
  status, _, err = finish(one)
  assert status == 0 and int(err[-1].split()[1]) == 96 + 1438
  assert (tmp_path / "k.json").read_bytes() == (tmp_path / "one.json").read_bytes()
  assert not (tmp_path / "k.partial").exists()

  assert finish(four)[0] == 0
  one, many = read(tmp_path / "one.json"), read(tmp_path / "four.json")
  assert (one["device"]["count"], many["device"]["count"]) == (1, 4)
  assert one["samples"] == many["samples"]
  for name, value in one["scores"].items():
    assert many["scores"][name] == pytest.approx(value, rel=1e-9), name
