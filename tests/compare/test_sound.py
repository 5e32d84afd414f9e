"""Clips of a report, and contenders for sound."""

import io
import re

import numpy as np
import PIL.Image
import pytest

from jaxgen import config
from jaxgen.audio import wav
from jaxgen.compare import contenders, measure, sound
from jaxgen.compare.budget import parse
from jaxgen.errors import UserError
from jaxgen.monitor.results import check_report
from jaxgen.report.page import render


def clips(n, size=600):
  rng = np.random.default_rng(0)
  return rng.integers(-9000, 9000, (n, size, 1)).astype(np.int16)


def test_the_first_of_each_class_can_be_heard(tmp_path):
  x, y = clips(30), np.array([2, 0, 2, 1] * 7 + [-1, 0])
  own, files = sound.clips_of("gan", x, 8000, y, ("zero", "one"))
  assert [c["label"] for c in own] == ["zero", "one", "2"]
  assert set(files) == {c[k] for c in own for k in ("sound", "picture")}
  for c, row in zip(own, (1, 3, 0), strict=True):
    path = tmp_path / "x.wav"
    path.write_bytes(files[c["sound"]])
    assert files[c["sound"]].endswith(x[row].tobytes())
    assert wav.read_info(path) == {"index": row, "label": int(y[row])}
    assert PIL.Image.open(io.BytesIO(files[c["picture"]])).size == (128, 80)
    assert measure.file_name(c["sound"]) == c["sound"]
  assert measure.file_name("gan-copies") == "gan-copies.png"
  own, files = sound.clips_of("gan", x, 8000)
  assert len(own) == sound.MOST and own[0]["label"] is None
  assert len(sound.clips_of("gan", clips(9, 200_000), 8000)[0]) == sound.FEWEST
  assert sound.clips_of("gan", np.zeros((3, 8, 8, 1), np.uint8), 0) == ([], {})


def test_players_stand_side_by_side():
  files, rows = {}, []
  for name in ("real", "diffwave", "<gan>"):
    own, media = sound.clips_of(name, clips(4), 8000, np.arange(4) % (1 if "<" in name else 2))
    files |= media
    rows.append({"name": name, "family": name, "clips": own, "metrics": {"ndb@x": 0.2}})
  real = {"clips": rows[0]["clips"], "metrics": {}}
  results = {"dataset": "spoken", "noun": "clips", "real": real, "rows": rows[1:]}
  page = render(results, files)
  assert page.count("<audio controls") == 5 and page.count('src="data:audio/wav;base64,') == 5
  table = page.partition('<div class="scroll listen">')[2].partition("</table>")[0]
  heads = re.findall(r"<th>(?:<span.*?</span>)?(.*?)</th>", table)
  assert heads[:4] == ["", "Real data", "diffwave", "&lt;gan&gt;"] and heads[4:] == ["0", "1"]
  assert table.count("<td></td>") == 1 and "autoplay" not in page and "http" not in page
  assert "NDB/K ↓" in page
  assert "<audio" not in render(results | {"rows": [], "real": {}})


def test_contenders_know_as_many_classes_as_the_data():
  data = {"source": "folder:w", "size": 4096, "rate": 8000, "holdout": 0.2}
  for classes in (3, 0):
    settings = config.load("configs/diffwave.py:digits")
    changes = contenders.adapt(settings, data | {"classes": classes})
    assert settings.model.classes == settings.model.net.labels == classes == settings.data.classes
    assert changes["config.model.net.labels"] == classes
    assert settings.data.rate == 8000 and settings.data.source == "folder:w"
  assert contenders.default_paths("folder:w", 4096, 8000)[0] == "configs/diffwave.py:digits"
  with pytest.raises(UserError, match="take 4096 or 16384 samples"):
    contenders.default_paths("folder:w", 5000, 8000)


def test_budgets_are_of_clips():
  budget = parse("50kclips")
  assert (budget.kind, budget.amount, budget.text) == ("img", 50_000, "50kclips")
  assert parse("1clip").amount == 1


def test_clips_of_others_are_not_replaced(tmp_path):
  """In the folder of an older report, which links may lead away from."""
  _, files = sound.clips_of("gan", clips(30), 8000)
  assert set(files) <= set(sound.names_of(["real", "gan"]))
  elsewhere, home = tmp_path / "elsewhere", tmp_path / "report"
  for folder in (elsewhere, home):
    folder.mkdir()
  (home / "report.json").write_text("{}")
  (home / sound.CLIPS).symlink_to(elsewhere)
  for name, content in files.items():
    (home / name).write_bytes(content)
  assert check_report(home, "report.json", sound.names_of(["gan"]))
  wav_of_others = elsewhere / "gan-1.wav"
  wav_of_others.write_bytes(wav.encode(clips(1)[0], 8000))
  with pytest.raises(UserError, match=r"gan-1.wav is there, and is none of a report"):
    check_report(home, "report.json", sound.names_of(["gan"]))
