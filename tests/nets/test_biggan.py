"""BigGAN and BigGAN-deep against Brock's PyTorch code, and their theorems."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import config, core, keys
from jaxgen.config import build
from jaxgen.interop import biggan_names, names
from jaxgen.interop.gans import GANS
from jaxgen.interop.tensors import lazy
from jaxgen.nets import layers

CASES = ["biggan_64", "biggan_deep_64", "biggan_32", "biggan_32_flat", "biggan_deep_32"]
TRAINED = ["biggan_32", "biggan_deep_32"]
KEY = jax.random.key(0)


def weights(seed, state_dict):
  """Of the reference's networks: see tests/golden/README.md."""
  tensors = {}
  for name, z, _ in draws(seed, state_dict):
    if name.endswith(("stored_var", "running_vars")):
      tensors[name] = np.exp(np.float32(0.2) * z)
    elif z.ndim > 1:
      tensors[name] = scaled(z)
    else:
      tensors[name] = np.asarray(np.float32(0.1) * z + name.endswith(".weight"), np.float32)
  return tensors


def nets(manifest):
  """Our networks for the arguments of theirs."""
  name = "biggan_deep" if "deep" in manifest["source"] else "biggan"
  g, d = manifest["generator"], manifest["discriminator"]
  places = lambda words: tuple(map(int, words.split("_")))
  gen = dict(
    size=g["resolution"],
    width=g["G_ch"],
    classes=g["n_classes"],
    attend=places(g["G_attn"]),
    bottom=g.get("bottom_width", 4),
    embed=g["shared_dim"] if g.get("G_shared", True) else 0,
  )
  disc = dict(width=d["D_ch"], classes=d["n_classes"], attend=places(d["D_attn"]))
  if name == "biggan":
    gen["hier"], disc["wide"] = g["hier"], d.get("D_wide", True)
  return (
    build(dict(name=f"nets.{name}.Generator", **gen)),
    build(dict(name=f"nets.{name}.Discriminator", **disc)),
  )


@functools.cache
def known(case, group):
  """-> our net, its inputs, shapes of its collections, their tensors."""
  golden = np.load(GOLDEN / f"{case}.npz")
  manifest = json.loads(str(golden["manifest"]))
  net = nets(manifest)[group == "disc"]
  x = np.moveaxis(golden["x"], 1, -1) if group == "disc" else golden["z"]
  args = jnp.asarray(x), jnp.asarray(golden["y"], jnp.int32)
  before = "discriminator_" if group == "disc" else ""
  theirs = weights(manifest[before + "seed"], manifest[before + "state_dict"])
  return net, args, jax.eval_shape(net.init, KEY, *args), theirs


@functools.cache
def filled(case, group):
  """Their weights as our collections."""
  _, _, tree, theirs = known(case, group)
  how = GANS["biggan"]
  tensors = how.incoming({k: lazy(v) for k, v in theirs.items()})
  return names.fill(how.entries(group, tree), tensors)


def run(f, *args):
  return jit(f)(*args)


@pytest.mark.parametrize("case", CASES)
def test_answers_as_the_reference(case):
  golden = np.load(GOLDEN / f"{case}.npz")
  net, args, *_ = known(case, "gen")
  x = run(lambda v: net.apply(v, *args), filled(case, "gen"))
  near(jnp.moveaxis(x, -1, 1), golden["generated"])
  net, args, *_ = known(case, "disc")
  logits = run(lambda v: net.apply(v, *args), filled(case, "disc"))
  assert logits.shape == (2,)
  near(logits, golden["logits"][:, 0])


@pytest.mark.parametrize("case", TRAINED)
def test_training_is_the_references(case):
  """Norms see the batch; averages and vectors move as theirs do."""
  golden, (net, args, *_) = np.load(GOLDEN / f"{case}.npz"), known(case, "gen")
  tree = filled(case, "gen")
  x, moved = run(lambda v: net.apply(v, *args, mutable=["batch_stats", "spectral"]), tree)
  near(jnp.moveaxis(x, -1, 1), golden["generated_training"])
  tree = {**tree, **moved}
  theirs = biggan_names.outgoing(names.spell(biggan_names.entries("gen", tree), tree))
  after = [k for k in golden.files if k.startswith("after:")]
  assert len(after) == 7
  for key in after:
    near(theirs[key.removeprefix("after:")].read(), golden[key])


def test_each_collection_moves_only_where_it_may():
  net, args, *_ = known("biggan_32", "gen")
  tree = filled("biggan_32", "gen")
  for one in ("batch_stats", "spectral"):
    _, moved = run(lambda v, one=one: net.apply(v, *args, mutable=[one]), tree)
    assert set(moved) == {one}
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), moved[one], tree[one])
    # Of matrices of one row the vector is 1 or -1: it may stay.
    assert np.mean(jax.tree.leaves(changed)) > 0.9
  fresh = jax.eval_shape(net.init, KEY, *args)
  assert set(fresh) == {"params", "batch_stats", "spectral"}


def test_labels_may_be_weights():
  """One-hot weights are labels; halves are the mean of two embeddings."""
  net, (z, y), *_ = known("biggan_32", "gen")
  tree = filled("biggan_32", "gen")
  half = jnp.zeros((2, 7)).at[:, :2].set(0.5)
  table = tree["params"]["label"]["embedding"]
  mean = jnp.asarray(table).at[0].set((table[0] + table[1]) / 2)
  other = tree | {"params": tree["params"] | {"label": {"embedding": mean}}}
  soft = jit(net.apply)
  near(
    soft(tree, z, jax.nn.one_hot(y, 7)),
    np.load(GOLDEN / "biggan_32.npz")["generated"].transpose(0, 2, 3, 1),
  )
  near(soft(tree, z, half), run(lambda v: net.apply(v, z, 0 * y), other))


def test_bfloat16_is_near_and_comes_out_as_float32():
  for group in ("gen", "disc"):
    net, args, *_ = known("biggan_32", group)
    tree = filled("biggan_32", group)
    half = net.clone(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(half.init, KEY, *args))} == {
      jnp.dtype("float32")
    }
    ours, exact = (run(n.apply, tree, *args) for n in (half, net))
    assert ours.dtype == jnp.float32
    near(ours, exact, 0.05)
    assert np.abs(ours - exact).max() > 1e-5  # it did round


def test_the_hubs_generator_by_its_own_statistics():
  """huggingface/pytorch-pretrained-BigGAN at truncations 0.5 and 1."""
  golden = np.load(GOLDEN / "biggan_hub_128.npz")
  net, tree = hub()
  at = run(
    lambda v, t: net.apply(v, golden["z"], jnp.int32(golden["y"]), statistics=t),
    tree,
    jnp.float32(0.5),
  )
  near(at.transpose(0, 3, 1, 2)[:, :, ::4, ::4], golden["generated_0.5"])


def hub():
  """-> our net, its collections."""
  golden = np.load(GOLDEN / "biggan_hub_128.npz")
  manifest = json.loads(str(golden["manifest"]))
  theirs = weights(manifest["seed"], manifest["state_dict"])
  for name in [k for k in theirs if k.endswith("_v")]:  # as converted: a step
    stem = name.removesuffix("_v")
    W = theirs[f"{stem}_orig"].reshape(len(theirs[f"{stem}_orig"]), -1)
    unit = lambda x: x / np.linalg.norm(x)
    theirs[name] = unit(theirs[f"{stem}_u"] @ W)
    theirs[f"{stem}_u"] = unit(W @ theirs[name])
  net = build(
    dict(
      name="nets.biggan_deep.Generator",
      width=8,
      classes=7,
      embed=12,
      tables=51,
      spare=5,
      eps=1e-4,
      norm=dict(name="nets.spectral.spectral", stored=True, eps=1e-4),
    )
  )
  how = GANS["biggan_hub"]
  shapes = jax.eval_shape(net.init, KEY, golden["z"], jnp.int32(golden["y"]))
  return net, names.fill(
    how.entries("gen", shapes), how.incoming({k: lazy(v) for k, v in theirs.items()})
  )


def test_statistics_between_two_truncations():
  norm = layers.CondNorm(None, tables=3, eps=0.0)
  x = jnp.ones((1, 1, 1, 2))
  tree = {
    "params": {"gain": jnp.ones(2), "bias": jnp.zeros(2)},
    "batch_stats": {"mean": jnp.array([[0.0, 1], [2, 3], [4, 7]]), "var": jnp.full((3, 2), 4.0)},
  }
  for truncation, mean in ((0, (0, 1)), (0.5, (2, 3)), (0.75, (3, 5)), (1, (4, 7)), (9, (4, 7))):
    y = norm.apply(tree, x, None, truncation)
    np.testing.assert_allclose(y[0, 0, 0], (1 - np.array(mean)) / 2, atol=1e-5)


def test_running_variances_are_unbiased():
  norm = layers.CondNorm(None)
  x = 3 + 2 * jax.random.normal(KEY, (4, 2, 2, 3))
  tree = norm.init(KEY, x)
  assert np.all(tree["batch_stats"]["mean"] == 0)  # it has not moved yet
  y, moved = norm.apply(tree, x, mutable=["batch_stats"])
  flat = np.asarray(x).reshape(-1, 3)
  np.testing.assert_allclose(
    y.reshape(-1, 3), (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5), atol=1e-4
  )
  stats = moved["batch_stats"]
  np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-4)
  np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-4)


def test_weights_begin_orthogonal():
  net = build(dict(name="nets.biggan.Generator", size=8, width=4, classes=5, embed=6))
  tree = run(net.init, KEY, jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32))
  kernels = [
    v for k, v in names.flat(tree["params"]).items() if k.endswith(("/kernel", "/embedding"))
  ]
  assert len(kernels) > 8
  for kernel in kernels:
    W = np.asarray(kernel).reshape(-1, kernel.shape[-1])
    gram = W @ W.T if W.shape[0] < W.shape[1] else W.T @ W
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_a_label_that_is_not_there_is_no_other():
  embed = layers.LabelEmbed(3, 2)
  tree = embed.init(KEY, jnp.zeros(1, jnp.int32))
  assert np.isnan(embed.apply(tree, jnp.array([3]))).all()
  assert np.isfinite(embed.apply(tree, jnp.array([2]))).all()


def shaped(name):
  """-> config, model, the batch's shapes."""
  file, _, arg = name.partition(":")
  c = config.load(f"configs/{file}.py:{arg}")
  size, channels = (c.data.size, 3) if c.data.size else (8, 1)
  return (
    c,
    build(c.model),
    {
      "x": jax.ShapeDtypeStruct((2, size, size, channels), jnp.uint8),
      "y": jax.ShapeDtypeStruct((2,), jnp.int32),
    },
  )


@pytest.mark.parametrize("name", ["biggan:digits", "biggan_deep:digits"])
def test_configs_train_and_sample_in_shape(name):
  c, model, batch = shaped(name)
  tx = {g: build(s)(steps=c.steps) for g, s in c.optim.items()}
  ema = {p: build(s)(batch=c.batch) for p, s in c.ema.items()}
  state = jax.eval_shape(core.make_init(model, tx, tuple(ema)), batch, KEY)
  assert core.turn(model, 0) == (0, 1) and core.turn(model, 1) == (0,)
  step = functools.partial(core.make_step(model, tx, ema), (0, 1))
  new, metrics = jax.eval_shape(step, state, batch, KEY)
  like = lambda t: jax.tree.map(lambda a: (a.shape, a.dtype), t)
  assert like(new) == like(state)
  assert metrics["gen/loss"].shape == metrics["disc/loss"].shape == ()
  x = jax.eval_shape(
    lambda s, b: model.sample(s, core.on_device(b), keys.example_keys(KEY, 2)), state, batch
  )
  assert x.shape == batch["x"].shape and x.dtype == jnp.float32
