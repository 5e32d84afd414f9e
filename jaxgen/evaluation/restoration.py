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
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import files
from jaxgen.data.sources import open_split
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.evaluation import perceptual
from jaxgen.evaluation.drawing import weights_hash
from jaxgen.evaluation.restored import Case, table
from jaxgen.files import plain
from jaxgen.monitor import pictures
from jaxgen.sampling import output
from jaxgen.sampling.sampler import Sampler, load

FLAGS = {
    "perceptual": "workdir of a classifier whose features tell images apart",
    "lpips_net": "AlexNet's or VGG16's weights, for LPIPS",
    "lpips_lin": "LPIPS' linear weights for that network",
    "picture": "x.png gets small images, bicubic, the model's, originals"}


def define(values: flags.FlagValues, picture: bool = True) -> None:
  """The flags of a verb that are for models which enlarge images."""
  for name, text in FLAGS.items():
    if picture or name != "picture":
      flags.DEFINE_string(name, None, f"of an upsampler: {text}",
                          flag_values=values)


def check_flags(values: flags.FlagValues) -> None:
  """UserError if flags of an upsampler are given for something else."""
  for name in FLAGS:
    if name in values and values[name].value is not None:
      raise UserError(f"--{name} is for a --workdir of a model that makes x "
                      "from small images, without --protocol")


def enlarges(model: Any) -> bool:
  """Whether a model makes x from small images."""
  return "low_res" in getattr(model, "cond", {})


def judge(values: flags.FlagValues, model: Sampler, knobs: Mapping[str, float],
          data: ConfigDict) -> None:
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
  card["made"] = plain(model.card | {
      "weights": weights_hash(model.state), "seed": values.seed,
      "num": len(case.x), "knobs": output.json_knobs(model.settings(dict(knobs)))})
  for look in looks:
    if not look.card.get("published", True):
      print(f"jaxgen: the weights of {look.name} are not those that were "
            "published", file=sys.stderr)
  print(table(card))
  if values.out:
    files.write_json(values.out, card)
  if values.picture:
    pictures.save_png(values.picture, case.picture(made), {
        "columns": "small, bicubic, the model's, original", "card": card})


def case_of(model: Sampler, data: ConfigDict, num: int | None) -> Case:
  """The test images that a model's own small images are made of.

  Raises:
    UserError: It wants more than small images, or others than those.
  """
  if set(model.model.cond) != {"low_res"}:
    raise UserError(f"this model makes x from {', '.join(model.model.cond)}: "
                    "only those of low_res alone are judged")
  test = open_split(data, "test")
  if test.shape != tuple(model.shape) or test.dtype != np.uint8:
    raise UserError(f"this model makes {list(model.shape)}, but {test.name} "
                    f"holds {test.dtype} {list(test.shape)}")
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
  def of(cls, model: Sampler, data: ConfigDict, values: flags.FlagValues
         ) -> "Pairs":
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
    return {"features": self.features, "reference": self.case.test.name,
            "fingerprint": self.case.test.fingerprint, "images": self.count}

  def conditions(self, model: Sampler, n: int
                 ) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Labels, if the model wants them, and small images: all n pairs."""
    if n != self.count:
      raise UserError(f"num={n}: there are {self.count} pairs")
    labels = self.case.y if model.classes else None
    return labels, {"low_res": self.case.low_res}

  def scores(self, x: np.ndarray, y: np.ndarray | None, cas: bool = True
             ) -> dict[str, list[float]]:
    """Images [N, H, W, C] against the originals."""
    del y, cas
    found = self.case.scores(x, self.looks)
    return {k: [float(np.mean(v))] for k, v in found.items()}

  @functools.cache  # noqa: B019 (frozen, and one of it)
  def floor(self) -> dict[str, list[float]]:
    """Bicubic interpolation."""
    return self.scores(self.case.interpolated("bicubic"), None)
