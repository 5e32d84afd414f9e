"""Plain samples by several processes: each writes its share, the first joins them.

Of every batch each process keeps the rows of its own devices as a file, named by
the range of samples in it, in a folder beside the output. A command that was
killed goes on with the batches that are not all there, on as many processes or
others: sample i is the same whoever draws it.
"""

import collections
import contextlib
import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen import files
from jaxgen.checkpoint.fingerprint import fingerprint
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.sampling.sampler import Sampler, key_of

KEY = "begun_by_jaxgen.json"  # in the folder: whose parts these are
PART = re.compile(r"(\d{10})-(\d{10})\.npy")
LATE = 30.0  # seconds after which a file server shows what others wrote, at the most
AHEAD = 1  # batches that the devices are ahead of the disk


def folder_of(out: str) -> Path:
  """Where parts of an output lie until it is written."""
  place = files.path(out)
  return place.with_name(f"{place.name}.partial")


def draw(
  model: Sampler,
  seed: int,
  num: int,
  labels: np.ndarray | None,
  *,
  batch: int,
  knobs: Mapping[str, float],
  out: str,
) -> np.ndarray:
  """Samples as `Sampler.sample` draws them; called by all processes alike.

  Args:
    model: What is sampled.
    seed: Of all randomness.
    num: How many.
    labels: [num], or None without classes.
    batch: Drawn at once by all devices.
    knobs: Those that are not at their defaults.
    out: What is going to be written: parts lie beside it, see `forget`.

  Returns: All samples in process 0, [0, ...] in the others.

  Raises:
    UserError: samples are not finite, or what lies beside the output is not ours,
      or not seen by all processes.
  """
  settings = model.settings(dict(knobs))
  batch = min(batch, num) + -min(batch, num) % model.mesh.size
  folder = folder_of(out)
  work = _work(model, seed, num, labels, settings)
  parts = [tuple(part) for part in join.share(lambda: _claim(folder, work))]
  _check_shared(folder, work)
  missing = [i for i in range(0, num, batch) if not covered(parts, i, min(i + batch, num))]
  conditions = {} if labels is None else {"y": labels}
  queue: collections.deque = collections.deque()
  for first in missing:
    which = range(first, first + batch)
    (inputs,) = model.inputs(key_of(seed), which, batch, conditions, settings)
    queue.append((first, *model.program(*inputs)))
    if len(queue) > AHEAD:
      _keep(folder, num, knobs, *queue.popleft())
  for drawn in queue:
    _keep(folder, num, knobs, *drawn)
  join.barrier("the samples' end")
  if not join.is_main_process():
    return np.empty((0, *model.shape), model.dtype)
  if not covered(_parts(folder), 0, num):
    raise UserError(f"{folder} lacks samples that were written there: start the same command again")
  return joined(folder, num)


def has_parts(out: str) -> bool:
  """Whether parts of an output may be there."""
  return (folder_of(out) / KEY).is_file()


def forget(out: str) -> None:
  """Removes the parts of an output that is written."""
  if not has_parts(out):
    return
  folder = folder_of(out)
  with contextlib.suppress(OSError):
    for path in sorted(folder.iterdir(), key=lambda p: p.name == KEY):
      if path.name == KEY or PART.fullmatch(path.name) or path.name.startswith(files.DRAFT):
        path.unlink()
    folder.rmdir()


def covered(parts: Sequence[tuple[int, int]], first: int, stop: int) -> bool:
  """Whether parts (start, stop) hold all of a range."""
  for start, end in sorted(parts):
    if start <= first < end:
      first = end
  return first >= stop


def joined(folder: Path, num: int) -> np.ndarray:
  """The samples of all parts [num, ...], which cover them."""
  x = None
  for start, stop in _parts(folder):
    name = folder / _name(start, stop)
    try:
      rows = np.load(io.BytesIO(name.read_bytes()), allow_pickle=False)
      if len(rows) != stop - start:
        raise ValueError(f"{len(rows)} rows")
    except (ValueError, EOFError) as e:
      name.unlink(missing_ok=True)
      raise UserError(f"{name} was damaged, and is removed: the same command draws it anew") from e
    x = np.empty((num, *rows.shape[1:]), rows.dtype) if x is None else x
    x[start:stop] = rows
  return x


def _work(
  model: Sampler, seed: int, num: int, labels: np.ndarray | None, settings: Mapping[str, float]
) -> dict[str, Any]:
  """What makes samples the same."""
  weights, _ = fingerprint({"params": model.state.params, "stats": model.state.stats})
  own = {k: v for k, v in model.card.items() if k != "workdir"}
  y = None if labels is None else labels.tolist()
  facts = {"card": own, "seed": seed, "knobs": settings, "labels": y, "weights": weights}
  return {"samples": num, "key": files.digest(files.plain(facts))}


def _claim(folder: Path, work: Mapping[str, Any]) -> list[tuple[int, int]]:
  """The parts that are there already, in a folder that is ours from now on.

  Those of other work are removed.
  """
  mark = folder / KEY
  if mark.is_file():
    with contextlib.suppress(ValueError):
      if json.loads(mark.read_bytes()) == work:
        return _parts(folder)
    for start, stop in _parts(folder):
      (folder / _name(start, stop)).unlink()
  elif files.lexists(folder) and (not folder.is_dir() or files.names(folder)):
    raise UserError(f"{folder} is where samples are kept until all are drawn: move it away")
  files.write_json(mark, work)
  return []


def _check_shared(folder: Path, work: Mapping[str, Any]) -> None:
  """UserError where this process does not see the folder that the first one claimed."""
  end = time.monotonic() + LATE
  while True:
    with contextlib.suppress(OSError, ValueError):
      if json.loads((folder / KEY).read_bytes()) == files.plain(work):
        return
    if time.monotonic() > end:
      raise UserError(
        f"process {jax.process_index()} does not see {folder}, which process 0 has made: --out "
        "must lie where all of them see it"
      )
    time.sleep(0.1)


def _parts(folder: Path) -> list[tuple[int, int]]:
  """(start, stop) of all parts in a folder."""
  matches = map(PART.fullmatch, sorted(files.names(folder)))
  return [(int(m[1]), int(m[2])) for m in matches if m]


def _name(start: int, stop: int) -> str:
  return f"{start:010d}-{stop:010d}.npy"


def _keep(
  folder: Path, num: int, knobs: Mapping[str, float], first: int, x: jax.Array, finite: jax.Array
) -> None:
  """Writes this process's rows of a batch; UserError if any of the batch is not finite."""
  if not jax.device_get(finite):
    raise UserError(Sampler.not_finite(knobs))
  for start, rows in _runs(x):
    rows = rows[: max(num - first - start, 0)]
    if len(rows):
      at = first + start
      with files.atomic(folder / _name(at, at + len(rows))) as draft, draft.open("wb") as file:
        np.save(file, rows)


def _runs(x: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
  """This process's rows of an array that is cut along the first axis, in one piece each."""
  shards = sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)
  start, run = None, []
  for shard in shards:
    at = shard.index[0].start or 0
    if start is not None and at != start + sum(map(len, run)):
      yield start, np.concatenate(run)
      start, run = None, []
    start = at if start is None else start
    run.append(np.asarray(shard.data))
  if run:
    yield start, np.concatenate(run)
