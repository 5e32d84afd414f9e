"""Denoising diffusion GANs' files in and out again: every name, every bit."""

import jax
import numpy as np
import pytest

from jaxgen import config
from jaxgen.checkpoint import restore
from jaxgen.config import build
from jaxgen.convert import ddgan_workdir
from jaxgen.convert.initial_state import ForeignFile
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.interop import ddgan_names, names, tensor_files
from jaxgen.interop.tensors import lazy

pytestmark = pytest.mark.usefixtures("unoptimised")


def small():
  """A config of such nets, but small."""
  c = config.load("configs/ddgan.py:cifar").unlock()
  c.data.size = 8
  c.model.z_dim = 5
  c.model.gen.update(width=8, mults=(1, 2), blocks=1, attend=(4,), z_width=8, z_layers=1)
  c.model.disc.update(width=2, mults=(2, 4, 4), t_width=8)
  c.log.pictures = 0
  return c


def theirs(seed):
  """Their tensors of both nets, by the names of data-parallel training."""
  model = build(small().model)
  batch = {"x": jax.ShapeDtypeStruct((4, 8, 8, 3), np.float32)}
  params, _ = jax.eval_shape(model.init, batch, jax.random.key(0))
  rng = np.random.default_rng(seed)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), params)
  tables = {
    "gen": ddgan_names.gen_entries(params["gen"]),
    "disc": ddgan_names.disc_entries(params["disc"]),
  }
  return {
    k: {f"module.{n}": t for n, t in names.spell(table, params[k]).items()}
    for k, table in tables.items()
  }


def equal(file, tensors):
  """Whether a set of a file that was read holds exactly these."""
  assert {f"module.{k}" for k in file} == set(tensors)
  for name, tensor in tensors.items():
    assert file[name.removeprefix("module.")].read().tobytes() == tensor.read().tobytes(), name


def test_an_averaged_generator_alone(tmp_path):
  tensors, lines = theirs(0)["gen"], []
  tensor_files.write(tmp_path / "netG_7.pth", tensors)
  import_weights(tmp_path / "netG_7.pth", tmp_path / "w", "ddgan", small(), log=lines.append)
  assert lines == ["the file holds no discriminator: it begins at random, if it is trained on"]
  report = export_weights(tmp_path / "w", tmp_path / "out.pth")
  assert report["tensors"] == len(tensors)
  equal(tensor_files.read(tmp_path / "out.pth"), tensors)


def test_both_nets_and_the_average_apart(tmp_path):
  """As training on wants them: raw weights and D of content.pth, the average beside."""
  average, raw = theirs(0)["gen"], theirs(1)
  content = {"netG_dict": raw["gen"], "netD_dict": raw["disc"]}
  more = {"optimizerG": {"exp_avg": lazy(np.ones(3, np.float32))}}
  tensor_files.write(tmp_path / "netG_7.pth", average)
  tensor_files.write(tmp_path / "content.pth", content | more)
  lines = []
  import_weights(
    tmp_path / "netG_7.pth",
    tmp_path / "w",
    "ddgan",
    small(),
    disc=tmp_path / "content.pth",
    log=lines.append,
  )
  assert not lines
  export_weights(tmp_path / "w", tmp_path / "a.pth", disc=tmp_path / "b.pth")
  equal(tensor_files.read(tmp_path / "a.pth"), average)
  back = tensor_files.sets(tmp_path / "b.pth")
  assert set(back) == set(content)
  for name, tensors in content.items():
    equal(back[name], tensors)
  meta = restore.latest_meta(tmp_path / "w")
  assert set(meta["import"]) >= {"source", "sha256", "disc"}


@pytest.mark.parametrize("arg", ["cifar", "celeba256"])
def test_files_of_published_shapes_need_no_config(arg):
  """Nor their values, to be known."""
  want, lines = config.load(f"configs/ddgan.py:{arg}"), []
  x = jax.ShapeDtypeStruct((1, want.data.size, want.data.size, 3), np.float32)
  t, z = jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((1, 100), np.float32)
  tree = jax.eval_shape(build(want.model.gen).init, jax.random.key(0), x, t, z)["params"]
  file = ForeignFile("x", "ddgan", None, 0, None, None, None, lines.append)
  got = ddgan_workdir.usual(names.spell(ddgan_names.gen_entries(tree), tree), file)
  assert got.to_dict() == want.to_dict()
  assert len(lines) == 1 and "taken for it" in lines[0] and "give a --config" in lines[0]


def test_files_that_do_not_fit(tmp_path):
  both = theirs(0)

  def refused(says, tensors, c=None, source="ddgan", **more):
    tensor_files.write(tmp_path / "x.pth", tensors)
    with pytest.raises(UserError, match=says):
      import_weights(tmp_path / "x.pth", tmp_path / "w", source, c, **more)

  few = {k: t for k, t in both["gen"].items() if "all_modules.3.Conv_0" not in k}
  refused(r"no published net \(cifar, celeba256\)", few)
  refused(r"2 not in the file \(all_modules.3.Conv_0", few, small())
  refused("adm has no checkpoints of models.denoising_gan.DenoisingGAN: try ddgan", both["gen"],
          small(), "adm")  # fmt: skip
  refused("ddgan has no checkpoints of models.gan.GAN: give a config such as", both["gen"],
          config.load("configs/digits_gan.py"))  # fmt: skip
  refused("no nets of patches or with labels", both["gen"], config.load("configs/ddgan.py:digits"))
  refused("no checkpoints of nets.ddgan_mlp", both["gen"], config.load("configs/ddgan.py:points"))
  refused("holds no netD_dict, but .: want content.pth", both["gen"], small(),
          disc=str(tmp_path / "x.pth"))  # fmt: skip
  assert not (tmp_path / "w").exists()
