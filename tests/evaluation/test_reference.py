"""References: every format of statistics, and what does not go together."""

import dataclasses

import looks
import numpy as np
import pytest
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation import run as module
from jaxgen.evaluation.protocols import PROTOCOLS
from jaxgen.evaluation.reference import open_reference, save_statistics
from jaxgen.evaluation.run import Evaluation
from jaxgen.evaluation.samplefile import SampleFile
from jaxgen.metrics.distances import frechet, moments

X = looks.pictures(90, 1, warm=20)
STUB = looks.Stub()
F = STUB.features([X], STUB.taps)
MAIN, SPATIAL = moments(F["pool3"]), moments(F["spatial"])


def arrays(*names):
  everything = {
    "mu": MAIN.mu,
    "sigma": MAIN.sigma,
    "mu_s": SPATIAL.mu,
    "sigma_s": SPATIAL.sigma,
    "arr_0": X[:40],
  }
  return {n: everything[n] for n in names}


@pytest.fixture
def own(tmp_path):
  np.savez(tmp_path / "own.npz", looks.pictures(120, 2))
  return SampleFile.open(str(tmp_path / "own.npz"), "truncate")


def evaluate(own, path, protocol, metrics=None):
  how = PROTOCOLS[protocol]
  return Evaluation(open_reference(str(path), how), looks.Stub(), how, metrics).run(own)


def test_adms_file_has_statistics_of_all_and_images_of_some(own, tmp_path):
  np.savez(tmp_path / "v.npz", **arrays("arr_0", "mu", "sigma", "mu_s", "sigma_s"))
  card = evaluate(own, tmp_path / "v.npz", "adm")
  f = looks.Stub().features(own.read(0, 120), ("pool3", "spatial"))
  for name, tap, real in (("fid", "pool3", MAIN), ("sfid", "spatial", SPATIAL)):
    a = moments(f[tap])
    assert card["scores"][f"{name}@adm"] == pytest.approx(
      frechet(a.mu, a.sigma, real.mu, real.sigma), rel=1e-9
    )
  # Precision is that of the 40 images in the file, not of the 90 before them.
  np.savez(tmp_path / "few.npz", X[:40])
  few = evaluate(own, tmp_path / "few.npz", "adm")
  for name in ("precision@adm", "recall@adm", "is@adm"):
    assert card["scores"][name] == few["scores"][name]
  assert card["scores"]["fid@adm"] != few["scores"]["fid@adm"]
  assert card["reference"]["manifold"] == 40


@pytest.mark.parametrize("name", ["ffhq.npz", "cifar10_clean_train_32.npz"])
def test_files_of_mu_and_sigma(name, own, tmp_path):
  np.savez(tmp_path / name, **arrays("mu", "sigma"))
  card = evaluate(own, tmp_path / name, "clean-fid")
  assert list(card["scores"]) == ["fid@clean-fid"]
  assert "kid is left out: the reference is statistics" in str(card["warnings"])
  with pytest.raises(UserError, match="kid cannot be measured"):
    evaluate(own, tmp_path / name, "clean-fid", ("fid", "kid"))
  with pytest.raises(UserError, match="do not cover features 'spatial'"):
    evaluate(own, tmp_path / name, "clean-fid", ("sfid",))


def test_statistics_in_float32_do(own, tmp_path):
  np.savez(tmp_path / "a.npz", **arrays("mu", "sigma"))
  np.savez(
    tmp_path / "b.npz", **{k: v.astype(np.float32) for k, v in arrays("mu", "sigma").items()}
  )
  a, b = (evaluate(own, tmp_path / f"{n}.npz", "edm")["scores"]["fid@edm"] for n in "ab")
  assert a == pytest.approx(b, rel=1e-5)


def test_our_own_statistics_are_what_they_were_made_of(own, tmp_path):
  np.savez(tmp_path / "real.npz", X)
  how = PROTOCOLS["adm"]
  full = Evaluation(open_reference(str(tmp_path / "real.npz"), how), looks.Stub(), how)
  card = full.run(own)
  save_statistics(tmp_path / "stats.npz", full.measure().moments, "pool3", card)
  again = evaluate(own, tmp_path / "stats.npz", "adm", ("fid", "sfid"))
  for name in ("fid@adm", "sfid@adm"):
    assert again["scores"][name] == card["scores"][name]
  assert again["reference"]["sha256"] == card["reference"]["sha256"]
  cards.check_alike({"a": card, "b": again})
  with pytest.raises(UserError, match="was made with resize tf, and this is half_pixel"):
    evaluate(own, tmp_path / "stats.npz", "pytorch-fid")


@pytest.mark.parametrize(
  ("name", "names", "protocol", "message"),
  [
    ("v.npz", ("mu", "sigma", "mu_s", "sigma_s"), "clean-fid", "as 'tf'"),
    ("cifar10_legacy_tensorflow_train_32.npz", ("mu", "sigma"), "clean-fid", "resized as 'tf'"),
    ("cifar10_clean_train_32.npz", ("mu", "sigma"), "adm", "as 'clean'"),
    ("cifar10_legacy_pytorch_train_32.npz", ("mu", "sigma"), "torch-fidelity", "as 'half_pixel'"),
    ("x.npz", ("mu",), "adm", "not both"),
  ],
)
def test_protocols_are_never_mixed(name, names, protocol, message, tmp_path):
  np.savez(tmp_path / name, **arrays(*names))
  with pytest.raises(UserError, match=message):
    open_reference(str(tmp_path / name), PROTOCOLS[protocol])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(mu=MAIN.mu[:5]), r"mu of .* is \[5\] and sigma"),
    (dict(mu=MAIN.mu * np.nan), "not finite"),
    (dict(sigma=MAIN.sigma + np.triu(MAIN.sigma, 1)), "no covariance"),
    (dict(sigma=-MAIN.sigma), "negative variances"),
    (dict(mu=np.array([{}], object)), "pickled"),
  ],
)
def test_statistics_that_are_none(change, message, tmp_path):
  np.savez(tmp_path / "x.npz", **(arrays("mu", "sigma") | change))
  with pytest.raises(UserError, match=message):
    open_reference(str(tmp_path / "x.npz"), PROTOCOLS["adm"])


def test_statistics_of_other_features_are_refused(own, tmp_path):
  np.savez(tmp_path / "x.npz", mu=np.zeros(9), sigma=np.eye(9))
  with pytest.raises(UserError, match="of 9 features, and inception has 12"):
    evaluate(own, tmp_path / "x.npz", "adm")


def test_large_references_lend_some_images_to_precision(own, tmp_path):
  np.savez(tmp_path / "real.npz", X)
  how = dataclasses.replace(PROTOCOLS["adm"], manifold=30)
  reference = open_reference(str(tmp_path / "real.npz"), how)
  some = Evaluation(reference, looks.Stub(), how)
  card = some.run(own)
  keep = np.sort(np.random.RandomState(0).permutation(90)[:30])
  np.testing.assert_array_equal(some.measure().rows["pool3"], F["pool3"][keep])
  assert some.measure().moments["pool3"].n == 90
  assert card["reference"]["manifold"] == 30
  # Memorisation is looked for among all of them; precision stays what it is.
  full = Evaluation(reference, looks.Stub(), how, ("pr", "copies"))
  assert full.run(own)["scores"]["precision@adm"] == (card["scores"]["precision@adm"])
  assert len(full.measure().rows["pool3"]) == 90


def test_copies_are_shown(own, tmp_path):
  own = looks.pictures(60, 2)
  own[17] = X[42]
  np.savez(tmp_path / "own.npz", own)
  np.savez(tmp_path / "real.npz", X)
  how = PROTOCOLS["adm"]
  images = SampleFile.open(str(tmp_path / "own.npz"), "truncate")
  card = Evaluation(
    open_reference(str(tmp_path / "real.npz"), how), looks.Stub(), how, ("copies",)
  ).run(images, picture=tmp_path / "near.png")
  worst = card["copies"][0]
  assert (worst["sample"], worst["nearest"][0], worst["distances"][0]) == (17, 42, 0.0)
  assert card["scores"]["identical@adm"] == pytest.approx(1 / 60)
  shown = np.asarray(Image.open(tmp_path / "near.png"))[:64:8, :64:8]
  np.testing.assert_array_equal(shown, X[42])
  np.testing.assert_array_equal(module.pick(images, np.array([50, 2, 50]))[0], own[50])


def test_classes_are_compared_one_by_one(tmp_path):
  x, y = looks.pictures(60, 2), np.arange(60) % 3
  np.savez(tmp_path / "own.npz", x, y)
  np.savez(tmp_path / "real.npz", X, np.arange(90) % 4)
  card = evaluate(
    SampleFile.open(str(tmp_path / "own.npz"), "round"),
    tmp_path / "real.npz",
    "adm",
    ("fid_by_class",),
  )
  assert list(card["by_class"]) == ["0", "1", "2"]
  f = looks.Stub().features([x[y == 1]], ("pool3",))["pool3"]
  a, b = moments(f), moments(F["pool3"][1::4])
  want = frechet(a.mu, a.sigma, b.mu, b.sigma)
  assert card["by_class"]["1"] == pytest.approx(want, rel=1e-6)
  assert card["scores"]["fid_by_class@adm"] == pytest.approx(
    np.mean(list(card["by_class"].values()))
  )


@pytest.mark.parametrize(("swap", "expected"), [(False, 0), (True, 1)])
def test_swapped_channels_are_suspected(swap, expected, tmp_path):
  x = looks.pictures(60, 2, warm=20)
  np.savez(tmp_path / "own.npz", x[..., ::-1] if swap else x)
  np.savez(tmp_path / "real.npz", X)
  own = SampleFile.open(str(tmp_path / "own.npz"), "round")
  card = evaluate(own, tmp_path / "real.npz", "adm")
  warnings = [w for w in card["warnings"] if "red and blue" in w]
  assert len(warnings) == expected


def test_metrics_need_features(own, tmp_path):
  class Other(looks.Stub):
    taps = ("cls",)

  np.savez(tmp_path / "real.npz", X)
  how = PROTOCOLS["adm"]
  reference = open_reference(str(tmp_path / "real.npz"), how)
  with pytest.raises(UserError, match="dinov2 has no features 'spatial'"):
    Evaluation(reference, Other("dinov2"), how, ("sfid",))
  with pytest.raises(UserError, match="did you mean 'fid'"):
    Evaluation(reference, Other("dinov2"), how, ("fidd",))
  some = Evaluation(reference, Other("dinov2"), how)
  assert some.possible == ("fid", "pr")  # and no Inception score
