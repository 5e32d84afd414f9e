"""Codecs of other people's files: into a workdir, and out again."""

import types

import jax
import numpy as np
import pytest
from games import same

from jaxgen import config, core
from jaxgen.checkpoint import restore
from jaxgen.config import build
from jaxgen.convert import codec_workdir
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.interop import autoencoder_names, names, tensor_files
from jaxgen.interop.tensors import lazy

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)


def config_of(name):
  c = config.load(f"configs/{name}.py:debug")
  c.data.update(size=8, channels=1)
  if "mults" in c.model.net:
    c.model.net.mults = (1,)
  return c


def random_group(name):
  """Random weights of a config's codec, as the tables have them."""
  model = build(config_of(name).model)
  init = lambda x: model.init(core.on_device({"x": x}), KEY)
  params, stats = jax.eval_shape(init, jax.ShapeDtypeStruct((1, 8, 8, 1), np.uint8))
  rng, group = np.random.default_rng(0), {"params": params["net"]} | stats.get("net", {})
  return jax.tree.map(lambda s: np.abs(rng.standard_normal(s.shape, np.float32)), group)


def random_disc(name):
  """Of its discriminator, as a file of `ldm` holds them."""
  model, rng = build(config_of(name).model), np.random.default_rng(1)
  tree = jax.eval_shape(model.init, {"x": np.zeros((1, 8, 8, 1), np.float32)}, KEY)[0]["disc"]
  tree = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), tree)
  return tree, names.spell(autoencoder_names.disc_entries(tree), tree)


def written(folder, name, source):
  """A file of theirs -> its path and tensors."""
  group = random_group(name)
  theirs = names.spell(autoencoder_names.CODECS[source].entries(group), group)
  theirs = {k: np.asarray(t.read()) for k, t in theirs.items()}
  extra, prefix = {}, ""
  if source == "ldm":  # within a model, beside other things
    prefix, extra = "first_stage_model.", {"model.x": np.ones(2), "betas": np.ones(3)}
    extra["first_stage_model.loss.logvar"] = np.ones(())
  tensors = {prefix + k: v for k, v in theirs.items()} | extra
  tensor_files.write(folder / "theirs.pt", {k: lazy(np.float32(v)) for k, v in tensors.items()})
  return folder / "theirs.pt", theirs


@pytest.mark.parametrize(("name", "source"), [("ldm_vq", "ldm"), ("vqvae2", "vqvae2")])
def test_round_trips_are_exact(tmp_path, name, source):
  file, theirs = written(tmp_path, name, source)
  lines = []
  import_weights(file, tmp_path / "w", source, config_of(name), log=lines.append)
  assert ("the discriminator begins at random" in lines) == (name != "vqvae2")
  report = export_weights(tmp_path / "w", tmp_path / "ours.safetensors", ema="none")
  assert report["tensors"] == len(theirs)
  ours = tensor_files.read(tmp_path / "ours.safetensors")
  assert set(ours) == set(theirs)
  for k, value in theirs.items():
    np.testing.assert_array_equal(ours[k].read(), value)


def test_the_discriminator_of_a_file_goes_on(tmp_path):
  _, theirs = written(tmp_path, "ldm_kl", "ldm")
  tree, disc = random_disc("ldm_kl")
  assert sorted(disc) == sorted(
    [f"main.{i}.{kind}" for i in (0, 3, 5) for kind in ("weight", "bias")] + ["main.2.weight"]
  )
  averages = {"main.3.running_mean": np.ones(8), "main.3.num_batches_tracked": np.ones(())}
  disc = {k: t.read() for k, t in disc.items()} | averages
  tensors = theirs | {f"loss.discriminator.{k}": v for k, v in disc.items()}
  tensor_files.write(tmp_path / "d.pt", {k: lazy(np.float32(v)) for k, v in tensors.items()})
  c, lines = config_of("ldm_kl"), []
  import_weights(tmp_path / "d.pt", tmp_path / "w", "ldm", c, log=lines.append)
  _, saved, _ = restore.restore_subset(
    tmp_path / "w", lambda meta: restore.abstract_leaves(meta, ["params/disc"])
  )
  assert not lines and same(saved["params"]["disc"], tree)
  # Unless it is another than the config's.
  other = jax.tree.map(lambda x: np.zeros((*x.shape, 1)), tree)
  stored, file = tensor_files.read(tmp_path / "d.pt"), types.SimpleNamespace(log=lines.append)
  assert codec_workdir.read_disc(build(c.model.disc), other, stored, file) == {}
  assert lines == ["the discriminator begins at random, for that of the file is not the config's"]


def test_tables_go_back_and_forth():
  group = random_group("ldm_kl")
  table = autoencoder_names.ldm_entries(group, "diffusers")
  back = names.fill(table, autoencoder_names.of_today(names.spell(table, group)))
  jax.tree.map(np.testing.assert_array_equal, back, group)


def test_older_names_of_diffusers_are_read():
  group = random_group("ldm_kl")
  now = names.spell(autoencoder_names.ldm_entries(group, "diffusers"), group)
  old, words = {}, {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
  for k, t in now.items():
    for new, older in words.items():
      if f".{new}." in k:
        k, ones = k.replace(new, older), (1, 1)[: 2 * k.endswith("weight")]
        t = lazy(np.asarray(t.read()).reshape(*t.shape, *ones))
    old[k] = t
  back = autoencoder_names.of_today(old)
  assert {k: t.shape for k, t in back.items()} == {k: t.shape for k, t in now.items()}


def test_misfits_are_refused(tmp_path):
  file, theirs = written(tmp_path, "vqvae2", "vqvae2")
  with pytest.raises(UserError, match="vqvae2 has no checkpoints of models.codec.Autoencoder: try"):
    import_weights(file, tmp_path / "w", "vqvae2", config_of("ldm_kl"))
  with pytest.raises(UserError, match="adm has no checkpoints of models.vqvae.VQVAE2: try vqvae2"):
    import_weights(file, tmp_path / "w", "adm", config_of("vqvae2"))
  theirs.pop("dec.blocks.0.bias")
  tensor_files.write(file, {k: lazy(v) for k, v in theirs.items()} | {"x": lazy(np.ones(3))})
  with pytest.raises(UserError, match=r"1 not in the file \(dec.blocks.0.bias\); 1 not in the con"):
    import_weights(file, tmp_path / "w", "vqvae2", config_of("vqvae2"))
  assert not (tmp_path / "w").exists()
