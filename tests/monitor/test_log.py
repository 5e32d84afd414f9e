"""The log survives kills and resumes; the line and the warnings are right."""

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxgen.errors import UserError
from jaxgen.monitor import health, log
from jaxgen.monitor.log import Logger, read_jsonl
from jaxgen.monitor.progress import Progress, duration


def open_log(path, start=0, **kwargs):
  stream = io.StringIO()
  return Logger(path, total_steps=100, batch=4, start=start, stream=stream, **kwargs), stream


def values(path, key):
  rows = read_jsonl(path / log.FILE)
  return [(row["step"], row[key]) for row in rows if key in row]


def events(path):
  """What TensorBoard would read: records of length, crc, event, crc."""
  for file in sorted((path / "events").iterdir()):
    data, at = file.read_bytes(), 0
    while at < len(data):
      size = int.from_bytes(data[at : at + 8], "little")
      yield Event.FromString(data[at + 12 : at + 12 + size])
      at += 16 + size


def test_numbers_come_back_finite_or_not(tmp_path):
  logger, _ = open_log(tmp_path)
  logger.write_scalars(1, {"a": 0.1, "b": np.float32(2), "c": jnp.bfloat16(0.5), "d": 7})
  logger.write_scalars(1, {"e": jnp.inf, "f": -np.inf, "g": float("nan")})
  logger.close()
  for line in (tmp_path / log.FILE).read_text().splitlines():
    json.loads(line, parse_constant=pytest.fail)  # strict JSON: no NaN
  (row,) = read_jsonl(tmp_path / log.FILE)
  assert (row["a"], row["b"], row["c"], row["d"]) == (0.1, 2, 0.5, 7)
  assert row["e"] == np.inf and row["f"] == -np.inf and np.isnan(row["g"])


def test_a_torn_last_line_is_dropped_and_never_glued_to_the_next(tmp_path):
  logger, _ = open_log(tmp_path)
  logger.write_scalars(1, {"a": 1.0})
  logger.write_scalars(2, {"a": 2.0})
  logger.close()
  file = tmp_path / log.FILE
  whole = file.read_bytes()
  for cut in range(len(whole) - 20, len(whole)):
    file.write_bytes(whole[:cut])
    assert values(tmp_path, "a")[0] == (1, 1.0)
  file.write_bytes(whole[:-8])
  logger, _ = open_log(tmp_path, start=1)
  logger.write_scalars(2, {"a": 3.0})
  logger.close()
  assert values(tmp_path, "a") == [(1, 1.0), (2, 3.0)]


def test_damage_elsewhere_is_told(tmp_path):
  (tmp_path / log.FILE).write_text('{"step": 1}\n{"st\n{"step": 3}\n')
  with pytest.raises(UserError, match="line 2"):
    read_jsonl(tmp_path / log.FILE)
  assert read_jsonl(tmp_path / "absent") == []


def test_a_resume_supersedes_what_came_after(tmp_path):
  logger, _ = open_log(tmp_path)
  for step in (10, 20, 30, 40):
    logger.write_scalars(step, {"a": float(step), "old": 1.0})
  logger.close()
  logger, _ = open_log(tmp_path, start=20)
  logger.write_scalars(30, {"a": -30.0})
  logger.write_scalars(20, {"b": 5.0})
  logger.close()
  assert values(tmp_path, "a") == [(10, 10), (20, 20), (30, -30)]
  assert values(tmp_path, "old") == [(10, 1), (20, 1)]
  assert values(tmp_path, "b") == [(20, 5)]


def test_events_hold_what_was_written(tmp_path):
  logger, _ = open_log(tmp_path)
  logger.write_scalars(3, {"net/loss": 0.25, "bad": float("nan")})
  logger.write_images(3, {"grid": np.zeros((5, 8, 8, 1), np.uint8)})
  logger.write_images(3, {"picture": np.zeros((9, 7, 3), np.uint8)})
  logger.write_audios(3, {"samples": np.full((2, 50, 1), 7, np.int16)}, 8000)
  logger.write_histograms(3, {"w": np.array([1.0, 2.0, np.nan])})
  logger.write_texts(3, {"config": "hello"})
  logger.flush()
  logger.close()
  found = {v.tag: v for e in events(tmp_path) for v in e.summary.value}
  assert found["net/loss"].simple_value == 0.25
  assert "bad" not in found
  assert found["picture"].image.height == 9
  assert found["grid"].image.width == 3 * 64 + 2 * 2
  sound = found["samples/1"].audio
  assert (sound.sample_rate, sound.length_frames, sound.content_type) == (8000, 50, "audio/wav")
  assert sound.encoded_audio_string.endswith(np.full(50, 7, "<i2").tobytes())
  assert found["w"].histo.num == 2
  assert "config/text_summary" in found


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(log.jax, "process_index", lambda: 1)
  logger, stream = open_log(tmp_path / "w")
  logger.write_scalars(1, {"a": 1.0})
  logger.write_images(1, {"a": np.zeros((1, 8, 8, 1), np.uint8)})
  logger.write_histograms(1, {"a": np.zeros(3)})
  logger.write_texts(1, {"a": "b"})
  logger.progress(1)
  logger.print_line("hello")
  logger.flush()
  logger.close()
  assert not (tmp_path / "w").exists() and not stream.getvalue()


class Terminal(io.StringIO):
  def isatty(self):
    return True


def progress(stream, **kwargs):
  now = [0.0]
  line = Progress(1000, 8, unit="images", stream=stream, clock=lambda: now[0], **kwargs)
  return line, now


def test_plain_lines_off_a_terminal():
  stream = io.StringIO()
  line, now = progress(stream)
  line.losses = {"net/loss": 0.125}
  for step in range(1, 101):
    now[0] = step - 1.0
    line.at(step)
  lines = stream.getvalue().splitlines()
  assert len(lines) == 7  # after 0, 15, ..., 90 seconds
  # One step a second, 8 images each; step 91 of 1,000.
  assert lines[-1] == "91/1,000  8 images/s  15:09 left  loss 0.125"
  assert "\r" not in stream.getvalue()


def test_one_line_on_a_terminal():
  stream = Terminal()
  line, now = progress(stream)
  line.losses = {"disc/loss": 1.5, "gen/loss": 2.5}
  for step in (1, 500, 1000):
    now[0] = step / 10
    line.at(step)
  line.print_line("a warning")
  line.end()
  shown = stream.getvalue().split("\r\x1b[K")
  assert max(map(len, shown)) <= 80
  assert shown[3].startswith("━" * 12) and "80 images/s" in shown[3]
  assert "0:00 left  disc/loss 1.5  gen/loss 2.5" in shown[3]
  assert shown[4] == "a warning\n" and shown[5].endswith("\n")


def test_durations_as_people_write_them():
  assert [duration(s) for s in (9, 754, 18367, 273_600)] == [
    "0:09",
    "12:34",
    "5:06:07",
    "3 days 4 h",
  ]


def run(key, series):
  _, found = health.replay({"step": i, key: value} for i, value in enumerate(series))
  return [(f.step, f.name) for f in found]


def test_a_winning_discriminator_is_told_once_until_it_clears():
  assert run("disc/accuracy", [0.8] * 20) == []
  assert run("disc/accuracy", [1.0, 0.6, 0.6] * 20) == []  # odd batches
  assert run("disc/accuracy", [1.0, 0.6] * 20) == [(4, "saturation")]  # once
  bout = [0.7] * 5 + [1.0] * 20
  # Three of the last five rows make the median.
  assert run("disc/accuracy", bout) == [(7, "saturation")]
  assert [s for s, _ in run("disc/accuracy", bout * 2)] == [7, 32]


def test_a_vanishing_gradient_is_relative_to_its_start():
  assert run("gen/grad_norm", [1e-4] * 40) == []
  assert run("gen/grad_norm", [5.0] * 20 + [1e-2] * 20) == []
  assert run("gen/grad_norm", [5.0] * 20 + [4e-3] * 9) == [(22, "vanishing")]
  assert run("gen/grad_norm", [1e-7] * 12) == [(9, "vanishing")]
  assert run("gen/grad_norm", [np.nan, np.inf] * 20) == []


def test_mode_collapse_is_told():
  assert run("gen/diversity", [0.9] * 9) == []
  assert run("gen/diversity", [0.9] * 5 + [0.2] * 9) == [(7, "collapse")]


def test_skipped_updates_are_told_and_forgotten():
  assert run("skips", [0] * 9) == []
  assert run("skips", [1]) == [(0, "skips")]
  assert run("skips", [0, 1] + [1] * 9 + [2]) == [(1, "skips"), (11, "skips")]


def test_warnings_reach_the_user_and_a_resume_repeats_none(tmp_path):
  logger, stream = open_log(tmp_path)
  for step in range(1, 9):
    logger.write_scalars(step, {"gen/diversity": 0.1})
  logger.close()
  assert stream.getvalue().count("mode collapse") == 1
  logger, stream = open_log(tmp_path, start=8)
  logger.write_scalars(9, {"gen/diversity": 0.1})
  logger.close()
  assert stream.getvalue() == ""
