"""CycleGAN: a reference's step, its pool, and simultaneous moves."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import filled, jit, same
from golden import near
from translators import disc_weights, gen_weights, nchw, nhwc, opened, shapes, state_of

from jaxgen import core
from jaxgen.adversarial import image_pool, patch_rules, penalties
from jaxgen.keys import example_keys
from jaxgen.models.cycle_gan import CycleGAN
from jaxgen.nets.patchgan import PatchGAN
from jaxgen.nets.resnet_translator import TranslatorResNet

KEY = jax.random.key(0)
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def reference():
  d, m = opened("cyclegan")
  model = CycleGAN(TranslatorResNet(4, 9), PatchGAN(4, norm="instance"), patch_rules.squares)
  batch = {"x": nhwc(d["real_B"]), "source": nhwc(d["real_A"])}
  params, stats = shapes(model, batch)
  gen = lambda way, net: gen_weights({"params": params["gen"][way]}, **m["nets"][net])["params"]
  disc = lambda net: disc_weights(params["disc_a"], **m["nets"][net])
  params = {
    "gen": {"ab": gen("ab", "G_A"), "ba": gen("ba", "G_B")},
    "disc_b": disc("D_A"),  # theirs is called by what it trains
    "disc_a": disc("D_B"),
  }
  stats = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), stats)
  return model, state_of(params, stats), batch, d


def test_the_references_losses(reference):
  model, state, batch, d = reference
  keys = example_keys(KEY, 1)
  loss, (_, info) = jit(model.gen_loss)(state, batch, keys)
  theirs = {
    "fooled_b": "loss_G_A",
    "fooled_a": "loss_G_B",
    "cycle_a": "loss_cycle_A",
    "cycle_b": "loss_cycle_B",
    "identity_b": "loss_idt_A",
    "identity_a": "loss_idt_B",
  }
  for name, other in theirs.items():
    near(info[name], d[other], TOLERANCE)
  near(loss, sum(d[other] for other in theirs.values()), TOLERANCE)
  near(jit(model.disc_b_loss)(state, batch, keys)[0], d["loss_D_A"], TOLERANCE)
  near(jit(model.disc_a_loss)(state, batch, keys)[0], d["loss_D_B"], TOLERANCE)
  sample = jit(model.sample)
  near(nchw(sample(state, batch, keys)), d["fake_B"], TOLERANCE)
  back = sample(state, {"x": batch["x"], "source": batch["x"]}, keys, backwards=jnp.float32(1))
  near(nchw(back), d["fake_A"], TOLERANCE)


def test_the_references_other_rules(reference, monkeypatch):
  """Its gradient penalty, and "wgangp"."""
  model, state, batch, d = reference
  fake, alpha = nhwc(d["fake_B"]), d["gradient_penalty_alpha"].ravel()
  D = jax.jit(model.D(state, "disc_b"))
  monkeypatch.setattr(
    penalties, "interpolate", lambda real, fake, key: alpha * real + (1 - alpha) * fake
  )
  penalty = penalties.gradient_penalty(D, batch["x"], fake, None, 10.0)
  near(penalty, d["gradient_penalty"], TOLERANCE)
  # A critic's loss of a real image is -mean, of a fake one mean.
  ours = patch_rules.critic().d_loss(D(batch["x"]), D(fake))
  near(ours, (d["wgan_real"] + d["wgan_fake"]) / 2, 1e-2)
  near(D(batch["x"]), d["D_A_real"][:, 0], TOLERANCE)
  near(D(fake), d["D_A_fake"][:, 0], TOLERANCE)


def test_the_references_pool():
  """Asked 20 times for two images: numbers are drawn when the reference does."""
  d, m = opened("cyclegan")
  size = m["pool_size"]
  uniforms, places = iter(d["pool_uniforms"]), iter(d["pool_indices"])
  pool, query = image_pool.init(size, (1,)), jit(image_pool.query)
  for i, want in enumerate(d["pool_returned"]):
    u, place = np.zeros(2, np.float32), np.zeros(2, np.int32)
    for j in range(2):
      if 2 * i + j >= size:
        u[j] = next(uniforms)
        place[j] = next(places) if u[j] > 0.5 else 0
    returned, pool = query(pool, jnp.float32([[2 * i], [2 * i + 1]]), u, place)
    np.testing.assert_array_equal(returned[:, 0], want)
  assert not [*uniforms, *places] and pool["count"] == size


def test_draws_of_the_pool_are_each_examples_own():
  keys = example_keys(KEY, 2000)
  draw = jit(image_pool.draw, static_argnums=1)
  u, places = draw(keys, 50)
  assert abs(np.mean(u > 0.5) - 0.5) < 0.04 and set(np.asarray(places)) == set(range(50))
  for whole, part in zip((u, places), draw(keys[7:9], 50), strict=True):
    np.testing.assert_array_equal(whole[7:9], part)
  x = jnp.ones((2, 3))
  returned, pool = image_pool.query(image_pool.init(0, (3,)), x, u, places)
  assert returned is x and not pool["images"].size


class Tint(nn.Module):
  """A generator of one layer: programs of larger ones take long to compile."""

  @nn.compact
  def __call__(self, x, key=None, own=None, drop=1.0):
    return jnp.tanh(nn.Conv(1, (1, 1))(x))


class Corner(nn.Module):
  """A discriminator of one layer."""

  @nn.compact
  def __call__(self, x):
    return nn.Conv(1, (2, 2))(x)[..., 0]


@functools.cache
def small():
  """A small game: model, state, batch, jitted step."""
  model = CycleGAN(Tint(), Corner(), patch_rules.squares, pool=5)
  rng = np.random.default_rng(0)
  batch = {k: rng.integers(0, 256, (2, 8, 8, 1), np.uint8) for k in ("x", "source")}
  tx = {p.moves: optax.sgd(0.1) for p in model.players}
  shape = jax.eval_shape(core.make_init(model, tx, ()), batch, KEY)
  state = filled(shape)
  pool = {k: image_pool.init(5, (8, 8, 1)) for k in "ab"}
  state = state.replace(stats=state.stats | {"pool": pool})
  return model, state, batch, jit(core.make_step(model, tx, {}), static_argnums=0)


def test_all_four_nets_move_by_gradients_at_the_same_weights():
  """One step is that of the sum of all losses, by the same rate."""
  model, state, batch, step = small()
  new, metrics = step(core.turn(model, 0), state, batch, KEY)
  keys = example_keys(jax.random.fold_in(KEY, 0), 2)
  inputs = core.on_device(batch)

  def total(params):
    own = state.replace(params=params)
    before = state  # by which fakes for the discriminators are made
    loss = model.gen_loss(own.replace(params=state.params | {"gen": params["gen"]}), inputs, keys)
    for group, play in (("disc_b", model.disc_b_loss), ("disc_a", model.disc_a_loss)):
      seen = before.replace(params=state.params | {group: params[group]})
      loss = (loss[0] + play(seen, inputs, keys)[0], None)
    return loss[0]

  slope = jit(jax.grad(total))(state.params)
  want = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, slope)
  for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
  assert not metrics["skips"] and new.stats["pool"]["a"]["count"] == 2


def test_the_pool_is_part_of_the_state_and_of_its_resumption(tmp_path):
  """Seven steps, or three, a file, and four: every bit."""
  from jaxgen.checkpoint.manager import Checkpoints

  model, state, batch, step = small()
  turn = core.turn(model, 0)

  def on(state, steps):
    for i in steps:
      rolled = {k: np.roll(v, i, 1) for k, v in batch.items()}
      state, _ = step(turn, state, rolled, KEY)
    return state

  through, half = on(state, range(7)), on(state, range(3))
  assert half.stats["pool"]["b"]["count"] == 5
  with Checkpoints(str(tmp_path / "w"), every=1, keep=2) as checkpoints:
    meta = {"config": {}, "data": {}}
    checkpoints.save(3, half, meta, force=True)
    checkpoints.wait()
    _, back, _ = checkpoints.restore(jax.eval_shape(lambda: half))
  assert same(back, half)
  assert same(on(back, range(3, 7)), through)
  empty = half.replace(stats=half.stats | {"pool": state.stats["pool"]})
  assert not same(on(empty, range(3, 7)).params, through.params)  # it matters


def test_images_of_two_shapes_are_refused():
  model = small()[0]
  with pytest.raises(ValueError, match="want one shape"):
    model.images({"x": jnp.zeros((1, 8, 8, 1)), "source": jnp.zeros((1, 8, 8, 3))})
