"""Several processes on this machine that train together, as on a pod.

  done = pod.run(2, 4, ["train", "--config=...", f"--workdir={w}"])
  done = pod.run(2, 1, "print(jax.process_index())")     # jax is there, joined
  with pod.started(2, 1, [...]) as processes:            # to do them harm
    processes[1].kill()
    done = pod.finish(processes)

Real jax.distributed over gloo, each process with `devices` CPU devices. Nothing
that was started here survives: see `started`.
"""

import contextlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import xla

ROOT = pathlib.Path(__file__).parents[2]
JOIN = "import jax\nfrom jaxgen.distributed import join as processes\nprocesses.join()\n"
# It says so on stdout, not at line ends, and in pieces: threads interrupt each
# other.
GLOO = (
  r"(\[Gloo\] Rank | is connected to | peer ranks\. |"
  r"Expected number of connected peer ranks is : )"
  r"\d*\n*(\d+(?= is connected| peer ranks))?"
)


class Done(NamedTuple):
  """How a process ended; status None: it did not, and was killed."""

  status: int | None
  stdout: str
  stderr: str


class Process(subprocess.Popen):
  """One of them; what it says so far is in the files `out` and `err`."""

  out: pathlib.Path
  err: pathlib.Path


def run(
  processes: int,
  devices: int,
  what: Sequence | str,
  *,
  env: Mapping[str, str | None] | None = None,
  timeout: float = 120,
) -> list[Done]:
  """Runs verbs (`what`: their words) or code (a string) to the end.

  Args:
    processes: How many; with 1 it joins nobody.
    devices: CPU devices of each.
    what: ["train", "--config=..."] or code; for one of several processes a
      `{i}` in a word stands for its index.
    env: Set in addition; None unsets, and `{i}` stands for the index.
    timeout: Seconds, for all of them together.
  """
  with started(processes, devices, what, env=env) as them:
    return finish(them, timeout)


def finish(processes: Sequence[Process], timeout: float = 120) -> list[Done]:
  """Waits for all -> how each of them ended."""
  end = time.monotonic() + timeout
  for process in processes:
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(max(0, end - time.monotonic()))
  text = lambda file: without_gloo(file.read_text(errors="replace"))
  return [Done(p.poll(), text(p.out), text(p.err)) for p in processes]


def without_gloo(text: str) -> str:
  """What a process said itself."""
  return re.sub(GLOO, "", text)


def each(env: Mapping[str, str | None], i: int) -> dict[str, str | None]:
  """An environment for process `i`: `{i}` in a value stands for it."""
  return {k: v and v.replace("{i}", str(i)) for k, v in env.items()}


@contextlib.contextmanager
def started(
  processes: int,
  devices: int,
  what: Sequence | str,
  *,
  env: Mapping[str, str | None] | None = None,
  absent: int = 0,
) -> Iterator[list[Process]]:
  """The processes, running; all are killed at the end, with their children.

  Of them the last `absent` never come.
  """
  them, port = [], free_port()
  with tempfile.TemporaryDirectory(prefix="jaxgen-pod-") as folder:
    try:
      for i in range(processes - absent):
        own = place(processes, i, port) | {
          "JAX_PLATFORMS": "cpu",
          "XLA_FLAGS": xla.devices(devices),
        }
        them.append(start(i, what, own | each(env or {}, i), folder))
      yield them
    finally:
      for process in them:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(i: int, what: Sequence | str, env: Mapping[str, str | None], folder: str) -> Process:
  """One process, in a group of its own."""
  if isinstance(what, str):
    words = ["-c", JOIN + what]
  else:
    words = ["-m", "jaxgen", *(str(w).replace("{i}", str(i)) for w in what)]
  full_env = {k: v for k, v in (os.environ | dict(env)).items() if v is not None}
  out, err = (pathlib.Path(folder) / f"{i}.{k}" for k in ("out", "err"))
  with open(out, "wb") as to_out, open(err, "wb") as to_err:
    process = Process(
      [sys.executable, *words],
      cwd=ROOT,
      env=full_env,
      stdout=to_out,
      stderr=to_err,
      process_group=0,
    )
  process.out, process.err = out, err
  return process


def place(processes: int, i: int, port: int) -> dict[str, str | None]:
  """What the environment says of who is who; nothing for one alone."""
  names = "JAXGEN_COORDINATOR", "JAXGEN_PROCESSES", "JAXGEN_PROCESS_ID"
  if processes == 1:
    return dict.fromkeys(names)
  return dict(zip(names, (f"127.0.0.1:{port}", str(processes), str(i)), strict=True))


def free_port() -> int:
  """A port that nobody listens on, and that no connection will get: those are above 32767."""
  for port in random.SystemRandom().sample(range(12_000, 24_000), 100):
    with socket.socket() as free, contextlib.suppress(OSError):
      free.bind(("", port))
      return port
  raise OSError("a hundred ports are taken")
