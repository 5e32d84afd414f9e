"""Two trainings never share a workdir in a bucket; who died holds it for a while."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxgen.bucket import objects
from jaxgen.checkpoint import lease, lock
from jaxgen.errors import UserError

pytestmark = pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)

HOLD = """
import sys, time
from jaxgen.checkpoint import lock
with lock.exclusive(sys.argv[1]):
  print("held", flush=True)
  time.sleep(60)
"""


@pytest.fixture
def brief(monkeypatch, quick):
  """Beats and leases of less than seconds."""
  monkeypatch.setattr(lease, "BEAT", 0.1)
  monkeypatch.setattr(lease, "LEASE", 2.0)


def elsewhere(bucket, **changes):
  """The lock of a process of another machine, which does not beat."""
  holder = lease.own_name() | {"machine": "another", "token": "other"} | changes
  objects.write(f"{bucket.folder}/{lease.FILE}", lease.content(holder))
  return holder["holder"]


def test_a_second_process_is_refused_and_death_frees(bucket):
  process = subprocess.Popen([sys.executable, "-c", HOLD, bucket.folder], stdout=subprocess.PIPE)
  try:
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=rf"{bucket.folder} is in use by process {process.pid} on"):
      with lock.exclusive(bucket.folder):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    start = time.monotonic()
    with lock.exclusive(bucket.folder):  # its system says that it is gone
      assert time.monotonic() - start < lease.BEAT
      assert (
        f"process {os.getpid()} on"
        in bucket.content(f"{bucket.folder[len(bucket.address) + 1 :]}/{lease.FILE}").decode()
      )
  finally:
    process.kill()
    process.stdout.close()
  assert objects.read(f"{bucket.folder}/{lease.FILE}") == lease.FREE


def test_of_all_who_want_it_one_has_it(bucket, brief):
  inside, most, held = [], [], threading.Lock()

  def work(i):
    with lock.exclusive(bucket.folder, wait=True):
      with held:
        inside.append(i)
        most.append(len(inside))
      time.sleep(0.05)
      with held:
        inside.remove(i)

  threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
  [t.start() for t in threads]
  [t.join() for t in threads]
  assert most == [1] * 4


def test_another_machine_is_given_its_time(bucket, brief, capsys):
  who = elsewhere(bucket)
  start = time.monotonic()
  with lock.exclusive(bucket.folder):
    assert time.monotonic() - start >= lease.LEASE
  assert f"waiting for {who}, who holds {bucket.folder}" in capsys.readouterr().err


def test_another_machine_that_beats_is_left_alone(bucket, brief):
  end = threading.Event()

  def beat():
    while not end.wait(0.3):
      elsewhere(bucket, beat=time.time())

  elsewhere(bucket)
  thread = threading.Thread(target=beat)
  thread.start()
  try:
    with pytest.raises(UserError, match="is in use by process"):
      with lock.exclusive(bucket.folder):
        pass
  finally:
    end.set()
    thread.join()


def test_a_holder_survives_lost_answers(bucket, brief):
  bucket.faults.drop = 0.4
  with lock.exclusive(bucket.folder):
    address = f"{bucket.folder}/{lease.FILE}"
    first = json.loads(objects.read(address))
    end = time.monotonic() + 20
    while bucket.answers["answer lost"] < 5 and time.monotonic() < end:
      time.sleep(0.05)
    bucket.faults.drop = 0
    while json.loads(objects.read(address))["beat"] < first["beat"] + 1:
      time.sleep(0.05)
    assert json.loads(objects.read(address))["token"] == first["token"]
  assert objects.read(f"{bucket.folder}/{lease.FILE}") == lease.FREE


def test_who_was_away_too_long_ends(bucket):
  hold = HOLD.replace(
    "with lock", "from jaxgen.checkpoint import lease\nlease.BEAT = 0.2\nwith lock"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", hold, bucket.folder],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert process.stdout.readline() == "held\n"
  who = elsewhere(bucket)
  _, said = process.communicate(timeout=50)
  assert process.returncode == 2
  assert re.search(
    rf"{bucket.folder}/{lease.FILE} was taken over by {re.escape(who)}: .* too long", said
  )


def test_what_lies_where_the_lock_wants_to_be(bucket):
  objects.write(f"{bucket.folder}/{lease.FILE}", b"mine")
  with pytest.raises(UserError, match=f"{lease.FILE} is in the way: move it elsewhere"):
    with lock.exclusive(bucket.folder):
      pass
  assert objects.read(f"{bucket.folder}/{lease.FILE}") == b"mine"
