"""GAN-Control's two phases as games: who learns what, and what does not move."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import filled, jit, on_four_devices, same

from jaxgen import config, core, sharding
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.keys import example_keys, normal
from jaxgen.models.gan_control import Judge, UserFunction, user_function

KEY, B = jax.random.key(3), 8
JUDGE = dict(
  name="models.gan_control.Judge", net=dict(name="nets.convs.Classifier", width=4, classes=10)
)


def phase(arg, judge=True, **changes):
  """-> model, a state of weights away from zero, a batch."""
  c = config.load(f"configs/gan_control.py:{arg}").unlock()
  gan = c.model.generator if "generator" in c.model else c.model
  gan.gen.update(base=32, most=8)
  gan.disc.update(base=32, most=8)
  gan.gen.mapper.hidden = 8
  if judge:  # in place of the attribute that comes first
    gan.groups[0]["predictor"] = JUDGE
  c.model.update(changes)
  model = build(c.model)
  batch = {
    "x": np.random.default_rng(0).integers(0, 256, (B, 8, 8, 1), np.uint8),
    "y": np.arange(B, dtype=np.int32),
  }
  tx = {p.moves: optax.sgd(0.1) for p in model.players}
  state = filled(jax.eval_shape(core.make_init(model, tx, ("main",)), batch, KEY))
  if "encoder" in state.stats:
    ones = jax.tree.map(jnp.ones_like, state.stats["encoder"])
    state = state.replace(stats=state.stats | {"encoder": ones})
  step = core.make_step(model, tx, {"main": lambda step: jnp.float32(0.5)})
  return model, state, batch, step


def step_of(arg):
  """The state after a move of the generator, or of the encoder."""
  model, state, batch, step = phase(arg)
  mesh = sharding.make_mesh()
  turn = tuple(i for i, p in enumerate(model.players) if p.name in ("gen", "encoder"))
  place = lambda tree: jax.device_put(tree, sharding.replicated(mesh))
  batch = sharding.shard_batch(batch, mesh)
  run = jit(step, static_argnums=0)
  again = lambda state: run(turn, place(state), batch, place(KEY))
  return state, *again(state), again


@pytest.fixture(scope="module", params=["debug", "debug-encoder"])
def game(request):
  return request.param, *step_of(request.param)


def test_judges_and_generators_that_are_frozen_do_not_move(game):
  arg, before, after, metrics, *_ = game
  mover = "encoder" if "encoder" in arg else "gen"
  for group in before.params:
    assert same(before.params[group], after.params[group]) == (group != mover), group
  assert set(after.ema["main"]) == {mover} and "predictors" not in after.opt
  assert all(np.isfinite(v) for v in jax.device_get(metrics).values())
  if "encoder" in arg:
    named = [metrics[f"encoder/{name}"] for name in ("slant", "thickness")]
    np.testing.assert_allclose(metrics["encoder/loss"], sum(named), rtol=1e-6)
    assert min(named) > 0
  else:
    assert {"gen/slant_same", "gen/thickness_rest"} <= set(metrics)
    assert not any("other" in name for name in metrics)


def test_a_step_is_the_same_from_a_state_that_was_saved(game):
  """Pairs and draws follow from the step alone: nothing else is remembered."""
  _, before, after, _, step = game
  one, two = (step(state)[0] for state in (after, jax.tree.map(np.asarray, after)))
  assert same(one, two) and int(one.step) == int(before.step) + 2


@pytest.mark.slow
def test_four_devices_step_as_one(game, tmp_path):
  arg, _, after, *_ = game
  if arg != "debug":
    pytest.skip("its pairs are none: nothing ties examples together")
  theirs = on_four_devices(__file__, tmp_path)
  assert len(theirs) == len(jax.tree.leaves(after.params))
  for name, ours in numbered(after):
    np.testing.assert_allclose(theirs[name], ours, rtol=2e-3, atol=2e-4, err_msg=name)


def numbered(state):
  for i, leaf in enumerate(jax.tree.leaves(state.params)):
    yield str(i), np.asarray(leaf)


def test_the_generators_loss_alone_is_of_pairs():
  model, state, batch, _ = phase("debug", judge=False)
  keys = example_keys(KEY, B)
  pairs = model.pairs(keys)
  assert set(pairs) == {"slant", "thickness", "other"}
  z = normal(keys, (model.z_dim,))
  shared = np.asarray(model.paired(z, pairs))
  for name, (start, stop) in model.slices.items():
    equal = (shared[1::2, start:stop] == shared[::2, start:stop]).all(1)
    np.testing.assert_array_equal(equal, pairs[name])
  np.testing.assert_array_equal(shared[::2], z[::2])


@pytest.fixture(scope="module")
def encoder():
  model, state, _, _ = phase("debug-encoder", judge=False)
  state = dataclasses.replace(state, params={g: state.params[g] for g in model.sampled})
  return model, state, jit(model.controlled)


def test_what_is_not_asked_for_stays_to_the_bit(encoder):
  model, state, controlled = encoder
  keys, labels = example_keys(KEY, 4), {"y": jnp.arange(4)}
  nothing = {name: np.full((4, 1), np.nan, np.float32) for name in model.net.names}
  before, after = controlled(state, labels, keys, nothing)
  np.testing.assert_array_equal(before, after)
  asked = nothing | {"slant": np.float32([[0.5], [np.nan], [-0.5], [np.nan]])}
  _, after = controlled(state, labels, keys, asked)
  moved = np.abs(after - before).max((1, 2, 3)) > 1e-4
  assert moved.tolist() == [True, False, True, False]
  assert controlled._cache_size() == 1


def test_knobs_ask_for_the_same(encoder):
  model, state, controlled = encoder
  keys, batch = example_keys(KEY, 4), {"x": jnp.zeros((4, 8, 8, 1)), "y": jnp.arange(4)}
  asked = {name: np.full((4, 1), np.nan, np.float32) for name in model.net.names}
  _, want = controlled(
    state, {"y": batch["y"]}, keys, asked | {"slant": np.full_like(asked["slant"], 0.3)}
  )
  sample = jit(model.sample)
  x = sample(state, batch, keys, **model.knobs | {"slant": 0.3})
  np.testing.assert_allclose(x, want, atol=1e-5)
  assert model.knobs == {"slant": np.inf, "thickness": np.inf, "psi": 1.0}


def test_classes_and_colours_have_knobs():
  model, *_ = phase("photos-encoder", judge=False)
  assert list(model.value_knobs) == ["colour_0", "colour_1", "colour_2", "contrast"]
  wanted = model.wanted({k: np.inf for k in model.value_knobs} | {"colour_1": 0.2}, 2)
  assert np.isfinite(wanted["colour"]).tolist() == [[False, True, False]] * 2
  model, *_ = phase("digits-judge-encoder", judge=False)
  wanted = model.wanted({k: np.inf for k in model.value_knobs} | {"class": 3}, 1)
  assert wanted["class"].tolist() == [[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]]
  assert not np.isfinite(wanted["slant"]).any()


def test_values_are_scaled_by_the_first_samples():
  model, state, batch, _ = phase("debug-encoder", judge=False)
  labels, values = {"y": jnp.asarray(batch["y"])}, []
  zeros = jax.tree.map(jnp.zeros_like, state.stats["encoder"])
  state = state.replace(stats=state.stats | {"encoder": zeros})

  @jit
  def look(state, keys):
    x = model.draw(state, labels, keys)[1]
    return model.attributes(state, x)["slant"], model.moments(state, labels, keys)

  for i in range(3):
    slants, stats = look(state, example_keys(jax.random.fold_in(KEY, i), B))
    values.append(slants)
    state = state.replace(stats=stats)
  own, all_of_them = state.stats["encoder"], np.concatenate(values)
  np.testing.assert_allclose(own["mean"]["slant"], [all_of_them.mean(0)], rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(own["var"]["slant"], [all_of_them.var(0)], rtol=1e-3)
  assert own["batches"] == 3


def test_modules_of_a_strangers_config_are_not_imported(monkeypatch, tmp_path):
  (tmp_path / "faces_of_mine.py").write_text("def age(x):\n  return x.mean((1, 2))\n")
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.delenv("JAXGEN_PREDICTORS", raising=False)
  age = UserFunction("faces_of_mine.age")
  with pytest.raises(UserError, match="JAXGEN_PREDICTORS=faces_of_mine"):
    age.check()
  assert "faces_of_mine" not in sys.modules
  monkeypatch.setenv("JAXGEN_PREDICTORS", "other,faces_of_mine")
  age.check()
  np.testing.assert_array_equal(age({}, jnp.ones((2, 3, 3, 1))), [[1.0], [1.0]])
  for path, says in (("faces_of_mine.size", "no function 'size'"), ("age", "module.function")):
    with pytest.raises(UserError, match=says):
      user_function(path)


@pytest.mark.parametrize(
  "arg, changes, says",
  [
    ("debug", dict(z_dim=63), "16 \\+ 16 \\+ 32 = 64 numbers, and config.model.z_dim=63"),
    ("debug", dict(mixing=0.5), "set it to 0"),
    ("debug-encoder", dict(net=dict(names=("age",), sizes=(16,))), "'age'.*slant, thickness"),
    ("debug-encoder", dict(net=dict(sizes=(16, 8))), "8 for thickness.*16 numbers"),
  ],
)
def test_slices_that_do_not_fit(arg, changes, says):
  with pytest.raises(UserError, match=says):
    phase(arg, judge=False, **changes)


def test_batches_that_do_not_fit():
  model, *_ = phase("debug", judge=False)
  with pytest.raises(UserError, match="2 to 6 places of a batch of 7: want even numbers"):
    model.pairs(example_keys(KEY, 7))
  for size, least, most in ((4, 2, 4), (16, 2, 12), (64, 8, 48)):
    draw = jax.vmap(lambda key, size=size: model.groups[0].pairs(key, size))
    counts = 2 * np.sum(draw(jax.random.split(KEY, 400)), 1)
    assert (counts.min(), counts.max()) == (least, most)


def test_judges_say_how_sure_they_are():
  model = phase("debug")[0]
  judge = model.predictors["slant"]
  assert isinstance(judge, Judge) and judge.classes == 10 and model.sampled == ("gen", "predictors")
  np.testing.assert_allclose(judge.value(jnp.zeros((1, 10))), 0.1)


if __name__ == "__main__":
  np.savez(sys.argv[1], **dict(numbered(step_of("debug")[1])))
