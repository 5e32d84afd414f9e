"""Latent diffusion's U-Net: published numbers, a whole run, exact counts."""

import dataclasses
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.diffusion import guidance, precond, process, times
from jaxgen.interop import ldm_names, names
from jaxgen.keys import example_keys, fold, normal

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
CROSS = dict(transformer=dict(name="nets.spatial_transformer.transformer", depth=1))
USUAL = dict(name="nets.unet.UNet", width=64, blocks=1, affine=False)
NETS = {
  "cin": USUAL | CROSS | dict(mults=(1, 2, 3), attend=(8, 4), heads=1),
  "text": USUAL | CROSS | dict(mults=(1, 2), attend=(8,), heads=4),
  "ffhq": USUAL | dict(mults=(1, 2), attend=(8,), head=16),
}


def case(name):
  """-> golden arrays, the net, its weights by the rule, as parameters of ours."""
  golden = np.load(GOLDEN / "ldm_unet.npz")
  manifest = json.loads(str(golden["manifest"]))["variants"][name]
  weights = {}
  for key, z, kept in draws(manifest["seed"], manifest["state_dict"]):
    assert not kept
    if z.ndim > 1:
      weights[key] = scaled(z)
    else:
      weights[key] = np.float32(0.1) * z + np.float32(key.endswith(".weight"))
  net = build(NETS[name])
  x = last(golden[f"{name}_x"])
  kw = {"context": golden[f"{name}_context"]} if f"{name}_context" in golden else {}
  tree = jax.eval_shape(lambda: net.init(KEY, x, jnp.zeros(2), **kw))["params"]
  table = ldm_names.net_entries(tree)
  params = names.fill(table, {ldm_names.UNET + k: v for k, v in weights.items()})
  return golden, net, {"params": params}, kw


def last(x):
  return jnp.asarray(np.moveaxis(x, 1, -1))


def first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_the_published_codes(name):
  golden, net, params, kw = case(name)
  t = jnp.float32(golden[f"{name}_t"])
  near(
    first(jit(net.apply)(params, last(golden[f"{name}_x"]), t, **kw)),
    golden[f"{name}_output"],
    2e-5,
  )


PATHS = times.ldm, times.ldm_quadratic


def test_tables_are_the_published_codes():
  golden = np.load(GOLDEN / "ldm_unet.npz")
  ours = process.LDM()
  np.testing.assert_array_equal(ours.betas, golden["betas"])
  bar = np.cumprod(1 - ours.betas)
  np.testing.assert_array_equal(bar, golden["alphas_cumprod"])
  cosine = process.Cosine().betas[:: 1000 // 27]
  np.testing.assert_allclose(cosine, golden["betas_cosine"], rtol=1e-12)
  points = {p: jit(lambda n, p=p: precond.eps(ours(p(ours, jnp.arange(250), n)))[3]) for p in PATHS}
  index = lambda path, n: points[path](n)[:n][::-1]
  for name, n in (("", 7), ("_50", 50), ("_200", 200), ("_250", 250)):
    np.testing.assert_array_equal(index(times.ldm, n), golden[f"ddim_timesteps{name}"])
  quadratic = index(times.ldm_quadratic, 20)
  np.testing.assert_array_equal(quadratic, golden["ddim_timesteps_quad_20"])
  at = golden["ddim_timesteps"]
  np.testing.assert_array_equal(np.float32(bar[at]), golden["ddim_alphas"])
  before = np.float32(bar[np.append(0, at[:-1])])
  np.testing.assert_array_equal(before, np.float32(golden["ddim_alphas_prev"]))


def sampler_of(net):
  """The model of a published config, around another net."""
  c = config.load("configs/ldm.py:cin256-v2").model.model
  return dataclasses.replace(build(c), net=net, cond={"context": None}, classes=0)


def test_a_guided_run():
  golden, net, params, _ = case("cin")
  params["params"]["head_conv"]["kernel"] *= 0.5
  model, steps = sampler_of(net), {"steps": 7, "eta": 0.0}
  state = core.State(0, {"net": params["params"]}, {"net": {}}, {}, {}, None)
  start = last(golden["ddim_start"])
  batch = {"x": start, "noise": start / model.path_points(steps)[0].sigma[0]}
  contexts = jnp.concatenate([golden[k] for k in ("ddim_unconditional_context", "cin_context")])

  def run(state):
    def denoise(x_t, t):  # both in one pass, as theirs
      D = model.D(state, {"context": contexts}, jnp.concatenate([x_t, x_t]), t)
      null, cond = (lambda x, t, D=D: D for D in jnp.split(D, 2))
      return guidance.classifier_free(cond, null, 1.5)(x_t, t)

    return model.sample(state, batch, example_keys(KEY, 2), denoise=denoise, **steps)

  near(first(jit(run)(state)), golden["ddim_sampled"], 2e-4)


def test_a_class_is_a_token():
  """Of a table, as if it came as a context of one token."""
  rng = np.random.default_rng(0)
  net = build(USUAL | CROSS | dict(width=32, mults=(1,), attend=(4,), head=8, labels=3, token=6))
  x, t, y = rng.normal(size=(2, 4, 4, 3)).astype(np.float32), jnp.ones(2), jnp.array([2, 0])
  shapes = jax.eval_shape(net.init, KEY, x, t, y)["params"]
  params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32) / 8, shapes)
  rest = {k: v for k, v in params.items() if k != "token"}
  context = params["token"]["embedding"][y][:, None]
  plain = jit(net.clone(labels=0, token=0).apply)({"params": rest}, x, t, context=context)
  near(jit(net.apply)({"params": params}, x, t, y), plain, 1e-6)
  assert np.abs(plain).max() > 0.1
  with pytest.raises(ValueError, match="reads no context"):
    net.clone(transformer=None, token=0).init(KEY, x, t, y, context=context)


def test_churches_learn_from_absolute_errors():
  """With a net that always says zero, from |eps| itself."""

  class Zero(nn.Module):
    @nn.compact
    def __call__(self, x, c_noise, key=None):
      return 0 * x

  model = build(config.load("configs/ldm.py:churches").model.model)
  model = dataclasses.replace(model, net=Zero())
  keys, state = example_keys(KEY, 3), core.State(0, {"net": {}}, {"net": {}}, {}, {}, None)
  loss, (_, info) = model.loss(state, {"x": jnp.zeros((3, 4, 4, 4))}, keys)
  eps = np.asarray(normal(fold(keys, 1), (4, 4, 4)))
  near(loss, np.abs(eps).mean())
  near(info["mse"], (eps**2).mean())


# Of the U-Net, beside tokens of 512 for each label.
COUNTS = {
  "cin256": (394_984_196, 1000, (32, 32, 4)),
  "cin256-v2": (400_920_579, 1001, (64, 64, 3)),
  "celebahq": (274_056_163, 0, (64, 64, 3)),
  "churches": (294_966_916, 0, (32, 32, 4)),
}
ALIKE = {"ffhq": "celebahq", "bedrooms": "celebahq"}


def row_of(arg):
  """What the config's text says of an argument, cell by cell."""
  text = (pathlib.Path(config.OURS) / "ldm.py").read_text()
  line = next(line for line in text.splitlines() if line.startswith(f"| {arg} |"))
  return line.strip("| ").split(" | ")


def test_faces_and_bedrooms_have_one_net():
  for arg, other in ALIKE.items():
    one, two = (config.load(f"configs/ldm.py:{a}").model for a in (arg, other))
    assert one.codec == two.codec and one.model.net == two.model.net
    assert row_of(arg)[1:3] == row_of(other)[1:3]


@pytest.mark.parametrize("arg", ["photos", "debug"])
def test_small_ones_are_of_the_codec_of_that_name(arg):
  codec = config.load(f"configs/ldm_kl.py:{arg}").model
  assert config.load(f"configs/ldm.py:{arg}").model.codec.net == codec.net


@pytest.mark.parametrize("arg", COUNTS)
def test_published_configs_have_their_parameters(arg):
  want, labels, shape = COUNTS[arg]
  c = config.load(f"configs/ldm.py:{arg}")
  model = build(c.model)
  batch = {"x": jax.ShapeDtypeStruct((1, *shape), jnp.float32)}
  if labels:
    batch["y"] = jax.ShapeDtypeStruct((1,), jnp.int32)
  net = jax.eval_shape(model.model.init, batch, KEY)[0]["net"]
  leaves = jax.tree.leaves(net)
  assert sum(x.size for x in leaves) == want + 512 * labels
  side = 256 // model.codec.net.factor
  assert (side, side, model.codec.net.dim) == shape
  row = row_of(arg)
  latents, codec = row[2].split(", ")
  assert (row[1], latents) == (f"{want:,}", " x ".join(map(str, shape)))
  # The codec is one that has a config of its own, and every weight has a name.
  file, size = codec.split(":")
  assert config.load(f"configs/{file}.py:{size}").model.net == c.model.codec.net
  table = ldm_names.net_entries(net)
  assert len(table) == len({e.theirs for e in table}) == len(leaves)
