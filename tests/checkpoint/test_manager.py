"""What is saved is what comes back, to the bit, whatever it is and wherever."""

import json
import os
import pathlib
import subprocess
import sys

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import xla
from test_checkpoint_damage import abstract

from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.fingerprint import fingerprint
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.checkpoint.restore import abstract_leaves, latest_meta, restore_subset
from jaxgen.config import as_json, check_config
from jaxgen.errors import UserError


@flax.struct.dataclass
class State:
  step: jax.Array
  params: dict
  stats: dict
  opt: dict
  ema: dict
  skips: jax.Array


def state(step):
  """A state that looks like one in training; its content tells its step."""
  key = jax.random.key(step)
  gen = {"w": jax.random.normal(key, (8, 16)), "b": jnp.full(4, step, jnp.bfloat16)}
  return State(
    step=jnp.int32(step),
    params={"gen": gen, "dis": {"w": gen["w"] * 2}},
    stats={
      "gen": {},
      "dis": {"key": key, "mask": gen["w"] > 0, "bytes": jnp.arange(-3, 4, dtype=jnp.int8)},
    },
    opt={"gen": optax.adam(1e-3).init(gen), "none": None},
    ema={"slow": {"gen": jax.tree.map(lambda x: x + 1, gen)}},
    skips=jnp.zeros(2, jnp.int32),
  )


def bits(tree):
  """Structure and raw bytes of every leaf: equal only if all is equal."""

  def raw(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return "key", raw(jax.random.key_data(x))
    return str(x.dtype), x.shape, np.asarray(x).tobytes()

  leaves, structure = jax.tree.flatten(tree)
  return [raw(x) for x in leaves], structure


def quiet(workdir, **kwargs):
  return Checkpoints(workdir, **{"every": 10, "log": print} | kwargs)


def test_round_trip_is_exact(tmp_path):
  config = {"sizes": (1, 2), "lr": 0.1}
  with quiet(tmp_path) as checkpoints:
    assert checkpoints.restore(abstract(state(0))) is None
    assert not checkpoints.save(9, state(9), {})
    assert checkpoints.save(10, state(10), {"config": as_json(config)})
    assert not checkpoints.save(10, state(10), {}, force=True)  # already there
    assert checkpoints.save(13, state(13), {"config": config}, force=True)
    assert checkpoints.wait() is None
    step, restored, meta = checkpoints.restore(abstract(state(0)))
    assert checkpoints.save(20, state(20), {})  # goes on after restoring
  assert step == meta["step"] == 13
  assert bits(restored) == bits(state(13))
  assert meta["config"] == {"sizes": [1, 2], "lr": 0.1}
  assert meta["versions"]["jax"] == jax.__version__
  assert steps(tmp_path) == [10, 13, 20]
  assert latest_meta(tmp_path)["step"] == 20


def test_a_saved_state_may_be_donated_at_once(tmp_path):
  spoil = jax.jit(lambda x: jax.tree.map(lambda a: a * 0 - 1, x), donate_argnums=0)
  values = jax.random.normal(jax.random.key(0), (512, 1024))
  expected = np.array(values)
  with quiet(tmp_path) as checkpoints:
    for step in (10, 20, 30):
      tree = {"a": jnp.array(values) + 0}
      checkpoints.save(step, tree, {})
      for _ in range(3):
        tree = spoil(tree)
    checkpoints.wait()
    _, restored, _ = checkpoints.restore(abstract({"a": values}))
  np.testing.assert_array_equal(restored["a"], expected)


RESHARD = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.checkpoint.fingerprint import fingerprint
def state(n, step):
  mesh = Mesh(np.array(jax.devices()[:n]), "d")
  put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, P(*axes)))
  key = jax.random.key(step)
  x = np.asarray(jax.random.normal(key, (8, 4, 12)))
  return {"a": put(x, "d"), "b": put(x, None, "d"), "c": put(x),
          "n": put(np.int32(step)), "half": put(x.astype("bfloat16"), "d"),
          "key": put(jax.random.split(key, 4), "d")}
sums = {str(fingerprint(state(n, 7))) for n in (1, 2, 4)}
assert len(sums) == 1, sums
checkpoints = Checkpoints(sys.argv[1], every=1)
for n in (1, 2, 4):
  saved = state(n, n)
  checkpoints.save(n, saved, {})
  for m in (1, 2, 4):
    target = state(m, 0)
    step, restored, _ = checkpoints.restore(jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        target))
    raw = jax.random.key_data
    for name, x in restored.items():
      assert x.sharding == target[name].sharding, name
      y = saved[name]
      x, y = (raw(x), raw(y)) if name == "key" else (x, y)
      assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), name
    assert step == n
print("resharded")
"""


def test_restores_onto_any_number_of_devices(tmp_path):
  env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla.devices(4)}
  out = subprocess.run(
    [sys.executable, "-c", RESHARD, str(tmp_path)], env=env, capture_output=True, text=True
  )
  assert out.stdout.endswith("resharded\n"), out.stdout + out.stderr


def by_hand(x):
  """The fingerprint in Python's own integers."""
  words = np.asarray(x).reshape(-1)
  size = min(words.dtype.itemsize, 4)
  words = np.frombuffer(words.tobytes(), f"<u{size}")
  total = 0
  for i, u in enumerate(words.tolist()):
    weight = (i + 0x9E3779B9) * 0x85EBCA6B % 2**32
    total += (u ^ u >> 16) * (weight ^ weight >> 15 | 1)
  return total % 2**32


@pytest.mark.parametrize(
  "dtype",
  [
    "float32",
    "bfloat16",
    "float16",
    "float8_e4m3fn",
    "bool",
    "int8",
    "uint8",
    "int16",
    "int32",
    "uint32",
    "float64",
    "int64",
    "complex64",
  ],
)
def test_fingerprint_matches_integer_arithmetic(dtype):
  with jax.enable_x64(dtype in ("float64", "int64")):
    x = jax.random.normal(jax.random.key(0), (3, 5, 7)) * 100
    if dtype == "complex64":
      x = jax.lax.complex(x, x + 1)
    x = x.astype(dtype)
    assert x.dtype == dtype
    assert fingerprint({"x": x})[0]["x"] == {"dtype": dtype, "shape": [3, 5, 7], "sum": by_hand(x)}


def test_any_single_bit_changes_the_fingerprint():
  x = np.asarray(jax.random.normal(jax.random.key(0), (4, 4)))
  before = fingerprint({"x": jnp.array(x)})[0]
  rng = np.random.default_rng(0)
  for bit in rng.permutation(x.size * 32)[:100]:
    flipped = np.frombuffer(x.tobytes(), np.uint32).copy()
    flipped[bit // 32] ^= np.uint32(1 << bit % 32)
    after = jnp.array(flipped.view(np.float32).reshape(x.shape))
    assert fingerprint({"x": after})[0] != before
  assert fingerprint({"x": jnp.array(x[::-1])})[0] != before  # places count


def test_64_bit_and_packed_leaves(tmp_path):
  with jax.enable_x64(True), quiet(tmp_path) as checkpoints:
    tree = {"a": jnp.linspace(0, 1, 7), "n": jnp.int64(2**40 + 1)}
    assert tree["a"].dtype == "float64"
    checkpoints.save(10, tree, {})
    assert bits(checkpoints.restore(abstract(tree))[1]) == bits(tree)
    with pytest.raises(TypeError, match="a is int4"):
      checkpoints.save(20, {"a": jnp.zeros(3, "int4")}, {})
    with pytest.raises(TypeError, match="a is a float, not a jax array"):
      checkpoints.save(20, {"a": 1.0}, {})


def test_keeps_the_newest_and_every_so_many(tmp_path):
  with quiet(tmp_path, keep=2, keep_every=30) as checkpoints:
    for step in range(10, 81, 10):
      assert checkpoints.save(step, {"n": jnp.int32(step)}, {})
  assert steps(tmp_path) == [30, 60, 70, 80]


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_refuses_a_state_that_is_not_finite(tmp_path, bad):
  with quiet(tmp_path) as checkpoints:
    checkpoints.save(10, state(10), {})
    sick = state(20)
    sick.params["gen"]["b"] = sick.params["gen"]["b"].at[2].set(bad)
    with pytest.raises(UserError, match="step 20.*params/gen/b.*step 10"):
      checkpoints.save(20, sick, {})
  assert steps(tmp_path) == [10]


def test_another_model_is_the_users_mistake_not_damage(tmp_path):
  checkpoints = quiet(tmp_path)
  checkpoints.save(10, state(10), {})
  wide, fewer, other = (abstract(state(0)) for _ in range(3))
  wide.params["gen"]["w"] = jax.ShapeDtypeStruct((8, 32), jnp.float32)
  del fewer.params["dis"]
  other.params["gen"]["w"] = jax.ShapeDtypeStruct((8, 16), jnp.bfloat16)
  for model, message in [
    (wide, r"params/gen/w is float32\[8, 16\].*wants float32\[8, 32\]"),
    (fewer, r"params/dis/w is float32\[8, 16\].*wants nothing"),
    (other, r"params/gen/w is float32\[8, 16\].*wants bfloat16\[8, 16\]"),
  ]:
    with pytest.raises(UserError, match=message):
      checkpoints.restore(model)
  assert steps(tmp_path) == [10]
  assert checkpoints.restore(abstract(state(0)))[0] == 10


def test_settings_that_cannot_work(tmp_path):
  with pytest.raises(UserError, match="keep at least 2"):
    quiet(tmp_path, keep=1)
  with pytest.raises(UserError, match="checkpoint.every"):
    quiet(tmp_path, every=0)
  with pytest.raises(UserError, match="keep_every"):
    quiet(tmp_path, keep_every=15)
  (tmp_path / "file").write_text("")
  for place in (tmp_path / "file", pathlib.Path("/proc/jaxgen")):
    with pytest.raises(UserError, match="cannot write to .*another workdir"):
      quiet(place)
  for ask in (quiet, latest_meta):
    with pytest.raises(UserError, match="az://b/w: a path is a folder or file, gs://"):
      ask("az://b/w")


def test_nothing_to_sample_from(tmp_path):
  with pytest.raises(UserError, match="no folder .*nowhere"):
    latest_meta(tmp_path / "nowhere")
  with pytest.raises(UserError, match="no checkpoint in .*train first, with"):
    restore_subset(tmp_path, {})
  with quiet(tmp_path) as checkpoints:
    checkpoints.save(10, state(10), {})
  with pytest.raises(UserError, match=r"no checkpoint 7 in .*: .* \[10\]"):
    restore_subset(tmp_path, {}, step=7)
  missing = {"ema": {"fast": jax.ShapeDtypeStruct((), jnp.float32)}}
  with pytest.raises(UserError, match="ema/fast is nothing of the kind"):
    restore_subset(tmp_path, missing)
  assert steps(tmp_path / "nowhere") == []


def test_meta_tells_what_can_be_read(tmp_path):
  with quiet(tmp_path) as checkpoints:
    checkpoints.save(10, state(10), {})
  prefixes = ["ema/slow", "stats/dis/key", "step"]
  step, tree, meta = restore_subset(tmp_path, lambda meta: abstract_leaves(meta, prefixes))
  expected = {
    "ema": {"slow": state(10).ema["slow"]},
    "step": jnp.int32(10),
    "stats": {"dis": {"key": jax.random.key(10)}},
  }
  assert step == 10 and bits(tree) == bits(expected)
  assert abstract_leaves(meta, ["ema/slo"]) == {}


def test_configs_as_json():
  config = ml_collections.ConfigDict(
    {
      "a": (1, (2.5, None)),
      "b": {"c": np.float32(0.5), "d": np.int64(3)},
      "e": np.arange(2),
      "f": True,
      "g": {},
    }
  )
  plain = {"a": [1, [2.5, None]], "b": {"c": 0.5, "d": 3}, "e": [0, 1], "f": True, "g": {}}
  assert as_json(config) == plain == json.loads(json.dumps(as_json(config)))
  for value in (float("inf"), np.float32("nan"), jnp.bfloat16, {1, 2}, {1: 2}):
    with pytest.raises(UserError, match=r"config\.net\.scale"):
      as_json({"net": {"scale": value}})


def test_a_run_goes_on_with_its_own_config():
  saved = as_json(
    {"steps": 10, "log": {"every": 1}, "net": {"ch": (1, 2)}, "players": [{"lr": 0.1}], "ema": {}}
  )
  check_config(
    saved,
    {
      "steps": 99,
      "log": {"every": 5, "new": 1},
      "ema": {},
      "net": {"ch": [1, 2]},
      "players": ({"lr": 0.1},),
    },
  )
  same = {
    "steps": 10,
    "log": {"every": 1},
    "net": {"ch": [1, 2]},
    "players": [{"lr": 0.1}],
    "ema": {},
  }
  for change, message in [
    ({"net": {"ch": [1, 3]}}, r"config.net.ch is \[1, 3\], but .* with \[1, 2\]: set it back"),
    ({"players": [{"lr": 0.2}]}, "config.players.0.lr is 0.2, .* with 0.1"),
    ({"seed": 1}, r"config.seed is 1, but .* with \(absent\)"),
    ({"net": {}}, r"config.net is {}, but .* with \(absent\)"),
  ]:
    with pytest.raises(UserError, match=message):
      check_config(saved, same | change)
  with pytest.raises(UserError, match="config.steps is 11"):
    check_config(saved, same | {"steps": 11}, may_change=("step",))
