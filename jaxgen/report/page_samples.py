"""The sections of pictures: samples, those of earlier rounds, copies."""

from collections.abc import Mapping, Sequence

from jaxgen.monitor.progress import duration
from jaxgen.report import fields
from jaxgen.report.page_parts import Model, figure, section, setting

SMALL = 420  # pixels: twice as many as a picture of a strip is wide


def samples(results: Mapping, models: Sequence[Model], images: Mapping[str, bytes]) -> str:
  if not models:
    return ""
  figures = [figure(images.get(results["real"].get("grid")), "Real data", "")]
  for m in models:
    rate = fields.speed(m.entry)
    speed = f"{fields.short(rate)} a second" if rate else ""
    note = ", ".join(filter(None, (setting(m.entry), speed)))
    figures.append(figure(images.get(m.row.get("grid")), m.name, note))
  grid = f'<div class="samples">{"".join(figures)}</div>'
  strips = "".join(_strip(m, images) for m in models)
  note = "Drawn at random, not selected."
  if results["noun"] == "clips":
    note += " Mel spectrograms: time to the right, low tones below, 60 decibels."
  if strips:
    shares = {m.row["rounds"][-1]["share"] for m in models if m.row["rounds"]}
    note += " All with the same labels"
    note += " and the same share of the budget." if len(shares) == 1 else "."
    strips = f'<h3 class="family">Earlier rounds, at equal shares of the budget</h3>{strips}'
  return section("Samples", note, [grid, strips])


def _strip(m: Model, images: Mapping[str, bytes]) -> str:
  """A model's samples of earlier rounds, small."""
  figures = []
  for r in m.row["rounds"]:
    key = r.get("grid")
    if key in images and key != m.row.get("grid"):
      took = duration(r["seconds"]) if fields.is_finite(r.get("seconds")) else ""
      figures.append(figure(images[key], fields.percent(r["share"]), took, SMALL))
  if not figures:
    return ""
  return f'<div class="strip"><p>{m.title}</p>{"".join(figures)}</div>'


def copies(results: Mapping, models: Sequence[Model], images: Mapping[str, bytes]) -> str:
  """Samples beside their nearest training examples."""
  figures, noun = [], results["noun"]
  one = noun.removesuffix("s")
  for m in models:
    part, floor = (m.row["copies"].get(k) for k in ("share", "floor"))
    if not fields.is_finite(part):
      continue
    note = f"{fields.percent(part)} are nearer than new {noun} should be"
    note += f"; of real test {noun} {fields.percent(floor)}" if fields.is_finite(floor) else ""
    figures.append(figure(images.get(m.row["copies"].get("grid")), m.name, note))
  note = (
    f"Samples that come nearest to a training {one}, each beside that {one}. A model that "
    f"copies does so more often than real test {noun} happen to resemble training {noun}."
  )
  grid = f'<div class="samples">{"".join(figures)}</div>' if figures else ""
  return section("Copies", note, [grid])
