"""Optimisers against their formulas, written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import GOLDEN

from jaxgen import optim
from jaxgen.errors import UserError


def adam_by_hand(theta, grads, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
  """Kingma & Ba 2015, Alg. 1; Loshchilov & Hutter 2019, Alg. 2, line 12."""
  m = v = 0.0
  for i, g in enumerate(grads):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    step = (m / (1 - b1 ** (i + 1))) / (np.sqrt(v / (1 - b2 ** (i + 1))) + eps)
    theta = theta - lr(i) * (step + decay * theta)
  return theta


def run(tx, theta, grads):
  theta = jnp.asarray(theta, jnp.float32)
  state = tx.init(theta)
  for g in grads:
    update, state = tx.update(jnp.asarray(g, jnp.float32), state, theta)
    theta = theta + update
  return np.asarray(theta)


GRADS = np.random.default_rng(0).normal(size=(12, 5))
THETA = np.linspace(-2, 2, 5)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_is_the_published_rule(decay):
  kw = dict(b1=0.8, b2=0.95, eps=1e-3)
  got = run(optim.adam(0.1, weight_decay=decay, steps=12, **kw), THETA, GRADS)
  expected = adam_by_hand(THETA, GRADS, lambda i: 0.1, decay=decay, **kw)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_weight_decay_does_not_pass_through_the_moments():
  # No gradient at all: the weights shrink by lr * decay, whatever Adam holds.
  got = run(optim.adam(0.1, weight_decay=0.5, steps=9), THETA, 0 * GRADS[:3])
  np.testing.assert_allclose(got, THETA * (1 - 0.1 * 0.5) ** 3, rtol=1e-5)


def test_clipping_scales_to_the_norm_and_never_up():
  grads = np.concatenate([GRADS, 0.01 * GRADS])
  norms = np.linalg.norm(grads, axis=1, keepdims=True)
  clipped = grads * np.minimum(1, 0.7 / norms)
  assert (norms > 0.7).any() and (norms < 0.7).any()
  got = run(optim.adam(0.1, clip=0.7, eps=0.1, steps=24), THETA, grads)
  expected = adam_by_hand(THETA, clipped, lambda i: 0.1, eps=0.1)
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  unclipped = run(optim.adam(0.1, eps=0.1, steps=24), THETA, grads)
  assert np.abs(got - unclipped).max() > 1e-3


TAILS = {
  "constant": lambda part: 1 + 0 * part,
  "linear": lambda part: 1 - part,
  "cosine": lambda part: (1 + np.cos(np.pi * part)) / 2,
}


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("decay", TAILS)
def test_schedules(decay, warmup):
  lr, steps = 3e-4, 50
  rate = optim.schedule(lr, warmup, decay, steps)
  got = np.array([float(rate(i)) for i in range(steps + 5)])
  i = np.arange(steps + 5)
  part = np.clip((i - warmup) / (steps - warmup), 0, 1)
  rise = np.minimum(i / warmup, 1) if warmup else 1
  np.testing.assert_allclose(got, lr * rise * TAILS[decay](part), atol=1e-10)
  assert got[warmup] == pytest.approx(lr)
  assert got[0] == (0 if warmup else pytest.approx(lr))
  if decay != "constant":
    assert got[steps] == pytest.approx(0, abs=1e-10)


def test_the_rate_reaches_adam():
  got = run(optim.adam(0.1, warmup=4, decay="cosine", steps=12), THETA, GRADS)
  rate = optim.schedule(0.1, 4, "cosine", 12)
  expected = adam_by_hand(THETA, GRADS, lambda i: float(rate(i)))
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_warmup_longer_than_the_run():
  rate = optim.schedule(1.0, 100, "cosine", 50)
  assert float(rate(50)) == pytest.approx(0.5)


def test_unknown_decay():
  with pytest.raises(UserError, match="'cosin'.*constant, linear, cosine"):
    optim.adam(1e-3, decay="cosin", steps=10)


def test_lazy_adam_goes_as_far():
  # Karras et al. 2020, Sec. 3.1: c = k / (k + 1) with k = 16.
  c, kw = 16 / 17, dict(eps=1e-8)
  got = run(optim.adam(0.1, b1=0.5, b2=0.99, lazy=16, steps=12), THETA, GRADS)
  expected = adam_by_hand(THETA, GRADS, lambda i: 0.1 * c, b1=0.5**c, b2=0.99**c, **kw)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_schedules_end_with_the_run():
  assert optim.updates(100) == 100 and optim.updates(100, every=5) == 20
  assert optim.updates(100, lazy=16) == 107  # at batches 0, 16, .. 96
  assert optim.updates(96, every=2, lazy=4) == 48 + 24
  grads = np.ones((40, 1))
  last = lambda steps, n, **kw: np.diff(
    [
      run(optim.adam(0.1, decay="linear", steps=steps, **kw), [0.0], grads[:i])[0]
      for i in (n, n + 1)
    ]
  )[0]
  assert abs(last(40, 30)) > 1e-2 and abs(last(40, 20, every=2)) < 1e-7
  assert abs(last(16, 20, lazy=4)) < 1e-7 < 1e-4 < abs(last(16, 19, lazy=4))


def rmsprop_by_hand(theta, grads, lr, b2=0.99, eps=1e-8, most=np.inf):
  """Tieleman & Hinton 2012, and a box (Arjovsky et al. 2017, Alg. 1)."""
  v = 0.0
  for g in grads:
    v = b2 * v + (1 - b2) * g**2
    theta = np.clip(theta - lr * g / (np.sqrt(v) + eps), -most, most)
  return theta


def test_rmsprop_is_the_published_rule():
  got = run(optim.rmsprop(0.01, b2=0.9, eps=1e-3, steps=12), THETA, GRADS)
  expected = rmsprop_by_hand(THETA, GRADS, 0.01, b2=0.9, eps=1e-3)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("most", [0.01, 0.3, 1 / 3])
def test_clipped_weights_stay_in_their_box(most):
  tx = optim.rmsprop(0.02, clip_weights=most, steps=12)
  theta = np.random.default_rng(1).normal(size=1000)  # most begin outside
  grads = np.random.default_rng(2).normal(size=(12, 1000))
  for n in (1, 2, 12):
    got = run(tx, theta, grads[:n])
    assert np.abs(got).max() <= np.float32(most)  # not by a last digit more
    np.testing.assert_allclose(got, rmsprop_by_hand(theta, grads[:n], 0.02, most=most), atol=1e-6)
  assert (np.abs(got) > 0.999 * most).any()
  assert most < 0.1 or (np.abs(got) < 0.9 * most).any()


def test_inverse_square_roots_are_the_published_codes():
  # EDM2 XS: batches of 2048, at these numbers of images.
  images = np.array([0, 2**20, 1e7, 143_360_000, 2**29, 2**31])
  golden = np.load(GOLDEN / "edm2.npz")["learning_rates"]
  with jax.enable_x64(True):
    rate = optim.schedule(0.012, 1e7 / 2048, "inverse_sqrt", 0, after=70_000)
    np.testing.assert_allclose([rate(n / 2048) for n in images], golden, rtol=1e-14)
  rate = optim.schedule(0.1, 0, "inverse_sqrt", 0, after=4)
  np.testing.assert_allclose([rate(i) for i in (0, 4, 16)], [0.1, 0.1, 0.05], rtol=1e-6)


def test_weights_stay_at_unit_rms():
  # Karras et al. 2024, Alg. 1, whose code normalises before a step what we do after.
  normalised = lambda w: w / (np.sqrt(np.mean(w**2, (0, 1), keepdims=True)) + 1e-4)
  rng = np.random.default_rng(3)
  start = {"kernel": normalised(rng.normal(size=(3, 4, 5))), "gain": np.array(0.5)}
  theta = jax.tree.map(jnp.float32, start)
  tx = optim.adam(0.1, unit_rms=True, steps=9)
  state, grads = tx.init(theta), rng.normal(size=(9, 3, 4, 5))
  for g in grads:
    updates, state = tx.update({"kernel": jnp.float32(g), "gain": jnp.float32(1.0)}, state, theta)
    theta = optax.apply_updates(theta, updates)
    rms = np.sqrt(np.mean(np.square(theta["kernel"], dtype=np.float64), (0, 1)))
    np.testing.assert_allclose(rms, 1 - 1e-4, rtol=2e-5)
  w, m, v = start["kernel"], 0.0, 0.0
  for i, g in enumerate(grads):
    w = normalised(w) if i else w
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    w = w - 0.1 * (m / (1 - 0.9 ** (i + 1))) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
  np.testing.assert_allclose(theta["kernel"], normalised(w), rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(theta["gain"], 0.5 - 9 * 0.1, rtol=1e-4)
