"""EDM2: the reference's numbers, exact counts, magnitudes that are kept."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.convert.initial_state import seen_shape
from jaxgen.diffusion import guidance
from jaxgen.diffusion.denoiser import Outside
from jaxgen.diffusion.process import Noise
from jaxgen.experiment import Experiment
from jaxgen.interop import edm2_names, names
from jaxgen.keys import example_keys
from jaxgen.models import diffusion
from jaxgen.nets import edm2
from jaxgen.nets.layers import halve, upsample
from jaxgen.plan.programs import data_spec

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)


@functools.cache
def golden():
  case = dict(np.load(GOLDEN / "edm2.npz"))
  return case, json.loads(str(case.pop("manifest")))


def shapes(net, size, channels):
  y = jnp.zeros(1, jnp.int32) if net.labels else None
  return jax.eval_shape(net.init, KEY, jnp.zeros((1, size, size, channels)), jnp.zeros(1), y)


@functools.cache
def published(prefix=""):
  """-> the model of a config around the golden case's net, and its weights by the rule."""
  _, manifest = golden()
  a, weights = manifest[f"{prefix}arguments"], {}
  net = edm2.EDM2(
    width=a["model_channels"],
    mults=tuple(a["channel_mult"]),
    blocks=a["num_blocks"],
    attend=tuple(a["attn_resolutions"]),
    head=a["channels_per_head"],
    labels=a["label_dim"],
    dropout=a["dropout"],
    features=a["logvar_channels"],
  )
  for name, z, _ in draws(manifest[f"{prefix}seed"], manifest[f"{prefix}state_dict"]):
    weights[name] = scaled(z) if z.ndim > 1 else np.float32(0.1) * z
    for end, more in {} if prefix else manifest["added"].items():
      weights[name] += np.float32(more if name.endswith(end) else 0)
  size = a["img_resolution"]
  tree = names.fill(edm2_names.entries(shapes(net, size, a["img_channels"]), size), weights)
  model = build(config.load("configs/edm2.py:img512-xs").model.model)
  model = dataclasses.replace(model, net=net, classes=net.labels)
  params = tree.pop("params")
  return model, core.State(0, {"net": params}, {"net": tree}, {}, {}, None)


@functools.cache
def denoiser():
  """(x_t, sigma, y, weight) -> x_0, of the net and the one that guides it."""
  (good, state), (bad, other) = published(), published("guide_")

  def D(x_t, sigma, y, w):
    t = Noise(sigma, jnp.ones_like(sigma), sigma)
    D, worse = (functools.partial(m.D, s, {"y": y}) for m, s in ((good, state), (bad, other)))
    return guidance.autoguidance(D, worse, w)(x_t, t)

  return jit(D)


def last(x):
  """Channels first -> last."""
  return jnp.asarray(np.moveaxis(x, 1, -1))


def first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def test_layers_are_the_references():
  g, _ = golden()
  a, b = last(g["layer_a"]), last(g["layer_b"])
  near(first(edm2.normalise(a, (1, 2, 3))), g["layer_normalize_a"], 2e-6)
  near(first(edm2.normalise(a, -1)), g["layer_normalize_a_dim1"], 2e-6)
  near(first(edm2.mp_silu(a)), g["layer_mp_silu_a"], 2e-6)
  near(first(edm2.mp_sum(a, b[..., :4], 0.3)), g["layer_mp_sum_a_halves"], 2e-6)
  near(first(edm2.mp_cat(a, b)), g["layer_mp_cat_ab"], 2e-6)
  near(first(halve(a)), g["layer_down_11"], 2e-6)
  near(first(upsample(a)), g["layer_up_11"], 2e-6)
  kernel, x = jnp.asarray(g["layer_mpconv_weight"].transpose(2, 3, 1, 0)), last(g["layer_mpconv_x"])
  forced = edm2.normalise(kernel, (0, 1, 2))
  near(forced.transpose(3, 2, 0, 1), g["layer_mpconv_forced_weight"], 2e-6)
  of = lambda kernel: first(edm2.Layer(6, 3).apply({"params": {"kernel": kernel}}, x))
  near(of(kernel), g["layer_mpconv_eval"], 2e-6)
  near(of(forced), g["layer_mpconv_trained"], 2e-6)


def test_the_net_and_its_uncertainty_are_the_references():
  g, _ = golden()
  x, sigma = last(g["x"]), g["sigma"].reshape(-1, 1, 1, 1)
  near(first(denoiser()(sigma * x, sigma, g["y"], 1.0)), g["denoised"], 1e-5)
  model, state = published()
  u = model.net.apply(state.variables("net"), jnp.log(g["sigma"]) / 4, method="uncertainty")
  near(u, g["logvar"], 1e-5)


def test_the_loss_is_the_references(monkeypatch):
  g, manifest = golden()
  model, state = published()
  mean, std = manifest["P_mean_std"]
  assert (model.draw_t.keywords["mean"], model.draw_t.keywords["std"]) == (mean, std)
  sigma = jnp.exp(mean + std * jnp.asarray(g["loss_normal_sigma"]))
  monkeypatch.setattr(diffusion, "normal", lambda key, shape: last(g["loss_noise"]))
  model = dataclasses.replace(model, draw_t=lambda key, ndim: sigma)
  # Without dropout, as theirs.
  model = dataclasses.replace(model, net=model.net.clone(dropout=0.0))
  batch = {"x": last(g["image"]), "y": jnp.asarray(g["y"])}

  def loss(kernel):
    net = state.params["net"] | {"out_conv": {"kernel": kernel}}
    return model.loss(state.replace(params={"net": net}), batch, example_keys(KEY, 3))[0]

  total, grad = jit(jax.value_and_grad(loss))(state.params["net"]["out_conv"]["kernel"])
  near(total, g["loss"].mean(), 1e-5)
  # Ours is the mean over an image's numbers, where theirs is the sum.
  near(g["image"][0].size * grad.transpose(3, 2, 0, 1), g["grad_out_conv"], 2e-5)


@pytest.mark.parametrize("case, w", [("sampled", 1.0), ("sampled_guided_1_7", 1.7)])
def test_sampling_is_the_references(case, w):
  g, _ = golden()
  model, _ = published()
  path, n = model.path_points({"steps": 4})
  # A batch of three, for the program that is there; of which two were drawn.
  x_T = jnp.concatenate([last(g["sample_init"]), last(g["sample_init"])[:1]]) * path.sigma[0]
  y = np.concatenate([g["y"][:2], g["y"][:1]])
  level = lambda t: jnp.full((3, 1, 1, 1), t.sigma)
  D = Outside(lambda x_t, t: denoiser()(x_t, level(t), y, w))
  x = model.sampler(D, x_T, path, n, example_keys(KEY, 3))
  print(np.abs(first(x)[:2] - g[case]).max() / np.abs(g[case]).max())
  near(first(x)[:2], g[case], 2e-4)
