"""Are results copies of training images? How many, and which images are nearest.

A verb says `copies = open_copies(values.copies, workdir)` before it works, which is None
where nobody asked, and `check = copies and copies(x)` after it; `check.line()`, `check.card`
and `gallery(check)` are what it prints, writes and shows.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen.checkpoint import meta
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import ImageJudge, open_judge
from jaxgen.metrics.copies import LEVEL
from jaxgen.metrics.wilson import rate_interval
from jaxgen.monitor import pictures
from jaxgen.report.task_page import Gallery, Picture
from jaxgen.sampling.stages import data_of, stages_of

OWN = "own"
HOLDOUT = 0.2  # share of other data's images, where they have no test split
SHOWN = 10
RULE = (
  "A copy is nearer to its training image, in the judge's features and in pixels (of it or its "
  f"mirror image), than all but {LEVEL:.0%} of held-out real images are to theirs."
)


def define(values: flags.FlagValues) -> None:
  """The flag."""
  flags.DEFINE_string(
    "copies",
    None,
    f"look for copies of training images among results: {OWN}, those that the model was trained "
    "on, or other data, as config.data.source",
    flag_values=values,
  )


class CopyCheck(NamedTuple):
  """Copies among results.

  Attributes:
    what: Of which results, in words.
    data: The training images' data.
    judge: In whose features they are compared.
    count: Results that were looked at.
    copies: How many of them are copies.
    floor: Share of held-out real images that are such, by the same rule.
    before: The same share of what results were made from, if that was looked at.
    results: [n] the numbers of those most like copies, worst first.
    images: [n] the numbers of their nearest training images.
    ratio: [n] their distances over those that a copy has at most.
    pairs: uint8 [2, n, H, W, C], these results and images.
  """

  what: str
  data: str
  judge: str
  count: int
  copies: int
  floor: float
  before: float | None
  results: np.ndarray
  images: np.ndarray
  ratio: np.ndarray
  pairs: np.ndarray

  @property
  def share(self) -> float:
    """Of results that are copies."""
    return self.copies / self.count

  @property
  def interval(self) -> tuple[float, float]:
    """Where the share lies, 95%, by Wilson's rule."""
    return rate_interval(self.copies, self.count)

  @property
  def card(self) -> dict[str, Any]:
    """For a JSON file."""
    return {
      "share": self.share,
      "interval": self.interval,
      "count": self.count,
      "held_out_share": self.floor,
      **({} if self.before is None else {"share_before": self.before}),
      "data": self.data,
      "judge": self.judge,
      "rule": RULE,
      "nearest": [
        {"result": int(i), "training_image": int(j), "distance_over_limit": float(r)}
        for i, j, r in zip(self.results, self.images, self.ratio, strict=True)
      ],
    }

  def line(self) -> str:
    """For a terminal."""
    low, high = self.interval
    before = "" if self.before is None else f", and {self.before:.1%} of what they are made from"
    return (
      f"copies: {self.copies} of {self.count} {self.what} ({low:.1%} to {high:.1%}) are as near to "
      f"training images of {self.data} as copies; {self.floor:.1%} of held-out images are{before}"
    )

  def picture(self) -> Picture:
    """For a page: results above, the most like training images on the left; these below."""
    x = self.pairs.reshape(-1, *self.pairs.shape[2:])
    grid = pictures.grid(x, self.pairs.shape[1])
    return Picture(pictures.png(grid, {"copies": self.card}), self.what, self.line())


@dataclasses.dataclass(frozen=True, eq=False)
class Copies:
  """Looks for copies of a judge's training images."""

  judge: ImageJudge

  def __call__(
    self, x: np.ndarray, before: np.ndarray | None = None, what: str = "results"
  ) -> CopyCheck:
    """Results uint8 [N, H, W, C] -> the copies among them.

    Of more than the judge looks at, some at even distances.

    Args:
      x: Results.
      before: What they were made from, likewise, to compare with.
      what: Results, in words.
    """
    which = spread(len(x), self.judge.most)
    nearest = self.judge.copies(x[which])
    real = self.judge.real.arrays()[0]
    worst = which[nearest.samples][:SHOWN]
    images = nearest.images[:SHOWN]
    pairs = np.stack([x[worst], real[images]])
    of_before = None
    if before is not None:
      of_before = self.judge.copies(before[spread(len(before), self.judge.most)]).share
    return CopyCheck(
      what,
      self.judge.real.name,
      self.judge.features,
      len(which),
      round(nearest.share * len(which)),
      nearest.floor,
      of_before,
      worst,
      images,
      nearest.ratio[:SHOWN],
      pairs,
    )


def spread(n: int, most: int) -> np.ndarray:
  """Numbers of at most so many of n, at even distances."""
  return np.arange(min(n, most)) * n // min(n, most)


def open_copies(data: str | None, workdir: str, folder: str | None = None) -> Copies | None:
  """What looks for copies, or None where `data` is None.

  Args:
    data: "own", the images that the workdir's model was trained on; or other data, as
      config.data.source, at the size of these.
    workdir: Of the model.
    folder: Of the judge; by default in the cache.

  Raises:
    UserError: There are no such images.
  """
  if data is None:
    return None
  spec = ConfigDict(dict(data_of(workdir)))
  if data != OWN:
    height, width, channels = meta.latest(stages_of(workdir)[-1])["data"]["shape"]
    spec.update(source=data, split="train", fraction=1.0, holdout=HOLDOUT)
    spec.update(size=height if height == width else 0, channels=channels)
  judge = open_judge(spec, folder)
  if not isinstance(judge, ImageJudge) or judge.hear:
    raise UserError(f"--copies={data}: copies are looked for among images, and these are none")
  return Copies(judge)


def gallery(*checks: CopyCheck) -> Gallery:
  """Of a page: the results most like training images, and these."""
  note = (
    "Above the results most like training images, the most so on the left; below each its nearest "
    f"training image. {RULE}"
  )
  return Gallery("Copies of training images", note, [c.picture() for c in checks], wide=True)
