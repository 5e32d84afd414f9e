"""A denoising diffusion GAN as a game: R1 now and then, any number of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import filled, jit

from jaxgen import config, core
from jaxgen.adversarial import penalties
from jaxgen.config import build
from jaxgen.keys import example_keys, fold

KEY, B = jax.random.key(3), 8


def game(**changes):
  c = config.load("configs/ddgan.py:points").unlock()
  c.model.update(changes)
  c.model.gen.update(width=16, depth=2)
  c.model.disc.update(width=16, depth=2)
  model = build(c.model)
  batch = {"x": jnp.float32(np.random.default_rng(0).normal(size=(B, 2)))}
  tx = {p.moves: build(c.optim[p.moves])(steps=9) for p in model.players}
  init = core.make_init(model, tx, ())
  return model, filled(jax.eval_shape(init, batch, KEY)), batch, example_keys(KEY, B)


def test_slopes_are_part_of_every_third_loss():
  """And not multiplied by three."""
  model, state, batch, keys = game(lazy=3, gamma=0.7)
  loss = jit(lambda step: model.disc_loss(state.replace(step=step), batch, keys)[0])
  got = np.array([loss(jnp.int32(i)) for i in range(7)])
  t, x_t, x_next = model.true_pair(batch, fold(keys, 0))
  D = model.D(state, batch, t, x_next)
  r1 = penalties.r1(D, x_t, x_t, keys, 0.7)
  assert r1 > 0.01
  np.testing.assert_allclose(got, got[1] + r1 * np.array([1, 0, 0, 1, 0, 0, 1]), rtol=1e-5)
  always, (_, info) = game(lazy=1, gamma=0.7)[0].disc_loss(state, batch, keys)
  np.testing.assert_allclose([always, info["r1"]], [got[0], r1], rtol=1e-5)


def test_the_pair_is_judged_together():
  """D is shown the x_{t+1} of its x_t; the generator gets no other."""
  model, state, batch, keys = game(lazy=1)
  t, x_t, x_next = model.true_pair(batch, keys)
  D = lambda x_next: model.D(state, batch, t, x_next)(x_t)
  assert (np.abs(D(x_next) - D(x_next[::-1])) > 1e-4).any()
  fake, x_0 = model.fake_pair(state, batch, t, x_next, keys)
  np.testing.assert_array_equal(fake[t == 0], x_0[t == 0])
  assert set(np.asarray(model.chain.draw_t(jax.random.split(KEY, 200)))) == {0, 1, 2, 3}


@pytest.mark.parametrize("length", [1, 8])
def test_any_number_of_steps_is_one_program(length):
  """Fewer give the guess after so many; more than there are, all."""
  chain = dict(name="diffusion.denoising_chain.DenoisingChain", steps=length)
  model, state, batch, keys = game(chain=chain)
  sample = jit(model.sample)
  xs = [sample(state, batch, keys, steps=jnp.float32(n)) for n in range(1, 10)]
  assert sample._cache_size() == 1
  assert [model.nfe(steps=n) for n in range(1, 10)] == [min(n, length) for n in range(1, 10)]
  assert model.nfe() == length == model.knobs["steps"]
  for n, (a, b) in enumerate(zip(xs, xs[1:], strict=False), 1):
    assert (n < length) == (np.abs(a - b).max() > 1e-4), n
  np.testing.assert_allclose(model.sample(state, batch, keys), xs[-1], atol=1e-5)
  given = {"noise": jnp.zeros((B, 2)), **batch}
  assert np.abs(sample(state, given, keys, steps=jnp.float32(1)) - xs[0]).max() > 1e-3
