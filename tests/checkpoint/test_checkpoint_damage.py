"""Damaged checkpoints: told in a line, never believed, never in the way."""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.checkpoint.restore import latest_meta, restore_subset
from jaxgen.errors import UserError

CONFIG = {"net": "nets.mlp.MLP", "widths": [1, 2, 3]}


def state(step):
  key = jax.random.key(step)
  return {
    "a": jax.random.normal(key, (50, 40)),
    "key": key,
    "b": {"c": jnp.full(300, step, jnp.bfloat16), "n": jnp.int32(step)},
    "zero": jnp.zeros((9, 9)),
  }


def abstract(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_is(tree, step):
  same = jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), tree, state(step))
  assert jax.tree.all(same), same


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("healthy")
  with Checkpoints(workdir, every=10) as checkpoints:
    for step in (10, 20):
      checkpoints.save(step, state(step), {"config": CONFIG})
  return workdir


@pytest.fixture
def workdir(healthy, tmp_path):
  shutil.copytree(healthy, tmp_path / "w")
  return tmp_path / "w"


def files(workdir, step=20):
  root = workdir / "checkpoints" / str(step)
  return sorted(p for p in root.rglob("*") if p.is_file())


def recover(workdir, expect=None):
  """Restores, and checks that everything said and done about it is right."""
  log = []
  with Checkpoints(workdir, every=10, log=log.append) as checkpoints:
    step, restored, meta = checkpoints.restore(abstract(state(0)))
    assert_is(restored, step)
    assert meta["config"] == CONFIG
    assert expect in (None, step)
    if step == 20:
      assert not log and steps(workdir) == [10, 20]
      return step, ""
    assert len(log) == 1 and "\n" not in log[0]
    assert log[0].startswith("checkpoint 20 is not used: ")
    assert log[0].endswith("going on from checkpoint 10")
    assert steps(workdir) == [10]
    assert checkpoints.save(20, state(20), {"config": CONFIG})
    assert checkpoints.wait() is None
    assert_is(checkpoints.restore(abstract(state(0)))[1], 20)
  return step, log[0]


def test_flipped_bits_in_every_file(healthy, tmp_path):
  rng, noticed = random.Random(0), set()
  for i in range(3 * len(files(healthy))):
    workdir = tmp_path / str(i)
    shutil.copytree(healthy, workdir)
    path = files(workdir)[i // 3]
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    if recover(workdir)[0] == 10:
      noticed.add(path)
  largest = max(files(healthy), key=lambda p: p.stat().st_size)
  names = {path.name for path in noticed}
  assert any(n in names for n in (largest.name, "metadata", "manifest.ocdbt"))


def test_every_bit_flip_in_the_weights_is_noticed(healthy, tmp_path):
  rng = random.Random(1)
  name = max(files(healthy), key=lambda p: p.stat().st_size)
  size = name.stat().st_size
  for i in range(12):
    workdir = tmp_path / str(i)
    shutil.copytree(healthy, workdir)
    path = workdir / name.relative_to(healthy)
    data = bytearray(path.read_bytes())
    data[rng.randrange(size // 4, size // 2)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    _, line = recover(workdir, 10)
    assert "a differs from what was saved" in line or "unreadable" in line


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", ["delete", "truncate", "empty"])
def test_lost_and_cut_files(healthy, tmp_path, damage, sealed):
  for i, file in enumerate(files(healthy)):
    workdir = tmp_path / str(i)
    shutil.copytree(healthy, workdir)
    path = workdir / file.relative_to(healthy)
    seal = workdir / "checkpoints/20/SEAL.json"
    if not sealed:
      seal.unlink()  # killed after the commit, before the seal
    if not path.exists():
      continue
    if damage == "delete":
      path.unlink()
    else:
      half = path.stat().st_size // 2
      path.write_bytes(path.read_bytes()[: half * (damage == "truncate")])
    harmless = path == seal and damage == "delete"
    expect = (20 if harmless else 10) if sealed else None
    _, line = recover(workdir, expect)
    if sealed and not harmless:
      assert path.name in line or "unreadable" in line


@pytest.mark.parametrize("name", ["SEAL.json", "meta/metadata", "state/manifest.ocdbt"])
def test_a_pipe_in_the_place_of_a_file_is_damage(workdir, name):
  step = workdir / "checkpoints/20"
  (step / name).unlink()
  os.mkfifo(step / name)  # to read it would never end
  assert "is no file" in recover(workdir, expect=10)[1]


@pytest.mark.parametrize("lost", ["state", "meta", "state/d", "half", "all"])
def test_lost_folders(workdir, lost):
  root = workdir / "checkpoints/20"
  if lost == "half":
    for path in files(workdir)[1::2]:
      path.unlink()
  elif lost == "all":
    shutil.rmtree(root)
    root.mkdir()
  else:
    shutil.rmtree(root / lost)
  _, line = recover(workdir, 10)
  if lost == "all":
    assert "never finished" in line
  else:
    assert list((workdir / "quarantine").iterdir())


def test_a_missing_commit_is_damage_only_after_the_seal(workdir):
  (workdir / "checkpoints/20/commit_success.txt").unlink()
  shutil.copytree(workdir, unsealed := workdir.parent / "unsealed")
  assert "commit_success.txt is missing; moved" in recover(workdir, 10)[1]
  (unsealed / "checkpoints/20/SEAL.json").unlink()
  assert "never finished; going on" in recover(unsealed, 10)[1]
  assert not (unsealed / "quarantine").exists()  # killing leaves no heaps


@pytest.mark.parametrize(
  "change",
  [
    {"a": jnp.zeros((50, 41))},
    {"a": jnp.zeros((50, 40), jnp.bfloat16)},
    {"zero": jnp.zeros((9, 9), jnp.int32), "a": jnp.ones((50, 40))},
    {"b": {"n": jnp.int32(20)}},
  ],
)
def test_arrays_that_are_not_what_meta_says(workdir, tmp_path, change):
  with Checkpoints(tmp_path / "other", every=10) as other:
    other.save(20, state(20) | change, {"config": CONFIG})
  there = workdir / "checkpoints/20"
  shutil.rmtree(there / "state")
  shutil.move(tmp_path / "other/checkpoints/20/state", there / "state")
  (there / "SEAL.json").unlink()
  recover(workdir, 10)


def test_a_config_that_was_edited(workdir):
  path = workdir / "checkpoints/20/meta/metadata"
  path.write_text(path.read_text().replace("mlp.MLP", "mlp.MLQ"))
  with pytest.warns(RuntimeWarning, match="meta is not what was written"):
    assert latest_meta(workdir)["config"] == CONFIG
  assert "meta is not what was written" in recover(workdir, 10)[1]


def test_a_renamed_step(workdir):
  (workdir / "checkpoints/20").rename(workdir / "checkpoints/30")
  log = []
  with Checkpoints(workdir, every=10, log=log.append) as checkpoints:
    assert checkpoints.restore(abstract(state(0)))[0] == 10
  assert "meta says that this is step 20" in log[0]


def test_damage_is_told_even_if_what_is_left_is_another_models(workdir):
  (workdir / "checkpoints/20/meta/metadata").unlink()
  log = []
  with Checkpoints(workdir, every=10, log=log.append) as checkpoints:
    with pytest.raises(UserError, match="model wants nothing of the kind"):
      checkpoints.restore(abstract({"a": state(0)["a"]}))
  assert len(log) == 1 and "checkpoint 20 is not used" in log[0]


def test_nothing_sound_is_left(workdir):
  for step in (10, 20):
    (workdir / f"checkpoints/{step}/meta/metadata").unlink()
  log = []
  with Checkpoints(workdir, every=10, log=log.append) as checkpoints:
    assert checkpoints.restore(abstract(state(0))) is None
    assert checkpoints.save(10, state(10), {})
  assert [line.split(":")[0] for line in log] == [
    "checkpoint 20 is not used",
    "checkpoint 10 is not used",
  ]
  assert all("none before it, starting anew" in line for line in log)
  assert len(list((workdir / "quarantine").iterdir())) == 2


def test_no_tracebacks_when_reading_fails(workdir):
  for path in (workdir / "checkpoints/20/state").rglob("*"):
    if path.is_file() and len(path.name) == 32:
      data = path.read_bytes()
      path.write_bytes(bytes(x ^ 255 for x in data))
  code = (
    "import sys; sys.path.insert(0, sys.argv[2]); import gc, "
    "test_checkpoint_damage as t, pathlib; "
    "print(t.recover(pathlib.Path(sys.argv[1]), 10)); gc.collect()"
  )
  here = str(pathlib.Path(__file__).parent)
  out = subprocess.run(
    [sys.executable, "-c", code, str(workdir), here],
    capture_output=True,
    text=True,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
  )
  assert out.returncode == 0 and "unreadable" in out.stdout, out.stderr
  assert out.stderr == ""


# Sampling


def everything(workdir):
  return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in workdir.rglob("*")}


def bytes_read():
  metrics = tensorstore.experimental_collect_matching_metrics(
    "/tensorstore/kvstore/file/bytes_read"
  )
  return sum(v["value"] for m in metrics for v in m["values"])


def test_a_subset_is_all_that_is_read(tmp_path):
  big = jax.random.normal(jax.random.key(0), (1500, 1000))
  tree = {
    "ema": {"slow": {"gen": {"w": jnp.arange(1000.0)}}},
    "opt": {"mu": big, "nu": big + 1},
    "step": jnp.int32(10),
  }
  with Checkpoints(tmp_path, every=10) as checkpoints:
    checkpoints.save(10, tree, {})
  before = bytes_read()
  step, subset, _ = restore_subset(tmp_path, abstract({"ema": tree["ema"], "step": tree["step"]}))
  assert step == 10 and int(subset["step"]) == 10
  np.testing.assert_array_equal(subset["ema"]["slow"]["gen"]["w"], np.arange(1000.0))
  assert 0 < bytes_read() - before < 20_000  # of 12 MB
  restore_subset(tmp_path, abstract({"opt": tree["opt"]}))
  assert bytes_read() - before > 8_000_000  # the meter works


def test_damage_outside_the_subset_does_not_matter(tmp_path):
  rng = np.random.default_rng(0)
  other = rng.integers(0, 2**32, (1000, 1000), np.uint32)
  with Checkpoints(tmp_path, every=10) as checkpoints:
    for step in (10, 20):
      checkpoints.save(step, {"mine": jnp.full(5, step), "other": jnp.array(other)}, {})
  largest = max(files(tmp_path), key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[2_000_000:2_000_100] = bytes(100)
  largest.write_bytes(data)
  leaves = {"mine": jax.ShapeDtypeStruct((5,), jnp.int32)}
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    step, tree, _ = restore_subset(tmp_path, leaves)
  assert step == 20 and tree["mine"].tolist() == [20] * 5
  leaves["other"] = jax.ShapeDtypeStruct((1000, 1000), jnp.uint32)
  with pytest.warns(RuntimeWarning, match="20 is passed over"):
    assert restore_subset(tmp_path, leaves)[0] == 10


@pytest.mark.parametrize("damage", ["flip", "delete", "uncommitted", "meta"])
def test_sampling_falls_back_and_changes_nothing(workdir, damage):
  root = workdir / "checkpoints/20"
  largest = max(files(workdir), key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  if damage == "flip":
    data[len(data) // 3] ^= 1
    largest.write_bytes(data)
  elif damage == "delete":
    largest.unlink()
  elif damage == "uncommitted":  # as in the middle of a save
    (root / "SEAL.json").unlink()
    (root / "commit_success.txt").unlink()
  else:
    (root / "meta/metadata").write_text("{}")
  before = everything(workdir)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    step, tree, _ = restore_subset(workdir, abstract({"a": state(0)["a"]}))
    assert latest_meta(workdir)["step"] == (20 if damage == "flip" else 10)
  assert step == 10 and bool((tree["a"] == state(10)["a"]).all())
  lines = [w for w in caught if "20 is passed over" in str(w.message)]
  assert bool(lines) == (damage != "uncommitted")  # training goes on there
  assert everything(workdir) == before
  if damage != "uncommitted":
    with (
      pytest.raises(UserError, match="can be read"),
      pytest.warns(RuntimeWarning, match="20 is passed over"),
    ):
      restore_subset(workdir, abstract(state(0)), step=20)


READER = """
import os, sys, jax
from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.restore import abstract_leaves, restore_subset
read = lambda: (steps(sys.argv[1]), restore_subset(
    sys.argv[1], lambda meta: abstract_leaves(meta, ["b/n"]))[:2])
read()  # imports what it needs, while it still may
if os.getuid() == 0:
  os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert not os.access(sys.argv[1] + "/checkpoints", os.W_OK)
print(*read())
"""


def test_sampling_from_a_folder_that_cannot_be_written(workdir):
  for path in [workdir, *workdir.rglob("*")]:
    path.chmod(0o555 if path.is_dir() else 0o444)
  parents = [
    p for p in workdir.parents if p.stat().st_uid == os.getuid() and not p.stat().st_mode & 0o001
  ]
  for parent in parents:
    parent.chmod(parent.stat().st_mode | 0o111)
  try:
    out = subprocess.run(
      [sys.executable, "-c", READER, str(workdir)],
      capture_output=True,
      text=True,
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
  finally:
    for path in [workdir, *workdir.rglob("*")]:
      path.chmod(0o755 if path.is_dir() else 0o644)
  assert out.stdout.startswith("[10, 20] (20, {'b': {'n': "), out.stderr
