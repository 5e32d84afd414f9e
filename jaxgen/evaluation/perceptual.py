"""The networks through which perceptual distances look, and their weights.

LPIPS wants two files that a user supplies: torchvision's AlexNet or VGG16, and
the linear weights that come with the package `lpips`. Nothing in them is run.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, files
from jaxgen.core import trait
from jaxgen.errors import UserError
from jaxgen.evaluation import weights
from jaxgen.evaluation.features import shrunk
from jaxgen.evaluation.images import weights_hash
from jaxgen.interop import tensor_files
from jaxgen.metrics.perceptual_distance import distance
from jaxgen.nets import convs, lpips
from jaxgen.sampling.sampler import Sampler

Array = jax.Array
VARIABLES = {"lpips_net": "JAXGEN_LPIPS_NET", "lpips_lin": "JAXGEN_LPIPS_LIN"}  # by flag
# How the checksums of the published files begin: torchvision's (that are in
# their names; AlexNet's had two), and version 0.1 of the linear weights.
PUBLISHED = {"alex": (("7be5be79", "4df8aa71"), "df73285e"), "vgg": (("397923af",), "a78928a0")}


@dataclasses.dataclass(frozen=True, eq=False)
class Perceptual:
  """How far apart images look.

  Attributes:
    name: Of its numbers.
    card: How they come about, as JSON.
    features: (params, x [B, H, W, C] in [-1, 1]) -> features of its layers.
    params: Its weights.
    linear: The weights of channels; None: none.
    fit: (shape of images [H, W, C]) -> what is wrong with it, or "".
    prepare: What images are made to before, uint8 [N, H, W, C]; None: nothing.
    batch: Pairs at a time.
  """

  name: str
  card: dict[str, Any]
  features: Callable[[Any, Array], Sequence[Array]]
  params: Any
  linear: Sequence[Array] | None
  fit: Callable[[tuple[int, ...]], str]
  prepare: Callable[[np.ndarray], np.ndarray] | None = None
  batch: int = 32

  def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of images uint8 [N, H, W, C] from others, float64 [N].

    Raises:
      UserError: The network cannot look at such images.
    """
    if why := self.fit(x.shape[1:]):
      raise UserError(f"{self.name} {why}")
    parts = []
    for i in range(0, len(x), self.batch):
      pair = [a[i : i + self.batch] for a in (x, y)]
      pair = [self.prepare(a) for a in pair] if self.prepare else pair
      n = len(pair[0])
      padded = [np.concatenate([a, np.repeat(a[-1:], self.batch - n, 0)]) for a in pair]
      d = self._program(self.params, self.linear, *padded)
      parts.append(np.asarray(d, np.float64)[:n])
    return np.concatenate(parts)

  @functools.cached_property
  def _program(self):
    def run(params, linear, x, y):
      with jax.default_matmul_precision("highest"):
        a, b = (self.features(params, core.on_device(i)) for i in (x, y))
        return distance(a, b, linear)

    return jax.jit(run)


def open_lpips(net: str | None = None, lin: str | None = None) -> Perceptual:
  """LPIPS, version 0.1, of files or of those that the environment names.

  Args:
    net: torchvision's weights of AlexNet or VGG16, a .pth; or
      $JAXGEN_LPIPS_NET.
    lin: The linear weights of the same network from the package lpips,
      lpips/weights/v0.1/alex.pth or vgg.pth; or $JAXGEN_LPIPS_LIN.

  Raises:
    UserError: One is missing, or does not hold such weights.
  """
  net, lin = lpips_files(net, lin)
  trunk, params = read(net, "torchvision's weights of AlexNet or VGG16", lpips.converted)
  what = f"the linear weights of LPIPS for {trunk.name}"
  linear = read(lin, what, functools.partial(lpips.linear, trunk))
  sha256, (nets, lins) = [tensor_files.sha256(path) for path in (net, lin)], PUBLISHED[trunk.name]
  card = {
    "network": trunk.name,
    "version": "0.1",
    "linear": True,
    "net": {"file": net.name, "sha256": sha256[0]},
    "lin": {"file": lin.name, "sha256": sha256[1]},
    "published": sha256[0].startswith(nets) and sha256[1].startswith(lins),
  }

  def features(params, x):
    x = jnp.repeat(x, 3, -1) if x.shape[-1] == 1 else x
    return lpips.features(trunk, params, x)

  def fit(shape):
    if min(shape[:2]) >= trunk.least and shape[2] in (1, 3):
      return ""
    return f"looks at images of {trunk.least}x{trunk.least} or more, grey or RGB, not {list(shape)}"

  return Perceptual(f"lpips@{trunk.name}", card, features, params, linear, fit)


def lpips_files(net: str | None, lin: str | None) -> tuple[pathlib.Path, pathlib.Path]:
  """Both files of LPIPS, of those that the environment names by default."""
  paths = {"lpips_net": net, "lpips_lin": lin}
  paths = {flag: path or os.environ.get(VARIABLES[flag]) for flag, path in paths.items()}
  for flag, path in paths.items():
    if not path:
      raise UserError(
        "LPIPS takes --lpips_net=FILE and --lpips_lin=FILE, and there is no "
        f"--{flag} (nor ${VARIABLES[flag]})"
      )
  return tuple(files.local(path) for path in paths.values())


def is_in_environment() -> bool:
  """Whether the environment names files for LPIPS."""
  return any(os.environ.get(v) for v in VARIABLES.values())


def read(path: pathlib.Path, what: str, convert: Callable) -> Any:
  """Weights made of the tensors of a file; UserError if they are others."""
  return weights.converted(path, what, weights.tensors(path), convert)


def of_classifier(
  sampler: Sampler, name: str | None = None, shape: tuple[int, ...] | None = None
) -> Perceptual:
  """The same distance by the features of a classifier that was trained here.

  What every normalised convolution of `nets.convs.Classifier` hands on, from
  the images' own size down to 4 x 4; nobody has weighed its channels. Such
  numbers rank what was judged by the same classifier, and nothing else.

  Args:
    sampler: The classifier.
    name: Of its features; default: "DATA-cnn".
    shape: [H, W, C] of images, where they are larger than it was trained on:
      they shrink to its size first.

  Raises:
    UserError: The model is no such classifier, or one of noisy images.
  """
  model, where = sampler.model, sampler.card["workdir"]
  net = trait(model, "net")
  if not isinstance(net, convs.Classifier):
    raise UserError(
      f"{where} is no classifier of nets.convs: perceptual "
      "distances look through one, see configs/photos_judge.py"
    )
  if trait(model, "process") is not None:
    raise UserError(
      f"{where} is a classifier of noisy images: want one of "
      "clean ones, see configs/photos_judge.py"
    )
  name = name or sampler.card["dataset"].rpartition("/")[2].replace(":", "-") + "-cnn"
  own, seen = tuple(sampler.shape), tuple(shape or sampler.shape)
  card = {
    "network": name,
    "resize": "none" if seen == own else f"to {own[0]}",
    "linear": False,
    "classifier": sampler.card,
    "weights": weights_hash(sampler.state),
  }

  def features(state, x):
    return convs.maps(net, state.params["net"], x)

  def fit(shape):
    return "" if tuple(shape) == seen else f"looks at images {list(seen)}, not {list(shape)}"

  prepare = None if seen == own else functools.partial(shrunk, size=own[0])
  return Perceptual(f"perceptual@{name}", card, features, sampler.state, None, fit, prepare)
