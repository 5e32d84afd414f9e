"""The verb that judges codecs by what they make of test images."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import looks
import numpy as np
import pytest
from games import filled
from ml_collections import ConfigDict
from PIL import Image
from skimage import metrics as reference
from verbs import call

from jaxgen import config, core, evaluate, sharding
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.data.arrays import Arrays
from jaxgen.errors import UserError
from jaxgen.evaluation import codec_images, reconstruction, restoration
from jaxgen.evaluation import features as evaluation_features
from jaxgen.evaluation.judge import collected
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.evaluation.periodic import Periodic
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.keys import normal
from jaxgen.models import codebook
from jaxgen.monitor import pictures
from jaxgen.monitor.log import read_jsonl
from jaxgen.sampling import presets
from jaxgen.sampling.sampler import Sampler

pytestmark = pytest.mark.usefixtures("unoptimised")
N, SHIFT, SPREAD, K = 45, 6, 0.05, 16
# Bytes in the middle of the range, so that nothing is clipped.
X = np.random.default_rng(0).integers(90, 160, (N, 8, 8, 1), np.uint8)
TEST = Arrays("noise", X, np.arange(N, dtype=np.int32) % 3, 3)


class Brighter:
  """A "codec" whose latents are pixels in [-1, 1], and that adds SHIFT bytes."""

  wants_prior, knobs, players, sampled = True, {}, (), ()

  def encode(self, state, x, key=None, y=None):
    return x if key is None else x + SPREAD * normal(key, x.shape[1:])

  def moments(self, state, x, y=None):
    return x, jnp.full_like(x, SPREAD)

  def decode(self, state, z, y=None):
    return z + SHIFT / 127.5


class Coarse(Brighter):
  """One whose codes are K levels of grey, a pixel each; nothing is drawn."""

  moments = None

  def encode(self, state, x, key=None, y=None):
    return {"grey": jnp.floor((x + 1) * K / 2).astype(jnp.int32)}

  def decode(self, state, z, y=None):
    return (z["grey"] + 0.5) * 2 / K - 1

  def occupancy(self, state, z):
    return {"grey": codebook.occupancy(z["grey"], K)}


def sampler(model=None, classes=0, workdir="K"):
  state = core.State(jnp.int32(7), {"net": {"w": jnp.ones(3)}}, {}, {}, {}, jnp.zeros(2, jnp.int32))
  card = {"workdir": str(workdir), "step": 7, "dataset": "noise"}
  return Sampler(model or Brighter(), state, (8, 8, 1), np.dtype("uint8"), classes, card)


def embed(x):
  """Features of images: the mean of each half."""
  return np.float64(x).reshape(len(x), 2, -1).mean(-1)


JUDGE = SimpleNamespace(
  features="noise-cnn",
  embed=embed,
  directions=None,
  shrinking="",
  reference=collected(embed(X[::2])),
  card={"network": "halves", "reference": "23 images"},
)


class Corner(Perceptual):
  def distances(self, x, y):
    return np.abs(np.float64(x[:, 0, 0, 0]) - y[:, 0, 0, 0])


@pytest.fixture
def verb(capsys, monkeypatch, tmp_path):
  """evaluate of a workdir that holds what `model` is set to."""
  monkeypatch.setattr(codec_images, "open_split", lambda data, split=None: TEST)
  monkeypatch.setattr(reconstruction, "open_judge", lambda data, folder: JUDGE)
  corner = Corner("perceptual@corner", {"network": "x"}, None, None, None, lambda shape: "")
  monkeypatch.setattr(restoration, "open_networks", lambda values: [corner])
  data = ConfigDict({"source": "noise", "split": "train", "size": 0})
  monkeypatch.setattr(evaluate, "data_of", lambda workdir: data)

  def run(text="", model=None, **kw):
    loaded = sampler(model, workdir=tmp_path / "K", **kw)
    opened = lambda values: (loaded, presets.knobs_from_flags(values))
    monkeypatch.setattr(evaluate, "open_model", opened)
    return call(capsys, monkeypatch, "evaluate", f"--workdir={tmp_path / 'K'}", *text.split())

  return run


def frechet_of(a, b):
  """Of Gaussians of two features, by the closed form for 2 x 2 matrices."""
  (m, s), (n, t) = ((np.mean(f, 0), np.cov(f, rowvar=False)) for f in map(embed, (a, b)))
  root = np.sqrt(np.trace(s @ t) + 2 * np.sqrt(np.linalg.det(s @ t)))
  return np.sum((m - n) ** 2) + np.trace(s + t) - 2 * root


def test_gaussian_latents(verb, tmp_path):
  out, picture = tmp_path / "k.json", tmp_path / "k.png"
  status, printed, err = verb(f"--out={out} --picture={picture} --seed=5 --batch=16")
  assert status == 0 and not err
  card = json.loads(out.read_text())
  mode, sample = card["scores"]["mode"], card["scores"]["sample"]
  shifted = X + np.uint8(SHIFT)
  assert mode["psnr"] == pytest.approx(20 * np.log10(255 / SHIFT), abs=1e-9)
  pairs = zip(X, shifted, strict=True)
  theirs = [
    reference.structural_similarity(a, b, data_range=255, channel_axis=-1) for a, b in pairs
  ]
  assert mode["ssim@uniform7"] == pytest.approx(np.mean(theirs), abs=1e-6)
  assert mode["perceptual@corner"] == SHIFT and "ssim@gauss11" not in mode
  assert mode["rfrechet@noise-cnn"] == pytest.approx(2 * SHIFT**2, abs=1e-6)
  assert mode["frechet@noise-cnn"] == pytest.approx(frechet_of(shifted, X[::2]), rel=1e-6)
  floor = card["floor"]
  assert floor["rfrechet@noise-cnn"] == 0
  assert floor["frechet@noise-cnn"] == pytest.approx(frechet_of(X, X[::2]), rel=1e-6)
  error = (SHIFT**2 + (SPREAD * 127.5) ** 2) / 255**2  # of samples
  assert sample["psnr"] == pytest.approx(-10 * np.log10(error), abs=0.2)
  assert sample["psnr"] < mode["psnr"] and set(card["errors"]["mode"]) < set(mode)
  z = (X - 127.5) / 127.5
  latents = card["latents"]["mode"]
  assert latents["shape"] == [8, 8, 1] and card["codes"] == {}
  assert latents["mean"] == pytest.approx(z.mean(), abs=1e-6)
  assert latents["std"] == pytest.approx(z.std(), rel=1e-5) == 1 / latents["scale"]
  std = card["latents"]["sample"]["std"]
  assert std == pytest.approx(np.hypot(z.std(), SPREAD), rel=0.02)
  assert f"{mode['psnr']:.4g} ±" in printed and "45 test images of noise" in printed
  assert card["made"]["seed"] == 5 and card["made"]["weights"] and card["data"]["split"] == "test"
  # Originals stand above what became of them: 8 in a row, each pixel enlarged.
  pixels = np.asarray(Image.open(picture))[..., 0]
  np.testing.assert_array_equal(pixels[:64:8, :64:8], X[0, ..., 0])
  np.testing.assert_array_equal(pixels[66:130:8, :64:8], shifted[0, ..., 0])
  assert pictures.read_info(picture)["card"] == card
  # Without flags all that lies in the workdir.
  assert [p.name for p in (tmp_path / "K/evals").iterdir()] == ["00000007-reconstructions-45.json"]
  (row,) = read_jsonl(tmp_path / "K/metrics.jsonl")
  assert row["step"] == 7 and row["eval/psnr"] == pytest.approx(mode["psnr"])


def test_codes(verb, tmp_path):
  status, printed, _ = verb("--num=40", Coarse())
  assert status == 0
  home = tmp_path / "K/evals"
  card = json.loads((home / "00000007-reconstructions-40.json").read_text())
  assert (home / "00000007-reconstructions-40.png").is_file()
  assert set(card["scores"]) == {"mode"} and card["latents"]["mode"] == {
    "shape": {"grey": [8, 8, 1]}
  }
  rows = X[np.arange(40) * N // 40]
  index = np.floor(np.float64(rows) / 127.5 * K / 2).astype(int)
  share = np.bincount(index.ravel(), minlength=K) / index.size
  some = share[share > 0]
  use = card["codes"]["grey"]
  assert use["codes"] == K and use["dead"] == np.sum(share == 0) > 0
  assert use["dead_share"] == use["dead"] / K
  assert use["perplexity"] == pytest.approx(np.exp(-np.sum(some * np.log(some))), rel=1e-6)
  assert f"grey: perplexity {use['perplexity']:.1f} of 16; {use['dead']} (" in printed
  (row,) = read_jsonl(tmp_path / "K/metrics.jsonl")
  assert row["eval/dead_grey"] == use["dead"] and row["eval/perplexity_grey"] == use["perplexity"]


class Drawn(Brighter):
  """One whose samples are images."""

  wants_prior = False

  def sample(self, state, batch, key):
    return jnp.zeros_like(batch["x"])


def test_one_command_tells_all_of_a_vae(verb, tmp_path, monkeypatch):
  judge = SimpleNamespace(**vars(JUDGE), count=40, floor=lambda: {"a@x": [2.0]})
  judge.scores = lambda x, y: {"a@x": [float(x.mean())]}
  monkeypatch.setattr(evaluate, "open_judge", lambda data, folder: judge)
  monkeypatch.setattr(evaluate, "check_samples", lambda *_: None)
  status, printed, err = verb(f"--num=60 --out={tmp_path}/v.json", Drawn())
  assert status == 0 and not err
  card = json.loads((tmp_path / "v.json").read_text())
  assert card["scores"] == {"a@x": 128.0} and card["made"]["num"] == 60
  own = card["reconstructions"]
  assert own["data"]["images"] == N and own["scores"]["mode"]["perceptual@corner"] == SHIFT
  assert printed.index("psnr") < printed.index("samples:") < printed.index("a@x")


def test_mistakes(verb, monkeypatch):
  for flags, message in (
    ("--num=46", "num=46: want 2 to 45"),
    ("--picture=k.jpg", "want x.png"),
    ("--protocol=adm --picture=k.png", "or of a codec, without --protocol"),
  ):
    status, printed, err = verb(flags)
    assert status == 2 and message in err[0] and not printed
  status, _, err = verb(classes=5)
  assert status == 2 and "this codec decodes by 5 labels, and noise has 3" in err[0]
  plain = Brighter()
  plain.decode = None
  status, _, err = verb("--protocol=adm --reconstructions", plain)
  assert status == 2 and "is of no codec of images" in err[0]
  ill = Brighter()
  ill.decode = lambda state, z, y=None: z / 0
  status, _, err = verb("", ill)
  assert status == 2 and "reconstructions 0 to 32 by" in err[0] and "NaN" in err[0]
  monkeypatch.setattr(codec_images, "open_split", lambda *_: Arrays("large", X.repeat(2, 1)))
  status, _, err = verb()
  assert status == 2 and "this codec reads [8, 8, 1], but large holds uint8 [16, 8, 1]" in err[0]


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
  """A tiny VQ-VAE-2 of random weights, its workdir, config and state."""
  workdir = tmp_path_factory.mktemp("codes")
  c = config.load("configs/vqvae2.py:debug")
  c.model.net.update(width=4, blocks=1, hidden=2, dim=4)
  experiment, source = Experiment.of(c), open_data(c)
  state = filled(experiment.abstract(source, sharding.make_mesh()))
  with Checkpoints(str(workdir), every=1, keep=2) as checkpoints:
    checkpoints.save(0, state, describe(c, source), force=True)
  return workdir, c, experiment.model, state


def test_by_protocol_and_while_training(codes, capsys, monkeypatch):
  """rFID is of reconstructions from their originals; the loop says the same."""
  workdir, c, model, state = codes
  monkeypatch.setattr(evaluation_features, "open_extractor", looks.opened)
  status, printed, _ = call(
    capsys, monkeypatch, "eval", f"--workdir={workdir}", "--protocol=adm", "--num=50"
  )
  assert status == 0 and "rfid@adm" in printed and "\nfid@adm" not in printed
  path = workdir / "evals/00000000-adm-reconstructions-50.json"
  card = json.loads(path.read_text())
  assert card["samples"]["kind"] == "reconstructions" and card["samples"]["latents"] == "modes"
  assert card["reference"]["split"] == card["samples"]["split"] == "test"
  assert card["reference"]["images"] == card["samples"]["images"] == 50
  assert card["reference"]["fingerprint"] == card["samples"]["fingerprint"]
  assert set(card["scores"]) > {"psnr", "rfid@adm", "rsfid@adm", "precision@adm"}
  path.unlink()
  periodic = Periodic(
    dict(every=2, num=50), config.as_json(c), model, open_data(c), str(workdir), looks.opened
  )
  assert periodic.run(0, state) == card["scores"] == periodic.run(0, state)
  with pytest.raises(UserError, match="log.eval.num"):
    Periodic(dict(every=2, num=0), config.as_json(c), model, open_data(c), str(workdir))


def test_a_codec_that_loses_nothing(monkeypatch):
  monkeypatch.setattr(reconstruction, "SHOWN", 4)
  images = codec_images.Reconstructions(sampler(Lossless()), TEST, most=7)
  parts = list(images.parts(0, N))
  np.testing.assert_array_equal(np.concatenate([p.x for p in parts]), X)
  read = np.concatenate(list(images.read(0, N)))
  np.testing.assert_array_equal(read, X.repeat(3, -1))
  assert np.isinf(images.psnr).all() and images.count == N
  card = codec_images.with_names({"scores": {"fid@adm": 1.0, "is@adm": 2.0}, "spread": {}}, images)
  assert card["scores"] == {"psnr": "inf", "rfid@adm": 1.0, "is@adm": 2.0}
  assert reconstruction.above(X, X).shape[0] == 4 * 64 + 3 * 2


class Lossless(Brighter):
  decode = staticmethod(lambda state, z, y=None: z)


def test_draws_do_not_depend_on_batches():
  of = lambda most: codec_images.Reconstructions(sampler(), TEST, drawn=True, seed=3, most=most)
  a, b = (np.concatenate([p.x_hat for p in of(most).parts(0, N)]) for most in (8, 32))
  np.testing.assert_array_equal(a, b)
  some = np.concatenate([p.x_hat for p in of(8).parts(20, 31)])
  np.testing.assert_array_equal(some, a[20:31])
  assert codec_images.is_random(sampler()) and not codec_images.is_random(sampler(Coarse()))
  assert jax.device_get(a).dtype == np.float32
