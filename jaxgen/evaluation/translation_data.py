"""Images that translators are asked to translate, and what these should become."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxgen import core
from jaxgen.core import trait
from jaxgen.data.arrays import Arrays, Source
from jaxgen.data.sources import open_split
from jaxgen.data.unpaired import Unpaired
from jaxgen.errors import UserError
from jaxgen.evaluation.pair_scores import in_parts
from jaxgen.models.translation import with_options
from jaxgen.sampling.trained import condition_shape


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
  """Images to translate, all of a model's size.

  Attributes:
    names: Of the results, without an ending.
    origins: Where each is from, for its file: {"source", "sha256"} or {"data", ..}.
    source: uint8 [N, H, W, C'].
    keep: uint8 [N, H, W, 1], 255 where a hole is not; None: the model's own.
    truth: uint8 [N, H, W, C], or None.
    labels: Their classes [N], or None.
    others: Real images of the kind to be made, where they are of no pairs.
    skipped: {name: why} of what could not be read.
    resized: How many were of another shape.
  """

  names: list[str]
  origins: list[dict[str, Any]]
  source: np.ndarray
  keep: np.ndarray | None = None
  truth: np.ndarray | None = None
  labels: np.ndarray | None = None
  others: Source | None = None
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)
  resized: int = 0

  @property
  def conditions(self) -> dict[str, np.ndarray]:
    """For `Sampler.sample`."""
    return {"source": self.source} | ({} if self.keep is None else {"keep": self.keep})

  @property
  def real(self) -> Source | None:
    """Real images of the kind to be made: truths, or others; None: not known."""
    if self.others is not None or self.truth is None:
      return self.others
    return Arrays("what they should be", self.truth, self.labels)

  @property
  def fingerprint(self) -> str:
    """Hex digits of the images to translate, and of their holes."""
    keep = [] if self.keep is None else [Arrays("", self.keep).fingerprint]
    return "-".join([Arrays("", self.source).fingerprint, *keep])


def translates(model: core.Model) -> bool:
  """Whether a model makes images of images."""
  cond = trait(model, "cond")
  return "source" in cond and "low_res" not in cond


def goes_back(model: core.Model) -> bool:
  """Whether a model also makes sources of what it makes."""
  return "backwards" in model.knobs


def source_shape(model: core.Model, shape: Sequence[int]) -> tuple[int, int, int]:
  """[H, W, C'] of what a model of x of `shape` translates."""
  return condition_shape(model.cond["source"], tuple(shape))


def condition_of(
  model: core.Model, name: str, x: np.ndarray, options: Mapping[str, Any] | None = None
) -> np.ndarray:
  """A condition of images uint8 [N, H, W, C], as in training and rounded to bytes.

  `options` are arguments of what makes it, in place of the config's.
  """
  make = with_options(model.cond[name], options or {})
  return in_parts(jax.jit(lambda x: core.as_data(make(core.on_device(x)), np.uint8)), x, most=64)


def with_keep(model: core.Model, shape: Sequence[int], inputs: Inputs) -> Inputs:
  """The inputs with the hole that a model has by itself, where they bring none."""
  if "keep" not in model.cond or inputs.keep is not None:
    return inputs
  x = np.zeros((len(inputs.names), *shape), np.uint8)
  return dataclasses.replace(inputs, keep=condition_of(model, "keep", x))


def of_own_data(
  model: core.Model,
  shape: Sequence[int],
  data: Mapping[str, Any],
  num: int | None = None,
  *,
  most: int | None = None,
  backwards: bool = False,
  options: Mapping[str, Any] | None = None,
) -> Inputs:
  """Test images of a model's own data, `num` of them at even distances.

  Args:
    model: The translator.
    shape: [H, W, C] of what it makes.
    data: Of its config.
    num: How many; None: all, or `most` of them.
    most: See `num`.
    backwards: Whether sources are of the kind that it makes otherwise.
    options: Of what makes sources, see `condition_of`.

  Raises:
    UserError: There are fewer, or none; or they are of another shape.
  """
  test = open_split(data, "test")
  total = len(test)
  n = min(total, most or total) if num is None else num
  if not 1 <= n <= total:
    raise UserError(f"num={n}: want 1 to {total}, as many as the test split of {test.name} has")
  rows = np.arange(n) * total // n
  names = [f"{i:06d}" for i in rows]
  origins = [{"data": test.name, "split": "test", "index": int(i)} for i in rows]
  if isinstance(test, Unpaired):
    return of_unpaired(test, names, origins, rows, backwards)
  batch = test.read(rows)
  x = batch["x"]
  if tuple(x.shape[1:]) != tuple(shape):
    raise UserError(f"{test.name} holds {list(x.shape[1:])}, and this model makes {list(shape)}")
  source = batch["source"] if "source" in batch else condition_of(model, "source", x, options)
  source, x = (x, source) if backwards else (source, x)
  return with_keep(model, shape, Inputs(names, origins, source, None, x, batch.get("y")))


def of_unpaired(
  test: Unpaired, names: list[str], origins: list[dict[str, Any]], rows: np.ndarray, backwards: bool
) -> Inputs:
  """Images of one kind; the truth is known where the other kind is made of them."""
  kind, other = (test.b, test.a) if backwards else (test.a, test.b)
  rows = rows % len(kind)
  batch, truth = kind.read(rows), None
  if test.base is not None:
    truth = test.a.read(rows)["x"] if backwards else test.base[rows]
  return Inputs(names, origins, batch["x"], None, truth, batch.get("y"), other)


def check_translator(model: core.Model, shape: Sequence[int], where: str) -> None:
  """UserError unless a model makes images of images, of the same size."""
  if "low_res" in trait(model, "cond"):
    raise UserError(f"{where} enlarges images: jaxgen sample --workdir={where} --low_res=FOLDER")
  if not translates(model) or len(shape) != 3:
    raise UserError(
      f"{where} holds a {type(model).__name__}, which makes no images of images: want "
      "Pix2Pix, Palette or CycleGAN"
    )
