"""How near translations come to the truth, in numbers and on a page."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.evaluation import cards, learned, perceptual, texture
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.metrics import image_quality
from jaxgen.metrics.distances import frechet_rows
from jaxgen.monitor import pictures
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, facts_of, render
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.tasks.translation_inputs import Inputs

KIND = "jaxgen translation 1"
ROWS = 8  # images on the page
UP = ("psnr", "ssim", "accuracy")  # how names of scores begin where more is better
METRICS = {
  "psnr": "dB, of bytes; mean over images",
  "ssim@gauss11": "Wang et al. 2004, of bytes, mean over channels",
  "ssim@uniform7": "scikit-image's default window, likewise",
  "frechet@textures": "Fréchet distance of all results from all truths, by strengths of details",
}


class Judges(NamedTuple):
  """Networks that look at results.

  Attributes:
    perceptual: That compare each with its truth.
    classifier: Whose features make a Fréchet distance, and whose classes are compared
      with known labels; None: none.
    name: The classifier's workdir.
  """

  perceptual: Sequence[Perceptual] = ()
  classifier: Any = None
  name: str = ""

  @property
  def card(self) -> dict[str, Any]:
    """Which networks they are."""
    return {net.name: net.card for net in self.perceptual} | (
      {"judge": self.name} if self.name else {}
    )


def open_judges(judge: str | None, lpips_net: str | None, lpips_lin: str | None) -> Judges:
  """As flags say."""
  nets, look = [], None
  if judge:
    sampler: Sampler = load(judge, samples=False)
    nets.append(perceptual.of_classifier(sampler))
    look = learned.extractor_of(sampler, "judge")
  if lpips_net or lpips_lin or perceptual.is_in_environment():
    nets.append(perceptual.open_lpips(lpips_net, lpips_lin))
  return Judges(nets, look, judge or "")


def like(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Images with as many channels as the truth: grey is repeated."""
  return np.repeat(x, 3, -1) if x.shape[-1] < truth.shape[-1] else x


def by_image(x: np.ndarray, truth: np.ndarray, judges: Judges) -> dict[str, np.ndarray]:
  """How near images uint8 [N, H, W, C] come to theirs, [N] each."""
  scores = {"psnr": image_quality.psnr(x, truth)}
  for name, (weights, _) in image_quality.WINDOWS.items():
    if min(x.shape[1:3]) >= len(weights):
      ssim = functools.partial(image_quality.ssim, window=name)
      scores[f"ssim@{name}"] = ssim(x, truth)
  return scores | {net.name: net.distances(x, truth) for net in judges.perceptual}


def measure(
  x: np.ndarray, truth: np.ndarray | None, labels: np.ndarray | None, judges: Judges
) -> tuple[dict[str, float], dict[str, float]]:
  """All scores of results uint8 [N, H, W, C], and standard errors of the means."""
  scores, errors = {}, {}
  if truth is not None:
    for name, values in by_image(x, truth, judges).items():
      scores[name] = float(np.mean(values))
      if len(values) > 1 and np.isfinite(values).all():
        errors[name] = float(np.std(values, ddof=1) / len(values) ** 0.5)
    if len(x) > 1 and min(x.shape[1:3]) >= texture.LEAST:
      pair = (texture.strengths(a) for a in (x, truth))
      scores["frechet@textures"] = frechet_rows(*pair)
  if judges.classifier is None:
    return scores, errors
  if truth is not None and len(x) > 1:
    features = lambda a: judges.classifier.features([a], ("features",))["features"]
    scores["frechet@judge"] = frechet_rows(features(x), features(truth))
  if labels is not None:
    right = learned.is_right(judges.classifier, x, labels)
    scores["accuracy@judge"] = float(np.mean(right))
    errors["accuracy@judge"] = float(np.sqrt(right.mean() * (1 - right.mean()) / len(right)))
  return scores, errors


def card_of(
  inputs: Inputs, results: Mapping[str, np.ndarray], judges: Judges, made: Mapping[str, Any]
) -> dict[str, Any]:
  """Scores of every model, and of the sources as they are, with how they were made."""
  truth, rows = inputs.truth, dict(results)
  if truth is not None and inputs.source.shape[-1] <= truth.shape[-1]:
    rows = {"source": like(inputs.source, truth)} | rows
  numbers = {k: measure(x, truth, inputs.labels, judges) for k, x in rows.items()}
  return files.plain(
    {
      "kind": KIND,
      "images": len(inputs.names),
      "protocol": METRICS | {"errors": "standard errors over images, taken for independent"},
      "judges": judges.card,
      "scores": {k: scores for k, (scores, _) in numbers.items()},
      "errors": {k: errors for k, (_, errors) in numbers.items()},
      "versions": cards.versions(),
      "made": made,
    }
  )


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text; "" where there are none."""
  scores, errors = card["scores"], card["errors"]
  metrics = list(dict.fromkeys(m for own in scores.values() for m in own))
  if not metrics:
    return ""

  def cell(name: str, metric: str) -> str:
    if metric not in scores[name]:
      return ""
    error = errors[name].get(metric)
    return f"{float(scores[name][metric]):.4g}" + ("" if error is None else f" ± {error:.2g}")

  rows = [["", *scores], *([m, *(cell(name, m) for name in scores)] for m in metrics)]
  return cards.columns(rows) + f"\n{card['images']:,} images; ±: standard errors"


def picture(inputs: Inputs, results: Mapping[str, np.ndarray]) -> np.ndarray:
  """A row for each of a few images: source, every model's, truth."""
  n = len(inputs.names)
  i = np.arange(min(ROWS, n)) * n // min(ROWS, n)
  columns = {"source": with_hole(inputs)} | dict(results)
  columns |= {} if inputs.truth is None else {"truth": inputs.truth}
  rgb = lambda x: np.repeat(x, 3, -1) if x.shape[-1] == 1 else x
  rows = {inputs.names[j][-16:]: {k: rgb(x[j]) for k, x in columns.items()} for j in i}
  return pictures.panels(rows, list(columns))


def with_hole(inputs: Inputs) -> np.ndarray:
  """Sources, grey where there is a hole."""
  return inputs.source if inputs.keep is None else np.where(inputs.keep > 0, inputs.source, 128)


def page(
  inputs: Inputs,
  results: Mapping[str, np.ndarray],
  card: Mapping[str, Any],
  models: Mapping[str, Mapping[str, Any]],
  command: str,
) -> str:
  """The page: pictures first, then numbers."""
  scores = card["scores"]
  metrics = list(dict.fromkeys(m for own in scores.values() for m in own))
  columns = [
    Column(
      m, 1 if m.startswith(UP) else -1, [number(scores[name].get(m)) for name in scores], short
    )
    for m in metrics
  ]
  png = pictures.png(picture(inputs, results), {"made": command})
  note = "Left: what goes in" + ("" if inputs.truth is None else "; right: what should come out")
  parts = [Gallery("Pictures", f"{note}.", [Picture(png, "Translations")], wide=True)]
  if metrics:
    note = "source: what goes in, taken for the result."
    parts.append(Table("Numbers", note, list(scores), columns))
  # (The command stands below.)
  own = {name: {k: v for k, v in m.items() if k != "command"} for name, m in models.items()}
  facts = [("images", f"{len(inputs.names):,}"), *facts_of(own)]
  facts += [(k, v) for k, v in card["protocol"].items() if k in metrics or k == "errors"]
  return render("Translation", verdict(card, list(results)), parts, facts, command)


def number(value: Any) -> float | None:
  """A score of a card, where what is infinite is text."""
  return None if value is None else float(value)


def short(value: float) -> str:
  """Four digits."""
  return f"{value:.4g}"


def verdict(card: Mapping[str, Any], names: Sequence[str]) -> str:
  """What came out, in a sentence."""
  scores = card["scores"]
  for metric, better in (("psnr", max), ("accuracy@judge", max)):
    values = {name: number(scores[name].get(metric)) for name in names if name in scores}
    values = {k: v for k, v in values.items() if v is not None}
    if values:
      best = better(values, key=values.get)
      unit = " dB" if metric == "psnr" else ""
      alone = "" if len(values) == 1 else ", the best of these"
      return f"{best}: {metric} {values[best]:.3g}{unit}{alone}."
  return f"{card['images']:,} images translated; without a truth nothing is measured."


def write_page(path: pathlib.Path, html: str, card: Mapping[str, Any]) -> None:
  """x.html, and the card as x.json beside it."""
  files.write_json(path.with_suffix(".json"), card)
  files.write_text(path, html)


def check_page(path: str) -> pathlib.Path:
  """UserError unless a name is of a page."""
  target = pathlib.Path(path).expanduser()
  if target.suffix.lower() not in (".html", ".htm"):
    raise UserError(f"--page={path}: want x.html")
  return target
