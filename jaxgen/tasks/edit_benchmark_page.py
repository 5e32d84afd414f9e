"""The page of `jaxgen edit --measure`: methods side by side, then their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.monitor import pictures
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, facts_of, render
from jaxgen.tasks.edit_methods import METHODS
from jaxgen.tasks.edit_page import NOT_FOR

PSNR = "PSNR, dB"


def page(
  report: Mapping[str, Any],
  x: np.ndarray,
  known: np.ndarray,
  made: Mapping[str, np.ndarray],
  strip: Sequence[np.ndarray],
) -> str:
  """The page as HTML.

  Args:
    report: The numbers, see `edit_trials.Journal`.
    x: The originals that are shown, uint8 [N, H, W, C].
    known: What was left of them, as images of the same shape.
    made: Their results by each method, uint8 [N, H, W, C], at its largest budget.
    strip: What SDEdit began with, and its results at each strength; likewise.
  """
  rows, task, real = report["methods"], report["task"], report["real"]
  parts = [
    Gallery(
      "The methods side by side",
      "Each at the most evaluations that it was given.",
      [
        Picture(
          pictures.png(methods_picture(x, known, made), report["made"]), "results", task["data"]
        )
      ],
      wide=True,
    ),
    Gallery("Against evaluations of the net", "", curves_of(rows, real), wide=False),
    sdedit_gallery(report, strip),
    method_table(rows, real),
    sdedit_table(report["sdedit"]),
  ]
  ways = "\n".join(f"{how}: {METHODS[how].about}" for how in made)
  facts = [
    ("Images", f"{task['images']} test images of {task['data']}; known: {task['operator']}"),
    ("Labels", task["labels"]),
    ("Evaluations", "of the net for one image; a gradient through it counts as two"),
    ("PSNR", "of bytes; with a mask, in the hole: what is made up well need not be what was there"),
    ("Methods", ways),
    *facts_of({"Model": report["made"]}),
    ("Not for", NOT_FOR),
  ]
  if report["judge"]:
    facts.insert(4, ("Fréchet distance", f"{real['originals']['features']}, of as many images"))
  command = report["made"]["command"]
  return render("Edits, measured", verdict(rows), parts, facts, command, NOT_FOR)


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
  """Who comes nearest, and who looks most real."""
  near = max(rows, key=lambda r: float(r["psnr"]))
  text = (
    f"Nearest to the originals: {near['how']}, {near['psnr']:.1f} dB in "
    f"{near['evaluations']:.0f} evaluations."
  )
  judged = [r for r in rows if "frechet" in r]
  if judged:
    best = min(judged, key=lambda r: float(r["frechet"]))
    text += f" Most like real images: {best['how']}, Fréchet {best['frechet']:.3g}."
  return text


def methods_picture(x: np.ndarray, known: np.ndarray, made: Mapping[str, np.ndarray]) -> np.ndarray:
  """A row for each of a few images: original, what is known, each method's."""
  columns = {"original": x, "known": known} | dict(made)
  rows = {f"{i}": {name: rgb(a[i]) for name, a in columns.items()} for i in range(len(x))}
  return pictures.panels(rows, list(columns))


def rgb(image: np.ndarray) -> np.ndarray:
  """uint8 [H, W, 1 or 3] -> [H, W, 3], small ones enlarged."""
  scale = max(1, 64 // image.shape[0])
  image = image.repeat(scale, 0).repeat(scale, 1)
  return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def curves_of(rows: Sequence[Mapping[str, Any]], real: Mapping[str, Any]) -> list[Picture]:
  """PSNR and Fréchet against evaluations, a curve for each method."""
  floor = real["originals"].get("frechet")
  drawn = []
  for key, name, low in (("psnr", PSNR, None), ("frechet", "Fréchet distance", floor)):
    series: dict[str, list] = {}
    for row in rows:
      if key in row:
        series.setdefault(row["how"], []).append((row["evaluations"], float(row[key])))
    if series:
      image = pictures.curves(
        series, x="evaluations of the net", y=name, floor=low, floor_name="originals"
      )
      drawn.append(Picture(pictures.png(image), name))
  return drawn


def method_table(rows: Sequence[Mapping[str, Any]], real: Mapping[str, Any]) -> Table:
  """All numbers of all methods."""
  titles = [f"{r['how']}, {r['steps']} steps" for r in rows]
  lines = list(rows)
  titles.append(real["blank"]["name"])
  lines.append(real["blank"] | {"evaluations": 0})
  if "frechet" in real["originals"]:
    titles.append("the originals")
    lines.append({"frechet": real["originals"]["frechet"]})
  of = lambda key: [r.get(key) for r in lines]
  psnr = Column("PSNR, dB", 1, of("psnr"), lambda v: f"{v:.2f}", "Nearness")
  columns = [
    psnr._replace(spreads=of("psnr_error")),
    Column("Fréchet", -1, of("frechet"), group="Nearness"),
    Column("Evaluations", 0, of("evaluations"), lambda v: f"{v:,.0f}", "Cost"),
    Column("Seconds an image", 0, of("seconds"), group="Cost"),
  ]
  note = "± is a standard error over images."
  return Table("Numbers of the methods", note, titles, columns)


def sdedit_gallery(report: Mapping[str, Any], strip: Sequence[np.ndarray]) -> Gallery:
  """SDEdit's results at growing strength, and its curve."""
  curve = report["sdedit"]
  names = ["begins with", *(f"{r['strength']:g}" for r in curve)]
  rows = {
    f"{i}": {n: rgb(x[i]) for n, x in zip(names, strip, strict=True)} for i in range(len(strip[0]))
  }
  drawn = [Picture(pictures.png(pictures.panels(rows, names)), "SDEdit at growing strength")]
  labelled = any("wanted" in r for r in curve)
  note = (
    "Each image is to become one of the next class: the stronger, the more of them do, and the "
    "less of the image is left."
    if labelled
    else "From coarse blocks: the stronger, the more real, and the less like the blocks."
  )
  charts = {
    "psnr": "PSNR to the beginning, dB",
    "frechet": "Fréchet distance",
    "wanted": "share that the judge takes for the class asked for",
  }
  for key, name in charts.items():
    points = [(r["strength"], float(r[key])) for r in curve if key in r]
    if len(points) > 1:
      image = pictures.curves({"sdedit": points}, x="strength", y=name, shares=key == "wanted")
      drawn.append(Picture(pictures.png(image), name))
  return Gallery("SDEdit's strength", note, drawn, wide=True)


def sdedit_table(curve: Sequence[Mapping[str, Any]]) -> Table:
  """The numbers of SDEdit."""
  columns = [
    Column("Evaluations", 0, [int(r["evaluations"]) for r in curve]),
    Column("PSNR to the beginning, dB", 0, [float(r["psnr"]) for r in curve], lambda v: f"{v:.2f}"),
    Column("Fréchet", -1, [r.get("frechet") for r in curve]),
    Column("Share of the class asked for", 1, [r.get("wanted") for r in curve]),
  ]
  return Table("Numbers of SDEdit", "", [f"strength {r['strength']:g}" for r in curve], columns)
