"""The step: what moves, what stays, and what a batch's split changes."""

import functools
import sys
from typing import Any, NamedTuple

import games
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import apart, game, jit, same

from jaxgen import core, sharding
from jaxgen.config import build
from jaxgen.keys import example_keys

SEED = jax.random.key(3)


def everybody(model):
  return tuple(range(len(model.players)))


@pytest.mark.parametrize("name", ["gan", "norms"])
def test_a_move_changes_its_own_group_alone(name):
  model, state, step = game(name)
  for i, player in enumerate(model.players):
    new, _ = step((i,), state, games.batch(name), SEED)
    for group in state.params:
      mine = group == player.moves
      assert same(new.params[group], state.params[group]) != mine
      assert same(new.stats[group], state.stats[group]) != (mine and bool(state.stats[group]))
    assert new.step == 1 and not new.skips.any()


def test_a_move_changes_its_own_optimiser_alone():
  model, tx = build(games.SPECS["gan"]), optax.adam(1e-3)
  tx = {"gen": tx, "disc": tx}
  batch = games.batch("gan")
  state = games.filled(jax.eval_shape(core.make_init(model, tx, ()), batch, SEED))
  step = jit(core.make_step(model, tx, {}), static_argnums=0)
  for i, player in enumerate(model.players):
    new, _ = step((i,), state, batch, SEED)
    for group in state.opt:
      assert same(new.opt[group], state.opt[group]) != (group == player.moves)


def test_a_player_sees_what_the_one_before_it_did():
  model, state, step = game("gan")
  batch = games.batch("gan")
  both, _ = step((0, 1), state, batch, SEED)
  first, _ = step((0,), state, batch, SEED)
  alone, _ = step((1,), state, batch, SEED)
  assert apart(both.params["disc"], first.params["disc"]) < 1e-6
  assert apart(both.params["gen"], alone.params["gen"]) > 1e-4
  then, _ = step((1,), first.replace(step=state.step), batch, SEED)
  assert apart(both.params["gen"], then.params["gen"]) < 1e-6


@pytest.mark.parametrize("name, parts", [("unet", 4), ("vae", 2), ("gan", 2), ("gan", 4)])
def test_accumulated_parts_are_the_big_batch(name, parts):
  model, state, whole = game(name)
  _, _, split = game(name, parts)
  args = everybody(model), state, games.batch(name), SEED
  (a, metrics), (b, others) = whole(*args), split(*args)
  # Means of examples add up. (The GAN's pairwise metrics are not such.)
  for k in metrics:
    if k.endswith(("/loss", "/grad_norm", "/kl", "/recon")):
      np.testing.assert_allclose(others[k], metrics[k], rtol=2e-6)
  assert apart(b.params, a.params) < 5e-6  # of the worst leaf
  assert apart(a.params, state.params) > 1e-3
  assert apart(b.ema, a.ema) < 5e-6


def test_the_state_and_the_place_in_the_batch_are_all_that_decides():
  model, state, step = game("unet")
  batch = games.batch("unet")
  one, m = step((0,), state, batch, SEED)
  two, n = step((0,), state, batch, SEED)
  assert same((one, m), (two, n))
  later, m_later = step((0,), state.replace(step=state.step + 1), batch, SEED)
  assert m_later["net/loss"] != m["net/loss"]
  keys = lambda n: jax.random.key_data(example_keys(SEED, n))
  np.testing.assert_array_equal(keys(3), keys(8)[:3])
  assert len(np.unique(keys(8), axis=0)) == 8


def test_four_devices_do_what_one_does(tmp_path):
  four, one = games.on_four_devices(__file__, tmp_path), record()
  assert four["devices"] == 4 and set(one) | {"devices"} == set(four)
  for k, v in one.items():
    if k.endswith("/loss"):
      np.testing.assert_allclose(four[k], v, rtol=2e-6, err_msg=k)
    else:
      # (Gradients through batch norm lose digits; local norms lose them all.)
      assert apart(four[k], v) < 1e-3, k


def record():
  """Losses, and leaves after the step, on all devices there are."""
  mesh, leaves = sharding.make_mesh(), {}
  for name in ("unet", "norms"):
    model, state, step = game(name)
    batch = games.batch(name)
    if mesh.size > 1:  # on one, the programs of the other tests will do
      state = jax.device_put(state, sharding.replicated(mesh))
      batch = sharding.shard_batch(batch, mesh)
    new, metrics = step(everybody(model), state, batch, SEED)
    # Statistics of norms: those of the batch as a whole, or they would differ.
    tree = jax.tree_util.tree_leaves_with_path({"params": new.params, "stats": new.stats})
    leaves |= {f"{name}{jax.tree_util.keystr(k)}": np.asarray(v) for k, v in tree}
    leaves |= {f"{name}/{k}": np.asarray(v) for k, v in metrics.items() if k.endswith("/loss")}
  return leaves


def test_turns_of_critics_and_lazy_players():
  players = [core.Player(p, p, None, every) for p, every in (("d", 1), ("lazy", 4), ("g", 3))]
  turns = [core.turn(type("Game", (), {"players": players}), i) for i in range(13)]
  assert [turns[0], turns[12]] == [(0, 1, 2)] * 2
  assert [i for i, turn in enumerate(turns) if 1 in turn] == [0, 4, 8, 12]
  assert [i for i, turn in enumerate(turns) if 2 in turn] == [0, 3, 6, 9, 12]
  assert all(turn[0] == 0 and list(turn) == sorted(turn) for turn in turns)


def test_lazy_penalty_weighs_what_the_eager_one_does():
  every, lr = 4, 1.0
  r1 = dict(name="adversarial.penalties.r1", gamma=3.0)
  total = {}
  for k in (1, every):
    penalty = dict(name="models.gan.Penalty", fn=r1, every=k)
    model = build(games.SPECS["gan"] | dict(gen_every=every, penalties=[penalty]))
    tx = {g: optax.sgd(lr) for g in ("gen", "disc")}
    batch = games.batch("gan")
    state = games.filled(jax.eval_shape(core.make_init(model, tx, ()), batch, SEED))
    move = {
      i: jit(functools.partial(core.move, p, tx))
      for i, p in enumerate(model.players)
      if p.moves == "disc"
    }
    moves = []
    for i in range(every):  # from the same state every time
      keys = example_keys(jax.random.fold_in(SEED, i), games.BATCH)
      for j in move.keys() & set(core.turn(model, i)):
        new, *_ = move[j](state, batch, keys)
        moves.append(jax.tree.map(jnp.subtract, state.params["disc"], new.params["disc"]))
    assert len(moves) == (every if k == 1 else every + 1)
    total[k] = jax.tree.map(lambda *x: sum(x) / lr, *moves)
    # R1 reads real data alone, so that nothing but the weight can differ.
    if k == every:
      assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(moves[1])) > 1e-3
  assert apart(total[every], total[1]) < 1e-5


class Fragile(NamedTuple):
  """Two players; "x" decides what is wrong with the second one's move."""

  sampled: Any = ("a", "b")
  knobs: Any = ()

  @property
  def players(self):
    return core.Player("a", "a", self.first), core.Player("b", "b", self.second)

  def init(self, batch, key):
    w = {"u": jnp.ones(3), "v": jnp.ones(2)}
    return {"a": w, "b": w}, {"a": {"n": jnp.float32(0)}, "b": {}}

  def first(self, state, batch, key):
    loss = sum(jnp.sum(x**2) for x in jax.tree.leaves(state.params["a"]))
    stats = state.stats | {"a": {"n": state.stats["a"]["n"] + 1}}
    return loss, (stats, {})

  def second(self, state, batch, key):
    x, b = batch["x"].mean(), state.params["b"]
    # x = 0: a finite loss, finite gradients for u, and NaN for v alone.
    return jnp.sum(b["u"] ** 2) + jnp.sum(jnp.sqrt(x * b["v"])), (state.stats, {})


@functools.cache
def fragile(accumulate):
  model, tx = Fragile(), optax.adam(0.1)
  tx = {"a": tx, "b": tx}
  half = {"main": lambda step: jnp.float32(0.5)}
  state = core.make_init(model, tx, half)({"x": jnp.ones(4)}, SEED)
  step = jit(core.make_step(model, tx, half, accumulate), static_argnums=0)
  return state, lambda turn, state, x: step(turn, state, {"x": jnp.float32(x)}, SEED)[0]


# The bad player after the good one, and before.
@pytest.mark.parametrize("turn, accumulate", [((0, 1), 1), ((1, 0), 1), ((0, 1), 2)])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_bad_update_leaves_no_trace(bad, turn, accumulate):
  state, step = fragile(accumulate)
  step = functools.partial(step, turn)
  good = step(state, np.ones(4))
  assert good.step == 1 and not good.skips.any()
  assert not same(good.params["a"], state.params["a"])
  # One example is enough; zero takes all, or the mean is not zero.
  x = np.full(4, bad) if bad == 0 else np.array([1, 1, bad, 1])
  skipped = step(good, x)
  assert same(skipped.replace(step=good.step, skips=good.skips), good)
  assert skipped.step == 2 and skipped.skips.tolist() == [1, 1]
  again = step(skipped, x)
  assert again.step == 3 and again.skips.tolist() == [2, 2]
  well = step(again, np.ones(4))
  assert well.step == 4 and well.skips.tolist() == [0, 2]
  assert not same(well.params, good.params)


def test_bytes_become_floats_once_and_come_back():
  x = np.arange(256, dtype=np.uint8)
  batch = {"x": x, "y": np.arange(256, dtype=np.int32), "z": np.float32([0.5])}
  for scale in (core.on_device, jax.jit(core.on_device)):
    out = scale(batch)
    exact = (x.astype(np.float64) - 127.5) / 127.5
    np.testing.assert_allclose(out["x"], exact, rtol=2**-23, atol=0)
    assert out["x"].dtype == jnp.float32
    assert out["x"][0] == -1 and out["x"][255] == 1
    np.testing.assert_array_equal(out["x"], -out["x"][::-1])
    np.testing.assert_array_equal(np.round((out["x"] + 1) * 127.5), x)
    assert same((out["y"], out["z"]), (batch["y"], batch["z"]))


def test_bf16_computes_but_does_not_remember():
  model, state, step = game("half")
  _, full, exact = game("unet")
  batch = games.batch("half")
  assert same(state.params, full.params)
  new, metrics = step((0,), state, batch, SEED)
  _, expected = exact((0,), full, batch, SEED)
  for leaf in jax.tree.leaves((new.params, new.opt, new.ema)):
    assert leaf.dtype == jnp.float32
  assert metrics["net/loss"].dtype == jnp.float32
  # The same draws, so that only the arithmetic differs.
  np.testing.assert_allclose(metrics["net/loss"], expected["net/loss"], rtol=0.02)
  assert metrics["net/loss"] != expected["net/loss"]
  np.testing.assert_allclose(metrics["net/grad_norm"], expected["net/grad_norm"], rtol=0.05)


def test_init_averages_what_is_sampled_and_moved():
  model = build(games.SPECS["gan"])
  tx = {"gen": optax.adam(1.0), "disc": optax.adam(1.0)}
  state = core.make_init(model, tx, ("b", "a"))(games.batch("gan"), SEED)
  assert sorted(state.ema) == ["a", "b"] and list(state.ema["a"]) == ["gen"]
  assert same(state.ema["a"]["gen"], state.params["gen"])
  shift = jax.tree.map(lambda x: x + 1, state.ema["a"])
  seen = state.replace(ema=state.ema | {"a": shift}).averaged("a")
  assert same(seen.params["gen"], shift["gen"])
  assert same(seen.params["disc"], state.params["disc"])


def test_optional_members_are_listed():
  classifier = build(dict(name="models.classifier.Classifier", net=None))
  assert core.trait(classifier, "sample") is None and core.trait(classifier, "cond") == {}
  assert core.trait(build(games.SPECS["vae"]), "classes") == 3
  with pytest.raises(KeyError):
    core.trait(classifier, "smaple")


if __name__ == "__main__":
  np.savez(sys.argv[1], devices=jax.device_count(), **record())
