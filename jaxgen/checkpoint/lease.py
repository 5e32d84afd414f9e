"""The lock on a workdir in a bucket, where no system lets go of it for the dead.

It is the object WORKDIR/.jaxgen.lock, written on the condition that nobody else
has written it since one looked: of two who take it at once one succeeds. Who
holds it writes it anew every BEAT seconds; who wants it, and sees it unchanged
for LEASE seconds by the own clock, takes it for that of a dead process. On the
machine of the holder nobody has to wait: its system tells who is alive. The
object stays, empty, when it is given back: nothing is removed on a condition.

A holder that was away for so long that somebody else took over, such as a
machine that was suspended, ends at its next beat with status 2.
"""

import datetime
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time

from jaxgen import files, forms
from jaxgen.bucket import objects
from jaxgen.distributed import watchdog
from jaxgen.errors import UserError, printable

FILE = ".jaxgen.lock"
BEAT = 15.0  # seconds
LEASE = 90.0
FREE = b""  # what it says when nobody holds it
FORM = {"holder": str, "machine": str, "process": str, "token": str, "beat": float}


class Lease:
  """A lock that is held, and the thread that keeps it."""

  def __init__(self, address: str, generation: bytes, holder: dict):
    self.address, self.generation, self.holder = address, generation, holder
    self._end = threading.Event()
    self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
    self._thread.start()

  def release(self) -> None:
    """Gives it back, if it is still ours."""
    self._end.set()
    self._thread.join()
    try:
      objects.write(self.address, FREE, self.generation)
    except OSError:
      pass  # it runs out by itself

  def _beat(self):
    while not self._end.wait(BEAT):
      try:
        self._renew()
      except OSError:
        continue  # the network is away: so may be whoever waits for it

  def _renew(self):
    self.holder["beat"] = time.time()
    generation = objects.write(self.address, content(self.holder), self.generation)
    if generation is None:
      other, generation = look(self.address)
      other = other or {"holder": "somebody", "token": ""}
      if other.get("token") != self.holder["token"]:  # else an answer was lost
        line = f"{self.address} was taken over by {printable(other.get('holder', 'somebody'))}"
        watchdog.exit_now(2, f"{line}: this process was away for too long")
    self.generation = generation


def acquire(workdir: str | os.PathLike, wait: bool = False) -> Lease:
  """The lock. UserError if somebody holds it, unless `wait`, or on no access."""
  address, start = files.join(workdir, FILE), time.monotonic()
  holder, announced, seen = own_name(), False, None
  try:
    while True:
      other, generation = look(address)
      if other is None:
        raise UserError(f"{address} is in the way: move it elsewhere")
      if seen is None or seen[0] != generation:
        seen = generation, time.monotonic()
      if not other or gone(other) or time.monotonic() - seen[1] > LEASE:
        generation = objects.write(address, content(holder), generation)
        if generation is not None:
          return Lease(address, generation, holder)
        continue
      who = printable(other["holder"])
      alive = seen[1] > start + 1 or same_machine(other)  # it beats, or its system says so
      if alive and not wait:
        raise UserError(
          f"{workdir} is in use by {who}: wait until it ends, or take another --workdir"
        )
      if not announced:
        announced = True
        print(f"jaxgen: waiting for {who}, who holds {workdir}", file=sys.stderr, flush=True)
      time.sleep(0.5)
  except OSError as e:
    raise UserError(f"cannot write to {e.filename or address} ({e.strerror or e})") from e


def content(holder: dict) -> bytes:
  """What the object says."""
  return json.dumps(holder, indent=1).encode()


def look(address: str) -> tuple[dict | None, bytes]:
  """Who holds a lock, and the object's generation, of one moment.

  Nobody is {}: it is not there, or empty. None: the object is no lock of ours.
  """
  while True:
    generation = objects.generation(address)
    if generation == objects.MISSING:
      return {}, generation
    try:
      text = objects.read(address)
    except FileNotFoundError:
      continue
    if objects.generation(address) == generation:
      break
  if text == FREE:
    return {}, generation
  try:
    holder = json.loads(text)
  except ValueError:
    return None, generation
  return (None if forms.misfit(holder, FORM) else holder), generation


def own_name() -> dict:
  """This process, for people and for who asks whether it lives."""
  now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
  return {
    "holder": f"process {os.getpid()} on {socket.gethostname()} since {now}",
    "machine": machine(),
    "process": process(os.getpid()),
    "token": secrets.token_hex(16),
    "beat": time.time(),
  }


def machine() -> str:
  """This boot of this machine, and the processes we can see; "" if unknown."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return ""


def process(pid: int) -> str:
  """A process of this machine, by number and start; "" if there is none."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return ""
  state, *rest = text.rpartition(")")[2].split()
  return "" if state in "ZX" else f"{pid} {rest[18]}"


def same_machine(holder: dict) -> bool:
  """Whether a holder runs where we do."""
  return bool(machine()) and holder.get("machine") == machine()


def gone(holder: dict) -> bool:
  """Whether a holder ran on this machine, and ended."""
  pid = holder.get("process", "").partition(" ")[0]
  return same_machine(holder) and pid.isdecimal() and process(int(pid)) != holder["process"]
