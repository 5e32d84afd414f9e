"""The verb that judges upsamplers by PSNR, SSIM and consistency."""

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
from test_image_quality import pair
from verbs import call

from jaxgen import core, evaluate
from jaxgen.data.sources import open_source
from jaxgen.diffusion import degrade
from jaxgen.evaluation import perceptual, restoration
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.evaluation.restoration import Pairs
from jaxgen.models.cascade import Cascade
from jaxgen.monitor import pictures
from jaxgen.sampling import presets
from jaxgen.sampling.sampler import Sampler


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

  def run(text="", model=None, **data):
    data = ConfigDict({"source": "digits", "split": "train", "size": 0} | data)
    monkeypatch.setattr(
      evaluate, "open_model", lambda values: (model or sampler(), presets.knobs_from_flags(values))
    )
    monkeypatch.setattr(evaluate, "data_of", lambda workdir: data)
    return call(capsys, monkeypatch, "evaluate", "--workdir=U", *text.split())

  return run


def test_the_verb(verb, tmp_path):
  out, picture = tmp_path / "u.json", tmp_path / "u.png"
  status, printed, err = verb(f"--out={out} --picture={picture} --knobs=shift=3 --seed=5")
  assert status == 0 and not err
  card = json.loads(out.read_text())
  test = open_source("digits", "test")
  x = test.arrays()[0]
  low = np.float64(x).reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
  rounded = np.round(low)  # where a mean ends in a half, either way
  # What the model makes is known, so that all of its numbers are.
  enlarged = np.clip(rounded + 3, 0, 255).repeat(2, 1).repeat(2, 2)
  scores, errors = card["scores"]["model"], card["errors"]["model"]
  pairs = list(zip(np.float64(x), enlarged, strict=True))
  theirs = [reference.peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs]
  assert scores["psnr"] == pytest.approx(np.mean(theirs), abs=0.02)
  assert errors["psnr"] == pytest.approx(np.std(theirs, ddof=1) / len(x) ** 0.5, rel=0.01)
  how = dict(data_range=255, channel_axis=-1)
  theirs = [reference.structural_similarity(a, b, **how) for a, b in pairs]
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
  pixels = np.asarray(Image.open(picture))[:128:16, :, 0]
  columns = [pixels[:, i * 132 : i * 132 + 128 : 16] for i in range(4)]
  near = lambda a, b: abs(np.float64(a) - b).max()
  assert near(columns[0], enlarged[0, ..., 0] - 3) <= 1
  assert near(columns[2], enlarged[0, ..., 0]) <= 1
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
  labels = {}

  class Labelled(Nearest):
    def sample(self, state, batch, key, shift):
      jax.debug.callback(lambda y: labels.setdefault("y", np.array(y)), batch["y"])
      return super().sample(state, batch, key, shift)

  class Differs(Perceptual):
    def distances(self, x, y):
      return np.float64(x[:, 0, 0, 0]) - y[:, 0, 0, 0]

  about = {"sha256": "0", "published": False}
  look = Differs("lpips@stub", about, None, None, None, None)
  monkeypatch.setattr(perceptual, "open_lpips", lambda net, lin: look)
  out = tmp_path / "u.json"
  flags = f"--num=16 --out={out} --lpips_net=n.pth --lpips_lin=l.pth"
  status, printed, err = verb(flags, model=sampler(Labelled(), classes=10))
  assert status == 0 and "lpips@stub" in printed
  card = json.loads(out.read_text())
  assert card["perceptual"] == {"lpips@stub": about}
  assert err == ["jaxgen: the weights of lpips@stub are not those that were published"]
  x, y = open_source("digits", "test").arrays()
  i = np.arange(16) * 359 // 16
  np.testing.assert_array_equal(labels["y"], y[i])
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
  enlarged = chain.sample(0, 4, y, batch=4, **low_res)
  np.testing.assert_array_equal(enlarged, pairs.low_res.repeat(4, 1).repeat(4, 2))
  scores = pairs.by_image(enlarged)
  np.testing.assert_allclose(scores["consistency"], 0, atol=1e-3)
  assert set(scores) == {"psnr", "ssim@gauss11", "ssim@uniform7", "consistency"}


@pytest.mark.parametrize(
  "flags, message",
  [
    ("--picture=u.jpg", "want x.png"),
    ("--num=1", "num=1: want at least 2"),
    ("--num=360", "num=360: want 2 to 359"),
    ("--lpips_net=a.pth", "there is no --lpips_lin"),
    ("--perceptual=nowhere", "no folder nowhere"),
    ("--protocol=adm --picture=u.png", "without --protocol"),
  ],
)
def test_mistakes(verb, flags, message):
  status, printed, err = verb(flags)
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
