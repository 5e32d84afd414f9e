"""One step on many devices: the same numbers, in a share of the memory.

What needs devices is done once, by a process with eight (see `record`).
"""

import functools
import json
import re

import games
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pod
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxgen import core, sharding
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.experiment import Compiled, Experiment

# Statistics of batches in both nets, and a gradient of a gradient.
BATCHES = games.SPECS["norms"] | dict(
  disc=dict(name="nets.stylegan2.Discriminator", most=8, base=32, layers=1, group=4, classes=3),
  rule=dict(name="adversarial.losses.nonsaturating"),
  penalties=[dict(name="models.gan.Penalty", fn=dict(name="adversarial.penalties.r1", gamma=0.1))],
)
SPECS = {k: games.SPECS[k] for k in ("unet", "vae")} | {"norms": BATCHES}
GAMES, STEPS = tuple(SPECS), 4
RECORD = """
import json, sys
sys.path.insert(0, "tests")
import test_sharding
json.dump(test_sharding.record(), open("{out}", "w"))
"""
SEED = jax.random.key(7)


class Device:
  """As much of a device as a mesh looks at."""

  def __init__(self, id: int, process_index: int):
    self.id, self.process_index = id, process_index


def shape(*sizes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(sizes, dtype)


def abstract(data, fsdp):
  return AbstractMesh((data, fsdp), sharding.AXES, axis_types=(AxisType.Auto,) * 2)


def test_what_is_left_goes_to_the_axis_that_is_zero():
  devices = [Device(i, 0) for i in range(8)]
  mesh_shape = lambda **shape: sharding.make_mesh(shape, devices).devices.shape
  assert mesh_shape(data=0, fsdp=1) == (8, 1)
  assert mesh_shape(data=0, fsdp=4) == (2, 4)
  assert mesh_shape(data=2, fsdp=0) == (2, 4)
  assert mesh_shape(data=4, fsdp=2) == (4, 2)
  assert sharding.make_mesh(None, devices).devices.shape == (8, 1)


@pytest.mark.parametrize("data, fsdp", [(3, 2), (0, 3), (0, 0), (0, 16), (1, 1), (16, 1)])
def test_a_mesh_that_does_not_fit_is_a_mistake(data, fsdp):
  with pytest.raises(UserError, match=f"mesh.fsdp={fsdp} .* 8 devices"):
    sharding.make_mesh(dict(data=data, fsdp=fsdp), [Device(i, 0) for i in range(8)])


def test_rows_of_a_process_are_those_that_its_devices_hold():
  # As a TPU is wired: numbers of devices do not follow those of hosts.
  hosts = [0, 0, 1, 1, 0, 0, 1, 1]
  devices = [Device(i, hosts[i]) for i in reversed(range(8))]
  for fsdp in (1, 2, 8):
    mesh = sharding.make_mesh(dict(data=0, fsdp=fsdp), devices)
    flat = mesh.devices.reshape(-1)  # the order in which rows are dealt out
    assert [d.process_index for d in flat] == [0] * 4 + [1] * 4
  assert sharding.batched(mesh).spec == P(sharding.AXES)


def test_leaves_are_cut_along_the_longest_axis_that_divides():
  mesh = abstract(2, 4)
  spec = lambda *sizes: sharding.leaf_sharding(shape(*sizes), mesh).spec
  assert spec(3, 3, 64, 128) == P(None, None, None, "fsdp")
  assert spec(3, 3, 128, 64) == P(None, None, "fsdp")
  assert spec(64, 64) == P("fsdp")
  assert spec(4095, 64) == P(None, "fsdp")  # the longest does not divide
  assert spec(4095, 63) == P()  # none does
  assert spec() == P()
  assert spec(sharding.SMALL) == P("fsdp")
  assert spec(sharding.SMALL - 4) == P()  # divides, but is small
  assert sharding.leaf_sharding(shape(64, 64), abstract(8, 1)).spec == P()


@pytest.mark.parametrize(
  "tx",
  [
    optax.adam(1e-3),
    optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
    optax.multi_transform(
      {"a": optax.rmsprop(1e-3), "b": optax.adam(1e-3)}, {"w": "a", "b": "b", "small": "b"}
    ),
  ],
)
def test_moments_and_averages_lie_where_their_weights_do(tx):
  params = {"net": {"w": shape(64, 128), "b": shape(8192), "small": shape(8)}}
  opt = jax.eval_shape(tx.init, params["net"])
  state = core.State(
    shape(dtype=jnp.int32),
    params,
    {"net": {"mean": shape(8192)}},
    {"net": opt},
    {"main": params},
    shape(2, dtype=jnp.int32),
  )
  placed = sharding.shardings(state, abstract(2, 4))
  assert jax.tree.structure(placed) == jax.tree.structure(state)
  own = {k: v.spec for k, v in placed.params["net"].items()}
  assert own == {"w": P(None, "fsdp"), "b": P("fsdp"), "small": P()}
  assert placed.ema["main"]["net"] == placed.params["net"]
  assert placed.stats["net"]["mean"].spec == P()
  by_shape = {leaf.shape: own[k] for k, leaf in params["net"].items()}
  for leaf, where in zip(jax.tree.leaves(opt), jax.tree.leaves(placed.opt), strict=True):
    assert where.spec == by_shape.get(leaf.shape, P())


def test_batches_that_do_not_divide_are_mistakes():
  mesh = abstract(2, 4)
  sharding.check_batch(16, 2, mesh)
  with pytest.raises(UserError, match="8 devices x accumulate=2.*such as 16"):
    sharding.check_batch(20, 2, mesh)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
  """What eight devices did: {game: {mesh: ...}}."""
  out = tmp_path_factory.mktemp("eight") / "seen.json"
  (done,) = pod.run(1, 8, RECORD.format(out=out), timeout=900)
  assert done.status == 0, done.stderr
  return json.loads(out.read_text())


@pytest.mark.parametrize("name", GAMES)
def test_losses_do_not_depend_on_the_mesh(eight, name):
  one = eight[name]["one"]["losses"]
  assert len(one) == STEPS
  for mesh in ("data", "fsdp"):
    for mine, theirs in zip(eight[name][mesh]["losses"], one, strict=True):
      for k, v in theirs.items():
        rel = 1e-5 if k.endswith("/loss") else 1e-3
        assert mine[k] == pytest.approx(v, rel=rel), (mesh, k)


def test_losses_move(eight):
  """Or else nothing was compared."""
  for name in GAMES:
    losses = eight[name]["one"]["losses"]
    assert len({json.dumps(loss) for loss in losses}) == STEPS


@pytest.mark.parametrize("name", GAMES)
def test_weights_take_a_share_of_the_memory(eight, name):
  runs = eight[name]
  cut, replicated = runs["fsdp"]["cut"], runs["data"]["bytes"]
  assert 0.7 < cut / replicated < 1  # nearly all of it is in large leaves
  saved = runs["data"]["arguments"] - runs["fsdp"]["arguments"]
  # A quarter remains of what is cut; keys and padding are small.
  assert saved == pytest.approx(cut * 3 / 4, abs=2048)
  # And what comes out takes the place of what went in, part by part.
  assert runs["fsdp"]["aliased"] >= runs["fsdp"]["state"] > 0


@pytest.mark.parametrize("name", GAMES)
def test_weights_are_fetched_and_convolutions_are_not_cut(eight, name):
  fsdp, data = eight[name]["fsdp"], eight[name]["data"]
  assert fsdp["collectives"]["all-gather"] > 0
  assert not data["collectives"]["all-gather"]
  # Those that compare examples move them; nobody moves edges of images.
  for kind in ("collective-permute", "all-to-all"):
    assert fsdp["collectives"][kind] == data["collectives"][kind]
    assert name == "norms" or not fsdp["collectives"][kind]
  assert fsdp["convolutions"] == data["convolutions"]
  assert len(data["convolutions"]) > 2


@pytest.mark.parametrize("name", GAMES)
def test_a_state_stays_where_it_is(eight, name):
  """From step to step, without another compilation."""
  for mesh in ("one", "data", "fsdp"):
    assert eight[name][mesh]["stays"] and eight[name][mesh]["programs"] == 1


def experiment(name: str) -> Experiment:
  """A small game under Adam, as a config would build it."""
  model = build(SPECS[name])
  tx = {p.moves: optax.adam(1e-3) for p in model.players}
  ema = {"main": lambda step: jnp.float32(0.5)}
  return Experiment(
    ConfigDict({"batch": games.BATCH}),
    model,
    core.make_init(model, tx, ("main",)),
    functools.partial(core.make_step, model, tx, ema, 1),
  )


def steps(name: str, mesh: jax.sharding.Mesh) -> dict:
  """A few steps on a mesh: losses, and what the program is made of."""
  game, batch = experiment(name), games.batch(name)
  state = games.filled(jax.eval_shape(game.init, batch, SEED))
  # (As numpy: averages begin as the weights, but will be given away apart.)
  state, where = jax.tree.map(np.array, state), sharding.shardings(state, mesh)
  if "disc" in state.params:  # its layers divide by the root of what they sum
    state.params["disc"] = jax.tree.map(
      lambda w: w * np.float32(np.prod(w.shape[:-1]) ** 0.5), state.params["disc"]
    )
  cut = [
    x.nbytes
    for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(where), strict=True)
    if not s.is_fully_replicated
  ]
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  state, losses = jax.device_put(state, where), []
  step, batch = Compiled(game, mesh), sharding.shard_batch(batch, mesh)
  for i in range(STEPS):
    state, metrics = step(i, state, batch, SEED)
    losses.append({k: float(v) for k, v in metrics.items() if k.endswith(("/loss", "/grad_norm"))})
  (program,) = step.programs.values()
  memory, text = program.memory_analysis(), program.as_text()
  stays = jax.tree.map(lambda x, s: x.sharding == s, state, where)
  kinds = ("all-gather", "collective-permute", "all-to-all")
  return {
    "losses": losses,
    "bytes": size,
    "cut": sum(cut),
    "state": size - sum(cut) * (mesh.shape["fsdp"] - 1) // mesh.shape["fsdp"],
    "arguments": memory.argument_size_in_bytes,
    "aliased": memory.alias_size_in_bytes,
    "collectives": {k: len(re.findall(rf" {k}(?:-start)?\(", text)) for k in kinds},
    "convolutions": sorted(re.findall(r"= (\S+?)\{\S+ convolution\(", text)),
    "stays": all(jax.tree.leaves(stays)),
    "programs": len(step.programs),
  }


def record() -> dict:
  """All games on all meshes, in this process."""
  sharding.SMALL = 32  # of these nets, most leaves
  devices = jax.devices()
  assert len(devices) == 8
  return {
    name: {
      "one": steps(name, sharding.make_mesh(None, devices[:1])),
      "data": steps(name, sharding.make_mesh()),
      "fsdp": steps(name, sharding.make_mesh(dict(data=0, fsdp=4))),
    }
    for name in GAMES
  }
