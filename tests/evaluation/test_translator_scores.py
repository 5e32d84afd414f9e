"""The verb that judges translators, by pairs and by kinds."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from looks import opened
from ml_collections import ConfigDict
from PIL import Image
from skimage import metrics as reference
from translators import DISC, UNET, state_of, workdir
from verbs import call

from jaxgen import config, evaluate
from jaxgen.config import build
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import collect, translators
from jaxgen.evaluation.periodic import Periodic
from jaxgen.evaluation.translation_data import of_own_data
from jaxgen.evaluation.translation_scores import Judges, Look, fitting, measure
from jaxgen.evaluation.translations import Translations
from jaxgen.experiment import open_data
from jaxgen.metrics.wilson import rate_interval
from jaxgen.models.palette import whole
from jaxgen.models.translation import from_data
from jaxgen.monitor.log import read_jsonl
from jaxgen.sampling import presets
from jaxgen.sampling.sampler import Sampler


class Halves:
  """A "translator" that halves bytes, and `shift` more."""

  cond = {"source": whole}
  knobs = {"shift": 0.0}
  players, sampled, classes = (), ("net",), 0

  def sample(self, state, batch, key, shift):
    return (batch["source"] + 1) / 2 - 1 - shift / 127.5


class Inverts:
  """One of two ways: black for white, and back but for two levels."""

  cond = {"source": from_data}
  knobs = {"backwards": 0.0}
  players, sampled, classes = (), ("net",), 0

  def sample(self, state, batch, key, backwards):
    return jnp.clip(-batch["source"] + backwards * 2 / 127.5, -1, 1)


def sampler(model):
  state = state_of({"net": {"w": jnp.ones(3)}}, {})
  card = {"workdir": "T", "dataset": "digits", "step": 0}
  return Sampler(model, state, (8, 8, 1), np.dtype("uint8"), 0, card)


class Centroids:
  """A classifier (see `learned.logits`): the nearest mean of a class of real images."""

  def __init__(self, source):
    x, y = source.arrays()
    self.means = np.stack([x[y == i].reshape(-1, 64).mean(0) for i in range(10)])

  def features(self, images, taps):
    x = np.concatenate([*images])[..., :1].reshape(-1, 64).astype(float)
    return {tap: -((x[:, None] - self.means) ** 2).sum(-1) for tap in taps}


def brightness(x):
  """The one feature of a judge: mean bytes, [N, 1]."""
  return x.mean((1, 2, 3))[:, None].astype(float)


@pytest.fixture
def verb(capsys, monkeypatch, tmp_path):
  """evaluate of a workdir that holds a model of some data; the judge looks at brightness."""

  def run(model, source, *words, classifier=None):
    data = ConfigDict({"source": source, "split": "train", "size": 0, "channels": 0})
    monkeypatch.setattr(
      evaluate, "open_model", lambda v: (sampler(model), presets.knobs_from_flags(v))
    )
    monkeypatch.setattr(evaluate, "data_of", lambda workdir: data)
    look = Look("toy", brightness, classifier, {})
    monkeypatch.setattr(translators, "judge_of", lambda *args: look)
    return call(capsys, monkeypatch, "eval", f"--workdir={tmp_path}", *words)

  return run


def test_results_against_truths(verb, tmp_path):
  """All numbers are known, as what the model makes is."""
  status, printed, errors = verb(Halves(), "digits", f"--out={tmp_path}/t.json", "--num=200")
  assert status == 0, errors
  card = json.loads((tmp_path / "t.json").read_text())
  test = open_source("digits", "test")
  x = test.arrays()[0][np.arange(200) * len(test) // 200]
  halves = np.floor(x / 2 + 0.5).astype(np.uint8)
  psnr = [
    reference.peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x, halves, strict=True)
  ]
  scores = card["scores"]["model"]
  assert scores["psnr"] == pytest.approx(np.mean(psnr), abs=0.02)
  # Student's: the half width over the standard error is the quantile of 199.
  low, high = card["intervals"]["model"]["psnr"]
  assert (high - low) / 2 / (np.std(psnr, ddof=1) / 200**0.5) == pytest.approx(1.97196, rel=1e-3)
  # Two Gaussians in one dimension (Dowson & Landau 1982).
  a, b = brightness(halves), brightness(x)
  gap = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
  assert scores["frechet@toy"] == pytest.approx(gap, rel=1e-4)
  assert (
    card["scores"]["source"]["psnr"] == "inf" and card["scores"]["source"]["frechet@toy"] < 1e-6
  )
  place = tmp_path / "evals" / "00000000-translation-200"
  assert json.loads(place.with_suffix(".json").read_text()) == card
  assert place.with_suffix(".png").is_file() and not place.with_suffix(".partial").exists()
  row = read_jsonl(tmp_path / "metrics.jsonl")[-1]
  assert row["eval/psnr"] == scores["psnr"]
  assert "200 images" in printed and f"{scores['psnr']:.4g} (" in printed


def test_kinds_without_pairs(verb, tmp_path):
  """Against real images of the other kind, both ways, and forth and back."""
  source = "unpaired:digits,digits-inverted"
  other = open_source("digits-inverted", "test")
  judge = Centroids(open_source("digits-inverted", "train"))
  status, printed, errors = verb(Inverts(), source, f"--out={tmp_path}/t.json", classifier=judge)
  assert status == 0, errors
  card = json.loads((tmp_path / "t.json").read_text())
  assert printed.startswith("forth:") and "\n\nback:" in printed
  forth, back = card["scores"]["model"], card["backwards"]["scores"]["model"]
  n = len(other)
  assert card["images"] == n and card["data"]["compared with"] == "real images of that kind"
  assert forth["psnr"] == "inf" and forth["frechet@toy"] == pytest.approx(0, abs=1e-6)
  # What comes back of bytes 254 and 255 is cut off at the top.
  x = open_source("digits", "test").arrays()[0]
  returned = np.minimum(x.astype(int) + 2, 255).astype(np.uint8)
  psnr = [
    reference.peak_signal_noise_ratio(a, b, data_range=255)
    for a, b in zip(x, returned, strict=True)
  ]
  assert forth["cycle_psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
  assert back["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
  y = other.arrays()[1]
  right = judge.features([other.arrays()[0]], ("logits",))["logits"].argmax(1) == y
  assert forth["accuracy@toy"] == pytest.approx(right.mean()) and right.mean() > 0.8
  ends = rate_interval(int(right.sum()), n)
  assert card["intervals"]["model"]["accuracy@toy"] == pytest.approx(list(ends))
  assert card["scores"]["source"]["accuracy@toy"] < 0.3
  row = read_jsonl(tmp_path / "metrics.jsonl")[-1]
  assert row["eval/back/psnr"] == back["psnr"] and np.isinf(row["eval/psnr"])
  # A judge that does not know real images' classes says nothing of results'.
  blind = Centroids(open_source("digits", "train"))
  verb(Inverts(), source, f"--out={tmp_path}/t.json", "--knobs=backwards=0", classifier=blind)
  card = json.loads((tmp_path / "t.json").read_text())
  assert "accuracy@toy" not in card["scores"]["model"] and "backwards" not in card


def test_a_killed_drawing_goes_on(monkeypatch, tmp_path):
  monkeypatch.setattr(collect, "CHUNK", 16)
  monkeypatch.setattr(collect, "SAVE_SECONDS", 0)
  data = {"source": "digits", "split": "train"}
  inputs = of_own_data(Halves(), (8, 8, 1), data, 70)
  drawn = []

  class Mortal(Translations):
    most = 10**9

    def draw(self, start, stop):
      for x in super().draw(start, stop):
        drawn.append(len(x))
        if sum(drawn) > self.most:
          raise KeyboardInterrupt
        yield x

  make = lambda **more: Mortal(
    sampler(Halves()), inputs, batch=8, folder=tmp_path / "p" / "forth", **more
  )
  first = make()
  first.most = 50
  with pytest.raises(KeyboardInterrupt):
    _ = first.x
  drawn.clear()
  other = make(seed=1)  # whose work that is not: it begins anew
  other.most = 50
  with pytest.raises(KeyboardInterrupt):
    _ = other.x
  drawn.clear()
  again = make(seed=1)
  x = again.x
  assert 0 < sum(drawn) < 70
  np.testing.assert_array_equal(x[..., 0], np.floor(inputs.source[..., 0] / 2 + 0.5))
  again.forget()
  assert list(tmp_path.iterdir()) == []


def test_what_is_ill_ends_in_a_line():
  inputs = of_own_data(Halves(), (8, 8, 1), {"source": "digits", "split": "train"}, 4)
  ill = Translations(sampler(Halves()), inputs, knobs={"shift": 3e38})
  ill.sampler.model.sample = lambda state, batch, key, shift: batch["source"] * jnp.nan
  with pytest.raises(UserError, match="results 0 to 4 of T hold NaN or infinity"):
    _ = ill.x
  with pytest.raises(UserError, match="num=999: want 1 to 359"):
    of_own_data(Halves(), (8, 8, 1), {"source": "digits", "split": "train"}, 999)


def test_networks_that_cannot_look_at_the_images():
  small = SimpleNamespace(name="lpips@alex", fit=lambda shape: "looks at 31x31 or more")
  other = SimpleNamespace(name="net", fit=lambda shape: "")
  assert fitting([small, other], (8, 8, 1), chosen=False) == [other]
  with pytest.raises(UserError, match="^lpips@alex looks at 31x31 or more$"):
    fitting([small, other], (8, 8, 1), chosen=True)


def test_folders_without_truth_are_measured_by_nothing():
  images = np.zeros((3, 8, 8, 1), np.uint8)
  inputs = SimpleNamespace(truth=None, real=None, labels=None, source=images)
  assert measure(images, inputs, Judges()) == ({}, {})


def test_training_judges_as_a_protocol_does(capsys, monkeypatch, tmp_path):
  """Truths are the reference; what is read beside them is scored by pairs."""
  home = workdir(tmp_path / "pix", "pix2pix", gen=UNET, disc=DISC)
  monkeypatch.setattr(evaluate.features, "open_extractor", opened)
  words = f"--workdir={home}", "--protocol=adm", "--num=40", "--batch=16", "--metrics=fid"
  status, printed, errors = call(capsys, monkeypatch, "eval", *words)
  assert status == 0 and "fid@adm" in printed, errors
  (path,) = (home / "evals").iterdir()
  assert path.name == "00000000-adm-translation-40.json"
  card = json.loads(path.read_text())
  assert card["reference"]["images"] == 40 and {"psnr", "ssim@uniform7"} <= set(card["scores"])
  c = config.load("configs/pix2pix.py:debug").unlock()
  c.data.size, c.data.flip = 8, False
  c.model.gen, c.model.disc = UNET, DISC
  periodic = Periodic(
    dict(every=2, num=40, batch=16, metrics=("fid",)),
    config.as_json(c),
    build(c.model),
    open_data(c),
    str(home),
    opened,
  )
  from jaxgen.sampling.sampler import load

  own = load(home)
  monkeypatch.setattr(periodic, "sampler", lambda done, state: own)
  path.unlink()
  scores = periodic.run(0, None)
  assert scores == card["scores"]
  assert json.loads(path.read_text())["samples"] == card["samples"]
  assert periodic.run(0, None) == scores


def test_what_is_made_is_a_data_set_by_itself(tmp_path):
  of = lambda source: ConfigDict(dict(source=source, split="train", size=8, channels=3))
  two = of("unpaired:digits,digits-inverted")
  assert translators.data_of_kind(two).source == "digits-inverted"
  assert translators.data_of_kind(two, backwards=True).source == "digits"
  assert open_source("digits-inverted", "test").classes == 10
  assert translators.data_of_kind(of("digits")).source == "digits"
  for kind in ("trainA", "trainB", "testA", "testB"):
    (tmp_path / kind).mkdir()
    for i, x in enumerate(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)):
      Image.fromarray(x).save(tmp_path / kind / f"{i}.png")
  halves = of(f"unpaired:{tmp_path}")
  assert translators.data_of_kind(halves) == halves
  assert translators.data_of_kind(halves, backwards=True) is None
