"""Latents that are written once: the same training, whole after any kill."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import xla
from games import SPECS, same
from ml_collections import ConfigDict

from jaxgen import config, sharding, train
from jaxgen.checkpoint import pretrained
from jaxgen.compare.comparison import check_alike
from jaxgen.compare.measure import Entry
from jaxgen.data import latent_rows
from jaxgen.data.latent_rows import open_latents
from jaxgen.data.pipeline import Batches, batches
from jaxgen.data.sources import open_split, open_training
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, open_data
from jaxgen.sampling.encode import encode

pytestmark = pytest.mark.usefixtures("unoptimised")


def settings(name, **model):
  c = config.load(f"configs/{name}").unlock()
  c.model.update(model)
  c.model.get("codec", c.model).net.width = 4
  c.steps, c.batch, c.checkpoint.every = 2, 16, 2
  c.log.update(every=2, pictures=0)
  return c


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
  """The workdir of a small VAE of digits."""
  workdir = tmp_path_factory.mktemp("codec") / "K"
  train.train(settings("digits_vae.py"), str(workdir), quiet=True)
  return workdir


@pytest.fixture(scope="module")
def written(codec):
  """Its latents of all images and of their mirror images, as float32."""
  out = codec.parent / "latents"
  assert encode(str(codec), out, flip=True, dtype="float32", batch=500) == 1438
  return out


def prior(codec, source):
  c = settings("digits_latent.py:vae", codec_workdir=str(codec))
  c.model.model.net.update(width=16, depth=1)
  c.data.source = source
  return c


def test_training_on_them_is_training_through_the_codec(codec, written, tmp_path):
  direct = train.train(prior(codec, "digits"), str(tmp_path / "a"), quiet=True)
  stored = train.train(prior(codec, f"latents:{written}"), str(tmp_path / "b"), quiet=True)
  assert stored.stats["codec"]["latents"]["var"] > 0
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, direct.params, stored.params)
  jax.tree.map(close, direct.stats, stored.stats)


def test_rows_are_what_the_codec_writes_of_the_stream(codec, written):
  """Of the images that a training would see, mirrored where it would."""
  source, digits = open_latents(str(written)), open_split({"source": "digits", "split": "train"})
  assert (len(source), source.shape, source.dtype) == (1438, (8, 8, 1), np.uint8)
  assert source.stored == {k: ((16,), np.float32) for k in ("mean", "std")}
  of_images, of_latents = (Batches(s, 32, seed=3, flip=True)[7] for s in (digits, source))
  model = Experiment.of(settings("digits_vae.py")).model
  reader = SimpleNamespace(codec=model, codec_workdir=str(codec))
  params, stats = pretrained.read_codec(reader, None)
  state = Experiment.of(settings("digits_vae.py")).fresh(digits, sharding.make_mesh())
  state = state.replace(params=params, stats=state.stats | stats)
  x = (np.float32(of_images["x"]) - 127.5) / 127.5
  mean, std = model.moments(state, x, of_images["y"])
  np.testing.assert_array_equal(of_latents["y"], of_images["y"])
  np.testing.assert_allclose(of_latents["z"]["mean"], mean, atol=1e-5)
  np.testing.assert_allclose(of_latents["z"]["std"], std, atol=1e-5)
  plain = Batches(source, 32, seed=3)[7]["z"]["mean"]
  mirrored = np.abs(plain - mean).max(1) > 1e-4
  assert 8 < mirrored.sum() < 24


def test_worker_processes_map_the_files_themselves(written):
  source = open_latents(str(written))
  assert len(pickle.dumps(source)) < 1000
  again = pickle.loads(pickle.dumps(source))
  row, want = again[5], source.read(np.array([5]))
  assert again.fingerprint == source.fingerprint and row["y"] == want["y"][0]
  np.testing.assert_array_equal(row["z"]["std"], want["z"]["std"][0])


def test_the_images_themselves_are_judged_by(written):
  """Whoever asks for images of such a config gets those that were encoded."""
  data = {"source": f"latents:{written}", "split": "train", "size": 0}
  for split in ("train", "test"):
    want = open_split({"source": "digits", "split": split})
    assert open_split(data, split).fingerprint == want.fingerprint
  assert open_training(data).fingerprint == open_latents(str(written)).fingerprint


def test_models_of_them_compare_with_models_of_the_images(written):
  entry = lambda name, source: Entry(
    name, written, (), ConfigDict(dict(model=SPECS["vae"], data=dict(source=source)))
  )
  pixels, own = entry("pixels", "digits"), entry("own", f"latents:{written}")
  check_alike([pixels, own])
  with pytest.raises(UserError, match="photos is of photos, but own of digits: only like can"):
    check_alike([own, entry("photos", "photos")])


def test_whoever_is_killed_goes_on(codec, written, tmp_path, monkeypatch):
  """With half a row at the end, and nothing that tells of the last batches."""
  out, append, calls = tmp_path / "latents", latent_rows.Writer.append, []

  def dies(writer, *rows):
    if len(calls) == 2:
      writer.sync()
    if len(calls) == 4:
      raise KeyboardInterrupt
    calls.append(append(writer, *rows))

  monkeypatch.setattr(latent_rows.Writer, "append", dies)
  with pytest.raises(KeyboardInterrupt):
    encode(str(codec), out, flip=True, dtype="float32", batch=100)
  monkeypatch.undo()
  with pytest.raises(UserError, match="they are not finished: run the same `jaxgen encode` again"):
    open_latents(str(out))
  assert json.loads((out / "progress.json").read_text())["rows"] == 2 * 200
  with open(out / "mean.bin", "ab") as file:
    file.write(b"torn")
  encode(str(codec), out, flip=True, dtype="float32", batch=500)
  assert sorted(p.name for p in out.iterdir()) == ["mean.bin", "meta.json", "std.bin", "y.bin"]
  a, b = open_latents(str(out)), open_latents(str(written))
  assert a.fingerprint == b.fingerprint and same(a.y, b.y)
  for name in a.z:  # batches of other sizes, so not the same bits
    np.testing.assert_allclose(a.z[name], b.z[name], atol=1e-5)
  before = (out / "meta.json").stat().st_mtime_ns
  encode(str(codec), out, flip=True, dtype="float32")  # nothing is left to do
  assert (out / "meta.json").stat().st_mtime_ns == before


def test_several_devices_write_the_same(codec, written, tmp_path):
  out = tmp_path / "latents"
  command = [sys.executable, "-m", "jaxgen", "encode", f"--workdir={codec}", f"--out={out}"]
  subprocess.run(
    [*command, "--flip", "--dtype=float32", "--batch=501"],
    env=os.environ | {"XLA_FLAGS": xla.devices(2)},
    check=True,
    capture_output=True,
  )
  a, b = open_latents(str(out)), open_latents(str(written))
  for name in a.z:
    np.testing.assert_allclose(a.z[name], b.z[name], atol=1e-5)


def test_folders_that_are_not_free(codec, written, tmp_path):
  with pytest.raises(UserError, match="latents of another codec, of other images or in another"):
    encode(str(codec), written)  # not mirrored, of another dtype
  (tmp_path / "mine.txt").touch()
  with pytest.raises(UserError, match="holds other files, or .*: take a new --out"):
    encode(str(codec), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_files_behind_links_stay_as_they_are(tmp_path):
  """Also in a folder in which our own rows were begun."""
  (tmp_path / "mine.txt").write_text("mine")
  meta = meta_of("float32")
  with latent_rows.Writer(tmp_path / "out", meta).writing():
    pass
  (tmp_path / "out" / "z.bin").unlink()
  (tmp_path / "out" / "z.bin").symlink_to(tmp_path / "mine.txt")
  with pytest.raises(UserError, match="z.bin is a link: move it away"):
    with latent_rows.Writer(tmp_path / "out", meta).writing():
      pass
  assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_cannot_be_trained_on_them(codec, written):
  name = f"latents:{written}"
  with pytest.raises(UserError, match="holds latents, and config.model is a Diffusion of images"):
    c = settings("digits_diffusion.py")
    c.data.source = name
    Experiment.of(c).abstract(open_data(c), sharding.make_mesh())
  c = prior(codec, name)
  c.data.crop = 0.8
  with pytest.raises(UserError, match="data.crop cuts images, and latents:"):
    Experiment.of(c).abstract(open_data(c), sharding.make_mesh())
  c = prior(codec, name)
  c.data.fraction = 0.5
  with pytest.raises(UserError, match="holdout and fraction choose images"):
    open_data(c)


def test_latents_of_another_codec_are_refused(codec, written, tmp_path):
  other = settings("digits_vae.py")
  other.seed = 5
  train.train(other, str(tmp_path / "K"), quiet=True)
  c = prior(tmp_path / "K", f"latents:{written}")
  with pytest.raises(UserError, match=r"written by another codec than this: .*K, step 2"):
    train.train(c, str(tmp_path / "W"), quiet=True)
  assert not (tmp_path / "W").exists()


def test_mirror_images_must_be_there(codec, tmp_path):
  out = tmp_path / "latents"
  encode(str(codec), out, split="test", batch=400)
  source = open_latents(str(out))
  assert source.stored["std"][1] == np.float16 and len(source) == 359
  with pytest.raises(UserError, match="no latents of mirror images, .* `jaxgen encode --flip`"):
    batches(source, batch=8, seed=0, flip=True)


@pytest.mark.parametrize(
  ("change", "why"),
  [
    (lambda folder, meta: meta.update(count=1439), "bytes of"),
    (lambda folder, meta: meta.pop("data"), "'data'"),
    (lambda folder, meta: meta["leaves"].update({"../x": ((1,), "float32")}), "no array"),
    (lambda folder, meta: meta["leaves"].update(mean=((16,), "object")), "no array"),
    (lambda folder, meta: (folder / "std.bin").unlink(), "No such file"),
  ],
)
def test_damaged_folders_are_one_line(written, tmp_path, change, why):
  folder = tmp_path / "latents"
  shutil.copytree(written, folder)
  meta = json.loads((folder / "meta.json").read_text())
  change(folder, meta)
  (folder / "meta.json").write_text(json.dumps(meta))
  with pytest.raises(UserError, match=f"are damaged .*{why}.*: write them anew"):
    open_latents(str(folder))


def meta_of(dtype, count=2):
  return {
    "version": 1,
    "count": count,
    "copies": 1,
    "leaves": {"z": ((3,), dtype)},
    "codec": {"digest": "c"},
    "data": {"fingerprint": "f", "classes": 0},
  }


def test_numbers_that_do_not_fit(tmp_path):
  for dtype, value, says in (
    ("float16", 1e6, "not finite as float16: .* --dtype=float32"),
    ("float32", np.nan, "not finite as float32"),
    ("uint16", 70_000, "codes are larger than uint16 holds: 70,000"),
  ):
    writer = latent_rows.Writer(tmp_path / dtype, meta_of(dtype))
    with pytest.raises(UserError, match=says), writer.writing():
      writer.append({"z": np.full((2, 3), value)}, None)
  with pytest.raises(UserError, match="take .* GiB, and there are"):
    latent_rows.Writer(tmp_path / "large", meta_of("float32", 10**15))
