"""DiT's and SiT's files in and out again: every name, every bit."""

import shutil

import jax
import numpy as np
import pytest
from games import same
from golden import draws

import jaxgen
from jaxgen import config, sharding
from jaxgen.convert.workdir import export_weights, import_weights, save_first
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.interop import dit_names, tensor_files
from jaxgen.interop.tensors import lazy
from jaxgen.nets.dit import sin_cos
from jaxgen.sampling import trained

pytestmark = pytest.mark.usefixtures("unoptimised")


def small(name="dit", codec=""):
  """The published config, of small nets: latents are [8, 8, 4] of [16, 16, 3]."""
  c = config.load(f"configs/{name}.py:S-2")
  with c.unlocked():
    c.data.update(size=16, classes=10)
    c.model.codec_workdir = codec
    c.model.codec.net.update(width=32, mults=(1, 1), blocks=1)
    c.model.model.classes = 10
    c.model.model.net.update(width=32, depth=3, heads=2, labels=11, dtype="float32")
  return c


def theirs(out=32, depth=3, width=32):
  """Names and numbers of a file as published."""
  layer = lambda name, *shape: [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]
  rows = layer("x_embedder.proj", width, 4, 2, 2)
  rows += layer("t_embedder.mlp.0", width, 256) + layer("t_embedder.mlp.2", width, width)
  rows += [("y_embedder.embedding_table.weight", (11, width))]
  for i in range(depth):
    rows += layer(f"blocks.{i}.attn.qkv", 3 * width, width)
    rows += layer(f"blocks.{i}.attn.proj", width, width)
    rows += layer(f"blocks.{i}.mlp.fc1", 4 * width, width)
    rows += layer(f"blocks.{i}.mlp.fc2", width, 4 * width)
    rows += layer(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
  rows += layer("final_layer.linear", out, width)
  rows += layer("final_layer.adaLN_modulation.1", 2 * width, width)
  places = sin_cos((4, 4), width).reshape(1, 16, width)
  return {"pos_embed": places} | {name: z for name, z, _ in draws(5, rows)}


def write(path, tensors):
  tensor_files.write(path, jax.tree.map(lazy, tensors))


@pytest.mark.parametrize("source", dit_names.TRANSFORMERS)
def test_in_and_out_again_bit_by_bit(source, tmp_path):
  # As training saves it: of the two sets, the averages are taken.
  file, back, w = tmp_path / "x.pt", tmp_path / "y.pt", tmp_path / "w"
  tensors = theirs()
  write(file, {"model": theirs(width=28), "ema": tensors})
  import_weights(file, w, source, small(source))
  model = trained.load_trained(w)
  assert (model.data["shape"], model.data["dtype"]) == ([8, 8, 4], "float32")  # no bytes
  block = model.params["net"]["blocks"]["mlp"]["fc1"]
  assert block["kernel"].shape == (3, 32, 128)
  for i in range(3):
    want = tensors[f"blocks.{i}.mlp.fc1.weight"].T
    np.testing.assert_array_equal(block["kernel"][i], want)
  report = export_weights(w, back)
  assert report["tensors"] == len(tensors)
  read = tensor_files.read(back)
  assert set(read) == set(tensors)
  for name, tensor in read.items():
    assert tensor.read().tobytes() == tensors[name].tobytes(), name


def of_diffusers(tensors, depth=3):
  """The same weights as diffusers saves them."""
  word = lambda name: name.replace("mlp.0", "linear_1").replace("mlp.2", "linear_2")
  ends = {"x_embedder": "pos_embed", "final_layer.linear": "proj_out_2"}
  ends["final_layer.adaLN_modulation.1"] = "proj_out_1"
  inner = {"adaLN_modulation.1": "norm1.linear", "attn.proj": "attn1.to_out.0"}
  inner |= {"mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"}
  out = {}
  for name, value in tensors.items():
    for k, v in ends.items():
      name = name.replace(k, v)
    if name.startswith(("t_embedder", "y_embedder")):
      kind = "timestep" if name[0] == "t" else "class"
      end = word(name.partition(".")[2])
      copies = (f"transformer_blocks.{i}.norm1.emb.{kind}_embedder.{end}" for i in range(depth))
      out |= dict.fromkeys(copies, value)
    elif "attn.qkv" in name:
      place = name.replace("blocks", "transformer_blocks").replace("attn.qkv", "attn1.to_{}")
      out |= {place.format(k): v for k, v in zip("qkv", np.split(value, 3), strict=True)}
    elif name != dit_names.PLACES:
      for k, v in inner.items():
        name = name.replace(k, v)
      out[name.replace("blocks", "transformer_blocks")] = value
  return out


def test_files_of_diffusers(tmp_path):
  """Of a copy of the embeddings in every block, all have to be the same."""
  back, w = tmp_path / "y.safetensors", tmp_path / "w"
  tensors = of_diffusers(theirs())
  with pytest.raises(UserError, match="folder without .*, and without transformer/diffusion_py"):
    import_weights(tmp_path, w, "diffusers", small())
  file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
  file.parent.mkdir()
  assert "transformer_blocks.2.norm1.emb.class_embedder.embedding_table.weight" in tensors
  write(file, tensors)
  import_weights(tmp_path, w, "diffusers", small())
  write(tmp_path / "x.pt", theirs())
  import_weights(tmp_path / "x.pt", tmp_path / "v", "dit", small())
  assert same(trained.load_trained(w).params, trained.load_trained(tmp_path / "v").params)
  export_weights(w, back)
  read = tensor_files.read(back)
  assert set(read) == set(tensors)
  assert all(read[name].read().tobytes() == value.tobytes() for name, value in tensors.items())
  other = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"
  write(file, tensors | {other: tensors[other] + 1})
  with pytest.raises(UserError, match="t_embedder.mlp.0.bias of their own"):
    import_weights(file, tmp_path / "u", "diffusers", small())
  write(file, {k: v for k, v in tensors.items() if "blocks.1.attn1.to_k" not in k})
  with pytest.raises(UserError, match=r"2 not in the file \(blocks.1.attn.qkv.weight, blocks.1"):
    import_weights(file, tmp_path / "u", "diffusers", small())


def test_files_that_do_not_fit(tmp_path):
  def refused(says, tensors, source="dit", c=None):
    write(tmp_path / "x.pt", tensors)
    with pytest.raises(UserError, match=says):
      import_weights(tmp_path / "x.pt", tmp_path / "w", source, small() if c is None else None)

  full = theirs()
  refused("needs a --config, such as configs/dit.py:XL-2", full, c=False)
  refused("sit has no checkpoints of nets.dit.DiT: try dit", full, "sit")
  lacking = {k: v for k, v in full.items() if not k.startswith("blocks.2.attn.qkv")}
  refused(r"2 not in the file \(blocks.2.attn.qkv.weight, blocks.2.attn.qkv.bias\)", lacking)
  refused("1 not in the config's net .extra", full | {"extra": np.ones(3, np.float32)})
  refused("final_layer.linear.weight: file has .16, 32., config wants .32, 32.", theirs(out=16))
  refused(r"pos_embed is \[1, 9, 32\]", full | {"pos_embed": np.ones((1, 9, 32), np.float32)})
  refused("not the sines and cosines", full | {"pos_embed": full["pos_embed"] + 0.1})
  assert not list((tmp_path / "w").glob("checkpoints/*"))


def test_with_a_codec_samples_are_images(tmp_path):
  """And the same tensors come out again; the codec's workdir is not needed then."""
  file, back, k, w = (tmp_path / name for name in ("x.pt", "y.pt", "k", "w"))
  few = {k: v if k == dit_names.PLACES else v * np.float32(0.02) for k, v in theirs().items()}
  write(file, few)
  c = small(codec=str(k))
  codec = config.load("configs/ldm_kl.py:f8-pixels").unlock()
  codec.data.update(source="photos", size=16)
  codec.model.net = c.model.codec.net
  codec.model.disc.update(layers=1, width=8)
  experiment, photos = Experiment.of(codec), open_data(codec)
  state = experiment.fresh(photos, sharding.make_mesh())
  save_first(k, state, describe(codec, photos), codec.checkpoint, print)
  import_weights(file, w, "dit", c)
  shutil.rmtree(k)
  model = jaxgen.load(str(w))
  assert same(model.state.params["codec"]["net"], state.params["net"])
  x = model.sample(0, 2, labels=[1, 2], steps=2, guidance=1.5)
  assert (x.shape, x.dtype) == ((2, 16, 16, 3), np.uint8)
  export_weights(w, back)
  read = tensor_files.read(back)
  assert all(read[name].read().tobytes() == value.tobytes() for name, value in few.items())


def test_latents_are_numbers_and_no_pictures(tmp_path, verb):
  few = {k: v if k == dit_names.PLACES else v * np.float32(0.02) for k, v in theirs().items()}
  write(tmp_path / "x.pt", few)
  import_weights(tmp_path / "x.pt", tmp_path / "w", "dit", small())
  status, _, lines = verb("sample", f"--workdir={tmp_path / 'w'}", f"--out={tmp_path / 'x.png'}")
  assert status == 2 and "makes latents [8, 8, 4], which are no images" in lines[-1]
  x = jaxgen.load(str(tmp_path / "w")).sample(0, 2, steps=2)
  assert x.dtype == np.float32 and np.abs(x).max() > 1
