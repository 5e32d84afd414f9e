"""Nets that make images of images: published counts, and a reference's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import draws, near, scaled
from translators import disc_weights, gen_weights, nchw, nhwc, opened

from jaxgen.interop import names
from jaxgen.nets.patchgan import PatchGAN, PixelGAN
from jaxgen.nets.pix2pix_unet import TranslatorUNet
from jaxgen.nets.resnet_translator import TranslatorResNet
from jaxgen.nets.source_unet import SourceUNet
from jaxgen.nets.translator_layers import ImageNorm, ScaledDropout

KEY = jax.random.key(0)
TOLERANCE = 2e-4


def count(net, channels, **inputs):
  x = jax.ShapeDtypeStruct((1, 256, 256, channels), jnp.float32)
  params = jax.eval_shape(net.init, KEY, x, **inputs)["params"]
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
  ("net", "channels", "published"),
  [
    (TranslatorUNet(downs=8), 3, 54_413_955),
    (TranslatorUNet(downs=7), 3, 41_828_995),
    (TranslatorResNet(blocks=9), 3, 11_378_179),
    (TranslatorResNet(blocks=9, norm="batch"), 3, 11_383_427),
    (TranslatorResNet(blocks=6), 3, 7_837_699),
    (TranslatorResNet(blocks=6, norm="batch"), 3, 7_841_411),
    (PatchGAN(), 6, 2_768_705),
    (PatchGAN(norm="instance"), 3, 2_764_737),
    (PixelGAN(), 6, 9_024),
  ],
)
def test_published_counts(net, channels, published):
  assert count(net, channels) == published


def test_palettes_count():
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  net = SourceUNet(64, (1, 2, 4, 8), 2, (), head=32, updown=True)
  params = jax.eval_shape(net.init, KEY, x, jnp.zeros(1), source=x)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 62_641_347


def test_patches_are_of_70_pixels():
  """30 x 30 of them, of 256: and no further does a gradient go."""
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  assert jax.eval_shape(PatchGAN().init_with_output, KEY, x)[0].shape == (1, 30, 30)
  net, x = PatchGAN(width=1, norm="none"), jnp.ones((1, 128, 128, 1))
  shapes = jax.eval_shape(net.init, KEY, x)
  weights = jax.tree.map(lambda w: jnp.full(w.shape, 0.1), shapes)
  slope = jit(jax.grad(lambda x: net.apply(weights, x)[0, 7, 7]))(x)[0, :, :, 0]
  rows = np.flatnonzero(np.abs(slope).sum(1))
  assert rows[-1] - rows[0] + 1 == 70 == len(rows)


def test_the_references_unet_in_both_modes():
  d, m = opened("pix2pix")
  net, a = TranslatorUNet(4, 5, 3, "batch", 0.5), nhwc(d["A"])
  shapes = jax.eval_shape(net.init, KEY, a)
  weights = gen_weights(shapes, m["seed"], m["state_dict"], averages=True)
  translate = jit(net.apply)
  train = jit(lambda a: net.apply(weights, a, mutable=["batch_stats"]))
  near(nchw(translate(weights, a, own=jnp.float32(0))), d["output_eval"], TOLERANCE)
  trained, moved = train(a)
  near(nchw(trained), d["fake_trained"], TOLERANCE)
  first = moved["batch_stats"]["down_1_norm"]
  near(first["mean"], d["running_mean"], TOLERANCE)
  near(first["var"], d["running_var"], TOLERANCE)
  # A batch of one in training is that image by its own statistics.
  near(translate(weights, a, own=jnp.float32(1))[:1], train(a[:1])[0], TOLERANCE)


def test_the_references_resnet():
  d, m = opened("cyclegan")
  net, a = TranslatorResNet(4, 9), nhwc(d["real_A"])
  weights = gen_weights(jax.eval_shape(net.init, KEY, a), **m["nets"]["G_A"])
  near(nchw(jit(net.apply)(weights, a)), d["fake_B"], TOLERANCE)


def test_the_references_patches():
  d, m = opened("pix2pix")
  net = PatchGAN(4)
  for name, x in (("logits_real", "B"), ("logits_fake", "fake_trained")):
    pair = jnp.concatenate([nhwc(d["A"]), nhwc(d[x])], -1)
    params = jax.eval_shape(net.init, KEY, pair)["params"]
    weights = disc_weights(params, m["discriminator_seed"], m["discriminator_state_dict"])
    near(jit(net.apply)({"params": weights}, pair), d[name][:, 0], TOLERANCE)


def test_palettes_net_on_gamma():
  d, m = opened("palette")
  net = SourceUNet(32, (1, 2), 1, (8,), head=16, updown=True, dropout=0.2)
  x, source, gamma = nhwc(d["x"]), nhwc(d["y_cond"]), jnp.asarray(d["gamma"][:, 0])
  tree = jax.eval_shape(net.init, KEY, x, gamma, source=source)["params"]
  values = {}
  for name, z, _ in draws(m["seed"], m["state_dict"]):
    weight = scaled(z) if z.ndim > 1 else 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
    values[f"denoise_fn.{name}"] = weight
  weights = names.take(values, tree, "palette")
  y = jit(net.apply)({"params": weights}, x, gamma, source=source)
  near(nchw(y), d["net_out"], TOLERANCE)


def test_dropout_drops_its_share_by_each_examples_key():
  x, keys = jnp.ones((4, 50, 50, 2)), jax.random.split(KEY, 4)
  layer = ScaledDropout(0.5)
  drop = functools.partial(layer.apply, {}, x)
  y = drop(keys)
  assert abs(np.mean(y == 0) - 0.5) < 0.02 and set(np.unique(y)) == {0, 2}
  np.testing.assert_array_equal(layer.apply({}, x[:2], keys[2:]), y[2:])
  assert abs(np.mean(drop(keys, jnp.float32(0.5)) == 0) - 0.25) < 0.02
  np.testing.assert_array_equal(drop(keys, jnp.float32(0)), x)
  np.testing.assert_array_equal(drop(None), x)


def test_norms_blend_statistics():
  x = jax.random.normal(KEY, (2, 8, 8, 3)) * 3 + 1
  net = ImageNorm("batch")
  weights = jax.eval_shape(net.init, KEY, x)
  running = {"mean": jnp.full(3, 5.0), "var": jnp.full(3, 4.0)}
  params = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
  apply = jit(lambda own: net.apply({"params": params, "batch_stats": running}, x, own))
  np.testing.assert_allclose(apply(0.0), (x - 5) / 2, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(apply(1.0), ImageNorm("instance").apply({}, x), atol=1e-5)
  mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
  half = (x - (mean + 5) / 2) / np.sqrt((var + 4) / 2)
  np.testing.assert_allclose(apply(0.5), half, rtol=1e-4, atol=1e-5)
  assert "batch_stats" in weights and not ImageNorm("none").init(KEY, x)


@pytest.mark.parametrize(
  ("net", "size", "says"),
  [
    (TranslatorUNet(downs=5), 48, "48x48: want multiples of 32"),
    (TranslatorResNet(), 30, "multiples of 4"),
    (TranslatorUNet(downs=2, norm="layer"), 8, "want one of batch, instance, none"),
    (PatchGAN(norm="layer"), 32, "want one of batch, instance, none"),
    (TranslatorResNet(padding="wrap", downs=1), 8, "want one of reflect, replicate, zero"),
  ],
)
def test_what_cannot_be(net, size, says):
  with pytest.raises(ValueError, match=says):
    jax.eval_shape(net.init, KEY, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
