"""Autoencoders of latent diffusion against the published code, and their game."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.interop import autoencoder_names, names
from jaxgen.keys import example_keys
from jaxgen.models import codebook, codec
from jaxgen.models.codec import KL, VQ, Autoencoder
from jaxgen.nets.autoencoder import KLNet, VQNet
from jaxgen.nets.lpips import LPIPS
from jaxgen.nets.patchgan import PatchGAN

KEY, B = jax.random.key(0), 2
SMALL = dict(width=64, blocks=1, size=32, z=4, dim=3)
MODELS = {
  "ldm_kl": Autoencoder(
    KLNet(mults=(1, 1, 2), **SMALL), KL(1e-6), PatchGAN(), LPIPS(), 0.5, logvar=0.3
  ),
  "ldm_vq": Autoencoder(
    VQNet(mults=(1, 2), attend=(16,), codes=40, **SMALL),
    VQ(1.0),
    PatchGAN(width=8),
    LPIPS(),
    0.75,
    start=5,
  ),
}


def nhwc(x):
  return jnp.asarray(np.moveaxis(x, 1, -1))


def tensors(manifest, part=""):
  """By the rule of golden/README.md and the manifest's note."""
  seed, entries = (manifest[f"{part}_{key}".lstrip("_")] for key in ("seed", "state_dict"))
  values = {}
  for name, z, is_buffer in draws(seed, entries):
    if is_buffer or "running" in name:
      continue
    if z.ndim >= 2:
      z = scaled(z) * np.float32({"perceptual": 2**0.5}.get(part, 1))
      z = abs(z) if name.startswith("lin") else z
    else:
      z = 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
    values[name] = z * np.float32(1.7) if name.startswith("quantize") else z
  return values


def perceptual(values):
  """Their slices of VGG are torchvision's `features`, by other names."""
  trunk = {f"features.{k.split('.', 2)[2]}": v for k, v in values.items() if k[:3] == "net"}
  return LPIPS().converted(trunk, values)


def value_and_grads(loss, group, state, batch, keys):
  """-> loss, metrics, gradients of a player's own group."""

  def objective(theta):
    value, (_, info) = loss(state.replace(params=state.params | {group: theta}), batch, keys)
    return value, info

  (value, info), grads = jax.value_and_grad(objective, has_aux=True)(state.params[group])
  return value, info, grads


@pytest.fixture(scope="module", params=MODELS)
def case(request):
  """A golden case: its model, a state with its weights, arrays, answers by step."""
  arrays = dict(np.load(GOLDEN / f"{request.param}.npz"))
  manifest = json.loads(str(arrays["manifest"]))
  model = MODELS[request.param]
  x = nhwc(arrays["x"])
  shapes = jax.eval_shape(model.init, {"x": x}, KEY)[0]
  table = autoencoder_names.ldm_entries({"params": shapes["net"]})
  params = {
    "net": names.fill(table, tensors(manifest))["params"],
    "disc": names.fill(
      autoencoder_names.disc_entries(shapes["disc"]), tensors(manifest, "discriminator")
    ),
    "perceptual": perceptual(tensors(manifest, "perceptual")),
  }
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
  state = core.State(jnp.int32(0), jax.tree.map(jnp.asarray, params), {}, {}, {}, None)
  keys = example_keys(KEY, 2)

  def answer(state):
    net = value_and_grads(model.net_loss, "net", state, {"x": x}, keys)
    if isinstance(model.latents, KL):
      disc = value_and_grads(model.disc_loss, "disc", state, {"x": x}, keys)
    else:  # its gradients are the same function's
      loss, (_, info) = model.disc_loss(state, {"x": x}, keys)
      disc = loss, info
    z = model.encode(state, x)
    said = model.of(state)(x, method="encode")
    looks = model.look(state, x, nhwc(arrays["reconstruction"]))
    return net, disc, said, z, model.decode(state, z), looks

  with pytest.MonkeyPatch.context() as patch:
    if seed := manifest.get("tape_seeds"):  # draws of the case in the place of ours
      z = np.random.Generator(np.random.PCG64([seed["z"], 0])).standard_normal(arrays["z"].shape)
      patch.setattr(codec, "normal", lambda key, shape: nhwc(np.float32(z)))
    run = jit(answer)
    at = {"before": model.start - 1, "after": model.start}
    answers = {when: run(state.replace(step=jnp.int32(i))) for when, i in at.items()}
  return model, state, arrays, answers


def test_latents_and_reconstructions(case):
  model, state, arrays, answers = case
  *_, said, z, x, looks = answers["before"]
  near(looks, arrays["lpips"].ravel(), 2e-4)
  if isinstance(model.latents, KL):
    near(said[0], nhwc(arrays["mean"]), 2e-4)
    near(jnp.exp(said[1] / 2), nhwc(arrays["std"]), 2e-4)
    near(z, nhwc(arrays["mean"]), 2e-4)
    near(x, nhwc(arrays["reconstruction_of_mode"]), 2e-4)
  else:
    near(z, nhwc(arrays["prequant"]), 2e-4)
    table = state.params["net"]["codebook"]
    index = codebook.nearest(z, table)
    np.testing.assert_array_equal(index, arrays["indices"])
    near(table[index], nhwc(arrays["quant"]))
    near(x, nhwc(arrays["reconstruction"]), 2e-4)


def test_losses_and_gradients_before_and_after_the_start(case):
  _, _, arrays, answers = case
  logs = {
    "disc_weight": "d_weight",
    "fool": "g_loss",
    "rec": "nll_loss",
    "kl": "kl_loss",
    "codes": "quant_loss",
    "perplexity": "perplexity",
  }
  for when, (net, disc, *_) in answers.items():
    want = {k.removeprefix(f"{when}_"): v for k, v in arrays.items() if k.startswith(when)}
    near(net[0], want["total_loss"], 2e-4)
    near(disc[0] + 1, want["disc_loss"] + 1, 2e-4)
    for ours, theirs in logs.items():
      if ours in net[1]:
        near(net[1][ours], want[theirs], 5e-4)
    near(net[1]["l1"] + net[1]["lpips@vgg"], want["rec_loss"], 2e-4)
    near(disc[1]["real"], want["logits_real"], 1e-3)
    near(disc[1]["fake"], want["logits_fake"], 1e-3)
    whole = sum(jnp.sum(g**2) for g in jax.tree.leaves(net[2]))
    near(jnp.sqrt(whole), want["grad_norm"], 1e-3)
  net, disc, *_ = answers["after"]
  torch = lambda kernel: kernel.transpose(3, 2, 0, 1)
  last = "grad_conv_out" if "grad_conv_out" in arrays else "grad_decoder.conv_out.weight"
  near(torch(net[2]["last"]["kernel"]), arrays[last], 1e-3)
  if "codebook" in net[2]:
    near(net[2]["codebook"], arrays["grad_quantize.embedding.weight"], 1e-3)
    near(net[2]["quant"]["kernel"].T, arrays["grad_quant_conv.weight"][..., 0, 0], 1e-3)
    assert net[1]["dead"] == 40 - arrays["after_cluster_usage"]
  else:
    theirs = arrays["grad_discriminator_first"]
    near(torch(disc[2]["conv_0"]["kernel"]), theirs, 1e-3)


def test_codecs_write_latents_and_read_them():
  """The protocol, for every codec of the house: shapes alone."""
  f32, i32 = jnp.float32, jnp.int32
  want = {
    "digits_vae": ((B, 16), f32),
    "ldm_kl": ((B, 4, 4, 4), f32),
    "ldm_vq": ((B, 4, 4, 4), f32),
    "vqvae2": {"bottom": ((B, 4, 4), i32), "top": ((B, 2, 2), i32)},
  }
  books = {"ldm_vq": {"codes": (64,)}, "vqvae2": {"bottom": (128,), "top": (128,)}}
  for name, latents in want.items():
    model = build(config.load(f"configs/{name}.py:debug").model)
    x, y, keys = jnp.zeros((B, 8, 8, 1)), jnp.zeros(B, i32), example_keys(KEY, B)

    def through(key, model=model, x=x, y=y):
      params, stats = model.init({"x": x, "y": y}, KEY)
      state = core.State(jnp.int32(0), params, stats, {}, {}, None)
      z = model.encode(state, x, key, y=y)
      occupancy = core.trait(model, "occupancy")
      return z, model.decode(state, z, y=y), occupancy(state, z) if occupancy else {}

    for key in (None, keys):
      z, x_hat, occupancy = jax.eval_shape(through, key)
      assert {k: s.shape for k, s in occupancy.items()} == books.get(name, {})
      assert jax.tree.map(lambda s: (s.shape, s.dtype), z) == latents, name
      assert x_hat.shape == x.shape and x_hat.dtype == f32


def test_a_judge_in_the_place_of_lpips():
  """A frozen group that the loss looks through, and no player moves: shapes alone."""
  model = build(config.load("configs/ldm_kl.py:digits-judge").model)
  batch = {"x": jnp.zeros((B, 8, 8, 1))}
  params, _ = jax.eval_shape(model.init, batch, KEY)
  assert params["perceptual"]["head"]["kernel"].shape == (64, 10)
  assert {p.moves for p in model.players} == {"net", "disc"}
  state = core.State(jnp.int32(0), params, {}, {}, {}, None)
  _, (_, info) = jax.eval_shape(model.net_loss, state, batch, example_keys(KEY, B))
  assert {"l1", "perceptual@judge", "rec"} <= set(info)


def test_small_images_are_refused_by_lpips():
  model = dataclasses.replace(MODELS["ldm_kl"], disc=None)
  params, _ = jax.eval_shape(model.init, {"x": jnp.zeros((B, 8, 8, 3))}, KEY)
  state = core.State(jnp.int32(0), params, {}, {}, {}, None)
  assert [p.name for p in model.players] == ["net"]
  with pytest.raises(ValueError, match="lpips@vgg looks at images of 16x16 or more"):
    jax.eval_shape(model.net_loss, state, {"x": jnp.zeros((B, 8, 8, 3))}, example_keys(KEY, B))
