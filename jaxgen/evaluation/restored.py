"""Enlarged images beside their originals: numbers, a card and a picture."""
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxgen import core
from jaxgen.data.arrays import Source
from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.files import plain
from jaxgen.metrics import restoration as metrics
from jaxgen.monitor import pictures
from jaxgen.sampling.sampler import Sampler

Array = jax.Array
Scores = dict[str, np.ndarray]  # of every image, [N] float64 each
KIND = "jaxgen restoration 1"
PLAIN = ("bicubic", "bilinear")  # interpolations to compare with
ROWS = 8                         # of the picture
METRICS = {
    "psnr": "dB, of bytes; mean over images",
    "ssim@gauss11": "Wang et al. 2004, of bytes, mean over channels",
    "ssim@uniform7": "scikit-image's default window, likewise",
    "consistency": "1e5 MSE in [0, 1] of the output made small again, not "
                   "rounded, from the small image (SR3, Table 1)"}


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
  def of(cls, test: Source, num: int | None, shrink: Callable[[Array], Array]
         ) -> "Case":
    """`num` images of a split at even distances, by default all of it."""
    n = len(test) if num is None else num
    if not 2 <= n <= len(test):
      raise UserError(f"num={num}: want 2 to {len(test)}, as many as this "
                      f"split of {test.name} has")
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

  def enlarged(self, model: Sampler, seed: int, batch: int,
               knobs: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The small copies, by a model and by interpolation: uint8 [N, H, W, C].

    Raises:
      UserError: It wants labels, and there are none.
    """
    if model.classes and self.y is None:
      raise UserError(f"this model wants labels, and {self.test.name} has none")
    x = model.sample(seed, len(self.x), self.y if model.classes else None,
                     batch=batch, low_res=self.low_res, **knobs)
    return {"model": x} | {how: self.interpolated(how) for how in PLAIN}

  def interpolated(self, how: str, rows: slice | np.ndarray = slice(None)
                   ) -> np.ndarray:
    """Small copies by jax.image.resize: centres are aligned."""
    size = self.x.shape[1:]
    return rounded(lambda x: jax.image.resize(x, (len(x), *size), how),
                   self.low_res[rows])

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

  def card(self, looks: Sequence[Perceptual], scores: Mapping[str, Scores]
           ) -> dict[str, Any]:
    """How numbers came about, and what they are, as JSON."""
    mean = lambda s: {k: np.mean(v) for k, v in s.items()}
    error = lambda s: {k: np.std(v, ddof=1) / len(v) ** 0.5
                       for k, v in s.items() if np.isfinite(v).all()}
    return plain({
        "kind": KIND,
        "data": {"name": self.test.name, "fingerprint": self.test.fingerprint,
                 "images": len(self.x), "of": len(self.test),
                 "shape": self.x.shape[1:], "low_res": self.low_res.shape[1:]},
        "protocol": {k: v for k, v in METRICS.items() if k in scores["model"]
                     } | {
            "low_res": "made as in training, rounded to bytes",
            "interpolation": "centres aligned, Keys' cubic of a = -1/2, "
                             "rounded to bytes",
            "errors": "standard errors over images, taken for independent"},
        "perceptual": {look.name: look.card for look in looks},
        "scores": {k: mean(v) for k, v in scores.items()},
        "errors": {k: error(v) for k, v in scores.items()},
        "versions": cards.versions()})

  def picture(self, made: Mapping[str, np.ndarray]) -> np.ndarray:
    """A row for each of a few images: small, bicubic, the model's, original."""
    n = len(self.x)
    i = np.arange(min(ROWS, n)) * n // min(ROWS, n)
    columns = (self.interpolated("nearest", i), made["bicubic"][i],
               made["model"][i], self.x[i])
    shown = np.stack(columns, 1).reshape(-1, *self.x.shape[1:])
    return pictures.grid(
        shown, 4, scale=max(1, round(128 / self.x.shape[1])))


def rounded(function: Callable[[Array], Array], x: np.ndarray) -> np.ndarray:
  """Bytes -> function of them in [-1, 1] -> bytes, as samples are rounded."""
  return in_parts(on_device(
      lambda x: core.as_data(function(x), np.uint8)), x)


def on_device(function: Callable[[Array], Array]
              ) -> Callable[[np.ndarray], Array]:
  """A program of bytes, which the function sees as floats in [-1, 1]."""
  return jax.jit(lambda x: function(core.on_device(x)))


def in_parts(function: Callable[..., np.ndarray], *arrays: np.ndarray,
             most: int = 32) -> np.ndarray:
  """function(*arrays) by a few rows at a time, which bounds its memory."""
  return np.concatenate([
      np.asarray(function(*(a[i:i + most] for a in arrays)))
      for i in range(0, len(arrays[0]), most)])


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text."""
  scores, errors, data = card["scores"], card["errors"], card["data"]
  def say(name, metric):
    error = errors[name].get(metric)
    return f"{float(scores[name][metric]):.4g}" + (
        "" if error is None else f" ± {error:.2g}")
  rows = [["", *scores]] + [
      [metric, *(say(name, metric) for name in scores)]
      for metric in scores["model"]]
  small, large = ("x".join(map(str, data[k][:2])) for k in ("low_res", "shape"))
  return cards.columns(rows) + (
      f"\n{data['images']:,} test images of {data['name']}, {small} -> {large};"
      " ±: standard errors")
