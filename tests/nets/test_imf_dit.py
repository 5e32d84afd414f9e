"""Nets that are told several numbers: exact counts, tokens, and derivatives."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import near

from jaxgen import config
from jaxgen.config import build
from jaxgen.nets import imf_dit, two_times
from jaxgen.nets.unet import UNet

KEY = jax.random.key(0)
COUNTS = {
  "B-4": 131_165_248,
  "B-2": 131_091_472,
  "M-2": 308_019_216,
  "L-2": 459_137_040,
  "XL-2": 676_440_592,
}
# In training, and without the blocks of v alone.
IMPROVED = {
  "imf-B-2": (145_596_960, 88_948_256),
  "imf-M-2": (230_570_016, 173_921_312),
  "imf-L-2": (509_752_352, 409_071_648),
  "imf-XL-2": (711_113_760, 610_433_056),
}
EMBEDDING = functools.partial(two_times.embedding, scale=10.0)
NETS = {
  "dit": (two_times.DiT(width=16, depth=2, heads=2, labels=4), 2),
  "imf": (imf_dit.ImfDiT(width=16, depth=3, own=1, heads=2, labels=4, tokens=(2, 1, 1, 1, 2)), 4),
  "unet": (UNet(width=8, mults=(1,), blocks=1, head=8, labels=4, embedding=EMBEDDING), 4),
  "mlp": (two_times.Denoiser(width=16, depth=2, classes=3), 2),
}


def filled(net, *args):
  rng = np.random.default_rng(0)

  def value(path, leaf):
    x = rng.normal(size=leaf.shape).astype(np.float32) / np.sqrt(leaf.shape[0])
    return 1 + x / 5 if path[-1].key == "scale" else x

  return jax.tree_util.tree_map_with_path(value, jax.eval_shape(net.init, KEY, *args))


def inputs(name):
  net, told = NETS[name]
  x = jax.random.normal(KEY, (3, 2) if name == "mlp" else (3, 4, 4, 1))
  c = jax.random.uniform(jax.random.key(1), (3, told))
  return net, x, c, jnp.arange(3)


def size(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("arg", [*COUNTS, *IMPROVED])
def test_parameters_are_as_many_as_published(arg):
  c = config.load(f"configs/mean_flow.py:{arg}")
  text = (pathlib.Path(config.OURS) / "mean_flow.py").read_text()
  improved = arg in IMPROVED
  x, told = jnp.zeros((1, 32, 32, 4)), jnp.zeros((1, 4 if improved else 2))
  net = build(c.model.model.net)
  params = jax.eval_shape(net.init, KEY, x, told, jnp.zeros(1, jnp.int32))["params"]
  want = IMPROVED[arg] if improved else (COUNTS[arg],)
  got = size(params), *([size(params) - size(params["v_blocks"])] if improved else [])
  assert got == want
  assert all(f"{n:,}" in text for n in want)


@pytest.mark.parametrize("arg, want", [("digits", 438_673), ("photos-imf", 785_560)])
def test_small_nets_are_as_large_as_said(arg, want):
  c = config.load(f"configs/mean_flow.py:{arg}")
  assert f"{want:,}" in (pathlib.Path(config.OURS) / "mean_flow.py").read_text()
  x = jnp.zeros((1, 8, 8, 1) if c.model.classes else (1, 32, 32, 3))
  y = [jnp.zeros(1, jnp.int32)] if c.model.classes else []
  assert (
    size(jax.eval_shape(build(c.model.net).init, KEY, x, jnp.zeros((1, 2)), *y)["params"]) == want
  )


@pytest.mark.parametrize("name", NETS)
def test_a_net_minds_all_it_is_told(name):
  net, x, c, y = inputs(name)
  params = filled(net, x, c, y)
  of = jit(lambda *args: net.apply(params, *args))
  F = of(x, c, y)
  assert F.shape == (*x.shape[:-1], x.shape[-1] * (1 + (name == "imf"))) and F.dtype == jnp.float32
  for i in range(c.shape[1]):
    moved = np.abs(of(x, c.at[1, i].add(0.3), y) - F).reshape(3, -1).max(1)
    assert moved[0] < 1e-5 and moved[1] > 1e-3, i
  assert np.abs(of(x, c, y.at[1].set(3)) - F)[1].max() > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_forward_derivatives_are_differences(name):
  # Through whatever rules of their own for derivatives the layers have.
  net, x, c, y = inputs(name)
  params = filled(net, x, c, y)
  tangent = jax.random.normal(jax.random.key(2), x.shape), jnp.ones_like(c)
  of = lambda x, c: net.apply(params, x, c, y)
  exact = jit(lambda x, c: jax.jvp(of, (x, c), tangent)[1])(x, c)
  step = 5e-3
  far = lambda k: jit(of)(x + k * step * tangent[0], c + k * step * tangent[1])
  differences = (8 * (far(1) - far(-1)) - (far(2) - far(-2))) / (12 * step)
  near(exact, differences, 3e-3)


def test_remade_blocks_are_the_same():
  net, x, c, y = inputs("imf")
  params = filled(net, x, c, y)
  results = []
  for kw in ({}, dict(unroll=2, remat=True)):
    other = net.clone(**kw)

    def loss(params, other=other):
      of = lambda x, c: other.apply(params, x, c, y)
      F, dF = jax.jvp(of, (x, c), (x, jnp.ones_like(c)))
      return jnp.mean((F + jax.lax.stop_gradient(dF)) ** 2)

    results.append(jit(jax.grad(loss))(params))
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    near(a, b, 1e-4)


def test_rotary_logits_know_distances_alone():
  q, k = jax.random.normal(KEY, (2, 1, 1, 1, 8))
  turned = lambda x: imf_dit.turn(jnp.broadcast_to(x, (1, 6, 1, 8)))
  logits = jnp.einsum("btnc,bsnc->ts", turned(q), turned(k))
  np.testing.assert_allclose(logits[:-1, :-1], logits[1:, 1:], atol=1e-5)
  np.testing.assert_array_equal(turned(q)[0, 0], q[0, 0])


def test_what_does_not_fit_is_said():
  init = lambda net, size: jax.eval_shape(net.init, KEY, jnp.zeros((1, size, size, 1)), *rest)
  rest = jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32)
  with pytest.raises(ValueError, match="9x9 are not made of patches of 2x2"):
    init(NETS["imf"][0], 9)
  with pytest.raises(ValueError, match="heads of 5 channels"):
    init(NETS["imf"][0].clone(width=10), 8)
