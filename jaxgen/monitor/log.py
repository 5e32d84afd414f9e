"""What people see while it runs: a log, TensorBoard, a line on the terminal.

`metrics.jsonl` is the source of truth: one JSON object a line, appended and
flushed, so that a killed process loses a torn last line at most; in a bucket
the rows of some seconds, none of them from before a checkpoint. A row holds
"step", "time" (seconds since 1970) and scalars; JSON knows no nan, so values
that are not finite are the strings "nan", "inf" and "-inf", which `read_jsonl`
turns back. A line {"start": k} says that a process took over after step k:
what an earlier life had logged beyond k counts no more.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

import jax
import numpy as np

from jaxgen import files, forms
from jaxgen.audio import wav
from jaxgen.errors import UserError
from jaxgen.forms import NUMBER, Whole
from jaxgen.monitor import health, pictures
from jaxgen.monitor.progress import Progress

if TYPE_CHECKING:
  import tensorboardX

FILE = "metrics.jsonl"
ROW = (
  {"step": Whole(0), "time?": float, "": NUMBER},
  {"start": Whole(0), "time?": float, "": NUMBER},
)


def read_jsonl(path: str | os.PathLike) -> list[dict[str, float]]:
  """The log, one row per step in order; of each (step, key) the last counts.

  Raises:
    UserError: see `read_rows`.
  """
  rows: dict[int, dict[str, float]] = {}
  for row in read_rows(path):
    if "start" in row:
      rows = {k: v for k, v in rows.items() if k <= row["start"]}
    if "step" in row:
      rows.setdefault(row["step"], {}).update(row)
  return [rows[step] for step in sorted(rows)]


def read_rows(path: str | os.PathLike) -> list[dict[str, float]]:
  """Every row as it was written, those of `start` and of lost steps too.

  One torn last line is dropped. A missing file is an empty log.

  Raises:
    UserError: a line other than the last is no JSON, or any is no row.
  """
  path, rows = files.path(path), []
  if path.exists() and not path.is_file():
    raise UserError(f"{path} is no file: move it away")
  lines = path.read_bytes().splitlines() if path.exists() else []
  for i, line in enumerate(lines):
    damage = lambda why, i=i: f"{path}, line {i + 1} is damaged ({why}); delete the line"
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:
      if i == len(lines) - 1:
        break
      raise UserError(damage("it is no JSON")) from error
    if why := forms.misfit(row, ROW):
      raise UserError(damage(why))
    rows.append({k: forms.number(v) for k, v in row.items()})
  return rows


def _json(value) -> float | int | str:
  """A scalar of any kind -> what JSON can hold."""
  value = np.asarray(value).astype(object).item()  # bfloat16 too
  if isinstance(value, bool | int):
    return int(value)
  value = float(value)
  return value if math.isfinite(value) else str(value)


def mend(path: str | os.PathLike) -> None:
  """Cuts off a torn last line, or the next row would be glued to it.

  Raises:
    UserError: it is no log, so that nothing may be cut off.
  """
  path = files.path(path)
  text = path.read_bytes() if path.exists() else b""
  if text and not text.endswith(b"\n"):
    read_rows(path)
    whole = text.rfind(b"\n") + 1
    if not text.startswith(b"{", whole):
      raise UserError(f"{path} does not end as a log does: move it elsewhere")
    files.truncate(path, whole)


class _Direct:
  """A writer of events without tensorboardX's thread.

  That thread dies of a full disk, and whoever writes then waits for it for
  ever. What finds no room here is left out: the log tells of the full disk.
  """

  def __init__(self, writer):
    writer._worker.stop()
    self._file = writer._ev_writer

  def add_event(self, event) -> None:
    with contextlib.suppress(OSError):
      self._file.write_event(event)

  def flush(self) -> None:
    with contextlib.suppress(OSError):
      self._file.flush()

  def close(self) -> None:
    with contextlib.suppress(OSError, ValueError):  # at exit once more
      self._file.close()


class Logger:
  """Writes the log, events and a progress line; process 0 only.

  The writing methods carry the names of clu.metric_writers.

  Args:
    workdir: gets `metrics.jsonl` and `events/` (for TensorBoard).
    total_steps: where training ends.
    batch: examples per step, for the speed.
    start: the step after which this process takes over.
    unit: what an example is, for the progress line.
    stream: where the progress line goes.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    total_steps: int,
    batch: int,
    start: int = 0,
    unit: str = "images",
    stream: TextIO | None = None,
  ):
    self.lead = jax.process_index() == 0
    if not self.lead:
      return
    workdir = files.path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    mend(workdir / FILE)
    past = [r for r in read_jsonl(workdir / FILE) if r["step"] <= start]
    self._health, _ = health.replay(past)
    self._file = files.growing(workdir / FILE)
    self._append({"start": start})
    self._folder = files.mirrored(workdir / "events")
    self._events = events_in(self._folder.path, purge_step=start + 1 if start else None)
    self._progress = Progress(total_steps, batch, unit=unit, stream=stream or sys.stderr)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Logs scalars (numbers or 0-d arrays), and warns if they look ill."""
    if not self.lead:
      return
    row = {k: _json(v) for k, v in scalars.items()}
    self._append({"step": int(step), **row})
    row = {k: forms.number(v) for k, v in row.items()}
    for key, value in row.items():
      if math.isfinite(value):  # events cannot say nan; the log does
        self._events.add_scalar(key, value, step)
    self._progress.losses |= {k: v for k, v in row.items() if k.split("/")[-1] == "loss"}
    self._health, findings = health.check(self._health, int(step), row)
    if self._folder.full:
      self._events.close()
      self._events = events_in(self._folder.path, filename_suffix=f".{step}")
    for finding in findings:
      self._events.add_text(f"warning/{finding.name}", finding.text, step)
      self._progress.print_line(f"warning at step {step:,}: {finding.text}")
    self._events.flush()

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Grids of uint8 images [N, H, W, C], or ready pictures [H, W, C]."""
    if not self.lead:
      return
    for key, image in images.items():
      image = pictures.grid(image) if np.ndim(image) == 4 else image
      self._events.add_image(key, np.asarray(image), step, dataformats="HWC")

  def write_audios(self, step: int, audios: Mapping[str, np.ndarray], rate: int) -> None:
    """Clips int16 [N, L, 1] at `rate` samples a second, to be played."""
    if not self.lead:
      return
    from tensorboardX.proto.summary_pb2 import Summary

    for key, clips in audios.items():
      for i, clip in enumerate(clips):
        audio = Summary.Audio(
          sample_rate=rate,
          num_channels=1,
          length_frames=len(clip),
          encoded_audio_string=wav.encode(clip, rate),
          content_type="audio/wav",
        )
        value = Summary.Value(tag=f"{key}/{i}", audio=audio)
        self._events.file_writer.add_summary(Summary(value=[value]), step)

  def write_histograms(self, step: int, arrays: Mapping[str, np.ndarray]):
    """Histograms of the finite values of arrays."""
    if not self.lead:
      return
    for key, value in arrays.items():
      value = np.asarray(value, np.float64).ravel()
      value = value[np.isfinite(value)]
      if value.size:
        self._events.add_histogram(key, value, step)

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Texts (Markdown) for TensorBoard."""
    if not self.lead:
      return
    for key, text in texts.items():
      self._events.add_text(key, text, step)

  def progress(self, step: int) -> None:
    """Call after every step; rewrites the line when it is time to."""
    if self.lead:
      self._progress.at(step)

  def print_line(self, text: str) -> None:
    """One plain line for the user, above the progress line."""
    if self.lead:
      self._progress.print_line(text)

  def flush(self) -> None:
    """Everything so far is with the operating system afterwards."""
    if self.lead:
      self._events.flush()

  def close(self) -> None:
    """Ends the progress line and closes the files."""
    if self.lead:
      self._progress.end()
      self._events.close()
      self._folder.close()
      self._file.close()

  def _append(self, row: dict) -> None:
    row = {**row, "time": round(time.time(), 3)}
    self._file.write(json.dumps(row, allow_nan=False) + "\n")
    self._file.flush()


def events_in(folder: str, **how: Any) -> "tensorboardX.SummaryWriter":
  """What writes events for TensorBoard, into a new file of a folder."""
  import tensorboardX  # here, for it brings boto3, and most verbs write no events

  events = tensorboardX.SummaryWriter(folder, **how)
  events.file_writer.event_writer = _Direct(events.file_writer.event_writer)
  return events


def append(workdir: str | os.PathLike, step: int, scores: Mapping[str, float]) -> None:
  """Adds a line to a run's log, which may be that of a running training.

  One write of one line: nobody's lines are torn. A torn last line, of a
  process that was killed, is cut off, as the log itself does.
  """
  path = files.path(workdir) / FILE
  mend(path)
  row = {"step": int(step)} | {
    k: float(v) if np.isfinite(v) else str(float(v)) for k, v in scores.items()
  }
  line = json.dumps(row | {"time": round(time.time(), 3)}, allow_nan=False)
  files.append(path, line.encode() + b"\n")


def card_name(step: int, features: str, protocol: str, num: int) -> str:
  """Of the card of a model's step, in WORKDIR/evals."""
  own = "" if features == "inception" else f"-{features}"
  return f"{step:08d}-{protocol}{own}-{num}.json"
