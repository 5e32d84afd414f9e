"""The fool-rate study on its page: its routes, and a browser that plays."""

import http.client
import io
import json
import os
import re
import socket
import threading

import numpy as np
import pytest
from browser import PATH, Browser
from PIL import Image
from studies import SIZE, answer, ask, folders, pixels, post, study

from jaxgen.study import score


def test_a_visit_from_beginning_to_end(tmp_path):
  folders(tmp_path)
  with study(tmp_path, num=4) as (server, record):
    place = post(server, "/visit")
    visitor = place["visitor"]
    assert place == {"visitor": visitor, "trial": 0, "trials": 4, "seconds": 3}
    assert re.fullmatch(r"[\w-]{12}", visitor)
    for trial in range(4):
      images = post(server, "/trial", visitor=visitor, trial=trial)
      assert set(images) == {"left", "right"}
      bright = {side: pixels(server, address)[0].mean() > 120 for side, address in images.items()}
      assert sorted(bright.values()) == [False, True]
      real = max(bright, key=bright.get)
      place = post(server, "/choice", visitor=visitor, trial=trial, choice="right", ms=700 + trial)
      row = record.rows[-1]
      assert row["left"] == ("real" if real == "left" else "fake")
      assert row["fooled"] == (real == "left") and row["ms"] == 700 + trial
      assert row["shown"] == 1
      # It is in the file by now.
      assert json.loads((tmp_path / "study.jsonl").read_text().splitlines()[-1]) == row
    fooled = sum(row["fooled"] for row in record.rows)
    assert place["trial"] == 4 and place["fooled"] == fooled
    status, _, reply = ask(
      server, "POST", "/choice", {"visitor": visitor, "trial": 4, "choice": "left", "ms": 1}
    )
    assert status == 409 and reply["fooled"] == fooled
    assert f"{fooled / 4:.1%}" in ask(server, "GET", "/result")[2].decode()


def test_a_visitor_goes_on_after_a_restart(tmp_path):
  folders(tmp_path)
  with study(tmp_path) as (server, record):
    for trial in range(3):
      answer(server, "anna", trial)
    first = [row["real"] for row in record.rows]
  with study(tmp_path) as (server, record):
    assert post(server, "/visit", visitor="anna")["trial"] == 3
    assert post(server, "/visit", visitor="bert")["trial"] == 0
    for trial in range(3, 8):
      answer(server, "anna", trial)
    names = [row["real"] for row in record.rows]
    assert names[:3] == first and len(set(names)) == 8


def test_nothing_tells_which_is_real(tmp_path):
  folders(tmp_path)
  folders(tmp_path, size=6, kinds=["low"])
  for i in range(12):  # one kind grey, with a note in it
    with Image.open(tmp_path / "real" / f"scene{i}.png") as image:
      grey = image.convert("L")
    grey.save(tmp_path / "real" / f"scene{i}.png", dpi=(300, 300))
  with study(tmp_path, low=True) as (server, _):
    addresses = set()
    for visitor in ("anna", "bert"):
      images = post(server, "/trial", visitor=visitor, trial=0)
      assert list(images) == ["left", "right", "low"]
      assert all(re.fullmatch("/image/[0-9a-f]{32}", a) for a in images.values())
      addresses |= set(images.values())
      (a, x), (b, y) = (pixels(server, images[k]) for k in ("left", "right"))
      assert a.shape == b.shape == (SIZE, SIZE, 3)
      assert len(x) == len(y) and x[:43] == y[:43] and b"pHYs" not in x + y
      heads = [dict(ask(server, "GET", images[k])[1]) for k in ("left", "right")]
      for head in heads:
        head.pop("Date")
      assert heads[0] == heads[1] and heads[0]["Cache-Control"] == "no-store"
    assert len(addresses) == 6
    page = ask(server, "GET", "/")[2].decode()
    place = post(server, "/visit", visitor="anna")
    for text in (page, json.dumps(place), json.dumps(images)):
      assert "scene" not in text.replace("same scene", "")
      assert str(tmp_path) not in text
    assert "Both show the same scene." in page and "the small image" in page


def test_what_is_not_answered(tmp_path):
  folders(tmp_path)
  (tmp_path / "secret.png").write_bytes((tmp_path / "real" / "scene0.png").read_bytes())
  with study(tmp_path) as (server, record):
    escapes = "/../study.jsonl", "/image/../../study.jsonl", "/image/%2e%2e%2fsecret.png"
    absent = "/study.jsonl", "/image/" + "0" * 32, "/real/scene0.png", "/visit", "/image/"
    for path in (*escapes, *absent):
      assert ask(server, "GET", path)[0] == 404, path
    assert ask(server, "POST", "/")[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
      assert ask(server, method, "/")[0] == 501
    good = {"visitor": "anna", "trial": 0, "choice": "left", "ms": 5}
    for name, values in {
      "visitor": ("../x", 7, "a" * 65),
      "choice": ("real", None),
      "ms": (-1, "5", True, float("nan"), 1e300),
    }.items():
      for value in values:
        assert ask(server, "POST", "/choice", good | {name: value})[0] == 400, (name, value)
    for trial in (1, -1, "0", 0.0, True):
      assert ask(server, "POST", "/choice", good | {"trial": trial})[0] == 409, trial
    for body in (b"{", b"[]", b"\xff", b"[" * 4000):
      assert ask(server, "POST", "/choice", body)[0] == 400
    assert ask(server, "POST", "/choice", b" " * 5000)[0] == 413
    # Other sites: a form of theirs, and a name of theirs that points here.
    assert ask(server, "POST", "/choice", good, **{"Content-Type": "text/plain"})[0] == 415
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1:8 x"):
      assert ask(server, "POST", "/choice", good, host=host)[0] == 403
      assert ask(server, "GET", "/", host=host)[0] == 403
    assert ask(server, "GET", "/", host="localhost:9")[0] == 200
    # Nobody chose what was not shown; what comes back says where to go on.
    status, _, reply = ask(server, "POST", "/choice", good)
    assert status == 409 and "was not shown" in reply["error"]
    assert reply["trial"] == 0 and record.rows == []
    post(server, "/trial", visitor="anna", trial=0)
    # Twice the same answer, as when a key is hit twice: one is recorded.
    assert ask(server, "POST", "/choice", good)[0] == 200
    assert ask(server, "POST", "/choice", good)[0] == 409
    assert len(record.rows) == 1
    with pytest.raises(OSError):  # on other addresses of this machine
      socket.create_connection(("127.0.0.2", server.server_port), 2)


def test_a_choice_that_cannot_be_written_is_not_counted(tmp_path, monkeypatch):
  folders(tmp_path)
  with study(tmp_path) as (server, record):
    good = {"visitor": "anna", "trial": 0, "choice": "left", "ms": 5}
    post(server, "/trial", visitor="anna", trial=0)

    def full(_):
      raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
      patch.setattr("os.fsync", full)
      status, _, reply = ask(server, "POST", "/choice", good)
    assert status == 500 and "No space left" in reply["error"]
    assert post(server, "/choice", **good)["trial"] == 1
    assert len(record.rows) == 1
    assert len((tmp_path / "study.jsonl").read_text().splitlines()) == 2


def test_the_interval_holds_a_scripted_visitors_rate(tmp_path):
  """Six visitors who are fooled with p = 0.3, through the door."""
  folders(tmp_path, 60)
  rng, p = np.random.default_rng(7), 0.3
  with study(tmp_path, num=60) as (server, record):
    link = http.client.HTTPConnection("127.0.0.1", server.server_port)

    def send(path, **data):
      link.request("POST", path, json.dumps(data), {"Content-Type": "application/json"})
      return json.loads(link.getresponse().read())

    for i in range(6):
      for trial in range(60):
        images = send("/trial", visitor=f"visitor{i}", trial=trial)
        link.request("GET", images["left"])
        x = np.asarray(Image.open(io.BytesIO(link.getresponse().read())))
        real, fake = ("left", "right") if x.mean() > 120 else ("right", "left")
        choice = fake if rng.random() < p else real
        send("/choice", visitor=f"visitor{i}", trial=trial, ms=9, choice=choice)
    link.close()
    s = score.score(record.rows)
  assert (s.trials, s.visitors) == (360, 6)
  assert s.interval[0] < p < s.interval[1] < s.interval[0] + 0.1
  assert s.clustered[0] < p < s.clustered[1]


def test_many_come_at_once(tmp_path):
  """Before anybody is answered: the system keeps them in line."""
  folders(tmp_path)
  with study(tmp_path) as (server, _):
    server.shutdown()  # nobody is let in ...
    links = [socket.create_connection(("127.0.0.1", server.server_port), 5) for _ in range(60)]
    for link in links:
      link.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    threading.Thread(
      target=server.serve_forever, args=(0.02,), daemon=True
    ).start()  # ... and now they are
    for link in links:
      link.settimeout(20)
      assert link.recv(12).endswith(b" 200")
      link.close()


def test_names_that_are_no_utf8(tmp_path):
  """Their pairs are shown, and the choice comes back with the very name."""
  folders(tmp_path, 3)
  for kind in ("real", "fake"):
    for i in range(3):
      old = tmp_path / kind / f"scene{i}.png"
      old.rename(tmp_path / kind / os.fsdecode(b"\xff\xe9 %d.png" % i))
  with study(tmp_path, num=3) as (server, record):
    for trial in range(3):
      for address in post(server, "/trial", visitor="anna", trial=trial).values():
        pixels(server, address)
      answer(server, "anna", trial)
    names = {row["real"] for row in record.rows}
  assert names == set(os.listdir(tmp_path / "real"))
  (tmp_path / "study.jsonl").read_bytes().decode()  # whole UTF-8
  with study(tmp_path, num=3) as (server, record):  # and it goes on
    assert {row["real"] for row in record.rows} == names
    assert post(server, "/visit", visitor="anna")["trial"] == 3


needs_browser = pytest.mark.skipif(PATH is None, reason="there is no browser")


@needs_browser
def test_a_visitor_in_a_browser(tmp_path):
  """Presses keys on pairs; the file records them; 400 pixels are enough."""
  folders(tmp_path)
  folders(tmp_path, size=6, kinds=["low"])
  keys = ["ArrowLeft", "ArrowRight", "f", "j", "j", "ArrowLeft"]
  with study(tmp_path, num=6, seconds=0.25, low=True) as (server, record):
    with Browser() as browser:
      browser.look(400, 780, dark=True)
      browser.go(server.url)
      browser.wait("document.body.dataset.phase === 'start'")
      assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"
      browser.press("ArrowLeft")  # too early
      browser.press("Enter")
      for trial, key in enumerate(keys):
        play(browser, trial, key)
        if trial == 2:  # leaves and comes back
          browser.wait("visit.trial === 3")
          browser.go(server.url)
          browser.wait("document.body.dataset.phase === 'start' && visit")
          assert browser.run("document.getElementById('so-far').innerText") == "3"
          browser.press("Enter")
      browser.wait("document.body.dataset.phase === 'end'")
      text = browser.run("document.getElementById('end').innerText")
      assert f"In {sum(r['fooled'] for r in record.rows)} of 6" in text
      browser.go(server.url + "result")
      browser.wait("document.querySelector('svg')")
      assert browser.run("document.documentElement.scrollWidth") == 400
  assert [r["choice"] for r in record.rows] == [
    "left" if key in ("ArrowLeft", "f") else "right" for key in keys
  ]
  assert [r["trial"] for r in record.rows] == list(range(6))
  assert len({r["visitor"] for r in record.rows}) == 1
  assert all(r["ms"] >= 0 for r in record.rows)
  assert all(r["ms"] >= 250 for r in record.rows[::2])  # those that waited


def play(browser, trial, key):
  """One pair: seen, on even trials waited for until it is gone, answered."""
  browser.wait(
    f"['shown', 'asked'].includes(document.body.dataset.phase) && visit.trial === {trial}"
  )
  text = browser.run("document.getElementById('pair').innerText")
  assert f"{trial + 1} of 6" in text
  page = browser.run("document.documentElement.outerHTML")
  assert "scene" not in page.replace("same scene", "")
  assert browser.run("document.documentElement.scrollWidth") == 400
  if trial % 2 == 0:
    browser.wait("document.body.dataset.phase === 'asked'")
    assert browser.run("document.querySelectorAll('img[src]').length") == 0
  browser.press(key)


@needs_browser
def test_pairs_are_seen_and_side_by_side_alike(tmp_path):
  folders(tmp_path)
  with study(tmp_path, num=2, seconds=60) as (server, record):
    with Browser() as browser:
      browser.look(1200, 800)
      browser.go(server.url + "?visitor=anna")
      browser.wait("document.body.dataset.phase === 'start'")
      browser.run("document.getElementById('begin').click()")
      browser.wait("document.body.dataset.phase === 'shown'")
      boxes = browser.run("""[...document.querySelectorAll('.side img')].map(
          i => [i.naturalWidth, i.width, i.height, i.y,
                getComputedStyle(i).visibility])""")
      assert boxes[0] == boxes[1] and boxes[0][0] == SIZE
      assert boxes[0][1] == boxes[0][2] == 256
      assert boxes[0][4] == "visible"
      browser.run("document.getElementById('right').click()")
      browser.wait("visit.trial === 1")
      (tmp_path / "real" / "scene0.png").unlink()
  assert [(r["visitor"], r["choice"]) for r in record.rows] == [("anna", "right")]
