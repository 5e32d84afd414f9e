"""The networks that metrics look through: bytes in, float32 features out.

InceptionV3 for FID, KID, precision and recall; DINOv2; any classifier of ours.
Whatever sizes images have, a network is compiled once: a small program for
their size brings them to its own (resize.py), and the last batch is padded.
"""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxgen import sharding
from jaxgen.data import image
from jaxgen.errors import UserError
from jaxgen.evaluation import resize as grids
from jaxgen.evaluation import weights as published
from jaxgen.evaluation.resize import (
  Entry,
  bilinear,
  by_pil,
  check_images,
  clean,
  rounded,
  smooth,
  unresized,
)
from jaxgen.nets import dinov2 as dino
from jaxgen.nets import inception as incept

Array = jax.Array
Features = dict[str, np.ndarray]
MOST = 256  # images in a batch, at most by default


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
  """A network, its weights, and how images come before it.

  Attributes:
    name: For the names of metrics.
    sha256: Of the file of weights.
    taps: Features that it has; the first is taken where nobody says which.
    card: How features come about, as JSON.
    entry: How images come to what `apply` takes.
    apply: (params, x, taps) -> features [B, D] of float32 by tap.
    params: Its weights.
    batch: Images at a time, on all devices of this process together.
    channels: That images must have; None: any.
    shape: [H, W, C] of images; None: any. What has more channels loses them.
  """

  name: str
  sha256: str
  taps: tuple[str, ...]
  card: dict[str, Any]
  entry: Entry
  apply: Callable[[Any, Array, tuple[str, ...]], dict[str, Array]]
  params: Any
  batch: int
  channels: int | None = 3
  shape: tuple[int, ...] | None = None

  def features(self, images: Iterable[np.ndarray], taps: tuple[str, ...] | None = None) -> Features:
    """Looks at images.

    Args:
      images: Batches uint8 [n, H, W, C], of any lengths and sizes.
      taps: Which features; by default the first of `self.taps`.

    Returns:
      Float32 [N, D] by tap, rows in the order of the images.
    """
    parts = list(self.stream(images, taps or self.taps[:1]))
    if not parts:
      raise UserError("there are no images to look at")
    return {tap: np.concatenate([p[tap] for p in parts]) for tap in parts[0]}

  def stream(self, images: Iterable[np.ndarray], taps: tuple[str, ...]) -> Iterator[Features]:
    """The same, batch by batch. One is made ready while one is looked at."""
    for tap in taps:
      if tap not in self.taps:
        raise UserError(f"{self.name} has no features {tap!r}, but " + ", ".join(self.taps))
    queue = collections.deque()
    for count, x in early(self._on_devices(images)):
      queue.append((count, self.look(x, tuple(taps))))
      if len(queue) > 1:
        yield on_host(*queue.popleft())
    for count, features in queue:
      yield on_host(count, features)

  def enter(self, images: np.ndarray) -> Array:
    """A batch uint8 [n, H, W, 3], n at most `batch`, on the devices as `look` takes it."""
    return next(self._on_devices([images]))[1]

  def look(self, x: Array, taps: tuple[str, ...]) -> dict[str, Array]:
    """Features of a batch that was `enter`ed, on the devices, by tap."""
    return self._look(self._params, x, taps)

  def _on_devices(self, images):
    """Batches of full length, and how many of their images are no padding."""
    singles = (self._fit(x) for batch in images for x in batch)
    layouts = {1: sharding.replicated(self._mesh)}  # of arrays that belong to all images
    while part := list(itertools.islice(singles, self.batch)):
      check_images(part, self.channels)
      padding = [np.zeros_like(part[-1])] * (self.batch - len(part))
      arrays = self.entry.prepare([*part, *padding])
      by_image = sharding.batched(self._mesh)
      yield (
        len(part),
        self._enter(*(jax.device_put(a, layouts.get(a.ndim, by_image)) for a in arrays)),
      )

  def _fit(self, x):
    if self.shape is None:
      return x
    height, width, channels = self.shape
    if x.shape[:2] != (height, width):
      raise UserError(
        f"{self.name} looks at images of {width}x{height}, not {x.shape[1]}x{x.shape[0]}"
      )
    return x[..., :channels]

  @functools.cached_property
  def _mesh(self):
    return local_mesh()

  @functools.cached_property
  def _params(self):
    params = self.params
    if jax.process_count() > 1:  # they may be on the devices of all
      params = jax.device_get(params)
    return jax.device_put(params, sharding.replicated(self._mesh))

  @functools.cached_property
  def _enter(self):
    return jax.jit(self.entry.enter)

  @functools.cached_property
  def _look(self):
    def look(params, x, taps):
      with jax.default_matmul_precision("highest"):
        return self.apply(params, x, taps)

    return jax.jit(look, static_argnums=2)


def local_mesh() -> Mesh:
  """The devices of this process: each looks at images of its own."""
  return Mesh(np.array(jax.local_devices()), ("data",), axis_types=(AxisType.Auto,))


def on_host(count: int, features: Mapping[str, Array]) -> Features:
  """Features of the first `count` images of a batch: the others are padding."""
  return {k: np.asarray(v, np.float32)[:count] for k, v in jax.device_get(features).items()}


def early(items: Iterator[Any], ahead: int = 2) -> Iterator[Any]:
  """Items, each drawn by a thread while those before it are used."""
  end = object()
  with ThreadPoolExecutor(1) as pool:
    queue = collections.deque(pool.submit(next, items, end) for _ in range(ahead))
    while (item := queue.popleft().result()) is not end:
      queue.append(pool.submit(next, items, end))
      yield item


def batch_size(batch: int | None) -> int:
  """A number of images that divides among the devices."""
  devices = jax.local_device_count()
  # CPUs like what fits their caches (8: 0.13 s of a core for each image, 16:
  # 0.14 s, 32: 0.15 s), accelerators whatever fills them.
  each = 16 if jax.default_backend() == "cpu" else 128
  batch = batch or min(each * devices, max(MOST, devices))
  return max(batch // devices, 1) * devices


def open_extractor(
  name: str, weights: str | os.PathLike | None = None, resize: str = "tf", batch: int | None = None
) -> Extractor:
  """A published network by name: "inception" or "dinov2".

  Args:
    name: Of the network.
    weights: A file; by default wherever it is found, see `weights.find`.
    resize: Of Inception, see `inception`.
    batch: Images at a time.
  """
  if name == "inception":
    return inception(weights, resize, batch)
  if name == "dinov2":
    return dinov2(weights, batch=batch)
  raise UserError(f"there is no network {name!r}: take inception or dinov2")


def inception(
  weights: str | os.PathLike | published.Weights | None = None,
  resize: str = "tf",
  batch: int | None = None,
) -> Extractor:
  """FID's Inception.

  Args:
    weights: A file, see `weights.inception`; or what was read of one.
    resize: "tf", "half_pixel" (pytorch-fid), "clean" (clean-fid) or "none":
      images are looked at in their own size.
    batch: Images at a time.
  """
  entries = {  # to their size, and to [-1, 1]
    "tf": (bilinear(grids.tf1, incept.SIZE), half),
    "half_pixel": (bilinear(grids.half_pixel, incept.SIZE), unit),
    "clean": (by_pil(clean, incept.SIZE), half),
    "none": (unresized(), unit),
  }
  entry, normalise = by_name(entries, resize)
  net = incept.Inception()

  def apply(params, x, taps):
    return net.apply({"params": params}, normalise(x), taps)

  file = weights if isinstance(weights, published.Weights) else published.inception(weights)
  return of_weights(
    "inception", "inception-2015-12-05", file, resize, tuple(incept.TAPS), entry, apply, batch
  )


def dinov2(
  weights: str | os.PathLike | None = None, resize: str = "smooth", batch: int | None = None
) -> Extractor:
  """DINOv2's ViT-L/14 at 224 pixels, as FD-DINOv2 has it.

  Args:
    weights: A file, see `weights.dinov2`.
    resize: "smooth" (EDM2's: antialiased bicubic in float) or "rounded"
      (dgm-eval's: PIL's bicubic of bytes).
    batch: Images at a time.
  """
  entry = by_pil(by_name({"smooth": smooth, "rounded": rounded}, resize), dino.SIZE)
  net = dino.DINOv2()

  def apply(params, x, taps):
    x = (x / 255 - jnp.array(dino.MEAN)) / jnp.array(dino.STD)
    return {tap: net.apply({"params": params}, x) for tap in taps}

  file = published.dinov2(weights)
  return of_weights("dinov2-vitl14", "dinov2_vitl14", file, resize, ("cls",), entry, apply, batch)


def of_weights(
  name: str,
  network: str,
  weights: published.Weights,
  resize: str,
  taps: tuple[str, ...],
  entry: Entry,
  apply: Callable,
  batch: int | None,
) -> Extractor:
  """A published network, whose card says how features come about.

  Other weights than the published ones add their checksum to its name.
  """
  if not weights.published:
    name = f"{name}-{weights.sha256[:8]}"
  card = {
    "network": network,
    "weights": weights.file,
    "sha256": weights.sha256,
    "published": weights.published,
    "resize": resize,
    "precision": "float32",
    "backend": jax.default_backend(),
  }
  return Extractor(
    name, weights.sha256, taps, card, entry, apply, weights.params, batch_size(batch)
  )


def classifier(
  model: Any,
  state: Any,
  name: str,
  sha256: str,
  batch: int | None = None,
  shape: tuple[int, ...] | None = None,
  size: int | None = None,
) -> Extractor:
  """A classifier of ours, by its `embed` and `logits` of {"x": images}.

  Args:
    model: Such as `models.classifier.Classifier`.
    state: What it was trained to.
    name: For the names of metrics.
    sha256: Identifies its weights.
    batch: Images at a time.
    shape: [H, W, C] of the images.
    size: Side to which they shrink first; None: they are of its own size.
  """

  def apply(state, x, taps):
    x = {"x": unit(x)}
    functions = {"features": model.embed, "logits": model.logits}
    return {tap: functions[tap](state, x) for tap in taps}

  return Extractor(
    name,
    sha256,
    ("features", "logits"),
    {"network": name, "sha256": sha256, "resize": f"to {size}" if size else "none"},
    by_pil(lambda x, size: shrunk(x[None], size)[0], size) if size else unresized(),
    apply,
    state,
    batch_size(batch),
    channels=None,
    shape=shape,
  )


def shrunk(x: np.ndarray, size: int) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> [N, size, size, C], as data are: image.crop."""
  return image.fit(x, size, None)


def by_name(table: Mapping[str, Any], resize: str) -> Any:
  """The entry of a resize; UserError if there is none."""
  if resize not in table:
    raise UserError(f"there is no resize {resize!r}, but " + ", ".join(table))
  return table[resize]


def half(x: Array) -> Array:
  """Bytes -> [-1, 1), as FID's graph has it."""
  return (x.astype(jnp.float32) - 128) / 128


def unit(x: Array) -> Array:
  """Bytes -> [-1, 1], as PyTorch's have it."""
  return x.astype(jnp.float32) / 127.5 - 1
