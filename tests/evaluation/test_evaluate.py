"""The verb by protocol: what it takes, writes, refuses, and survives."""

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
from ml_collections import ConfigDict
from PIL import Image
from verbs import ROOT, call, finish, tree

from jaxgen import config, load, train
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import collect
from jaxgen.evaluation import features as evaluation_features
from jaxgen.evaluation import judge as judges
from jaxgen.evaluation.periodic import Periodic
from jaxgen.experiment import Experiment, open_data
from jaxgen.monitor.log import read_jsonl

HERE = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A tiny VAE of digits, its config and its last state."""
  workdir = tmp_path_factory.mktemp("eval") / "w"
  c = config.load("configs/digits_vae.py:debug")
  c.steps, c.checkpoint.every, c.log.pictures = 4, 2, 0
  return workdir, c, train.train(c, str(workdir), quiet=True)


@pytest.fixture
def verb(capsys, monkeypatch):
  monkeypatch.setattr(evaluation_features, "open_extractor", looks.opened)
  return lambda *argv: call(capsys, monkeypatch, "eval", *argv)


@pytest.fixture
def files(tmp_path):
  """Samples and a reference, in a folder of their own."""
  folder = tmp_path / "given"
  folder.mkdir()
  np.savez(folder / "own.npz", looks.pictures(90, 1), np.arange(90) % 3)
  np.savez(folder / "real.npz", looks.pictures(70, 2), np.arange(70) % 3)
  return folder


def judge(verb, files, *argv, protocol="adm", samples="own.npz"):
  return verb(
    "--samples", files / samples, "--ref", files / "real.npz", "--protocol", protocol, *argv
  )


def test_a_file_against_a_file(verb, files, tmp_path):
  out = tmp_path / "x.json"
  status, printed, err = judge(verb, files, "--out", out)
  assert status == 0 and "fid@adm" in printed and "protocol adm" in printed
  card = json.loads(out.read_text())
  assert set(card["scores"]) == {f"{k}@adm" for k in ("fid", "sfid", "is", "precision", "recall")}
  assert card["samples"]["images"] == 90
  assert (
    card["samples"]["sha256"]
    == subprocess.run(
      ["sha256sum", files / "own.npz"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
  )
  assert "90 images: protocol adm counts 50,000" in card["warnings"][0]
  assert card["warnings"][0] in err[0]
  assert set(tmp_path.iterdir()) == {files, out}


def test_few_images_are_warned_of(verb, files):
  np.savez(files / "own.npz", looks.pictures(11))
  np.savez(files / "real.npz", looks.pictures(12))
  status, _, err = judge(verb, files, "--metrics=fid")
  assert status == 0
  assert "fewer images (11) than dimensions (12)" in "".join(err)
  assert "fewer reference images (12) than dimensions (12)" in "".join(err)


def test_a_folder_scores_as_the_file_of_its_images(verb, files, tmp_path):
  (files / "own").mkdir()
  for i, x in enumerate(np.load(files / "own.npz")["arr_0"]):
    Image.fromarray(x).save(files / "own" / f"{i:03}.png")
  for name in ("own", "own.npz"):
    assert judge(verb, files, "--out", tmp_path / f"{name}.json", samples=name)[0] == 0
  a, b = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("own", "own.npz"))
  assert a["scores"] == b["scores"]
  assert a["samples"]["sha256"] != b["samples"]["sha256"]


def test_a_model_is_judged_and_the_log_knows(verb, trained, tmp_path):
  workdir, _, _ = trained
  before = tree(workdir)
  status, printed, _ = verb(
    "--workdir", workdir, "--protocol=edm", "--num=64", "--batch=24", "--seed=3"
  )
  assert status == 0 and "against digits, protocol edm" in printed
  card = json.loads((workdir / "evals" / "00000004-edm-64.json").read_text())
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
  np.savez(tmp_path / "own.npz", load(workdir).sample(3, 64))
  status, _, _ = verb(
    "--samples",
    tmp_path / "own.npz",
    "--convert",
    "--protocol=edm",
    "--ref=digits",
    "--out",
    tmp_path / "f.json",
  )
  again = json.loads((tmp_path / "f.json").read_text())["scores"]
  # (Rounding of halves apart: EDM's rule is up, sample's to even.)
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
  verb("--workdir", workdir, "--protocol=adm", "--num=48", "--batch=16")
  now = (workdir / "evals" / "00000004-adm-48.json").read_bytes()
  assert now == card and json.loads(card)["scores"] == scores


def test_other_features_name_the_metrics(verb, files):
  status, printed, _ = judge(verb, files, "--features=dinov2", "--metrics=fid,pr")
  assert status == 0 and "fid@" not in printed
  assert "frechet@dinov2" in printed and "precision@dinov2" in printed


def test_the_judge_lends_its_eyes_and_its_accuracy(verb, tmp_path, monkeypatch):
  whole = judges.judge_config

  def short(*args):
    c = whole(*args)
    c.steps = c.checkpoint.every = 2
    return c

  monkeypatch.setattr(judges, "judge_config", short)
  x, y = open_source("digits", split="test").arrays()
  np.savez(tmp_path / "own.npz", x, y)
  status, printed, err = verb(
    "--samples",
    tmp_path / "own.npz",
    "--convert",
    "--data=digits",
    "--protocol=adm",
    "--ref=digits",
    "--features=judge",
    "--judge",
    tmp_path / "judge",
    "--metrics=fid,is,pr,cas",
    "--out",
    tmp_path / "x.json",
  )
  assert status == 0, err
  card = json.loads((tmp_path / "x.json").read_text())
  judge = judges.open_judge(
    ConfigDict(dict(source="digits", split="train")), str(tmp_path / "judge")
  )
  assert card["scores"]["cas@digits-cnn"] == judge.cas(x, y)
  # The built-in judge's own distance, of the same features.
  assert card["scores"]["frechet@digits-cnn"] == pytest.approx(
    judge.distances(judge.embed(x))["frechet@digits-cnn"], rel=1e-4
  )
  assert set(card["scores"]) == {
    f"{k}@digits-cnn" for k in ("frechet", "is", "precision", "recall", "cas")
  }


def test_cards_are_ranked_only_if_alike(verb, files, tmp_path):
  np.savez(files / "other.npz", looks.pictures(90, 5))
  np.savez(files / "fewer.npz", looks.pictures(80, 5))
  cards = {k: tmp_path / f"{k}.json" for k in ("own", "other", "edm", "fewer")}
  for name, path in cards.items():
    how = dict(protocol="edm") if name == "edm" else {}
    file = "own.npz" if name == "edm" else f"{name}.npz"
    assert judge(verb, files, "--metrics=fid,pr", "--out", path, samples=file, **how)[0] == 0
  status, printed, _ = verb("--card", cards["own"], "--against", cards["other"])
  assert status == 0 and "*" in printed and "* the best" in printed
  for name, said in (("edm", "protocol.floats is"), ("fewer", "images is 90")):
    status, printed, err = verb("--card", cards["own"], "--against", cards[name])
    assert (status, printed, len(err)) == (2, "", 1)
    assert "cannot be ranked" in err[0] and said in err[0]
    # And before the work, not after it.
    status, _, err = judge(
      verb, files, "--metrics=fid,pr", "--against", cards[name], "--out", tmp_path / "new.json"
    )
    assert status == 2 and said.split(" is")[0] in err[0]
    assert not (tmp_path / "new.json").exists()
  status, printed, _ = judge(
    verb, files, "--metrics=fid,pr", "--against", cards["other"], samples="own.npz"
  )
  assert status == 0 and "this evaluation" in printed


def test_statistics_are_kept_for_next_time(verb, files, tmp_path):
  judge(
    verb,
    files,
    "--metrics=fid,sfid",
    "--save_ref",
    tmp_path / "s.npz",
    "--out",
    tmp_path / "a.json",
  )
  status, _, _ = verb(
    "--samples",
    files / "own.npz",
    "--ref",
    tmp_path / "s.npz",
    "--protocol=adm",
    "--metrics=fid,sfid",
    "--out",
    tmp_path / "b.json",
  )
  a, b = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "ab")
  assert status == 0 and a["scores"] == b["scores"]


def folder(path, *images):
  path.mkdir()
  for i, image in enumerate(images):
    image.save(path / f"{i}.png")


def truncated(path, x):
  folder(path, *(Image.fromarray(a) for a in x[:4]))
  file = path / "2.png"
  file.write_bytes(file.read_bytes()[:60])


def nan(path, x):
  np.savez(path, x)
  evaluation_features.open_extractor = lambda *a, **k: looks.Stub(scale=np.nan)


X = looks.pictures(40)
PIL = [Image.fromarray(a) for a in X[:4]]
MISTAKES = {  # what `own` is -> flags, what is said
  "truncated picture": (lambda p: truncated(p, X), [], "2.png cannot be read"),
  "grey pictures": (
    lambda p: folder(p, *(i.convert("L") for i in PIL)),
    [],
    "grey (L), not 8-bit RGB; --convert",
  ),
  "RGBA pictures": (
    lambda p: folder(p, *(i.convert("RGBA") for i in PIL)),
    [],
    "transparent (RGBA)",
  ),
  "mixed sizes": (lambda p: folder(p, *PIL, PIL[0].resize((9, 9))), [], "of one size"),
  "empty folder": (lambda p: p.mkdir(), [], "there are no images"),
  "one picture": (lambda p: folder(p, PIL[0]), [], "1 images are too few"),
  "floats in [0, 1]": (lambda p: np.savez(p, X / 255), [], "--floats=unit"),
  "floats in [-1, 1]": (lambda p: np.savez(p, X / 127.5 - 1), [], "--floats=signed"),
  "floats 0 .. 255": (lambda p: np.savez(p, X.astype("f4")), [], "--floats=bytes"),
  "float of other range": (lambda p: np.savez(p, X.astype("f4")), ["--floats=signed"], "cannot be"),
  "pickles": (lambda p: np.savez(p, np.array([{}], object)), [], "pickled Python objects"),
  "channels first": (lambda p: np.savez(p, X.transpose(0, 3, 1, 2)), [], "channels come first"),
  "nothing": (lambda p: None, [], "there is no file"),
  "NaN": (lambda p: np.savez(p, np.where(X > 9, X / 255, np.nan)), ["--floats=unit"], "holds NaN"),
  "features": (lambda p: nan(p, X), [], "not finite for image 0"),
  "few for KID": (
    lambda p: np.savez(p, X),
    ["--metrics=fid,kid"],
    "kid cannot be measured: KID on subsets of 1000",
  ),
  "few neighbours": (lambda p: np.savez(p, X[:3]), ["--metrics=pr"], "neighbours need more"),
  "fewer than asked": (lambda p: np.savez(p, X), ["--num=41"], "num=41, but"),
  "labels": (
    lambda p: np.savez(p, X),
    ["--metrics=fid_by_class"],
    "labels of samples and of the reference",
  ),
  "metric": (lambda p: np.savez(p, X), ["--metrics=fdi"], "did you mean 'fid'"),
  "protocol": (lambda p: np.savez(p, X), ["--protocol=admm"], "did you mean 'adm'"),
  "against": (lambda p: np.savez(p, X), ["--against=none.json"], "there is no card none.json"),
  "out": (lambda p: np.savez(p, X), ["--out=x.txt"], "want x.json"),
  "ref": (lambda p: np.savez(p, X), ["--ref="], "--ref= is empty"),
}


EARLY = {  # flags and what is said before any image is looked at
  "kid": (["--metrics=fid,kid"], "kid cannot be measured: KID on subsets"),
  "kid of few": (["--metrics=kid", "--kid_size=80"], "there are 90 and 70"),
  "neighbours": (["--metrics=pr", "--num=3"], "neighbours need more"),
  "density": (["--metrics=dc", "--num=3"], "neighbours need more"),
  "splits": (["--metrics=is", "--num=9", "--protocol=edm"], "9 images do not make 10 splits"),
  "no line": (["--metrics=fid_infinity", "--num=5"], "subsets of 5 images"),
  "classes": (["--metrics=fid_by_class", "--ref={}/other.npz"], "no class in common"),
  "no labels": (
    ["--metrics=fid_by_class", "--ref={}/plain.npy"],
    "labels of samples and of the reference",
  ),
  "grey reference": (["--ref={}/grey"], "grey (L), not 8-bit RGB"),
  "mixed reference": (["--ref={}/mixed"], "of one size"),
  "broken reference": (["--ref={}/broken"], "cannot be read"),
  "floats of the reference": (["--ref={}/floats.npz"], "say --floats=unit"),
  "floats": (["--floats=sined"], "want one of signed, unit, bytes"),
  "metric": (["--metrics=fid_by_768"], "did you mean 'fid768'?"),
  "another metric": (["--metrics=fid,768"], "did you mean 'fid768'?"),
  "layer": (["--ref={}/768.npz"], "--metrics=fid768 would fit"),
  "num": (["--num=1"], "--num=1: want at least 2"),
  "kid_size": (["--kid_size=1", "--metrics=kid"], "--kid_size=1: want"),
  "batch": (["--batch=0"], "--batch=0: want at least 1"),
  "save_ref": (["--save_ref=x.txt"], "want x.npz"),
  "out is a folder": (["--out={}/folder.json"], "is a folder"),
  "out where nothing is": (["--out=/proc/x.json"], "nothing can be written"),
  "out is below a file": (["--out={}/own.npz/x.json"], "nothing can be"),
  "cas without data": (["--metrics=fid,cas"], "cas wants labelled samples"),
  "cas of others": (["--metrics=fid,cas", "--data=digits"], "labels of samples go up to 2"),
}


@pytest.mark.parametrize("case", EARLY)
def test_mistakes_are_said_before_the_work(case, verb, files, monkeypatch):
  flags, said = EARLY[case]
  seen = []

  class Lazy(looks.Stub):
    def features(self, images, taps):
      seen.append(taps)
      return super().features(images, taps)

  monkeypatch.setattr(evaluation_features, "open_extractor", lambda *a, **k: Lazy())
  monkeypatch.setattr(judges.train, "train", lambda *a, **k: seen.append("cas"))
  np.savez(files / "other.npz", X, np.full(40, 7))
  np.save(files / "plain.npy", X)
  np.savez(files / "floats.npz", X / 255)
  np.savez(files / "768.npz", mu=np.zeros(768), sigma=np.eye(768))
  folder(files / "grey", *(i.convert("L") for i in PIL))
  folder(files / "mixed", *PIL, PIL[0].resize((9, 9)))
  folder(files / "broken", *PIL)
  (files / "broken" / "3.png").write_bytes(b"no picture")
  (files / "folder.json").mkdir()
  before = tree(files)
  status, printed, err = judge(verb, files, "--metrics=fid,pr", *(f.format(files) for f in flags))
  assert (status, printed, len(err)) == (2, "", 1), err
  assert said in err[0] and not seen and tree(files) == before


def test_the_judge_is_not_trained_for_samples_that_it_cannot_judge(verb, files, monkeypatch):
  trained = []
  monkeypatch.setattr(judges.train, "train", lambda *a, **k: trained.append(a))
  x = np.zeros((40, 8, 8, 1), np.uint8)
  for name, said, *arrays in (
    ("few", "12 samples are too few", x[:12]),
    ("large", "samples are uint8 [9, 9, 1]", np.zeros((40, 9, 9, 1), "u1")),
    ("labels", "labels of samples go up to 4", x, np.arange(40) % 5),
  ):
    np.savez(files / f"{name}.npz", *arrays)
    status, _, err = verb(
      "--samples", files / f"{name}.npz", "--data=digits", "--judge", files / "judge"
    )
    assert status == 2 and said in err[0] and not trained


def test_a_late_refusal_keeps_what_was_done(verb, files, tmp_path, monkeypatch):
  monkeypatch.setattr(collect, "CHUNK", 16)
  monkeypatch.setattr(collect, "SAVE_SECONDS", 0)
  folder(files / "real", *(Image.fromarray(x) for x in looks.pictures(40, 2)))
  victim = files / "real" / "9.png"
  whole = victim.read_bytes()
  victim.write_bytes(whole[:-30])  # its head is whole

  def seen(status):
    stub = looks.Stub()
    monkeypatch.setattr(evaluation_features, "open_extractor", lambda *a, **k: stub)
    got, _, err = judge(
      verb, files, "--ref", files / "real", "--metrics=fid", "--out", tmp_path / "x.json"
    )
    assert got == status, err
    return stub.seen, err

  count, err = seen(2)
  assert "cannot be read" in err[0] and "what was done is kept" in err[0]
  assert count >= 90 and len(err) == 1
  victim.write_bytes(whole)
  count, _ = seen(0)
  assert count <= 40 + 16  # the samples are not looked at again, bar a chunk
  assert not (tmp_path / "x.partial").exists()
  monkeypatch.setattr(collect, "SAVE_SECONDS", 30)
  first = json.loads((tmp_path / "x.json").read_text())
  seen(0)
  assert json.loads((tmp_path / "x.json").read_text()) == first


def test_sizes_are_on_the_card_and_compared(verb, files, tmp_path):
  np.savez(files / "small.npz", looks.pictures(60, 3, size=6))
  for ref, size in (("real.npz", "8x8"), ("small.npz", "6x6")):
    status, _, err = judge(
      verb, files, "--ref", files / ref, "--metrics=fid", "--out", tmp_path / "x.json"
    )
    card = json.loads((tmp_path / "x.json").read_text())
    assert status == 0
    assert card["samples"]["size"] == "8x8"
    assert card["reference"]["size"] == size
    warned = any("samples are 8x8 and the reference 6x6" in e for e in err)
    assert warned == (size == "6x6")
  # Of statistics of ours it is known, too.
  judge(
    verb, files, "--ref", files / "small.npz", "--metrics=fid", "--save_ref", tmp_path / "s.npz"
  )
  _, _, err = judge(verb, files, "--ref", tmp_path / "s.npz", "--metrics=fid")
  assert "samples are 8x8 and the reference 6x6" in "".join(err)


def test_black_images_are_suspected(verb, files):
  np.savez(files / "own.npz", (X > 128).astype(np.uint8))
  status, _, err = judge(verb, files, "--metrics=fid")
  assert status == 0 and "images are black" in "".join(err)


def test_mixed_pictures_are_warned_of(verb, files, tmp_path):
  from jaxgen.monitor import pictures

  (files / "own").mkdir()
  for i, x in enumerate(X):
    pictures.save_png(
      files / "own" / f"{i}.png", x, {"workdir": "W", "step": i % 2, "seed": 0, "index": i}
    )
  status, _, err = judge(verb, files, "--metrics=fid", "--out", tmp_path / "x.json", samples="own")
  assert status == 0 and "several makings: 20 of W, step 0" in "".join(err)
  assert "several makings" in str(json.loads((tmp_path / "x.json").read_text())["warnings"])


SETTINGS = {
  "protocol": (dict(protocol="nonsense"), "there is no protocol 'nonsense'"),
  "protocol, off": (dict(protocol="nonsense", every=0), "no protocol"),
  "metrics": (dict(metrics=("fdi",)), "did you mean 'fid'"),
  "metrics as text": (dict(metrics="fid,kdi"), "did you mean 'kid'"),
  "metrics as numbers": (dict(metrics=(1,)), "want names"),
  "features": (dict(features="inceptoin"), "no network 'inceptoin'"),
  "the judge": (dict(features="judge"), "no network 'judge'"),
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
  real = evaluation_features.open_extractor
  monkeypatch.setattr(
    evaluation_features,
    "open_extractor",
    lambda name, weights, resize: (
      looks.Stub() if name == "inception" and not weights else real(name, weights, resize)
    ),
  )
  c = trained[1].copy_and_resolve_references()
  with c.unlocked():
    c.log.eval = ConfigDict(dict(every=2) | SETTINGS[case][0])
  with pytest.raises(UserError, match=SETTINGS[case][1]):
    train.train(c, str(tmp_path / "w"), quiet=True)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_a_line_and_leave_nothing(case, verb, files, tmp_path):
  make, flags, said = MISTAKES[case]
  pictures = "picture" in case or case in ("mixed sizes", "empty folder")
  own = files / ("x" if pictures else "x.npz")
  make(own)
  before = tree(tmp_path)
  status, printed, err = judge(
    verb, files, "--out", tmp_path / "o" / "x.json", *flags, samples=own.name
  )
  assert (status, printed, len(err)) == (2, "", 1), err
  assert said in err[0] and tree(tmp_path) == before


def test_weights_that_cannot_be_read(files, tmp_path, capsys, monkeypatch):
  (files / "w.pth").write_text("no weights")
  before = tree(tmp_path)
  status, _, err = call(
    capsys,
    monkeypatch,
    "eval",
    "--samples",
    files / "own.npz",
    "--ref",
    files / "real.npz",
    "--protocol=adm",
    "--inception",
    files / "w.pth",
    "--out",
    tmp_path / "x.json",
  )
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
    if self.seen >= int(sys.argv[2]):
      os.kill(os.getpid(), signal.SIGKILL)
    return super().features(images, taps)

stub = Mortal()
features.open_extractor = lambda *a, **k: stub
try:
  cli.main(["jaxgen", "eval", *sys.argv[3:]])
finally:
  print("seen", stub.seen, file=sys.stderr)
"""


def begin(workdir, out, most=10**9, devices=1):
  """Judges 96 samples in another process, which dies after `most` images."""
  flags = f"--xla_force_host_platform_device_count={devices}"
  return subprocess.Popen(
    [
      sys.executable,
      "-c",
      RUN,
      str(HERE),
      str(most),
      f"--workdir={workdir}",
      "--protocol=adm",
      "--num=96",
      f"--out={out}",
    ],
    cwd=ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env=os.environ | {"XLA_FLAGS": flags},
  )


def test_a_killed_evaluation_goes_on_and_devices_do_not_matter(trained, tmp_path):
  workdir = trained[0]
  whole, four = (
    begin(workdir, tmp_path / "whole.json"),
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
  status, _, err = finish(whole)
  assert status == 0 and int(err[-1].split()[1]) == 96 + 1438
  assert (tmp_path / "k.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
  assert not (tmp_path / "k.partial").exists()

  assert finish(four)[0] == 0
  one, many = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("whole", "four"))
  assert (one["device"]["count"], many["device"]["count"]) == (1, 4)
  assert one["samples"] == many["samples"]
  for name, value in one["scores"].items():
    assert many["scores"][name] == pytest.approx(value, rel=1e-9), name
