"""What went wrong with a model, in words, with the curve that shows it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxgen.report.charts import short as count
from jaxgen.report.fields import (
  DIVERSITY,
  MOVED,
  QUALITY,
  complete,
  deciding_metric,
  describe,
  is_finite,
  is_level,
  percent,
  score,
  share,
  short,
  split,
)

# Diversity below half of what the same training had before: no set of samples
# varies as much, and a collapse rarely stops halfway.
COLLAPSED = 0.5
# ... and by so much, for half of next to nothing is noise.
FALL = 0.1
# Precision or recall below so many times that of real data is seen by eye: a
# converged model has 0.8 and more.
LOW = 0.6
# Standard errors by which copies exceed the share among real test images: one
# false alarm in a thousand models.
CERTAIN = 3.0
# ... and by so much at least: a copy in a hundred is of no consequence.
COPIES = 0.01
# Words of health's warnings -> what that is called, and the end of the key of
# the curve that shows it.
WARNINGS = {
  "discriminator is right": ("Saturated discriminator", "accuracy"),
  "gradient has vanished": ("Vanished gradient", "grad_norm"),
  "loses diversity": ("Mode collapse", "diversity"),
  "lost its diversity": ("Collapse of a class", "class_diversity_min"),
  "by heart": ("Overfitted discriminator", "rank"),
  "singular value": ("Exploding weights", "sigma_max"),
  "codebook has collapsed": ("Collapsed codebook", "perplexity"),
  "Augmentation is at": ("Leaking augmentation", "disc/p"),
  "Updates were skipped": ("Skipped updates", "skips"),
}

Curve = Sequence[tuple[float, float]]


class Finding(NamedTuple):
  """Something about a training.

  kind: one word.
  text: what it is, in a sentence.
  curve: what shows it, by name: points (images seen or step, value).
  is_wrong: whether it is a fault, and not news.
  is_metric: whether the curve is a metric over rounds, and not of the log.
  """

  kind: str
  text: str
  curve: Mapping[str, Curve] = {}
  is_wrong: bool = True
  is_metric: bool = True


def diagnose(row: Mapping, results: Mapping) -> list[Finding]:
  """What a row of a report shows, the worst first; [] where all is well."""
  results = complete({**results, "rows": [row]})
  (row,) = results["rows"]
  collapse = list(_collapse(row, results["noun"]))
  return [
    *_stop(row),
    *collapse,
    *([] if collapse else _decline(row, results)),
    *_copies(row, results),
    *_unlike(row, results),
    *([] if collapse else _narrow(row, results)),
    *_warnings(row),
    *_progress(row, results),
  ]


def place(entry: Mapping) -> float | None:
  """Where a round is on a training's way: images seen, else its step."""
  return next((entry[k] for k in ("images", "step") if is_finite(entry.get(k))), None)


def where(entry: Mapping, noun: str = "images") -> str:
  """at image 1.2M, at step 400, at 25% of the budget."""
  images = entry.get("images")
  if is_finite(images):
    return f"{noun.removesuffix('s')} {count(float(f'{images:.3g}'))}"
  if is_finite(entry.get("step")):
    return f"step {count(entry['step'])}"
  return f"{percent(share(entry))} of the budget"


def curve(row: Mapping, key: str) -> dict[str, Curve]:
  """A metric over a row's rounds, by its label."""
  points = [(place(r), r["metrics"].get(key)) for r in row["rounds"]]
  points = [(x, y) for x, y in points if x is not None and is_finite(y)]
  return {describe(key).label: points} if len(points) > 1 else {}


def key_of(row: Mapping, name: str) -> str | None:
  """The key of a metric in a row, whatever its features."""
  return next((k for k, v in row["metrics"].items() if split(k)[0] == name and is_finite(v)), None)


def _stop(row: Mapping) -> Iterator[Finding]:
  if row["stopped"]:
    text = str(row["stopped"]).rstrip(".")
    losses = {k: v for k, v in (row["curves"].get("loss") or {}).items() if v}
    yield Finding("Stopped", f"{text[:1].upper()}{text[1:]}.", losses, is_metric=False)


def _collapse(row: Mapping, noun: str) -> Iterator[Finding]:
  """Diversity that fell, and stayed down."""
  for name in ("recall", "coverage", "modes"):
    key = key_of(row, name)
    if key is None:
      continue
    rounds = [r for r in row["rounds"] if is_finite(r["metrics"].get(key))]
    values = [r["metrics"][key] for r in rounds]
    if not values:
      continue
    peak = max(values)
    if values[-1] > min(COLLAPSED * peak, peak - FALL):
      continue
    top = values.index(peak)
    fell = next(i for i in range(top, len(values)) if values[i] <= COLLAPSED * peak)
    yield Finding(
      "Collapsed",
      f"{describe(key).label} fell from {short(values[fell - 1])} to {short(values[fell])} at "
      f"{where(rounds[fell], noun)}: its samples are much alike.",
      curve(row, key),
    )
    return


def _decline(row: Mapping, results: Mapping) -> Iterator[Finding]:
  """Quality that was better once."""
  key = deciding_metric(results, QUALITY)
  rounds = [(r, s) for r in row["rounds"] if key and (s := score(r, key))]
  if len(rounds) < 2:
    return
  metric = describe(key)
  (best, then), (_, now) = max(rounds, key=lambda p: metric.better * p[1].mean), rounds[-1]
  if then is not now and not is_level(then, now, MOVED):
    yield Finding(
      "Worse since",
      f"{metric.label} was {short(then.mean)} at {where(best, results['noun'])} and is "
      f"{short(now.mean)} now: it was trained for too long, or goes astray. An earlier "
      "checkpoint is better.",
      curve(row, key),
    )


def _progress(row: Mapping, results: Mapping) -> Iterator[Finding]:
  """Quality that still gets better."""
  key = deciding_metric(results, QUALITY)
  rounds = [s for r in row["rounds"] if key and (s := score(r, key))]
  if len(rounds) < 2 or row["stopped"]:
    return
  metric, (before, now) = describe(key), rounds[-2:]
  if metric.better * (now.mean - before.mean) > 0 and not is_level(before, now, MOVED):
    yield Finding(
      "Still improving",
      f"{metric.label} went from {short(before.mean)} to {short(now.mean)} in the last round: "
      "a longer training would do better.",
      curve(row, key),
      is_wrong=False,
    )


def _copies(row: Mapping, results: Mapping) -> Iterator[Finding]:
  part, floor = (row["copies"].get(k) for k in ("share", "floor"))
  if not is_finite(part):
    return
  noun, floor = results["noun"], floor if is_finite(floor) else 0.0
  one = noun.removesuffix("s")
  n = results["counts"].get("samples")
  n = n if is_finite(n) and n > 0 else 1 / COPIES**2
  error = math.sqrt(max(floor, 1 / n) * (1 - min(floor, 1)) / n)
  if part - floor > max(COPIES, CERTAIN * error):
    yield Finding(
      f"Copies training {noun}",
      f"{percent(part)} of its samples are nearer to a training {one} than new {noun} should be; "
      f"of real test {noun} {percent(floor)} are.",
    )


def _unlike(row: Mapping, results: Mapping) -> Iterator[Finding]:
  """Samples that are blurry, or otherwise unlike real ones."""
  for name in ("precision", "density"):
    key = key_of(row, name)
    real = results["real"]["metrics"].get(key)
    real = real if is_finite(real) else 1.0  # what both are near to
    if key is None or row["metrics"][key] >= LOW * real:
      continue
    numbers = f"{describe(key).label} is {short(row['metrics'][key])}, of real data {short(real)}"
    if "VAE" in str(row.get("family")):
      kind, text = "Blurry", f"{numbers}: samples are smoother than real data, or blends of them."
    else:
      kind, text = "Unlike real data", f"{numbers}: many samples could not be taken for real."
    yield Finding(kind, text, curve(row, key))
    return


def _narrow(row: Mapping, results: Mapping) -> Iterator[Finding]:
  """Diversity that never was."""
  key = deciding_metric(results, DIVERSITY)
  real = results["real"]["metrics"].get(key)
  if key is None or not is_finite(real) or describe(key).better < 0:
    return
  value = row["metrics"][key]
  if value < LOW * real:
    numbers = f"{describe(key).label} is {short(value)}, of real data {short(real)}"
    yield Finding("Narrow", f"{numbers}: kinds of them are missing.", curve(row, key))


def _warnings(row: Mapping) -> Iterator[Finding]:
  """What health said while it was trained."""
  health = row["curves"].get("health") or {}
  for text in map(str, row["warnings"]):
    kind, end = next((v for words, v in WARNINGS.items() if words in text), ("Warning", ""))
    shown = {k: v for k, v in health.items() if end and k.endswith(end) and v}
    yield Finding(kind, text, shown, is_metric=False)
