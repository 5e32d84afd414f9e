"""Ways to find anomalies against closed forms, and the verb from end to end."""

import csv
import dataclasses
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen import config, train
from jaxgen.config import build
from jaxgen.data import blemishes
from jaxgen.diffusion.process import DDPM
from jaxgen.errors import UserError
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.gan import GAN
from jaxgen.monitor import pictures
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state
from jaxgen.tasks import anomaly_benchmark, anomaly_scores, anomaly_table

SIGMA = 0.5  # of the data that the exact denoiser knows


class Zero(nn.Module):
  """F = 0: with EDM's preconditioning D is exact for N(0, SIGMA^2)."""

  def __call__(self, x, c_noise, key=None):
    return jnp.zeros_like(x)


class First(nn.Module):
  """z [B, 2] -> an image whose first two pixels are z, and the others zero."""

  def __call__(self, z, y=None):
    return jnp.pad(z, ((0, 0), (0, 2))).reshape(-1, 2, 2, 1)


class Twice(nn.Module):
  """Features that are the pixels, doubled."""

  def embed(self, x, y=None):
    return 2 * x.reshape(len(x), -1)

  def __call__(self, x, y=None):
    return self.embed(x).sum(1)


def sampler_of(model, shape, groups=("net",)):
  state = sampling_state(0, {g: {} for g in groups}, {})
  return Sampler(model, state, shape, np.dtype(np.float32), 0, {"workdir": "W"})


def test_partial_diffusion_of_a_gaussian():
  edm = config.load("configs/digits_diffusion.py").model
  parts = {k: build(edm[k]) for k in ("process", "path")}
  model = Diffusion(
    net=Zero(),
    precond=build(dict(name="diffusion.precond.edm", sigma_data=SIGMA)),
    sampler=build(dict(name="diffusion.samplers.ancestral", eta=1.0)),
    draw_t=build(edm.draw_t),
    steps=400,
    **parts,
  )
  scorer = anomaly_scores.Scorer(
    sampler_of(model, (20, 20, 1)), anomaly_scores.partial_diffusion(sampler_of(model, (20, 20, 1)))
  )
  x = np.float32([0.0, 1.0, -2.0])[:, None].repeat(400, 1).reshape(3, 20, 20, 1)
  for fraction in (0.25, 0.5):  # one program
    result = scorer(x, knobs={"fraction": fraction, "repeats": 8}, seed=1)
    # x_0 is drawn from the posterior given x_t = x + sigma eps.
    path, n = model.path_points(model.knobs | {"steps": 400})
    sigma = float(path.sigma[int(n) - round(fraction * 400)])
    k = SIGMA**2 / (SIGMA**2 + sigma**2)
    want = (1 - k) ** 2 * x[:, 0, 0, 0] ** 2 + k**2 * sigma**2 + k * sigma**2
    np.testing.assert_allclose(result["score"], want, rtol=0.06)
    np.testing.assert_allclose(result["again"].mean((1, 2, 3)), k * x[:, 0, 0, 0], atol=0.03)
  assert scorer.program._cache_size() == 1
  assert scorer.way.knobs["fraction"] == 0.45  # of AnoDDPM's own chain 250 of 1000
  ddpm = dataclasses.replace(model, process=DDPM())
  assert anomaly_scores.partial_diffusion(sampler_of(ddpm, (2, 2, 1))).knobs["fraction"] == 0.25
  assert result["map"].shape == (3, 20, 20)


def test_anogan_finds_the_nearest_image_of_a_linear_generator():
  gan = GAN(gen=First(), disc=Twice(), rule=None, z_dim=2)
  sampler = sampler_of(gan, (2, 2, 1), ("gen", "disc"))
  scorer = anomaly_scores.Scorer(sampler, anomaly_scores.anogan(sampler))
  x = np.float32([[0.3, -0.8, 0, 0], [0.5, 0.1, 0.4, -0.2]]).reshape(2, 2, 2, 1)
  result = scorer(x, knobs={"steps": 400, "lr": 0.01, "weight": 0.25, "starts": 5})
  left = np.array([0.0, 0.6])  # what no z makes
  np.testing.assert_allclose(result["residual"], left, atol=0.03)
  np.testing.assert_allclose(result["score"], 0.75 * left + 0.25 * 2 * left, atol=0.04)
  np.testing.assert_allclose(result["again"][:, 0, :, 0], x[:, 0, :, 0], atol=0.02)
  with pytest.raises(UserError, match="no knob 'step' here; did you mean 'steps'"):
    scorer(x, knobs={"step": 3})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A VAE of two steps, without labels."""
  c = config.load("configs/digits_vae.py:debug")
  c.steps, c.log.pictures = 2, 0
  c.data.classes = c.model.classes = c.model.net.classes = 0
  folder = tmp_path_factory.mktemp("vae") / "w"
  train.train(c, str(folder), quiet=True)
  return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
  """A folder as those of factories are: good ones, and one that is cut."""
  top = tmp_path_factory.mktemp("parts")
  for i in range(5):
    place = top / ("cut" if i == 3 else "good")
    place.mkdir(exist_ok=True)
    pixels = np.random.default_rng(i).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(pixels).save(place / f"{i}.png")
  return top


def test_a_table_a_page_and_maps(verb, workdir, parts, tmp_path):
  out = tmp_path / "scores.csv"
  argv = (f"--workdir={workdir}", f"--data=folder:{parts}", f"--out={out}")
  status, printed, _ = verb("anomaly", *argv, f"--maps={tmp_path / 'maps'}")
  assert status == 0 and "AUROC" in printed and "5 images" in printed
  rows = list(csv.DictReader(out.open()))
  assert [r["name"] for r in rows] == ["cut/3.png", *(f"good/{i}.png" for i in (0, 1, 2, 4))]
  assert [r["anomalous"] for r in rows] == ["1", "0", "0", "0", "0"]
  about = json.loads(out.with_suffix(".json").read_text())
  assert set(about["columns"]) == set(rows[0]) and about["made"]["how"] == "reconstruction"
  assert "--maps" in about["made"]["command"] and set(about["scores"]) == {"AUROC", "AUPR"}
  page = out.with_suffix(".html").read_text()
  assert "no diagnosis" in page and "cut/3.png" in page
  info = pictures.read_info(tmp_path / "maps" / "cut" / "3.png.png")
  assert info["image"] == "cut/3.png" and info["score"] == pytest.approx(float(rows[0]["score"]))
  # The score is of the images, in any order; the evidence bound has no map.
  status, printed, _ = verb("anomaly", *argv, "--how=elbo", "--anomalous=good", "--num=2")
  assert status == 0 and [r["anomalous"] for r in csv.DictReader(out.open())] == ["0", "1"]


REFUSED = {
  "nothing": ([], "needs --workdir=W and --out"),
  "way": (["--how=anogan"], "a VAE tells by reconstruction or elbo"),
  "noise": (["--noise=simplex"], "of a diffusion model"),
  "knob": (["--fraction=0.3"], "this way has no knobs"),
  "size": (["--data=npz:{}/small.npz"], "bring them to that size"),
  "labels": (["--data=npz:{}/x.npz", "--anomalous=3"], "has no labels"),
  "class": (["--data=digits", "--anomalous=11"], "has no class '11'"),
  "label": (["--label=3"], "was trained without labels"),
  "out": (["--out=scores.txt"], "want x.csv"),
  "benchmark": (["--benchmark=digits"], "no workdir or data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_line(verb, workdir, tmp_path, case):
  argv, says = REFUSED[case]
  np.savez(tmp_path / "x.npz", np.zeros((4, 8, 8, 1), np.uint8))
  np.savez(tmp_path / "small.npz", np.zeros((4, 6, 6, 1), np.uint8))
  if case != "nothing":
    argv = [f"--workdir={workdir}", f"--out={tmp_path / 's.csv'}", *argv]
  status, out, lines = verb("anomaly", *(a.replace("{}", str(tmp_path)) for a in argv))
  assert status == 2 and says in lines[-1] and not (tmp_path / "s.csv").exists()


def test_a_benchmark_goes_on_where_it_stopped(verb, tmp_path):
  argv = (f"--out={tmp_path / 'b'}", "--benchmark=digits", "--families=vae", "--steps=1")
  status, first, lines = verb("anomaly", *argv, "--classes=3")
  assert status == 0 and any("vae elbo: AUROC" in line for line in lines)
  before = json.loads((tmp_path / "b" / "anomaly.json").read_text())["rows"]
  assert {(r["case"], r["family"], r["way"]) for r in before} == {
    ("3", "baseline", "nearest"),
    ("3", "vae", "reconstruction"),
    ("3", "vae", "elbo"),
  }
  status, again, lines = verb("anomaly", *argv, "--classes=3")
  assert status == 0 and again == first and not any("[anomaly]" in line for line in lines)
  assert json.loads((tmp_path / "b" / "anomaly.json").read_text())["rows"] == before
  page = (tmp_path / "b" / "anomaly.html").read_text()
  assert "| nearest training image |" in again and "vae by elbo" in page


def test_the_nearest_training_image_by_hand():
  rng = np.random.default_rng(0)
  x, t = (rng.integers(0, 256, (n, 3, 3, 1), np.uint8) for n in (4, 7))
  test = anomaly_benchmark.TestImages(x, np.ones(4, bool), None, t)
  gaps = (x[:, None].astype(float) - t[None].astype(float)) / 127.5
  want = (gaps**2).mean((2, 3, 4)).min(1)
  np.testing.assert_allclose(anomaly_benchmark.nearest_distance(test)["score"], want, rtol=1e-4)


@pytest.mark.parametrize("kind", blemishes.KINDS)
def test_images_are_spoilt_where_the_mask_says(kind):
  x = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
  bad, masks = blemishes.spoil(x, kind)
  changed = (bad != x).any(-1)
  assert (changed <= masks).all() and changed[masks].mean() > 0.9
  assert ((masks.mean((1, 2)) > 0.02) & (masks.mean((1, 2)) < 0.2)).all()
  np.testing.assert_array_equal(blemishes.spoil(x, kind)[0], bad)


def test_a_mean_over_cases_and_who_is_surely_better():
  row = lambda family, case, value: {
    "family": family, "way": "w", "case": case, "scores": {"AUROC": value},
    "intervals": {"AUROC": [value - 0.1, value]}, "seconds": 1.0, "train_seconds": 2.0,
  }  # fmt: skip
  values = {"vae": (0.9, 0.8, 0.7), "gan": (0.6, 0.5, 0.4), "baseline": (0.95, 0.7, 0.6)}
  rows = [row(f, str(i), v) for f, own in values.items() for i, v in enumerate(own)]
  lines = anomaly_table.lines_of({"rows": rows}, ("0", "1", "2"), "AUROC")
  assert [line.family for line in lines] == ["vae", "baseline", "gan"]
  assert lines[0].mean == pytest.approx(0.8)
  assert lines[0].high == 1 and lines[0].low == pytest.approx(0.8 - 4.302653 * 0.1 / 3**0.5)
  assert anomaly_table.surely(lines[0], lines[2]) and not anomaly_table.surely(lines[0], lines[1])
  text = anomaly_table.verdict_of({"rows": rows}, ("0", "1", "2"))
  assert text.startswith("vae by w: AUROC 0.800") and "may do as well, 0.750" in text
