"""Kill it, fill the disk, lose a process: what is listed is what was saved."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pod
import pytest

from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.restore import restore_subset


def state(step):
  """1.2 MB and more, different in every step."""
  x = jax.random.normal(jax.random.key(step), (600, 500))
  return {"mu": x, "w": x + 1, "n": jnp.int32(step)}


def abstract(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def same(tree, step):
  return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), tree, state(step))))


HEAD = f"""
import json, os, resource, sys, time
import jax
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_checkpoint_crash import abstract, same, state
from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.checkpoint.restore import restore_subset
"""


def start(code, *args):
  return subprocess.Popen(
    [sys.executable, "-c", HEAD + code, *map(str, args)],
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
  )


TRAINER = """
checkpoints = Checkpoints(sys.argv[1], every=1, keep=2, keep_every=7)
restored = checkpoints.restore(abstract(state(0)))
step = 0
if restored is not None:
  step, restored, _ = restored
  assert same(restored, step)
while True:
  step += 1
  assert checkpoints.save(step, state(step), {})
  print("saving", step, flush=True)  # and all those before are saved
"""


def unfinished(workdir):
  root = workdir / "checkpoints"
  newest = max((int(p.name) for p in root.iterdir() if p.name.isdigit()), default=0)
  step = root / str(newest)
  return newest and not (step / "commit_success.txt").exists()


def test_kill_minus_nine_at_any_moment(tmp_path):
  rng, last = random.Random(0), 0
  for attempt in range(6):
    trainer = start(TRAINER, tmp_path)
    for _ in range(rng.randint(2, 9)):
      trainer.stdout.readline()
    time.sleep(rng.uniform(0, 0.05))
    if attempt % 2:  # in the very middle of a save
      while trainer.poll() is None and not unfinished(tmp_path):
        pass
    trainer.send_signal(signal.SIGKILL)
    _, errors = trainer.communicate()
    assert trainer.returncode == -signal.SIGKILL, errors
    listed = steps(tmp_path)
    for step in listed:
      number, tree, _ = restore_subset(tmp_path, abstract(state(0)), step=step)
      assert number == step and same(tree, step)
    assert max(listed) > last  # it trained, and nothing saved is ever lost
    last = max(listed)


FULL = """
workdir, how = sys.argv[1:]
log = []
checkpoints = Checkpoints(workdir, every=10, keep=9, log=log.append)
for step in (10, 20):
  assert checkpoints.save(step, state(step), {})
assert checkpoints.wait() is None
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
if how != "limit":
  with open(workdir + "/filler", "wb", buffering=0) as f:
    try:
      while True:
        f.write(bytes(1 << 16))
    except OSError:
      f.truncate(f.tell() - (0 if how == "brim" else 1 << 20))
else:
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
complete = lambda: steps(workdir) == [10, 20]
assert checkpoints.save(30, state(30), {}) == (how != "brim")
while checkpoints.check() is None:  # by itself: no save, no wait
  time.sleep(0.01)
assert checkpoints.wait() == checkpoints.check() and complete()
assert checkpoints.save(40, state(40), {}) == (how != "brim")
assert checkpoints.wait() and complete()
print(json.dumps(log))
if how != "brim":  # a thread that is late
  os.makedirs(workdir + "/checkpoints/40/state", exist_ok=True)
  open(workdir + "/checkpoints/40/state/late", "w").close()
if how != "limit":
  os.remove(workdir + "/filler")
else:
  resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert checkpoints.save(40, state(40), {}) and checkpoints.wait() is None
assert steps(workdir) == [10, 20, 40]
assert sorted(os.listdir(workdir + "/checkpoints")) == ["10", "20", "40"]
step, tree, _ = checkpoints.restore(abstract(state(0)))
assert step == 40 and same(tree, 40) and len(log) == 2, (step, log)
checkpoints.close()
"""


@pytest.mark.parametrize(
  "how, reason",
  [
    ("limit", "File too large"),
    ("disk", "No space left on device"),
    ("brim", "No space left on device"),
  ],
)
def test_full_disk(tmp_path, how, reason):
  mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path)]
  if how != "limit" and subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("may not mount a small tmpfs here")
  try:
    process = start(FULL, tmp_path, how)
    out, errors = process.communicate(timeout=120)
  finally:
    if how != "limit":
      subprocess.run(["umount", str(tmp_path)], check=True)
  assert process.returncode == 0 and errors == "", errors  # no tracebacks
  # Orbax's writers or our own files may be the first to meet the full disk.
  for step, line in zip((30, 40), json.loads(out), strict=True):
    assert re.fullmatch(
      f"checkpoint {step} could not be saved: {reason}(: .+)?; the newest is 20", line
    )


GONE = """
import pathlib
from jaxgen.errors import UserError
log, workdir = [], pathlib.Path(sys.argv[1])
checkpoints = Checkpoints(workdir, every=10, log=log.append)
checkpoints.save(10, state(10), {})
assert checkpoints.wait() is None
root, aside = workdir / "checkpoints", workdir / "aside"
root.rename(aside)
root.write_text("in the way")
for _ in range(2):
  assert not checkpoints.save(20, state(20), {})
  assert "20 could not be saved" in checkpoints.check()
assert len(log) == 2 and all("20 could not be saved" in s for s in log), log
try:
  with checkpoints:  # an error on its way is not masked by a failed save
    1 / 0
except ZeroDivisionError:
  print("not masked")
try:
  checkpoints.close()  # what was trained since is not safe
except UserError as error:
  print("told")
root.unlink()
aside.rename(root)
assert steps(workdir) == [10]
assert checkpoints.save(20, state(20), {})
checkpoints.close()
assert same(restore_subset(workdir, abstract(state(0)))[1], 20)
print("saved")
"""


def test_a_folder_that_goes_away_and_comes_back(tmp_path):
  out, errors = start(GONE, tmp_path).communicate(timeout=120)
  assert out == "not masked\ntold\nsaved\n" and errors == "", errors


PROCESS = """
workdir, port, process = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process,
                           heartbeat_timeout_seconds=10)
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
shardings = {"mu": NamedSharding(mesh, P("d")), "n": NamedSharding(mesh, P()),
             "w": NamedSharding(mesh, P(None, "d"))}
make = jax.jit(state, static_argnums=0, out_shardings=shardings)
equal = jax.jit(lambda a, b: jax.tree.map(lambda a, b: (a == b).all(), a, b))
read = ocp.PyTreeCheckpointHandler.restore
def read_badly(self, path, *args, **kwargs):
  if process == 1 and "/30/" in str(path):
    raise OSError("only here")
  return read(self, path, *args, **kwargs)

log = []
checkpoints = Checkpoints(workdir, every=10, log=log.append)
for step in (10, 20, 30):
  assert checkpoints.save(step, make(step), {})
ocp.PyTreeCheckpointHandler.restore = read_badly
step, tree, _ = checkpoints.restore(abstract(make(0)))
ocp.PyTreeCheckpointHandler.restore = read
assert step == 20 and all(jax.tree.leaves(equal(tree, make(20))))
assert len(log) == (process == 0), log
assert not log or "30 is not used: process 1: unreadable" in log[0], log
assert checkpoints.save(30, make(30), {}) and checkpoints.wait() is None
assert restore_subset(workdir, {"n": abstract(make(0)["n"])})[0] == 30
print("agreed", flush=True)
write = ocp.CheckpointManager.save
def write_badly(self, step, **kwargs):
  if process == 0:
    raise OSError("disk on fire")
  return write(self, step, **kwargs)
ocp.CheckpointManager.save = write_badly
checkpoints.save(40, make(40), {})
checkpoints.wait()
"""


def test_two_processes_agree_or_leave(tmp_path):
  port = pod.free_port()
  processes = [start(PROCESS, tmp_path, port, i) for i in range(2)]
  try:
    outputs = [p.communicate(timeout=90) for p in processes]
  finally:
    for process in processes:
      process.kill()
  for out, errors in outputs:
    assert "agreed" in out, errors
  assert processes[0].returncode == 76 and processes[1].returncode != 0
  assert steps(tmp_path) == [10, 20, 30]
  assert same(restore_subset(tmp_path, abstract(state(0)))[1], 30)
