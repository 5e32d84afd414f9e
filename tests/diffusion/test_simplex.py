"""Simplex noise against a sum over all lattice points, and its variance."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import simplex


def brute(key, shape, period):
  """The definition: every lattice point's gradient, wherever it is felt."""
  k_shift, k_angle = jax.random.split(key)
  nodes = math.ceil((1 + simplex.SKEW * 2) * max(shape)) + 4
  angle = np.asarray(jax.random.uniform(k_angle, (nodes, nodes), maxval=2 * math.pi))
  shift = np.asarray(jax.random.uniform(k_shift, (2, 1, 1), maxval=1.0))
  y, x = np.mgrid[: shape[0], : shape[1]] / period + shift
  total = np.zeros(shape)
  for i in range(-1, 12):
    for j in range(-1, 12):
      dx, dy = (x - i + (i + j) * simplex.UNSKEW, y - j + (i + j) * simplex.UNSKEW)
      turn = angle[i % nodes, j % nodes]
      fade = np.maximum(0.5 - dx**2 - dy**2, 0) ** 4
      total += fade * (np.cos(turn) * dx + np.sin(turn) * dy)
  return total


def test_an_octave_is_the_sum_over_lattice_points():
  key = jax.random.key(3)
  ours = simplex.octave(key, (9, 7), 2.3)
  np.testing.assert_allclose(ours, brute(key, (9, 7), 2.3), atol=2e-7)


def test_variance_is_one_and_what_is_near_is_alike():
  keys = jax.random.split(jax.random.key(0), 200)
  one = jax.jit(jax.vmap(lambda k: simplex.octave(k, (12, 12), 5.3)))(keys)
  assert abs(float(jnp.mean(one**2)) / simplex.POWER - 1) < 0.03
  x = jax.jit(lambda k: simplex.simplex(k, (16, 16, 2)))(keys)
  assert x.shape == (200, 16, 16, 2)
  assert abs(float(jnp.mean(x))) < 0.02 and abs(float(jnp.var(x)) - 1) < 0.03
  # Everywhere alike; channels apart; neighbours akin, unlike Gaussian noise.
  assert float(jnp.std(jnp.mean(x**2, (0, 3)))) < 0.1
  assert abs(float(jnp.mean(x[..., 0] * x[..., 1]))) < 0.03
  assert float(jnp.mean(x[:, 1:] * x[:, :-1])) > 0.1


def test_an_example_is_of_its_own_key():
  keys = jax.random.split(jax.random.key(1), 4)
  f = jax.jit(lambda k: simplex.simplex(k, (8, 8, 1)))
  np.testing.assert_allclose(f(keys)[2:3], f(keys[2:3]), atol=1e-6)


def test_what_is_no_image():
  with pytest.raises(ValueError, match="of images"):
    simplex.simplex(jax.random.split(jax.random.key(0), 2), (7,))
