"""Batches as a pure function of the step, and how fast they come."""

import atexit
import contextlib
import ctypes
import dataclasses
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator

import numpy as np

from jaxgen.data import image, order
from jaxgen.data.arrays import Example, Source
from jaxgen.data.clips import Clips
from jaxgen.data.latent_rows import Latents
from jaxgen.errors import UserError

LEAST_CROP = 0.1  # images grow by its inverse before they are cut


@dataclasses.dataclass(frozen=True, repr=False)
class Batches:
  """Random access to the endless training stream: batches[step].

  A batch is this process's contiguous share of the global batch of `step`;
  the shares of all processes, one after the other, are the same global
  batch for every number of processes.
  """

  source: Source
  batch: int  # the global batch
  seed: int
  flip: bool = False
  process: int = 0
  processes: int = 1
  crop: float = 0.0

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, step: int) -> Example:
    share = self.batch // self.processes
    first = int(step) * self.batch + self.process * share
    positions = np.arange(first, first + share)
    indices = order.indices(self.seed, len(self.source), positions)
    cut = None
    if self.crop:
      words, size = order.crops(self.seed, positions), self.source.shape[0]
      cut = lambda k, x: image.random_crop(x, size, self.crop, words[k])
    mirror = order.flips(self.seed, positions) if self.flip else None
    if isinstance(self.source, Latents):
      return self.source.read(indices, mirror=mirror)
    if isinstance(self.source, Clips):
      return self.source.read(indices, words=order.crops(self.seed, positions)[:, 0])
    batch = self.source.read(indices, cut)
    for images in (v for v in batch.values() if mirror is not None and v.ndim == 4):
      images[mirror] = images[mirror, :, ::-1]  # x, and the source it is made of
    return batch


def batches(
  source: Source,
  *,
  batch: int,
  seed: int,
  start: int = 0,
  flip: bool = False,
  crop: float = 0.0,
  process: int = 0,
  processes: int = 1,
  workers: int = 0,
  threads: int | None = None,
) -> Iterator[Example]:
  """This process's batches {"x", "y"} from step `start` on, without end.

  Each epoch shows every example once in an order of its own; epochs follow
  each other without a gap, so a batch may hold the end of one and the
  beginning of the next. `batch` counts over all processes. `flip` mirrors
  every other example left to right by chance. `crop` > 0 takes random squares
  of at least that share of the image as it is stored, see image.random_crop;
  0 takes the middle one.

  Args:
    workers: Processes that read and decode ahead (they need the main module
      to be importable); 0 for none.
    threads: Threads that do so, in each worker or here; 0 reads on demand.
      By default 0 for what lies in memory and 8 for what must be decoded or
      cropped.

  Raises:
    UserError: for sizes that do not go together.
  """
  stream = Batches(source, batch, seed, flip, process, processes, crop)
  _check(stream, start, workers)
  if threads is None:
    threads = 0 if source.in_memory and not crop else 8
  if not workers and not threads:
    return (stream[step] for step in itertools.count(start))
  return _ahead(stream, start, workers, threads)


def epoch(source: Source, batch: int) -> Iterator[Example]:
  """Every example once, in the source's order; the last batch is shorter."""
  for first in range(0, len(source), batch):
    yield source.read(np.arange(first, min(first + batch, len(source))))


def throughput(
  source: Source, batch: int = 128, seconds: float = 2.0, **options
) -> dict[str, float]:
  """How fast batches() delivers: examples/s and MB/s, after the first.

  `options` are those of batches(). Takes `seconds` and at least one batch.
  """
  stream = batches(source, batch=batch, **{"seed": 0} | options)
  with contextlib.closing(stream):
    begin = time.perf_counter()
    next(stream)  # the order of the epoch, threads and workers starting
    start = time.perf_counter()
    count = size = 0
    while (elapsed := time.perf_counter() - start) < seconds or not count:
      example = next(stream)
      arrays = [*example.pop("z", {}).values(), *example.values()]
      count += len(arrays[0])
      size += sum(a.nbytes for a in arrays)
  return {
    "examples_per_s": count / elapsed,
    "mb_per_s": size / elapsed / 1e6,
    "first_batch_s": start - begin,
    "seconds": elapsed,
  }


def _check(stream: Batches, start: int, workers: int) -> None:
  batch, process, processes = stream.batch, stream.process, stream.processes
  if batch < 1 or processes < 1 or batch % processes:
    raise UserError(f"a batch of {batch} cannot be shared evenly by {processes} processes")
  if not 0 <= process < processes or start < 0 or workers < 0:
    raise UserError(
      f"process {process} of {processes}, start {start}, workers {workers}:"
      " none may be negative, and process must be less than processes"
    )
  if stream.flip and len(stream.source.shape) != 3:
    raise UserError(f"flip mirrors images, and {stream.source.name} holds none")
  check_latents(stream.source, stream.flip, stream.crop)
  check_crop(stream.source, stream.crop)


def check_latents(source: Source, flip: bool, crop: float) -> None:
  """UserError if latents are to be treated as only images can be."""
  if not isinstance(source, Latents):
    return
  if flip and not source.mirrored:
    raise UserError(
      f"data.flip: {source.name} holds no latents of mirror images, so write them by "
      "`jaxgen encode --flip`, or set config.data.flip=False"
    )
  if crop:
    raise UserError(f"data.crop cuts images, and {source.name} holds latents: set it to 0")


def check_crop(source: Source, crop: float) -> None:
  """UserError if a source cannot be cropped so."""
  if not crop:
    return
  if len(source.shape) != 3 or source.shape[0] != source.shape[1]:
    raise UserError(f"crop takes squares of images, and {source.name} holds {list(source.shape)}")
  if not LEAST_CROP <= crop <= 1:
    raise UserError(f"crop={crop}: want 0 (off) or a share from {LEAST_CROP} to 1, such as 0.8")


def _ahead(stream: Batches, start: int, workers: int, threads: int) -> Iterator[Example]:
  """The stream from `start` on, read ahead by grain."""
  import grain  # here, because grain brings jax with it

  data = grain.MapDataset.source(stream)[start:].to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * threads, 1))
  )
  if workers:
    _parse_no_flags()
    # Through pipes: shared memory is left behind by whoever is killed, and
    # against decoding the copy is nothing.
    pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    data = grain.experimental.WithOptionsIterDataset(data, pipes)
    data = data.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
      worker_init_fn=_die_with_parent,
    )
  iterator = iter(data)
  atexit.register(iterator.close)  # or its helpers outlive the interpreter
  try:
    with _children_on_cpu():  # they start now
      first = next(iterator)
    yield first
    yield from iterator
  finally:
    atexit.unregister(iterator.close)
    iterator.close()


def _parse_no_flags() -> None:
  """Grain hands absl's flags to its workers and fails if none are parsed."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS(sys.argv[:1])


@contextlib.contextmanager
def _children_on_cpu():
  """A worker imports jax through grain and must leave accelerators alone."""
  before = {k: v for k, v in os.environ.items() if k == "JAX_PLATFORMS"}
  os.environ["JAX_PLATFORMS"] = "cpu"
  try:
    yield
  finally:
    del os.environ["JAX_PLATFORMS"]
    os.environ.update(before)


def _die_with_parent(worker: int, workers: int) -> None:
  """Linux kills this worker when its trainer is gone, however that died."""
  if sys.platform == "linux":
    pr_set_pdeathsig = 1
    ctypes.CDLL("libc.so.6").prctl(pr_set_pdeathsig, signal.SIGKILL)
