"""Judging super-resolution: what a model makes of the small test images.

  jaxgen evaluate --workdir U --num 256 --steps 50 --out u.json --picture u.png
  jaxgen evaluate --workdir U --perceptual J
  jaxgen evaluate --workdir U --lpips_net alexnet-owt-7be5be79.pth \
    --lpips_lin alex.pth

The test split of the model's own data is made small as it was in training,
rounded to bytes, and enlarged by the model and by interpolation. All three are
held against the originals. Higher is better for psnr and ssim, lower for the
others. Standard errors take images for independent: where they overlap, as
patches of photographs do, the true ones are larger.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import core, files
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.evaluation import cards, perceptual
from jaxgen.evaluation.images import weights_hash
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.files import plain
from jaxgen.metrics import image_quality as metrics
from jaxgen.monitor import pictures
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, load

Array = jax.Array
Scores = dict[str, np.ndarray]  # of every image, [N] float64 each
KIND = "jaxgen restoration 1"
PLAIN = ("bicubic", "bilinear")  # interpolations to compare with
ROWS = 8  # of the picture
METRICS = {
  "psnr": "dB, of bytes; mean over images",
  "ssim@gauss11": "Wang et al. 2004, of bytes, mean over channels",
  "ssim@uniform7": "scikit-image's default window, likewise",
  "consistency": "1e5 MSE in [0, 1] of the output made small again, not "
  "rounded, from the small image (SR3, Table 1)",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """Originals and their small copies.

  Attributes:
    test: Where originals are from.
    x: Originals uint8 [N, H, W, C].
    y: Their labels [N], where there are labels.
    shrink: How small copies are made: [B, H, W, C] -> [B, h, w, C], in [-1, 1].
  """

  test: Source
  x: np.ndarray
  y: np.ndarray | None
  shrink: Callable[[Array], Array]

  @classmethod
  def of(cls, test: Source, num: int | None, shrink: Callable[[Array], Array]) -> "Case":
    """`num` images of a split at even distances, by default all of it."""
    n = len(test) if num is None else num
    if not 2 <= n <= len(test):
      raise UserError(f"num={num}: want 2 to {len(test)}, as many as this split of {test.name} has")
    batch = test.read(np.arange(n) * len(test) // n)
    return cls(test, batch["x"], batch.get("y"), shrink)

  @functools.cached_property
  def low_res(self) -> np.ndarray:
    """The small copies, uint8 [N, h, w, C]."""
    return rounded(self.shrink, self.x)

  @functools.cached_property
  def small(self) -> Callable[[np.ndarray], Array]:
    """Bytes [N, H, W, C] -> [N, h, w, C] in [-1, 1], a program."""
    return on_device(self.shrink)

  def enlarged(
    self, model: Sampler, seed: int, batch: int, knobs: Mapping[str, float]
  ) -> dict[str, np.ndarray]:
    """The small copies, by a model and by interpolation: uint8 [N, H, W, C].

    Raises:
      UserError: It wants labels, and there are none.
    """
    if model.classes and self.y is None:
      raise UserError(f"this model wants labels, and {self.test.name} has none")
    x = model.sample(
      seed,
      len(self.x),
      self.y if model.classes else None,
      batch=batch,
      low_res=self.low_res,
      **knobs,
    )
    return {"model": x} | {how: self.interpolated(how) for how in PLAIN}

  def interpolated(self, how: str, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Small copies by jax.image.resize: centres are aligned."""
    size = self.x.shape[1:]
    return rounded(lambda x: jax.image.resize(x, (len(x), *size), how), self.low_res[rows])

  def scores(self, x: np.ndarray, looks: Sequence[Perceptual]) -> Scores:
    """How near images [N, H, W, C] come to the originals."""
    found = {"psnr": in_parts(metrics.psnr, x, self.x)}
    for name, (weights, _) in metrics.WINDOWS.items():
      if min(x.shape[1:3]) >= len(weights):
        ssim = functools.partial(metrics.ssim, window=name)
        found[f"ssim@{name}"] = in_parts(ssim, x, self.x)
    small = lambda x: 127.5 + 127.5 * in_parts(self.small, x)
    found["consistency"] = metrics.consistency(x, self.low_res, small)
    return found | {look.name: look.distances(x, self.x) for look in looks}

  def card(self, looks: Sequence[Perceptual], scores: Mapping[str, Scores]) -> dict[str, Any]:
    """How numbers came about, and what they are, as JSON."""
    mean = lambda s: {k: np.mean(v) for k, v in s.items()}
    error = lambda s: {
      k: np.std(v, ddof=1) / len(v) ** 0.5 for k, v in s.items() if np.isfinite(v).all()
    }
    return plain(
      {
        "kind": KIND,
        "data": {
          "name": self.test.name,
          "fingerprint": self.test.fingerprint,
          "images": len(self.x),
          "of": len(self.test),
          "shape": self.x.shape[1:],
          "low_res": self.low_res.shape[1:],
        },
        "protocol": {k: v for k, v in METRICS.items() if k in scores["model"]}
        | {
          "low_res": "made as in training, rounded to bytes",
          "interpolation": "centres aligned, Keys' cubic of a = -1/2, rounded to bytes",
          "errors": "standard errors over images, taken for independent",
        },
        "perceptual": {look.name: look.card for look in looks},
        "scores": {k: mean(v) for k, v in scores.items()},
        "errors": {k: error(v) for k, v in scores.items()},
        "versions": cards.versions(),
      }
    )

  def picture(self, made: Mapping[str, np.ndarray]) -> np.ndarray:
    """A row for each of a few images: small, bicubic, the model's, original."""
    n = len(self.x)
    i = np.arange(min(ROWS, n)) * n // min(ROWS, n)
    columns = (self.interpolated("nearest", i), made["bicubic"][i], made["model"][i], self.x[i])
    shown = np.stack(columns, 1).reshape(-1, *self.x.shape[1:])
    return pictures.grid(shown, 4, scale=max(1, round(128 / self.x.shape[1])))


def rounded(function: Callable[[Array], Array], x: np.ndarray) -> np.ndarray:
  """Bytes -> function of them in [-1, 1] -> bytes, as samples are rounded."""
  return in_parts(on_device(lambda x: core.as_data(function(x), np.uint8)), x)


def on_device(function: Callable[[Array], Array]) -> Callable[[np.ndarray], Array]:
  """A program of bytes, which the function sees as floats in [-1, 1]."""
  return jax.jit(lambda x: function(core.on_device(x)))


def in_parts(
  function: Callable[..., np.ndarray], *arrays: np.ndarray, most: int = 32
) -> np.ndarray:
  """function(*arrays) by a few rows at a time, which bounds its memory."""
  return np.concatenate(
    [
      np.asarray(function(*(a[i : i + most] for a in arrays)))
      for i in range(0, len(arrays[0]), most)
    ]
  )


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text."""
  scores, errors, data = card["scores"], card["errors"], card["data"]

  def say(name, metric):
    error = errors[name].get(metric)
    return f"{float(scores[name][metric]):.4g}" + ("" if error is None else f" ± {error:.2g}")

  rows = [["", *scores]] + [
    [metric, *(say(name, metric) for name in scores)] for metric in scores["model"]
  ]
  small, large = ("x".join(map(str, data[k][:2])) for k in ("low_res", "shape"))
  return cards.columns(rows) + (
    f"\n{data['images']:,} test images of {data['name']}, {small} -> {large}; ±: standard errors"
  )


FLAGS = {
  "perceptual": "workdir of a classifier whose features tell images apart",
  "lpips_net": "AlexNet's or VGG16's weights, for LPIPS",
  "lpips_lin": "LPIPS' linear weights for that network",
  "picture": "x.png gets small images, bicubic, the model's, originals",
}


def define(values: flags.FlagValues, picture: bool = True) -> None:
  """The flags of a verb that are for models which enlarge images."""
  for name, text in FLAGS.items():
    if picture or name != "picture":
      flags.DEFINE_string(name, None, f"of an upsampler: {text}", flag_values=values)


def check_flags(values: flags.FlagValues) -> None:
  """UserError if flags of an upsampler are given for something else."""
  for name in FLAGS:
    if name in values and values[name].value is not None:
      raise UserError(
        f"--{name} is for a --workdir of a model that makes x from small images, without --protocol"
      )


def enlarges(model: Any) -> bool:
  """Whether a model makes x from small images."""
  return "low_res" in getattr(model, "cond", {})


def judge(
  values: flags.FlagValues, model: Sampler, knobs: Mapping[str, float], data: ConfigDict
) -> None:
  """What `evaluate` does with such a model: prints, and writes files.

  Args:
    values: Of the verb.
    model: From --workdir.
    knobs: Of sampling, that were given.
    data: The config of what it was trained on.

  Raises:
    UserError: It wants more than small images, other images than the test
      split has, or labels where there are none; or weights do not fit.
  """
  looks, case = networks(values), case_of(model, data, values.num)
  made = case.enlarged(model, values.seed, values.batch, knobs)
  card = case.card(looks, {k: case.scores(x, looks) for k, x in made.items()})
  card["data"]["split"] = "test"
  card["made"] = plain(
    model.card
    | {
      "weights": weights_hash(model.state),
      "seed": values.seed,
      "num": len(case.x),
      "knobs": output.json_knobs(model.settings(dict(knobs))),
    }
  )
  for look in looks:
    if not look.card.get("published", True):
      print(
        f"jaxgen: the weights of {look.name} are not those that were published", file=sys.stderr
      )
  print(table(card))
  if values.out:
    files.write_json(values.out, card)
  if values.picture:
    pictures.save_png(
      values.picture,
      case.picture(made),
      {"columns": "small, bicubic, the model's, original", "card": card},
    )


def case_of(model: Sampler, data: ConfigDict, num: int | None) -> Case:
  """The test images that a model's own small images are made of.

  Raises:
    UserError: It wants more than small images, or others than those.
  """
  if set(model.model.cond) != {"low_res"}:
    raise UserError(
      f"this model makes x from {', '.join(model.model.cond)}: "
      "only those of low_res alone are judged"
    )
  test = open_split(data, "test")
  if test.shape != tuple(model.shape) or test.dtype != np.uint8:
    raise UserError(
      f"this model makes {list(model.shape)}, but {test.name} holds {test.dtype} {list(test.shape)}"
    )
  return Case.of(test, num, shrink(model))


def networks(values: flags.FlagValues) -> list[perceptual.Perceptual]:
  """What looks at images, as flags and the environment say."""
  found = []
  if values.perceptual:
    classifier = load(values.perceptual, samples=False)
    found.append(perceptual.of_classifier(classifier))
  if values.lpips_net or values.lpips_lin or perceptual.given():
    found.append(perceptual.open_lpips(values.lpips_net, values.lpips_lin))
  return found


def shrink(model: Sampler) -> Callable[[jax.Array], jax.Array]:
  """How the model's small images are made of x in [-1, 1].

  For a chain of upsamplers: of x shrunk to what the first of them makes.
  """
  if not hasattr(model.model, "stages"):
    return model.model.cond["low_res"]
  make, size = model.model.stages[0].cond["low_res"], model.model.shapes[0][0]
  return lambda x: make(degrade.area(x, size))


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """A judge (see judge.py) of what models make of small test images.

  Its floor is what bicubic interpolation does.
  """

  case: Case
  looks: list[perceptual.Perceptual]

  floor_name = "bicubic"

  @classmethod
  def of(cls, model: Sampler, data: ConfigDict, values: flags.FlagValues) -> "Pairs":
    """For a model that enlarges images, and the flags of its verb."""
    return cls(case_of(model, data, values.num), networks(values))

  @property
  def features(self) -> str:
    """What it looks at."""
    return ", ".join(["pixels", *(look.name for look in self.looks)])

  @property
  def count(self) -> int:
    """Pairs."""
    return len(self.case.x)

  @property
  def card(self) -> dict[str, Any]:
    """How the numbers come about."""
    return {
      "features": self.features,
      "reference": self.case.test.name,
      "fingerprint": self.case.test.fingerprint,
      "images": self.count,
    }

  def conditions(self, model: Sampler, n: int) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Labels, if the model wants them, and small images: all n pairs."""
    if n != self.count:
      raise UserError(f"num={n}: there are {self.count} pairs")
    labels = self.case.y if model.classes else None
    return labels, {"low_res": self.case.low_res}

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> dict[str, list[float]]:
    """Images [N, H, W, C] against the originals."""
    del y, cas
    found = self.case.scores(x, self.looks)
    return {k: [float(np.mean(v))] for k, v in found.items()}

  @functools.cache  # noqa: B019 (frozen, and one of it)
  def floor(self) -> dict[str, list[float]]:
    """Bicubic interpolation."""
    return self.scores(self.case.interpolated("bicubic"), None)
