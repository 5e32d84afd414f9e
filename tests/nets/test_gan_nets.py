"""Classic GANs' nets: sizes and answers of the reference codes."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen.nets import dcgan_paper, r3gan, resgan, spectral
from jaxgen.nets.layers import Discrimination

KEY = jax.random.key(0)


def pair(name):
  """Generator and discriminator of a golden file, ours."""
  wgan = dict(wrap=spectral.plain, pool=resgan.mean)
  wide = (64, 32, 16, 8, 4)
  G = functools.partial(resgan.Generator, enlarge=resgan.bilinear)
  D = resgan.Discriminator
  return {
    "sngan_32": lambda: (G((24,) * 4), D((24,) * 4)),
    "wgan_gp_64": lambda: (G(wide, bottom=2), D(wide[::-1], halvings=5, **wgan)),
    "sngan_128_class": lambda: (
      G((64, *wide), bottom=1, classes=5),
      D((*wide[::-1], 64), halvings=5, classes=5),
    ),
    "dcgan_64": lambda: (dcgan_paper.Generator(width=8), dcgan_paper.Discriminator(8)),
    "r3gan_16_class": lambda: (
      r3gan.Generator((32, 32, 16), (8, 8, 4), classes=5, embedding=8),
      r3gan.Discriminator((16, 32, 32), (4, 8, 8), classes=5, embedding=24),
    ),
  }[name]()


NAMES = ["sngan_32", "wgan_gp_64", "sngan_128_class", "dcgan_64", "r3gan_16_class"]


def regenerate(manifest, net):
  """The reference's weights: see tests/golden/README.md."""
  seed, out = manifest["seed"][net], {}
  for name, z, buffer in draws(seed, manifest["state_dict"][net]):
    if buffer:
      continue
    if name.endswith("running_var"):
      out[name] = np.exp(np.float32(0.2) * z)
    elif z.ndim >= 2:
      out[name] = scaled(z)
    else:
      out[name] = np.float32(0.1) * z + name.endswith(".weight")
  return out


def places(name, net):
  """Our modules in the order of the reference's."""
  by = range(9)
  if name == "dcgan_64":
    return [f"{kind}_{i}" for i in by for kind in ("conv", "norm")] + ["logit"]
  if name == "r3gan_16_class":
    layers = [
      f"block_{i}_{j}/{layer}"
      for i in by
      for j in by
      for layer in ("conv_1", "conv_2", "conv_3", "conv_1", "conv_2")
    ]
    stage = lambda i: [x for x in layers if x.startswith(f"block_{i}")]
    if net == "generator":
      return [
        "",
        "project",
        *(x for i in by for x in (f"transition_{i}", *stage(i))),
        "image",
        "label",
      ]
    return ["image", *(x for i in by for x in (*stage(i), f"transition_{i}")), "", "logit", "label"]
  norms = ["norm_1", "norm_1", "norm_2", "norm_2"][:: 1 + ("class" not in name)]
  return [
    "first",
    *(f"block_{i}/{x}" for i in by for x in ("conv_1", "conv_2", *norms, "skip")),
    "norm",
    "last",
    "head/linear",
    "head/label",
  ]


def take(name, net, manifest, tree):
  """The reference's weights in a tree of our shapes."""
  flat = {
    "/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  modules = {path.partition("/")[2].rpartition("/")[0] for path in flat}
  modules |= {m.rpartition("/")[0] for m in modules if "/norm" in m}
  ahead = iter([p for p in places(name, net) if p in modules or not p])
  tensors, before = {}, None
  for key, x in regenerate(manifest, net).items():
    module, _, leaf = key.rpartition(".")
    if module != before:
      before, place = module, next(ahead)
    tensors |= {p.replace("//", "/"): x for p, x in layout(name, net, place, leaf, x)}
  assert next(ahead, None) is None
  tensors |= {p: np.float32(1) for p in flat if p.endswith("sigma")}
  assert set(tensors) == set(flat)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(tensors["/".join(k.key for k in path)].reshape(leaf.shape)), tree
  )


def layout(name, net, place, leaf, x):
  """One tensor of theirs -> (path, array) of ours."""
  ours = {
    "running_mean": "batch_stats/{}/mean",
    "bias": "params/{}/bias",
    "running_var": "batch_stats/{}/var",
    "Bias": "params/{}/bias",
    "weight_u": "spectral/{}/u",
    "weight_v": None,
  }
  if leaf in ours:
    if ours[leaf]:
      if place == "first":  # channels come before rows and columns
        x = first(name, x)
      yield ours[leaf].format(place), x
  elif place == "":
    yield "params/basis", np.moveaxis(x.reshape(-1, 4, 4), 0, 2)
  elif "label" in place:
    yield f"params/{place}/embedding", x.T if name.startswith("r3") else x
  elif "norm" in place and x.ndim == 2:
    scale, bias = np.split(x, 2, 1)
    yield f"params/{place}/gain/embedding", scale - 1
    yield f"params/{place}/bias/embedding", bias
  elif x.ndim == 1:
    yield f"params/{place}/gain", x
  elif x.ndim == 2:
    yield f"params/{place}/kernel", (first(name, x) if place == "first" else x).T
  elif (name, net) == ("dcgan_64", "generator"):  # a convolution, transposed
    yield f"params/{place}/kernel", x.transpose(2, 3, 0, 1)[::-1, ::-1]
  else:
    yield f"params/{place}/kernel", x.transpose(2, 3, 1, 0)


def first(name, x):
  """[C * side^2, ...], channels first -> channels last."""
  side = {"sngan_32": 4, "wgan_gp_64": 2, "sngan_128_class": 1}[name]
  x = x.reshape(-1, side * side, *x.shape[1:])
  return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def published(name, net):
  """-> our net, its variables with the reference's weights, golden file."""
  golden = np.load(GOLDEN / f"gan_{name}.npz")
  mine = dict(zip(("generator", "discriminator"), pair(name), strict=True))[net]
  x = golden["z"] if net == "generator" else jnp.moveaxis(golden["fake"], 1, -1)
  y = {"y": golden["y"]} if "y" in golden.files else {}
  tree = jax.eval_shape(functools.partial(mine.init, **y), KEY, x)
  manifest = json.loads(str(golden["manifest"]))
  return mine, take(name, net, manifest, tree), x, y, golden


def train(net, variables, x, y):
  moving = [k for k in variables if k != "params"]
  return jit(lambda v: net.apply(v, x, **y, mutable=moving))(variables)


@pytest.mark.parametrize("name", NAMES)
def test_generators_answer_as_the_reference(name):
  net, variables, z, y, golden = published(name, "generator")
  nchw = lambda x: jnp.moveaxis(x, -1, 1)
  near(nchw(jit(lambda v: net.apply(v, z, **y))(variables)), golden["fake"])
  if "fake_train" in golden.files:
    out, _ = train(net, variables, z, y)
    near(nchw(out)[:, :, ::4, ::4], golden["fake_train"])


@pytest.mark.parametrize("name", NAMES)
def test_discriminators_answer_as_the_reference(name):
  net, variables, x, y, golden = published(name, "discriminator")
  logits, _ = train(net, variables, x, y)
  near(logits, golden["logits"])


def random(tree, scale=0.3):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.float32(scale * rng.normal(size=x.shape)), tree)


def test_minibatch_discrimination_is_the_papers_sum():
  f = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
  net = Discrimination(kernels=3, dims=2)
  params = random(jax.eval_shape(net.init, KEY, f))
  T = np.asarray(params["params"]["T"]["kernel"], np.float64)
  assert T.shape == (6, 3, 2)
  M = np.tensordot(f, T, 1)
  near_ = np.zeros((4, 3))
  for i in range(4):
    for j in range(4):
      for b in range(3):
        if i != j:
          near_[i, b] += np.exp(-np.abs(M[i, b] - M[j, b]).sum())
  out = net.apply(params, f)
  np.testing.assert_array_equal(out[:, :6], f)
  np.testing.assert_allclose(out[:, 6:], near_, rtol=1e-5, atol=1e-6)


def test_dcgans_critic_may_compare():
  net = dcgan_paper.Discriminator(4, bottom=2, compare=Discrimination(3, 2))
  x = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype(np.float32)
  tree = jax.eval_shape(net.init, KEY, x)
  ones = jax.tree.map(lambda x: jnp.ones(x.shape), tree["batch_stats"])
  params = {"params": random(tree["params"]), "batch_stats": ones}
  assert net.apply(params, x, method="embed").shape == (4, 2 * 2 * 8 + 3)
  assert np.abs(net.apply(params, x)[:1] - net.apply(params, x[:1])) > 1e-4


def test_layer_norm_is_over_all_of_an_example():
  x = np.random.default_rng(1).normal(2, 3, (2, 4, 4, 6)).astype(np.float32)
  net = resgan.Down(6, spectral.plain, resgan.layer_norm, resgan.nothing, jnp.float32)
  tree = jax.eval_shape(net.init, KEY, x)["params"]
  assert tree["GroupNorm_0"]["scale"].shape == (6,)
  # Centres alone pass the convolutions, so that y = x + relu(LN(relu(LN x))).
  eye = jnp.zeros((3, 3, 6, 6)).at[1, 1].set(jnp.eye(6))
  params = {
    k: {"kernel": eye, "bias": jnp.zeros(6)}
    if k.startswith("conv")
    else {"scale": jnp.ones(6), "bias": jnp.zeros(6)}
    for k in tree
  }

  def norm(h):
    mean, var = (f(h, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.var))
    return np.maximum((h - mean) / np.sqrt(var + 1e-5), 0)

  np.testing.assert_allclose(
    net.apply({"params": params}, x), x + norm(norm(x)), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("name", ["sngan_128_class", "r3gan_16_class"])
def test_labels_may_be_weights(name):
  net, variables, x, y, _ = published(name, "discriminator")
  of = jit(lambda y: net.apply(variables, x, y=y))
  near(of(jax.nn.one_hot(y["y"], 5)), of(y["y"]))


def test_blocks_of_r3gan_begin_as_nothing():
  x = np.random.default_rng(1).normal(size=(2, 4, 4, 64)).astype(np.float32)
  y, params = r3gan.Block(groups=8, depth=16).init_with_output(KEY, x)
  np.testing.assert_array_equal(y, x)
  # Huang et al. 2024: gain L^(-1/(2m - 2)) of He's, m = 3 layers, L blocks.
  for layer, fan_in in (("conv_1", 64), ("conv_2", 9 * 128 / 8)):
    std = np.std(params["params"][layer]["kernel"])
    expected = np.sqrt(2 / 1.04) * 16**-0.25 / np.sqrt(fan_in)
    np.testing.assert_allclose(std, expected, rtol=0.03)
