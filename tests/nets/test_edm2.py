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
  near(first(edm2.mp_cat(a, b, 0.4)), g["layer_mp_cat_ab"], 2e-6)
  near(first(halve(a)), g["layer_down_11"], 2e-6)
  near(first(upsample(a)), g["layer_up_11"], 2e-6)
  kernel, x = jnp.asarray(g["layer_mpconv_weight"].transpose(2, 3, 1, 0)), last(g["layer_mpconv_x"])
  forced = edm2.normalise(kernel, (0, 1, 2))
  near(forced.transpose(3, 2, 0, 1), g["layer_mpconv_forced_weight"], 2e-6)
  y = first(edm2.Layer(6, 3).apply({"params": {"kernel": forced}}, x, 0.7))
  near(y, g["layer_mpconv_trained"], 2e-6)
  near(y, g["layer_mpconv_eval"], 2e-6)


def test_the_net_and_its_uncertainty_are_the_references():
  g, _ = golden()
  x, sigma = last(g["x"]), g["sigma"].reshape(-1, 1, 1, 1)
  near(first(denoiser()(sigma * x, sigma, g["y"], 1.0)), g["denoised"], 1e-5)
  model, state = published()
  u = model.net.apply(state.variables("net"), jnp.log(g["sigma"]) / 4, method="uncertainty")
  near(u, g["logvar"], 1e-5)


def test_the_loss_is_the_references():
  g, manifest = golden()
  model, state = published()
  mean, std = manifest["P_mean_std"]
  assert (model.draw_t.keywords["mean"], model.draw_t.keywords["std"]) == (mean, std)
  sigma = jnp.exp(mean + std * jnp.asarray(g["loss_normal_sigma"]))
  noise = lambda key, shape: last(g["loss_noise"])
  model = dataclasses.replace(model, draw_t=lambda key, ndim: sigma, noise=noise)
  # Without dropout, as theirs.
  model = dataclasses.replace(model, net=model.net.clone(dropout=0.0))
  batch = {"x": last(g["image"]), "y": jnp.asarray(g["y"])}

  def loss(kernel):
    net = state.params["net"] | {"out_conv": {"kernel": kernel}}
    return model.loss(state.replace(params={"net": net}), batch, example_keys(KEY, 3))[0]

  total, grad = jit(jax.value_and_grad(loss))(state.params["net"]["out_conv"]["kernel"])
  near(total, g["loss"].mean(), 1e-5)

  near(grad.transpose(3, 2, 0, 1), g["grad_out_conv"], 2e-5)


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
  near(first(x)[:2], g[case], 2e-4)


# Of img512-*, see the config. Every array's axes are linear in the width, or fixed,
# so that a count is a polynomial of it.
COUNTS = {
  64: 31_309_029,
  128: 124_713_253,
  192: 280_212_837,
  256: 497_807_781,
  320: 777_498_085,
  384: 1_119_283_749,
  448: 1_523_164_773,
}
PIXELS = {192: 280_209_381, 256: 497_803_173, 320: 777_492_325, 384: 1_119_276_837}


def test_parameters_are_as_many_as_published():
  text = (pathlib.Path(config.OURS) / "edm2.py").read_text()
  full = config.load("configs/edm2.py:img512-xs")
  net, count = (
    build(full.model.model.net),
    lambda *a: sum(x.size for x in jax.tree.leaves(shapes(*a)["params"])),
  )
  widths = [64, 128, 192]
  counts = [count(net.clone(width=w), 64, 4) for w in widths]
  rule = np.polynomial.Polynomial.fit(widths, counts, 2)
  for size, row in {
    "xxs": 64,
    "xs": 128,
    "s": 192,
    "m": 256,
    "l": 320,
    "xl": 384,
    "xxl": 448,
  }.items():
    want = round(rule(row))
    assert want == COUNTS[row] and f"| img512-{size} | {want:,} |" in text
    if row in PIXELS:  # a channel less, of the first convolution and of the last
      assert want - 2 * 9 * row == PIXELS[row] and f"| img64-{size} | {PIXELS[row]:,} |" in text
  pixels = config.load("configs/edm2.py:img64-s-uncond")
  labels = 4 * 192 * 1000
  assert count(build(pixels.model.net), 64, 3) == PIXELS[192] - labels
  assert COUNTS[128] - 4 * 128 * 1000 == 124_201_253 and "124,201,253" in text
  experiment, data = Experiment.of(full), data_spec(full)
  assert (data.shape, seen_shape(experiment, data)) == ((512, 512, 3), (64, 64, 4))


WIDE = edm2.EDM2(width=32, mults=(1, 2), blocks=1, attend=(4,), head=16, labels=3, features=16)


@functools.cache
def wide():
  """A net as it begins, but with gains of 1, on N(0, 1), and what blocks make of it."""
  x, t, y = jax.random.normal(KEY, (16, 8, 8, 4)), jnp.linspace(-1, 0.5, 16), jnp.arange(16) % 3
  variables = jit(WIDE.init)(KEY, x, t, y)
  params = variables["params"]
  gains = lambda path, leaf, to: jnp.float32(to) if path[-1].key.endswith("gain") else leaf

  def blocks(params, gain):
    params = jax.tree_util.tree_map_with_path(functools.partial(gains, to=gain), params)
    F, seen = WIDE.apply(
      variables | {"params": params}, x, t, y, capture_intermediates=True, mutable="intermediates"
    )
    seen = names.flat(seen["intermediates"])
    return F, {k: jnp.std(v[0]) for k, v in seen.items() if k.count("/") == 1}

  return params, jit(blocks)


def test_magnitudes_are_kept_at_the_start():
  # Karras et al. 2024, Sec. 2.4: unit variance in, unit variance everywhere.
  params, blocks = wide()
  F, stds = blocks(params, 1.0)
  assert len(stds) > 12
  for name, std in ({"F": jnp.std(F)} | stds).items():
    assert 0.8 < std < 1.25, (name, std)
  assert not np.any(blocks(params, 0.0)[0])  # as it begins


def test_weights_are_directions():
  params, blocks = wide()
  longer = jax.tree.map(lambda w: 3 * w if w.ndim > 1 else w, params)
  near(blocks(longer, 1.0)[0], blocks(params, 1.0)[0], 1e-3)
  for w in jax.tree.leaves(params):
    if w.ndim > 1:
      np.testing.assert_allclose(np.mean(w**2, range(w.ndim - 1)), 1, atol=3e-3)


def test_what_does_not_fit_is_said():
  of = lambda size=8, **kw: shapes(dataclasses.replace(WIDE, **kw), size, 3)
  with pytest.raises(ValueError, match="6x6 cannot be halved 2 times"):
    of(6, mults=(1, 1, 1))
  with pytest.raises(ValueError, match="4x4 cannot be halved 1 times in patches of 4"):
    of(4, patch=4)
  with pytest.raises(ValueError, match="64 channels cannot be split into heads of 24"):
    of(head=24)
  with pytest.raises(ValueError, match="has labels: give it y"):
    jax.eval_shape(WIDE.init, KEY, jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
