"""Studies of clips: pairs to hear, clips to rate, their pages and their file."""

import collections
import contextlib
import io
import json
import threading

import numpy as np
import pytest
from browser import PATH, Browser
from studies import ask, post
from verbs import call

from jaxgen.audio import wav
from jaxgen.study import mos, sounds
from jaxgen.study.pairs import find_clip_pairs
from jaxgen.study.ratings import find_systems
from jaxgen.study.record import Record
from jaxgen.study.server import Server, Study

soundfile = pytest.importorskip("soundfile")
INFO = {"workdir": "W", "step": 7, "rate": 8000}


def tone(i, size=400):
  wave = 9000 * np.sin(np.arange(size) * (i + 5) / 40)
  return wave.astype(np.int16)[:, None]


@pytest.fixture
def folders(tmp_path):
  """Recordings at 16 kHz in stereo; ours as WAVs and as a sample file, at 8 kHz."""
  (tmp_path / "real").mkdir()
  for i in range(6):
    stereo = np.repeat(tone(i, 800), 2, 1)
    soundfile.write(tmp_path / "real" / f"voice{i}.wav", stereo, 16_000)
    wav.save_wav(tmp_path / "fake" / f"{i:06d}.wav", tone(i + 9), 8000, INFO | {"index": i})
  x = np.stack([tone(i + 20) for i in range(6)])
  np.savez(tmp_path / "gan.npz", x, info=json.dumps(INFO))
  np.savez(tmp_path / "bare.npz", x)
  return tmp_path


def quiet(line):
  raise AssertionError(line)


def pairs(top, fake="fake", pairing="auto", rate=None, warn=quiet):
  return find_clip_pairs(
    {"real": str(top / "real"), "fake": str(top / fake)}, pairing, 0, rate, warn
  )


def systems(top, warn=quiet):
  paths = {"real": "real", "diffwave": "fake", "wavegan": "gan.npz"}
  return find_systems({k: str(top / v) for k, v in paths.items()}, 0, None, warn)


@contextlib.contextmanager
def study(top, test, num):
  """A server in a thread, and its record."""
  settings = {"test": "mos"} if test.places == ("clip",) else {}
  record, server = Record(top / "study.jsonl", settings), Server(0)
  server.study = Study(test, record, num, 3.0)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  try:
    yield server, record
  finally:
    server.shutdown()
    server.server_close()
    record.close()


def test_clips_are_played_alike_whoever_made_them(folders):
  test = pairs(folders)
  assert test.rate == 8000 and not test.matched and test.count == 6
  heads = set()
  for trial in test.trials("anna", 6):
    for path in test.files(trial).values():
      kind, data = test.content(path)
      wave, rate = soundfile.read(io.BytesIO(data), dtype="int16")
      assert (kind, rate, wave.shape) == ("audio/wav", 8000, (400,))
      heads.add(data[:44])
      assert b"workdir" not in data
  assert len(heads) == 1
  assert pairs(folders, "gan.npz").trials("anna", 3)[0].fake.isdigit()
  assert pairs(folders, "bare.npz", rate=8000).rate == 8000
  with pytest.raises(Exception, match="bare.npz does not say its rate"):
    pairs(folders, "bare.npz")
  assert sounds.origin(folders / "gan.npz") == sounds.origin(folders / "fake") == INFO
  assert sounds.origin(folders / "real") == {}


def test_broken_clips_are_left_out(folders):
  (folders / "real" / "voice0.wav").write_text("no sound")
  lines = []
  assert pairs(folders, warn=lines.append).count == 5
  assert len(lines) == 1 and "voice0.wav is left out" in lines[0]
  np.savez(folders / "images.npz", np.zeros((3, 8, 8, 3), np.uint8))
  with pytest.raises(Exception, match="want clips, int16"):
    pairs(folders, "images.npz")


def test_every_system_is_rated_as_often_and_no_clip_twice(folders):
  test = systems(folders)
  assert test.count == 18
  questions = test.trials("anna", 12)
  assert collections.Counter(q.system for q in questions) == {
    "real": 4, "diffwave": 4, "wavegan": 4
  }  # fmt: skip
  for i in range(0, 12, 3):
    assert len({q.system for q in questions[i : i + 3]}) == 3
  assert len(set(questions)) == 12 and questions[:5] == test.trials("anna", 5)
  assert questions != test.trials("bert", 12)


def test_an_answer_counts_once_all_was_heard(folders):
  test = pairs(folders)
  with study(folders, test, 3) as (server, record):
    asked = {"visitor": "anna", "trial": 0}
    clips = post(server, "/trial", **asked)
    good = asked | {"choice": "right", "ms": 900, "played": {"left": 1, "right": 2}}
    assert ask(server, "POST", "/choice", good)[0] == 400  # nothing was fetched
    for address in clips.values():
      status, head, data = ask(server, "GET", address)
      assert status == 200 and head["Content-Type"] == "audio/wav" and data[:4] == b"RIFF"
    for played in (None, {}, {"left": 1}, {"left": 1, "right": 0}, {"left": 1, "right": True}, 3):
      assert ask(server, "POST", "/choice", good | {"played": played})[0] == 400, played
    assert record.rows == [] and post(server, "/choice", **good)["trial"] == 1
    (row,) = record.rows
    assert row["played"] == {"left": 1, "right": 2}
    assert row["fooled"] == (row["left"] == "real")
    page = ask(server, "GET", "/result")[2].decode()
    assert "taken for the recording in" in page
    assert "voice" not in ask(server, "GET", "/")[2].decode()


def test_ratings_are_recorded_and_nobody_is_told_whose_they_are(folders):
  with study(folders, systems(folders), 6) as (server, record):
    assert "opinion" not in ask(server, "GET", "/")[2].decode().partition("<script")[0][:200]
    for trial in range(6):
      asked = {"visitor": "anna", "trial": trial}
      clips = post(server, "/trial", **asked)
      assert list(clips) == ["clip"] and "real" not in clips["clip"]
      ask(server, "GET", clips["clip"])
      for choice in (0, 6, "5", 4.0, True, None):
        bad = asked | {"choice": choice, "ms": 5, "played": {"clip": 1}}
        assert ask(server, "POST", "/choice", bad)[0] == 400, choice
      place = post(server, "/choice", **asked, choice=trial % 5 + 1, ms=5, played={"clip": 1})
    assert place["rated"] == 6
    page = ask(server, "GET", "/result")[2].decode()
    assert 'data-phase="opinions"' in page and "&quot;diffwave&quot;" in page
  best = mos.score(record.rows)[0]
  assert sum(o.ratings for o in mos.score(record.rows)) == 6 and best.clips == 2
  with study(folders, systems(folders), 6) as (server, record):
    assert post(server, "/visit", visitor="anna")["trial"] == 6


def test_the_verb_reports_ratings_and_refuses_what_is_none(folders, capsys, monkeypatch):
  with study(folders, systems(folders), 3) as (server, _):
    asked = {"visitor": "anna", "trial": 0}
    ask(server, "GET", post(server, "/trial", **asked)["clip"])
    post(server, "/choice", **asked, choice=4, ms=5, played={"clip": 1})
  status, out, _ = call(capsys, monkeypatch, "study", f"--report={folders / 'study.jsonl'}")
  assert status == 0 and "4.00; 1 ratings by 1 visitor of 1 clips" in out
  out = f"--out={folders / 'x.jsonl'}"
  for argv, words in (
    ([out, "--mos=real"], "want name=folder"),
    ([out, f"--mos=a={folders / 'none'}"], "no such folder"),
    ([out, f"--mos=a={folders / 'bare.npz'}"], "--rate=16000"),
    ([out, f"--mos=a={folders / 'fake'}", "--rate=0"], "--rate=0"),
    ([f"--mos=a={folders / 'fake'}"], "study needs"),
    ([out, f"--real={folders / 'real'}", f"--fake={folders / 'fake'}", "--low=x"], "--low is of"),
  ):
    status, _, lines = call(capsys, monkeypatch, "study", *argv)
    assert status == 2 and len(lines) == 1 and words in lines[0], lines


@pytest.mark.skipif(PATH is None, reason="there is no browser")
@pytest.mark.parametrize("kind", ["pair", "mos"])
def test_a_visitor_listens_in_a_browser(kind, folders):
  """Nothing plays by itself; answers open once all was heard; keys do all."""
  test = pairs(folders) if kind == "pair" else systems(folders)
  keys, answer = (["a", "b"], "ArrowRight") if kind == "pair" else ([" "], "4")
  with study(folders, test, 2) as (server, record), Browser() as browser:
    browser.look(400, 780)
    browser.go(server.url)
    browser.wait("document.body.dataset.phase === 'start'")
    browser.press("Enter")
    for trial in range(2):
      browser.wait(f"is('listen') && visit.trial === {trial}")
      assert browser.run("players.every(p => p.audio.paused && p.times === 0)")
      assert browser.run("[...document.querySelectorAll('.answer')].every(b => b.disabled)")
      browser.press(answer)  # too early
      for i, key in enumerate(keys):
        assert browser.run("is('listen')")
        browser.press(key)
        browser.wait(f"players[{i}].times === 1")
      browser.wait("is('ready')")
      assert browser.run("document.documentElement.scrollWidth") == 400
      browser.press(answer)
    browser.wait("is('end')")
    browser.go(server.url + "result")
    browser.wait("is('result', 'opinions')")
  assert len(record.rows) == 2
  assert {r.get("choice") or r["rating"] for r in record.rows} == {"right" if keys[1:] else 4}
