"""Saving and restoring a config's state, beside plain writes and reads of as many bytes.

Bytes are those of the state's arrays, whatever compression makes of them. A restore
reads what was just written: of the system's cache, where memory holds it.
"""

import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, files, sharding
from jaxgen.bench.device import Progress, median_min_max
from jaxgen.convert.initial_state import DataSpec, stored_dtype
from jaxgen.data.arrays import Source
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data

ROUNDS = 3  # of each: saves and plain writes in turn
BLOCK = 1 << 23  # bytes of a plain write


def checkpoint_speed(config: ConfigDict, folder: str | None, progress: Progress) -> dict[str, Any]:
  """Megabytes a second of checkpoints, and of the disk below them.

  Args:
    config: Its state is saved, with moments and averages. Of noise, for zeros
      and what is rounded off compress as no trained state does.
    folder: Where; what is made there goes again. Default: the system's for such files.
    progress: Gets what is being done.

  Returns:
    bytes: Of the state; leaves: their number; blocked_s: until training could go on;
    and save, write, restore, read: megabytes a second, median, least and most of ROUNDS.

  Raises:
    UserError: There is no such folder on this machine, or too little room.
  """
  progress("initialising")
  experiment, source = Experiment.of(config), data_of(config)
  abstract = experiment.abstract(source, sharding.make_mesh(config.mesh))
  leaves = jax.tree.leaves(abstract)
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  check_room(folder, size)
  state = of_noise(abstract)
  seconds: dict[str, list[float]] = {k: [] for k in ("save", "write", "restore", "read", "blocked")}
  for i in range(ROUNDS):
    progress(f"saving and restoring, round {i + 1} of {ROUNDS}")
    with tempfile.TemporaryDirectory(prefix="jaxgen-bench-", dir=folder) as place:
      rows = time_checkpoint(place, state, abstract, describe(config, source))
      rows |= time_plain(pathlib.Path(place) / "plain", size)
    for name, value in rows.items():
      seconds[name].append(value)
  speed = {
    name: median_min_max([size / 1e6 / s for s in values])
    for name, values in seconds.items()
    if name != "blocked"
  }
  blocked = median_min_max(seconds["blocked"])
  return {"bytes": size, "leaves": len(leaves), "blocked_s": blocked, "mb_per_s": speed}


def data_of(config: ConfigDict) -> Source | DataSpec:
  """The data of a config, which need not be there if it says how large images are."""
  try:
    return open_data(config)
  except UserError:
    if not (size := config.data.size):
      raise
    shape = (size, size, config.data.channels or 3)
    return DataSpec(config.data.source, shape, config.data.classes, stored_dtype(config, shape))


def of_noise(abstract: core.State) -> core.State:
  """A state with normal draws in the place of all floats, and zeros in that of counters."""
  draw = np.random.default_rng(0).standard_normal

  def fill(leaf):
    floats = jnp.issubdtype(leaf.dtype, jnp.floating)
    values = draw(leaf.shape, np.float32) if floats else np.zeros(leaf.shape)
    return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

  return jax.tree.map(fill, abstract)


def check_room(folder: str | None, size: int) -> None:
  """UserError unless a folder is there, with room for a checkpoint and plain bytes."""
  place = folder or tempfile.gettempdir()
  if files.choose(place, False, True):
    raise UserError(f"--workdir={place}: a disk is measured here, so name a folder of this machine")
  if not os.path.isdir(place):
    raise UserError(f"there is no folder {place}: make it, or take another --workdir")
  free = shutil.disk_usage(place).free
  if free < 2.5 * size:
    raise UserError(
      f"{place} has {free / 1e9:.1f} GB of room, and this takes {2.5 * size / 1e9:.1f}: take "
      "another --workdir"
    )


def time_checkpoint(
  workdir: str, state: Any, abstract: Any, meta: dict[str, Any]
) -> dict[str, float]:
  """Seconds of a save, until it is on disk; until it blocks no more; of a restore."""
  from jaxgen.checkpoint.manager import Checkpoints  # Orbax takes seconds to import

  with Checkpoints(workdir, every=1, log=lambda line: None) as checkpoints:
    start = time.perf_counter()
    checkpoints.save(0, state, meta, force=True)
    blocked = time.perf_counter() - start
    if why := checkpoints.wait():
      raise UserError(why)
    os.sync()
    saved = time.perf_counter() - start
    restore = timed(lambda: jax.block_until_ready(checkpoints.restore(abstract)[1]))
  return {"save": saved, "blocked": blocked, "restore": restore}


def time_plain(path: pathlib.Path, size: int) -> dict[str, float]:
  """Seconds to write so many random bytes, up to the disk; and to read them."""
  block = os.urandom(min(size, BLOCK))

  def write():
    with path.open("wb") as f:
      for at in range(0, size, len(block)):
        f.write(block[: size - at])
      f.flush()
      os.fsync(f.fileno())
    os.sync()

  def read():
    with path.open("rb") as f:
      while f.read(BLOCK):
        pass

  return {"write": timed(write), "read": timed(read)}


def timed(function: Callable[[], Any]) -> float:
  """Seconds that a call takes."""
  start = time.perf_counter()
  function()
  return time.perf_counter() - start
