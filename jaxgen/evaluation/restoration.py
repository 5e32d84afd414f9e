"""Judging super-resolution: what a model makes of the small test images.

  jaxgen evaluate --workdir U --num 256 --steps 50 --out u.json --picture u.png
  jaxgen evaluate --workdir U --perceptual J
  jaxgen evaluate --workdir U --lpips_net alexnet-owt-7be5be79.pth \
    --lpips_lin alex.pth

The test split of the model's own data is made small as it was in training,
rounded to bytes, and enlarged by the model and by interpolation. All three are
compared with the originals. Higher is better for psnr and ssim, lower for the
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

from jaxgen import core
from jaxgen.core import trait
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.evaluation import cards, pair_scores, perceptual
from jaxgen.evaluation.images import weights_hash
from jaxgen.evaluation.pair_scores import in_parts
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.files import plain
from jaxgen.metrics import image_quality
from jaxgen.monitor import pictures
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, load

Array = jax.Array
Scores = dict[str, np.ndarray]  # of every image, [N] float64 each
KIND = "jaxgen restoration 1"
INTERPOLATIONS = ("bicubic", "bilinear")  # to compare with
ROWS = 8  # of the picture
METRICS = pair_scores.METRICS | {
  "consistency": "1e5 MSE in [0, 1] of the output made small again, not "
  "rounded, from the small image (SR3, Table 1)"
}
FLAGS = {
  "perceptual": "workdir of a classifier whose features tell images apart",
  "lpips_net": "AlexNet's or VGG16's weights, for LPIPS",
  "lpips_lin": "LPIPS' linear weights for that network",
  "picture": "x.png gets small images, bicubic, the model's, originals; of a codec originals "
  "above reconstructions; of a translator sources, results, truths",
}


def define(values: flags.FlagValues, picture: bool = True) -> None:
  """The flags of a verb that are for upsamplers, translators and codecs."""
  for name, text in FLAGS.items():
    if picture or name != "picture":
      flags.DEFINE_string(
        name, None, f"of upsampler, translator, codec: {text}", flag_values=values
      )


def check_flags(values: flags.FlagValues) -> None:
  """UserError if flags of upsamplers, translators or codecs are set for something else."""
  for name in FLAGS:
    if name in values and values[name].value is not None:
      raise UserError(
        f"--{name} is for a --workdir of a model that makes x from small or other images, or of a "
        "codec, without --protocol"
      )


def enlarges(model: Any) -> bool:
  """Whether a model makes x from small images."""
  return "low_res" in trait(model, "cond")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """A judge (see judge.py) of what models make of small test images.

  Its floor is what bicubic interpolation does.

  Attributes:
    test: Where originals are from.
    x: Originals uint8 [N, H, W, C].
    y: Their labels [N], where there are labels.
    shrink: How small copies are made: [B, H, W, C] -> [B, h, w, C], in [-1, 1].
    networks: Through which images are compared, beside their pixels.
  """

  test: Source
  x: np.ndarray
  y: np.ndarray | None
  shrink: Callable[[Array], Array]
  networks: Sequence[Perceptual] = ()

  floor_name = "bicubic"

  @classmethod
  def of(cls, model: Sampler, data: ConfigDict, values: flags.FlagValues) -> "Pairs":
    """The test images, `--num` of them, of which a model's small ones are made.

    They are at even distances in the split; by default all of it.

    Raises:
      UserError: It wants more than small images, or other images than the
        split has; there are fewer; or weights of networks do not fit.
    """
    networks = open_networks(values)
    if set(model.model.cond) != {"low_res"}:
      raise UserError(
        f"this model makes x from {', '.join(model.model.cond)}: "
        "only those of low_res alone are judged"
      )
    test = open_split(data, "test")
    if test.shape != tuple(model.shape) or test.dtype != np.uint8:
      raise UserError(
        f"this model makes {list(model.shape)}, but {test.name} holds "
        f"{test.dtype} {list(test.shape)}"
      )
    n = len(test) if values.num is None else values.num
    if not 2 <= n <= len(test):
      raise UserError(f"num={n}: want 2 to {len(test)}, as many as this split of {test.name} has")
    batch = test.read(np.arange(n) * len(test) // n)
    return cls(test, batch["x"], batch.get("y"), shrink(model), networks)

  @property
  def features(self) -> str:
    return ", ".join(["pixels", *(net.name for net in self.networks)])

  @property
  def count(self) -> int:
    return len(self.x)

  @property
  def card(self) -> dict[str, Any]:
    return {
      "features": self.features,
      "reference": self.test.name,
      "fingerprint": self.test.fingerprint,
      "images": self.count,
    }

  @functools.cached_property
  def low_res(self) -> np.ndarray:
    """The small copies, uint8 [N, h, w, C]."""
    return rounded(self.shrink, self.x)

  @functools.cached_property
  def _shrink(self) -> Callable[[np.ndarray], Array]:
    """Bytes [N, H, W, C] -> [N, h, w, C] in [-1, 1], a program."""
    return jax.jit(lambda x: self.shrink(core.on_device(x)))

  def conditions(self, model: Sampler, n: int) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Labels, if the model wants them, and small images: all n pairs.

    Raises:
      UserError: There are fewer pairs, or no labels.
    """
    if n != self.count:
      raise UserError(f"num={n}: there are {self.count} pairs")
    if model.classes and self.y is None:
      raise UserError(f"this model wants labels, and {self.test.name} has none")
    return self.y if model.classes else None, {"low_res": self.low_res}

  def interpolated(self, how: str, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Small copies by jax.image.resize: centres are aligned."""
    size = self.x.shape[1:]
    return rounded(lambda x: jax.image.resize(x, (len(x), *size), how), self.low_res[rows])

  def by_image(self, x: np.ndarray) -> Scores:
    """How near images [N, H, W, C] come to the originals."""
    small = lambda x: 127.5 + 127.5 * in_parts(self._shrink, x)
    consistency = image_quality.consistency(x, self.low_res, small)
    return (
      pair_scores.by_image(x, self.x)
      | {"consistency": consistency}
      | {net.name: net.distances(x, self.x) for net in self.networks}
    )

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True) -> dict[str, list[float]]:
    """See Judge: means over images."""
    del y, cas
    return {k: [float(np.mean(v))] for k, v in self.by_image(x).items()}

  @functools.cached_property
  def _floor(self) -> dict[str, list[float]]:
    return self.scores(self.interpolated("bicubic"), None)

  def floor(self) -> dict[str, list[float]]:
    return self._floor


def report(
  pairs: Pairs, x: np.ndarray, origin: Mapping[str, Any], picture: str | None = None
) -> tuple[str, dict[str, Any]]:
  """The scores of images beside those of interpolation: as text, and a card.

  Args:
    pairs: What they are enlargements of.
    x: uint8 [N, H, W, C].
    origin: How they were made.
    picture: x.png gets some of them.
  """
  images = {"model": x} | {how: pairs.interpolated(how) for how in INTERPOLATIONS}
  scores = {k: pairs.by_image(v) for k, v in images.items()}
  error = lambda s: {
    k: np.std(v, ddof=1) / len(v) ** 0.5 for k, v in s.items() if np.isfinite(v).all()
  }
  card = plain(
    {
      "kind": KIND,
      "data": {
        "name": pairs.test.name,
        "fingerprint": pairs.test.fingerprint,
        "images": pairs.count,
        "of": len(pairs.test),
        "shape": pairs.x.shape[1:],
        "low_res": pairs.low_res.shape[1:],
        "split": "test",
      },
      "protocol": {k: v for k, v in METRICS.items() if k in scores["model"]}
      | {
        "low_res": "made as in training, rounded to bytes",
        "interpolation": "centres aligned, Keys' cubic of a = -1/2, rounded to bytes",
        "errors": "standard errors over images, taken for independent",
      },
      "perceptual": {net.name: net.card for net in pairs.networks},
      "scores": {k: {m: np.mean(v) for m, v in s.items()} for k, s in scores.items()},
      "errors": {k: error(s) for k, s in scores.items()},
      "versions": cards.versions(),
      "made": origin,
    }
  )
  for net in pairs.networks:
    if not net.card.get("published", True):
      print(f"jaxgen: the weights of {net.name} are not those that were published", file=sys.stderr)
  if picture:
    info = {"columns": "small, bicubic, the model's, original", "card": card}
    pictures.save_png(picture, side_by_side(pairs, images), info)
  return table(card), card


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text."""
  scores, errors, data = card["scores"], card["errors"], card["data"]

  def cell(name, metric):
    error = errors[name].get(metric)
    return f"{float(scores[name][metric]):.4g}" + ("" if error is None else f" ± {error:.2g}")

  rows = [["", *scores]] + [
    [metric, *(cell(name, metric) for name in scores)] for metric in scores["model"]
  ]
  small, large = ("x".join(map(str, data[k][:2])) for k in ("low_res", "shape"))
  return cards.columns(rows) + (
    f"\n{data['images']:,} test images of {data['name']}, {small} -> {large}; ±: standard errors"
  )


def side_by_side(pairs: Pairs, images: Mapping[str, np.ndarray]) -> np.ndarray:
  """A row for each of a few images: small, bicubic, the model's, original."""
  n = pairs.count
  i = np.arange(min(ROWS, n)) * n // min(ROWS, n)
  columns = (pairs.interpolated("nearest", i), images["bicubic"][i], images["model"][i], pairs.x[i])
  grid = np.stack(columns, 1).reshape(-1, *pairs.x.shape[1:])
  return pictures.grid(grid, 4, scale=max(1, round(128 / pairs.x.shape[1])))


def evaluate_upsampler(
  model: Sampler, data: ConfigDict, knobs: Mapping[str, float], values: flags.FlagValues
) -> tuple[str, dict[str, Any]]:
  """What `evaluate` says of a model that enlarges images: text, and a card.

  Raises:
    UserError: see Pairs.
  """
  pairs = Pairs.of(model, data, values)
  n = pairs.count
  y, low_res = pairs.conditions(model, n)
  x = model.sample(values.seed, n, y, batch=values.batch, **low_res, **knobs)
  origin = model.card | {
    "weights": weights_hash(model.state),
    "seed": values.seed,
    "num": n,
    "knobs": output.json_knobs(model.settings(dict(knobs))),
  }
  return report(pairs, x, origin, values.picture)


def rounded(function: Callable[[Array], Array], x: np.ndarray) -> np.ndarray:
  """Bytes -> function of them in [-1, 1] -> bytes, as samples are rounded."""
  return in_parts(jax.jit(lambda x: core.as_data(function(core.on_device(x)), np.uint8)), x)


def open_networks(values: flags.FlagValues) -> list[Perceptual]:
  """What looks at images, as flags and the environment say."""
  networks = []
  if values.perceptual:
    networks.append(perceptual.of_classifier(load(values.perceptual, samples=False)))
  if values.lpips_net or values.lpips_lin or perceptual.is_in_environment():
    networks.append(perceptual.open_lpips(values.lpips_net, values.lpips_lin))
  return networks


def shrink(model: Sampler) -> Callable[[Array], Array]:
  """How the model's small images are made of x in [-1, 1].

  For a cascade of upsamplers: of x shrunk to what the first of them makes.
  """
  stages = trait(model.model, "stages")
  if not stages:
    return model.model.cond["low_res"]
  make, size = stages[0].cond["low_res"], model.model.shapes[0][0]
  return lambda x: make(degrade.area(x, size))
