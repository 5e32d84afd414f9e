"""Rules and penalties against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit

from jaxgen.adversarial import losses, penalties
from jaxgen.adversarial.path import PathLength

REAL, FAKE = np.array([-2.0, 0.0, 0.5, 3.0]), np.array([-1.5, 1.0, 0.0, 0.25])
KEYS = jax.random.split(jax.random.key(0), 64)


def log_sigmoid(x):
  return -np.log1p(np.exp(-np.asarray(x, np.float64)))


def test_nonsaturating():
  rule = losses.nonsaturating()
  d = -np.mean(log_sigmoid(REAL)) - np.mean(log_sigmoid(-FAKE))
  np.testing.assert_allclose(rule.d_loss(REAL, FAKE), d, rtol=1e-6)
  np.testing.assert_allclose(rule.g_loss(FAKE), -np.mean(log_sigmoid(FAKE)), rtol=1e-6)
  # Far logits neither overflow nor lose their slope.
  far = jnp.array([200.0, -200.0])
  assert np.isfinite(rule.d_loss(far, far)) and np.isfinite(rule.g_loss(far))
  assert jax.grad(rule.g_loss)(jnp.array([-200.0])) == -1


def test_hinge_by_hand():
  rule = losses.hinge()
  # relu(1 - real): 3, 1, 0.5, 0; relu(1 + fake): 0, 2, 1, 1.25.
  assert float(rule.d_loss(REAL, FAKE)) == (4.5 + 4.25) / 4
  assert float(rule.g_loss(FAKE)) == 0.25 / 4


def test_wasserstein_by_hand():
  rule = losses.wasserstein()
  assert float(rule.d_loss(REAL, FAKE)) == (-0.25 - 1.5) / 4
  assert float(rule.g_loss(FAKE)) == 0.25 / 4


def test_minimax_is_what_it_undoes():
  rule = losses.minimax()
  # Eq. 1: both play for one number, -d_loss, of which g_loss is a part.
  assert float(rule.d_loss(REAL, FAKE)) == float(losses.nonsaturating().d_loss(REAL, FAKE))
  np.testing.assert_allclose(rule.g_loss(FAKE), np.mean(log_sigmoid(-FAKE)), rtol=1e-6)
  # It saturates: no slope where the discriminator is sure.
  assert abs(jax.grad(rule.g_loss)(jnp.array([-50.0]))) < 1e-20


def test_least_squares_by_hand():
  rule = losses.least_squares()
  # (real - 1)^2: 9, 1, 0.25, 4; fake^2: 2.25, 1, 0, 0.0625.
  assert float(rule.d_loss(REAL, FAKE)) == (14.25 + 3.3125) / 8
  # (fake - 1)^2: 6.25, 0, 1, 0.5625.
  assert float(rule.g_loss(FAKE)) == 7.8125 / 8


def test_relativistic_compares_pairs():
  rule = losses.relativistic()
  assert rule.relative and not losses.hinge().relative
  np.testing.assert_allclose(rule.d_loss(REAL, FAKE), -np.mean(log_sigmoid(REAL - FAKE)), rtol=1e-6)
  np.testing.assert_allclose(rule.g_loss(REAL, FAKE), -np.mean(log_sigmoid(FAKE - REAL)), rtol=1e-6)
  # Only the difference counts: who adds to all logits changes nothing.
  assert float(rule.d_loss(REAL + 4, FAKE + 4)) == float(rule.d_loss(REAL, FAKE))


@pytest.mark.parametrize(
  "p, q", [([4, 2, 1, 1], [1, 1, 2, 4]), ([1, 1, 1, 5], [2, 2, 2, 2]), ([4, 2, 1, 1], [4, 2, 1, 1])]
)
def test_the_best_discriminator_measures_jensen_shannon(p, q):
  # Goodfellow et al. 2014, Thm. 1: the best value is 2 JS - 2 log 2. Batches
  # with these counts have exactly these frequencies.
  logits = jnp.log(jnp.array(p, float)) - jnp.log(jnp.array(q, float))
  cells = jnp.arange(4)
  real = logits[jnp.repeat(cells, jnp.array(p))]
  fake = logits[jnp.repeat(cells, jnp.array(q))]
  p, q = np.array(p) / 8, np.array(q) / 8
  kl = lambda a, b: np.sum(a * np.log(a / b))
  js = (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
  rule = losses.nonsaturating()
  np.testing.assert_allclose(rule.d_loss(real, fake), 2 * np.log(2) - 2 * js, rtol=1e-6)
  # ... and it is the best: a step in any direction is uphill.
  value = lambda a: rule.d_loss(
    a[jnp.repeat(cells, (8 * p).astype(int))], a[jnp.repeat(cells, (8 * q).astype(int))]
  )
  np.testing.assert_allclose(jax.grad(value)(logits), 0, atol=1e-6)


A = jnp.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 1.0]])
w = jnp.array([3.0, 0.0, 4.0])
linear = lambda x: x @ w
quadratic = lambda x: jnp.einsum("bi,ij,bj->b", x, A, x) / 2
X = jax.random.normal(jax.random.key(1), (64, 3))
Y = jax.random.normal(jax.random.key(2), (64, 3))


def test_r1_closed_forms():
  np.testing.assert_allclose(penalties.r1(linear, X, Y, KEYS, gamma=4.0), 2 * 25, rtol=1e-6)
  slope = np.asarray(X) @ np.asarray(A)  # A is symmetric
  np.testing.assert_allclose(
    penalties.r1(quadratic, X, Y, KEYS), 5 * np.mean((slope**2).sum(1)), rtol=1e-5
  )


def test_gradient_penalty_closed_forms():
  np.testing.assert_allclose(
    penalties.gradient_penalty(linear, X, Y, KEYS, weight=2.0), 2 * (5 - 1) ** 2, rtol=1e-6
  )
  # All on one line through real = fake: the place drawn does not matter.
  norm = np.linalg.norm(np.asarray(X) @ np.asarray(A), axis=1)
  np.testing.assert_allclose(
    penalties.gradient_penalty(quadratic, X, X, KEYS), 10 * np.mean((norm - 1) ** 2), rtol=1e-5
  )


def test_gradient_penalty_looks_between_real_and_fake():
  # Along D(x) = |x|^2 / 2 from 0 to e the slope's norm is u, uniform:
  # E (u - 1)^2 = 1/3. The key decides, one u for each example.
  n = 4096
  keys = jax.random.split(jax.random.key(3), n)
  D = lambda x: jnp.sum(x**2, (1, 2)) / 2
  fake, real = jnp.zeros((n, 1, 2)), jnp.ones((n, 1, 2)) / jnp.sqrt(2)
  value = penalties.gradient_penalty(D, real, fake, keys, weight=1.0)
  std = np.sqrt(1 / 5 - 1 / 9) / np.sqrt(n)
  assert abs(value - 1 / 3) < 5 * std
  one = lambda i: penalties.gradient_penalty(
    D, real[i : i + 1], fake[i : i + 1], keys[i : i + 1], weight=1.0
  )
  np.testing.assert_allclose(
    np.mean([one(i) for i in range(4)]),
    penalties.gradient_penalty(D, real[:4], fake[:4], keys[:4], weight=1.0),
    rtol=1e-5,
  )


@pytest.mark.parametrize("penalty", [penalties.r1, penalties.gradient_penalty])
def test_no_slope_has_a_finite_derivative(penalty):
  value, slope = jax.value_and_grad(lambda a: penalty(lambda x: a * jnp.sum(x**2, -1), X, Y, KEYS))(
    0.0
  )
  assert np.isfinite(value) and np.isfinite(slope)


def test_squared_slope_of_images():
  x = jax.random.normal(jax.random.key(4), (5, 4, 4, 2))
  D = lambda x: jnp.sum(jnp.sin(x), (1, 2, 3))
  np.testing.assert_allclose(
    penalties.squared_slope(D, x), np.sum(np.cos(x) ** 2, (1, 2, 3)), rtol=1e-5
  )


def seeded():
  """Two small networks and their data; the same in PyTorch, see NUMBERS."""
  rng = np.random.RandomState(0)
  draw = lambda *shape: jnp.float32(rng.standard_normal(shape))
  real, fake = draw(6, 2, 2, 3), draw(6, 2, 2, 3)
  D = lambda W, x: jnp.tanh(x.reshape(len(x), -1) @ W[0]) @ W[1] * 0.3
  W = draw(12, 8), draw(8)
  G = lambda A, ws: jnp.tanh(ws.reshape(6, -1) @ A / 4).reshape(6, 2, 2, 3)
  ws, A = draw(6, 2, 4), draw(8, 12)
  return real, fake, D, W, G, ws, A, jax.random.split(jax.random.key(5), 6)


# Values, and norms of their gradients by the weights, as float64 autograd of
# PyTorch 2.13 has them for these weights and these draws.
NUMBERS = {
  "r1": (1.7221586776508002, 4.282630063920479),
  "r2": (0.9214271891674728, 2.615839795369604),
  "gradient_penalty": (2.6506212917308187, 8.178939402738559),
  "path": (0.1703016788531525, 0.11990051476264321),
  "orthogonal": (7.629833689937396, 4.22035413971728),
}
MEAN = 0.6987424515516067


def agrees(name, loss, theta):
  value, slope = jit(jax.value_and_grad(loss))(theta)
  norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(slope)))
  np.testing.assert_allclose((value, norm), NUMBERS[name], rtol=1e-4)


@pytest.mark.parametrize(
  "name, kw", [("r1", dict(gamma=3.0)), ("r2", dict(gamma=3.0)), ("gradient_penalty", {})]
)
def test_slopes_are_those_of_autograd(name, kw):
  real, fake, D, W, *_, keys = seeded()
  penalty = getattr(penalties, name)
  agrees(name, lambda W: penalty(lambda x: D(W, x), real, fake, keys, **kw), W)


def test_path_lengths_are_those_of_autograd():
  *_, G, ws, A, keys = seeded()
  path = PathLength(weight=2.0, decay=0.01)
  loss = lambda A: path(lambda ws: G(A, ws), ws, keys, {"mean": jnp.float32(0.7)})
  agrees("path", lambda A: loss(A)[0], A)
  np.testing.assert_allclose(jit(loss)(A)[1]["mean"], MEAN, rtol=1e-5)
  assert path.init() == {"mean": 0}


def test_orthogonal_minds_angles_alone():
  *_, A, _ = seeded()
  kernel = A.reshape(2, 2, 2, 12)
  agrees(
    "orthogonal",
    lambda k: penalties.orthogonal(
      {"a": {"kernel": k, "bias": k[0, 0, 0]}, "e": {"embedding": k}}, 1e-2
    ),
    kernel,
  )
  q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 5)))
  right = {"kernel": jnp.float32(q * np.arange(1, 6))}  # of any length
  assert penalties.orthogonal(right, 1.0) < 1e-10


def test_r2_is_r1_of_fakes():
  assert float(penalties.r2(quadratic, X, Y, KEYS)) == float(penalties.r1(quadratic, Y, X, KEYS))
