"""The study over HTTP, to this machine alone.

A visitor learns of an image or a clip its token alone, which says nothing: it is a
keyed hash of who asks which question and of the place on the page.
"""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxgen.errors import UserError
from jaxgen.study.pairs import Pairs, Trial
from jaxgen.study.ratings import Rating, Ratings
from jaxgen.study.record import Record

VISITOR = re.compile(r"[A-Za-z0-9_-]{4,64}")
SLOWEST = 24 * 3600 * 1000  # milliseconds that an answer may take
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
IMAGE = re.compile(r"/image/([0-9a-f]{32})")
MOST = 10_000  # times that a clip may be played
LARGEST = 4096  # bytes of a request's body
HTML, JSON = "text/html; charset=utf-8", "application/json"


class Refusal(Exception):
  """Why a request is refused: an HTTP status and a line, or what to do next."""

  def __init__(self, status: int, text: str, **more: Any):
    super().__init__(text)
    self.status, self.reply = status, {"error": text, **more}


class Study:
  """Asks each visitor `num` questions in order, and records the answers."""

  def __init__(self, test: Pairs | Ratings, record: Record, num: int, seconds: float):
    self.test, self.record = test, record
    self.num, self.seconds = num, seconds
    self.secret = secrets.token_bytes(32)
    self.lock = threading.Lock()
    self.tokens: dict[str, Path] = {}
    self.sent: set[str] = set()  # tokens of what a visitor has
    self.shown = Counter()  # more than once where a page was opened anew
    self.answered = Counter(row["visitor"] for row in record.rows)

  def visit(self, visitor: Any = None) -> dict[str, Any]:
    """Where a visitor stands; None is a new one."""
    if visitor is None:
      visitor = secrets.token_urlsafe(9)
    check_visitor(visitor)
    trial = self.answered[visitor]
    reply = {"visitor": visitor, "trial": trial, "trials": self.num, "seconds": self.seconds}
    if trial >= self.num:  # and no sooner
      own = [row for row in self.record.rows if row["visitor"] == visitor]
      reply |= self.test.own_result(own)
    return reply

  def trial(self, visitor: Any, trial: Any) -> dict[str, Any]:
    """Addresses of the images or clips of the next question."""
    question = self.question(visitor, trial)
    self.shown[visitor, trial] += 1
    reply = {}
    for place, file in self.test.files(question).items():
      token = self.token(visitor, trial, place)
      self.tokens[token] = file
      reply[place] = f"/image/{token}"
    return reply

  def token(self, visitor: str, trial: int, place: str) -> str:
    """What stands in an address for what is at a place of a question."""
    message = f"{visitor}/{trial}/{place}".encode()
    return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:32]

  def image(self, token: str) -> tuple[str, bytes]:
    """Type and bytes of the image or clip of a token."""
    if token not in self.tokens:
      raise Refusal(404, "no such image")
    try:
      content = self.test.content(self.tokens[token])
      self.sent.add(token)
      return content
    except Exception as e:  # it could be read when the study began
      raise Refusal(410, "this file cannot be read any more") from e

  def choice(
    self, visitor: Any, trial: Any, choice: Any, ms: Any, played: Any = None
  ) -> dict[str, Any]:
    """Records which side was taken for the real one, or a rating; replies as `visit`.

    Of clips only if all were `played` to the end, {place: how often}.
    """
    self.check_choice(choice)
    if type(ms) not in (int, float) or not 0 <= ms <= SLOWEST:
      raise Refusal(400, "ms: want milliseconds")
    with self.lock:
      question = self.question(visitor, trial)
      if not self.shown[visitor, trial]:  # or by a server that is no more
        raise Refusal(409, "this pair was not shown", **self.visit(visitor))
      self.record.append({
        "visitor": visitor,
        "trial": trial,
        **self.test.answer(question, choice),
        **self.check_played(visitor, trial, played),
        "ms": round(ms),
        "shown": self.shown[visitor, trial],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
      })  # fmt: skip
      self.answered[visitor] += 1
    return self.visit(visitor)

  def check_choice(self, choice: Any) -> None:
    """Refuses what is no answer, whatever the question."""
    answers = self.test.answers
    if type(choice) is not type(answers[0]) or choice not in answers:
      raise Refusal(400, f"choice: want {answers[0]} {self.test.between} {answers[-1]}")

  def check_played(self, visitor: str, trial: int, played: Any) -> dict[str, Any]:
    """What is recorded of players; refuses an answer to what was not heard."""
    places = self.test.places
    if not places:
      return {}
    times = played if isinstance(played, dict) else {}
    heard = {place: times.get(place) for place in places}
    sent = all(self.token(visitor, trial, place) in self.sent for place in places)
    if not sent or any(type(n) is not int or not 1 <= n <= MOST for n in heard.values()):
      raise Refusal(400, "played: want every clip played to the end")
    return {"played": heard}

  def question(self, visitor: Any, trial: Any) -> Trial | Rating:
    """The visitor's next question; a Refusal if `trial` is not its number."""
    check_visitor(visitor)
    number = self.answered[visitor]
    if type(trial) is not int or trial != number or number >= self.num:
      raise Refusal(409, "this question is not the next", **self.visit(visitor))
    return self.test.trials(visitor, self.num)[trial]


def check_visitor(visitor: Any) -> None:
  """Refuses what cannot be a visitor."""
  if not isinstance(visitor, str) or not VISITOR.fullmatch(visitor):
    raise Refusal(400, "visitor: want 4 to 64 letters, digits, - or _")


class Server(http.server.ThreadingHTTPServer):
  """Serves its `study` on 127.0.0.1."""

  request_queue_size = 1024  # of those who come at once; the system caps it
  study: Study

  def __init__(self, port: int):
    self.nonce = secrets.token_urlsafe(16)
    try:
      super().__init__(("127.0.0.1", port), Handler)
    except OverflowError as e:
      raise UserError(f"--port={port}: want 0 to 65535; 0 takes any free one") from e
    except OSError as e:
      raise UserError(f"--port={port}: {e.strerror}; 0 takes any free one") from e

  def server_bind(self):
    """Without HTTPServer's own, which asks the network for a name."""
    socketserver.TCPServer.server_bind(self)
    self.server_name, self.server_port = self.server_address[:2]

  def handle_error(self, request, client_address):
    """A browser that went away is no news."""

  @property
  def url(self) -> str:
    """The address of the page."""
    return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
  """Knows a few routes; paths are compared, never opened."""

  server: Server
  protocol_version = "HTTP/1.1"
  server_version, sys_version = "jaxgen", ""
  timeout = 60  # seconds of a silent connection
  disable_nagle_algorithm = True  # or each reply waits 40 ms for the last one

  def do_GET(self):
    self.respond(self.page)

  def do_POST(self):
    self.respond(self.action)

  def page(self) -> tuple[str, bytes]:
    """Type and content of what is at a path."""
    study, nonce, path = self.server.study, self.server.nonce, self.path.partition("?")[0]
    if token := IMAGE.fullmatch(path):
      return study.image(token[1])
    if path == "/":
      text = study.test.page(study.num, study.seconds, nonce)
    elif path == "/result":
      text = study.test.result(list(study.record.rows), study.seconds, nonce)
    else:
      raise Refusal(404, "there is no such page")
    return HTML, text.encode()

  def action(self) -> tuple[str, bytes]:
    """Type and content of the reply to what a visitor does."""
    study = self.server.study
    routes = {
      "/visit": (study.visit, "visitor"),
      "/trial": (study.trial, "visitor", "trial"),
      "/choice": (study.choice, "visitor", "trial", "choice", "ms", "played"),
    }
    if self.path not in routes:
      raise Refusal(404, "there is no such page")
    method, *names = routes[self.path]
    values = self.body()
    return JSON, json.dumps(method(*map(values.get, names))).encode()

  def body(self) -> dict[str, Any]:
    """The JSON object of a request."""
    size = self.headers.get("Content-Length", "")
    if not re.fullmatch(r"\d{1,9}", size) or int(size) > LARGEST:
      raise Refusal(413, f"want at most {LARGEST} bytes")
    data = self.rfile.read(int(size))
    # No form on another site can say so.
    if self.headers.get_content_type() != JSON:
      raise Refusal(415, f"want {JSON}")
    try:
      values = json.loads(data)
    except (ValueError, RecursionError):
      values = None
    if not isinstance(values, dict):
      raise Refusal(400, "want a JSON object")
    return values

  def respond(self, answer: Callable[[], tuple[str, bytes]]) -> None:
    """Sends what `answer` returns, or why it does not."""
    status = 200
    try:
      # A name that merely points here is another site's (DNS rebinding).
      if not HOST.fullmatch(self.headers.get("Host", "")):
        raise Refusal(403, "this study is for its own machine")
      kind, data = answer()
    except Refusal as e:
      status, kind, data = e.status, JSON, json.dumps(e.reply).encode()
    except OSError as e:  # the disk is full: the choice is not recorded
      status, kind = 500, JSON
      data = json.dumps({"error": f"cannot record: {e.strerror}"}).encode()
    self.send_response(status)
    nonce = self.server.nonce
    for name, value in {
      "Content-Type": kind,
      "Content-Length": str(len(data)),
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
      "Referrer-Policy": "no-referrer",
      "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; media-src blob:; "
      "connect-src 'self'; "
      f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'",
    }.items():
      self.send_header(name, value)
    if status != 200:  # the body of its request may not have been read
      self.send_header("Connection", "close")
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, *_):
    """The record says all that matters."""
