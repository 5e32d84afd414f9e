"""Files of pix2pix and CycleGAN in and out again: every name, every bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from translators import opened, tensors

from jaxgen import config
from jaxgen.checkpoint import restore
from jaxgen.config import build
from jaxgen.convert import translator_workdir
from jaxgen.convert.initial_state import ForeignFile
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.interop import names, tensor_files, translator_names
from jaxgen.interop.tensors import lazy
from jaxgen.nets.resnet_translator import TranslatorResNet
from jaxgen.sampling.sampler import load

pytestmark = pytest.mark.usefixtures("unoptimised")


def equal(path, values):
  """Whether a file holds exactly these."""
  file = tensor_files.read(path)
  assert set(file) == set(values)
  for name, x in values.items():
    assert file[name].read().tobytes() == np.asarray(x, np.float32).tobytes(), name


def write(path, values):
  counters = {}  # as PyTorch has them
  for name in [n for n in values if n.endswith("running_mean")]:
    counters[name.replace("running_mean", "num_batches_tracked")] = lazy(np.array(7))
  tensor_files.write(path, {k: lazy(np.asarray(v)) for k, v in values.items()} | counters)


def unet():
  c = config.load("configs/pix2pix.py:256").unlock()
  c.data.update(size=32, crop=0.0)
  c.model.gen.update(width=4, downs=5)
  c.model.disc.width = 4
  return c


def test_a_generator_of_pix2pix_and_its_discriminator(tmp_path):
  """The reference's tensors, and the reference's numbers of what was imported."""
  d, m = opened("pix2pix")
  gen = tensors(m["seed"], m["state_dict"])
  disc = tensors(m["discriminator_seed"], m["discriminator_state_dict"])
  write(tmp_path / "latest_net_G.pth", gen)
  write(tmp_path / "latest_net_D.pth", disc)
  lines = []
  import_weights(
    tmp_path / "latest_net_G.pth",
    tmp_path / "w",
    "pix2pix",
    unet(),
    disc=tmp_path / "latest_net_D.pth",
    log=lines.append,
  )
  assert not lines
  assert set(restore.latest_meta(tmp_path / "w")["import"]) >= {"sha256", "disc"}
  report = export_weights(tmp_path / "w", tmp_path / "G.pth", disc=tmp_path / "D.pth")
  equal(tmp_path / "G.pth", gen)
  assert report["tensors"] == len(gen)
  # Running statistics of a discriminator are nobody's.
  for name, x in disc.items():
    fixed = {"running_mean": 0, "running_var": 1}.get(name.rpartition(".")[2])
    disc[name] = x if fixed is None else np.full_like(x, fixed)
  equal(tmp_path / "D.pth", disc)
  model = load(str(tmp_path / "w"))
  source = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
  x = model.sample(0, 2, source=source, image_stats=0, dropout=0)
  assert x.shape == (2, 32, 32, 3) and (x[0] != x[1]).any()
  with pytest.raises(UserError, match="this model makes x from source: give it"):
    model.sample(0, 2)


def test_one_generator_of_cyclegan_and_both(tmp_path):
  """Old files have statistics of instance norms, which are ignored."""
  net = TranslatorResNet(4, 1)
  x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  tree = jax.eval_shape(net.init, jax.random.key(0), x)
  rng = np.random.default_rng(0)
  table = translator_names.gen_entries(tree)
  a, b = ({e.theirs[0]: rng.standard_normal(e.layout, np.float32) for e in table} for _ in "ab")
  old = {"model.2.running_mean": np.ones(4), "model.2.running_var": np.ones(4)}
  write(tmp_path / "A.pth", a | {k: np.float32(v) for k, v in old.items()})
  write(tmp_path / "B.pth", b)
  c = config.load("configs/cycle_gan.py:256").unlock()
  c.data.update(size=8, crop=0.0)
  c.model.gen.update(width=4, blocks=1)
  c.model.disc.update(width=4, layers=1)
  lines = []
  import_weights(tmp_path / "A.pth", tmp_path / "one", "cyclegan", c, log=lines.append)
  assert "the other way begins at random" in lines[0] and len(lines) == 2
  both = dict(back=tmp_path / "B.pth", log=lines.append)
  import_weights(tmp_path / "A.pth", tmp_path / "two", "cyclegan", c, **both)
  for name in ("one", "two"):
    export_weights(tmp_path / name, tmp_path / "a.pth", back=tmp_path / "b.pth")
    equal(tmp_path / "a.pth", a)
  equal(tmp_path / "b.pth", b)
  with pytest.raises(UserError, match="--disc pix2pix' discriminator"):
    export_weights(tmp_path / "two", tmp_path / "a.pth", disc=tmp_path / "b.pth")
  with pytest.raises(UserError, match="cyclegan has no checkpoints of models.pix2pix"):
    import_weights(tmp_path / "A.pth", tmp_path / "no", "cyclegan", unet())
  with pytest.raises(UserError, match="--back is of CycleGAN: pix2pix goes one way"):
    import_weights(tmp_path / "A.pth", tmp_path / "no", "pix2pix", unet(), back="B.pth")
  with pytest.raises(UserError, match="shapes of no published net .256, 128.: give a --config"):
    import_weights(tmp_path / "A.pth", tmp_path / "no", "cyclegan")
  assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
  ("source", "name"),
  [
    ("pix2pix", "configs/pix2pix.py:256"),
    ("pix2pix", "configs/pix2pix.py:resnet6"),
    ("cyclegan", "configs/cycle_gan.py:128"),
  ],
)
def test_files_of_published_shapes_need_no_config(source, name):
  want, lines = config.load(name), []
  x = jax.ShapeDtypeStruct((1, want.data.size, want.data.size, 3), jnp.float32)
  tree = dict(jax.eval_shape(build(want.model.gen).init, jax.random.key(0), x))
  dropout = bool(want.model.gen.get("dropout", 0.0))
  file = ForeignFile("x", source, None, 0, None, None, None, lines.append)
  spelt = names.spell(translator_names.gen_entries(tree, dropout), tree)
  assert translator_workdir.usual(spelt, file).to_dict() == want.to_dict()
  assert len(lines) == 1 and "taken for it" in lines[0]
