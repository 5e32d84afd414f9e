"""Judges of small data: how near samples come to real ones.

Images are judged in the features of a network that learned from the real
training split (see learned.py), or of a published one, by the protocol
`classifier`; the name of every number says so: frechet@digits-cnn. To what a
network learned of images that are no icons textures are added, see texture.py:
frechet@photos-cnn+haar.
Clips are judged as images of their mel spectrograms, and also as their classifier
recognises them: see recognition.py.
Points and stacked digits are judged by their modes, which are known: see
modes_judge.py. Upsamplers are judged by pairs: see restoration.py.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.core import trait
from jaxgen.data.arrays import Source
from jaxgen.data.mel_images import mel_images, open_mel_images
from jaxgen.data.points import is_points
from jaxgen.data.sources import images_of, open_split
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError
from jaxgen.evaluation.collect import Collected
from jaxgen.evaluation.features import Extractor
from jaxgen.evaluation.gaussian import gaussian_images
from jaxgen.evaluation.learned import (
  LARGEST,
  Network,
  classifier_of,
  is_right,
  learn,
  logits,
  open_published,
  short_name,
)
from jaxgen.evaluation.modes_judge import PointsJudge, StackedJudge, check_look, has_known_modes
from jaxgen.evaluation.protocols import CLASSIFIER, Protocol
from jaxgen.evaluation.recognition import Recognition, legend
from jaxgen.evaluation.scores import Comparison, score
from jaxgen.evaluation.texture import LEAST, Texture
from jaxgen.metrics.copies import CopyShare, Nearness, copy_share, nearness
from jaxgen.metrics.distances import moments
from jaxgen.metrics.ndb import Bins
from jaxgen.metrics.student import mean_interval
from jaxgen.metrics.wilson import rate_interval

Scores = dict[str, list[float]]  # by name, one for every set of samples
LEARNED = ("cnn", "exemplar")  # kinds of networks
FEWEST = 32  # samples to be judged
FEWEST_REAL, FEWEST_TEST = 3, 2  # images, for there to be any covariance
LARGEST_SET, LARGEST_REFERENCE = 2_000, 10_000  # images, where sets are counted
SAMPLES_PER_DIMENSION = 4  # at least, for covariances that are more than noise


def means(scores: Scores) -> dict[str, float]:
  """Over the sets of samples."""
  return {k: float(np.mean(v)) for k, v in scores.items()}


def spreads(scores: Scores) -> dict[str, float]:
  """Standard deviations over the sets, where there are several."""
  return {k: float(np.std(v)) for k, v in scores.items() if len(v) > 1}


def intervals(scores: Scores, level: float = 0.95) -> dict[str, tuple[float, float]]:
  """Where means over sets (or seeds) lie, by Student's t; of several alone.

  Of Fréchet distances, whose spread grows with them, that is in their logarithm.
  """

  def of(name: str, v: list[float]) -> tuple[float, float]:
    if name.startswith("frechet") and min(v) > 0:
      low, high = mean_interval(list(np.log(v)), level)
      return float(np.exp(low)), float(np.exp(high))
    return mean_interval(v, level)

  return {k: of(k, v) for k, v in scores.items() if len(v) > 1}


def rate_intervals(scores: Scores, size: int) -> dict[str, tuple[float, float]]:
  """Where accuracies lie by Wilson's rule, of sets of so many labelled samples."""
  return {
    k: rate_interval(round(sum(v) * size), len(v) * size)
    for k, v in scores.items()
    if k.startswith("accuracy@")
  }


def table(
  scores: Scores, floor: Scores, ends: Mapping[str, tuple[float, float]] | None = None
) -> str:
  """Scores beside those of real test data, as text; `ends` are their intervals."""

  def cell(values):
    if values is None:
      return "-"
    spread = f" ± {np.std(values):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{spread}"

  def interval(name):
    return "{:.4g} .. {:.4g}".format(*ends[name]) if name in ends else "-"

  ends = ends or {}
  rows = [("", "samples", "real test data", "95% interval" if ends else "")]
  rows += [
    (k, cell(scores.get(k)), cell(floor.get(k)), interval(k) if ends else "")
    for k in floor | scores
  ]
  wide = max(28, 2 + max(len(row[0]) for row in rows))
  return "\n".join(f"{a:{wide}}{b:>20}{c:>20}{d:>24}".rstrip() for a, b, c, d in rows)


class Judge(typing.Protocol):
  """Knows the real data, and says how near samples come."""

  features: str  # what it looks at
  count: int  # samples that it likes to see
  card: dict[str, Any]  # how its numbers come about
  floor_name: str = "real test data"

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """Samples [N, ...], their labels [N] -> numbers by name."""

  def floor(self) -> Scores:
    """What nothing beats but by luck or copying."""

  def copies(self, x: np.ndarray) -> CopyShare | None:
    """Copies of training images among samples, where there are such images."""


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
  ends, floor_ends, notes = intervals(scores), {}, ""
  if isinstance(judge, ImageJudge) and judge.recognises:
    share = judge.copies(x)
    scores[f"copies@{judge.features}"] = [share.share]
    floor[f"copies@{judge.features}"] = [share.floor]
    ends |= rate_intervals(scores, min(len(x), judge.size))
    floor_ends = rate_intervals(floor, judge.size)
    notes = "\n\n" + judge.legend(list(floor | scores))
    if len(x) < judge.size:
      notes += (
        f"\n{len(x)} samples are fewer than the {judge.size} of the real test data: by that alone "
        "the Fréchet distance is higher, and NDB/K lower"
      )
    if len(x) < 2 * judge.size:
      notes += f"\nother intervals take several sets of {judge.size} samples: a larger --num"
  return table(scores, floor, ends) + notes, {
    "made": origin,
    "judge": judge.card,
    "scores": means(scores),
    "spread": spreads(scores),
    "intervals": ends,
    "floor": means(floor),
    "floor_intervals": floor_ends,
  }


def open_judge(
  data: ConfigDict,
  folder: str | None = None,
  features: str | None = None,
  sets: int | None = None,
  most: int = LARGEST_SET,
) -> Judge:
  """The judge for a config's data; what it looks through is trained first.

  Args:
    data: Of a config.
    folder: Where that lies, by default in the user's cache.
    features: "inception" or "dinov2", whose weights must be at hand; by default
      those of a network that learns from the training split, see learned.py.
    sets: Of how many sets of samples numbers are made. Of images each is as large
      as the test split or `most`, and compared with LARGEST_REFERENCE training
      images at the most: what many rounds can afford. By default sets are as
      large as the test split, the reference is all training images, and there
      are as many samples.
    most: Images of a set, where sets are counted.

  Raises:
    UserError: There are too few images, or no weights.
  """
  data = ConfigDict(dict(images_of(data)))
  if is_points(data.source):
    return PointsJudge(data.source, sets or 1)
  if data.source == "stacked_digits":
    size = data.get("size") or 0
    one = open_judge(ConfigDict(dict(source="digits", split="train", size=size)), folder)
    return StackedJudge(
      open_split(data, "test"), lambda x: logits(one.extractor, x), one.network.card
    )
  real, test, hear, noun = open_split(data), open_split(data, "test"), None, "images"
  if rate := trait(real, "rate"):
    noun = "clips"
    introduce(real, data.split)
    introduce(test, "test")
    data.source, hear = f"mel:{data.source}", functools.partial(mel_images, rate=rate)
    real, test = open_mel_images(real), open_mel_images(test)
  if len(real) < FEWEST_REAL or len(test) < FEWEST_TEST:
    raise UserError(
      f"{real.name} has {len(real)} {noun} to train on and {len(test)} held out: "
      f"a judge takes {FEWEST_REAL} and {FEWEST_TEST}"
    )
  if not hear:
    introduce(real, data.split)
    introduce(test, "test")
  network = open_published(features, real, folder) if features else learn(data, real, folder)
  return ImageJudge(data, real, test, network, sets, most, hear, bool(hear))


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
  if shape[0] < FEWEST:
    raise UserError(f"{shape[0]} samples are too few to judge: draw {FEWEST} or more")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageJudge:
  """Looks at images through a network, and compares them with real ones.

  Attributes:
    data: Of a config.
    real: Its training split.
    test: Its test split.
    network: What it looks through.
    sets: Of samples; None: as many as there are to train on make.
    most: Images of a set, where sets are counted.
    hear: Samples -> images, of clips.
    recognises: Whether it also says how its network takes samples.
  """

  data: ConfigDict
  real: Source
  test: Source
  network: Network
  sets: int | None = None
  most: int = LARGEST_SET
  hear: Callable[[np.ndarray], np.ndarray] | None = None
  recognises: bool = False

  floor_name = "real test data"

  @property
  def features(self) -> str:
    """In the name of every number."""
    return f"{short_name(self.real)}-{self.network.kind}" + "+haar" * self.sees_texture

  @property
  def sees_texture(self) -> bool:
    """Whether it looks at textures, too: learned labels need not tell noise from images."""
    return not self.hear and self.network.kind in LEARNED and min(self.real.shape[:2]) >= LEAST

  @property
  def noun(self) -> str:
    """What is judged."""
    return "clips" if self.hear else "images"

  @property
  def extractor(self) -> Extractor:
    """What looks at images."""
    return self.network.extractor

  @property
  def classifies(self) -> bool:
    """Whether it learned labels, so that there is an accuracy score."""
    return self.network.kind == "cnn"

  @property
  def size(self) -> int:
    """Of a set of samples, and of the real ones that make the floor."""
    return len(self.test) if self.sets is None else min(len(self.test), self.most)

  @property
  def count(self) -> int:
    """As many as make the sets; by default as many as there are to train on."""
    return max(len(self.real) if self.sets is None else self.sets * self.size, FEWEST)

  def labels(self, n: int) -> np.ndarray | None:
    """Labels for n samples, int32 [n], each as often as in the training split."""
    y = self.real.arrays()[1]
    if y is None:
      return None
    shares = np.sort(y)[np.arange(n) * len(y) // n]
    return np.random.default_rng(0).permutation(shares).astype(np.int32)

  @property
  def card(self) -> dict[str, Any]:
    return {
      "features": self.features,
      "network": looks(self.network, self.real.shape, self.noun)
      + (
        "; and strengths of Haar wavelets, of a quarter of its variance"
        if self.sees_texture
        else ""
      ),
      "classifier" if self.network.kind in LEARNED else "weights": self.network.card,
      "reference": f"{len(self.rows)} real training {self.noun} of "
      f"{self.real.name} ({self.real.fingerprint})",
      "protocol": f"means over sets of {self.size} samples, as many as "
      f"the real test {self.noun} that make the floor, classes alike; precision and "
      f"recall with k={self.protocol.k}, density and coverage with k={self.protocol.k_ball}"
      + self.shrinking
      + (
        "; classification accuracy score: trained on all samples, tested on real"
        if self.classifies
        else ""
      )
      + (
        f"; {len(self.recognition.bins.counts)} bins of K-means of training features"
        if self.recognises
        else ""
      ),
    }

  def legend(self, names: list[str]) -> str:
    """What its numbers are, a line each."""
    what = looks(self.network, self.real.shape, self.noun)
    return legend(names, self.noun, len(self.recognition.bins.counts), what)

  @property
  def shrinking(self) -> str:
    """How features are shrunk for so few images, if they are."""
    if self.directions is None:
      return ""
    width, leading = self.directions.shape
    return (
      f"; for so few {self.noun} the Fréchet distance is of the {leading} leading principal "
      f"components of the {width} features"
    )

  @functools.cached_property
  def protocol(self) -> Protocol:
    """CLASSIFIER, with fewer neighbours where there are fewer images."""
    most = min(self.size, len(self.rows)) - 1
    return dataclasses.replace(
      CLASSIFIER, k=min(CLASSIFIER.k, most), k_ball=min(CLASSIFIER.k_ball, len(self.rows) - 1)
    )

  @functools.cached_property
  def rows(self) -> np.ndarray:
    """The training images that samples are compared with, by number."""
    n = len(self.real)
    if self.sets is None or n <= LARGEST_REFERENCE:
      return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:LARGEST_REFERENCE])

  @property
  def images(self) -> np.ndarray:
    """These training images, uint8 [M, H, W, C]."""
    x = self.real.arrays()[0]
    return x if len(self.rows) == len(x) else x[self.rows]

  @functools.cached_property
  def learned_features(self) -> np.ndarray:
    """Of these training images, by the network alone, [M, F]."""
    return self.network.embed(self.images)

  @functools.cached_property
  def texture(self) -> Texture | None:
    """What sees textures, if anything does."""
    return Texture.of(self.images, self.learned_features) if self.sees_texture else None

  @functools.cached_property
  def real_features(self) -> np.ndarray:
    """Of these training images, [M, D]."""
    return self.with_texture(self.learned_features, self.images)

  @functools.cached_property
  def held(self) -> tuple[np.ndarray, np.ndarray | None]:
    """As many real test images as are in a set, and their labels."""
    x, y = self.test.arrays()
    if self.size == len(x):
      return x, y
    i = np.sort(sets_of(len(x), self.size, y)[0])
    return x[i], None if y is None else y[i]

  @functools.cached_property
  def directions(self) -> np.ndarray | None:
    """Of features, those that a set is large enough for: [D, d], or None: all."""
    width = self.real_features.shape[1]
    most = min(max(self.size // SAMPLES_PER_DIMENSION, 2), len(self.rows) - 1)
    return None if most >= width else leading(self.real_features, most)

  @functools.cached_property
  def reference(self) -> Collected:
    """Features of the real training split."""
    return collected(self.real_features, self.directions)

  def embed(self, x: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] -> features [N, D]."""
    return self.with_texture(self.network.embed(x), x)

  def with_texture(self, f: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The network's features [N, F] of images -> [N, D], with textures if it sees them."""
    return f if self.texture is None else np.concatenate([f, self.texture(x)], 1)

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> Scores:
    """See Judge. Fréchet and the like on sets as large as the test split."""
    x = self.hear(x) if self.hear else x
    check_like(self.real, x.shape, x.dtype)
    result = self.numbers(x, y)
    if cas and y is not None and self.classifies:
      result[f"cas@{self.features}"] = [self.cas(x, y)]
    return result

  def measure(self, f: np.ndarray, y: np.ndarray | None) -> Scores:
    """Features [N, D] of samples, and their labels -> numbers of each set.

    Every number depends on how many samples it is made from, so that they are
    taken in sets of the size that the floor is made from.
    """
    each = [self.distances(f[i]) for i in sets_of(len(f), min(self.size, len(f)), y)]
    return {name: [one[name] for one in each] for name in each[0]}

  def numbers(self, x: np.ndarray, y: np.ndarray | None) -> Scores:
    """Images and their labels -> numbers of each set, recognition among them."""
    f = self.embed(x)
    scores = self.measure(f, y)
    if not self.recognises:
      return scores
    z = logits(self.extractor, x) if self.classifies else None
    part = lambda a, i: None if a is None else a[i]
    each = [
      self.recognition(f[i], part(z, i), part(y, i))
      for i in sets_of(len(f), min(self.size, len(f)), y)
    ]
    return scores | {f"{k}@{self.features}": [one[k] for one in each] for k in each[0]}

  @functools.cached_property
  def recognition(self) -> Recognition:
    """What recognises samples; of the real training split."""
    z = logits(self.extractor, self.images) if self.classifies else None
    return Recognition(Bins.of(self.real_features), z)

  def distances(self, f: np.ndarray) -> dict[str, float]:
    """Features [N, D] of samples against those of the real training split."""
    own, how = collected(f, self.directions), self.protocol
    compared = Comparison(own, self.reference, ("features",), how)
    values, _ = score(compared, how.metrics, self.features, strict=True)
    return {name: value for name, (value, _) in values.items()}

  def floor(self) -> Scores:
    """Real test data; for the accuracy score, a classifier of real data."""
    x, y = self.held
    scores = self.numbers(x, y)
    if self.classifies:
      right = is_right(self.extractor, *self.test.arrays())
      scores[f"cas@{self.features}"] = [float(np.mean(right))]
    return scores

  def baseline(self) -> Scores:
    """A Gaussian of pixels: who is no better has learned next to nothing."""
    return self.numbers(gaussian_images(self.images, self.count), None)

  def copies(self, x: np.ndarray) -> CopyShare:
    """How many samples are copies of training images, and the worst of them.

    Looks at the first `most` samples, see metrics/copies.py.

    Args:
      x: Samples uint8 [N, H, W, C], or clips.
    """
    x = self.hear(x) if self.hear else x
    check_look(self.real, x.shape, x.dtype)
    share = copy_share(self.nearness(x[: self.most]), self.held_nearness)
    return share._replace(images=self.rows[share.images])

  def nearness(self, x: np.ndarray) -> Nearness:
    """How near images are to the training images, by the rows of these."""
    return nearness(self.embed(x), x, self.real_features, self.images)

  @functools.cached_property
  def held_nearness(self) -> Nearness:
    """The same of real test images."""
    return self.nearness(self.held[0])

  def cas(self, x: np.ndarray, y: np.ndarray) -> float:
    """Classification accuracy score (Ravuri & Vinyals 2019): in [0, 1].

    The judge's own config, trained on samples, tested on real test images.
    """
    return float(np.mean(is_right(self.learner(x, y), *self.test.arrays())))

  def cas_by_class(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The same for each class of the test images, by its name."""
    images, truth = self.test.arrays()
    right = is_right(self.learner(x, y), images, truth)
    names = self.real.class_names or range(self.real.classes)
    return {
      str(name): float(right[truth == i].mean())
      for i, name in enumerate(names)
      if (truth == i).any()
    }

  def learner(self, x: np.ndarray, y: np.ndarray) -> Extractor:
    """The judge's own config, trained on samples, if it is not yet."""
    return classifier_of(self.data, self.real, x, y, self.network.home / "cas")


def sets_of(count: int, size: int, y: np.ndarray | None) -> list[np.ndarray]:
  """Numbers of samples in sets of a size, each once at most, classes alike.

  Distances depend on the share of every class, which is even in a real test
  split: in sets too.
  """
  order = np.random.default_rng(0).permutation(count)
  if y is not None:
    order = order[np.argsort(y[order], kind="stable")]
  k = count // size
  parts = [order[i::k] for i in range(k)]
  return [part[np.arange(size) * len(part) // size] for part in parts]  # of all classes


def leading(f: np.ndarray, count: int) -> np.ndarray:
  """Principal directions [D, count] of features [M, D], the strongest first."""
  _, vectors = np.linalg.eigh(np.cov(f, rowvar=False, dtype=np.float64))
  return vectors[:, ::-1][:, :count]


def collected(f: np.ndarray, directions: np.ndarray | None = None) -> Collected:
  """Features [N, D], as metrics compare them; moments along some directions."""
  part = f if directions is None else f @ directions
  return Collected(len(f), {"features": moments(part)}, {"features": f}, np.zeros(3))


def looks(network: Network, shape: tuple[int, ...], noun: str = "images") -> str:
  """What a judge of images [H, W, C] looks through, in words; `noun`: what it judges."""
  if network.kind not in LEARNED:
    return f"the published {network.card.get('network', network.kind)}"
  own = network.card.get("exemplars")
  what = (
    f"a network that tells {own} training {noun} apart, by random crops of them and of "
    "their mirror images (Dosovitskiy et al. 2014)"
    if own
    else "a classifier trained on the real clips, which it sees as mel spectrograms"
    if noun == "clips"
    else "a classifier of the labels of the training split"
  )
  small = f"; it sees images at {LARGEST} pixels" if max(shape[:2]) > LARGEST else ""
  return what + small
