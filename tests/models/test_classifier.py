"""The noisy classifier: it learns p(y | x_t), and has its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import core
from jaxgen.config import build
from jaxgen.diffusion import precond, process, times
from jaxgen.keys import example_keys, fold, normal
from jaxgen.models.classifier import Classifier

SEED = jax.random.key(3)
M = 0.6  # classes 0 and 1 are the points -M and M


class Bayes(nn.Module):
  """p(y | x_t) of two points in closed form, from EDM's inputs."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    self.param("w", nn.initializers.zeros, ())
    sigma = jnp.exp(4 * c_noise)[:, None]
    x_t = x * jnp.sqrt(sigma**2 + 0.25)  # undoes c_in for sigma_data = 0.5
    return -((x_t - jnp.array([-M, M])) ** 2) / (2 * sigma**2)


class Small(nn.Module):
  """Something that can learn it."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    h = jnp.concatenate([x, jnp.sin(c_noise[:, None] * jnp.arange(1, 4))], -1)
    for _ in range(2):
      h = nn.silu(nn.Dense(32)(h))
    return nn.Dense(2)(h)


def edm(net):
  return Classifier(
    net,
    process=process.EDM(),
    precond=precond.edm,
    draw_t=lambda key, ndim: times.lognormal(key, ndim, -0.5),
  )


def state_of(model, x):
  params, stats = model.init({"x": x}, SEED)
  return core.State(0, params, stats, {}, {}, None)


def truth(x_t, sigma, y):
  """d log p(y | x_t) / d x_t of the two points, by hand."""
  sign = 2.0 * y - 1
  return 2 * M * sign / sigma**2 / (1 + np.exp(2 * M * sign * x_t / sigma**2))


def test_the_gradient_is_that_of_log_p_at_x_t():
  x_t = np.linspace(-2, 2, 16, dtype=np.float32)[:, None]
  y = np.arange(16) % 2
  model = edm(Bayes())
  state = state_of(model, x_t)
  for sigma in (0.3, 1.0, 7.0):
    t = model.process(jnp.float32(sigma))
    got = jax.jit(model.gradient(state, jnp.array(y)))(x_t, t)
    assert got.shape == x_t.shape and got.dtype == jnp.float32
    np.testing.assert_allclose(got, truth(x_t, sigma, y[:, None]), rtol=1e-3, atol=1e-4)
  # Who has no label is pushed nowhere, whoever stands beside.
  some = jnp.where(jnp.arange(16) < 5, -1, y)
  pushed = model.gradient(state, some)(x_t, t)
  np.testing.assert_array_equal(pushed[:5], 0)
  np.testing.assert_array_equal(pushed[5:], got[5:])


def test_it_learns_p_of_y_given_x_t():
  model = edm(Small())
  n = 256
  y = np.arange(n) % 2
  batch = {"x": np.float32(M * (2 * y - 1))[:, None], "y": y}
  tx = {"net": optax.adam(3e-3)}
  state = core.make_init(model, tx, ())(batch, SEED)
  step = jax.jit(core.make_step(model, tx, {}), static_argnums=0)
  seen = []
  for i in range(400):
    state, metrics = step(core.turn(model, i), state, batch, SEED)
    seen.append(metrics)
  last = {
    k: np.mean([m[f"net/{k}"] for m in seen[-50:]])
    for k in ("loss", "accuracy", "accuracy_low_noise", "accuracy_high_noise")
  }
  assert last["accuracy_low_noise"] > 0.98
  assert 0.5 < last["accuracy_high_noise"] < last["accuracy"] < 0.98
  # As good as anybody can be: Bayes' own loss on many more draws.
  best = edm(Bayes())
  many = {k: np.tile(v, (40,) + (1,) * (v.ndim - 1)) for k, v in batch.items()}
  bound, _ = best.loss(state_of(best, batch["x"]), many, example_keys(SEED, len(many["x"])))
  assert bound - 0.02 < last["loss"] < bound + 0.03
  # And so it pushes where it should, and about as much.
  x_t = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
  for sigma in (0.6, 1.0):
    got = model.gradient(state, jnp.ones(9, int))(x_t, model.process(jnp.float32(sigma)))
    best = truth(x_t, sigma, 1)
    assert np.corrcoef(np.ravel(got), best.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(got.mean(), best.mean(), rtol=0.3)


UNET = dict(
  name="models.classifier.Classifier",
  net=dict(
    name="nets.unet.Classifier", width=8, mults=(1, 2), blocks=1, attend=(4,), head=8, classes=3
  ),
  process=dict(name="diffusion.process.Linear"),
  precond=dict(name="diffusion.precond.eps"),
  draw_t=dict(name="diffusion.times.grid"),
  smoothing=0.1,
)


@pytest.fixture(scope="module")
def unet():
  """ADM's, but small; on bytes, as the step sees them."""
  model = build(UNET)
  batch = {
    "x": np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), "u1"),
    "y": np.arange(8, dtype=np.int32) % 3,
  }
  x = core.on_device(batch)
  state = jax.jit(lambda: state_of(model, x["x"]))()
  return model, x, state


def test_adms_classifier_sees_noise_at_its_own_times(unet):
  model, batch, state = unet
  keys = example_keys(SEED, 8)
  loss, (stats, metrics) = jax.jit(lambda b, k: model.loss(state, b, k))(batch, keys)
  assert stats == state.stats and set(metrics) == {
    "accuracy",
    "accuracy_low_noise",
    "accuracy_high_noise",
  }
  # By hand: t uniform on the grid, index t - 1 in, cross-entropy out.
  t = np.asarray(times.grid(fold(keys, 0), 4)).ravel()
  abar = np.cumprod(1 - model.process.betas)[np.round(t * 1000).astype(int) - 1]
  alpha, sigma = (np.sqrt(a)[:, None, None, None] for a in (abar, 1 - abar))
  eps = normal(fold(keys, 1), (8, 8, 3))
  logits = jax.jit(model.net.apply)(
    state.variables("net"),
    np.float32(alpha * batch["x"] + sigma * eps),
    np.float32(np.round(t * 1000) - 1),
  )
  target = 0.9 * np.eye(3)[batch["y"]] + 0.1 / 3
  by_hand = -np.mean(np.sum(target * np.asarray(jax.nn.log_softmax(logits)), 1))
  np.testing.assert_allclose(loss, by_hand, rtol=1e-4)


def test_it_judges_clean_images_at_the_cleanest_time(unet):
  model, batch, state = unet
  first = np.sqrt(1 - model.process.betas[0])
  expected = jax.jit(model.net.apply)(
    state.variables("net"), np.float32(first * batch["x"]), np.zeros(8, "f4")
  )
  np.testing.assert_allclose(jax.jit(model.logits)(state, batch), expected, rtol=1e-4, atol=1e-5)


def test_a_clean_classifier_is_what_it_was():
  model = build(
    dict(
      name="models.classifier.Classifier",
      net=dict(name="nets.convs.Classifier", width=4, features=8, classes=3),
    )
  )
  x, y = jnp.zeros((4, 8, 8, 1)), jnp.arange(4) % 3
  look = lambda state: (
    model.loss(state, {"x": x, "y": y}, example_keys(SEED, 4)),
    model.embed(state, {"x": x}),
    model.logits(state, {"x": x}),
  )
  (_, (_, metrics)), features, logits = jax.eval_shape(
    look, jax.eval_shape(lambda: state_of(model, x))
  )
  assert set(metrics) == {"accuracy"}
  assert features.shape == (4, 8) and logits.shape == (4, 3)
