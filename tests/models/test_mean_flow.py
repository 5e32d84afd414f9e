"""MeanFlow: published numbers, and average velocities that are known."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, near, scaled

from jaxgen import core
from jaxgen.keys import example_keys
from jaxgen.models.mean_flow import Draw, ImprovedMeanFlow, MeanFlow, squared
from jaxgen.nets import imf_dit, two_times

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
SIZE = dict(width=32, heads=4, labels=11)
NETS = {
  "meanflow": two_times.DiT(depth=2, **SIZE),
  "imeanflow": imf_dit.ImfDiT(depth=3, own=1, tokens=(2, 2, 1, 1, 2), **SIZE),
}
# Theirs -> ours, by parts of a path.
NAMES = {
  "cfg_t_start_embedder/mlp/layers": "t_min",
  "cfg_t_end_embedder/mlp/layers": "t_max",
  "x_embedder/proj": "patch_embed",
  "y_embedder/embedding_table": "label",
  "t_embedder/mlp/layers": "time",
  "final_layer/adaLN_modulation/layers_1": "ada",
  "adaLN_modulation/layers_1": "ada",
  "u_final_layer/linear": "u_head",
  "v_final_layer/linear": "v_head",
  "u_final_layer/norm/kernel": "u_norm/scale",
  "v_final_layer/norm/kernel": "v_norm/scale",
  "final_layer/linear": "head",
  "omega_embedder/mlp/layers": "omega",
  "class_tokens": "label_tokens",
  "time_tokens": "h_tokens",
  "attn/k_norm/kernel": "attn/norm_k/scale",
  "attn/q_norm/kernel": "attn/norm_q/scale",
  "norm1/kernel": "norm_1/scale",
  "norm2/kernel": "norm_2/scale",
  "attn/out_proj": "attn/proj",
  "attn_scale": "gate_1",
  "mlp_scale": "gate_2",
  "mlp/w": "fc_",
  "_flax_linear/": "",
  "_flax_embedding/": "",
}
STACKS = {"blocks/layers": "blocks", "shared_blocks": "blocks"}
STACKS |= {"u_heads": "u_blocks", "v_heads": "v_blocks"}


def ours(case, path):
  """Their path -> ours, and which of stacked blocks it is."""
  names = NAMES | {"h_embedder/mlp/layers": "span" if case == "meanflow" else "h"}
  path, index = path.removeprefix("net/"), None
  for theirs, name in STACKS.items():
    if path.startswith(theirs + "_"):
      number, _, rest = path.removeprefix(theirs + "_").partition("/")
      path, index = f"{name}/{rest}", int(number)
  for theirs, name in names.items():
    path = path.replace(theirs, name)
  for name in "qkv":
    path = path.replace(f"attn/{name}_proj", f"attn/{name}")
  return tuple(path.split("/")), index


def published(case):
  """A golden file, its manifest, and its weights as a state of ours."""
  golden = np.load(GOLDEN / f"{case}.npz")
  manifest = json.loads(str(golden["manifest"]))
  found = {}
  for i, (path, shape) in enumerate(manifest["params"]):
    rng = np.random.Generator(np.random.PCG64([manifest["seed"], i]))
    z = rng.standard_normal(shape).astype(np.float32)
    name, index = ours(case, path)
    found.setdefault(name, {})[index] = scaled(z) if z.ndim > 1 else np.float32(0.1) * z
  told = jnp.zeros((1, 4 if case == "imeanflow" else 2))
  args = jnp.zeros((1, 8, 8, 4)), told, jnp.zeros(1, jnp.int32)
  shapes = jax.eval_shape(NETS[case].init, KEY, *args)["params"]

  def value(path, leaf):
    parts = found.pop(tuple(p.key for p in path))
    array = parts[None] if None in parts else np.stack([parts[i] for i in range(len(parts))])
    assert array.shape == leaf.shape, path
    return jnp.asarray(array)

  params = jax.tree_util.tree_map_with_path(value, shapes)
  assert not found
  return golden, manifest, state_of(params)


def state_of(params):
  return core.State(0, {"net": params}, {"net": {}}, {}, {}, None)


def gradients(case, manifest, grads):
  """In the manifest's order."""
  for path in manifest["gradients_of"]:
    name, index = ours(case, path)
    leaf = grads
    for part in name:
      leaf = leaf[part]
    yield leaf if index is None else leaf[index]


def check_loss(case, model, draw):
  """The loss, its gradients, and what was differentiated to make it."""
  golden, manifest, state = published(case)
  batch = {"x": jnp.asarray(golden["x"]), "y": jnp.int32(golden["y"])}

  def loss(params):
    return model.loss_of(state_of(params), batch, draw)

  (loss, (_, info)), grads = jit(jax.value_and_grad(loss, has_aux=True))(state.params["net"])
  near(loss, golden["loss"], 1e-5)
  for i, ours in enumerate(gradients(case, manifest, grads)):
    near(ours, golden[f"grad_{i}"], 2e-4)
  return golden, state, info


def check_sample(case, model, **knobs):
  golden, _, state = published(case)
  start = jnp.asarray(golden["sample_init"])
  at = jnp.asarray(golden["sample_times"])
  model = model(NETS[case], classes=10, path=lambda process, i, n: at[jnp.minimum(i, n)])
  batch = {"x": jnp.zeros_like(start), "y": jnp.int32(golden["sample_y"]), "noise": start}
  of = lambda state: model.sample(state, batch, example_keys(KEY, 2), steps=2, **knobs)
  near(jit(of)(state), golden["sampled"], 2e-4)


def test_meanflow_is_the_published_code():
  case = "meanflow"
  golden = np.load(GOLDEN / f"{case}.npz")
  dropped = np.arange(8) < np.sum(golden["draw_12"] < 0.1)
  draw = Draw(*(jnp.asarray(golden[k]) for k in ("t", "r", "draw_2")), dropped.reshape(8, 1, 1, 1))
  model = MeanFlow(NETS[case], classes=10, omega=1.0, kappa=0.5)
  golden, state, info = check_loss(case, model, draw)
  near(info["velocity"], golden["monitor_v_loss"].mean() / golden["x"][0].size, 1e-4)
  y = jnp.where(dropped, 10, golden["y"])
  z = jnp.asarray(golden["z_t"])
  np.testing.assert_allclose((1 - draw.t) * golden["x"] + draw.t * draw.eps, z, atol=1e-6)
  v = draw.eps - golden["x"]
  guided = lambda state: model.guided(state, z, v, draw.t, jnp.int32(golden["y"]))
  tangent = jnp.where(draw.dropped, v, jit(guided)(state))
  near(tangent, golden["tangent"], 2e-4)
  ones, zeros = jnp.ones_like(draw.t), jnp.zeros_like(draw.t)

  def derivative(state):
    of = lambda z, t, r: model.u(state, z, model.columns(t, r), y)
    return jax.jvp(of, (z, draw.t, draw.r), (tangent, ones, zeros))

  u, du_dt = jit(derivative)(state)
  near(u, golden["u"], 2e-4)
  near(du_dt, golden["du_dt"], 2e-4)
  c = jnp.stack([golden["net_t"], golden["net_h"]], -1)
  args = jnp.asarray(golden["x"]), c, jnp.int32(golden["y"])
  near(jit(NETS[case].apply)(state.variables("net"), *args), golden["net_u"], 2e-4)


def test_improved_meanflow_is_the_published_code():
  case = "imeanflow"
  golden = np.load(GOLDEN / f"{case}.npz")
  dropped = np.arange(8) < np.sum(golden["draw_7"] < 0.1)
  arrays = {k: jnp.asarray(golden[k]) for k in golden.files if k != "manifest"}
  t, r, always = arrays["t"], arrays["r"], arrays["t"] == arrays["r"]
  draw = Draw(
    t=t,
    r=r,
    eps=arrays["draw_2"],
    dropped=dropped.reshape(8, 1, 1, 1),
    omega=jnp.exp(arrays["draw_5"] * jnp.log(8.0)),
    t_min=jnp.where(always, 0.0, arrays["draw_3"] / 2),
    t_max=jnp.where(always, 1.0, 0.5 + arrays["draw_4"] / 2),
  )
  model = ImprovedMeanFlow(NETS[case], classes=10)
  golden, state, info = check_loss(case, model, draw)
  near(info["mse"], golden["loss_u"], 2e-4)
  near(info["velocity"], golden["loss_v"], 2e-4)
  z, y = arrays["z_t"], jnp.int32(golden["y"])
  v = draw.eps - arrays["x"]
  _, along = jit(lambda state: model.velocities(state, z, v, draw, y))(state)
  near(along, golden["tangent"], 2e-4)
  y = jnp.where(dropped, 10, y)
  ones, zeros = jnp.ones_like(t), jnp.zeros_like(t)

  def derivative(state):
    guide = dict(omega=draw.omega, t_min=draw.t_min, t_max=draw.t_max)
    of = lambda z, t, r: model.uv(state, z, model.columns(t, r, **guide), y)
    return jax.jvp(of, (z, t, r), (along, ones, zeros), has_aux=True)

  u, du_dt, v = jit(derivative)(state)
  near(u, golden["u"], 2e-4)
  near(du_dt, golden["du_dt"], 2e-4)
  near(v, golden["v_head"], 2e-4)
  told = "net_h", "net_omega", "net_t_min", "net_t_max"
  h, omega, t_min, t_max = (arrays[k] for k in told)
  c = jnp.stack([h, 1 - 1 / omega, t_min, t_max], -1)
  F = jit(NETS[case].apply)(state.variables("net"), arrays["x"], c, jnp.int32(golden["y"]))
  near(F, np.concatenate([golden["net_u"], golden["net_v"]], -1), 2e-4)


def test_two_steps_are_the_published_codes():
  check_sample("meanflow", MeanFlow)
  check_sample("imeanflow", ImprovedMeanFlow, omega=3.0, t_min=0.2, t_max=0.8)


# Average velocities that are known. The flow of a density from t = 1 to 0.


class Known(nn.Module):
  """What is known, times a weight that is 1; of v the second output."""

  u: object
  v: object = None

  @nn.compact
  def __call__(self, z, c, y=None, key=None):
    w = self.param("w", nn.initializers.ones, ())
    u = w * self.u(z, c[:, :1], c[:, :1] - c[:, 1:2])
    return u if self.v is None else jnp.concatenate([u, w * self.v(z, c[:, :1])], -1)


MEAN, STD = 0.4, 0.6  # of the data


def gaussian_v(z, t):
  """E[eps - x | z_t], of x ~ N(MEAN, STD^2)."""
  var = (1 - t) ** 2 * STD**2 + t**2
  return -MEAN + (t - (1 - t) * STD**2) / var * (z - (1 - t) * MEAN)


def gaussian_u(z, t, r):
  """By the map of the flow, which scales deviations from the mean.

  Its limit at r = t is v.
  """
  std = lambda t: jnp.sqrt((1 - t) ** 2 * STD**2 + t**2)
  z_r = (1 - r) * MEAN + std(r) / std(t) * (z - (1 - t) * MEAN)
  gap = jnp.where(t > r, t - r, 1.0)
  return jnp.where(t > r, (z - z_r) / gap, gaussian_v(z, t))


PLACES = jnp.array([-0.8, 0.1, 0.7])
SHARES = jnp.array([0.3, 0.5, 0.2])


def mixture_v(z, t):
  """E[eps - x | z_t], of three Gaussians of deviation 0.2."""
  var = (1 - t) ** 2 * 0.2**2 + t**2
  weights = jax.nn.softmax(jnp.log(SHARES) - (z - (1 - t) * PLACES) ** 2 / (2 * var), -1)
  each = -PLACES + (t - (1 - t) * 0.2**2) / var * (z - (1 - t) * PLACES)
  return jnp.sum(weights * each, -1, keepdims=True)


def mixture_flow(z, t, r, steps=64):
  """z_t -> z_r by Runge and Kutta's steps of fourth order."""
  h = (r - t) / steps

  def step(z, i):
    s = t + i * h
    a = mixture_v(z, s)
    b = mixture_v(z + h / 2 * a, s + h / 2)
    c = mixture_v(z + h / 2 * b, s + h / 2)
    d = mixture_v(z + h * c, s + h)
    return z + h / 6 * (a + 2 * b + 2 * c + d), None

  return jax.lax.scan(step, z, jnp.arange(steps))[0]


def mixture_u(z, t, r):
  gap = jnp.where(t > r, t - r, 1.0)
  return jnp.where(t > r, (z - mixture_flow(z, t, r)) / gap, mixture_v(z, t))


EXACT = {"gaussian": (gaussian_u, gaussian_v), "mixture": (mixture_u, mixture_v)}


def drawn(n):
  k = jax.random.split(KEY, 3)
  times = jax.random.uniform(k[0], (2, n, 1))
  t, r = times.max(0), times.min(0)
  # Where r = t the weight has no slope: see `Known`.
  draw = Draw(t, jnp.where(jnp.arange(n)[:, None] % 4, r, t), None, jnp.zeros((n, 1), bool))
  return draw, jax.random.normal(k[1], (n, 1))


@pytest.mark.parametrize("name", EXACT)
def test_average_velocities_satisfy_the_identity(name):
  u, v = EXACT[name]
  draw, z = drawn(64)
  for model in (MeanFlow(Known(u)), ImprovedMeanFlow(Known(u, v), timed=True)):
    # The data's velocity is the exact one: x and eps on that line through z_t.
    along = v(z, draw.t)
    x, eps = z - draw.t * along, z + (1 - draw.t) * along

    def loss(w, model=model, x=x, eps=eps):
      return model.loss_of(state_of({"w": w}), {"x": x}, draw._replace(eps=eps))

    slope = jit(jax.value_and_grad(loss, has_aux=True))
    (_, (_, info)), grad = slope(jnp.float32(1))
    (_, (_, wrong)), steep = slope(jnp.float32(1.1))
    assert info["mse"] < 1e-6 < 1e-3 < wrong["mse"], name
    assert abs(grad) < 1e-2 * abs(steep), name


@pytest.mark.parametrize("name", EXACT)
def test_a_step_of_any_size_solves_the_equation(name):
  u, v = EXACT[name]
  model = MeanFlow(Known(u))
  z = jax.random.normal(KEY, (256, 1))
  batch = {"x": jnp.zeros((256, 1)), "noise": z}
  sample = jit(
    lambda n: model.sample(state_of({"w": jnp.ones(())}), batch, example_keys(KEY, 256), steps=n)
  )
  one = sample(jnp.float32(1))
  for n in (2, 4, 8):
    np.testing.assert_allclose(sample(jnp.float32(n)), one, atol=2e-4)
  assert sample._cache_size() == 1
  if name == "gaussian":
    np.testing.assert_allclose(one, MEAN + STD * z, atol=1e-5)
  # And one of the instantaneous velocity does not.
  euler = z - v(z, jnp.ones_like(z))
  assert np.abs(euler - one).max() > 0.1


def test_evaluations_are_steps():
  CALLS.clear()
  model = MeanFlow(Known(counted))
  state, keys = state_of({"w": jnp.ones(())}), example_keys(KEY, 2)
  sample = jit(lambda n: model.sample(state, {"x": jnp.zeros((2, 1))}, keys, steps=n))
  for n in (1, 2, 8, 0):
    CALLS.clear()
    jax.block_until_ready(sample(jnp.float32(n)))
    jax.effects_barrier()
    assert len(CALLS) == model.nfe(steps=n) == max(n, 1)


CALLS = []


def counted(z, t, r):
  jax.debug.callback(lambda: CALLS.append(1))
  return z


def test_what_is_drawn_is_what_is_said():
  n = 4096
  keys = example_keys(KEY, n)
  draw = ImprovedMeanFlow(None, instant=0.3, label_drop=0.2).draw(keys, (1,))
  always, dropped = np.asarray(draw.t == draw.r), np.asarray(draw.dropped)
  for share, p in ((always, 0.3), (dropped, 0.2), (always[dropped], 0.3)):
    assert abs(share.mean() - p) < 5 * np.sqrt(p * (1 - p) / share.size)
  assert (draw.r <= draw.t).all() and 0 < draw.r.min() and draw.t.max() < 1
  # logit t ~ N(-0.4, 1), the larger of two.
  logits = np.log(draw.t / (1 - draw.t))
  assert abs(logits.mean() - (-0.4 + 1 / np.sqrt(np.pi))) < 5 / np.sqrt(n)
  assert (draw.omega >= 1).all() and (draw.omega < 8).all()
  assert abs(np.log(draw.omega).mean() - np.log(8) / 2) < 5 * np.log(8) / np.sqrt(12 * n)
  assert (draw.t_min[always] == 0).all() and (draw.t_max[always] == 1).all()
  assert draw.t_min.max() <= 0.5 <= draw.t_max[~always].min()
  # Whatever else is drawn beside it.
  part = ImprovedMeanFlow(None, instant=0.3, label_drop=0.2).draw(keys[5:9], (1,))
  for a, b in zip(part, draw, strict=True):
    np.testing.assert_array_equal(a, b[5:9])


def test_samples_read_nothing_of_the_other_output():
  _, _, state = published("imeanflow")
  spoiled = {
    k: jax.tree.map(lambda a: jnp.nan * a, v) if k in ("v_blocks", "v_head", "v_norm") else v
    for k, v in state.params["net"].items()
  }
  model = ImprovedMeanFlow(NETS["imeanflow"], classes=10)
  batch = {"x": jnp.zeros((2, 8, 8, 4)), "y": jnp.arange(2)}
  sample = jit(lambda params: model.sample(state_of(params), batch, example_keys(KEY, 2)))
  np.testing.assert_array_equal(sample(spoiled), sample(state.params["net"]))


def test_without_a_label_it_wants_to_have_dropped_some():
  x = jnp.zeros((2, 1))
  with pytest.raises(ValueError, match="give it batch"):
    MeanFlow(None, classes=3, label_drop=0.0).labels({"x": x})
  np.testing.assert_array_equal(MeanFlow(None, classes=3).labels({"x": x}), [3, 3])
  assert squared(jnp.ones((2, 3, 4))).tolist() == [12, 12]
