"""What runs a network over images: bytes in, float32 features out.

Whatever sizes images have, a network is compiled once: a small program for
their size brings them to its own, and the last batch is padded.
"""
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxgen import sharding
from jaxgen.errors import UserError
from jaxgen.evaluation.resize import Entry, check

Array = jax.Array
Features = dict[str, np.ndarray]
MOST = 256  # images in a batch, at most by default


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
  """A network, its weights, and how images come before it.

  Attributes:
    name: For the names of metrics.
    sha256: Of the file of weights.
    taps: Features that it has; the first is what distances compare.
    card: How features come about, as JSON.
    entry: How images come to what `apply` takes.
    apply: (params, x, taps) -> features [B, D] of float32 by tap.
    params: Its weights.
    batch: Images at a time, on all devices of this process together.
    channels: That images must have; None: any.
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

  def features(self, images: Iterable[np.ndarray],
               taps: tuple[str, ...] | None = None) -> Features:
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

  def stream(self, images: Iterable[np.ndarray], taps: tuple[str, ...]
             ) -> Iterator[Features]:
    """The same, batch by batch. One is made ready while one is looked at."""
    for tap in taps:
      if tap not in self.taps:
        raise UserError(f"{self.name} has no features {tap!r}, but "
                        + ", ".join(self.taps))
    under_way = collections.deque()
    for count, x in early(self._placed(images)):
      under_way.append((count, self._look(self._params, x, tuple(taps))))
      if len(under_way) > 1:
        yield arrived(*under_way.popleft())
    for count, found in under_way:
      yield arrived(count, found)

  def _placed(self, images):
    """Batches of full length on devices, and how many images are real."""
    singles = (x for batch in images for x in batch)
    while part := list(itertools.islice(singles, self.batch)):
      check(part, self.channels)
      padding = [np.zeros_like(part[-1])] * (self.batch - len(part))
      arrays = self.entry.prepare([*part, *padding])
      yield len(part), self._enter(*(
          jax.device_put(a, sharding.replicated(self._mesh) if a.ndim == 1
                         else sharding.batched(self._mesh)) for a in arrays))

  @functools.cached_property
  def _mesh(self):
    return local_mesh()

  @functools.cached_property
  def _params(self):
    return jax.device_put(self.params, sharding.replicated(self._mesh))

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
  return Mesh(np.array(jax.local_devices()), ("data",),
              axis_types=(AxisType.Auto,))


def arrived(count: int, found: Mapping[str, Array]) -> Features:
  """Features of the real images among those of a batch."""
  return {k: np.asarray(v, np.float32)[:count] for k, v in
          jax.device_get(found).items()}


def early(items: Iterator[Any], ahead: int = 2) -> Iterator[Any]:
  """Items, each drawn by a thread while those before it are used."""
  end = object()
  with ThreadPoolExecutor(1) as pool:
    queue = collections.deque(
        pool.submit(next, items, end) for _ in range(ahead))
    while (item := queue.popleft().result()) is not end:
      queue.append(pool.submit(next, items, end))
      yield item


def batch_size(wanted: int | None) -> int:
  """A number of images that divides among the devices."""
  devices = jax.local_device_count()
  # CPUs like what fits their caches (8: 0.13 s of a core for each image, 16:
  # 0.14 s, 32: 0.15 s), accelerators whatever fills them.
  each = 16 if jax.default_backend() == "cpu" else 128
  wanted = wanted or min(each * devices, max(MOST, devices))
  return max(wanted // devices, 1) * devices
