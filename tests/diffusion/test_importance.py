"""Importance-sampled times against the published rule in plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen.diffusion.importance import SecondMoment


class Published:
  """LossSecondMomentResampler's rule, one loss after the other."""

  def __init__(self, steps, history, floor):
    self.losses = [[] for _ in range(steps)]
    self.history, self.floor = history, floor

  def add(self, index, losses):
    for i, loss in zip(index, losses, strict=True):
      self.losses[i] = [*self.losses[i], loss][-self.history :]

  def probabilities(self):
    n = len(self.losses)
    if any(len(of) < self.history for of in self.losses):
      return np.full(n, 1 / n)
    p = np.sqrt([np.mean(np.square(of)) for of in self.losses])
    return (1 - self.floor) * p / p.sum() + self.floor / n


@pytest.mark.parametrize("history", [1, 3])
def test_history_is_the_published_one(history):
  ours = SecondMoment(steps=7, history=history, floor=0.05)
  theirs = Published(7, history, 0.05)
  rng, stats, warm = np.random.default_rng(0), ours.init(), 0
  update = jax.jit(ours.update)
  for _ in range(30):
    # 9 of 7 times, most of them few: more than `history` of one in a batch.
    index = np.minimum(rng.integers(0, 7, 9), rng.integers(0, 14, 9) % 7)
    losses = (rng.exponential(size=9) * (1 + index)).astype(np.float32)
    t = jnp.array((index + 1) / 7, jnp.float32).reshape(9, 1, 1)
    stats = update(stats, t, jnp.array(losses))
    theirs.add(index, losses)
    for ring, seen, last in zip(*stats, theirs.losses, strict=True):
      kept = ring[: min(int(seen), history)]
      np.testing.assert_array_equal(np.sort(kept), np.sort(last))
    p = theirs.probabilities()
    np.testing.assert_allclose(ours.probabilities(stats), p, rtol=1e-5)
    warm += len(set(p)) > 1
  assert 0 < warm < 30


def full(sampler, losses):
  stats, update = sampler.init(), jax.jit(sampler.update)
  for _ in range(sampler.history):
    t = jnp.arange(1, sampler.steps + 1) / sampler.steps
    stats = update(stats, t, jnp.asarray(losses, jnp.float32))
  return stats


def test_draws_have_the_probabilities_and_weights_undo_them():
  sampler = SecondMoment(steps=6, history=2, floor=0.3)
  stats = full(sampler, [0.0, 1.0, 2.0, 3.0, 4.0, 10.0])
  keys = jax.random.split(jax.random.key(0), 6000)
  traces = itertools.count()

  @jax.jit
  def draw(key, stats):
    next(traces)
    return sampler(key, 4, stats)

  t, weight = draw(keys, stats)
  assert t.shape == (6000, 1, 1, 1) and weight.shape == (6000,)
  index = np.round(np.ravel(t) * 6).astype(int) - 1
  p = 0.7 * np.array([0, 1, 2, 3, 4, 10]) / 20 + 0.3 / 6
  assert scipy.stats.chisquare(np.bincount(index), 6000 * p).pvalue > 0.01
  np.testing.assert_allclose(weight, 1 / (6 * p[index]), rtol=1e-5)
  # One's own draw, whoever else is in the batch.
  np.testing.assert_array_equal(draw(keys[40:50], stats)[0], t[40:50])
  t, weight = draw(keys, sampler.init())
  index = np.round(np.ravel(t) * 6).astype(int) - 1
  assert scipy.stats.chisquare(np.bincount(index)).pvalue > 0.01
  np.testing.assert_allclose(weight, 1, rtol=1e-6)
  assert next(traces) == 2  # two shapes, however warm


def test_it_lessens_the_variance_of_the_mean():
  """Losses that differ a lot between times: the reason it is there."""
  losses = np.geomspace(1e-3, 10, 50)
  sampler = SecondMoment(steps=50, history=10)
  keys = jax.random.split(jax.random.key(1), 4000)

  def estimates(stats):
    t, weight = jax.jit(sampler, static_argnums=1)(keys, 1, stats)
    index = np.round(np.ravel(t) * 50).astype(int) - 1
    return np.asarray(weight, float) * losses[index]

  flat, better = estimates(sampler.init()), estimates(full(sampler, losses))
  for drawn in (flat, better):
    error = drawn.std() / 4000**0.5
    assert abs(drawn.mean() - losses.mean()) < 4 * error
  assert better.std() < 0.05 * flat.std()
