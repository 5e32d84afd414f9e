"""Rules and penalties against closed forms."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial import losses, penalties

REAL, FAKE = np.array([-2., 0., 0.5, 3.]), np.array([-1.5, 1., 0., 0.25])
KEYS = jax.random.split(jax.random.key(0), 64)


def log_sigmoid(x):
  return -np.log1p(np.exp(-np.asarray(x, np.float64)))


def test_nonsaturating():
  rule = losses.nonsaturating()
  d = -np.mean(log_sigmoid(REAL)) - np.mean(log_sigmoid(-FAKE))
  np.testing.assert_allclose(rule.d_loss(REAL, FAKE), d, rtol=1e-6)
  np.testing.assert_allclose(
      rule.g_loss(FAKE), -np.mean(log_sigmoid(FAKE)), rtol=1e-6)
  # Far logits neither overflow nor lose their slope.
  far = jnp.array([200., -200.])
  assert np.isfinite(rule.d_loss(far, far)) and np.isfinite(rule.g_loss(far))
  assert jax.grad(rule.g_loss)(jnp.array([-200.])) == -1


def test_hinge_by_hand():
  rule = losses.hinge()
  # relu(1 - real): 3, 1, 0.5, 0; relu(1 + fake): 0, 2, 1, 1.25.
  assert float(rule.d_loss(REAL, FAKE)) == (4.5 + 4.25) / 4
  assert float(rule.g_loss(FAKE)) == 0.25 / 4


def test_wasserstein_by_hand():
  rule = losses.wasserstein()
  assert float(rule.d_loss(REAL, FAKE)) == (-0.25 - 1.5) / 4
  assert float(rule.g_loss(FAKE)) == 0.25 / 4


@pytest.mark.parametrize("p, q", [
    ([4, 2, 1, 1], [1, 1, 2, 4]), ([1, 1, 1, 5], [2, 2, 2, 2]),
    ([4, 2, 1, 1], [4, 2, 1, 1])])
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
  np.testing.assert_allclose(
      rule.d_loss(real, fake), 2 * np.log(2) - 2 * js, rtol=1e-6)
  # ... and it is the best: a step in any direction is uphill.
  value = lambda a: rule.d_loss(a[jnp.repeat(cells, (8 * p).astype(int))],
                                a[jnp.repeat(cells, (8 * q).astype(int))])
  np.testing.assert_allclose(jax.grad(value)(logits), 0, atol=1e-6)


A = jnp.array([[2., 1., 0.], [1., 3., -1.], [0., -1., 1.]])
w = jnp.array([3., 0., 4.])
linear = lambda x: x @ w
quadratic = lambda x: jnp.einsum("bi,ij,bj->b", x, A, x) / 2
X = jax.random.normal(jax.random.key(1), (64, 3))
Y = jax.random.normal(jax.random.key(2), (64, 3))


def test_r1_closed_forms():
  np.testing.assert_allclose(
      penalties.r1(linear, X, Y, KEYS, gamma=4.), 2 * 25, rtol=1e-6)
  slope = np.asarray(X) @ np.asarray(A)  # A is symmetric
  np.testing.assert_allclose(
      penalties.r1(quadratic, X, Y, KEYS), 5 * np.mean((slope ** 2).sum(1)),
      rtol=1e-5)


def test_gradient_penalty_closed_forms():
  np.testing.assert_allclose(
      penalties.gradient_penalty(linear, X, Y, KEYS, weight=2.),
      2 * (5 - 1) ** 2, rtol=1e-6)
  # All on one line through real = fake: the place drawn does not matter.
  norm = np.linalg.norm(np.asarray(X) @ np.asarray(A), axis=1)
  np.testing.assert_allclose(
      penalties.gradient_penalty(quadratic, X, X, KEYS),
      10 * np.mean((norm - 1) ** 2), rtol=1e-5)


def test_gradient_penalty_looks_between_real_and_fake():
  # Along D(x) = |x|^2 / 2 from 0 to e the slope's norm is u, uniform:
  # E (u - 1)^2 = 1/3. The key decides, one u for each example.
  n = 4096
  keys = jax.random.split(jax.random.key(3), n)
  D = lambda x: jnp.sum(x ** 2, (1, 2)) / 2
  fake, real = jnp.zeros((n, 1, 2)), jnp.ones((n, 1, 2)) / jnp.sqrt(2)
  value = penalties.gradient_penalty(D, real, fake, keys, weight=1.)
  std = np.sqrt(1 / 5 - 1 / 9) / np.sqrt(n)
  assert abs(value - 1 / 3) < 5 * std
  one = lambda i: penalties.gradient_penalty(
      D, real[i:i + 1], fake[i:i + 1], keys[i:i + 1], weight=1.)
  np.testing.assert_allclose(
      np.mean([one(i) for i in range(4)]),
      penalties.gradient_penalty(D, real[:4], fake[:4], keys[:4], weight=1.),
      rtol=1e-5)


@pytest.mark.parametrize("penalty", [penalties.r1, penalties.gradient_penalty])
def test_no_slope_has_a_finite_derivative(penalty):
  value, slope = jax.value_and_grad(
      lambda a: penalty(lambda x: a * jnp.sum(x ** 2, -1), X, Y, KEYS))(0.)
  assert np.isfinite(value) and np.isfinite(slope)


def test_squared_slope_of_images():
  x = jax.random.normal(jax.random.key(4), (5, 4, 4, 2))
  D = lambda x: jnp.sum(jnp.sin(x), (1, 2, 3))
  np.testing.assert_allclose(
      penalties.squared_slope(D, x), np.sum(np.cos(x) ** 2, (1, 2, 3)),
      rtol=1e-5)
