"""Two trainings never share a workdir; who died holds nothing."""

import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pod
import pytest
from verbs import POINTS, call

from jaxgen.checkpoint import lock
from jaxgen.errors import UserError

HOLD = """
import os, sys, time
from jaxgen.checkpoint import lock
with lock.exclusive(sys.argv[1]):
  if len(sys.argv) > 2 and os.fork() == 0:  # a worker that outlives us
    time.sleep(60)
    os._exit(0)
  print("held", flush=True)
  time.sleep(60)
"""


class Holder:
  """A process that holds the lock of a workdir."""

  def __init__(self, workdir, *more):
    self.process = subprocess.Popen(
      [sys.executable, "-c", HOLD, workdir, *more], stdout=subprocess.PIPE, start_new_session=True
    )
    assert self.process.stdout.readline() == b"held\n"

  def __enter__(self):
    return self.process

  def __exit__(self, *_):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()
    self.process.stdout.close()


def test_a_second_training_is_refused(tmp_path, capsys, monkeypatch):
  with Holder(tmp_path) as other:
    status, out, lines = call(capsys, monkeypatch, "train", POINTS, f"--workdir={tmp_path}")
    assert status == 2 and not out and len(lines) == 1
    assert re.search(
      rf"{tmp_path} is in use by process {other.pid} on "
      rf"{re.escape(socket.gethostname())} since 20\d\d-\d\d-\d\d \S+: wait "
      "until it ends, or take another --workdir",
      lines[0],
    )
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("more", [(), ("worker",)])
def test_death_gives_it_back_at_once(tmp_path, more):
  with Holder(tmp_path, *more) as other:
    other.kill()  # the worker, if there is one, lives on
    other.wait()
    with lock.exclusive(tmp_path):
      text = (tmp_path / lock.FILE).read_text()
    assert text.startswith(f"process {os.getpid()} on ")
  with lock.exclusive(tmp_path):  # the end of a training gives it back, too
    pass


def test_who_is_told_to_wait_waits(tmp_path, capsys):
  with Holder(tmp_path) as other:
    done = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {other.pid}"])
    start = time.monotonic()
    with lock.exclusive(tmp_path, wait=True):
      assert time.monotonic() - start > 0.5
    done.wait()
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"jaxgen: waiting for process {other.pid} on ")


def test_a_machine_that_died_is_waited_for(tmp_path, capsys, monkeypatch):
  """A file server holds its locks for a while."""
  with Holder(tmp_path) as other:
    path = tmp_path / lock.FILE
    path.write_text(path.read_text().replace(socket.gethostname(), "far.off"))
    monkeypatch.setattr(lock, "LEASE", 1)
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"process {other.pid} on far.off"):
      lock.acquire(tmp_path)
    assert time.monotonic() - start > 0.9
  assert "waiting for" in capsys.readouterr().err


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_locks(tmp_path, capsys, monkeypatch, code):
  def never(*_):
    raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

  monkeypatch.setattr(fcntl, "lockf", never)
  with lock.exclusive(tmp_path):
    pass
  (line,) = capsys.readouterr().err.splitlines()
  assert "cannot be locked here" in line and "nobody else" in line


def test_what_lies_where_the_lock_wants_to_be(tmp_path):
  path = tmp_path / lock.FILE
  (tmp_path / "mine").write_text("mine")
  path.symlink_to("mine")
  with pytest.raises(UserError, match=rf"{lock.FILE}"), lock.exclusive(tmp_path):
    pass
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(UserError, match="in the way"), lock.exclusive(tmp_path):
    pass
  path.unlink()
  path.mkdir()
  with pytest.raises(UserError, match=rf"{lock.FILE}"), lock.exclusive(tmp_path):
    pass
  path.rmdir()
  path.write_text("mine\x1b[2J")
  with lock.exclusive(tmp_path), pytest.raises(UserError, match="another process"):
    subprocess_acquire(tmp_path)
  assert path.read_text() == "mine\x1b[2J"
  assert (tmp_path / "mine").read_text() == "mine"


def subprocess_acquire(workdir):
  """The error that another process meets."""
  code = (
    "import sys, pathlib\nfrom jaxgen.checkpoint import lock\n"
    "lock.acquire(pathlib.Path(sys.argv[1]))"
  )
  done = subprocess.run([sys.executable, "-c", code, workdir], capture_output=True, text=True)
  assert "\x1b" not in done.stderr
  raise UserError(done.stderr.splitlines()[-1])


def test_all_processes_of_a_job_hear_of_it(tmp_path):
  with Holder(tmp_path) as other:
    done = pod.run(2, 1, ["train", POINTS, f"--workdir={tmp_path}"])
  for one in done:
    assert one.status == 2, one
    assert f"in use by process {other.pid}" in one.stderr
