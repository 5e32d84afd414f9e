"""What a checkpoint implies comes back to the bit, and is believed by its sum alone."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xla
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.checkpoint import disk, implied
from jaxgen.checkpoint.fingerprint import fingerprint, named_leaves
from jaxgen.checkpoint.implied import ZEROS, Implied
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.checkpoint.restore import abstract_leaves, latest_meta, restore_subset
from jaxgen.errors import UserError

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.0, 1.0, 3)))


def params():
  key = jax.random.key(0)
  return {"a": jax.random.normal(key, (64, 96)), "b": jnp.full(5, -0.0, jnp.bfloat16)}


def begin(params):
  """A state before the first step, as `core.make_init` makes it."""
  return {
    "params": params,
    "opt": {"net": TX.init(params)},
    "ema": {"slow": jax.tree.map(jnp.copy, params), "fast": jax.tree.map(jnp.copy, params)},
    "ones": jnp.ones(3),
    "half": jnp.zeros(3) + params["a"][0, :3],
    "step": jnp.zeros([], jnp.int32),
  }


def like(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def same_bits(a, b):
  raw = lambda tree: {
    k: (str(x.dtype), x.shape, np.asarray(x).tobytes()) for k, x in named_leaves(tree).items()
  }
  return raw(a) == raw(b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """-> workdir with step 0, most of which is implied; what it stands for."""
  workdir = tmp_path_factory.mktemp("saved")
  with Checkpoints(workdir, every=1) as checkpoints:
    assert checkpoints.save(0, implied.results(begin, params()), {}, force=True)
  return workdir, begin(params())


def test_zeros_and_copies_are_named_and_all_else_is_computed():
  state = implied.results(begin, params())
  leaves, real = named_leaves(state), begin(params())
  assert {k: v.like for k, v in leaves.items() if isinstance(v, Implied)} == {
    "opt/net/1/0/mu/a": ZEROS,
    "opt/net/1/0/mu/b": ZEROS,
    "opt/net/1/0/nu/a": ZEROS,
    "opt/net/1/0/nu/b": ZEROS,
    "ema/slow/a": "params/a",
    "ema/slow/b": "params/b",
    "ema/fast/a": "params/a",
    "ema/fast/b": "params/b",
  }
  assert jax.tree.structure(state) == jax.tree.structure(real)
  for path, leaf in named_leaves(real).items():
    assert (leaves[path].shape, leaves[path].dtype) == (leaf.shape, leaf.dtype)
    if not isinstance(leaves[path], Implied):
      np.testing.assert_array_equal(leaves[path], leaf)


def test_minus_zero_is_no_zero():
  make = lambda x: {"x": x, "minus": jnp.full(3, -0.0), "plus": jnp.zeros(3)}
  leaves = implied.results(make, jnp.ones(2))
  assert isinstance(leaves["plus"], Implied) and np.signbit(leaves["minus"]).all()


def test_meta_says_what_it_would_of_the_arrays(saved):
  workdir, state = saved
  leaves = latest_meta(workdir)["leaves"]
  want, _ = fingerprint(state)
  assert {p: {k: v for k, v in row.items() if k != "implied"} for p, row in leaves.items()} == want
  assert leaves["ema/slow/a"]["implied"] == "params/a"


def test_files_hold_no_implied_leaf(saved):
  workdir, state = saved
  size = sum(f.stat().st_size for f in (workdir / "checkpoints/0/state").rglob("*") if f.is_file())
  assert size < 2 * state["params"]["a"].nbytes  # of five arrays of that size


def test_a_restored_state_is_whole_and_may_be_donated(saved):
  workdir, state = saved
  step, restored, _ = Checkpoints(workdir, every=1).restore(like(state))
  assert step == 0 and same_bits(restored, state)
  grown = jax.jit(functools.partial(jax.tree.map, lambda x: x + 1), donate_argnums=0)(restored)
  assert same_bits(grown, jax.tree.map(lambda x: x + 1, state))


@pytest.mark.parametrize(
  "prefixes",
  [["ema/slow"], ["opt/net/1/0/mu"], ["params", "ema"], ["ema/slow/a", "ema/fast/a", "step"]],
)
def test_subsets_need_not_name_what_they_are_like(saved, prefixes):
  workdir, state = saved
  _, part, _ = restore_subset(workdir, lambda meta: abstract_leaves(meta, prefixes))
  leaves = named_leaves(state)
  assert named_leaves(part)
  for path, leaf in named_leaves(part).items():
    assert same_bits(leaf, leaves[path]), path


def restore_on_all_devices(workdir):
  """Restores, cut along a mesh of all devices; in a process of four."""
  state, mesh = begin(params()), Mesh(np.array(jax.devices()), ("d",))
  where = lambda x: NamedSharding(
    mesh, PartitionSpec(None, "d") if x.ndim == 2 else PartitionSpec()
  )
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where(x)), state
  )
  _, restored, _ = Checkpoints(workdir, every=1).restore(abstract)
  assert len(mesh.devices) == 4 and same_bits(restored, state)
  pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(abstract), strict=True)
  assert all(leaf.sharding == like.sharding for leaf, like in pairs)


def test_they_lie_where_they_are_wanted(saved):
  env = os.environ | {"XLA_FLAGS": xla.devices(4)}
  subprocess.run([sys.executable, __file__, saved[0]], env=env, check=True)


def test_what_cannot_be_is_not_saved(tmp_path):
  state = {"a": jnp.ones(3), "b": Implied((3,), jnp.dtype("float32"), "c")}
  with Checkpoints(tmp_path, every=1) as checkpoints:
    with pytest.raises(ValueError, match="b cannot be read from c"):
      checkpoints.save(0, state, {}, force=True)
    state["b"] = Implied((4,), jnp.dtype("float32"), "a")
    with pytest.raises(ValueError, match="b cannot be read from a"):
      checkpoints.save(0, state, {}, force=True)
  assert disk.steps(tmp_path) == []


def test_nothing_of_it_is_believed_without_its_sum(tmp_path):
  """Meta that was made anew, digest and all, and implies something else."""
  for change in ({"implied": "w"}, {"implied": "nowhere"}, {"implied": ZEROS}, {"implied": "b"}):
    workdir = tmp_path / str(change["implied"])
    a, w = jnp.arange(1.0, 4.0), jnp.ones(3)
    state = {"a": a, "b": Implied((3,), a.dtype, "a"), "w": w, "z": Implied((3,), a.dtype)}
    with Checkpoints(workdir, every=1, log=lambda line: None) as checkpoints:
      checkpoints.save(0, state, {}, force=True)
    seal = workdir / "checkpoints/0/SEAL.json"
    seal.unlink()
    (file,) = (workdir / "checkpoints/0/meta").glob("metadata")
    meta = json.loads(file.read_text())
    meta["leaves"]["b"] |= change
    meta["digest"] = disk.digest(meta)
    file.write_text(json.dumps(meta))
    whole = like(state | {"b": a, "z": a})
    with pytest.raises(UserError, match="can be read"), pytest.warns(RuntimeWarning):
      restore_subset(workdir, whole)


if __name__ == "__main__":
  restore_on_all_devices(pathlib.Path(sys.argv[1]))
