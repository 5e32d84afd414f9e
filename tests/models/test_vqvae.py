"""VQ-VAE-2 against the published code; codebooks by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import core
from jaxgen.interop import autoencoder_names, names
from jaxgen.keys import example_keys
from jaxgen.models import codebook
from jaxgen.models.vqvae import LEVELS, VQVAE2
from jaxgen.nets.vqvae2 import TwoLevels

KEY = jax.random.key(0)
MODEL = VQVAE2(TwoLevels(width=16, blocks=2, hidden=8, dim=6), codes=24)


def nhwc(x):
  return jnp.asarray(np.moveaxis(x, 1, -1))


@pytest.fixture(scope="module")
def case():
  """-> arrays, table of names, state, what two steps answer."""
  arrays = dict(np.load(GOLDEN / "vqvae2.npz"))
  manifest = json.loads(str(arrays["manifest"]))
  tensors = {}
  for name, z, is_buffer in draws(manifest["seed"], manifest["state_dict"]):
    if is_buffer:
      level, part = name.removeprefix("quantize_").split(".")
      tensors[name] = arrays[f"start_{level}_{part}"]
    else:
      tensors[name] = 1.4 * scaled(z) if z.ndim > 1 else np.float32(0.1) * z
  params, stats = jax.eval_shape(MODEL.init, {"x": nhwc(arrays["x"])}, KEY)
  table = autoencoder_names.vqvae2_entries({"params": params["net"], **stats["net"]})
  tree = jax.tree.map(jnp.asarray, names.fill(table, tensors))
  state = core.State(
    jnp.int32(0), {"net": tree["params"]}, {"net": {"codes": tree["codes"]}}, {}, {}, None
  )
  keys = example_keys(KEY, 2)

  def step(state, x):
    def objective(theta):
      return MODEL.loss(state.replace(params={"net": theta}), {"x": x}, keys)

    (loss, (stats, info)), grads = jax.value_and_grad(objective, has_aux=True)(state.params["net"])
    z = MODEL.encode(state, x)
    return loss, info, grads, z, MODEL.decode(state, z), state.replace(stats=stats)

  step, answers = jit(step), []
  for x in ("x", "x2"):
    *answer, state = step(state, nhwc(arrays[x]))
    answers.append((*answer, state.stats["net"]["codes"]))
  return arrays, table, answers


def test_codes_and_reconstructions(case):
  arrays, _, answers = case
  *_, z, x, _ = answers[0]
  for level in LEVELS:
    np.testing.assert_array_equal(z[level], arrays[f"id_{level[0]}"])
    assert z[level].dtype == jnp.int32
  near(x, nhwc(arrays["decoded_from_codes"]), 2e-4)
  near(answers[1][4], nhwc(arrays["step1_output"]), 2e-4)


def test_losses_gradients_and_codebooks_of_two_steps(case):
  arrays, table, answers = case
  for i, (loss, info, grads, _, _, books) in enumerate(answers):
    near(loss, arrays[f"step{i}_loss"], 2e-4)
    near(info["recon"], arrays[f"step{i}_reconstruction"], 2e-4)
    near(info["latent"], arrays[f"step{i}_latent"][0], 2e-4)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    near(norm, arrays[f"step{i}_grad_norm"], 2e-4)
    for level in LEVELS:
      for ours, theirs in autoencoder_names.BUFFERS.items():
        want = arrays[f"step{i}_{level[0]}_{theirs}"].T
        np.testing.assert_allclose(books[level][ours], want, rtol=2e-4, atol=1e-5)
  # What nobody chose in the first step is far away for good.
  assert np.abs(answers[0][-1]["bottom"]["codes"]).max() > 1e4
  grads = names.flat({"params": answers[0][2]})
  for name in ("enc_b.blocks.0", "quantize_conv_t", "upsample_t"):
    row = next(e for e in table if e.theirs == (f"{name}.weight",))
    near(names.to_theirs(row, np.asarray(grads[row.ours]))[0], arrays[f"grad_{name}.weight"], 2e-4)


def test_use_of_codes_is_counted():
  index = jnp.array([[0, 0], [2, 2]])
  n = codebook.occupancy(index, 4)
  np.testing.assert_array_equal(n, [2, 0, 2, 0])
  use = codebook.use(n)
  assert use["dead"] == 2
  np.testing.assert_allclose(use["perplexity"], 2, rtol=1e-6)


def test_codes_that_begin_with_a_count_stay_where_they_are():
  book = codebook.begin(KEY, 5, 3, count=1.0)
  z = book["codes"][:2] + 0.01
  new = codebook.follow(book, z, jnp.array([0, 1]), 0.99)
  np.testing.assert_allclose(new["codes"][2:], book["codes"][2:], rtol=1e-4)
  np.testing.assert_allclose(new["codes"][:2], book["codes"][:2] + 1e-4, rtol=1e-4, atol=1e-6)


def test_dead_codes_begin_again_at_latents():
  book = codebook.begin(KEY, 6, 3, count=1.0)
  book |= {"count": jnp.array([9.0, 0.5, 9, 9, 0, 9])}
  z = jax.random.normal(jax.random.key(1), (40, 3))
  new, revived = codebook.revive(book, z, KEY, 1.0)
  alive = np.array([0, 2, 3, 5])
  np.testing.assert_array_equal(new["codes"][alive], book["codes"][alive])
  for i in (1, 4):
    assert (np.asarray(new["codes"][i]) == np.asarray(z)).all(1).any()
    assert new["count"][i] == 1
    np.testing.assert_array_equal(new["total"][i], new["codes"][i])
  assert revived == 2
  # The next update finds it where it began.
  again = codebook.follow(new, new["codes"][1:2], jnp.array([1]), 0.99)
  np.testing.assert_allclose(again["codes"][1], new["codes"][1], rtol=1e-4)


def test_codes_are_drawn_as_often_as_they_are_used():
  weights = jnp.array([3.0, 0, 1, 0])
  index = codebook.prior(example_keys(KEY, 50), (20, 20), weights)
  assert index.shape == (50, 20, 20)
  share = np.bincount(np.ravel(index), minlength=4) / index.size
  assert share[1] == share[3] == 0
  assert abs(share[0] - 0.75) < 5 * np.sqrt(0.75 * 0.25 / index.size)


def test_the_code_has_the_gradient_of_its_latent():
  z, code = jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])
  loss = lambda z: jnp.sum(codebook.straight_through(z, code) ** 2)
  np.testing.assert_allclose(jax.grad(loss)(z), 2 * code)


def test_samples_are_as_large_as_the_batch_however_often_it_is_halved():
  model = VQVAE2(TwoLevels(channels=1, width=8, hidden=4, dim=6, halvings=1), codes=5)
  batch = {"x": jnp.zeros((3, 8, 12, 1))}

  def draw():
    params, stats = model.init(batch, KEY)
    state = core.State(jnp.int32(0), params, stats, {}, {}, None)
    return model.encode(state, batch["x"]), model.sample(state, batch, example_keys(KEY, 3))

  codes, x = jax.eval_shape(draw)
  assert codes["top"].shape == (3, 2, 3) and codes["bottom"].shape == (3, 4, 6)
  assert x.shape == (3, 8, 12, 1)
