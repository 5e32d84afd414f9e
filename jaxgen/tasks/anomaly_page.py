"""The page of anomalies: the strangest images, and where they are strange."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.metrics.detection import Rate
from jaxgen.monitor import pictures
from jaxgen.report.charts import THEME, canvas
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, render

SHOWN = 12  # images in a row
TALLEST = 128  # pixels of an image in a picture, about
NOT_FOR = (
  "A score says what is rare in the training images, not what is wrong: it is no diagnosis and no "
  "ground to judge a person by."
)


def page(
  x: np.ndarray,
  result: Mapping[str, np.ndarray],
  anomalous: np.ndarray | None,
  names: Sequence[str],
  made: Mapping[str, Any],
  rates: Mapping[str, Rate],
) -> tuple[np.ndarray, str]:
  """The picture uint8 [H, W, 3] of the strangest and the most usual, and the page.

  Args:
    x: Images uint8 [N, H, W, C].
    result: What a `Scorer` says of them.
    anomalous: bool [N], where it is known.
    names: Of the images.
    made: How the scores were made.
    rates: AUROC and AUPR, where they are known.
  """
  order = np.argsort(-result["score"], kind="stable")
  strange, usual = order[:SHOWN], order[::-1][:SHOWN]
  picture = strip(x, result, strange)
  what = "from above: the image" + (", what the model makes of it" * ("again" in result))
  what += ", where they differ" * ("map" in result)
  marks = "" if anomalous is None else f"; anomalous: {np.count_nonzero(anomalous[strange])}"
  parts = [
    Gallery(
      "The strangest images",
      f"{what}. The strangest stands first.",
      [Picture(pictures.png(picture, made), "strangest", listed(names, result, strange) + marks)],
      wide=True,
    ),
    Gallery(
      "The most usual",
      "",
      [Picture(pictures.png(strip(x, result, usual)), "most usual", listed(names, result, usual))],
      wide=True,
    ),
    Gallery(
      "All scores",
      "How often each score is found" + ("." if anomalous is None else ", by kind."),
      [Picture(pictures.png(histogram(result["score"], anomalous)), "scores", made["score"])],
    ),
  ]
  if rates:
    parts.append(rate_table(rates, anomalous))
  data = made["data"]
  facts = [
    ("Score", made["score"]),
    ("Knobs", ", ".join(f"{k} {v}" for k, v in made["knobs"].items()) or "none"),
    ("Images", f"{data['images']:,} of {data['name']} ({data['fingerprint']})"),
    ("Model", f"{made['workdir']}, step {made['step']}, trained on {made['dataset']}"),
    ("Intervals", "95%: AUROC by DeLong, AUPR on the logit's scale (Boyd et al. 2013)"),
  ]
  title = f"Anomalies in {data['name']}"
  return picture, render(
    title, verdict(rates, result, made), parts, facts, made["command"], NOT_FOR
  )


def verdict(
  rates: Mapping[str, Rate], result: Mapping[str, np.ndarray], made: Mapping[str, Any]
) -> str:
  """What came out, in a sentence."""
  if "AUROC" not in rates:
    return (
      f"{len(result['score']):,} images scored by {made['how']}; which of them are anomalous "
      "the data do not say."
    )
  rate = rates["AUROC"]
  how = "no better than chance" if rate.low <= 0.5 <= rate.high else f"AUROC {rate.value:.3f}"
  if rate.high < 0.5:
    how += ", worse than chance"
  return f"{made['how'].capitalize()}: {how} ({rate.low:.3f} to {rate.high:.3f})."


def rate_table(rates: Mapping[str, Rate], anomalous: np.ndarray) -> Table:
  """AUROC and AUPR with their intervals, and what chance has."""
  share = float(np.mean(anomalous))
  chance = {"AUROC": 0.5, "AUPR": share}
  return Table(
    "How well it tells them apart",
    f"{np.count_nonzero(anomalous):,} of {len(anomalous):,} images are anomalous.",
    list(rates),
    [
      Column("value", 1, [r.value for r in rates.values()]),
      Column("95% interval", 0, [f"{r.low:.3f} – {r.high:.3f}" for r in rates.values()]),
      Column("by chance", 0, [chance[k] for k in rates]),
    ],
  )


def listed(names: Sequence[str], result: Mapping[str, np.ndarray], which: np.ndarray) -> str:
  """Names and scores in a line."""
  return ", ".join(f"{names[i]}: {result['score'][i]:.3g}" for i in which)


def strip(x: np.ndarray, result: Mapping[str, np.ndarray], which: np.ndarray) -> np.ndarray:
  """Images, what became of them and heat maps, one below the other: uint8 [H, W, 3]."""
  rows = [coloured(x[which])]
  if "again" in result:
    rows.append(coloured(result["again"][which]))
  if "map" in result:
    rows.append(heat(result["map"][which], ceiling(result["map"])))
  scale = max(1, TALLEST // max(x.shape[1:3]))
  return pictures.grid(np.concatenate(rows), len(which), min(scale, 8))


def coloured(x: np.ndarray) -> np.ndarray:
  """uint8 [N, H, W, 1 or 3] -> [N, H, W, 3]."""
  return np.repeat(x, 3, -1) if x.shape[-1] == 1 else x


def ceiling(maps: np.ndarray) -> float:
  """The error from which on a heat map is brightest, the same for all images."""
  return max(float(np.quantile(maps, 0.995)), 1e-12)


def heat(maps: np.ndarray, top: float) -> np.ndarray:
  """Errors [N, H, W] -> colours uint8 [N, H, W, 3], black to yellow at `top`."""
  import matplotlib  # here, for many verbs draw nothing

  shade = np.clip(np.asarray(maps) / top, 0, 1)
  return matplotlib.colormaps["inferno"](shade, bytes=True)[..., :3]


def beside(image: np.ndarray, errors: np.ndarray, top: float) -> np.ndarray:
  """An image and its heat map, side by side."""
  return pictures.grid(np.concatenate([coloured(image[None]), heat(errors[None], top)]), 2)


def histogram(scores: np.ndarray, anomalous: np.ndarray | None) -> np.ndarray:
  """How often each score is, by kind: uint8 [H, W, 3]."""
  low, high = np.quantile(scores, [0.0, 0.995])
  bins = np.linspace(low, max(high, low + 1e-9), 30)
  with canvas(560, 300, 144) as (figure, axes):
    kinds = {"all images": np.ones(len(scores), bool)}
    if anomalous is not None:
      kinds = {"normal": ~anomalous, "anomalous": anomalous}
    for (name, rows), colour in zip(kinds.items(), ("c1", "c2"), strict=False):
      if rows.any():
        part = np.clip(scores[rows], bins[0], bins[-1])
        weights = np.full(len(part), 1 / len(part))
        axes.hist(part, bins, weights=weights, alpha=0.6, label=name, color=THEME[colour])
    axes.set_xlabel("score")
    axes.set_ylabel("share of images")
    axes.legend(frameon=False)
    return pictures.pixels_of(figure)
