"""EDM2's pickles into a workdir, without their code."""

import pathlib

import jax
import numpy as np
import pytest
from games import same
from opcodes import alone, called, mapping, module, name, text

from jaxgen import config, sharding
from jaxgen.checkpoint.restore import restore_subset
from jaxgen.convert.initial_state import DataSpec
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import edm2_names, names
from jaxgen.sampling import trained

pytestmark = pytest.mark.usefixtures("unoptimised")
ARRAY = called(
  "numpy.core.multiarray",
  "_reconstruct",
  name("numpy", "ndarray"),
  b"K\0\x85",
  b"C\1b",
) + b"(K\1K\4\x85N\x89C\x04abcdtb"  # fmt: skip


def small():
  """The published config, of a small net on latents [16, 16, 4]."""
  c = config.load("configs/edm2.py:img512-xs")
  with c.unlocked():
    c.data.update(size=128, classes=10)
    c.model.model.classes = 10
    net = dict(width=16, mults=(1, 2), blocks=1, attend=(8,), head=16, labels=10, dtype="float32")
    c.model.model.net.update(net)
  return c


def snapshot(tensors):
  """A pickle as their training writes it: the average, how latents are scaled, the loss."""
  encoder = mapping({"vae_name": text("x"), "scale": ARRAY, "_vae": b"N"})
  sets = {
    "encoder": module({}, encoder),
    "dataset_kwargs": name("dnnlib.util", "EasyDict") + b")\x81",
    "loss_fn": module({}, mapping({"P_mean": text("x")})),
    "ema": module(tensors),
  }
  return alone(mapping(sets))


def drawn():
  """-> names and float16 numbers of a file, and our tree of them."""
  c = small().model.model
  spec = DataSpec("x", (16, 16, 4), 10, np.dtype(np.float32))
  inner = small()
  with inner.unlocked():
    inner.model = c
    inner.data.update(size=16, channels=0)
  abstract = Experiment.of(inner).abstract(spec, sharding.make_mesh())
  tree = {"params": abstract.params["net"]} | abstract.stats["net"]
  rng = np.random.default_rng(0)
  draw = lambda s: np.float16(rng.standard_normal(s.shape)).astype(np.float32)
  tree = jax.tree.map(draw, tree)
  tensors = names.spell(edm2_names.entries(tree, 16), tree)
  return {k: np.float16(t.read()) for k, t in tensors.items()}, tree, abstract


def test_a_pickle_makes_a_workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  tensors, tree, abstract = drawn()
  assert "unet.enc.8x8_block0.attn_qkv.weight" in tensors and "unet.out_gain" in tensors
  pathlib.Path("x.pkl").write_bytes(snapshot(tensors))
  lines = []
  import_weights("x.pkl", "w", "edm2", small(), log=lines.append)
  assert any("samples will be latents" in line for line in lines)
  like = {"params": abstract.params, "ema": abstract.ema, "stats": abstract.stats}
  _, state, _ = restore_subset("w", like)
  # One average in the file: all of ours begin with it.
  assert same(state["params"]["net"], tree["params"])
  assert set(state["ema"]) == {"main", "wide"}
  assert all(same(average["net"], tree["params"]) for average in state["ema"].values())
  assert same(state["stats"]["net"], {"buffers": tree["buffers"]})
  assert trained.load_trained("w").data["shape"] == [16, 16, 4]
  with pytest.raises(UserError, match="edm2 keeps its code in its files: none are written"):
    export_weights("w", "y.pt")
  assert not pathlib.Path("hacked").exists()


def test_mistakes(tmp_path):
  tensors, _, _ = drawn()
  path = tmp_path / "x.pkl"

  def line(tensors, c, source="edm2", **kw):
    path.write_bytes(snapshot(tensors))
    with pytest.raises(UserError) as e:
      import_weights(path, tmp_path / "w", source, c, **kw)
    return str(e.value)

  assert "needs a --config, such as configs/edm2.py:img512-xs" in line(tensors, None)
  assert "adm has no checkpoints of nets.edm2.EDM2: try edm2" in line(tensors, small(), "adm")
  assert "edm2 has no checkpoints of nets.unet.UNet" in line(
    tensors, config.load("configs/digits_diffusion.py")
  )
  assert "--disc is a GAN's" in line(tensors, small(), disc="y")
  assert "no networks of patches" in line(tensors, config.load("configs/edm2.py:photos"))
  other = small()
  other.model.model.net.width = 32
  assert "49 of another shape (unet.dec.16x16_block0" in line(tensors, other)
  evil = tensors | {"unet.out_gain": np.float16("nan")}
  assert "holds NaN" in line(evil, small())
  assert not (tmp_path / "w").exists()
