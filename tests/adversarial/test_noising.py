"""Diffusion-GAN: the reference's numbers, and laws on Gaussians."""

import dataclasses
import functools
import json

import flax.linen as nn
import games
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import jit, same
from golden import GOLDEN, draws, near

from jaxgen import core
from jaxgen.adversarial import losses, noising, penalties
from jaxgen.adversarial.noising import Noising
from jaxgen.errors import UserError
from jaxgen.interop import names, stylegan2_names
from jaxgen.keys import example_keys
from jaxgen.models.gan import GAN, Penalty
from jaxgen.nets.stylegan2 import Discriminator

KEY = jax.random.key(0)
T = jnp.int32(258)


@functools.cache
def golden():
  numbers = dict(np.load(GOLDEN / "diffusion_gan.npz"))
  for name in ("x", "x_t", "noise", "grad_g_loss_x"):
    numbers[name] = numbers[name].transpose(0, 2, 3, 1)
  return numbers, json.loads(str(numbers["manifest"]))


def weights(entries, seed):
  """By the rule of the case's note."""
  for name, z, buffer in draws(seed, entries):
    if not buffer:
      large = 100 if name.startswith("mapping.fc") else 1
      yield name, z * np.float32(large if z.ndim > 1 else 0.1)


def test_tables_and_draws_are_the_references():
  numbers, _ = golden()
  alpha, sigma = noising.table(T)
  near(alpha[:259], numbers["alphas_bar_sqrt"], 1e-6)
  # The reference's difference from 1 is rounded.
  near(sigma[:259], numbers["one_minus_alphas_bar_sqrt"], 3e-6)
  assert (alpha[258:] == alpha[258]).all()
  near(noising.chances(T)[:258], numbers["prob_t_from_1"], 1e-6)
  assert not noising.chances(T)[258:].any()
  even = noising.chances(T, priority=False)
  np.testing.assert_allclose(even, np.where(np.arange(1000) < 258, 1 / 258, 0), rtol=1e-5)


def test_t_follows_p_and_p_the_signs_as_the_references_do():
  numbers, manifest = golden()
  assert [int(noising.longest(jnp.float32(p))) for p in numbers["p_values"]] == [*numbers["T_of_p"]]
  rule = manifest["update"]
  seen = rule["batch_size"] * rule["interval"]
  augment = Noising(target=rule["target"], every=rule["interval"], kimg=rule["kimg"])
  advance, update = jit(augment.advance), jit(augment.update, static_argnums=3)
  stats = augment.init()
  for i, sign in enumerate(numbers["signs"]):
    share = round(seen * (1 + sign) / 2)  # of logits above zero
    logits = jnp.where(jnp.arange(seen) < share, 0.3, -5.0).reshape(rule["interval"], -1)
    step = i * rule["interval"]
    for j, row in enumerate(logits):
      moved = advance(stats, step + j)
      assert j == 0 or same(moved, stats)
      stats = update(moved, row, step + j, len(row))
    after = advance(stats, step + rule["interval"])
    assert after["p"] == pytest.approx(numbers["p_after"][i], abs=1e-7)
    assert after["T"] == numbers["T_after"][i]
  assert augment.init()["T"] == 10


def test_d_is_told_t_and_slopes_pass_as_in_the_reference():
  numbers, manifest = golden()
  disc = Discriminator(base=512, most=32, group=2, clamp=256.0, timed=True)
  shapes = jax.eval_shape(disc.init, KEY, numbers["x"])
  table = stylegan2_names.entries("disc", shapes)
  variables = names.fill(table, dict(weights(manifest["state_dict"], manifest["seed"])))
  noise = np.float32(0.05) * numbers["noise"]

  @jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(x):
    x_t = noising.diffuse(x, noise, numbers["t"], T)
    logits = disc.apply(variables, x_t, t=numbers["t"])
    return losses.nonsaturating().g_loss(logits), (x_t, logits)

  (_, (x_t, logits)), slope = loss(numbers["x"])
  near(x_t, numbers["x_t"], 1e-6)
  near(logits[:, None], numbers["logits"], 2e-5)
  near(slope, numbers["grad_g_loss_x"], 2e-5)
  assert numbers["t"][0] == 0 and (x_t[0] == numbers["x"][0]).all()


def test_times_are_half_zeros_and_half_draws():
  augment = Noising(p=0.25)
  draw = jit(jax.vmap(augment.draw_times, (None, 0)))
  times = np.asarray(draw(T, jnp.arange(200)))
  assert times.shape == (200, 64) and not times[:, :32].any()
  some = times[:, 32:].ravel()
  assert some.min() >= 2 and some.max() <= 258  # t = 1 has no chance at all
  n, law = len(some), np.arange(258) / (257 * 258 / 2)
  mean = np.sum(law * np.arange(1, 259))
  spread = np.sqrt(np.sum(law * (np.arange(1, 259) - mean) ** 2))
  assert abs(some.mean() - mean) < 5 * spread / np.sqrt(n)
  assert same(draw(T, jnp.arange(3)), times[:3]) and (times[0] != times[1]).any()
  # Every example chooses by its own key.
  stats = augment.init()
  keys = example_keys(KEY, 4000)
  t = np.asarray(augment.draw_t(keys, stats))
  assert abs((t == 0).mean() - 0.5) < 0.05 and set(t) <= {*np.asarray(stats["t"])}
  assert same(t[7:20], augment.draw_t(keys[7:20], stats))


def test_what_is_shown_has_the_moments_of_its_time():
  augment, n = Noising(sigma=0.3, p=0.25), 4000
  stats, keys = augment.init(), example_keys(KEY, n)
  x = jax.random.normal(jax.random.key(1), (n, 2))
  alpha, sigma = noising.table(stats["T"])
  for t in (0, 1, 100, 258):
    y = np.asarray(augment(x, keys, stats, t=jnp.full(n, t)))
    noise = y - np.float32(alpha[t]) * x
    assert noise.std() == pytest.approx(0.3 * float(sigma[t]), rel=0.05, abs=1e-7)
    if t == 0:
      assert same(y, x)
  first = dataclasses.replace(augment, before=Double())
  stats = first.init()
  near(first(x, keys, stats, t=jnp.zeros(n, int)), 2 * x)
  assert first.update(stats, jnp.ones(n), 0, n)["before"] == {"calls": 1}


class Double:
  """An augmentation that counts."""

  def init(self):
    return {"calls": 0}

  def __call__(self, x, key, stats):
    return 2 * x

  def update(self, stats, real_logits, step, batch):
    return {"calls": stats["calls"] + 1}


# Laws. Data are N(0, S^2), fakes N(m, s^2): diffused, both stay Gaussian.


S = 0.1
AUGMENT = Noising(sigma=0.5, p=0.05)  # T = 60


def log_density(y, alpha, sigma, m, s):
  """Of N(alpha m, alpha^2 s^2 + sigma^2) at y."""
  var = (alpha * s) ** 2 + (AUGMENT.sigma * sigma) ** 2
  return -0.5 * (jnp.log(2 * jnp.pi * var) + (y - alpha * m) ** 2 / var)


class Gen(nn.Module):
  """z [B, 1] -> m + s z."""

  @nn.compact
  def __call__(self, z):
    m, s = (self.param(n, nn.initializers.ones, ()) for n in "ms")
    return m + s * z


class Best(nn.Module):
  """The best D(y, t) between data and N(m, s^2); or one that is deaf to t."""

  m: float
  s: float
  deaf: bool = False
  timed: bool = True

  @nn.compact
  def __call__(self, x, t=None):
    t = jnp.zeros_like(t) if self.deaf else t
    at = [a[t] for a in noising.table(AUGMENT.init()["T"])]
    return log_density(x[:, 0], *at, 0.0, S) - log_density(x[:, 0], *at, self.m, self.s)


def play(m, s, rule=losses.minimax, n=20_000, **kw):
  """-> losses of D and G at the best D, and G's slopes."""
  model = GAN(Gen(), Best(m, s, **kw), rule, z_dim=1, augment=AUGMENT)
  params = {"gen": {"m": jnp.float32(m), "s": jnp.float32(s)}, "disc": {}}
  stats = {"gen": {}, "disc": {}, "augment": AUGMENT.init()}
  state = core.State(jnp.int32(0), params, stats, {}, {}, None)
  keys = example_keys(KEY, n)
  batch = {"x": S * jax.random.normal(jax.random.key(3), (n, 1))}
  of_disc = jit(model.disc_loss)(state, batch, keys)[0]

  def loss(gen):
    return model.gen_loss(state.replace(params=params | {"gen": gen}), batch, keys)[0]

  return of_disc, *jit(jax.value_and_grad(loss))(params["gen"])


def js(m, s, times, chance):
  """Jensen-Shannon divergence of (y, t), nats, by sums over y."""
  y = jnp.linspace(-4, 4, 4001)
  alpha, sigma = (a[times][:, None] for a in noising.table(AUGMENT.init()["T"]))
  p, q = log_density(y, alpha, sigma, 0.0, S), log_density(y, alpha, sigma, m, s)
  middle = jnp.logaddexp(p, q) - jnp.log(2)
  each = 0.5 * (jnp.exp(p) * (p - middle) + jnp.exp(q) * (q - middle)).sum(1) * (y[1] - y[0])
  return jnp.sum(chance * each)


def test_d_at_its_best_pays_for_the_joint_divergence():
  """Goodfellow et al. 2014, Thm. 1, of (y, t): 2 ln 2 - 2 JS. And t has to be told."""
  times = AUGMENT.init()["t"]
  for m, s in ((0.3, 0.1), (0.0, 0.3)):
    loss, *_ = play(m, s)
    expected = 2 * np.log(2) - 2 * js(m, s, times, jnp.full(64, 1 / 64))
    assert loss == pytest.approx(float(expected), abs=0.02)
    assert play(m, s, deaf=True)[0] > loss + 0.02


def test_nothing_leaks_only_equals_are_at_the_bottom():
  """Wang et al. 2022, Thm. 2: the divergence of (y, t) is zero of equals alone."""
  times = jnp.arange(61)
  chance = jnp.concatenate([jnp.ones(1) / 2, noising.chances(jnp.int32(60))[:60] / 2])
  value = jit(jax.value_and_grad(lambda m, s: js(m, s, times, chance), (0, 1)))
  bottom, slopes = value(0.0, S)
  assert abs(bottom) < 1e-6 and np.abs(slopes).max() < 1e-3
  for m in (-0.5, -0.05, 0.0, 0.05, 0.5):
    for s in (0.05, 0.08, 0.1, 0.12, 0.3):
      gap, (to_m, to_s) = value(m, s)
      if (m, s) != (0.0, S):
        assert gap > 1e-4
      if m:
        assert to_m * m > 0  # downhill is where the data are
      elif s != S:
        assert to_s * (s - S) > 0
  # G itself, at the best D of its own: no slope among equals.
  assert all(abs(v) < 1e-6 for v in play(0.0, S)[2].values())
  assert play(0.3, S)[2]["m"] > 0.1


def test_far_apart_there_is_a_slope_where_there_was_none():
  """Wang et al. 2022, Sec. 3.3: JS of narrow Gaussians saturates, the diffused does not."""
  slope = jit(jax.grad(lambda m, s, t: js(m, s, t, jnp.ones(1))))
  clean, late = (abs(float(slope(1.2, S, jnp.array([t])))) for t in (0, 60))
  assert clean < 1e-4 < 0.1 < late


def test_penalties_take_slopes_through_the_diffusion():
  class Linear(nn.Module):
    timed: bool = True

    @nn.compact
    def __call__(self, x, t=None):
      return 3 * x[:, 0] + 0 * t

  seen = {}

  def penalty(D, real, fake, key):
    seen["slope"] = penalties.squared_slope(D, real)
    return jnp.float32(0)

  model = GAN(Gen(), Linear(), losses.hinge, (Penalty(penalty),), z_dim=1, augment=AUGMENT)
  stats = {"gen": {}, "disc": {}, "augment": AUGMENT.init()}
  params = {"gen": {"m": jnp.float32(0), "s": jnp.float32(1)}, "disc": {}}
  state, x = core.State(jnp.int32(0), params, stats, {}, {}, None), jnp.ones((400, 1))
  model.penalise(model.penalties[0], state, {"x": x}, x, example_keys(KEY, 400))
  alpha = np.asarray(noising.table(stats["augment"]["T"])[0])
  possible = {round(float(9 * alpha[t] ** 2), 4) for t in np.asarray(stats["augment"]["t"])}
  assert {round(float(v), 4) for v in seen["slope"]} == possible


# The game.


SMALL = dict(
  name="models.gan.GAN",
  z_dim=2,
  gen=dict(name="nets.mlp.Generator", **games.MLP),
  disc=dict(name="nets.mlp.Discriminator", timed=True, **games.MLP),
  rule=dict(name="adversarial.losses.relativistic"),
  penalties=[dict(name="models.gan.Penalty", every=2, fn=dict(name="adversarial.penalties.r1"))],
  augment=dict(name="adversarial.noising.Noising", every=2, kimg=0.05, target=-2.0),
)


@functools.cache
def steppers():
  model = games.build(SMALL)
  tx = {g: optax.sgd(0.01) for g in ("gen", "disc")}
  whole, parts = (jit(core.make_step(model, tx, {}, k), static_argnums=0) for k in (1, 2))
  first = jit(core.make_init(model, tx, ()))(games.batch("gan"), KEY)
  return model, first, whole, parts


def test_a_batch_in_parts_sees_the_same_times():
  model, one, whole, parts = steppers()
  two, lengths = one, []
  for i in range(6):
    turn, batch = core.turn(model, i), games.batch("gan")
    one, metrics = whole(turn, one, batch, KEY)
    two, _ = parts(turn, two, batch, KEY)
    lengths.append(int(metrics["disc/T"]))
    assert same(one.stats["augment"], two.stats["augment"])
  # Always above the target: 16 of 50 examples, every second step.
  assert lengths == [10, 10, 327, 327, 644, 644]
  pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_data_alone_are_clean():
  model, state, *_ = steppers()
  batch = core.on_device(games.batch("gan"))
  logits = model.discriminate(state, batch, batch["x"], example_keys(KEY, 8))[0]
  clean = model.disc.apply(state.variables("disc"), batch["x"], t=jnp.zeros(8))
  assert same(logits, clean)
  late = model.disc.apply(state.variables("disc"), batch["x"], t=jnp.full(8, 500))
  assert np.abs(late - clean).max() > 1e-3


NETS = [
  dict(name="nets.stylegan2.Discriminator", base=64, most=8),
  dict(name="nets.stylegan2.Discriminator", base=64, most=8, classes=3),
  dict(name="nets.convs.Discriminator", width=4),
  dict(name="nets.convs.Discriminator", width=4, classes=3),
  dict(name="nets.r3gan.Discriminator", widths=(8, 8), groups=(1, 1), blocks=1),
  dict(name="nets.r3gan.Discriminator", widths=(8, 8), groups=(1, 1), blocks=1, classes=3),
]


@pytest.mark.parametrize("spec", NETS)
def test_every_discriminator_hears_t(spec):
  disc = games.build(spec | dict(timed=True))
  x = jax.random.normal(KEY, (4, 8, 8, 1))
  y = {"y": jnp.arange(4) % 3} if "classes" in spec else {}
  variables = jit(disc.init)(KEY, x, **y)
  run = jit(lambda t: disc.apply(variables, x, t=t, **y))
  late = run(jnp.full(4, 300))
  assert late.shape == (4,) and np.abs(late - run(jnp.zeros(4))).max() > 1e-5
  deaf = games.build(spec)
  less = jax.tree.leaves(jax.eval_shape(deaf.init, KEY, x, **y))
  size = lambda leaves: sum(leaf.size for leaf in leaves)
  assert size(less) < size(jax.tree.leaves(variables))


def test_who_is_not_told_is_refused():
  with pytest.raises(UserError, match="model.disc.timed=true"):
    GAN(Gen(), Best(0.0, 1.0, timed=False), losses.hinge, augment=Noising())
