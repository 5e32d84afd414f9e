"""Nets: shapes, what conditions change, norms by linear algebra, sizes."""

import functools
import os
import subprocess
import sys

import flax.linen as nn
import games
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla

from jaxgen import config
from jaxgen.config import build
from jaxgen.nets import convs, layers, mlp, spectral, unet

KEY = jax.random.key(0)


def noisy(params, by=0.1):
  """The same shapes with random numbers: no layer is zero."""
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: jnp.asarray(by * rng.normal(size=x.shape), x.dtype), params)


def shapes(net, *args, **kw):
  """Parameters' shapes, without running anything."""
  return jax.eval_shape(functools.partial(net.init, **kw), KEY, *args)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


TINY = unet.UNet(width=8, mults=(1,), blocks=1, attend=(), head=8, dropout=0.5, labels=4)


@functools.cache
def tiny():
  """A U-Net with random weights: -> jitted (x, c_noise, y, key) -> F."""
  x, y = jnp.zeros((2, 8, 8, 1)), jnp.zeros(2, jnp.int32)
  params = noisy(shapes(TINY, x, jnp.zeros(2), y), 0.2)
  return jax.jit(lambda x, c, y, key=None: TINY.apply(params, x, c, y, key))


def inputs(n=4):
  x = jax.random.normal(jax.random.key(1), (n, 8, 8, 1))
  return x, jnp.linspace(-1, 1, n), jnp.arange(n) % 4


def test_unet_begins_at_zero():
  x, c, y = inputs(2)
  F, _ = games.jit(lambda k: TINY.init_with_output(k, x, c, y))(KEY)
  np.testing.assert_array_equal(F, jnp.zeros_like(x))


@pytest.mark.parametrize(
  "kw, shape",
  [
    (dict(width=8, mults=(1, 2, 2)), (7, 9, 3)),  # odd all the way down
    (dict(width=48, mults=(1, 2)), (8, 8, 1)),  # 144 channels on the way up
    (dict(width=9, mults=(1, 1.5)), (4, 4, 2)),  # neither 4 nor 2 divide
    (dict(width=6, mults=(1,), blocks=0), (5, 3, 1)),
    (dict(width=20, mults=(1, 5), head=32, attend=(2, 4)), (4, 4, 1)),
    (dict(width=2, mults=(1, 1)), (2, 2, 1)),
    (dict(width=8, mults=(1, 2, 2, 2), blocks=1), (28, 28, 1)),  # MNIST
  ],
)
def test_unet_takes_odd_settings(kw, shape):
  net, x = unet.UNet(**kw), jnp.zeros((2, *shape))
  F, _ = jax.eval_shape(net.init_with_output, KEY, x, jnp.zeros(2))
  assert F.shape == x.shape and F.dtype == jnp.float32


@pytest.mark.parametrize(
  "kw",
  [
    dict(updown=True),
    dict(affine=False, pad=(0, 1)),
    dict(learned=True, updown=True, split_first=True, heads=2),
  ],
)
def test_unet_variants(kw):
  net, x = unet.UNet(width=8, mults=(1, 2, 2), **kw), jnp.zeros((2, 8, 12, 3))
  F, _ = jax.eval_shape(net.init_with_output, KEY, x, jnp.zeros(2))
  assert F.shape == (2, 8, 12, 6 if net.learned else 3)


def test_averages_cannot_halve_odd_images():
  net = unet.UNet(width=8, mults=(1, 2, 2), updown=True)
  with pytest.raises(ValueError, match="10x8 .* multiples of 4"):
    jax.eval_shape(net.init, KEY, jnp.zeros((2, 10, 8, 3)), jnp.zeros(2))


def test_strided_convolutions_pad_as_they_are_told():
  x = jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
  for pad, corner in (((1, 1), 1), ((0, 1), 6)):  # centre of the first window
    net = unet.Down(pad)
    params = {"conv": {"kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0), "bias": jnp.zeros(1)}}
    out = net.apply({"params": params}, x)
    assert out.shape == (1, 2, 2, 1) and out[0, 0, 0, 0] == corner


def test_unet_sees_low_resolution_images():
  net = unet.UNet(width=8, mults=(1,), blocks=1, attend=())
  x, low = jnp.zeros((2, 8, 8, 3)), jax.random.normal(KEY, (2, 2, 2, 3))
  params = noisy(shapes(net, x, jnp.zeros(2), low_res=low), 0.3)
  of = lambda low: net.apply(params, x, jnp.zeros(2), low_res=low)
  assert params["params"]["in_0"]["kernel"].shape[2] == 6
  moved = np.abs(of(low.at[0].add(1)) - of(low)).max((1, 2, 3))
  assert moved[0] > 1e-3 and moved[1] < 1e-5
  # What it is told is the enlarged image: an enlarged one says the same.
  large = jax.image.resize(low, (2, 8, 8, 3), "bilinear")
  np.testing.assert_allclose(of(large), of(low), atol=1e-5)


def test_patches_are_a_rearrangement():
  x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
  y = unet.gather_patches(x, 2)
  assert y.shape == (2, 2, 3, 12)
  np.testing.assert_array_equal(y[1, 1, 2], x[1, 2:4, 4:6].reshape(12))
  np.testing.assert_array_equal(unet.spread_patches(y, 2), x)
  with pytest.raises(ValueError, match="4x6 are not made of patches of 4x4"):
    unet.gather_patches(x, 4)


def test_a_unet_of_patches_is_one_of_more_channels():
  net = TINY.clone(patch=2, learned=True, dropout=0.0)
  x, c, y = inputs(2)
  params = noisy(shapes(net, x, c, y), 0.2)
  F = jax.jit(net.apply)(params, x, c, y)
  assert F.shape == (2, 8, 8, 2) and net.heights(8) == (4,)
  # Of every pixel F and the variance, pixel by pixel.
  of_patches = jax.jit(TINY.clone(learned=True, dropout=0.0).apply)
  inner = of_patches(params, unet.gather_patches(x, 2), c, y)
  np.testing.assert_allclose(unet.spread_patches(inner, 2), F, rtol=1e-5)


def test_unet_minds_its_conditions():
  x, c, y = inputs()
  F = tiny()(x, c, y)
  other = np.asarray(tiny()(x, c + 1, y) - F)
  assert (np.abs(other).max((1, 2, 3)) > 1e-3).all()
  label = np.asarray(tiny()(x, c, y.at[1].set(2)) - F)
  assert np.abs(label[1]).max() > 1e-3
  np.testing.assert_allclose(label[jnp.array([0, 2, 3])], 0, atol=1e-5)


def test_no_label_has_an_embedding_of_its_own():
  x, c, _ = inputs()
  of = lambda y: np.asarray(tiny()(x, c, jnp.full(4, y)))
  for y in range(3):
    assert np.abs(of(3) - of(y)).max() > 1e-3
  label = shapes(TINY, x, c, jnp.zeros(4, jnp.int32))["params"]["label"]
  assert label["embedding"].shape == (4, 32)
  no = shapes(unet.UNet(width=8, mults=(1,)), x, c)
  assert "label" not in no["params"]


def test_dropout_belongs_to_the_example():
  x, c, y = inputs()
  keys = jax.random.split(jax.random.key(5), 4)
  F, dry = tiny()(x, c, y, keys), tiny()(x, c, y)
  assert np.abs(F - dry).max() > 1e-2
  order = jnp.array([2, 0, 3, 1])
  moved = tiny()(x[order], c[order], y[order], keys[order])
  np.testing.assert_allclose(moved, F[order], atol=1e-5)
  np.testing.assert_allclose(tiny()(x[:2], c[:2], y[:2], keys[:2]), F[:2], atol=1e-5)
  assert np.abs(tiny()(x, c, y, keys[order]) - F).max() > 1e-2


class Two(nn.Module):
  @nn.compact
  def __call__(self, x, key=None):
    return layers.Dropout(0.3)(x, key), layers.Dropout(0.3)(x, key)


def test_dropout_rate_scale_and_independence():
  x = jnp.ones((64, 50, 50))
  keys = jax.random.split(KEY, 64)
  a, b = Two().apply({}, x, keys)
  values = np.unique(np.asarray(a))
  np.testing.assert_allclose(values, [0, 1 / 0.7], rtol=1e-6)
  std = np.sqrt(0.3 * 0.7 / a.size)
  assert abs(np.mean(np.asarray(a) == 0) - 0.3) < 5 * std
  both = np.mean((np.asarray(a) == 0) & (np.asarray(b) == 0))
  assert abs(both - 0.09) < 5 * std  # layers draw apart
  assert not np.array_equal(a[0], a[1])  # and so do examples
  np.testing.assert_array_equal(Two().apply({}, x)[0], x)


@pytest.mark.parametrize("channels", [2, 12, 144])
def test_group_norm_takes_any_width(channels):
  net = layers.GroupNorm()
  x = jax.random.normal(KEY, (2, 3, 3, channels)) * 5 + 2
  y = np.asarray(jax.jit(net.init_with_output)(KEY, x)[0])
  groups = {2: 1, 12: 3, 144: 24}[channels]
  z = np.asarray(x, np.float64).reshape(2, 9, groups, -1)
  z = (z - z.mean((1, 3), keepdims=True)) / np.sqrt(z.var((1, 3), keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, z.reshape(x.shape), atol=1e-4)


def test_group_norm_is_flaxs_where_means_are_large():
  """30 deviations from zero, values and gradients in float32 against float64's."""
  rng = np.random.default_rng(0)
  x, scale, bias = rng.normal(30, 1, (2, 4, 5, 12)), *rng.normal(size=(2, 12))

  def flaxs(x, scale, bias):
    return nn.GroupNorm(3, epsilon=1e-5).apply({"params": {"scale": scale, "bias": bias}}, x)

  ours = lambda x, scale, bias: layers.group_norm(x, scale, bias, 3, 1e-5)
  loss = lambda f: lambda *args: jnp.sum(jnp.tanh(f(*args)))
  both = lambda f: jax.jit(lambda *args: (f(*args), *jax.grad(loss(f), (0, 1, 2))(*args)))
  with jax.enable_x64(True):
    exact = both(flaxs)(x, scale, bias)
  single = [np.float32(t) for t in (x, scale, bias)]
  for y, expected in zip(both(ours)(*single), exact, strict=True):
    np.testing.assert_allclose(y, expected, atol=1e-4 * np.abs(expected).max())


def test_divisors():
  for n in range(1, 200):
    for most in (0, 1, 5, 32, 400):
      d = layers.divisor(n, most)
      assert n % d == 0 and d <= max(most, 1)
      assert not any(n % e == 0 for e in range(d + 1, min(most, n) + 1))


def test_group_norm_keeps_statistics_in_float32():
  x = jax.random.normal(KEY, (2, 8, 8, 16)) + 300.0
  out = layers.GroupNorm().init_with_output(KEY, x.astype(jnp.bfloat16))[0]
  assert out.dtype == jnp.bfloat16
  exact = layers.GroupNorm().init_with_output(KEY, x.astype(jnp.bfloat16).astype(jnp.float32))[0]
  np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.02)


def test_sinusoids_formula():
  t = np.array([0.0, 1.0, 500.0])
  w = 10000.0 ** (-np.arange(8) / 8)
  expected = np.concatenate([np.cos(t[:, None] * w), np.sin(t[:, None] * w)], 1)
  np.testing.assert_allclose(layers.sinusoids(jnp.array(t), 16), expected, atol=1e-4)
  w = np.geomspace(1, 1e-4, 8)  # DDPM: both ends, sines first
  expected = np.concatenate([np.sin(t[:, None] * w), np.cos(t[:, None] * w)], 1)
  np.testing.assert_allclose(
    layers.sinusoids(jnp.array(t), 16, sine_first=True, ends=True), expected, atol=1e-4
  )


def test_upsample_by_kron():
  x = np.arange(6.0).reshape(1, 2, 3, 1)
  np.testing.assert_array_equal(
    layers.upsample(jnp.array(x))[0, ..., 0], np.kron(x[0, ..., 0], np.ones((2, 2)))
  )


@pytest.mark.parametrize("split_first", [False, True])
def test_attention_is_the_formula(split_first):
  net = unet.Attention(head=4, split_first=split_first)
  x = jax.random.normal(KEY, (2, 2, 3, 8))
  params = noisy(shapes(net, x), 0.5)
  p = params["params"]
  h = np.asarray(layers.GroupNorm().apply({"params": p["norm"]}, x), np.float64).reshape(2, 6, 8)
  qkv = h @ np.asarray(p["qkv"]["kernel"]) + np.asarray(p["qkv"]["bias"])
  if split_first:  # q, k, v, then heads
    q, k, v = np.moveaxis(qkv.reshape(2, 6, 3, 2, 4), 2, 0)
  else:  # heads, then q, k, v
    q, k, v = np.split(qkv.reshape(2, 6, 2, 12), 3, -1)
  logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(4)
  e = np.exp(logits - logits.max(-1, keepdims=True))
  y = np.einsum("bhqk,bkhd->bqhd", e / e.sum(-1, keepdims=True), v)
  y = y.reshape(2, 6, 8) @ np.asarray(p["proj"]["kernel"]) + np.asarray(p["proj"]["bias"])
  np.testing.assert_allclose(net.apply(params, x), np.asarray(x) + y.reshape(x.shape), atol=1e-4)


@pytest.mark.parametrize(
  "layer, shape", [(nn.Dense(5), (4, 7)), (nn.Conv(6, (3, 3)), (2, 5, 5, 3))]
)
def test_spectral_norm_by_singular_values(layer, shape):
  net = spectral.spectral(layer)
  x = jax.random.normal(KEY, shape)
  variables = net.init(KEY, x)
  kernel = [v for v in jax.tree.leaves(variables["params"]) if v.ndim > 1][0]
  update = jax.jit(
    lambda stats: net.apply(
      {"params": variables["params"], "spectral": stats}, x, mutable=["spectral"]
    )[1]["spectral"]
  )
  stats = variables["spectral"]
  for _ in range(50):
    stats = update(stats)
  state = {"params": variables["params"], "spectral": stats}
  # The layer is affine, and where nothing may move so are its statistics: its
  # matrix is what unit inputs become. Largest singular value by LAPACK.
  if len(shape) == 2:
    out = lambda x: net.apply(state, x)
    effective = np.asarray(out(jnp.eye(7)) - out(jnp.zeros((1, 7))))
  else:
    centre = jnp.eye(27).reshape(27, 3, 3, 3)
    out = lambda x: net.apply(state, x)[:, 1, 1]
    effective = np.asarray(out(centre) - out(0 * centre))
  s = np.linalg.svd(np.asarray(effective), compute_uv=False)
  assert s[0] == pytest.approx(1, abs=1e-3) and s[1] < 0.999
  before = np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)
  np.testing.assert_allclose(s, before / before[0], rtol=2e-3)
  # Reading does not move the iteration.
  a, b = net.apply(state, x), net.apply(state, x)
  np.testing.assert_array_equal(a, b)


def test_batch_norm_in_training_and_in_use():
  net, x = convs.BatchNorm(), 3 + 2 * jax.random.normal(KEY, (8, 4, 4, 2))
  variables = net.init(KEY, x)
  y, moved = net.apply(variables, x, mutable=["batch_stats"])
  mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-4)
  stats = jax.tree.leaves(moved)
  np.testing.assert_allclose(stats[0], 0.05 * mean, rtol=1e-4)
  np.testing.assert_allclose(stats[1], 0.95 + 0.05 * var, rtol=1e-4)
  used = net.apply(variables | moved, x)
  np.testing.assert_allclose(used, (x - stats[0]) / np.sqrt(stats[1] + 1e-5), atol=1e-4)


BATCH_NORM = """
import sys, jax, numpy as np
from jaxgen import sharding
from jaxgen.nets.convs import BatchNorm
mesh = sharding.make_mesh()
assert mesh.size == 4
x = np.load(sys.argv[1])
variables = BatchNorm().init(jax.random.key(0), x)
run = jax.jit(lambda x: BatchNorm().apply(
    variables, x, mutable=["batch_stats"])[0])
np.save(sys.argv[1], run(sharding.shard_batch({"x": x}, mesh)["x"]))
"""


def test_batch_norm_is_global_on_four_devices(tmp_path):
  # Every device's share has another mean: local norms would make all alike.
  x = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)
  x += np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
  path = tmp_path / "x.npy"
  np.save(path, x)
  subprocess.run(
    [sys.executable, "-c", BATCH_NORM, str(path)],
    check=True,
    timeout=200,
    env=os.environ | {"XLA_FLAGS": xla.devices(4)},
  )
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(np.load(path), (x - mean) / np.sqrt(var + 1e-5), atol=1e-4)


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_convolutional_nets_fit_every_size(size):
  x, y = jnp.zeros((2, size, size, 3)), jnp.zeros(2, jnp.int32)
  gen = convs.Generator(size=size, width=8, classes=5)
  out, _ = jax.eval_shape(gen.init_with_output, KEY, jnp.zeros((2, 7)), y)
  assert out.shape == x.shape
  for norm in (spectral.spectral, spectral.plain):
    disc = convs.Discriminator(width=8, classes=5, norm=norm)
    assert jax.eval_shape(disc.init_with_output, KEY, x, y)[0].shape == (2,)
  codec = convs.Codec(size=size, width=8, z_dim=6, classes=5)
  out, _ = jax.eval_shape(codec.init_with_output, KEY, x, y)
  assert out.shape == x.shape


def test_the_projection_is_linear_in_the_label():
  # Miyato & Koyama 2018, Eq. 5: logit(x, y) - logit(x, y') = (v_y - v_y') h(x)
  disc = convs.Discriminator(width=4, classes=3)
  x = jax.random.normal(KEY, (2, 8, 8, 1))
  of = lambda p, y: disc.apply(p, x, jnp.full(2, y))
  params = noisy(shapes(disc, x, jnp.zeros(2, jnp.int32)), 0.3)
  gap = of(params, 0) - of(params, 1)
  assert np.abs(gap).min() > 1e-4
  rows = params["params"]["Embed_0"]["embedding"]
  swapped = params["params"] | {"Embed_0": {"embedding": rows[::-1]}}
  np.testing.assert_allclose(
    of({"params": swapped}, 2) - of({"params": swapped}, 1), gap, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("classes", [0, 3])
def test_point_nets(classes):
  x, y = jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32)
  label = dict(y=y) if classes else {}
  kw = dict(width=8, depth=1, classes=classes)
  out = lambda net, *args: jax.eval_shape(
    functools.partial(net.init_with_output, **label), KEY, *args
  )[0]
  assert out(mlp.Generator(**kw), jnp.zeros((4, 5))).shape == (4, 2)
  assert out(mlp.Discriminator(**kw), x).shape == (4,)
  codec = mlp.Codec(z_dim=3, **kw)
  assert out(codec, x).shape == (4, 2)
  q, _ = jax.eval_shape(functools.partial(codec.init_with_output, method="encode", **label), KEY, x)
  assert [a.shape for a in q] == [(4, 3), (4, 3)]
  F, _ = jax.jit(lambda x: mlp.Denoiser(**kw).init_with_output(KEY, x, jnp.ones(4), **label))(x + 1)
  np.testing.assert_array_equal(F, 0 * x)


def hand_count_of_the_digits_unet(w):
  """Width w, mults (1, 2), 1 block, attention at 4 and in the middle."""
  conv = lambda i, o: 9 * i * o + o
  dense = lambda i, o: i * o + o
  norm = lambda c: 2 * c
  block = lambda i, o: (
    norm(i)
    + conv(i, o)
    + dense(4 * w, 2 * o)
    + norm(o)
    + conv(o, o)
    + (dense(i, o) if i != o else 0)
  )
  attention = lambda c: norm(c) + dense(c, 3 * c) + dense(c, c)
  v = 2 * w
  total = dense(w, 4 * w) + dense(4 * w, 4 * w)
  total += 11 * 4 * w  # ten labels and none
  total += conv(1, w)  # skip of w
  total += block(w, w)  # skip of w
  total += conv(w, w)  # skip of w, at 4 x 4
  total += block(w, v) + attention(v)  # skip of v
  total += block(v, v) + attention(v) + block(v, v)
  total += block(v + v, v) + attention(v)
  total += block(v + w, v) + attention(v) + conv(v, v)
  total += block(v + w, w) + block(w + w, w)
  return total + norm(w) + conv(w, 1)


@pytest.mark.parametrize(
  "name, groups",
  [
    ("digits_diffusion", None),
    ("digits_gan", {"gen": 128_225, "disc": 160_673}),
    ("digits_vae", {"net": 371_681}),
  ],
)
def test_parameter_counts(name, groups):
  c = config.load(f"configs/{name}.py")
  model = build(c.model)
  if groups is None:
    groups = {"net": hand_count_of_the_digits_unet(c.model.net.width)}
  batch = {"x": jnp.zeros((2, 8, 8, 1)), "y": jnp.zeros(2, jnp.int32)}
  params, _ = jax.eval_shape(model.init, batch, KEY)
  assert {g: count(p) for g, p in params.items()} == groups
