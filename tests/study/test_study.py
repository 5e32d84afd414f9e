"""The fool-rate study: its numbers, its pairs, its file, its verb."""

import http.client
import json
import re
import signal
import socket

import numpy as np
import pytest
from scipy import stats
from studies import folders, look
from verbs import call, finish, start, tree

from jaxgen.metrics.wilson import rate_interval
from jaxgen.study import score, study_page
from jaxgen.study.record import Record

# Numbers.


@pytest.mark.parametrize("n", [1, 5, 50, 2500])
def test_wilson_is_scipys(n):
  for k in {0, 1, n // 3, n - 1, n}:
    want = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(rate_interval(k, n), (want.low, want.high), atol=1e-12)
  # Brown, Cai & DasGupta (2001) and statsmodels: 10 of 20 -> 0.2993, 0.7007.
  np.testing.assert_allclose(rate_interval(10, 20), (0.29930, 0.70070), atol=5e-6)


def test_wilson_covers_what_it_says():
  """Exactly, by the binomial distribution: 95% on average, never far below."""
  n, ps = 50, np.linspace(0.05, 0.95, 91)
  low, high = np.array([rate_interval(k, n) for k in range(n + 1)]).T
  inside = (low <= ps[:, None]) & (ps[:, None] <= high)
  covered = (inside * stats.binom.pmf(np.arange(n + 1), n, ps[:, None])).sum(1)
  assert 0.94 < covered.mean() < 0.96 and covered.min() > 0.91


def test_bootstrap_covers_where_visitors_differ():
  """40 visitors whose own rates spread: Wilson is too sure, this is not."""
  rng, wilson, bootstrap = np.random.default_rng(0), [], []
  for _ in range(250):
    k = rng.binomial(50, rng.beta(2, 3, 40))
    wilson.append(rate_interval(k.sum(), 2000))
    bootstrap.append(score.bootstrap(k, [50] * 40, draws=400))
  covered = lambda intervals: np.mean([a <= 0.4 <= b for a, b in intervals])
  assert covered(wilson) < 0.6 and 0.9 < covered(bootstrap) < 0.98


def test_bootstrap_agrees_with_wilson_where_they_do_not():
  k = np.random.default_rng(1).binomial(50, 0.4, 100)
  np.testing.assert_allclose(
    score.bootstrap(k, [50] * 100), rate_interval(k.sum(), 5000), atol=0.004
  )
  # Visitors count by their trials.
  low, high = score.bootstrap([1000, 0], [1000, 10])
  assert (low, high) == (0, 1)


def test_score_and_its_words():
  rows = [{"visitor": "v", "fooled": i < 23, "choice": "left", "ms": 1000 + i} for i in range(50)]
  s = score.score(rows)
  assert (s.trials, s.fooled, s.visitors, s.clustered) == (50, 23, 1, None)
  assert s.rate == 0.46 and s.left == 1 and s.ms == 1024.5
  assert "fool rate 46.0%: the fake was chosen in 23 of 50" in score.summary(s)
  assert "33.0% to 59.6%" in score.summary(s) and "1 visitor" in score.summary(s)
  many = score.score([row | {"visitor": f"v{i % 10}"} for i, row in enumerate(rows)])
  assert many.clustered and "bootstrap over 10 visitors" in score.summary(many)
  assert score.score([]) is None and score.summary(None) == "no choices yet"
  assert 'data-phase="empty"' in study_page.result(None, 3, "n")
  page = study_page.result(s, 3, "n")
  assert 'data-phase="result"' in page and '<circle cx="46.0%"' in page
  assert "33.0% to 59.6%" in page and 'x="33.0%" width="26.6%"' in page


# Pairs.


def test_pairs_are_of_one_name_or_random(tmp_path):
  folders(tmp_path, 40)
  pairs = look(tmp_path)
  trials = pairs.trials("anna", 30)
  assert pairs.matched and len(trials) == 30 == len({t.real for t in trials})
  assert all(t.real == t.fake for t in trials)
  assert trials == pairs.trials("anna", 30) != pairs.trials("bert", 30)
  assert [t[:2] for t in pairs.trials("anna", 5)] == [t[:2] for t in trials[:5]]
  folders(tmp_path / "b", 40, rename=lambda i: i + 100)
  pairs = look(tmp_path / "b")
  trials = pairs.trials("anna", 40)
  assert not pairs.matched
  assert len({t.real for t in trials}) == len({t.fake for t in trials}) == 40
  pairs = look(tmp_path, "random")
  assert not pairs.matched
  assert any(t.real != t.fake for t in pairs.trials("anna", 40))


def test_pairs_of_a_seed_stay_what_they_were(tmp_path):
  """Or a study could not go on with its record."""
  folders(tmp_path, 5)
  digests = [look(tmp_path, pairing, 3).digest for pairing in ("name", "random")]
  assert digests == ["f7d7428a1d6faf13", "7cf60ff901fe40ed"]
  assert [(t.real, t.left) for t in look(tmp_path, seed=3).trials("anna", 3)] == [
    ("scene2.png", "fake"), ("scene1.png", "real"), ("scene3.png", "real"),
  ]  # fmt: skip


def test_sides_are_fair_coins_that_the_seed_tosses(tmp_path):
  folders(tmp_path, 20)
  pairs = look(tmp_path)
  left = [t.left == "real" for i in range(100) for t in pairs.trials(f"visitor{i}", 20)]
  assert stats.binomtest(sum(left), 2000).pvalue > 1e-3
  assert look(tmp_path).trials("v123", 20) == pairs.trials("v123", 20)
  assert look(tmp_path, seed=1).trials("v123", 20) != pairs.trials("v123", 20)


def test_sizes_and_broken_images(tmp_path):
  folders(tmp_path, 4)
  folders(tmp_path, 2, size=24, kinds=["fake"])  # scene0, scene1: smaller
  (tmp_path / "real" / "scene2.png").write_bytes(b"broken")
  warnings = []
  pairs = look(tmp_path, warn=warnings.append)
  assert [t.real for t in pairs.trials("v", 9)] == ["scene3.png"]
  assert len(warnings) == 2 and "scene2.png is left out" in warnings[0]
  assert "2 pairs are left out, such as: scene0.png has 48x48" in warnings[1]
  # At random there are two sizes of fake, one of real.
  warnings.clear()
  assert look(tmp_path, "random", warn=warnings.append).count == 2
  assert "2 images are left out" not in warnings[0]
  assert any("images are left out: nothing of their size" in w for w in warnings)


# The file.


def test_record_goes_on_and_drops_a_torn_line(tmp_path):
  row = dict(visitor="anna", trial=0, real="a", fake="b", low=None, left="real")
  row |= dict(choice="left", fooled=False, ms=3)
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
    rows = int(torn.startswith(good))
    assert record.rows == [row] * rows
    record.append(row)
    record.close()
    assert path.read_bytes().count(b"\n") == 2 + rows
  with pytest.raises(Exception, match="begun with seed=0, not 1"):
    Record(path, {"seed": 1})
  bad = '{"study": {}}\n{"visitor": 3}\n', '{"study": "mine"}', '{"stu" '
  for text in ("mine", "mine\n", "[1]\n", *bad):
    path.write_text(text)
    with pytest.raises(Exception, match="not what a study writes|no study"):
      Record(path, {"seed": 0})
    assert path.read_text() == text


# The verb.

MISTAKES = {
  "nothing": ([], "study needs --real=folder"),
  "missing": (["--real={}/none"], "no such folder"),
  "empty": (["--real={}/empty"], "no images in"),
  "size": (["--fake={}/small/fake"], "no pair has one size"),
  "names": (["--fake={}/other/fake", "--pairing=name"], "no names in common"),
  "low": (["--low={}/other/fake"], "none of the names"),
  "pairing": (["--pairing=odd"], "auto, name, random"),
  "num": (["--num=0"], "--num=0"),
  "seconds": (["--seconds=0"], "--seconds"),
  "seconds' kind": (["--seconds=nan"], "--seconds"),
  "seed": (["--seed=-1"], "--seed"),
  "port": (["--port=70000"], "--port"),
  "taken": (["--port={port}"], "ddress already in use"),
  "out": (["--out={}/real/scene0.png/x"], "cannot write"),
  "not ours": (["--out={}/real/scene0.png"], "not what a study writes"),
  "report": (["--report={}/none"], "cannot read"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake(case, tmp_path, capsys, monkeypatch):
  argv, message = MISTAKES[case]
  folders(tmp_path, 2)
  folders(tmp_path / "small", 2, size=8)
  folders(tmp_path / "other", 2, rename=lambda i: i + 50)
  (tmp_path / "empty").mkdir()
  before = tree(tmp_path)
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = str(taken.getsockname()[1])
    good = ["--real={}/real", "--fake={}/fake", "--out={}/study.jsonl"] if argv else []
    words = [w.replace("{}", str(tmp_path)).replace("{port}", port) for w in good + argv]
    status, out, lines = call(capsys, monkeypatch, "study", "--num=2", *words)
  assert (status, out, len(lines)) == (2, "", 1) and message in lines[0], lines
  assert tree(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_serves_until_a_signal_and_reports(number, tmp_path, capsys, monkeypatch):
  folders(tmp_path, 3)
  out = tmp_path / "new" / "study.jsonl"
  process = start(
    "study", f"--real={tmp_path / 'real'}", f"--out={out}", f"--fake={tmp_path / 'fake'}"
  )
  line = process.stdout.readline()
  port = int(re.search(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])
  link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
  for path in ("/trial", "/choice"):
    link.request(
      "POST",
      path,
      json.dumps({"visitor": "anna", "trial": 0, "choice": "left", "ms": 1200}),
      {"Content-Type": "application/json"},
    )
    reply = json.loads(link.getresponse().read())
  assert reply["trial"] == 1
  process.send_signal(number)  # with a connection open
  status, printed, lines = finish(process)
  assert status == 0 and "of 1 trials" in printed
  assert lines == ["jaxgen: there are 3 pairs, not 50: visitors see 3"]
  assert call(capsys, monkeypatch, "study", f"--report={out}") == (0, printed.strip() + "\n", [])
