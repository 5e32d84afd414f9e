"""Small studies for tests: folders of images, a server, and what to ask it."""

import contextlib
import http.client
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from jaxgen.study.pairs import find_pairs
from jaxgen.study.record import Record
from jaxgen.study.server import Server, Study

SIZE = 48


def folders(top, n=12, size=SIZE, kinds=("real", "fake"), rename=lambda i: i):
  """Real images are bright, fake ones dark: so that a test can tell."""
  for kind in kinds:
    (top / kind).mkdir(parents=True, exist_ok=True)
    for i in range(n):
      x = np.full((size, size, 3), 200 if kind == "real" else 50, np.uint8)
      x += np.random.default_rng(i).integers(0, 40, x.shape, np.uint8)
      name = rename(i) if kind == "fake" else i
      Image.fromarray(x).save(top / kind / f"scene{name}.png")


def look(top, pairing="auto", seed=0, warn=pytest.fail, low=False):
  """The pairs of what `folders` wrote."""
  paths = {kind: str(top / kind) for kind in ("real", "fake", "low") if kind != "low" or low}
  return find_pairs(paths, pairing, seed, warn)


@contextlib.contextmanager
def study(top, num=8, seconds=3.0, low=False, seed=0, pairing="auto"):
  """A server in a thread -> what sends it requests; its record."""
  pairs = look(top, pairing, seed, print, low=low)
  record = Record(top / "study.jsonl", {"seed": seed, "num": num})
  server = Server(0)
  server.study = Study(pairs, record, num, seconds)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  try:
    yield server, record
  finally:
    server.shutdown()
    server.server_close()
    record.close()


def ask(server, method, path, data=None, host="127.0.0.1", **headers):
  """-> status, headers, body (decoded if it is JSON)."""
  link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
  body = data if data is None or isinstance(data, bytes) else json.dumps(data)
  link.request(method, path, body, {"Host": host, "Content-Type": "application/json"} | headers)
  reply = link.getresponse()
  text = reply.read()
  kind = reply.headers.get_content_type()
  link.close()
  return reply.status, reply.headers, (json.loads(text) if kind == "application/json" else text)


def post(server, path, **data):
  status, _, reply = ask(server, "POST", path, data)
  assert status == 200, reply
  return reply


def answer(server, visitor, trial, choice="left", ms=1):
  """A pair is shown, and somebody chooses."""
  post(server, "/trial", visitor=visitor, trial=trial)
  return post(server, "/choice", visitor=visitor, trial=trial, choice=choice, ms=ms)


def pixels(server, address):
  status, _, data = ask(server, "GET", address)
  assert status == 200
  return np.asarray(Image.open(io.BytesIO(data))), data
