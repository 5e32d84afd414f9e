"""Our weights by the names of others: published networks, both ways."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.interop import names, tensor_files, unet_names
from jaxgen.interop.tensors import lazy

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
DDPM = dict(width=32, mults=(1, 2), attend=(8,), heads=1, affine=False, pad=(0, 1), eps=1e-6)
DDPM["embedding"] = dict(
  name="nets.unet.time_and_label",
  features=dict(name="nets.layers.sinusoids", sine_first=True, ends=True),
)
SR3 = dict(width=32, mults=(1, 2, 2), attend=(8,), heads=1, groups=16, affine=False)
SR3 |= dict(bias=False, enlarge="bicubic", embedding=dict(name="nets.unet.noise_level"))
# Golden file -> source, our net, height, further inputs.
NETS = {
  "adm_unet_class_updown": (
    "adm",
    dict(width=32, mults=(1, 2), blocks=1, attend=(32, 16), labels=1000, updown=True, learned=True),
    64,
    {"y": jnp.zeros(1, jnp.int32)},
  ),
  "adm_unet_plain_heads": ("adm", dict(width=32, mults=(1, 2, 2), affine=False), 64, {}),
  "adm_upsampler_16_64": (
    "adm",
    dict(width=32, mults=(1, 2, 3, 4), blocks=1, labels=1000, updown=True, learned=True),
    64,
    {"y": jnp.zeros(1, jnp.int32), "low_res": jnp.zeros((1, 16, 16, 3))},
  ),
  "adm_classifier_64": (
    "adm",
    dict(width=64, mults=(1, 2, 3, 4), blocks=1, attend=(32, 16, 8), updown=True)
    | dict(name="nets.unet.Classifier"),
    64,
    {},
  ),
  "torch_diffusers_unet": ("diffusers", DDPM, 16, {}),
  "torch_sr3_unet": ("sr3", SR3, 16, {"low_res": jnp.zeros((1, 8, 8, 3))}),
}


@functools.cache
def network(case):
  """-> source, our net, our tree of shapes, their names and shapes."""
  source, args, size, inputs = NETS[case]
  net = build({"name": "nets.unet.UNet"} | args)
  x = jnp.zeros((1, size, size, 3))
  init = functools.partial(net.init, jax.random.key(0), x, jnp.zeros(1), **inputs)
  tree = jax.eval_shape(init)["params"]
  manifest = json.loads(str(np.load(GOLDEN / f"{case}.npz")["manifest"]))
  return source, net, tree, manifest


def normal(seed, i, shape):
  return np.random.Generator(np.random.PCG64([seed, i])).standard_normal(shape).astype(np.float32)


def weights(manifest):
  """Of the golden cases' networks: see tests/golden/README.md."""
  tensors = {}
  for i, (name, shape, *_) in enumerate(manifest["state_dict"]):
    z = normal(manifest["seed"], i, shape)
    if len(shape) > 1:
      tensors[name] = z / np.float32(np.prod(shape[1:]) ** 0.5)
    else:
      tensors[name] = np.float32(0.1) * z + np.float32(name.endswith(".weight"))
  return tensors


@pytest.mark.parametrize("case", NETS)
def test_the_table_has_their_names_and_shapes(case):
  source, _, tree, manifest = network(case)
  table = names.entries(tree, source)
  layouts = {n: list(e.layout) for e in table for n in e.theirs}
  assert layouts == dict(map(tuple, manifest["state_dict"]))
  if source == "adm":  # even their order
    assert list(layouts) == [name for name, _ in manifest["state_dict"]]
  # A bijection: each of ours and of theirs stands there once.
  assert sorted(e.ours for e in table) == sorted(names.flat(tree))
  assert len(layouts) == sum(len(e.theirs) for e in table)


@pytest.mark.parametrize("case", NETS)
def test_weights_come_back_bit_by_bit(case):
  source, _, tree, manifest = network(case)
  theirs = weights(manifest)
  ours = names.take(theirs, tree, source)
  assert jax.tree.map(np.shape, ours) == jax.tree.map(jnp.shape, tree)
  back = names.give(ours, source)
  assert set(back) == set(theirs)
  for name, tensor in back.items():
    values = tensor.read()
    assert values.shape == tensor.shape and values.flags.c_contiguous
    assert values.tobytes() == theirs[name].tobytes(), name


def test_ddpm_answers_as_diffusers():
  case = "torch_diffusers_unet"
  _, net, tree, manifest = network(case)
  golden, theirs = np.load(GOLDEN / f"{case}.npz"), weights(manifest)
  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
  for new, word in old.items():  # as files before 0.15 have it
    theirs = {k.replace(f".{new}.", f".{word}."): v for k, v in theirs.items()}
  assert any(".query." in name for name in theirs)
  ours = names.take(theirs, tree, "diffusers")
  out = jax.jit(net.apply)({"params": ours}, np.moveaxis(golden["x"], 1, -1), golden["t"])
  np.testing.assert_allclose(np.moveaxis(out, -1, 1), golden["output"], atol=2e-5)


def test_sr3_answers_as_the_port():
  case = "torch_sr3_unet"
  _, net, tree, manifest = network(case)
  golden, theirs = np.load(GOLDEN / f"{case}.npz"), weights(manifest)
  theirs |= unet_names.sr3_buffers(np.linspace(1e-6, 1e-2, 9))  # saved beside
  ours = names.take(theirs, tree, "sr3")
  last = lambda k: np.moveaxis(golden[k], 1, -1)
  out = jax.jit(net.apply)({"params": ours}, last("x"), golden["level"][:, 0], low_res=last("low"))
  np.testing.assert_allclose(np.moveaxis(out, -1, 1), golden["output"], atol=2e-5)


def test_sr3s_buffers_are_those_of_the_schedule():
  """Against Ho et al. 2020, Eqs. 4 and 7, at a step in the middle."""
  betas = np.linspace(1e-4, 0.02, 1000)
  buffers, bar = unet_names.sr3_buffers(betas), np.prod(1 - betas[:500])
  x_0, eps, noise = 0.3, -0.7, (1 - bar) ** 0.5
  x_t = bar**0.5 * x_0 + noise * eps
  at = {k: float(v[499]) for k, v in buffers.items()}
  np.testing.assert_allclose(
    at["sqrt_recip_alphas_cumprod"] * x_t - at["sqrt_recipm1_alphas_cumprod"] * eps, x_0, rtol=1e-4
  )
  beta = betas[499]
  mean = (x_t - beta / noise * eps) / (1 - beta) ** 0.5  # Eq. 11
  np.testing.assert_allclose(
    at["posterior_mean_coef1"] * x_0 + at["posterior_mean_coef2"] * x_t, mean, rtol=1e-5
  )
  assert buffers["betas"].dtype == np.float32 and buffers["betas"].shape == (1000,)


def test_what_does_not_match_is_listed():
  source, _, tree, manifest = network("adm_unet_plain_heads")
  theirs = weights(manifest)
  wrong = theirs | {"out.2.bias": np.zeros(6, np.float32), "extra": theirs["out.0.bias"]}
  del wrong["time_embed.0.weight"]
  with pytest.raises(UserError) as e:
    names.take(wrong, tree, source)
  n = len(theirs)
  assert str(e.value) == (
    f"file and config do not match: of {n} tensors that the config wants and "
    f"{n} in the file, 1 of another shape (out.2.bias: file has [6], config "
    "wants [3]); 1 not in the file (time_embed.0.weight); 1 not in the "
    "config's net (extra)"
  )
  with pytest.raises(
    UserError, match=rf"{n} not in the file \(time_embed.0.weight, .*, \.\.\)$"
  ) as e:
    names.take({}, tree, source)
  assert len(str(e.value)) < 300
  with pytest.raises(UserError, match="out.0.bias is int64 in the file"):
    names.take(theirs | {"out.0.bias": np.zeros(32, int)}, tree, source)
  bad = np.full(32, np.nan, np.float32)
  with pytest.raises(UserError, match="out.0.bias holds NaN"):
    names.take(theirs | {"out.0.bias": bad}, tree, source)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(dtype):
  source, _, tree, manifest = network("adm_unet_plain_heads")
  theirs = {k: lazy(v.astype(jnp.dtype(dtype))) for k, v in weights(manifest).items()}
  ours = names.flat(names.take(theirs, tree, source))
  assert {v.dtype for v in ours.values()} == {np.dtype(np.float32)}
  np.testing.assert_array_equal(
    ours["time_0/kernel"], theirs["time_embed.0.weight"].read().T.astype(np.float32)
  )


@pytest.mark.parametrize(("path", "source"), [
  ("Dense_0/kernel", "adm"), ("in_1_res/gamma", "adm"),
  ("in_1_res/conv_1/conv/kernel", "adm"), ("pool/qkv/kernel", "sr3"),
  ("label/embedding", "sr3"), ("pool/positional", "diffusers"),
])  # fmt: skip
def test_other_nets_have_no_names(path, source):
  tree = names.nested({path: jax.ShapeDtypeStruct((2, 2), jnp.float32)})
  with pytest.raises(UserError, match=f"{source} has no name for this net's"):
    names.entries(tree, source)


def test_from_file_to_file(tmp_path):
  source, _, tree, manifest = network("adm_unet_class_updown")
  theirs = {k: lazy(v) for k, v in weights(manifest).items()}
  for end in ("pt", "safetensors"):
    tensor_files.write(tmp_path / f"a.{end}", theirs)
    ours = names.take(tensor_files.read(tmp_path / f"a.{end}"), tree, source)
    tensor_files.write(tmp_path / f"b.{end}", names.give(ours, source))
    assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
