"""Judges of small data: how near samples come to real ones.

Small images are judged in the features of a classifier that is trained on the
real training split (the ImageNet features of FID mean nothing there), by the
protocol `classifier`; the name of every number says so: frechet@digits-cnn.
Points and stacked digits are judged by their modes, which are known: see
modes_judge.py. Upsamplers are judged by pairs: see restoration.py.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.data.arrays import Source
from jaxgen.data.sources import channels_of, open_split
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError
from jaxgen.evaluation import features as networks
from jaxgen.evaluation.collect import Collected
from jaxgen.evaluation.images import weights_hash
from jaxgen.evaluation.modes_judge import PointsJudge, StackedJudge, check_look, has_known_modes
from jaxgen.evaluation.protocols import CLASSIFIER
from jaxgen.evaluation.scores import Comparison, score
from jaxgen.metrics.distances import moments
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, load

Scores = dict[str, list[float]]  # by name, one for every set of samples
MOST = 256  # images at a time


def means(scores: Scores) -> dict[str, float]:
  """Over the sets of samples."""
  return {k: float(np.mean(v)) for k, v in scores.items()}


def spreads(scores: Scores) -> dict[str, float]:
  """Standard deviations over the sets, where there are several."""
  return {k: float(np.std(v)) for k, v in scores.items() if len(v) > 1}


def table(scores: Scores, floor: Scores) -> str:
  """Scores beside those of real test data, as text."""

  def cell(values):
    if values is None:
      return "-"
    spread = f" ± {np.std(values):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{spread}"

  rows = [("", "samples", "real test data")]
  rows += [(k, cell(scores.get(k)), cell(floor.get(k))) for k in floor | scores]
  return "\n".join(f"{a:28}{b:>20}{c:>20}" for a, b, c in rows)


class Judge(Protocol):
  """Knows the real data, and says how near samples come."""

  features: str  # what it looks at
  count: int  # samples that it likes to see
  card: dict[str, Any]  # how its numbers come about
  floor_name: str = "real test data"

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """Samples [N, ...], their labels [N] -> numbers by name."""

  def floor(self) -> Scores:
    """What nothing beats but by luck or copying."""


def report(
  judge: Judge, x: np.ndarray, y: np.ndarray | None, origin: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
  """The scores of samples beside the floor: as text, and as a card.

  Args:
    judge: Of the data that they imitate.
    x: Samples [N, ...].
    y: Their labels [N], if they have some.
    origin: How they were made.
  """
  scores, floor = judge.scores(x, y), judge.floor()
  return table(scores, floor), {
    "made": origin,
    "judge": judge.card,
    "scores": means(scores),
    "spread": spreads(scores),
    "floor": means(floor),
  }


def open_judge(data: ConfigDict, folder: str | None = None) -> Judge:
  """The judge for a config's data, trained first if it has to be.

  Raises:
    UserError: images without labels: there is no classifier to train.
  """
  if data.source.startswith("points:"):
    return PointsJudge(data.source)
  size = data.get("size") or None
  if data.source == "stacked_digits":
    one = open_judge(ConfigDict(dict(source="digits", split="train", size=size or 0)), folder)
    return StackedJudge(
      open_split(data, "test"), lambda x: logits(one.extractor, x), one.classifier.card
    )
  real = open_split(data)
  if not real.classes:
    raise UserError(f"{real.name} has no labels, and the built-in judge is a classifier")
  test = open_split(data, "test")
  introduce(real, data.split)
  introduce(test, "test")
  home = pathlib.Path(folder) if folder else cache(real, size)
  train.train(judge_config(data, real.classes), home, quiet=True, wait=True)
  return ClassifierJudge(data, real, test, home, load(home, samples=False))


def check_samples(
  data: ConfigDict, shape: tuple[int | None, ...], dtype: np.dtype, y: np.ndarray | None = None
) -> None:
  """UserError unless a config's judge can judge such samples.

  Said before the judge is trained, and before samples are drawn.

  Args:
    data: Of a config.
    shape: [N, H, W, C] of samples; C may be None: as it has to be.
    dtype: Of samples.
    y: Their labels, if they have some.
  """
  real = open_split(data)
  if len(shape) == 4 and shape[-1] is None:
    shape = (*shape[:-1], real.shape[-1])
  if has_known_modes(data.source):
    return check_look(real, shape, dtype)
  check_like(real, shape, dtype)
  if real.classes and y is not None and int(np.max(y)) + 1 != real.classes:
    raise UserError(
      f"labels of samples go up to {int(np.max(y))}, but {real.name} has {real.classes} classes"
    )


def check_like(real: Source, shape: tuple[int, ...], dtype: np.dtype) -> None:
  """UserError unless samples [N, ...] are many, and look like the data."""
  check_look(real, shape, dtype)
  if shape[0] < 32:
    raise UserError(f"{shape[0]} samples are too few to judge: draw 32 or more")


def cache(real: Source, size: int | None = None) -> pathlib.Path:
  """Where the judge of a dataset lies when nobody says.

  `size` is the config's: a judge belongs to its config.
  """
  return (
    files.cache() / "judges" / f"{real.name.replace('/', '_').replace(':', '-')}"
    f"{f'-{size}' if size else ''}-{real.fingerprint}"
  )


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierJudge:
  """Looks at images through a classifier of the real training split."""

  data: ConfigDict
  real: Source
  test: Source
  home: pathlib.Path
  classifier: Sampler

  floor_name = "real test data"

  @property
  def features(self) -> str:
    """In the name of every number."""
    return f"{self.real.name.rpartition('/')[2].replace(':', '-')}-cnn"

  @property
  def count(self) -> int:
    """As many as there are to train on."""
    return len(self.real)

  @property
  def card(self) -> dict[str, Any]:
    return {
      "features": self.features,
      "classifier": self.classifier.card,
      "reference": f"{len(self.real)} real training images of "
      f"{self.real.name} ({self.real.fingerprint})",
      "protocol": f"means over sets of {len(self.test)} samples, as many as "
      "there are real test images, classes alike; precision and "
      "recall with k=3, density and coverage with k=5; "
      "classification accuracy score: trained on all samples, "
      "tested on real",
    }

  @functools.cached_property
  def extractor(self) -> networks.Extractor:
    """The classifier, as one that looks at images."""
    return extractor_of(self.classifier, self.features)

  def embed(self, x: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] -> features [N, D]."""
    return self.extractor.features([x], ("features",))["features"]

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """See Judge. Fréchet and the like on sets as large as the test split."""
    check_like(self.real, x.shape, x.dtype)
    f, n = self.embed(x), min(len(self.test), len(x))
    # Every number depends on how many samples it is made from, so that they
    # are taken in sets of the size that the floor is made from. And on the
    # share of every class, which is even in the real test split: in sets too.
    order = np.random.default_rng(0).permutation(len(f))
    if y is not None:
      order = order[np.argsort(y[order], kind="stable")]
    k = len(f) // n
    sets = [self.distances(f[order[i::k][:n]]) for i in range(k)]
    result = {name: [s[name] for s in sets] for name in sets[0]}
    if cas and y is not None:
      result[f"cas@{self.features}"] = [self.cas(x, y)]
    return result

  def distances(self, f: np.ndarray) -> dict[str, float]:
    """Features [N, D] of samples against those of the real training split."""
    compared = Comparison(collected(f), self.reference, ("features",), CLASSIFIER)
    values, _ = score(compared, CLASSIFIER.metrics, self.features, strict=True)
    return {name: value for name, (value, _) in values.items()}

  @functools.cached_property
  def reference(self) -> Collected:
    """Features of the real training split."""
    return collected(self.embed(self.real.arrays()[0]))

  def floor(self) -> Scores:
    """Real test data; for the accuracy score, a classifier of real data."""
    return self.scores(*self.test.arrays(), cas=False) | {
      f"cas@{self.features}": [float(np.mean(is_right(self.extractor, self.test)))]
    }

  def cas(self, x: np.ndarray, y: np.ndarray) -> float:
    """Classification accuracy score (Ravuri & Vinyals 2019): in [0, 1].

    The judge's own config, trained on samples, tested on real test images.
    """
    return float(np.mean(is_right(self.learner(x, y), self.test)))

  def cas_by_class(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The same for each class of the test images, by its name."""
    right, truth = is_right(self.learner(x, y), self.test), self.test.arrays()[1]
    names = self.real.class_names or range(self.real.classes)
    return {
      str(name): float(right[truth == i].mean())
      for i, name in enumerate(names)
      if (truth == i).any()
    }

  def learner(self, x: np.ndarray, y: np.ndarray) -> networks.Extractor:
    """The judge's own config, trained on samples, if it is not yet."""
    digest = output.digest_of(x, y)
    file = self.home / "cas" / f"{digest}.npz"
    output.write(str(file), x, y, {})
    settings = judge_config(self.data, self.real.classes)
    with settings.unlocked():
      settings.data.source, settings.data.split = f"npz:{file}", "train"
    train.train(settings, self.home / "cas" / digest, quiet=True)
    return extractor_of(load(self.home / "cas" / digest, samples=False), "cas")


def judge_config(data: ConfigDict, classes: int) -> ConfigDict:
  """configs/judge.py for other data."""
  c = config.load("configs/judge.py")
  with c.unlocked():
    c.data.update(
      source=data.source,
      split=data.split,
      classes=classes,
      size=data.get("size", 0),
      channels=channels_of(data),
    )
    c.model.net.classes = classes
    c.checkpoint.every = c.steps
  return c


def extractor_of(classifier: Sampler, name: str) -> networks.Extractor:
  """A classifier, as one that looks at images uint8 [N, H, W, C]."""
  model, state, sha256 = classifier.model, classifier.state, weights_hash(classifier.state)
  return networks.classifier(model, state, name, sha256, MOST, classifier.shape)


def collected(f: np.ndarray) -> Collected:
  """Features [N, D], as metrics compare them."""
  return Collected(len(f), {"features": moments(f)}, {"features": f}, np.zeros(3))


def logits(extractor: networks.Extractor, x: np.ndarray) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> [N, classes]."""
  return extractor.features([x], ("logits",))["logits"]


def is_right(extractor: networks.Extractor, test: Source) -> np.ndarray:
  """Whether a classifier says the label of each of a source's images, [N]."""
  x, y = test.arrays()
  return logits(extractor, x).argmax(-1) == y
