"""One checkpoint on disk: whether it is complete, and its exact content.

    workdir/checkpoints/<step>/begun_by_jaxgen.txt   ours: before all else
                               state/        Orbax: arrays (OCDBT)
                               meta/         Orbax: JSON, see `manager`
                               commit_success.txt   Orbax: written last
                               SEAL.json     ours: {file: size}, after that

What jax reads is believed only if its fingerprint is the one that was stored.

One failed read or write is one line of ours, not Orbax's twenty tracebacks:
every error that `silence_orbax` silences has also been raised, to code that
reports it. TensorStore echoes it once per array that was under way: into event
loops that are closed by then, or into futures that nobody waits for any more.
"""

import hashlib
import importlib.metadata
import inspect
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jaxgen import files
from jaxgen.checkpoint import implied
from jaxgen.checkpoint.fingerprint import describe, fingerprint, named_leaves
from jaxgen.checkpoint.step_folder import COMMIT, SEAL, alike, present, sizes
from jaxgen.errors import UserError

UNFINISHED = "its save was never finished"  # no damage: killed while saving
FOREIGN = "it is no checkpoint of ours"


class DamagedError(Exception):
  """A step on disk is not what was saved; raised alike on every process."""


def folder(workdir: epath.PathLike) -> epath.Path:
  """The folder that holds one subfolder per step."""
  return epath.Path(files.path(workdir)).absolute() / "checkpoints"


def check_writable(root: epath.Path) -> None:
  """UserError if nothing can be written below a folder, which is made."""
  try:
    files.check_writable(root)
  except OSError as error:
    raise UserError(
      f"cannot write to {root} ({error.strerror or error}): "
      "choose another workdir or free some space"
    ) from error


def steps(workdir: epath.PathLike) -> list[int]:
  """Steps that are complete as far as names and sizes tell, oldest first."""
  root = folder(workdir)
  return [step for step in present(root) if problem(root / str(step)) is None]


def seal(path: epath.Path) -> None:
  """Write down what a committed step consists of; once, atomically."""
  if (path / SEAL).exists() or not (path / COMMIT).exists():
    return
  files.write_text(path / SEAL, json.dumps(sizes(path)))


def problem(path: epath.Path) -> str | None:
  """What is visibly wrong with a step, by names and sizes; None if nothing."""
  try:
    sealed, there = files.lexists(path / SEAL), sizes(path)
    if there and not alike(path):
      return FOREIGN
    pipes = [name for name, size in there.items() if size == -1]
    if pipes or sealed and not files.path(path / SEAL).is_file():
      return f"{(pipes or [SEAL])[0]!r} is no file"
    if COMMIT not in there:
      return f"{COMMIT} is missing" if sealed else UNFINISHED
    expected = json.loads((path / SEAL).read_text()) if sealed else there
    for name in expected | there:
      if name not in there:
        return f"{name!r} is missing"
      known = None not in (there[name], expected.get(name, -1))  # a bucket tells no sizes
      if known and there[name] != expected.get(name):
        return f"{name!r} has {there[name]} bytes instead of {expected.get(name, 'none')}"
  except (OSError, ValueError, AttributeError, TypeError) as error:
    return f"unreadable: {first_line(error)}"
  return None


def complete_meta(meta: dict[str, Any], step: int, leaves: dict[str, Any]) -> dict[str, Any]:
  """The caller's meta, and what it takes to trust and to understand it."""
  versions = {
    name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint")
  }
  meta = meta | {"step": step, "versions": versions, "leaves": leaves}
  return meta | {"digest": digest(meta)}


def digest(meta: dict[str, Any]) -> str:
  """Of everything but the digest itself."""
  content = {k: v for k, v in meta.items() if k != "digest"}
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_meta(path: epath.Path) -> dict[str, Any]:
  """The JSON that was saved with a step. Raises any error, also of content."""
  import orbax.checkpoint as ocp  # here, for it takes seconds

  meta = ocp.JsonCheckpointHandler().restore(path / "meta")
  if meta.get("digest") != digest(meta):
    raise ValueError("meta is not what was written")
  if str(meta["step"]) != path.name:
    raise ValueError(f"meta says that this is step {meta['step']}")
  return meta


def agreed_meta(path: epath.Path) -> dict[str, Any]:
  """`read_meta`; DamagedError on all processes if one of them cannot."""
  return read_everywhere(lambda: read_meta(path))


def load(path: epath.Path, abstract: Any, complete: bool = False) -> tuple[Any, dict[str, Any]]:
  """Reads the leaves of `abstract`.

  Args:
    path: folder of the step.
    abstract: pytree of jax.ShapeDtypeStruct. Leaves without a sharding are
      put on this process' first device.
    complete: whether these must be all the leaves there are.

  Returns:
    (pytree of arrays, meta), bit by bit what was saved.

  Raises:
    DamagedError: on all processes, if one of them cannot read its part or the
      arrays are not those that were saved.
    UserError: the checkpoint is sound but of another model.
  """
  path = epath.Path(path)
  meta = agreed_meta(path)
  compare_leaves(meta["leaves"], abstract, path, complete)
  abstract = jax.tree.map(_placed, abstract)
  read = lambda part: _read(path, part)
  state = read_everywhere(lambda: implied.read(abstract, meta["leaves"], read))
  for name, leaf in fingerprint(state)[0].items():
    if leaf != {k: meta["leaves"][name][k] for k in leaf}:
      raise DamagedError(f"{name} differs from what was saved")
  return state, meta


def _read(path, abstract):
  import orbax.checkpoint as ocp

  enable_arrays(path)
  restored = ocp.PyTreeCheckpointHandler().restore(
    path / "state",
    args=ocp.args.PyTreeRestore(
      item=abstract,
      partial_restore=True,
      restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    ),
  )
  for name, leaf in named_leaves(restored).items():
    if not isinstance(leaf, jax.Array):  # Orbax hands back what it lacks
      raise KeyError(name)
  return restored


def enable_arrays(path: epath.Path) -> None:
  """Lets Orbax keep arrays in a bucket; UserError if this version of it cannot."""
  if files.choose(path, False, True):
    from jaxgen.checkpoint import s3_arrays  # here, for it imports Orbax

    s3_arrays.enable(path)


def _placed(leaf):
  if leaf.sharding is not None:
    return leaf
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)


def read_everywhere(read: Callable[[], Any]) -> Any:
  """Its result, or DamagedError on every process if it fails on any of them.

  Reads have no barriers of their own, so the processes may meet here.
  """
  silence_orbax()
  result, why = None, ""
  try:
    result = read()
  except Exception as error:  # of nine kinds at least, by what is damaged
    why = f"unreadable: {first_line(error)}"
  if why := first_error(why):
    raise DamagedError(why)
  return result


def first_error(why: str | None) -> str:
  """The first process's objection, on all processes; empty if none objects."""
  if jax.process_count() == 1:
    return why or ""
  mine = np.zeros(256, np.uint8)
  text = np.frombuffer((why or "").encode()[:256], np.uint8)
  mine[: len(text)] = text
  texts = [
    bytes(row).rstrip(b"\0").decode(errors="replace")
    for row in multihost_utils.process_allgather(mine)
  ]
  return next((f"process {i}: {text}" for i, text in enumerate(texts) if text), "")


def broadcast_step(step: int | None) -> int | None:
  """Process 0's step, on all processes."""
  if jax.process_count() == 1:
    return step
  chosen = np.int32(-1 if step is None else step)
  chosen = int(multihost_utils.broadcast_one_to_all(chosen))
  return None if chosen < 0 else chosen


def first_line(error: BaseException) -> str:
  """An error in one short line; the system's own words if it is the system."""
  text = " ".join(str(error).split())
  if code := re.search(r"os_error_code='(\d+)'", text):
    return os.strerror(int(code[1]))
  if isinstance(error, OSError) and error.strerror:
    return error.strerror + (f": {error.filename}" if error.filename else "")
  return f"{type(error).__name__}: {text[:200]}" if text else repr(error)


def compare_leaves(saved: dict[str, Any], abstract: Any, path: epath.Path, complete: bool) -> None:
  """UserError unless these leaves were saved, with such dtypes and shapes."""
  expected = {name: describe(leaf) for name, leaf in named_leaves(abstract).items()}
  text = lambda leaf: f"{leaf['dtype']}{leaf['shape']}" if leaf else "nothing of the kind"
  for name in sorted(expected | saved if complete else expected):
    was, want = saved.get(name, {}), expected.get(name, {})
    if {k: was[k] for k in ("dtype", "shape") if was} != want:
      raise UserError(
        f"{name} is {text(was)} in {path}, but the model wants {text(want)}: "
        "use the config it was made with, or a new workdir"
      )


def silence_orbax() -> None:
  """Silences those echoes, and nothing else, for the rest of the process."""
  for name in ("absl", "asyncio"):
    logger = logging.getLogger(name)
    if not_an_echo not in logger.filters:
      logger.addFilter(not_an_echo)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)
    warnings.filterwarnings(
      "ignore", "coroutine .* was never awaited", RuntimeWarning
    )  # we have none of our own


def not_an_echo(record: logging.LogRecord) -> bool:
  """False for tracebacks logged by Orbax, out of it, or by TensorStore."""
  if not record.exc_info:
    return True
  if record.name == "asyncio" and "never retrieved" in record.getMessage():
    return False  # we have no futures of our own
  _, error, trace = record.exc_info
  places = [frame.filename for frame in traceback.extract_tb(trace)]
  return not (
    any("orbax" in place for place in [record.pathname, *places])
    or "tensorstore_spec" in str(error)
  )


class _Hook:
  """A sys.unraisablehook that knows the echoes; others go on to `before`."""

  def __init__(self, before):
    self.before = before

  def __call__(self, unraisable):
    error, source = unraisable.exc_value, unraisable.object
    code = source.cr_code if inspect.iscoroutine(source) else None  # nobody awaited it
    late = isinstance(error, RuntimeError) and "loop is closed" in str(error)
    if not (late or (code and "orbax" in code.co_filename)):
      self.before(unraisable)
