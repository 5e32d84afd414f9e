"""The study over HTTP, to this machine alone; and what visitors are told.

A visitor learns of an image its token alone, which says nothing: it is a
keyed hash of who asks which question and of the place on the page."""

import hashlib
import hmac
import http.server
import json
import re
import secrets
import socketserver
import threading
import time
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jaxgen.errors import UserError
from jaxgen.study import study_page
from jaxgen.study.pairs import Pairs, Trial, encoded
from jaxgen.study.record import Record
from jaxgen.study.score import score

VISITOR = re.compile(r"[A-Za-z0-9_-]{4,64}")
LONGEST = 24 * 3600 * 1000  # milliseconds that an answer may take


class Refusal(Exception):
  """What is not answered: an HTTP status and a line, or what to do next."""

  def __init__(self, status: int, text: str, **more: Any):
    super().__init__(text)
    self.status, self.reply = status, {"error": text, **more}


class Desk:
  """Asks each visitor `num` questions in order, and records the answers."""

  def __init__(self, pairs: Pairs, record: Record, num: int, seconds: float):
    self.pairs, self.record = pairs, record
    self.num, self.seconds = num, seconds
    self.secret = secrets.token_bytes(32)
    self.lock = threading.Lock()
    self.tokens: dict[str, Path] = {}
    self.shown = Counter()  # more than once where a page was opened anew
    self.answered = Counter(row["visitor"] for row in record.rows)

  def visit(self, visitor: Any = None) -> dict[str, Any]:
    """Somebody comes, or comes back."""
    if visitor is None:
      visitor = secrets.token_urlsafe(9)
    self.known(visitor)
    reply = {
      "visitor": visitor,
      "trial": self.answered[visitor],
      "trials": self.num,
      "seconds": self.seconds,
    }
    if reply["trial"] >= self.num:  # and no sooner
      reply["fooled"] = sum(row["fooled"] for row in self.record.rows if row["visitor"] == visitor)
    return reply

  def trial(self, visitor: Any, trial: Any) -> dict[str, Any]:
    """Addresses of the images of the question that is next."""
    asked = self.due(visitor, trial)
    right = "fake" if asked.left == "real" else "real"
    places = {"left": asked.left, "right": right}
    if asked.low:
      places["low"] = "low"
    self.shown[visitor, trial] += 1
    reply = {}
    for place, kind in places.items():
      message = f"{visitor}/{trial}/{place}".encode()
      token = hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:32]
      self.tokens[token] = self.pairs.folders[kind] / getattr(asked, kind)
      reply[place] = f"/image/{token}"
    return reply

  def image(self, token: str) -> bytes:
    """A PNG file."""
    if token not in self.tokens:
      raise Refusal(404, "no such image")
    try:
      return encoded(self.tokens[token])
    except Exception as e:  # it could be read when the study began
      raise Refusal(410, "this image cannot be read any more") from e

  def choice(self, visitor: Any, trial: Any, choice: Any, ms: Any) -> dict[str, Any]:
    """Records which side was taken for the photograph; what `visit` says."""
    if choice not in ("left", "right"):
      raise Refusal(400, "choice: want left or right")
    if type(ms) not in (int, float) or not 0 <= ms <= LONGEST:
      raise Refusal(400, "ms: want milliseconds")
    with self.lock:
      asked = self.due(visitor, trial)
      if not self.shown[visitor, trial]:  # or by a server that is no more
        raise Refusal(409, "this pair was not shown", **self.visit(visitor))
      self.record.append(
        {
          "visitor": visitor,
          "trial": trial,
          "real": asked.real,
          "fake": asked.fake,
          "low": asked.low,
          "left": asked.left,
          "choice": choice,
          "fooled": (choice == "left") == (asked.left == "fake"),
          "ms": round(ms),
          "shown": self.shown[visitor, trial],
          "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
      )
      self.answered[visitor] += 1
    return self.visit(visitor)

  def due(self, visitor: Any, trial: Any) -> Trial:
    """The question that is next, if that is what is meant."""
    self.known(visitor)
    due = self.answered[visitor]
    if type(trial) is not int or trial != due or due >= self.num:
      raise Refusal(409, "this question is not the next", **self.visit(visitor))
    return self.pairs.trials(visitor, self.num)[trial]

  def known(self, visitor: Any) -> None:
    """Refuses what cannot be a visitor."""
    if not isinstance(visitor, str) or not VISITOR.fullmatch(visitor):
      raise Refusal(400, "visitor: want 4 to 64 letters, digits, - or _")


HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
IMAGE = re.compile(r"/image/([0-9a-f]{32})")
LARGEST = 4096  # bytes of a request's body
HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "X-Frame-Options": "DENY",
  "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
  "script-src 'self'; connect-src 'self'; base-uri 'none'; "
  "form-action 'none'",
}


class Server(http.server.ThreadingHTTPServer):
  """Answers for its `desk`, on 127.0.0.1."""

  daemon_threads = True
  request_queue_size = 1024  # of those who come at once; the system caps it
  desk: Desk

  def __init__(self, port: int):
    try:
      super().__init__(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as e:
      why = getattr(e, "strerror", None) or "want 0 to 65535"
      raise UserError(f"--port={port}: {why}; 0 takes any free one") from e

  def server_bind(self):
    """Without HTTPServer's own, which asks the network for a name."""
    socketserver.TCPServer.server_bind(self)
    self.server_name, self.server_port = self.server_address[:2]

  def handle_error(self, request, client_address):
    """A browser that went away is no news."""

  @property
  def url(self) -> str:
    """Where it is."""
    return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
  """Knows a few routes; paths are compared, never opened."""

  protocol_version = "HTTP/1.1"
  server_version, sys_version = "jaxgen", ""
  timeout = 60  # of a connection that says nothing
  disable_nagle_algorithm = True  # or each reply waits 40 ms for the last one

  def do_GET(self):
    desk, path = self.server.desk, self.path.partition("?")[0]
    if token := IMAGE.fullmatch(path):
      self.reply("image/png", lambda: desk.image(token[1]))
    elif path == "/":
      self.reply(
        "text/html",
        lambda: study_page.study(desk.num, desk.seconds, desk.pairs.matched, bool(desk.pairs.lows)),
      )
    elif path == "/result":
      self.reply(
        "text/html", lambda: study_page.result(score(list(desk.record.rows)), desk.seconds)
      )
    elif path in study_page.FILES:
      self.reply(*study_page.FILES[path])
    else:
      self.reply(*self.unknown())

  def do_POST(self):
    desk = self.server.desk
    routes = {
      "/visit": (desk.visit, "visitor"),
      "/trial": (desk.trial, "visitor", "trial"),
      "/choice": (desk.choice, "visitor", "trial", "choice", "ms"),
    }
    if self.path not in routes:
      self.close_connection = True  # its body was not read
      self.reply(*self.unknown())
      return
    answer, *names = routes[self.path]

    def call():
      given = self.body()
      return json.dumps(answer(*(given.get(name) for name in names)))

    self.reply("application/json", call)

  def unknown(self):
    def refuse():
      raise Refusal(404, "there is no such page")

    return "text/plain", refuse

  def body(self) -> dict[str, Any]:
    """The JSON object of a request."""
    size = self.headers.get("Content-Length", "")
    if not re.fullmatch(r"\d{1,9}", size) or int(size) > LARGEST:
      self.close_connection = True
      raise Refusal(413, f"want at most {LARGEST} bytes")
    data = self.rfile.read(int(size))
    # No form on another site can say so.
    if self.headers.get_content_type() != "application/json":
      raise Refusal(415, "want application/json")
    try:
      given = json.loads(data)
    except (ValueError, RecursionError):
      given = None
    if not isinstance(given, dict):
      raise Refusal(400, "want a JSON object")
    return given

  def reply(self, kind: str, make) -> None:
    """Sends what `make` makes, or why it does not."""
    status = 200
    try:
      # A name that merely points here is another site's (DNS rebinding).
      if not HOST.fullmatch(self.headers.get("Host", "")):
        self.close_connection = True
        raise Refusal(403, "this study is for its own machine")
      data = make()
    except Refusal as e:
      status, kind, data = e.status, "application/json", json.dumps(e.reply)
    except OSError as e:  # the disk is full: the choice is not recorded
      status, kind = 500, "application/json"
      data = json.dumps({"error": f"cannot record: {e.strerror}"})
    data = data.encode() if isinstance(data, str) else data
    self.send_response(status, HTTPStatus(status).phrase)
    charset = "" if kind == "image/png" else "; charset=utf-8"
    self.send_header("Content-Type", kind + charset)
    self.send_header("Content-Length", str(len(data)))
    for name, value in HEADERS.items():
      self.send_header(name, value)
    if self.close_connection:
      self.send_header("Connection", "close")
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, *_):
    """The file says all that matters."""
