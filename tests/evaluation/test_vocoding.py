"""Judging vocoders: the table, the card, and what is asked of data."""

import json

import numpy as np
import pytest
from verbs import call
from vocoders import RATE, song, vocoder

from jaxgen.evaluation import vocoding
from jaxgen.evaluation.vocoding import Recordings, interval

pytestmark = pytest.mark.usefixtures("unoptimised")


class Test:
  name, fingerprint, shape = "songs", "0", (2048, 1)

  def __len__(self):
    return 3


def recordings():
  x = np.stack([song(2048, i)[:, None] for i in range(3)])
  return Recordings(Test(), x, None, RATE)


def test_what_is_nearer_scores_lower():
  clips = recordings()
  own = clips.by_clip(clips.x)
  assert all((np.nan_to_num(v) == 0).all() for k, v in own.items() if k != "stoi")
  rng = np.random.default_rng(0)
  noise = rng.normal(size=clips.x.shape)
  little, much = (clips.by_clip(np.int16(clips.x + s * noise)) for s in (30, 1000))
  for name in ("mel_db", "stft_convergence", "stft_log", "mcd_db"):
    assert (0 < little[name]).all() and (little[name] < much[name]).all(), name


def test_intervals_hold_the_mean_and_shrink():
  rng = np.random.default_rng(1)
  few, many = rng.normal(3, 1, 20), rng.normal(3, 1, 500)
  for values in (few, many):
    low, high = interval(values)
    assert low < values.mean() < high
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std() / len(values) ** 0.5, rtol=0.2)
  assert interval(np.append(few, np.nan)) == interval(few)
  assert np.isnan(interval(np.array([np.nan, 1.0]))).all()


def test_the_verb_prints_a_table(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(vocoding, "ITERATIONS", 4)
  workdir = vocoder(tmp_path, ("train", "test"))
  out = tmp_path / "v.json"
  argv = ["eval", f"--workdir={workdir}", f"--out={out}", "--num=2"]
  status, said, lines = call(capsys, monkeypatch, *argv)
  assert status == 0, lines
  head, *rows = said.splitlines()
  assert head.split() == ["model", "griffin-lim", "recording"]
  assert [r.split()[0] for r in rows[:6]] == list(vocoding.METRICS)[:6]
  assert "2 evaluations of the net each" in rows[-1]
  card = json.loads(out.read_text())
  assert card["kind"] == vocoding.KIND and card["data"]["clips"] == 2
  assert card["scores"]["recording"]["mel_db"] == 0
  assert card["scores"]["griffin_lim"]["mel_db"] < card["scores"]["model"]["mel_db"]
  assert set(card["speed"]) == {"model", "griffin_lim"}
  assert (workdir / "evals" / "00000000-vocoding-2-2.json").exists()
  status, _, lines = call(capsys, monkeypatch, *argv[:2], "--num=4")
  assert status == 2 and "num=4: want 2 to 3" in lines[-1]
