"""The page of edits: pictures first, and how near they come to what was there."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.errors import printable
from jaxgen.files import plain
from jaxgen.metrics.image_quality import psnr
from jaxgen.monitor import pictures
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, render
from jaxgen.tasks.editor import Editor
from jaxgen.tasks.memorisation import CopyCheck, gallery

SHOWN = 8  # rows of pictures
TALLEST = 128  # pixels of an image in a picture, about
HOLE = 96  # grey of what is not known, in pictures
NOT_FOR = (
  "What is filled in is made up: it is no evidence of what was there. Do not pass edits off as "
  "photographs, nor edit people without their consent."
)


class Edits(NamedTuple):
  """What was edited, and what came of it.

  Attributes:
    editor: What did it.
    names: Of the images [N].
    x: The images as they were read, uint8 [N, ...].
    known: What was left of them, uint8 [N, ...]; x itself without an operator.
    keep: Masks [N, H, W, 1], or None.
    made: uint8 [N * num, H, W, C], the results of each image side by side.
    whole: Whether x are whole images, with which results can be compared.
    times: Seconds of each batch; the first compiles.
    copies: Copies of training images among results, if they were looked for.
  """

  editor: Editor
  names: Sequence[str]
  x: np.ndarray
  known: np.ndarray
  keep: np.ndarray | None
  made: np.ndarray
  whole: bool
  times: Sequence[float]
  copies: CopyCheck | None = None


def hole_psnr(made: np.ndarray, x: np.ndarray, keep: np.ndarray) -> np.ndarray:
  """PSNR in dB of the pixels that a mask does not keep, [N]; bytes [N, H, W, C]."""
  hole = np.broadcast_to(keep == 0, x.shape)
  error = np.where(hole, made.astype(np.float64) - x, 0) ** 2
  mse = error.sum((1, 2, 3)) / hole.sum((1, 2, 3))
  with np.errstate(divide="ignore"):
    return 10 * np.log10(255**2 / mse)


def scores(edits: Edits) -> dict[str, np.ndarray]:
  """{what: [N * num]}: nearness to the originals and to what is known, where that is."""
  editor, numbers = edits.editor, {}
  if editor.method.wants:
    return numbers
  count = len(edits.made) // len(edits.x)
  again = lambda a: np.repeat(a, count, 0)
  if edits.keep is not None:
    numbers["PSNR in the hole"] = hole_psnr(edits.made, again(edits.x), again(edits.keep))
  elif edits.whole:
    numbers["PSNR"] = psnr(edits.made, again(edits.x))
  if editor.operator and edits.keep is None:
    numbers["PSNR of what is known"] = psnr(editor.known(edits.made), again(edits.known))
  return numbers


def shown(known: np.ndarray, shape: Sequence[int], keep: np.ndarray | None = None) -> np.ndarray:
  """What is known, as images of a shape [H, W, C]: small ones enlarged, holes grey."""
  if keep is not None:
    return np.where(keep == 1, known, np.uint8(HOLE))
  if known.shape[-1] != shape[-1]:
    known = np.repeat(known, shape[-1], -1)
  factor = shape[0] // known.shape[1]
  return known.repeat(factor, 1).repeat(factor, 2)


def rows_of(edits: Edits) -> tuple[np.ndarray, int, str]:
  """A picture of rows, its columns, and what they are."""
  shape, method = edits.editor.sampler.shape, edits.editor.method
  if method.wants == "image":
    row = np.concatenate([edits.x[:1], edits.made, edits.x[1:]])
    return row, len(row), "at both ends the images themselves, between them the way"
  count = len(edits.made) // len(edits.x)
  columns, titles = [], []
  if edits.whole:
    columns, titles = [edits.x], ["the image"]
  if edits.editor.operator:
    columns.append(shown(edits.known, shape, edits.keep))
    titles.append("what is known of it")
  made = edits.made.reshape(len(edits.x), count, *shape)
  columns += [made[:, k] for k in range(count)]
  titles.append("results" if count > 1 else "the result")
  grid = np.stack(columns, 1)[:SHOWN]
  return grid.reshape(-1, *shape), len(columns), ", ".join(titles)


def classifier_fact(
  made: Mapping[str, Any], settings: Mapping[str, float]
) -> list[tuple[str, str]]:
  """What pushed towards the wanted label, if anything did."""
  if not (own := made.get("classifier")):
    return []
  return [("Classifier", f"{own['workdir']}, step {own['step']}, by scale {settings['scale']:g}")]


def page(
  edits: Edits, settings: Mapping[str, float], made: Mapping[str, Any], command: str
) -> tuple[str, dict[str, Any]]:
  """The page as HTML, and its numbers as JSON."""
  editor, cells = edits.editor, rows_of(edits)
  x, columns, note = cells
  scale = max(1, round(TALLEST / max(x.shape[1:3])))
  picture = pictures.png(pictures.grid(x, columns, scale), made)
  numbers, seconds = scores(edits), sum(edits.times)
  cost = editor.cost({k: v for k, v in settings.items() if np.isfinite(v)})
  per_image = {k: v.reshape(len(edits.x), -1).mean(1) for k, v in numbers.items()}
  parts: list[Gallery | Table] = [
    Gallery("Pictures", f"In each row {note}.", [Picture(picture, editor.how)], wide=True)
  ]
  if per_image:
    form = lambda v: f"{v:.1f} dB"
    rows = [printable(name) for name in edits.names]
    table = [Column(k, 0, [float(a) for a in v], form) for k, v in per_image.items()]
    parts.append(Table("Numbers", "Of each image, means over its results.", rows, table))
  if edits.copies:
    parts.append(gallery(edits.copies))
  names = f"{len(edits.names)} image{'s' * (len(edits.names) > 1)}"
  verdict = f"{names} by {editor.how}: {cost:,.0f} evaluations of the net for each result"
  facts = [
    ("Method", f"{editor.how}: {editor.method.about}"),
    ("What is known", editor.operator.text if editor.operator else "the whole image"),
    ("Knobs", ", ".join(f"{k} {v:g}" for k, v in settings.items())),
    ("Evaluations", f"{cost:,.0f} for each result; a gradient through the net counts as two"),
    ("Time", f"{seconds:.1f} s, compiling and all, on {jax.devices()[0].device_kind}"),
    ("Model", f"{made.get('workdir')}, step {made.get('step')}, {made.get('dataset')}"),
    *classifier_fact(made, settings),
    ("Not for", NOT_FOR),
  ]
  means = {k: float(np.mean(v)) for k, v in numbers.items()}
  card = {
    "made": made,
    "scores": means,
    "images": {n: {k: v[i] for k, v in per_image.items()} for i, n in enumerate(edits.names)},
    "evaluations": cost,
    "seconds": seconds,
    **({"copies": edits.copies.card} if edits.copies else {}),
  }
  return render("Edited images", verdict, parts, facts, command, NOT_FOR), plain(card)
