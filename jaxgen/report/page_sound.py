"""The section to listen to: a column for each model, a row for each class."""

import base64
from collections.abc import Mapping, Sequence

from jaxgen.report.charts import escape
from jaxgen.report.page_parts import Model, section

NOTE = (
  "Clips drawn at random, not selected, with their mel spectrograms: time to the right, low tones "
  "below; what is 60 decibels below the loudest of a clip is black."
)


def listen(results: Mapping, models: Sequence[Model], files: Mapping[str, bytes]) -> str:
  """Players beside each other; "" where models are not of sound.

  Args:
    results: With `clips` of real data and of rows, [{label, sound, picture}].
    models: In the order of columns.
    files: WAV and PNG files by the names that clips have for them.
  """
  columns = [("Real data", results["real"]["clips"])]
  columns += [(m.title, m.row["clips"]) for m in models]
  count = max(len(clips) for _, clips in columns)
  if not count:
    return ""
  head = "".join(f"<th>{title}</th>" for title, _ in columns)
  rows = []
  for i in range(count):
    cells = [clips[i] if i < len(clips) else {} for _, clips in columns]
    label = next((str(c["label"]) for c in cells if c.get("label") is not None), str(i + 1))
    players = "".join(_cell(c, files, label) for c in cells)
    rows.append(f"<tr><th>{escape(label)}</th>{players}</tr>")
  body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
  return section("Listen", NOTE, [f'<div class="scroll listen"><table>{body}</table></div>'])


def _cell(clip: Mapping, files: Mapping[str, bytes], label: str) -> str:
  """A picture above a player; empty where there is no such clip."""
  sound, picture = (files.get(clip.get(k)) for k in ("sound", "picture"))
  parts = []
  if picture:
    parts.append(f'<img alt="spectrogram of {escape(label)}" src="{_uri("image/png", picture)}">')
  if sound:
    parts.append(f'<audio controls preload="metadata" src="{_uri("audio/wav", sound)}"></audio>')
  return f"<td>{''.join(parts)}</td>"


def _uri(kind: str, content: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"
