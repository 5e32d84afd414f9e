"""PixelSNAIL against the published code; who sees whom, by brute force."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN, draws, near, scaled

from jaxgen.interop import names
from jaxgen.interop.pixelsnail_names import pixelsnail_entries
from jaxgen.models.autoregressive import draw, nats, walk
from jaxgen.nets.pixelsnail import NormedConv, PixelSNAIL

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
TOP = PixelSNAIL((6, 6), 12, 32, 5, 2, 2, 12, out_blocks=2)
BOTTOM = PixelSNAIL((12, 12), 12, 10, 5, 2, 2, 12, attention=False, cond_blocks=2, cond_width=12)
TINY = dict(shape=(3, 4), codes=5, width=16, side=3, blocks=2, res_blocks=1, hidden=6)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def shapes_of(net, labels=False):
  """Shapes of a net's parameters."""
  height, width = net.shape
  codes = lambda *shape: jax.ShapeDtypeStruct((1, *shape), jnp.int32)
  top = codes(height // 2, width // 2) if net.cond_blocks else None
  y = codes() if labels else None
  return jax.eval_shape(net.init, KEY, codes(height, width), top, y)["params"]


def randomised(net, labels=False):
  """Parameters of which none is zero."""
  rng = np.random.default_rng(0)
  fresh = lambda s: np.float32(rng.normal(size=s.shape) / np.sqrt(max(np.prod(s.shape[:-1]), 1)))
  params = jax.tree.map(fresh, shapes_of(net, labels))
  scale = lambda path, x: 1 + 0.3 * x if path[-1].key == "scale" else x
  return jax.tree_util.tree_map_with_path(scale, params)


@pytest.fixture(scope="module", params=["top", "bottom"])
def case(request):
  """-> level, arrays, net, its weights, table of names, its second input."""
  level, arrays = request.param, dict(np.load(GOLDEN / "pixelsnail.npz"))
  manifest, net = json.loads(str(arrays["manifest"])), TOP if request.param == "top" else BOTTOM
  prefix, tensors = "" if level == "top" else "bottom_", {}
  for name, z, is_buffer in draws(manifest[f"{prefix}seed"], manifest[f"{prefix}state_dict"]):
    x = scaled(z) if z.ndim > 1 else np.float32(0.1) * z
    if name.endswith("weight_g"):
      x = 1 + np.float32(0.3) * x
      x *= 3 if "attention.query" in name or "attention.key" in name else 1
    if not is_buffer:
      tensors[name] = x
  table = pixelsnail_entries(shapes_of(net))
  params = jax.tree.map(jnp.asarray, names.fill(table, tensors))
  return level, arrays, net, params, table


def test_logits_losses_and_gradients(case):
  level, arrays, net, params, table = case
  codes, top = (arrays["codes"], None) if level == "top" else (arrays["low"], arrays["codes"])

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params):
    logits = net.apply({"params": params}, jnp.int32(codes), top)
    return jnp.mean(nats(logits, codes)), logits

  (value, logits), grads = loss(params)
  near(jnp.moveaxis(logits, -1, 1), arrays[f"{level}_logits"], 2e-4)
  near(value, arrays[f"{level}_loss"], 2e-4)
  near(value / np.log(2), arrays[f"{level}_bits_per_code"], 2e-4)
  grads, prefix = names.flat(grads), f"{level}_grad_"
  wanted = [k for k in arrays if k.startswith(prefix) and not k.endswith("norm")]
  assert len(wanted) == (3 if level == "top" else 2)
  for name in wanted:
    row = next(e for e in table if e.theirs == (name.removeprefix(prefix),))
    near(names.to_theirs(row, np.asarray(grads[row.ours]))[0], arrays[name], 2e-4)


def test_a_walk_draws_the_published_codes_and_sees_what_a_whole_pass_sees(case):
  level, arrays, net, params, _ = case
  top, temperature = (None, 0.8) if level == "top" else (jnp.int32(arrays["sampled_top"]), 1.0)
  u, variables = jnp.asarray(arrays[f"uniform_{level}"]), {"params": params}

  def pick(logits, at, seen):
    code = draw(logits, u[:, at[0], at[1]], temperature, 0)
    return code, seen.at[:, at[0], at[1]].set(logits)

  seen = jnp.zeros((2, *net.shape, net.codes))
  codes, seen = jax.jit(lambda v: walk(net, v, 2, pick, seen, top=top))(variables)
  np.testing.assert_array_equal(codes, arrays[f"sampled_{level}"])
  near(seen, jax.jit(net.apply)(variables, codes, top), 1e-5)


@pytest.mark.parametrize("attention", [True, False])
def test_a_pixel_sees_those_before_it_alone(attention):
  net = PixelSNAIL(**TINY, attention=attention)
  rng = np.random.default_rng(1)
  codes = rng.integers(0, 5, (3, 4))
  batch = np.stack([codes] * 13)
  for t in range(12):  # each with another code at one pixel
    batch[t].flat[t] = (codes.flat[t] + 1) % 5
  logits = jax.jit(net.apply)({"params": randomised(net)}, jnp.int32(batch)).reshape(13, 12, 5)
  changed = np.abs(logits[:12] - logits[12]).max(-1)  # [of the code, at the pixel]
  assert changed[np.tril_indices(12)].max() < 1e-6
  seen = changed > 1e-4
  unseen = {(t, i) for t in range(12) for i in range(t + 1, 12) if not seen[t, i]}
  if attention:  # a row's last code is first seen below, one pixel to the left
    assert unseen == {(3, 4), (3, 5), (7, 8), (7, 9)}
  # The next one of its row, and those below it, by convolutions alone.
  for t in range(12):
    assert t % 4 == 3 or seen[t, t + 1]
    assert t >= 8 or seen[t, t + 4]


def test_labels_and_a_half_precision_walk():
  net = PixelSNAIL(**TINY | dict(blocks=1), labels=3, dtype=jnp.bfloat16, out_blocks=1)
  variables, y = {"params": randomised(net, True)}, jnp.array([0, 2])
  one = jnp.int32(np.random.default_rng(2).integers(0, 5, (1, 3, 4)))
  codes = jnp.concatenate([one, one])
  whole = jax.jit(net.apply)(variables, codes, None, y)
  assert whole.dtype == jnp.float32
  assert jnp.abs(whole[0] - whole[1]).max() > 0.1

  def pick(logits, at, seen):
    return codes[:, at[0], at[1]], seen.at[:, at[0], at[1]].set(logits)

  again, seen = jax.jit(lambda v: walk(net, v, 2, pick, jnp.zeros_like(whole), y=y))(variables)
  np.testing.assert_array_equal(again, codes)
  near(seen, whole, 0.03)


def test_published_sizes_have_their_parameters():
  assert count(shapes_of(PixelSNAIL())) == 84_873_280
  bottom = PixelSNAIL(shape=(64, 64), attention=False, cond_blocks=3)
  assert count(shapes_of(bottom)) == 89_762_816


def test_a_fresh_kernel_is_of_the_length_it_had():
  variables = jax.jit(NormedConv(4, 3).init)(KEY, jnp.zeros((1, 5, 5, 2)))
  layer = variables["params"]
  assert set(variables) == {"params"}
  norm = np.sqrt(np.sum(np.square(layer["kernel"]), (0, 1, 2)))
  np.testing.assert_allclose(layer["scale"], norm, rtol=1e-5)


def test_dropout_is_of_each_example_alone():
  net = PixelSNAIL(**TINY | dict(blocks=1), dropout=0.5)
  variables, codes = {"params": randomised(net)}, jnp.ones((2, 3, 4), jnp.int32)
  run, keys = jax.jit(lambda k: net.apply(variables, codes, key=k)), jax.random.split(KEY)
  both = run(keys)
  near(both[::-1], run(keys[::-1]), 1e-6)
  assert jnp.abs(both[0] - both[1]).max() > 0.01


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(side=4), "side=4: want an odd number"),
    (dict(width=24), "width=24: 8 heads .* multiple of 16"),
    (dict(shape=(4, 4)), r"codes are \[1, 3, 4\]: want \[B, 4, 4\]"),
    (dict(cond_blocks=1, shape=(3, 4)), r"level above are None: want \[B, 1, 2\]"),
  ],
)
def test_what_does_not_fit_is_refused(change, words):
  net = PixelSNAIL(**TINY | change)
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(net.init, KEY, jnp.zeros((1, 3, 4), jnp.int32))
