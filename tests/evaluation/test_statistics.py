"""Two files of statistics, by whoever wrote them: no network, no weights."""

import json
import pathlib
import pickle
import sys
import types

import looks
import numpy as np
import pytest
from verbs import call, tree

from jaxgen.evaluation import features
from jaxgen.metrics.distances import frechet

A, B = (np.random.RandomState(i).standard_normal((40, 12)) for i in (0, 1))


def gaussian(f):
  return {"mu": f.mean(0), "sigma": np.cov(f, rowvar=False)}


def distance(a, b):
  return frechet(*gaussian(a).values(), *gaussian(b).values())


@pytest.fixture
def verb(capsys, monkeypatch, tmp_path):
  """`jaxgen eval` within tmp_path -> status, what it printed, errors."""

  def never(*args, **how):
    raise AssertionError("a network was opened")

  monkeypatch.setattr(features, "open_extractor", never)
  monkeypatch.chdir(tmp_path)
  return lambda text: call(capsys, monkeypatch, "eval", *text.split())


PAIR = "--samples=a.npz --ref=b.npz --protocol=edm"


def npz(path, f, **more):
  np.savez(path, **gaussian(f), **more)


def edm2(path, f, protocol=4, **more):
  parts = {"num_images": len(f), "fid": gaussian(f), "fd_dinov2": gaussian(f[:, :5])}
  path.write_bytes(pickle.dumps(parts | more, protocol=protocol))


def bare(path, f, change):
  """Without a number of images, and of arrays of another kind."""
  path.write_bytes(pickle.dumps({"fid": {k: change(v) for k, v in gaussian(f).items()}}))


WRITERS = {
  "npz": npz,
  "edm2": edm2,
  "protocol 3": lambda p, f: edm2(p, f, 3),
  "protocol 5": lambda p, f: edm2(p, f, 5),
  "float32": lambda p, f: bare(p, f, lambda a: a.astype("f4")),
  "big-endian": lambda p, f: bare(p, f, lambda a: a.astype(">f8")),
  "fortran": lambda p, f: bare(p, f, np.asfortranarray),
  "numpy 1": lambda p, f: (
    edm2(p, f, 4),
    p.write_bytes(
      p.read_bytes().replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    ),
  ),
  "numpy scalars": lambda p, f: edm2(p, f, num_images=np.int64(40)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_statistics_of_all_writers_are_compared(writer, verb, tmp_path):
  own = "own.npz" if writer == "npz" else "own.pkl"
  WRITERS[writer](tmp_path / own, A)
  npz(tmp_path / "b.npz", B)
  status, printed, err = verb(f"--samples={own} --ref=b.npz --protocol=edm --out=x.json")
  assert status == 0, err
  card = json.loads((tmp_path / "x.json").read_text())
  assert set(card["scores"]) == {"fid@edm"} and "fid@edm" in printed
  assert card["samples"]["images"] == (
    40 if "num" in writer or "edm" in writer or "proto" in writer else None
  )
  assert card["scores"]["fid@edm"] == pytest.approx(distance(A, B), rel=1e-5)
  assert "taken on trust" in "".join(err)
  # And the same card in a ranking.
  status, printed, _ = verb("--card=x.json --against=x.json")
  assert status == 0 and "fid@edm" in printed


def test_features_choose_what_is_read_of_a_pickle(verb, tmp_path):
  for name, f in (("a", A), ("b", B)):
    edm2(tmp_path / f"{name}.pkl", f)
  pair = "--samples=a.pkl --ref=b.pkl --protocol=edm --features=dinov2 --out=x.json"
  status, printed, _ = verb(pair)
  assert status == 0 and "frechet@dinov2" in printed
  (score,) = json.loads((tmp_path / "x.json").read_text())["scores"].values()
  assert score == pytest.approx(distance(A[:, :5], B[:, :5]), rel=1e-6)


def test_adms_statistics_have_two_distances(verb, tmp_path):
  for name, f in (("a", A), ("b", B)):
    npz(tmp_path / f"{name}.npz", f, **{f"{k}_s": v for k, v in gaussian(f[:, :7]).items()})
  pair = "--samples=a.npz --ref=b.npz --protocol=adm"
  status, printed, _ = verb(pair)
  assert status == 0 and "sfid@adm" in printed and " fid@adm" in f" {printed}"
  status, printed, _ = verb(f"{pair} --metrics=sfid")
  assert status == 0 and " fid@adm" not in f" {printed}"


def test_an_edm2_reference_serves_images_too(verb, monkeypatch, tmp_path):
  monkeypatch.setattr(features, "open_extractor", looks.opened)
  np.save(tmp_path / "own.npy", looks.pictures(60))
  edm2(tmp_path / "real.pkl", A)
  status, printed, err = verb("--samples=own.npy --ref=real.pkl --protocol=edm")
  assert status == 0, err
  assert "fid@edm" in printed and "60 images against real.pkl" in printed


class Evil:
  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path("owned"),)


def foreign():
  module = types.ModuleType("foreign")
  module.Thing = type("Thing", (), {"__module__": "foreign"})
  sys.modules["foreign"] = module
  return module.Thing()


def wide(path):
  f = np.random.RandomState(2).standard_normal((90, 64))
  npz(path, f)


BAD = {  # what the samples' file is -> flags, the message
  "code": (lambda p: p.write_bytes(pickle.dumps({"fid": Evil()})), "", "asks for"),
  "code beside": (lambda p: edm2(p, A, more=Evil()), "", "asks for"),
  "other classes": (lambda p: p.write_bytes(pickle.dumps(foreign())), "", "asks for foreign.Thing"),
  "no statistics": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "", "holds no statistics"),
  "a list": (lambda p: p.write_bytes(pickle.dumps([1, 2])), "", "holds no statistics"),
  "half": (lambda p: p.write_bytes(pickle.dumps({"fid": {"mu": A[0]}})), "", "holds no statistics"),
  "text for mu": (
    lambda p: edm2(p, A, fid={"mu": "x", "sigma": "y"}),
    "",
    "has no statistics 'fid'",
  ),
  "objects": (
    lambda p: edm2(p, A, fid={"mu": np.array([{}], object), "sigma": A}),
    "",
    "no floats",
  ),
  "flags": (lambda p: edm2(p, A, fid={"mu": A[0] > 0, "sigma": A}), "", "no floats"),
  "whole numbers": (
    lambda p: edm2(p, A, fid={"mu": np.arange(3), "sigma": np.eye(3)}),
    "",
    "that is none",
  ),
  "three axes": (
    lambda p: edm2(p, A, fid={"mu": A[0], "sigma": A[None]}),
    "",
    "array that is none",
  ),
  "shapes": (lambda p: edm2(p, A, fid={"mu": A[0], "sigma": A}), "", "want [D] and [D, D]"),
  "not finite": (lambda p: edm2(p, np.where(A > 2, np.nan, A)), "", "not finite"),
  "cut": (lambda p: (edm2(p, A), p.write_bytes(p.read_bytes()[:-900])), "", "is damaged"),
  "nothing but a byte": (lambda p: p.write_bytes(b"\x80"), "", "damaged"),
  "other widths": (wide, "", "these are others"),
  "a metric of rows": (lambda p: edm2(p, A), "--metrics=fid,kid", "kid cannot be made"),
  "a metric of another layer": (lambda p: edm2(p, A), "--metrics=fid_768", "did you mean 'fid768'"),
  "num": (lambda p: edm2(p, A), "--num=9", "leave --num"),
  "the judge": (lambda p: edm2(p, A), "--features=judge", "of inception or dinov2"),
  "no ref": (lambda p: edm2(p, A), "--ref=", "--ref= is empty"),
  "a ref of images": (lambda p: edm2(p, A), "--ref=digits", "--ref must be statistics"),
  "dinov2 alone": (
    lambda p: p.write_bytes(pickle.dumps({"fd_dinov2": gaussian(A)})),
    "",
    "no statistics 'fid'",
  ),
}


@pytest.mark.parametrize("case", BAD)
def test_pairs_that_cannot_be_compared(case, verb, tmp_path):
  make, flags, message = BAD[case]
  own = "own.npz" if make is wide else "own.pkl"
  make(tmp_path / own)
  npz(tmp_path / "b.npz", B)
  before = tree(tmp_path)
  status, printed, err = verb(f"--samples={own} --ref=b.npz --protocol=edm --out=x.json {flags}")
  assert (status, printed, len(err)) == (2, "", 1), err
  assert message in err[0] and tree(tmp_path) == before


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (("mean", "cov"), "a mean as mu and a covariance as sigma"),
    (("m", "s"), "a mean as mu and a covariance as sigma"),
    (("mean", "covariance", "n"), "a mean as mu"),
    (("pool_3",), "mu=f.mean(0)"),
    (("real_feats", "real_labels"), "being its real_feats"),
    (("x",), "holds x: a reference is mu"),
  ],
)
def test_arrays_by_other_names(names, message, verb, tmp_path):
  np.savez(tmp_path / "b.npz", **dict.fromkeys(names, A))
  np.save(tmp_path / "own.npy", looks.pictures(9))
  status, _, err = verb("--samples=own.npy --ref=b.npz --protocol=edm")
  assert status == 2 and len(err) == 1 and message in err[0], err
  assert "mu" in err[0] and "sigma" in err[0]


@pytest.mark.parametrize("info", ["hello", "[1]", "{}", '{"protocol": 3}', "[" * 9999])
def test_what_others_call_info_is_theirs(info, verb, tmp_path):
  npz(tmp_path / "a.npz", A, info=np.array(info))
  npz(tmp_path / "b.npz", B, info=np.arange(3), count=np.arange(2))
  status, printed, err = verb(PAIR)
  assert status == 0 and "fid@edm" in printed, err


def ours(path, f, resize="tf", sha256="ab", size="8x8"):
  n = len(f)
  info = {
    "protocol": {"resize": resize},
    "reference": dict(kind="file", name=f"{path.name} of old", sha256=sha256, images=n, size=size),
    "features": {"name": "inception", "sha256": sha256},
  }
  npz(path, f, count=np.int64(n), info=np.array(json.dumps(info)))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(resize="clean"), "was made with resize clean"),
    (dict(sha256="cd"), "features of other weights"),
  ],
)
def test_our_own_are_compared_if_they_were_made_alike(change, message, verb, tmp_path):
  ours(tmp_path / "a.npz", A)
  ours(tmp_path / "b.npz", B, size="6x6")
  status, printed, err = verb(f"{PAIR} --out=x.json")
  assert status == 0 and "40 images against b.npz of old" in printed
  assert "taken on trust" not in "".join(err)
  assert "samples are 8x8 and the reference 6x6" in "".join(err)
  card = json.loads((tmp_path / "x.json").read_text())
  assert card["features"] == {"name": "inception", "sha256": "ab"}
  ours(tmp_path / "b.npz", B, **change)
  status, _, err = verb(f"{PAIR} --out=x.json")
  assert status == 2 and message in err[0]


@pytest.mark.parametrize("field", ["protocol", "features", "reference"])
def test_our_own_that_were_edited(field, verb, tmp_path):
  info = {
    "protocol": {"resize": "tf"},
    "reference": {"name": "x"},
    "features": {"name": "inception", "sha256": "ab"},
  } | {field: {}}
  npz(tmp_path / "a.npz", A, info=np.array(json.dumps(info)))
  npz(tmp_path / "b.npz", B)
  status, _, err = verb(PAIR)
  assert status == 2 and f"damaged: it lacks {field}" in err[0]
