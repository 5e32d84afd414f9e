"""Diffusion transformers: published numbers, exact counts, what blocks are."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from configs import _dit
from jaxgen import config, core
from jaxgen.config import build
from jaxgen.convert.initial_state import seen_shape, stored_latents
from jaxgen.diffusion import guidance, interpolants, samplers, times
from jaxgen.diffusion.objective import hybrid
from jaxgen.experiment import Experiment
from jaxgen.interop import dit_names, names
from jaxgen.keys import example_keys
from jaxgen.nets import dit, dit_modern
from jaxgen.plan.programs import data_spec

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
TINY = dict(width=48, heads=4, patch=2, labels=11)
NETS = {"dit": dit.DiT(depth=3, learned=True, **TINY), "sit": dit.SiT(depth=2, **TINY)}
# Of latents [32, 32, 4], with the outputs of a variance and 1000 classes.
COUNTS = {
  "S": (32_865_056, 32_920_448, 33_142_016),
  "B": (130_315_808, 130_426_496, 130_869_248),
  "L": (457_840_672, 457_988_224, 458_578_432),
  "XL": (674_834_720, 675_000_704, 675_664_640),
}
PUBLISHED = {f"{s}-{p}": n for s, row in COUNTS.items() for p, n in zip((2, 4, 8), row)}  # noqa: B905
PUBLISHED |= {"XL-2-512": PUBLISHED["XL-2"]}
SMALL = {
  name: dict(zip(_dit.SMALL, (723_844, 725_412, 1_282_224, 1_350_192), strict=True))
  for name in ("dit", "sit")
}


def shapes(net, size=8, channels=4, labels=True):
  x = jnp.zeros((1, size, size, channels))
  y = [jnp.zeros(1, jnp.int32)] if labels else []
  return jax.eval_shape(net.init, KEY, x, jnp.zeros(1), *y)


def count(net, **kw):
  return sum(x.size for x in jax.tree.leaves(shapes(net, **kw)))


def published(case):
  """A golden file, and its weights by the rule, as parameters of ours."""
  golden = np.load(GOLDEN / f"{case}.npz")
  manifest = json.loads(str(golden["manifest"]))["variants"]["a"]
  weights = {}
  for name, z, kept in draws(manifest["seed"], manifest["state_dict"]):
    if not kept:
      weights[name] = scaled(z) if z.ndim > 1 else np.float32(0.1) * z
  table = dit_names.entries(shapes(NETS[case])["params"])
  return golden, {"params": names.fill(table, weights)}


def first(x):
  """Channels last -> first."""
  return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parametrize("case", NETS)
def test_outputs_and_guidance_are_the_published_codes(case):
  golden, params = published(case)
  x, y = np.moveaxis(golden["a_x"], 1, -1), jnp.int32(golden["a_y"])
  of = jit(lambda x: NETS[case].apply(params, x, jnp.float32(golden["a_t"]), y))
  near(first(of(x)), golden["a_output"], 2e-5)
  np.testing.assert_array_equal(dit.sin_cos((4, 4), 48).reshape(1, 16, 48), golden["a_pos_embed"])
  # The first half conditional, the other not, and both of the first one's x.
  halves = np.split(np.asarray(of(np.concatenate([x[:2], x[:2]])))[..., :4], 2)
  cond, null = (lambda x, t, F=F: F for F in halves)
  guided = lambda **kw: first(guidance.first_channels(cond, null, 2.5, **kw)(x, None))
  near(guided(), golden["a_guided"][:2, :4], 2e-5)
  of_all = first(guidance.classifier_free(cond, null, 2.5)(x, None))
  np.testing.assert_array_equal(guided(channels=4), of_all)
  assert np.abs(guided() - of_all)[:, 3].max() > 0.1


@pytest.mark.parametrize("name, args", [("dit", PUBLISHED), ("sit", ("XL-2",))])
def test_parameters_are_as_many_as_published(name, args):
  text = (pathlib.Path(config.OURS) / f"{name}.py").read_text()
  assert set(PUBLISHED) == set(_dit.LATENTS)
  for arg, want in [(a, PUBLISHED[a]) for a in args] + list(SMALL[name].items()):
    c = config.load(f"configs/{name}.py:{arg}")
    size, _, channels = data_spec(c).shape
    if arg in PUBLISHED:  # latents of images
      size, channels = size // 8, 4
    model = c.model.get("model", c.model)
    net, labels = build(model.net), bool(model.classes)
    assert count(net, size=size, channels=channels, labels=labels) == want, arg
    assert f"{want:,}" in text, arg
    # Theirs counts the fixed places, of every patch.
    total = want + (size // net.patch) ** 2 * net.width
    assert name == "sit" or arg not in PUBLISHED or f"| {want:,} | {total:,} |" in text


def test_latents_of_images_are_what_the_net_sees():
  c = config.load("configs/dit.py:XL-2")
  experiment, data = Experiment.of(c), data_spec(c)
  assert (data.shape, seen_shape(experiment, data)) == ((256, 256, 3), (32, 32, 4))
  half = ((32, 32, 4), np.float16)
  assert stored_latents(experiment, data) == {"mean": half, "std": half}


def run_of(name, **kw):
  """The model of a published config, around the golden case's net."""
  model = build(config.load(f"configs/{name}.py:XL-2").model.model)
  return dataclasses.replace(model, net=NETS[name], classes=10, **kw)


def taped(monkeypatch, seed, shape):
  """Noise of a step by its number: of the two halves of a batch, the first."""
  z = [np.random.Generator(np.random.PCG64([seed, k])).standard_normal(shape) for k in range(9)]
  z = jnp.asarray(np.moveaxis(np.float32(z), 2, -1)[:, :2])
  monkeypatch.setattr(samplers, "fold", lambda key, i: i)
  for room in (samplers, interpolants):
    monkeypatch.setattr(room, "normal", lambda i, shape: z[i])


def state_of(params):
  return core.State(0, {"net": params["params"]}, {"net": {}}, {}, {}, None)


def sample(model, params, start, y, **knobs):
  """From the first half of a batch, whose other half had no label."""
  start, keys = np.moveaxis(start[:2], 1, -1), example_keys(KEY, 2)
  batch = {"x": jnp.zeros(start.shape), "y": jnp.int32(y[:2])}
  path, _ = model.path_points(model.knobs | knobs)
  batch["noise"] = jnp.asarray(start) / path.sigma[0]  # theirs is taken as it is
  return first(jit(lambda p: model.sample(state_of(p), batch, keys, **knobs))(params))


def test_losses_are_the_published_codes():
  golden, params = published("dit")
  t = jnp.float32(golden["loss_t"] + 1).reshape(-1, 1, 1, 1) / 1000
  noise = jnp.asarray(np.moveaxis(golden["noise"], 1, -1))
  seen = []
  model = run_of(
    "dit",
    label_drop=0.0,
    noise=lambda key, shape: noise,
    draw_t=lambda key, ndim: t,
    objective=lambda mse, vb: seen.append((mse, vb(True))) or hybrid(mse, vb),
  )
  x, y = np.moveaxis(golden["x_start"], 1, -1), jnp.int32(golden["loss_y"])

  def loss(params):
    total, _ = model.loss(state_of(params), {"x": jnp.asarray(x), "y": y}, example_keys(KEY, 4))
    return total, seen[-1]

  (total, (mse, vb)), grads = jit(jax.value_and_grad(loss, has_aux=True))(params)
  near(mse, golden["loss_mse"], 1e-5)
  near(vb, golden["loss_vb"], 1e-4)
  near(total, golden["loss_loss"].mean(), 1e-4)
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
  np.testing.assert_allclose(norm, golden["loss_grad_norm"], rtol=1e-4)


def test_a_guided_run_of_dit(monkeypatch):
  golden, params = published("dit")
  params["params"]["head"]["kernel"] *= 0.5
  model, manifest = run_of("dit"), json.loads(str(golden["manifest"]))
  path, _ = model.path_points({"steps": 8})
  index = np.round(path.t[:8] * 1000).astype(int) - 1
  np.testing.assert_array_equal(index[::-1], golden["kept_timesteps"])
  taped(monkeypatch, manifest["tape_seeds"]["sampled"], golden["sample_start"].shape)
  x = sample(model, params, golden["sample_start"], golden["sample_y"], steps=8, guidance=2.5)
  near(x, golden["sampled"][:2], 2e-4)


def test_guided_runs_of_sit(monkeypatch):
  golden, params = published("sit")
  args = params, golden["net_start"], golden["net_y"]
  manifest = json.loads(str(golden["manifest"]))
  taped(monkeypatch, manifest["tape_seeds"]["net_sde"], golden["net_start"].shape)
  near(sample(run_of("sit"), *args, steps=6, guidance=2.5), golden["net_sde"][:2], 2e-4)
  ode = run_of("sit", path=times.even, sampler=interpolants.ode_euler)
  near(sample(ode, *args, steps=5, guidance=2.5), golden["net_ode"][:2], 2e-4)


def filled(net, **kw):
  rng = np.random.default_rng(0)

  def value(path, leaf):
    x = rng.normal(size=leaf.shape).astype(np.float32) / 5
    return 1 + x if path[-1].key == "scale" else x

  return jax.tree_util.tree_map_with_path(value, shapes(net, **kw))


def test_blocks_begin_as_the_identity():
  net = dit.DiT(**TINY, depth=2)
  x, t, y = jax.random.normal(KEY, (2, 8, 8, 4)), jnp.ones(2), jnp.arange(2)
  first = jit(net.init)(KEY, x, t, y)["params"]
  zeros = [first["head"], first["ada"], first["blocks"]["ada"]]
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))
  # So only what is embedded reaches the head, whatever the blocks would say.
  params = filled(net)["params"]
  of = jit(lambda p: net.apply({"params": p}, x, t, y))
  ada = jax.tree.map(jnp.zeros_like, params["blocks"]["ada"])
  closed = params | {"blocks": params["blocks"] | {"ada": ada}}
  other = jax.tree.map(lambda a: 2 * a, params["blocks"]) | {"ada": ada}
  np.testing.assert_array_equal(of(closed), of(params | {"blocks": other}))
  assert np.abs(of(params) - of(closed)).max() > 0.1


def test_turns_of_the_loop_are_the_same_blocks():
  # However many of them a turn holds, and whether it is made again.
  x, t, y = jax.random.normal(KEY, (2, 8, 8, 4)), jnp.ones(2), jnp.arange(2)
  params, results = filled(dit.DiT(**TINY, depth=2)), []
  for kw in ({}, dict(unroll=2, remat=True)):
    net = dit.DiT(**TINY, depth=2, **kw)
    loss = lambda p, net=net: jnp.mean(net.apply(p, x, t, y) ** 2)
    results.append(jit(jax.grad(loss))(params))
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    near(a, b, 1e-4)


@pytest.mark.parametrize("make", [dit.DiT, dit_modern.ModernDiT])
def test_what_is_made_again_multiplies_no_matrix_and_weights_are_float32(make):
  args, products = (jnp.ones((2, 8, 8, 4)), jnp.ones(2), jnp.arange(2)), []
  for remat in (False, True):
    net = make(**TINY, depth=2, remat=remat, dtype=jnp.bfloat16)
    params = jax.eval_shape(net.init, KEY, *args)
    grad = jax.jit(jax.grad(lambda p, net=net: jnp.mean(net.apply(p, *args) ** 2)))
    assert {a.dtype for a in jax.tree.leaves((params, jax.eval_shape(grad, params)))} == {
      jnp.dtype("float32")
    }
    lines = [line for line in grad.lower(params).as_text().splitlines() if "dot_general" in line]
    of_heads = ["batching_dims" in line for line in lines]
    products.append((len(lines) - sum(of_heads), sum(of_heads)))
  (without, kept), (again, attention) = products
  assert again == without > 20 and attention > kept


@pytest.mark.parametrize("make", [dit.DiT, dit_modern.ModernDiT])
def test_a_net_minds_its_conditions_and_places(make):
  net = make(**TINY, depth=1)
  params = filled(net)
  x, t, y = jax.random.normal(KEY, (2, 8, 8, 4)), jnp.ones(2), jnp.arange(2)
  of = jit(lambda *args: net.apply(params, *args))
  F = of(x, t, y)
  assert F.shape == x.shape and F.dtype == jnp.float32
  moved = lambda *args: np.abs(of(*args) - F).max((1, 2, 3))
  assert (moved(x, t + 0.1, y) > 1e-3).all()
  assert moved(x, t, y.at[1].set(10))[0] < 1e-5 < 1e-3 < moved(x, t, y.at[1].set(10))[1]
  # Patches elsewhere are no longer the same patches elsewhere.
  rolled = of(jnp.roll(x, 2, 2), t, y)
  assert np.abs(jnp.roll(rolled, -2, 2) - F).max() > 1e-2


def test_rotary_logits_know_distances_alone():
  cos, sin = dit_modern.angles((5, 6), 16)
  q, k = jax.random.normal(KEY, (2, 1, 1, 1, 16))
  turned = lambda x: dit_modern.rotate(jnp.broadcast_to(x, (1, 30, 1, 16)), cos, sin)
  logits = jnp.einsum("btnc,bsnc->ts", turned(q), turned(k)).reshape(5, 6, 5, 6)
  np.testing.assert_allclose(logits[:4, :5, :4, :5], logits[1:, 1:, 1:, 1:], atol=1e-5)
  assert np.abs(logits[0, 0, 1, 0] - logits[0, 0, 0, 1]) > 1e-2
  # The same frequencies along rows and columns, and no turn at the origin.
  np.testing.assert_allclose(cos[6, 0, :4], cos[1, 0, 4:], rtol=1e-6)
  np.testing.assert_array_equal(turned(q)[0, 0, 0], q[0, 0, 0])


def test_the_modern_trunk_by_hand():
  # Layer by layer in numpy, of one block.
  net = dit_modern.ModernDiT(width=16, heads=2, depth=1, patch=4)
  params = filled(net, labels=False)
  block = jax.tree.map(lambda a: np.asarray(a[0], np.float64), params["params"]["blocks"])
  rng = np.random.default_rng(1)
  x, c = rng.normal(size=(1, 4, 16)), rng.normal(size=(1, 16))
  rms = lambda x, p: x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * p["scale"]
  dense = lambda x, p: x @ p["kernel"] + p["bias"]
  b_1, g_1, a_1, b_2, g_2, a_2 = np.split(dense(c, block["ada"])[:, None], 6, -1)
  qkv = dense(rms(x, block["norm_1"]) * (1 + g_1) + b_1, block["attn"]["qkv"])
  q, k, v = np.moveaxis(qkv.reshape(1, 4, 3, 2, 8), 2, 0)
  cos, sin = dit_modern.angles((2, 2), 8)
  pairs = lambda x: x[..., :4] + 1j * x[..., 4:]
  q, k = (
    pairs(rms(z, block["attn"][f"norm_{n}"])) * (cos + 1j * sin)
    for n, z in zip("qk", (q, k), strict=True)
  )
  w = np.exp(np.einsum("btnc,bsnc->bnts", q, k.conj()).real / np.sqrt(8))
  y = np.einsum("bnts,bsnc->btnc", w / w.sum(-1, keepdims=True), v).reshape(1, 4, 16)
  h = x + a_1 * dense(y, block["attn"]["proj"])
  a, b = np.split(dense(rms(h, block["norm_2"]) * (1 + g_2) + b_2, block["mlp"]["fc1"]), 2, -1)
  h = h + a_2 * dense(a / (1 + np.exp(-a)) * b, block["mlp"]["fc2"])
  ours = jit(net.block((2, 2))().apply)({"params": block}, jnp.float32(x), jnp.float32(c))
  near(ours, h, 1e-5)


def test_what_does_not_fit_is_said():
  init = lambda net, size=8: shapes(net, size=size)
  with pytest.raises(ValueError, match="9x9 are not made of patches of 2x2"):
    init(dit.DiT(**TINY), 9)
  with pytest.raises(ValueError, match="48 channels cannot be split into 5 heads"):
    init(dit.DiT(**TINY | dict(heads=5)))
  with pytest.raises(ValueError, match="width=30: .* multiple of 4"):
    init(dit.DiT(width=30, heads=3))
  with pytest.raises(ValueError, match="heads of 6 channels"):
    init(dit_modern.ModernDiT(width=24, heads=4))
