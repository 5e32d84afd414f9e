"""How near translations come to what they should be, in numbers.

One by one where the truth of each is known (PSNR, SSIM, distances by networks); as
sets, by Fréchet distances, from truths or from real images of that kind; and by
classes, where a judge knows them. What goes both ways is also sent forth and back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen import files
from jaxgen.data.arrays import Source
from jaxgen.errors import UserError
from jaxgen.evaluation import cards, learned, pair_scores, texture
from jaxgen.evaluation.features import Extractor
from jaxgen.evaluation.judge import ImageJudge
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.evaluation.translation_data import Inputs, goes_back
from jaxgen.evaluation.translations import Translations
from jaxgen.metrics import image_quality
from jaxgen.metrics.distances import frechet_rows
from jaxgen.metrics.wilson import rate_interval
from jaxgen.monitor import pictures
from jaxgen.sampling.sampler import Sampler

KIND = "jaxgen translation 1"
ROWS = 8  # images of a picture
CYCLE = "cycle_psnr"
TEXTURES = "frechet@textures"


class Look(NamedTuple):
  """A network that looks at sets of images.

  Attributes:
    name: Of its numbers.
    embed: Images uint8 [N, H, W, C] -> features [N, D].
    classifier: That knows classes; None: none.
    card: How its numbers come about.
  """

  name: str
  embed: Callable[[np.ndarray], np.ndarray]
  classifier: Extractor | None
  card: Mapping[str, Any]

  @classmethod
  def of_judge(cls, judge: ImageJudge) -> "Look":
    """The built-in judge of the data."""
    classifier = judge.extractor if judge.classifies else None
    return cls(judge.features, judge.embed, classifier, judge.card)

  @classmethod
  def of_classifier(cls, sampler: Sampler) -> "Look":
    """A classifier that was trained here."""
    look = learned.extractor_of(sampler, "judge")
    embed = lambda x: look.features([x], ("features",))["features"]
    return cls("judge", embed, look, sampler.card)


class Judges(NamedTuple):
  """Networks that look at results: at pairs of images, and at sets."""

  perceptual: Sequence[Perceptual] = ()
  look: Look | None = None

  def for_labels(self, real: Source | None) -> "Judges":
    """Themselves; without a classifier that does not know the classes of real images.

    Test images may be of classes that no training image has, as those of photos are.
    """
    if self.look is None or self.look.classifier is None:
      return self
    x, y = (None, None) if real is None else real.arrays()
    if y is not None:
      right = learned.is_right(self.look.classifier, x, y)
      if rate_interval(int(right.sum()), len(right))[0] > 2 / len(np.unique(y)):
        return self
    return self._replace(look=self.look._replace(classifier=None))

  @property
  def card(self) -> dict[str, Any]:
    """Which networks they are."""
    own = {} if self.look is None else {self.look.name: self.look.card}
    return {net.name: net.card for net in self.perceptual} | own

  def protocol(self, metrics: Sequence[str]) -> dict[str, str]:
    """How numbers come about, by their names."""
    how = pair_scores.METRICS | {
      TEXTURES: "Fréchet distance by strengths of details, see evaluation/texture.py",
      CYCLE: "dB, of sources that were translated and back again",
    }
    for net in self.perceptual:
      weights = "" if net.card.get("published", True) else "; not the published weights"
      how[net.name] = f"channels of unit length, squared difference; {net.card['network']}{weights}"
    if self.look:
      how[f"frechet@{self.look.name}"] = "Fréchet distance by the judge's features"
      how[f"accuracy@{self.look.name}"] = "share that the judge takes for the source's class"
    how = {k: v for k, v in how.items() if k in metrics}
    return how | {"intervals": "95%, of means over images by Student's t, of shares by Wilson's"}


class Numbers(NamedTuple):
  """Scores by name, and where those of images lie with 95%."""

  scores: dict[str, float]
  intervals: dict[str, tuple[float, float]]

  @classmethod
  def over(cls, scores: Mapping[str, np.ndarray]) -> "Numbers":
    """Means over images, of scores of each, [N]."""
    means = {k: float(np.mean(v)) for k, v in scores.items()}
    return cls(means, pair_scores.mean_intervals(scores))


def measure(
  x: np.ndarray,
  inputs: Inputs,
  judges: Judges,
  more: Mapping[str, np.ndarray] | None = None,
  real: Mapping[str, np.ndarray] | None = None,
) -> Numbers:
  """All scores of results.

  Args:
    x: uint8 [N, H, W, C].
    inputs: Of which they were made.
    judges: What looks at them.
    more: Scores of each image that are known already, {name: [N]}.
    real: `features` of `inputs.real`, where they are known already.
  """
  scores = dict(more or {})
  if inputs.truth is not None:
    scores |= pair_scores.by_image(x, inputs.truth, judges.perceptual)
  means, intervals = Numbers.over(scores)
  if inputs.real is not None and min(len(x), len(inputs.real)) > 1:
    real = features(inputs.real.arrays()[0], judges) if real is None else real
    means |= {k: frechet_rows(f, real[k]) for k, f in features(x, judges).items()}
  if judges.look and judges.look.classifier and inputs.labels is not None:
    name = f"accuracy@{judges.look.name}"
    right = learned.is_right(judges.look.classifier, x, inputs.labels)
    means[name] = float(np.mean(right))
    intervals[name] = rate_interval(int(right.sum()), len(right))
  return Numbers(means, intervals)


def features(x: np.ndarray, judges: Judges) -> dict[str, np.ndarray]:
  """What Fréchet distances compare of images uint8 [N, H, W, C], [N, D] by their names."""
  own = {}
  if min(x.shape[1:3]) >= texture.LEAST:
    own[TEXTURES] = texture.strengths(x)
  if judges.look:
    own[f"frechet@{judges.look.name}"] = judges.look.embed(x)
  return own


def fitting(networks: Sequence[Perceptual], shape: Sequence[int], chosen: bool) -> list[Perceptual]:
  """Networks that can look at images [H, W, C].

  Raises:
    UserError: One cannot that was `chosen`, not the environment's.
  """
  wrong = {net.name: net.fit(tuple(shape)) for net in networks}
  for name, why in wrong.items():
    if why and chosen:
      raise UserError(f"{name} {why}")
  return [net for net in networks if not wrong[net.name]]


def like(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """Images with as many channels as others: grey is repeated."""
  return np.repeat(x, 3, -1) if x.shape[-1] < shape[-1] else x


def cycle(results: Translations) -> dict[str, np.ndarray]:
  """PSNR [N] of sources that went forth and back; {} of what goes one way."""
  if not goes_back(results.sampler.model):
    return {}
  return {CYCLE: pair_scores.in_parts(image_quality.psnr, results.back().x, results.inputs.source)}


def by_pairs(results: Translations) -> Numbers:
  """What no judge is needed for: nearness to truths, and to oneself after a cycle."""
  truth = results.inputs.truth
  own = {} if truth is None else pair_scores.by_image(results.x, truth)
  return Numbers.over(own | cycle(results))


def card_of(inputs: Inputs, results: Mapping[str, Translations], judges: Judges) -> dict[str, Any]:
  """Scores of every model, and of the sources as they are, with how they were made."""
  shape = next(iter(results.values())).sampler.shape
  judges, numbers = judges.for_labels(inputs.real), {}
  real = None if inputs.real is None else features(inputs.real.arrays()[0], judges)
  if inputs.real is not None and inputs.source.shape[-1] <= shape[-1]:
    numbers["source"] = measure(like(inputs.source, shape), inputs, judges, real=real)
  for name, own in results.items():
    numbers[name] = measure(own.x, inputs, judges, cycle(own), real)
  metrics = list(dict.fromkeys(m for own in numbers.values() for m in own.scores))
  return files.plain(
    {
      "kind": KIND,
      "images": len(inputs.names),
      "data": {
        "fingerprint": inputs.fingerprint,
        "compared with": "their truths" if inputs.others is None else "real images of that kind",
      },
      "protocol": judges.protocol(metrics),
      "judges": judges.card,
      "scores": {k: own.scores for k, own in numbers.items()},
      "intervals": {k: own.intervals for k, own in numbers.items()},
      "versions": cards.versions(),
      "made": {name: own.card for name, own in results.items()},
    }
  )


def columns(card: Mapping[str, Any]) -> dict[str, Numbers]:
  """Scores by column: seeds of one config share one, of their mean and range."""
  own = {k: Numbers(s, card["intervals"][k]) for k, s in card["scores"].items()}
  for title, names in card.get("seeds", {}).items():
    seeds = [own.pop(name).scores for name in names]
    values = {m: [float(s[m]) for s in seeds] for m in seeds[0]}
    own[title] = Numbers(
      {m: float(np.mean(v)) for m, v in values.items()},
      {m: (min(v), max(v)) for m, v in values.items()},
    )
  return own


def metrics_of(card: Mapping[str, Any]) -> list[str]:
  """Names of all scores of a card."""
  return list(dict.fromkeys(m for own in card["scores"].values() for m in own))


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text; "" where there are none."""
  if not (metrics := metrics_of(card)):
    return ""

  def cell(own: Numbers, metric: str) -> str:
    if metric not in own.scores:
      return "-"
    low, high = own.intervals.get(metric, (None, None))
    between = "" if low is None else f" ({float(low):.4g} to {float(high):.4g})"
    return f"{float(own.scores[metric]):.4g}{between}"

  by_column = columns(card)
  rows = [["", *by_column], *([m, *(cell(own, m) for own in by_column.values())] for m in metrics)]
  return cards.columns(rows) + f"\n{card['images']:,} images; in brackets: {brackets(card)}"


def brackets(card: Mapping[str, Any]) -> str:
  """What stands in brackets behind numbers."""
  return "95%" + "; of several seeds, mean and range" * bool(card.get("seeds"))


def doubts(judges: Judges) -> Iterator[str]:
  """What a reader of the numbers should know."""
  for net in judges.perceptual:
    if not net.card.get("published", True):
      yield f"the weights of {net.name} are not those that were published"


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
