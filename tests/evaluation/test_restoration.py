"""PSNR, SSIM and consistency; and the verb that judges upsamplers by them."""

import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from skimage import metrics as reference
from verbs import call

from jaxgen import core, evaluate
from jaxgen.data.sources import open_source
from jaxgen.diffusion import degrade
from jaxgen.evaluation import perceptual, restoration
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.evaluation.restoration import Pairs
from jaxgen.metrics.image_quality import consistency, psnr, ssim
from jaxgen.models.cascade import Cascade
from jaxgen.monitor import pictures
from jaxgen.sampling import presets
from jaxgen.sampling.sampler import Sampler


def pair(channels=3, shape=(24, 31), n=4, seed=0):
  """Smooth images and noisy copies, uint8, each of another noise."""
  rng = np.random.default_rng(seed)
  x = np.cumsum(rng.normal(0, 9, (n, *shape, channels)), 1) + 128
  y = x + rng.normal(0, 1, x.shape) * 8 * np.arange(1, n + 1).reshape(-1, 1, 1, 1)
  return [np.clip(a, 0, 255).astype(np.uint8) for a in (x, y)]


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_scikit_images(channels):
  x, y = pair(channels)
  theirs = [
    reference.peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x, y, strict=True)
  ]
  ours = psnr(x, y)
  assert ours.dtype == np.float64
  np.testing.assert_allclose(ours, theirs, rtol=1e-12)
  np.testing.assert_allclose(psnr(x / 255, y / 255, data_range=1), theirs, rtol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
  "window, settings",
  [
    ("uniform7", {}),
    ("gauss11", dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)),
  ],
)
def test_ssim_is_scikit_images(channels, window, settings):
  x, y = pair(channels)
  theirs = [
    reference.structural_similarity(a, b, data_range=255, channel_axis=-1, **settings)
    for a, b in zip(x, y, strict=True)
  ]
  np.testing.assert_allclose(ssim(x, y, window), theirs, rtol=0, atol=1e-9)
  assert np.ptp(theirs) > 0.05
  np.testing.assert_allclose(ssim(x / 255, y / 255, window, data_range=1), theirs, atol=1e-9)


def test_an_image_does_not_depend_on_its_batch():
  x, y = pair()
  for f in (psnr, ssim):
    alone = np.concatenate([f(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    np.testing.assert_array_equal(f(x, y), alone)


def test_equal_and_constant_images():
  x, y = pair()
  assert np.isinf(psnr(x, x)).all()
  for window in ("gauss11", "uniform7"):
    np.testing.assert_allclose(ssim(x, x, window), 1, atol=1e-12)
    a, b = np.full_like(x, 100), np.full_like(x, 150)
    # No variance: what is left of Eq. 13 are the means.
    c = (0.01 * 255) ** 2
    wanted = (2 * 100 * 150 + c) / (100**2 + 150**2 + c)
    np.testing.assert_allclose(ssim(a, b, window), wanted, atol=1e-9)
    np.testing.assert_allclose(ssim(a, a, window), 1, atol=1e-12)
  np.testing.assert_allclose(psnr(a, b), 20 * np.log10(255 / 50))


def test_consistency_is_the_papers():
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
  shrink = lambda x: x.reshape(-1, 4, 4, 4, 4, 3).mean((2, 4))
  low = shrink(x)
  np.testing.assert_allclose(consistency(x, low, shrink), 0, atol=1e-9)
  off = low + np.array([1, 2, 0]).reshape(-1, 1, 1, 1)
  np.testing.assert_allclose(
    consistency(x, off, shrink), 1e5 * np.array([1, 4, 0]) / 255**2, atol=1e-9
  )
  np.testing.assert_allclose(
    consistency(x / 255, off / 255, shrink, data_range=1), consistency(x, off, shrink), atol=1e-9
  )
  # Rounding is uniform in [-1/2, 1/2]: its variance is 1/12.
  x = rng.integers(0, 256, (200, 16, 16, 3), np.uint8)
  low = np.round(shrink(x)).astype(np.uint8)
  assert consistency(x, low, shrink).mean() == pytest.approx(0.128, rel=0.05)


@pytest.mark.parametrize(
  "x, y, message",
  [
    (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), r"N, H, W, C"),
    (np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 1)), "two shapes"),
    (np.zeros((2, 8, 8, 3)), np.zeros((1, 8, 8, 3)), "two shapes"),
    (np.zeros((0, 8, 8, 3)), np.zeros((0, 8, 8, 3)), r"N, H, W, C"),
    (np.zeros((2, 8, 8, 3), bool), np.zeros((2, 8, 8, 3)), "bool"),
  ],
)
def test_what_is_no_pair_of_batches(x, y, message):
  for f in (psnr, ssim, lambda x, y: consistency(x, y, lambda x: x)):
    with pytest.raises(ValueError, match=message):
      f(x, y)


def test_images_smaller_than_the_window():
  x, y = pair(1, (8, 8))
  with pytest.raises(ValueError, match="8x8 are smaller than the window of 11"):
    ssim(x, y)
  assert ssim(x, y, "uniform7").shape == (4,)
  with pytest.raises(ValueError, match="gauss11 or uniform7"):
    ssim(x, y, "gauss7")


class Nearest:
  """A "model" that repeats pixels; knob `shift` adds that many levels."""

  cond = {"low_res": functools.partial(degrade.area, size=4)}
  knobs = {"shift": 0.0}
  players = sampled = ()

  def sample(self, state, batch, key, shift):
    return batch["low_res"].repeat(2, 1).repeat(2, 2) + shift / 127.5


def sampler(model=None, shape=(8, 8, 1), classes=0):
  state = core.State(
    step=jnp.int32(0),
    params={"net": {"w": jnp.ones(3)}},
    stats={},
    opt={},
    ema={},
    skips=jnp.zeros(2, jnp.int32),
  )
  return Sampler(
    model or Nearest(),
    state,
    shape,
    np.dtype("uint8"),
    classes,
    {"workdir": "U", "dataset": "digits"},
  )


@pytest.fixture
def verb(capsys, monkeypatch):
  """evaluate of a workdir U, that holds what `model` is set to."""

  def run(*argv, model=None, **data):
    data = ConfigDict({"source": "digits", "split": "train", "size": 0} | data)
    monkeypatch.setattr(
      evaluate, "open_model", lambda values: (model or sampler(), presets.knobs_from_flags(values))
    )
    monkeypatch.setattr(evaluate, "data_of", lambda workdir: data)
    return call(capsys, monkeypatch, "evaluate", "--workdir=U", *argv)

  return run


def test_the_verb(verb, tmp_path):
  out, picture = tmp_path / "u.json", tmp_path / "u.png"
  status, printed, err = verb("--out", out, "--picture", picture, "--knobs=shift=3", "--seed=5")
  assert status == 0 and not err
  card = json.loads(out.read_text())
  test = open_source("digits", "test")
  x = test.arrays()[0]
  low = np.float64(x).reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
  rounded = np.round(low)  # where a mean ends in a half, either way
  # What the model makes is known, so that all of its numbers are.
  made = np.clip(rounded + 3, 0, 255).repeat(2, 1).repeat(2, 2)
  scores, errors = card["scores"]["model"], card["errors"]["model"]
  theirs = [
    reference.peak_signal_noise_ratio(a, b, data_range=255)
    for a, b in zip(np.float64(x), made, strict=True)
  ]
  assert scores["psnr"] == pytest.approx(np.mean(theirs), abs=0.02)
  assert errors["psnr"] == pytest.approx(np.std(theirs, ddof=1) / len(x) ** 0.5, rel=0.01)
  theirs = [
    reference.structural_similarity(a, b, data_range=255, channel_axis=-1)
    for a, b in zip(np.float64(x), made, strict=True)
  ]
  assert scores["ssim@uniform7"] == pytest.approx(np.mean(theirs), abs=1e-3)
  shift = np.minimum(3, 255 - rounded)
  assert scores["consistency"] == pytest.approx(1e5 * np.mean(shift**2) / 255**2, rel=0.01)
  assert "ssim@gauss11" not in scores  # larger than the images
  assert card["data"] == {
    "name": "digits",
    "split": "test",
    "fingerprint": test.fingerprint,
    "images": 359,
    "of": 359,
    "shape": [8, 8, 1],
    "low_res": [4, 4, 1],
  }
  assert card["made"]["seed"] == 5 and card["made"]["knobs"] == {"shift": 3}
  assert card["made"]["workdir"] == "U" and card["made"]["weights"]
  assert set(card["scores"]) == {"model", "bicubic", "bilinear"}
  assert f"{scores['psnr']:.4g} ± {errors['psnr']:.2g}" in printed
  assert "359 test images of digits, 4x4 -> 8x8" in printed
  # Columns of the picture, its first row: 16 pixels each, enlarged.
  seen = np.asarray(Image.open(picture))[:128:16, :, 0]
  columns = [seen[:, i * 132 : i * 132 + 128 : 16] for i in range(4)]
  near = lambda a, b: abs(np.float64(a) - b).max()
  assert near(columns[0], made[0, ..., 0] - 3) <= 1
  assert near(columns[2], made[0, ..., 0]) <= 1
  np.testing.assert_array_equal(columns[3], x[0, ..., 0])
  assert pictures.read_info(picture)["card"] == card


def test_interpolations_are_pillows():
  x, _ = pair(3, (24, 24), 3)
  small = functools.partial(degrade.area, size=6)
  pairs = Pairs(None, x, None, small)
  for how, filter_ in (
    ("bicubic", Image.Resampling.BICUBIC),
    ("bilinear", Image.Resampling.BILINEAR),
  ):
    ours = pairs.interpolated(how)
    theirs = np.stack(
      [
        [  # in floats: of bytes it rounds twice
          np.asarray(Image.fromarray(np.float32(a[..., c])).resize((24, 24), filter_))
          for c in range(3)
        ]
        for a in pairs.low_res
      ]
    )
    theirs = np.clip(theirs.transpose(0, 2, 3, 1), 0, 255)
    assert abs(ours - theirs).max() < 0.5 + 1e-3


def test_some_images_labels_and_networks(verb, tmp_path, monkeypatch):
  seen = {}

  class Labelled(Nearest):
    def sample(self, state, batch, key, shift):
      jax.debug.callback(lambda y: seen.setdefault("y", np.array(y)), batch["y"])
      return super().sample(state, batch, key, shift)

  class Differs(Perceptual):
    def distances(self, x, y):
      return np.float64(x[:, 0, 0, 0]) - y[:, 0, 0, 0]

  told = {"sha256": "0", "published": False}
  look = Differs("lpips@stub", told, None, None, None, None)
  monkeypatch.setattr(perceptual, "open_lpips", lambda net, lin: look)
  out = tmp_path / "u.json"
  status, printed, err = verb(
    "--num=16",
    "--out",
    out,
    "--lpips_net=n.pth",
    "--lpips_lin=l.pth",
    model=sampler(Labelled(), classes=10),
  )
  assert status == 0 and "lpips@stub" in printed
  card = json.loads(out.read_text())
  assert card["perceptual"] == {"lpips@stub": told}
  assert err == ["jaxgen: the weights of lpips@stub are not those that were published"]
  x, y = open_source("digits", "test").arrays()
  i = np.arange(16) * 359 // 16
  np.testing.assert_array_equal(seen["y"], y[i])
  assert card["data"]["images"] == 16
  corner = np.float64(x[i]).reshape(-1, 4, 2, 4, 2).mean((2, 4))[:, 0, 0]
  assert card["scores"]["model"]["lpips@stub"] == pytest.approx(
    np.mean(np.round(corner) - x[i, 0, 0, 0]), abs=0.5
  )


def test_a_chain_of_upsamplers():
  # 4 -> 8 -> 16: small images are those of the first, of x made small.
  chain = sampler(
    Cascade((Nearest(), Nearest()), ((8, 8, 1), (16, 16, 1)), (0, 0), np.dtype("uint8")),
    shape=(16, 16, 1),
  )
  assert restoration.enlarges(chain.model)
  x, _ = pair(1, (16, 16))
  pairs = Pairs(SimpleNamespace(name="pair"), x, None, restoration.shrink(chain))
  low = np.float64(x).reshape(-1, 4, 4, 4, 4, 1).mean((2, 4))
  assert abs(pairs.low_res - low).max() <= 0.5 + 1e-4
  y, low_res = pairs.conditions(chain, 4)
  made = chain.sample(0, 4, y, batch=4, **low_res)
  np.testing.assert_array_equal(made, pairs.low_res.repeat(4, 1).repeat(4, 2))
  found = pairs.by_image(made)
  np.testing.assert_allclose(found["consistency"], 0, atol=1e-3)
  assert set(found) == {"psnr", "ssim@gauss11", "ssim@uniform7", "consistency"}


@pytest.mark.parametrize(
  "argv, message",
  [
    (["--picture=u.jpg"], "want x.png"),
    (["--num=1"], "num=1: want at least 2"),
    (["--num=360"], "num=360: want 2 to 359"),
    (["--lpips_net=a.pth"], "there is no --lpips_lin"),
    (["--perceptual=nowhere"], "no folder nowhere"),
    (["--protocol=adm", "--picture=u.png"], "without --protocol"),
  ],
)
def test_mistakes(verb, argv, message):
  status, printed, err = verb(*argv)
  assert status == 2 and message in err[0] and not printed


def test_models_that_cannot_be_judged(verb):
  other = Nearest()
  other.cond = Nearest.cond | {"mask": None}
  for model, data, message in (
    (sampler(shape=(16, 16, 1)), {}, "this model makes [16, 16, 1]"),
    (sampler(other), {}, "makes x from low_res, mask"),
    (sampler(classes=3), {"source": "npz:none.npz"}, "one split"),
  ):
    status, _, err = verb(model=model, **data)
    assert status == 2 and message in err[0]
  plain = Nearest()
  plain.cond = {}
  status, _, err = verb("--picture=u.png", model=sampler(plain))
  assert status == 2 and "--picture is for" in err[0]
