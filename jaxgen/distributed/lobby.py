"""Where processes wait for each other before they join: who dies there is missed.

Jax waits minutes for a process that never comes, for hosts may be slow to
start, and cannot tell one that is late from one that came and died. So each
process holds a connection to process 0 from its first moment on. Its end is a
death, which ends all others at once; who has not been seen yet is waited for.

  process i -> 0   "here I OF", a "." every second, "end STATUS LINE" or "bye"
  0 -> process i   GREETING, a "." every second, "all", "end STATUS LINE" or "bye"

Process 0 listens at the coordinator's own port, which jax gets once all are
there, or at another one where jax alone knows the coordinator. Standard library
alone: it is there before jax is imported.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping

from jaxgen.distributed.watchdog import LOST, exit_now, named

GREETING = "jaxgen lobby"
TICK = 1.0  # seconds between signs of life
RETRY = 0.3  # seconds between attempts to reach process 0, or to get its port


class Line:
  """A connection, as lines of text; None when the other end is gone."""

  def __init__(self, connection: socket.socket, patience: float):
    self.connection, self.patience = connection, patience
    self.lock = threading.Lock()  # of sending
    connection.settimeout(patience)

  def send(self, text: str) -> bool:
    """Whether it went out."""
    try:
      with self.lock:
        self.connection.sendall(f"{text}\n".encode())
      return True
    except OSError:
      return False

  def lines(self) -> Iterator[str]:
    """What comes, until the other end is gone or silent for too long."""
    rest = b""
    with contextlib.suppress(OSError):
      while part := self.connection.recv(4096):
        *whole, rest = (rest + part).split(b"\n")
        yield from (text.decode(errors="replace") for text in whole)

  def pulse(self, over: threading.Event) -> None:
    """Sends signs of life until all is over."""
    while not over.wait(TICK) and self.send("."):
      pass

  def close(self) -> None:
    with contextlib.suppress(OSError):
      self.connection.shutdown(socket.SHUT_RDWR)
    self.connection.close()


class Lobby:
  """One process's place in it.

  Attributes:
    index, count: Which of how many this is.
    seconds: For how long those who have not come are waited for.
    patience: Silence, in seconds, that means death.
  """

  def __init__(self, address: str, index: int, count: int, seconds: float, patience: float):
    host, _, port = address.rpartition(":")
    self.host, self.port = host.strip("[]"), int(port)
    self.index, self.count, self.seconds, self.patience = index, count, seconds, patience
    self.others = {f"{i} {count}" for i in range(1, count)}  # as they say who they are
    self.everybody, self.over = threading.Event(), threading.Event()
    self.start, self.lock = time.monotonic(), threading.Lock()
    self.lines: dict[int, Line] = {}  # to each process, in process 0; else to that
    self.closed = threading.Event()  # of the port, in process 0: jax wants it

  def enter(self) -> None:
    """Begins to wait and to watch, in threads."""
    self._thread(self.visit if self.index else self.host_all)

  def wait(self) -> None:
    """Returns when all are there; ends the process, and all that came, if not in time."""
    while not self.everybody.wait(TICK):
      if time.monotonic() - self.start <= self.seconds or self.index and self.lines:
        continue  # (who has reached process 0 hears of it who is missing)
      missing = sorted({0} if self.index else set(range(1, self.count)) - self.lines.keys())
      self.end(
        LOST, f"{named(missing)} did not come within {self.seconds:.0f} s; {self._all_again()}"
      )
    if self.index == 0:
      self.closed.wait()

  def leave(self) -> None:
    """All have joined: others see to deaths from here on."""
    self.over.set()
    for line in list(self.lines.values()):
      line.send("bye")
      if self.index:  # process 0 hangs up after the others, or one might miss its word
        line.close()

  def end(self, status: int, text: str) -> None:
    """Ends all who are here, this process among them, with a status and a line."""
    self.tell(status, text)
    time.sleep(RETRY)  # they read it before the connection breaks
    exit_now(status, text)

  def tell(self, status: int, text: str) -> None:
    """Has all others who are here end with a status and a line."""
    if self.over.is_set():
      return
    self.over.set()
    for line in list(self.lines.values()):
      line.send(f"end {json.dumps([status, text])}")

  def host_all(self) -> None:
    """In process 0: takes those who come, until all are there."""
    with self._listen() as server:
      while not self.everybody.is_set() and not self.over.is_set():
        with contextlib.suppress(TimeoutError):
          connection, _ = server.accept()
          self._thread(self.meet, Line(connection, self.patience))
    self.closed.set()

  def meet(self, line: Line) -> None:
    """In process 0: one connection, from its greeting to its end."""
    if not line.send(GREETING):
      return
    incoming, who = line.lines(), None
    for text in incoming:
      word, _, rest = text.partition(" ")
      if word == "here" and rest in self.others:
        who = int(rest.split()[0])
        self._thread(line.pulse, self.over)
        self._take(who, line)
      elif word == "end" and who is not None:
        return self.end(*json.loads(rest))
      elif word == "bye" or who is None:  # or somebody else who tried this port
        return line.close()
    line.close()
    if who is not None and self.lines.get(who) is line and not self.over.is_set():
      self._missed(who)

  def _take(self, who: int, line: Line) -> None:
    with self.lock:
      self.lines[who] = line
      if len(self.lines) == self.count - 1:
        for other in self.lines.values():
          other.send("all")
        self.everybody.set()

  def visit(self) -> None:
    """In another process: holds on to process 0, once that can be reached."""
    while (line := self._reach()) is None and not self.over.is_set():
      time.sleep(RETRY)
    if line is None:
      return
    self.lines[0] = line
    line.send(f"here {self.index} {self.count}")
    self._thread(line.pulse, self.over)
    for text in line.lines():
      word, _, rest = text.partition(" ")
      if word == "all":
        self.everybody.set()
      elif word == "bye":
        return
      elif word == "end":
        exit_now(*json.loads(rest))
    if not self.over.is_set():
      self._missed(0)

  def _reach(self) -> Line | None:
    """A line to process 0, if it is there and greets."""
    try:
      connection = socket.create_connection((self.host, self.port), timeout=self.patience)
    except OSError:
      return None
    line = Line(connection, min(self.patience, 5.0))
    if next(line.lines(), None) != GREETING:  # jax of an earlier life, or a stranger
      line.close()
      return None
    connection.settimeout(self.patience)
    return line

  def _listen(self) -> socket.socket:
    """The port, once whoever had it is gone."""
    # Both, for so does gRPC, which is to have it next while our lines are open.
    dual = socket.has_dualstack_ipv6()
    while True:
      try:
        server = socket.socket(socket.AF_INET6 if dual else socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual:
          server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("", self.port))
        server.listen(max(self.count, 128))
        server.settimeout(RETRY)
        return server
      except OSError as e:
        server.close()
        if time.monotonic() - self.start > self.patience:
          self.end(
            2,
            f"port {self.port} of process 0 is taken ({e.strerror}): name a free one in "
            "JAXGEN_COORDINATOR, the same for all",
          )
        time.sleep(RETRY)

  def _missed(self, who: int) -> None:
    self.end(LOST, f"process {who} died before all had joined; {self._all_again()}")

  def _all_again(self) -> str:
    return f"start all {self.count} again"

  def _thread(self, target, *args) -> None:
    threading.Thread(target=target, args=args, daemon=True, name="lobby").start()


_lobby: Lobby | None = None  # of this process, while it waits for others
_joined = False  # after which there is nothing to wait for


def enter(address: str, index: int, count: int, seconds: float, patience: float) -> None:
  """Lets the others know that this process is there; once."""
  global _lobby
  if _lobby is None and not _joined:
    _lobby = Lobby(address, index, count, seconds, patience)
    _lobby.enter()


def enter_early(env: Mapping[str, str]) -> None:
  """Enters before jax is imported, where our own variables say all that it takes.

  What is wrong with them `join` says.
  """
  names = ("JAXGEN_PROCESS_ID", "JAXGEN_PROCESSES")
  patience = (("JAXGEN_JOIN_SECONDS", "300"), ("JAXGEN_HEARTBEAT_SECONDS", "30"))
  numbers = [env.get(n) or "" for n in names] + [env.get(n) or default for n, default in patience]
  address = env.get("JAXGEN_COORDINATOR") or ""
  if not all(n.isdecimal() for n in (*numbers, address.rpartition(":")[2])):
    return
  index, count, seconds, silence = map(int, numbers)
  if index < count and count > 1 and min(seconds, silence) > 0:
    enter(address, index, count, seconds, silence)


def wait() -> None:
  """Waits until all are there, if there is a lobby."""
  if _lobby is not None:
    _lobby.wait()


def leave() -> None:
  """All have joined."""
  global _lobby, _joined
  _joined = True
  if _lobby is not None:
    _lobby.leave()
    _lobby = None


def tell(status: int, line: str) -> None:
  """This process ends before it joined: so do those who wait for it."""
  if _lobby is not None and _lobby.lines:
    _lobby.tell(status, line)
    time.sleep(RETRY)  # they read it before the connection breaks
