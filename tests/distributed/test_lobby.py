"""Before processes have joined: who dies is missed, who is late is waited for."""

import contextlib
import signal
import socket
import time

import pod
import pytest

from jaxgen.distributed import lobby
from jaxgen.distributed.join import Place, first_host, lobby_address

TRAIN = ["train", "--config=configs/points_vae.py:debug", "--workdir=/nowhere/at/all"]
JOIN_AND_SAY = """
import threading, time
from jaxgen.distributed import join, lobby
def say():
  while lobby._lobby is None or not lobby._lobby.lines:
    time.sleep(0.02)
  print("here", flush=True)
threading.Thread(target=say, daemon=True).start()
join.join()
"""


@contextlib.contextmanager
def waiting(monkeypatch, **env):
  """Two processes of three, which have seen each other."""
  monkeypatch.setattr(pod, "JOIN", JOIN_AND_SAY)
  with pod.started(3, 1, "", env=env, absent=1) as them:
    end = time.monotonic() + 120
    while not all("here" in p.out.read_text() for p in them):
      assert time.monotonic() < end and all(p.poll() is None for p in them)
      time.sleep(0.05)
    yield them


@pytest.mark.parametrize("victim, how", [(0, signal.SIGTERM), (1, signal.SIGKILL)])
def test_a_death_before_joining_ends_the_others(monkeypatch, victim, how):
  """Long before those who never came are given up, which takes 300 seconds."""
  with waiting(monkeypatch) as them:
    them[victim].send_signal(how)
    done = pod.finish(them, 60)
  assert done[victim].status == -how
  assert done[1 - victim].status == 75, done
  line = f"jaxgen: process {victim} died before all had joined; start all 3 again"
  assert done[1 - victim].stderr.strip() == line


def test_who_never_came_is_named(monkeypatch):
  with waiting(monkeypatch, JAXGEN_JOIN_SECONDS="2") as them:
    done = pod.finish(them, 60)
  assert [d.status for d in done] == [75, 75]
  line = "jaxgen: process 2 did not come within 2 s; start all 3 again"
  assert [d.stderr.strip() for d in done] == [line] * 2


def test_a_mistake_before_joining_is_everybodys():
  done = pod.run(2, 1, [*TRAIN, "--nonsense=1"], timeout=60)
  assert [d.status for d in done] == [2, 2], done
  assert all(d.stderr.count("\n") == 1 and "nonsense" in d.stderr for d in done)


def enter(port, index, count=2, seconds=60):
  own = lobby.Lobby(f"127.0.0.1:{port}", index, count, seconds, 5)
  own.enter()
  return own


def test_who_is_late_is_waited_for():
  """Whoever it is, and although strangers ask at the same port."""
  port = pod.free_port()
  first = enter(port, 1, 3)
  time.sleep(2 * lobby.TICK)
  main = enter(port, 0, 3)
  with stranger(port) as connection:
    connection.sendall(b"PRI * HTTP/2.0\r\n")
    time.sleep(2 * lobby.TICK)
    assert not first.everybody.is_set() and not main.everybody.is_set()
    last = enter(port, 2, 3)
    for each in (main, first, last):
      each.wait()
    socket.create_server(("127.0.0.1", port)).close()  # the port is free: jax may have it
  main.leave()
  assert not first.over.is_set() and not last.over.is_set()
  for each in (first, last):
    each.leave()


def stranger(port):
  """A connection to a port, as soon as somebody listens there."""
  end = time.monotonic() + 20
  while True:
    with contextlib.suppress(ConnectionRefusedError):
      return socket.create_connection(("127.0.0.1", port), timeout=5)
    assert time.monotonic() < end
    time.sleep(0.02)


def test_another_jax_at_that_port_is_not_the_lobby():
  """Of an earlier life, say: it is not there to greet, and is asked again."""
  port = pod.free_port()
  with socket.create_server(("127.0.0.1", port)) as other:
    visitor = enter(port, 1)
    other.settimeout(10)
    connection, _ = other.accept()
    connection.sendall(b"\x00\x00\x06\x04\x00\x00\n")
    connection.close()
  main = enter(port, 0)
  for each in (main, visitor):
    each.wait()
    each.leave()


@pytest.mark.parametrize(
  "place, env, address",
  [
    (Place(2, 0, "h:1"), {}, "h:1"),
    (
      Place(2, 0, "jax"),
      {"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "4097"},
      "gpu07:24577",
    ),
    (Place(2, 0, "jax"), {"TPU_WORKER_HOSTNAMES": "w-0.w,w-1.w"}, "w-0.w:8475"),
    (
      Place(4, 0, "jax"),
      {"TPU_WORKER_HOSTNAMES": "w-2.w,w-3.w", "MEGASCALE_COORDINATOR_ADDRESS": "w-0.w:80"},
      "w-0.w:8475",
    ),
    (Place("jax", "jax", "jax"), {}, None),
    (Place(2, 0, "jax"), {}, None),
  ],
)
def test_where_they_meet(place, env, address):
  assert lobby_address(place, env) == address


@pytest.mark.parametrize(
  "nodes, first", [("a", "a"), ("a1,b2", "a1"), ("gpu[07-08,11],b1", "gpu07"), ("n[3]", "n3")]
)
def test_the_first_host_of_a_list(nodes, first):
  assert first_host(nodes) == first
