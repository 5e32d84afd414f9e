"""The fool-rate study: its numbers, its routes, and a browser that plays."""
import contextlib
import http.client
import io
import json
import re
import signal
import socket
import threading

import numpy as np
import pytest
from browser import PATH, Browser
from PIL import Image
from scipy import stats
from verbs import call, finish, start, tree

from jaxgen.study_page import page, pairs, score
from jaxgen.study_page.desk import Desk
from jaxgen.study_page.record import Record
from jaxgen.study_page.server import Server

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


@contextlib.contextmanager
def study(top, num=8, seconds=3., low=False, seed=0, pairing="auto"):
  """A server in a thread -> what sends it requests; its record."""
  given = pairs.look(str(top / "real"), str(top / "fake"),
                     str(top / "low") if low else None, pairing, seed, print)
  record = Record(top / "study.jsonl", {"seed": seed, "num": num})
  server = Server(0)
  server.desk = Desk(given, record, num, seconds)
  threading.Thread(target=server.serve_forever, args=(0.02,),
                   daemon=True).start()
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
  link.request(method, path, body, {
      "Host": host, "Content-Type": "application/json"} | headers)
  reply = link.getresponse()
  text = reply.read()
  kind = reply.headers.get_content_type()
  link.close()
  return reply.status, reply.headers, (
      json.loads(text) if kind == "application/json" else text)


def post(server, path, **data):
  status, _, reply = ask(server, "POST", path, data)
  assert status == 200, reply
  return reply


def pixels(server, address):
  status, _, data = ask(server, "GET", address)
  assert status == 200
  return np.asarray(Image.open(io.BytesIO(data))), data


# Numbers.

@pytest.mark.parametrize("n", [1, 5, 50, 2500])
def test_wilson_is_scipys(n):
  for k in {0, 1, n // 3, n - 1, n}:
    want = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(score.wilson(k, n), (want.low, want.high),
                               atol=1e-12)
  # Brown, Cai & DasGupta (2001) and statsmodels: 10 of 20 -> 0.2993, 0.7007.
  np.testing.assert_allclose(score.wilson(10, 20), (0.29930, 0.70070),
                             atol=5e-6)


def test_wilson_covers_what_it_says():
  """Exactly, by the binomial distribution: 95% on average, never far below."""
  n, ps = 50, np.linspace(0.05, 0.95, 91)
  low, high = np.array([score.wilson(k, n) for k in range(n + 1)]).T
  inside = (low <= ps[:, None]) & (ps[:, None] <= high)
  covered = (inside * stats.binom.pmf(np.arange(n + 1), n, ps[:, None])).sum(1)
  assert 0.94 < covered.mean() < 0.96 and covered.min() > 0.91


def test_bootstrap_covers_where_visitors_differ():
  """40 visitors whose own rates spread: Wilson is too sure, this is not."""
  rng, sure, over, of = np.random.default_rng(0), 0, 0, 250
  for _ in range(of):
    k = rng.binomial(50, rng.beta(2, 3, 40))
    a, b = score.wilson(k.sum(), 2000)
    sure += a <= 0.4 <= b
    a, b = score.bootstrap(k, [50] * 40, draws=400)
    over += a <= 0.4 <= b
  assert sure / of < 0.6 and 0.9 < over / of < 0.98


def test_bootstrap_agrees_with_wilson_where_they_do_not():
  k = np.random.default_rng(1).binomial(50, 0.4, 100)
  np.testing.assert_allclose(
      score.bootstrap(k, [50] * 100), score.wilson(k.sum(), 5000), atol=0.004)
  # Visitors count by their trials.
  low, high = score.bootstrap([1000, 0], [1000, 10])
  assert (low, high) == (0, 1)


def test_score_and_its_words():
  rows = [{"visitor": "v", "fooled": i < 23, "choice": "left", "ms": 1000 + i}
          for i in range(50)]
  s = score.score(rows)
  assert (s.trials, s.fooled, s.visitors, s.clustered) == (50, 23, 1, None)
  assert s.rate == 0.46 and s.left == 1 and s.ms == 1024.5
  assert "fool rate 46.0%: the fake was chosen in 23 of 50" in score.text(s)
  assert "33.0% to 59.6%" in score.text(s) and "1 visitor" in score.text(s)
  many = score.score([row | {"visitor": f"v{i % 10}"}
                      for i, row in enumerate(rows)])
  assert many.clustered and "bootstrap over 10 visitors" in score.text(many)
  assert score.score([]) is None and score.text(None) == "no choices yet"
  assert "No choices yet" in page.result(None, 3)
  assert "46.0%" in page.result(s, 3) and page.result(s, 3).count("<svg") == 2


# Pairs.

def test_pairs_are_of_one_name_or_random(tmp_path):
  folders(tmp_path, 40)
  given = pairs.look(str(tmp_path / "real"), str(tmp_path / "fake"), None,
                     "auto", 0, pytest.fail)
  asked = given.trials("anna", 30)
  assert given.matched and len(asked) == 30 == len({t.real for t in asked})
  assert all(t.real == t.fake for t in asked)
  assert asked == given.trials("anna", 30) != given.trials("bert", 30)
  assert given.trials("anna", 5) == asked[:5] or len(
      given.trials("anna", 5)) == 5
  folders(tmp_path / "b", 40, rename=lambda i: i + 100)
  given = pairs.look(str(tmp_path / "b/real"), str(tmp_path / "b/fake"), None,
                     "auto", 0, pytest.fail)
  asked = given.trials("anna", 40)
  assert not given.matched
  assert len({t.real for t in asked}) == len({t.fake for t in asked}) == 40
  given = pairs.look(str(tmp_path / "real"), str(tmp_path / "fake"), None,
                     "random", 0, pytest.fail)
  assert not given.matched
  assert any(t.real != t.fake for t in given.trials("anna", 40))


def test_sides_are_fair_coins_that_the_seed_tosses(tmp_path):
  folders(tmp_path, 20)
  look = lambda seed: pairs.look(
      str(tmp_path / "real"), str(tmp_path / "fake"), None, "auto", seed,
      pytest.fail)
  given = look(0)
  left = [t.left == "real" for i in range(100)
          for t in given.trials(f"visitor{i}", 20)]
  assert stats.binomtest(sum(left), 2000).pvalue > 1e-3
  assert look(0).trials("v123", 20) == given.trials("v123", 20)
  assert look(1).trials("v123", 20) != given.trials("v123", 20)


def test_sizes_and_broken_images(tmp_path):
  folders(tmp_path, 4)
  folders(tmp_path, 2, size=24, kinds=["fake"])  # scene0, scene1: smaller
  (tmp_path / "real" / "scene2.png").write_bytes(b"broken")
  said = []
  given = pairs.look(str(tmp_path / "real"), str(tmp_path / "fake"), None,
                     "auto", 0, said.append)
  assert [t.real for t in given.trials("v", 9)] == ["scene3.png"]
  assert len(said) == 2 and "scene2.png is left out" in said[0]
  assert "2 pairs are left out, such as: scene0.png has 48x48" in said[1]
  # At random there are two sizes of fake, one of real.
  said.clear()
  given = pairs.look(str(tmp_path / "real"), str(tmp_path / "fake"), None,
                     "random", 0, said.append)
  assert given.count == 2 and "2 images are left out" not in said[0]
  assert any("images are left out: nothing of their size" in s for s in said)


# The file.

def test_record_goes_on_and_drops_a_torn_line(tmp_path):
  row = {"visitor": "anna", "trial": 0, "real": "a", "fake": "b", "low": None,
         "left": "real", "choice": "left", "fooled": False, "ms": 3}
  path = tmp_path / "x.jsonl"
  record = Record(path, {"seed": 0})
  with pytest.raises(Exception, match="in use by another study"):
    Record(path, {"seed": 0})
  record.append(row)
  record.close()
  good = path.read_bytes()
  for torn in (b"", good[:5], good[:-3], good + b'{"visitor": "a'):
    path.write_bytes(torn)
    record = Record(path, {"seed": 0})
    kept = 1 if torn.startswith(good) else 0
    assert record.rows == [row] * kept
    record.append(row)
    record.close()
    assert path.read_bytes().count(b"\n") == 2 + kept
  with pytest.raises(Exception, match="begun with seed=0, not 1"):
    Record(path, {"seed": 1})
  for text in ("mine", "mine\n", "[1]\n", '{"study": {}}\n{"visitor": 3}\n'):
    path.write_text(text)
    with pytest.raises(Exception, match="not what a study writes|no study"):
      Record(path, {"seed": 0})
    assert path.read_text() == text


# The server.

def test_a_visit_from_beginning_to_end(tmp_path):
  folders(tmp_path)
  with study(tmp_path, num=4) as (server, record):
    told = post(server, "/visit")
    visitor = told["visitor"]
    assert told == {"visitor": visitor, "trial": 0, "trials": 4, "seconds": 3}
    assert re.fullmatch(r"[\w-]{12}", visitor)
    for trial in range(4):
      asked = post(server, "/trial", visitor=visitor, trial=trial)
      assert set(asked) == {"left", "right"}
      bright = {place: pixels(server, address)[0].mean() > 120
                for place, address in asked.items()}
      assert sorted(bright.values()) == [False, True]
      real = max(bright, key=bright.get)
      told = post(server, "/choice", visitor=visitor, trial=trial,
                  choice="right", ms=700 + trial)
      row = record.rows[-1]
      assert row["left"] == ("real" if real == "left" else "fake")
      assert row["fooled"] == (real == "left") and row["ms"] == 700 + trial
      assert row["shown"] == 1
      # It is in the file by now.
      assert json.loads((tmp_path / "study.jsonl").read_text().splitlines()[
          -1]) == row
    fooled = sum(row["fooled"] for row in record.rows)
    assert told["trial"] == 4 and told["fooled"] == fooled
    status, _, reply = ask(server, "POST", "/choice", {
        "visitor": visitor, "trial": 4, "choice": "left", "ms": 1})
    assert status == 409 and reply["fooled"] == fooled
    assert f"{fooled / 4:.1%}" in ask(server, "GET", "/result")[2].decode()


def test_a_visitor_goes_on_after_a_restart(tmp_path):
  folders(tmp_path)
  with study(tmp_path) as (server, record):
    for trial in range(3):
      post(server, "/choice", visitor="anna", trial=trial, choice="left", ms=1)
    first = [row["real"] for row in record.rows]
  with study(tmp_path) as (server, record):
    assert post(server, "/visit", visitor="anna")["trial"] == 3
    assert post(server, "/visit", visitor="bert")["trial"] == 0
    for trial in range(3, 8):
      post(server, "/choice", visitor="anna", trial=trial, choice="left", ms=1)
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
    seen = set()
    for visitor in ("anna", "bert"):
      asked = post(server, "/trial", visitor=visitor, trial=0)
      assert list(asked) == ["left", "right", "low"]
      assert all(re.fullmatch("/image/[0-9a-f]{32}", a) for a in asked.values())
      seen |= set(asked.values())
      (a, x), (b, y) = (pixels(server, asked[k]) for k in ("left", "right"))
      assert a.shape == b.shape == (SIZE, SIZE, 3)
      assert len(x) == len(y) and x[:43] == y[:43] and b"pHYs" not in x + y
      heads = [dict(ask(server, "GET", asked[k])[1]) for k in ("left", "right")]
      for head in heads:
        head.pop("Date")
      assert heads[0] == heads[1] and heads[0]["Cache-Control"] == "no-store"
    assert len(seen) == 6
    texts = b"".join(ask(server, "GET", path)[2] for path in (
        "/", "/script.js", "/style.css")).decode()
    told = post(server, "/visit", visitor="anna")
    for text in (texts, json.dumps(told), json.dumps(asked)):
      assert "scene" not in text.replace("same scene", "")
      assert str(tmp_path) not in text
    assert "Both show the same scene." in texts
    assert "the small image" in texts


def test_what_is_not_answered(tmp_path):
  folders(tmp_path)
  (tmp_path / "secret.png").write_bytes(
      (tmp_path / "real" / "scene0.png").read_bytes())
  with study(tmp_path) as (server, record):
    for path in ("/../study.jsonl", "/image/../../study.jsonl", "/study.jsonl",
                 "/image/" + "0" * 32, "/image/%2e%2e%2fsecret.png",
                 "/real/scene0.png", "/visit", "/image/"):
      assert ask(server, "GET", path)[0] == 404, path
    assert ask(server, "POST", "/")[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
      assert ask(server, method, "/")[0] == 501
    good = {"visitor": "anna", "trial": 0, "choice": "left", "ms": 5}
    for wrong in ({"visitor": "../x"}, {"visitor": 7}, {"visitor": "a" * 65},
                  {"choice": "real"}, {"choice": None}, {"ms": -1},
                  {"ms": "5"}, {"ms": True}, {"ms": float("nan")},
                  {"ms": 1e300}):
      assert ask(server, "POST", "/choice", good | wrong)[0] == 400, wrong
    for wrong in ({"trial": 1}, {"trial": -1}, {"trial": "0"}, {"trial": 0.},
                  {"trial": True}):
      assert ask(server, "POST", "/choice", good | wrong)[0] == 409, wrong
    for body in (b"{", b"[]", b"\xff", b"[" * 4000):
      assert ask(server, "POST", "/choice", body)[0] == 400
    assert ask(server, "POST", "/choice", b" " * 5000)[0] == 413
    # Other sites: a form of theirs, and a name of theirs that points here.
    assert ask(server, "POST", "/choice", good,
               **{"Content-Type": "text/plain"})[0] == 415
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1:8 x"):
      assert ask(server, "POST", "/choice", good, host=host)[0] == 403
      assert ask(server, "GET", "/", host=host)[0] == 403
    assert ask(server, "GET", "/", host="localhost:9")[0] == 200
    assert record.rows == []
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

    def say(path, **data):
      link.request("POST", path, json.dumps(data), {
          "Content-Type": "application/json"})
      return json.loads(link.getresponse().read())

    for i in range(6):
      for trial in range(60):
        asked = say("/trial", visitor=f"visitor{i}", trial=trial)
        link.request("GET", asked["left"])
        x = np.asarray(Image.open(io.BytesIO(link.getresponse().read())))
        real, fake = ("left", "right") if x.mean() > 120 else ("right", "left")
        say("/choice", visitor=f"visitor{i}", trial=trial, ms=9,
            choice=fake if rng.random() < p else real)
    link.close()
    s = score.score(record.rows)
  assert (s.trials, s.visitors) == (360, 6)
  assert s.interval[0] < p < s.interval[1] < s.interval[0] + 0.1
  assert s.clustered[0] < p < s.clustered[1]


# The verb.

MISTAKES = {
    "nothing": ([], "study needs --real=folder"),
    "missing": (["--real={}/none"], "no such folder"),
    "empty": (["--real={}/empty"], "no images in"),
    "size": (["--fake={}/small/fake"], "no pair has one size"),
    "names": (["--fake={}/other/fake", "--pairing=name"], "no names in common"),
    "low": (["--low={}/other/fake"], "none of the names"),
    "pairing": (["--pairing=odd"], "auto, name, random"),
    "num": (["--num=0"], "--num=0"), "seconds": (["--seconds=0"], "--seconds"),
    "seconds' kind": (["--seconds=nan"], "--seconds"),
    "seed": (["--seed=-1"], "--seed"), "port": (["--port=70000"], "--port"),
    "taken": (["--port={port}"], "ddress already in use"),
    "out": (["--out={}/real/scene0.png/x"], "cannot write"),
    "not ours": (["--out={}/real/scene0.png"], "not what a study writes"),
    "report": (["--report={}/none"], "cannot read"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake(case, tmp_path, capsys, monkeypatch):
  argv, said = MISTAKES[case]
  folders(tmp_path, 2)
  folders(tmp_path / "small", 2, size=8)
  folders(tmp_path / "other", 2, rename=lambda i: i + 50)
  (tmp_path / "empty").mkdir()
  before = tree(tmp_path)
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = str(taken.getsockname()[1])
    words = ["--num=2"] if not argv else [
        f"--real={tmp_path / 'real'}", f"--fake={tmp_path / 'fake'}",
        f"--out={tmp_path / 'study.jsonl'}", "--num=2", *(
            w.replace("{}", str(tmp_path)).replace("{port}", port)
            for w in argv)]
    status, out, lines = call(capsys, monkeypatch, "study", *words)
  assert (status, out, len(lines)) == (2, "", 1) and said in lines[0], lines
  assert tree(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_serves_until_it_is_told_and_reports(
    number, tmp_path, capsys, monkeypatch):
  folders(tmp_path, 3)
  out = tmp_path / "new" / "study.jsonl"
  process = start("study", f"--real={tmp_path / 'real'}", f"--out={out}",
                  f"--fake={tmp_path / 'fake'}")
  line = process.stdout.readline()
  port = int(re.search(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])
  link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
  link.request("POST", "/choice", json.dumps({
      "visitor": "anna", "trial": 0, "choice": "left", "ms": 1200}), {
          "Content-Type": "application/json"})
  assert json.loads(link.getresponse().read())["trial"] == 1
  process.send_signal(number)  # with a connection open
  status, said, lines = finish(process)
  assert status == 0 and "of 1 trials" in said
  assert lines == ["jaxgen: there are 3 pairs, not 50: visitors see 3"]
  assert call(capsys, monkeypatch, "study", f"--report={out}") == (
      0, said.strip() + "\n", [])


# The page.

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
      assert browser.run("getComputedStyle(document.body).backgroundColor"
                         ) == "rgb(21, 23, 27)"
      browser.press("ArrowLeft")  # too early
      browser.press("Enter")
      for trial, key in enumerate(keys):
        play(browser, trial, key)
        if trial == 2:  # leaves and comes back
          browser.wait("visit.trial === 3")
          browser.go(server.url)
          browser.wait("document.body.dataset.phase === 'start' && visit")
          assert browser.run("document.getElementById('so-far').innerText"
                             ) == "3"
          browser.press("Enter")
      browser.wait("document.body.dataset.phase === 'end'")
      told = browser.run("document.getElementById('end').innerText")
      assert f"In {sum(r['fooled'] for r in record.rows)} of 6" in told
      browser.go(server.url + "result")
      browser.wait("document.querySelector('svg')")
      assert browser.run("document.documentElement.scrollWidth") == 400
  assert [r["choice"] for r in record.rows] == [
      "left" if key in ("ArrowLeft", "f") else "right" for key in keys]
  assert [r["trial"] for r in record.rows] == list(range(6))
  assert len({r["visitor"] for r in record.rows}) == 1
  assert all(r["ms"] >= 0 for r in record.rows)
  assert all(r["ms"] >= 250 for r in record.rows[::2])  # those that waited


def play(browser, trial, key):
  """One pair: seen, on even trials waited for until it is gone, answered."""
  browser.wait("['shown', 'asked'].includes(document.body.dataset.phase) && "
               f"visit.trial === {trial}")
  text = browser.run("document.getElementById('pair').innerText")
  assert f"{trial + 1} of 6" in text
  page_ = browser.run("document.documentElement.outerHTML")
  assert "scene" not in page_.replace("same scene", "")
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
  assert [(r["visitor"], r["choice"]) for r in record.rows] == [
      ("anna", "right")]
