"""Latent diffusion's files in and out again: codec, U-Net, averages, scale."""

import jax
import numpy as np
import pytest
from golden import draws, scaled

from jaxgen import config
from jaxgen.config import build
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.interop import ldm_names, names, tensor_files
from jaxgen.interop.tensors import lazy
from jaxgen.interop.unet_names import sr3_buffers
from jaxgen.sampling import trained

pytestmark = pytest.mark.usefixtures("unoptimised")
LOSSES = {f"first_stage_model.loss.{i}.weight": np.ones(i, np.float32) for i in range(1, 7)}


def small(scale=None, attend=()):
  c = config.load("configs/ldm.py:debug").unlock()
  c.model.model.net.attend = attend
  c.data.update(size=8, channels=1)
  c.model.scale = scale
  return c


def theirs(averages=True, scale=0.7, attend=()):
  """Names and numbers of a file as training saves it."""
  model = build(small(attend=attend).model)
  batch = {"x": jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  params, _ = jax.eval_shape(model.init, batch | {"y": jax.ShapeDtypeStruct((1,), np.int32)}, KEY)
  tree = {"net": params["net"], "codec": {"params": params["codec"]["net"]}}
  table = ldm_names.entries(tree | ({"ema": tree["net"]} if averages else {}))
  rows = [(name, e.layout) for e in table for name in e.theirs]
  tensors = {k: scaled(z) if z.ndim > 1 else np.float32(0.1) * z for k, z, _ in draws(7, rows)}
  tensors |= sr3_buffers(model.model.process.betas)
  if averages:
    tensors |= {"model_ema.decay": np.float32(0.9999), "model_ema.num_updates": np.int32(0)}
  return tensors | ({"scale_factor": np.float32(scale)} if scale else {})


KEY = jax.random.key(0)


def write(path, tensors):
  tensor_files.write(path, {"state_dict": {k: lazy(np.asarray(v)) for k, v in tensors.items()}})
  return path


@pytest.mark.parametrize("averages, scale", [(True, 0.7), (False, None)])
def test_in_and_out_again_bit_by_bit(averages, scale, tmp_path):
  tensors, lines = theirs(averages, scale), []
  file = write(tmp_path / "model.ckpt", tensors | LOSSES)
  c, w, back = small(None if scale else 1.0), tmp_path / "w", tmp_path / "back.ckpt"
  import_weights(file, w, "ldm", c, log=lines.append)
  assert lines[-1].startswith("not read: first_stage_model.loss.1.weight, ")
  assert ("(8 in all)" if averages else "(6 in all)") in lines[-1]
  assert len(lines) == 1 + bool(scale)
  model = trained.load_trained(w)
  assert model.model.scale == np.float32(scale or 1)
  table = {e.ours: e.theirs[0] for e in ldm_names.net_entries(model.params["net"])}
  for path, leaf in names.flat(model.params["net"]).items():
    name = ldm_names.averaged(table[path]) if averages else table[path]
    np.testing.assert_array_equal(np.sort(leaf, None), np.sort(tensors[name], None))
  report = export_weights(w, back)
  assert report["tensors"] == len(tensors)
  sets = tensor_files.sets(back)
  assert list(sets) == ["state_dict"] and set(sets["state_dict"]) == set(tensors)
  for name, tensor in sets["state_dict"].items():
    assert tensor.read().dtype == tensors[name].dtype
    assert tensor.read().tobytes() == tensors[name].tobytes(), name


def test_names_are_those_of_their_code():
  """A few of each kind, as CompVis' modules spell them."""
  tensors, unet = theirs(attend=(4,)), "model.diffusion_model."
  block = "input_blocks.1.1.transformer_blocks.0"
  for name, shape in {
    unet + "time_embed.0.weight": (64, 16),
    unet + "input_blocks.1.1.proj_in.weight": (16, 16, 1, 1),
    unet + f"{block}.attn1.to_q.weight": (16, 16),
    unet + f"{block}.attn2.to_k.weight": (16, 8),
    unet + f"{block}.attn2.to_out.0.bias": (16,),
    unet + f"{block}.ff.net.0.proj.weight": (128, 16),
    unet + f"{block}.ff.net.2.weight": (16, 64),
    unet + f"{block}.norm3.bias": (16,),
    unet + "middle_block.1.proj_out.weight": (16, 16, 1, 1),
    "model_ema.diffusion_modelinput_blocks11transformer_blocks0attn1to_out0weight": (16, 16),
    "first_stage_model.encoder.down.0.block.0.conv1.weight": (8, 8, 3, 3),
    "cond_stage_model.embedding.weight": (11, 8),
    "scale_factor": (),
    "betas": (1000,),
  }.items():
    assert tensors[name].shape == shape, name
  assert not any("to_q.bias" in name or "embedding" in name and "ema" in name for name in tensors)


def test_files_that_do_not_fit(tmp_path):
  full = theirs()

  def refused(says, tensors=full, c=None, source="ldm"):
    file = write(tmp_path / "x.ckpt", tensors)
    with pytest.raises(UserError, match=says):
      import_weights(file, tmp_path / "w", source, c or small())

  without = lambda part: {k: v for k, v in full.items() if part not in k}
  refused(r"2 not in the file \(model.*norm1.bias", without("transformer_blocks.0.norm1"))
  refused(
    "1 not in the config's net .cond_stage_model.transformer.x",
    full | {"cond_stage_model.transformer.x": full["betas"]},
  )
  refused("has no scale_factor, and the config measures it", without("scale_factor"))
  refused("betas are 1000 from 0.0015 to 0.0195, the config's 1000 from 0.001", c=other_betas())
  refused("adm has no checkpoints of models.latent.Latent: try ldm", source="adm")
  mlp = config.load("configs/digits_latent.py:vae").unlock()
  refused("but where its codec is a models.codec.Autoencoder", c=mlp)
  timeless = config.load("configs/digits_latent.py:debug").unlock()
  timeless.data.update(size=8, channels=1)
  refused("no checkpoints of models in continuous time", c=timeless)
  assert not (tmp_path / "w").exists()


def other_betas():
  c = small()
  c.model.model.process.beta_1 = 0.001
  return c
