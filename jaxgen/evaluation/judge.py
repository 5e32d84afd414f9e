"""Judges of small data: how near samples come to real ones.

Small images are judged in the features of a classifier that is trained on the
real training split (the ImageNet features of FID mean nothing there), and the
name of every number says so: frechet@digits-cnn. Points and stacked digits are
judged by their modes, which are known: see modes_judge.py.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.data.arrays import Source
from jaxgen.data.sources import channels_of, open_split
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError
from jaxgen.evaluation.modes_judge import PointsJudge, StackedJudge
from jaxgen.metrics.distances import frechet, moments
from jaxgen.metrics.prdc import prdc
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, load

Scores = dict[str, list[float]]  # by name, one for every set of samples


def means(scores: Scores) -> dict[str, float]:
  """Over the sets of samples."""
  return {k: float(np.mean(v)) for k, v in scores.items()}


def spreads(scores: Scores) -> dict[str, float]:
  """Standard deviations over the sets, where there are several."""
  return {k: float(np.std(v)) for k, v in scores.items() if len(v) > 1}


def table(scores: Scores, floor: Scores) -> str:
  """Scores beside those of real test data, as text."""

  def say(s, k):
    if k not in s:
      return "-"
    give = f" ± {np.std(s[k]):.2g}" if len(s[k]) > 1 else ""
    return f"{np.mean(s[k]):.4g}{give}"

  rows = [("", "samples", "real test data")]
  rows += [(k, say(scores, k), say(floor, k)) for k in floor | scores]
  return "\n".join(f"{a:28}{b:>20}{c:>20}" for a, b, c in rows)


class Judge(Protocol):
  """Knows the real data, and says how near samples come."""

  features: str  # what it looks at
  count: int  # samples that it likes to see
  card: dict[str, Any]  # how its numbers come about

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """Samples [N, ...], their labels [N] -> numbers by name."""

  def floor(self) -> Scores:
    """The same for real test data."""


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
      open_split(data, "test"), lambda x: in_batches(one.classifier, x)[1], one.classifier.card
    )
  real = open_split(data)
  if not real.classes:
    raise UserError(f"{real.name} has no labels, and the built-in judge is a classifier")
  test = open_split(data, "test")
  introduce(real, data.split)
  introduce(test, "test")
  home = pathlib.Path(folder) if folder else cache(real, size)
  return ClassifierJudge.of(data, real, test, home)


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
  if data.source.startswith("points:") or data.source == "stacked_digits":
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


def check_look(real: Source, shape: tuple[int, ...], dtype: np.dtype) -> None:
  """UserError unless samples [N, ...] look like the data."""
  if tuple(shape[1:]) != tuple(real.shape) or dtype != real.dtype:
    raise UserError(
      f"samples are {np.dtype(dtype)} {list(shape[1:])}, but {real.name} is "
      f"{real.dtype} {list(real.shape)}"
    )


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

  @classmethod
  def of(
    cls, data: ConfigDict, real: Source, test: Source, home: pathlib.Path
  ) -> "ClassifierJudge":
    """Trains the classifier, or takes it from where it lies."""
    train.train(judge_config(data, real.classes), home, quiet=True, wait=True)
    return cls(data, real, test, home, load(home, samples=False))

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
    """How the numbers come about."""
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

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """See Judge. Fréchet and the like on sets as large as the test split."""
    self.check(x)
    f, n = embed(self.classifier, x), min(len(self.test), len(x))
    # Every number depends on how many samples it is made from, so that they
    # are taken in sets of the size that the floor is made from. And on the
    # share of every class, which is even in the real test split: in sets too.
    order = np.random.default_rng(0).permutation(len(f))
    if y is not None:
      order = order[np.argsort(y[order], kind="stable")]
    k = len(f) // n
    sets = [self.near(f[order[i::k][:n]]) for i in range(k)]
    result = {f"{k}@{self.features}": [s[k] for s in sets] for k in sets[0]}
    if cas and y is not None:
      result[f"cas@{self.features}"] = [self.cas(x, y)]
    return result

  def check(self, x: np.ndarray) -> None:
    """UserError unless samples look like the data."""
    check_like(self.real, x.shape, x.dtype)

  def near(self, f: np.ndarray) -> dict[str, float]:
    """Features [N, D] of samples against those of the real training split."""
    a, b = moments(f), self.gaussian
    return {"frechet": frechet(a.mu, a.sigma, b.mu, b.sigma), **prdc(f, self.embedded)._asdict()}

  @functools.cached_property
  def embedded(self) -> np.ndarray:
    """Features of the real training split, [N, D]."""
    return embed(self.classifier, self.real.arrays()[0])

  @functools.cached_property
  def gaussian(self):
    """Their mean and covariance."""
    return moments(self.embedded)

  def floor(self) -> Scores:
    """Real test data; for the accuracy score, a classifier of real data."""
    return self.scores(*self.test.arrays(), cas=False) | {
      f"cas@{self.features}": [accuracy(self.classifier, self.test)]
    }

  def cas(self, x: np.ndarray, y: np.ndarray) -> float:
    """Classification accuracy score (Ravuri & Vinyals 2019): in [0, 1].

    The judge's own config, trained on samples, tested on real test images.
    """
    return accuracy(self.learner(x, y), self.test)

  def cas_by_class(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The same for each class of the test images, by its name."""
    images, truth = self.test.arrays()
    right = in_batches(self.learner(x, y), images)[1].argmax(-1) == truth
    names = self.real.class_names or range(self.real.classes)
    return {
      str(name): float(right[truth == i].mean())
      for i, name in enumerate(names)
      if (truth == i).any()
    }

  def learner(self, x: np.ndarray, y: np.ndarray) -> Sampler:
    """The judge's own config, trained on samples, if it is not yet."""
    digest = output.digest_of(x, y)
    file = self.home / "cas" / f"{digest}.npz"
    output.write(str(file), x, y, {})
    settings = judge_config(self.data, self.real.classes)
    with settings.unlocked():
      settings.data.source, settings.data.split = f"npz:{file}", "train"
    train.train(settings, self.home / "cas" / digest, quiet=True)
    return load(self.home / "cas" / digest, samples=False)


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


@functools.partial(jax.jit, static_argnums=0)
def _embed(model, state, x):
  x = jax.numpy.asarray(x, np.float32) / 127.5 - 1
  with jax.default_matmul_precision("highest"):
    return model.embed(state, {"x": x}), model.logits(state, {"x": x})


def in_batches(classifier: Sampler, x: np.ndarray, batch: int = 256):
  """Features [N, D] and logits [N, classes], from one compiled program."""
  parts = []
  for i in range(0, len(x), batch):
    part = x[i : i + batch]
    full = np.concatenate([part, np.zeros_like(x[:1]).repeat(batch - len(part), 0)])
    out = jax.device_get(_embed(classifier.model, classifier.state, full))
    parts.append([a[: len(part)] for a in out])
  return [np.concatenate(a) for a in zip(*parts, strict=True)]


def embed(classifier: Sampler, x: np.ndarray) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> features [N, D]."""
  return in_batches(classifier, x)[0]


def accuracy(classifier: Sampler, test: Source) -> float:
  """Share of a labelled source that a classifier gets right, in [0, 1]."""
  x, y = test.arrays()
  return float(np.mean(in_batches(classifier, x)[1].argmax(-1) == y))
