"""Codecs' nets: published sizes to the parameter, shapes, what they refuse."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import config
from jaxgen.config import build
from jaxgen.interop import autoencoder_names
from jaxgen.nets.autoencoder import KLNet, VQNet
from jaxgen.nets.lpips import LPIPS
from jaxgen.nets.patchgan import BatchStatNorm, PatchGAN
from jaxgen.nets.vqvae2 import TwoLevels

KEY = jax.random.key(0)
IMAGES = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
# Encoder and decoder, without the 1 x 1 convolutions and codes between them.
HALVES = {
  "ldm_kl:f4": (22_351_238, 32_960_771),
  "ldm_kl:f8": (34_163_592, 49_490_179),
  "ldm_kl:f16": (28_265_760, 41_343_875),
  "ldm_kl:f32": (42_614_656, 61_244_803),
  "ldm_vq:f4": (22_337_411, 32_960_771),
  "ldm_vq:f4-noattn": (21_285_763, 31_909_123),
  "ldm_vq:f8": (27_397_764, 40_253_955),
  "ldm_vq:f8-n256": (27_397_764, 40_253_955),
  "ldm_vq:f16": (28_155_144, 41_307_011),
}


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def shapes_of(net, params, method):
  """What a method says of IMAGES."""
  return jax.eval_shape(functools.partial(net.apply, method=method), {"params": params}, IMAGES)


@pytest.mark.parametrize("name", HALVES)
def test_published_autoencoders_have_their_parameters(name):
  file, arg = name.split(":")
  c = config.load(f"configs/{file}.py:{arg}")
  model = build(c.model)
  params, _ = jax.eval_shape(model.init, {"x": IMAGES}, KEY)
  net = params["net"]
  assert (count(net["encoder"]), count(net["decoder"]) + count(net["last"])) == HALVES[name]
  text = (pathlib.Path(config.OURS) / f"{file}.py").read_text()
  row = next(line for line in text.splitlines() if line.startswith(f"| {arg} |"))
  assert f"| {count(net):,} | {c.steps:,} |" in row
  assert count(params["perceptual"]) == 14_716_160
  f = model.net.factor
  z = shapes_of(model.net, net, "encode")
  shape = jax.tree.leaves(z)[0].shape
  assert shape == (1, 256 // f, 256 // f, model.net.dim)
  assert " x ".join(map(str, shape[1:])) in row or "the same" in row
  assert "perceptual" not in config.load(f"configs/{file}.py:{arg}-pixels").model
  # Everything has a name of its own in both kinds of files.
  group = {"params": net}
  table = autoencoder_names.ldm_entries(group) + autoencoder_names.ldm_entries(group, "diffusers")
  names_of = lambda table: len({e.theirs for e in table})
  n = len(jax.tree.leaves(net))
  assert names_of(table[:n]) == names_of(table[n:]) == n == len(table) / 2


def test_diffusers_counts_the_way_up_from_below():
  net = KLNet(width=8, mults=(1, 2, 4, 4))
  params = jax.eval_shape(net.init, KEY, jnp.zeros((1, 8, 8, 3)))["params"]
  theirs = {
    e.ours.removeprefix("params/"): (e.theirs[0], e.layout)
    for e in autoencoder_names.ldm_entries({"params": params}, "diffusers")
  }
  for ours, name in {
    "decoder/up_3_2/conv_1/kernel": "decoder.up_blocks.0.resnets.2.conv1.weight",
    "decoder/up_1_0/skip/bias": "decoder.up_blocks.2.resnets.0.conv_shortcut.bias",
    "decoder/up_3_up/conv/kernel": "decoder.up_blocks.0.upsamplers.0.conv.weight",
    "encoder/down_0_down/conv/bias": "encoder.down_blocks.0.downsamplers.0.conv.bias",
    "encoder/mid_1/proj/kernel": "encoder.mid_block.attentions.0.to_out.0.weight",
    "encoder/norm_out/scale": "encoder.conv_norm_out.weight",
    "last/kernel": "decoder.conv_out.weight",
  }.items():
    assert theirs[ours][0] == name
  assert theirs["encoder/mid_1/proj/kernel"][1] == (32, 32)
  assert theirs["quant/kernel"][1] == (8, 8, 1, 1)


def test_other_published_nets_have_their_parameters():
  assert count(jax.eval_shape(PatchGAN().init, KEY, IMAGES)) == 2_765_633
  model = build(config.load("configs/vqvae2.py:ffhq").model)
  params, stats = jax.eval_shape(model.init, {"x": IMAGES}, KEY)
  assert count(params) == 1_388_867 and count(stats) == 132_096
  z = shapes_of(model.net, params["net"], "look")
  assert [a.shape for a in z] == [(1, 64, 64, 128), (1, 32, 32, 64)]


@pytest.mark.parametrize("net", [KLNet(mults=(1, 2), width=8), VQNet(mults=(1, 2), width=8)])
def test_sizes_that_halve_are_taken(net):
  x = jnp.zeros((2, 10, 6, 3))
  out, _ = jax.eval_shape(net.init_with_output, KEY, x)
  assert out.shape == x.shape and out.dtype == jnp.float32
  with pytest.raises(ValueError, match="9x6 cannot be halved 1 times: want multiples of 2"):
    jax.eval_shape(net.init, KEY, x[:, :9])


def test_attention_stays_at_its_level():
  """Nets for 16 pixels attend at the second level, whatever they are shown."""
  net = KLNet(width=8, mults=(1, 2), blocks=1, size=16, attend=(8,))
  for size in (16, 32):
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, size, size, 3)))["params"]
    assert "down_1_0_attn" in shapes["encoder"] and "up_1_1_attn" in shapes["decoder"]
    assert "down_0_0_attn" not in shapes["encoder"]
  assert net.heights(32) == (16, 8)


def test_small_images_are_refused_by_a_discriminator_of_patches():
  with pytest.raises(ValueError, match="16x16 .* 3 layers of stride 2: want 24 pixels"):
    jax.eval_shape(PatchGAN().init, KEY, jnp.zeros((1, 16, 16, 3)))
  logits, _ = jax.eval_shape(PatchGAN().init_with_output, KEY, jnp.zeros((1, 24, 32, 3)))
  assert logits.shape == (1, 1, 2)


def test_two_levels_refuse_what_does_not_halve_three_times():
  with pytest.raises(ValueError, match="12x8 .* multiples of 8"):
    jax.eval_shape(TwoLevels().init, KEY, jnp.zeros((1, 12, 8, 3)))
  with pytest.raises(ValueError, match="6x8 cannot be halved 2 times: want multiples of 4"):
    jax.eval_shape(TwoLevels(halvings=1).init, KEY, jnp.zeros((1, 6, 8, 3)))


@pytest.mark.parametrize("halvings", [1, 3])
def test_levels_are_as_large_as_halvings_say(halvings):
  net, latents = TwoLevels(width=8, hidden=4, dim=6, halvings=halvings), {}
  remember = lambda level, z: latents.setdefault(level, z)

  def shapes(x):
    params = net.init(KEY, x)
    codes = net.apply(params, x, remember, method="encode")
    return codes, net.apply(params, *codes, method="decode")

  (top, bottom), x_hat = jax.eval_shape(shapes, jnp.zeros((2, 16, 32, 3)))
  assert bottom.shape == (2, 16 >> halvings, 32 >> halvings, 6)
  assert top.shape == (2, 8 >> halvings, 16 >> halvings, 6)
  assert x_hat.shape == (2, 16, 32, 3) and set(latents) == {"top", "bottom"}


def test_batch_norm_is_by_this_batch_alone():
  x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 2))
  params = {"scale": jnp.array([1.0, 2]), "bias": jnp.array([0.0, -1])}
  y = BatchStatNorm().apply({"params": params}, jnp.float32(x))
  want = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * [1, 2] + [0, -1]
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
  assert set(jax.eval_shape(PatchGAN().init, KEY, IMAGES)) == {"params"}


def test_lpips_takes_the_files_of_its_own_network():
  looks, alex = LPIPS(), LPIPS("alex")
  rng = np.random.default_rng(0)

  def files(net):
    trunk, channels = {}, 3
    for layer in net.trunk.layers:
      shape = layer.width, channels, layer.kernel, layer.kernel
      trunk[f"features.{layer.number}.weight"] = rng.normal(size=shape).astype(np.float32)
      trunk[f"features.{layer.number}.bias"] = np.zeros(layer.width, np.float32)
      channels = layer.width
    taps = enumerate(net.trunk.taps)
    return trunk, {f"lin{i}.model.1.weight": np.ones((1, t.width, 1, 1)) for i, t in taps}

  weights = alex.converted(*files(alex))
  assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, alex.init())
  with pytest.raises(ValueError, match="it is of alex, not vgg"):
    looks.converted(*files(alex))
  with pytest.raises(ValueError, match="want vgg or alex"):
    LPIPS("resnet").init()


def test_black_may_be_zero():
  # What the net sees and makes is then (x + 1) / 2, of the same weights.
  net = KLNet(width=8, mults=(1, 2), blocks=1, attend=(), middle=False, size=8, channels=1)
  x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1), minval=-1)
  params = net.init(jax.random.key(0), x)
  bright = net.clone(low=0.0)
  mean, _ = bright.apply(params, x, method="encode")
  np.testing.assert_allclose(mean, net.apply(params, (x + 1) / 2, method="encode")[0], atol=1e-5)
  want = 2 * net.apply(params, mean, method="decode") - 1
  np.testing.assert_allclose(bright.apply(params, x), want, atol=1e-5)
