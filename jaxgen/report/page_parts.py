"""What sections of the page are made of: models, pictures, charts in cards."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import PIL.Image

from jaxgen.data.image import open_image
from jaxgen.report import charts, fields
from jaxgen.report.charts import escape

# Field of a round and words for what a budget is of.
COSTS = {
  "time": ("seconds", charts.TIME),
  "img": ("images", "{noun} seen"),
  "flop": ("flops", "FLOPs of training"),
}


class Model(NamedTuple):
  """One row of the results, with its name and colour on the page."""

  colour: int
  name: str
  row: Mapping
  entry: Mapping  # the sampling settings that its metrics belong to

  @property
  def title(self) -> str:
    """Its name behind a dot of its colour, as HTML."""
    dot = f'<span class="swatch" style="background: var(--c{self.colour})"></span>'
    return dot + escape(self.name)


def cost_of(results: Mapping, kind: str | None) -> tuple[str, str]:
  """Field of a round, and words, for what a budget is of."""
  field, text = COSTS.get(kind, COSTS["time"])
  return field, text.format(noun=results["noun"])


def section(title: str, note: str, parts: Iterable[str]) -> str:
  """A section of the page; none where all parts are empty."""
  body = "".join(parts)
  note = f'<p class="note">{note}</p>' if note else ""
  return f"<section><h2>{title}</h2>{note}{body}</section>" if body else ""


def figure(png: bytes | None, name: str, note: str, most: int = 1024, natural: bool = False) -> str:
  """A picture, at most so many pixels wide, and what it is below.

  As wide as its place; where `natural`, no wider than its own pixels.
  """
  name, note = escape(name), escape(note)
  picture = '<div class="missing">no picture</div>'
  if png:
    code = base64.b64encode(shrink(png, most)).decode()
    size = ' style="width: auto; max-width: 100%"' if natural else ""
    picture = f'<img alt="{name}"{size} src="data:image/png;base64,{code}">'
  caption = f"<b>{name}</b>" + (f"<br>{note}" if note else "")
  return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def shrink(png: bytes, most: int) -> bytes:
  """A PNG file of the same picture, at most so many pixels wide, if that is smaller.

  Big pixels of small images compress better than what they shrink to.
  """
  with open_image(io.BytesIO(png)) as image:
    if image.width <= most:
      return png
    file = io.BytesIO()
    height = max(1, round(image.height * most / image.width))
    image.convert("RGB").resize((most, height), PIL.Image.Resampling.LANCZOS).save(file, "PNG")
  return min(png, file.getvalue(), key=len)


def chart(draw: Callable[..., str], results: Mapping, key: str, series, *more) -> tuple[str, str]:
  """A chart of a metric, for wide and for narrow screens."""
  metric, floor = fields.describe(key), results["real"]["metrics"].get(key)
  floor = floor if fields.is_finite(floor) else None
  wide, narrow = (
    draw(series, floor, metric.label, metric.better > 0, *more, w, h)
    for w, h in ((520, 380), (340, 320))
  )
  return wide, narrow


def side_by_side(pairs: Iterable[tuple[str, str]], legend: str = "") -> str:
  """Charts in cards, each in the size that fits the screen."""
  cards = [
    f'<div class="card"><div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>'
    for wide, narrow in pairs
    if wide
  ]
  return f'{legend}<div class="pair">{"".join(cards)}</div>' if cards else ""


def legend(models: Iterable[Model]) -> str:
  return f'<div class="legend">{"".join(f"<span>{m.title}</span>" for m in models)}</div>'


def setting(entry: Mapping) -> str:
  """The name of sampling settings."""
  return str(entry.get("label") or ", ".join(f"{k} {v}" for k, v in entry["knobs"].items()))
