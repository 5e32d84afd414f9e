"""GANs with everything on: split, stopped, sampled, looked into."""

import dataclasses
import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import apart, filled, jit, on_four_devices, same
from scipy import stats as laws

from jaxgen import core, sharding
from jaxgen.adversarial import diagnostics, losses, penalties, prior
from jaxgen.adversarial.ada import ADA
from jaxgen.adversarial.path import PathLength
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.keys import example_keys, fold, normal
from jaxgen.models.gan import GAN, Penalty

SEED = jax.random.key(11)
B, Z, K, SIDE = 16, 4, 3, 4


class Gen(nn.Module):
  """Styles, their average, noise, batch norm: one layer of each."""

  knobs = {"psi": 1.0}
  momentum: float = 0.9

  def setup(self):
    self.f = nn.Dense(5)
    self.label = self.param("label", nn.initializers.normal(), (K, 5))
    # (No bias where batch norm or a difference of logits cancels it.)
    self.first, self.last = nn.Dense(6, False), nn.Dense(SIDE * SIDE)
    self.norm = nn.BatchNorm(momentum=self.momentum)
    self.w_avg = self.variable("average", "w_avg", jnp.zeros, (5,))

  def map(self, z, y=None, psi=1.0):
    y = jax.nn.one_hot(y, K) if jnp.ndim(y) == 1 else y
    w = jnp.tanh(self.f(z) + y @ self.label)
    if self.is_mutable_collection("average"):
      self.w_avg.value = 0.9 * self.w_avg.value + 0.1 * jnp.mean(w, 0)
    return jnp.repeat((self.w_avg.value + psi * (w - self.w_avg.value))[:, None], 2, 1)

  def synthesize(self, ws, key=None):
    h = self.first(ws[:, 0])
    if key is not None:
      h += 0.1 * normal(key, (6,))
    moving = self.is_mutable_collection("batch_stats")
    h = jnp.tanh(self.norm(h, use_running_average=not moving))
    x = self.last(jnp.concatenate([h, ws[:, 1]], -1))
    return jnp.tanh(x).reshape(-1, SIDE, SIDE, 1)

  def __call__(self, z, y=None, key=None, psi=1.0):
    return self.synthesize(self.map(z, y, psi), key)


class Disc(nn.Module):
  """Spectral norm and minibatch deviation: one layer of each."""

  def setup(self):
    self.kernel = self.param("kernel", nn.initializers.normal(), (SIDE * SIDE, 6))
    self.last = nn.Dense(K, False)
    self.u = self.variable("spectral", "u", jnp.ones, (6,))
    self.sigma = self.variable("spectral", "sigma", jnp.ones, ())

  def embed(self, x, y=None):
    u = jax.lax.stop_gradient(self.u.value)
    W = jax.lax.stop_gradient(self.kernel)
    v = W @ u / jnp.linalg.norm(W @ u)
    u = W.T @ v / jnp.linalg.norm(W.T @ v)
    sigma = v @ self.kernel @ u
    if self.is_mutable_collection("spectral"):
      self.u.value, self.sigma.value = u, jax.lax.stop_gradient(sigma)
    return jnp.tanh(x.reshape(len(x), -1) @ self.kernel / sigma)

  def __call__(self, x, y=None):
    h = self.embed(x)
    four = h.reshape(4, -1, 6)  # every len / 4-th example: on all devices
    std = jnp.sqrt(jnp.mean((four - jnp.mean(four, 0)) ** 2, 0) + 1e-8)
    std = jnp.tile(jnp.mean(std, -1, keepdims=True), (4, 1))
    logits = self.last(jnp.concatenate([h, std], -1))
    return jnp.sum(logits * jax.nn.one_hot(y, K), -1)


WHOLE = GAN(
  Gen(),
  Disc(),
  losses.hinge,
  z_dim=Z,
  classes=K,
  mixing=0.5,
  penalties=(Penalty(functools.partial(penalties.r1, gamma=1.0), 2),),
  gen_penalty=functools.partial(penalties.orthogonal, weight=0.1),
  path=PathLength(every=2),
  augment=ADA(p=0.5, kimg=0.2, scale=0.0, rotate=0.0, aniso=0.0, xfrac=0.0),
)
# A large eps: what is nearly no gradient shall be nearly no step.
TX = {group: optax.adam(1e-2, eps=1e-2) for group in ("gen", "disc")}


def data(n=B, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "x": rng.uniform(-1, 1, (n, SIDE, SIDE, 1)).astype(np.float32),
    "y": rng.integers(0, K, n, np.int32),
  }


@functools.cache
def began(model=WHOLE):
  """A state with every weight away from zero; at step 2 of a cycle of 4."""
  state = filled(jax.eval_shape(core.make_init(model, TX, ("main",)), data(), SEED))
  own = {k: part.init() for k, part in (("augment", model.augment), ("path", model.path)) if part}
  return state.replace(step=jnp.int32(2), stats=state.stats | own)


@functools.cache
def stepper():
  return jit(core.make_step(WHOLE, TX, {"main": lambda step: jnp.float32(0.5)}), static_argnums=0)


def play(state, n):
  """n steps, each with the turn and the data of its number."""
  seen = []
  for _ in range(n):
    i = int(state.step)
    state, metrics = stepper()(core.turn(WHOLE, i), state, data(seed=i), SEED)
    seen.append(metrics)
  return state, seen


def test_who_plays():
  assert [(p.name, p.moves, p.every) for p in WHOLE.players] == [
    ("disc", "disc", 1),
    ("r1", "disc", 2),
    ("gen", "gen", 1),
    ("path", "gen", 2),
  ]
  plain = dataclasses.replace(WHOLE, penalties=(), path=None, gen_every=5)
  assert [(p.name, p.every) for p in plain.players] == [("disc", 1), ("gen", 5)]


def test_all_that_is_carried_moves_and_all_that_is_told_is_there():
  first = began()
  state, (metrics, _) = play(first, 2)
  for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(first.params), strict=True):
    assert not same(a, b)
  for group, part in (("gen", "average"), ("gen", "batch_stats"), ("disc", "spectral")):
    assert apart(state.stats[group][part], first.stats[group][part]) > 1e-3
  assert state.stats["path"]["mean"] > 0
  # Two batches were counted: step 3 was the end of ADA's four.
  assert state.stats["augment"]["seen"] == 0
  moved = abs(float(state.stats["augment"]["p"]) - 0.5)
  assert moved == pytest.approx(2 * B / 200, rel=1e-4)
  of_disc = "real fake accuracy p diversity sigma_max sigma_min".split()
  assert set(metrics) == {
    *(f"{p}/{k}" for p in ("disc", "r1", "gen", "path") for k in ("loss", "grad_norm")),
    *(f"disc/{k}" for k in of_disc),
    *"gen/diversity gen/penalty path/mean skips skips_in_a_row".split(),
  }
  assert all(np.isfinite(v) for v in metrics.values())


def test_a_run_that_was_saved_goes_on_to_the_bit(tmp_path):
  straight, seen = play(began(), 5)
  half, _ = play(began(), 2)  # then 3 more, from amid a cycle of turns
  half, _ = play(half, 1)
  assert int(half.step) % 2 and half.stats["augment"]["seen"] == B
  with Checkpoints(str(tmp_path), every=1, keep=2) as checkpoints:
    checkpoints.save(5, half, {}, force=True)
    checkpoints.wait()
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), half
  )
  with Checkpoints(str(tmp_path), every=1, keep=2) as checkpoints:
    _, restored, _ = checkpoints.restore(abstract)
  assert same(restored, half)
  end, tail = play(restored, 2)
  assert same(end, straight) and same(tail, seen[3:])
  assert not same(half.stats, end.stats)


def record():
  """Two steps on all devices there are."""
  mesh = sharding.make_mesh()
  state, leaves = began(), {}
  if mesh.size > 1:
    state = jax.device_put(state, sharding.replicated(mesh))
  for i in (2, 3):
    batch = data(seed=i) if mesh.size == 1 else sharding.shard_batch(data(seed=i), mesh)
    state, metrics = stepper()(core.turn(WHOLE, i), state, batch, SEED)
    leaves |= {f"{i}/{k}": np.asarray(v) for k, v in metrics.items()}
  tree = jax.tree_util.tree_leaves_with_path({"params": state.params, "stats": state.stats})
  return leaves | {jax.tree_util.keystr(k): np.asarray(v) for k, v in tree}


def test_four_devices_do_what_one_does(tmp_path):
  four, one = on_four_devices(__file__, tmp_path), record()
  assert four["devices"] == 4 and set(one) | {"devices"} == set(four)
  for k, v in one.items():
    np.testing.assert_allclose(four[k], v, rtol=2e-4, atol=2e-5, err_msg=k)


def view(model=WHOLE):
  return began(model), core.on_device(data()), example_keys(SEED, B)


@pytest.mark.parametrize("rule", [losses.relativistic, losses.hinge])
def test_only_relative_rules_ask_for_real_logits(rule):
  model = dataclasses.replace(WHOLE, rule=rule, augment=None, gen_penalty=None, path=None)
  state, batch, keys = view(model)
  loss = jit(lambda x: model.gen_loss(state, batch | {"x": x}, keys)[0])

  @jit
  def logits():
    fake, _ = model.generate(state, batch, fold(keys, 0))
    return [model.disc.apply(state.variables("disc"), x, y=batch["y"]) for x in (batch["x"], fake)]

  real, fake = (np.asarray(x, np.float64) for x in logits())
  expected = np.log1p(np.exp(real - fake)).mean() if rule is losses.relativistic else -fake.mean()
  np.testing.assert_allclose(loss(batch["x"]), expected, rtol=1e-4)
  # Who looks at no real logits does not mind what they are.
  assert np.isnan(loss(np.nan * batch["x"])) == (rule is losses.relativistic)


def test_penalties_see_what_d_sees():
  class Shift:
    init, update = (lambda self: {}), None

    def __call__(self, x, key, stats):
      return 2 * x + normal(key, x.shape[1:])

  told = {}

  def penalty(D, real, fake, key):
    told["same"] = jnp.all(D(real) == D(real))  # draws do not change
    told["other"] = jnp.any(D(real) != D(fake))
    slope = lambda f: jnp.mean(penalties.squared_slope(f, real))
    told["slope"] = slope(D)
    return jnp.float32(0)

  model = dataclasses.replace(WHOLE, augment=Shift(), penalties=(Penalty(penalty),), path=None)
  state, batch, keys = view(model)

  @jit
  def see():
    model.penalise(model.penalties[0], state, batch, -batch["x"], keys)
    k = fold(fold(keys, 6), 0)
    D = lambda x: model.disc.apply(
      state.variables("disc"), 2 * x + normal(k, x.shape[1:]), y=batch["y"]
    )
    return told, jnp.mean(penalties.squared_slope(D, batch["x"]))

  told, expected = see()
  assert told["same"] and told["other"] and told["slope"] > 0
  np.testing.assert_allclose(told["slope"], expected, rtol=1e-4)


def test_styles_are_mixed_from_some_layer_on():
  n, layers = 600, 5
  a = jnp.zeros((n, layers, 2))
  keys = example_keys(SEED, n)
  run = jit(prior.mix_styles, static_argnums=3)
  ws = np.asarray(run(a, a + 1, keys, 0.9))
  assert (ws[..., 0] == ws[..., 1]).all()
  own = layers - ws[..., 0].sum(1)  # how many layers keep the first style
  assert (ws[..., 0] == (np.arange(layers) >= own[:, None])).all()
  share = np.bincount(own.astype(int), minlength=6) / n
  assert share[0] == 0 and abs(share[5] - 0.1) < 0.05
  assert np.abs(share[1:5] - 0.9 / 4).max() < 0.08
  assert (np.asarray(run(a, a + 1, keys, 0.0)) == 0).all()


def test_truncated_latents():
  n = 4000
  keys = example_keys(SEED, n)
  draw = jit(prior.truncated_normal, static_argnums=1)
  few = keys[:32]  # op by op: whole programs may round in their own ways
  assert same(prior.truncated_normal(few, Z, np.inf), normal(few, (Z,)))
  for bound in (0.04, 0.5, 2.0):
    z = np.asarray(draw(keys, Z, jnp.float32(bound)))
    assert np.abs(z).max() <= np.float32(bound)
    law = laws.truncnorm(-bound, bound)
    assert laws.kstest(z.ravel(), law.cdf).pvalue > 1e-3
  assert not np.asarray(draw(keys, Z, jnp.float32(0))).any()
  assert np.asarray(draw(keys, Z, jnp.float32(np.inf))).max() > 2
  assert draw._cache_size() == 1


def test_latents_and_weights_of_labels_can_be_given():
  state, batch, keys = view()
  sample = jit(WHOLE.sample)
  x = sample(state, batch, keys)
  z = normal(keys, (Z,))
  np.testing.assert_allclose(sample(state, batch | {"z": z}, keys), x, atol=1e-5)
  hot = jax.nn.one_hot(batch["y"], K)
  np.testing.assert_allclose(sample(state, batch | {"y": hot}, keys), x, atol=1e-6)
  half = sample(state, batch | {"y": (hot + jnp.roll(hot, 1, 1)) / 2}, keys)
  assert apart(half, x) > 1e-2
  assert WHOLE.knobs == {"truncation": np.inf, "psi": 1.0}
  one = sample(state, batch, keys, psi=jnp.float32(0))
  # Of the mean style alone: only the noise tells samples apart.
  assert one.std(0).max() < x.std(0).max() / 2
  other = sample(state, batch, fold(keys, 3))
  assert apart(other, x) > 1e-2


@pytest.mark.parametrize("truncation", [np.inf, 0.3])
def test_settled_statistics_are_plain_averages(truncation):
  state, _, _ = view()
  n = 3
  keys, y = jax.random.split(SEED, n), np.arange(n * B).reshape(n, B) % K

  @jit
  def moments(key, labels):
    k = example_keys(key, B)
    z = prior.truncated_normal(k, Z, truncation)
    ws = WHOLE.gen.apply(state.variables("gen"), z, labels, method="map")
    h = ws[:, 0] @ state.params["gen"]["first"]["kernel"]
    h += 0.1 * normal(fold(k, 1), (6,))
    return jnp.mean(h, 0), jnp.var(h, 0)

  means, variances = zip(*map(moments, keys, y), strict=True)
  settle = jit(lambda state, truncation: WHOLE.settle(state, keys, y, truncation))
  new = settle(state, jnp.float32(truncation))
  got = new.stats["gen"]["batch_stats"]["norm"]
  np.testing.assert_allclose(got["mean"], np.mean(means, 0), atol=1e-5)
  np.testing.assert_allclose(got["var"], np.mean(variances, 0), rtol=1e-4)
  # Nothing else changes; and the momentum says nothing.
  put = lambda s: s.replace(stats=s.stats | {"gen": state.stats["gen"]})
  assert same(put(new), state)
  slow = dataclasses.replace(WHOLE, gen=Gen(momentum=0.999))
  again = jit(slow.settle)(state, keys, y, jnp.float32(truncation))
  assert apart(again.stats["gen"]["batch_stats"], {"norm": got}) < 1e-3
  # A net without batch norm has nothing to settle.
  bare = state.replace(stats=state.stats | {"gen": {}})
  assert WHOLE.settle(bare, keys, y) is bare


def test_overfitting_by_hand():
  m = diagnostics.overfitting(
    *map(jnp.float32, ([3.0, 1.0, 2.0, 2.0], [1.0, 0.0, 2.0, -1.0], [-2.0, 0.0, -1.0, -1.0]))
  )
  # Pairs: of 16, 12 ranked by training data and 3 ties.
  assert m["rank"] == (12 + 1.5) / 16
  assert m["overfit"] == pytest.approx((2 - 0.5) / (2 + 1))
  assert m["sign_real"] == 1 and m["sign_held"] == 0.25
  nothing = diagnostics.overfitting(*jnp.zeros((3, 4)))
  assert nothing["rank"] == 0.5 and nothing["overfit"] == 0


def test_class_diversity_by_hand():
  rng = np.random.default_rng(0)
  y = np.array([0] * 9 + [1] * 9 + [2])
  real = rng.normal(size=(19, 4))
  fake = real * np.array([0.5] * 9 + [0.1] * 9 + [7.0])[:, None] + 3
  got = diagnostics.class_diversity(jnp.float32(real), jnp.float32(fake), y, 4)
  # Class 2 has one example, and class 3 none: they say nothing.
  assert got["class_diversity_min"] == pytest.approx(0.1, rel=1e-3)
  assert got["class_diversity"] == pytest.approx(0.3, rel=1e-3)
  alone = diagnostics.class_diversity(*jnp.ones((2, 3, 4)), np.arange(3), 4)
  assert set(map(float, alone.values())) == {1.0}


def test_a_probe_tells_who_was_trained_on():
  state, batch, keys = view()
  held = core.on_device(data(seed=1))
  probe = jit(WHOLE.probe)
  m = probe(state, batch, held, keys)
  names = "real held fake sign_real sign_held rank overfit diversity"
  assert set(m) == {*names.split(), "class_diversity", "class_diversity_min"}
  assert all(np.isfinite(v) and v.shape == () for v in m.values())
  even = probe(state, batch, batch, keys)
  assert even["rank"] == 0.5 and even["overfit"] == 0
  # The real data's neighbours, against those of samples.
  fake = jit(WHOLE.sample)(state, batch, fold(keys, 0))
  features = jit(WHOLE.features)

  def mean(x):
    e = np.asarray(features(state, batch, x))
    return np.linalg.norm(e - np.roll(e, 1, 0), axis=1).mean()

  np.testing.assert_allclose(m["diversity"], mean(fake) / mean(batch["x"]), rtol=1e-3)


def test_sigmas_wherever_they_are():
  a = {"sigma": jnp.float32(3), "u": jnp.ones(2)}
  b = {"sigma": jnp.float32([1.0, 2.0])}
  norm = {"Conv_0/kernel/sigma": jnp.float32([[5.0]])}
  stats = {"spectral": {"a": a, "b": b}, "batch_stats": norm}
  assert diagnostics.singular_values(stats) == {"sigma_max": 5, "sigma_min": 2}
  assert diagnostics.singular_values({"batch_stats": {"mean": jnp.ones(2)}}) == {}


def test_what_does_not_go_together():
  one = Penalty(penalties.r1)
  with pytest.raises(UserError, match="r1, r1: each function once"):
    dataclasses.replace(WHOLE, penalties=(one, one))
  mlp = build(dict(name="nets.mlp.Generator"))
  for kw in (dict(mixing=0.9, path=None), dict(mixing=0.0)):
    with pytest.raises(UserError, match="has no `map`"):
      dataclasses.replace(WHOLE, gen=mlp, **kw)


if __name__ == "__main__":
  np.savez(sys.argv[1], devices=jax.device_count(), **record())
