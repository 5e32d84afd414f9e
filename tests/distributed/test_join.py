"""Several processes that are one: they meet, agree, and end together."""

import os
import re
import signal
import time

import numpy as np
import pod
import pytest

import jaxgen
from jaxgen import config, train
from jaxgen.distributed.preemption import stop_signal

PATIENT = {"JAXGEN_STALL_SECONDS": "3"}
# A verb in little: what is in %s happens in the place of its `main`.
VERB = """
import sys, time, types
import numpy as np
from jaxgen import cli
from jaxgen.distributed import agreement
from jaxgen.monitor import goodput
from jaxgen.errors import Diverged, UserError

def main(values):
  i = jax.process_index()
%s

class Verb:
  define = staticmethod(lambda values: None)

Verb.main = staticmethod(main)
sys.modules["jaxgen.verb"] = Verb
cli.MANY_HOSTS.add("jaxgen.verb")
processes.join = lambda: None  # we are already
cli.run("jaxgen.verb", ["verb"])
"""
SUM = """
mesh = jax.make_mesh((jax.device_count(),), ("d",))
where = jax.sharding.NamedSharding(mesh, jax.P("d"))
def total(mine):
  return float(jax.make_array_from_process_local_data(where, mine).sum())
"""


def verb(body, before=""):
  return before + VERB % "\n".join(f"  {x}" for x in body.strip().split("\n"))


def last(done):
  """The last line that each said of itself."""
  return [d.stderr.strip().rsplit("\n", 1)[-1] for d in done]


def wait_for(text, them):
  end = time.monotonic() + 240
  while not all(text in p.out.read_text() for p in them):
    assert time.monotonic() < end and all(p.poll() is None for p in them), [
      p.err.read_text() for p in them
    ]
    time.sleep(0.02)


def test_a_pod_is_one_program():
  body = """
print(i, jax.process_count(), jax.device_count(), flush=True)
print(total(np.arange(2.) + 2 * i))
agreement.check({"config": {"batch": 64}})
"""
  done = pod.run(2, 2, verb(body, SUM), timeout=300)
  assert [d.status for d in done] == [0, 0], done
  assert [d.stdout for d in done] == ["0 2 4\n6.0\n", "1 2 4\n6.0\n"]


def test_alone_nothing_happens():
  code = "print(jax.distributed.is_initialized(), processes.joined())"
  (done,) = pod.run(1, 1, code)
  assert (done.status, done.stdout) == (0, "False False\n"), done


def test_a_script_may_end_without_a_word():
  """No thread that asks the others is still within jax when Python goes."""
  busy = "\n".join(["processes._guard.tick = 1e-4", *["processes._guard.start()"] * 4])
  done = pod.run(2, 1, busy + "\nimport time; time.sleep(0.3)")
  assert [(d.status, d.stderr) for d in done] == [(0, "")] * 2


@pytest.mark.parametrize(
  "body, status, line",
  [
    (
      'agreement.check({"config": {"lr": 1 + i}})',
      2,
      "processes differ: process 1 from process 0 in config.lr is 2 there and 1 here",
    ),
    ("if i: raise UserError('no data here')\ntime.sleep(99)", 2, "no data here"),
    ("if not i: raise Diverged('too bad')\ntime.sleep(99)", 3, "too bad"),
    ("if i: 1 / 0\ntime.sleep(99)", 1, "process 1: ZeroDivisionError: division by zero"),
  ],
  ids=["differ", "mistake", "diverged", "bug"],
)
def test_one_line_and_status_for_all(body, status, line):
  start = time.monotonic()
  done = pod.run(2, 1, verb(body), timeout=300, env=PATIENT)
  assert [d.status for d in done] == [status] * 2, done
  assert last(done) == [f"jaxgen: {line}"] * 2
  assert time.monotonic() - start < 99


def test_who_leaves_late_knows_why_nevertheless():
  """Process 0 goes as soon as all have read why, and jax aborts who is still there."""
  body = """
import threading
from jaxgen.distributed import watchdog
at_once = watchdog.exit_now
def late(*why):
  time.sleep(20 * (threading.current_thread().name == "guard"))
  at_once(*why)
watchdog.exit_now = late if i else at_once
if not i: raise UserError("no data here")
time.sleep(99)
"""
  done = pod.run(2, 1, verb(body), timeout=60)
  assert [d.status for d in done] == [2, 2], done
  assert last(done) == ["jaxgen: no data here"] * 2 and "jax gave up" not in done[1].stderr


@pytest.mark.parametrize("victim", [0, 1])
def test_who_was_killed_is_named(victim):
  """Also by those who hang in a collective with it, as all do sooner or later."""
  body = """
print("here", total(np.ones(1)), flush=True)
time.sleep(3)
while True: total(np.ones(1))
"""
  with pod.started(2, 1, verb(body, SUM), env=PATIENT) as them:
    wait_for("here", them)
    them[victim].kill()
    done = pod.finish(them, 120)
  assert done[victim].status == -signal.SIGKILL
  assert done[1 - victim].status == 75, done
  assert f"process {victim} died" in last(done)[1 - victim]
  assert last(done)[1 - victim].startswith("jaxgen: ")


def test_who_is_frozen_is_named():
  """Stuck in Python, with all threads alive; the other one waits for it."""
  body = """
times = goodput.Goodput(processes.stall())
processes.follow(times.beat)
for step in range(10**9):
  times.stepped(step)
  if i and step == 20:
    times.enter("data")
    print("sleeps", flush=True)
    time.sleep(999)
  total(np.ones(1))
"""
  done = pod.run(2, 1, verb(body, SUM), env=PATIENT, timeout=120)
  assert [d.status for d in done] == [75, 75], done
  for line in last(done):
    assert re.match(
      r"jaxgen: process 1 hangs: at step 20 \(data\) for \d+ s; "
      "start all 2 again",
      line,
    )


def test_who_comes_late_is_named():
  body = "if not i: processes.barrier('lunch', 1)\ntime.sleep(99)"
  done = pod.run(2, 1, verb(body), env=PATIENT)
  assert [d.status for d in done] == [75, 75], done
  assert last(done) == ["jaxgen: process 1 did not come to lunch within 1 s; start all 2 again"] * 2


def test_sigterm_before_the_first_step_is_not_forgotten():
  """Nor at which step a process stops, of those that never began at 0."""
  body = """
from jaxgen.distributed.preemption import stop_signal
with stop_signal() as stopped:
  print("here", flush=True)
  time.sleep(4)  # compiles
  step = next(
      s for s in range(1000, 9999) if stopped() or total(np.ones(1)) < 0)
print(step)
"""
  with pod.started(2, 1, verb(body, SUM), env=PATIENT) as them:
    wait_for("here", them)
    them[1].send_signal(signal.SIGTERM)
    done = pod.finish(them, 120)
  assert [d.status for d in done] == [0, 0], done
  assert done[0].stdout == done[1].stdout and "9998" not in done[0].stdout


@pytest.mark.parametrize("processes", [2, 3])
def test_together_they_see_every_example_once_an_epoch(processes):
  """Also where an epoch ends within a batch."""
  from jaxgen.data import arrays, pipeline

  source = arrays.Arrays("test", np.arange(20, dtype=np.float32).reshape(10, 2))
  shares = [
    pipeline.batches(source, batch=6, seed=1, process=i, processes=processes)
    for i in range(processes)
  ]
  examples = np.concatenate([next(s)["x"][:, 0] for _ in range(5) for s in shares])
  for epoch in examples.reshape(3, 10):
    assert sorted(epoch) == list(range(0, 20, 2))


@pytest.mark.parametrize(
  "printed, ours",
  [
    (
      "7 [Gloo] Rank 0 is connected to 1 peer ranks. Expected number of "
      "connected peer ranks is : 1\n8\n",
      "7 8\n",
    ),
    # Two of its threads at once.
    (
      "[Gloo] Rank [Gloo] Rank 11 is connected to 1 peer ranks.  is connected "
      "to Expected number of connected peer ranks is : 1\n1 peer ranks. Expected"
      " number of connected peer ranks is : 1\n",
      "",
    ),
    (
      "6.0\n[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of "
      "connected peer ranks is : [Gloo] Rank 1\n0 is connected to 1 peer ranks. "
      "Expected number of connected peer ranks is : 1\n",
      "6.0\n",
    ),
  ],
)
def test_a_pod_does_not_listen_to_gloo(printed, ours):
  assert pod.without_gloo(printed) == ours


def test_a_pod_leaves_nothing_behind():
  with pod.started(2, 1, "import time; print(1, flush=True); time.sleep(99)") as them:
    assert [done.status for done in pod.finish(them, 0.1)] == [None, None]
  for process in them:
    with pytest.raises(ProcessLookupError):
      os.kill(process.pid, 0)


def test_samples_of_two_processes_are_those_of_one(tmp_path):
  """And are written once."""
  c = config.load("configs/points_vae.py:debug")
  c.steps, c.log.pictures, c.model.net.width = 2, 0, 16
  train.train(c, str(tmp_path / "w"), quiet=True)
  words = [
    "sample",
    f"--workdir={tmp_path / 'w'}",
    "--num=9",
    "--batch=4",
    "--seed=3",
    f"--out={tmp_path / 'x.npz'}",
  ]
  done = pod.run(2, 2, words, timeout=300)
  assert [d.status for d in done] == [0, 0], done
  assert [bool(d.stdout) for d in done] == [True, False]
  assert sorted(p.name for p in tmp_path.iterdir()) == ["w", "x.npz"]
  with np.load(tmp_path / "x.npz") as file:
    x = file["arr_0"]
  np.testing.assert_allclose(x, jaxgen.load(str(tmp_path / "w")).sample(3, 9, batch=4), atol=1e-6)


def test_who_stands_around_another_hears_of_a_later_signal():
  with stop_signal() as outer:
    with stop_signal() as inner:
      pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert outer() and not inner()
