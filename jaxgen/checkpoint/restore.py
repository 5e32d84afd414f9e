"""Reading checkpoints, and falling back to an older one if the newest is bad.

`newest_sound` is how a checkpoint falls back, for all readers. What becomes of
the steps it passes over they say themselves: a training moves them aside, see
`Checkpoints.restore`; whoever samples only warns, and never changes a folder.
There, others may be training at the same time: a step that vanishes while it
is read counts as damaged.
"""

import collections
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from jaxgen import files, forms
from jaxgen.checkpoint import disk, step_folder
from jaxgen.errors import UserError
from jaxgen.forms import Each, Whole

LEAF = {"dtype": str, "shape": [Whole(0)], "sum": Whole(0), "implied?": str}  # see `implied`
LEAVES = {"step": Whole(0), "leaves": Each(LEAF)}
DATA = {"data": {"shape": [Whole(1)]}}


class NoCheckpoint(UserError):
  """There is none that is sound."""


def newest_sound(
  root: epath.Path,
  read: Callable[[epath.Path], Any],
  pass_over: Callable[[int, str], None],
  step: int | None = None,
) -> Any | None:
  """Reads the newest step that is sound, the same one on every process.

  From the newest to the oldest: what process 0 finds damaged by names and
  sizes, and what any process cannot read, is passed over.

  Args:
    root: Folder of the steps.
    read: Reads a step's folder; DamagedError, on all processes, if it is bad.
    pass_over: Called with a step that is not used, and why.
    step: The only one to try, if not None.

  Returns:
    What `read` returned; None if there is no sound step.
  """
  passed = set()
  main = jax.process_index() == 0
  while True:
    steps = [s for s in step_folder.present(root) if s not in passed and step in (None, s)]
    newest = disk.broadcast_step(steps[-1] if steps else None)
    if newest is None:
      return None
    path = root / str(newest)
    try:
      if why := disk.first_error(disk.problem(path) if main else ""):
        raise disk.DamagedError(why.removeprefix("process 0: "))
      return read(path)
    except disk.DamagedError as error:
      passed.add(newest)
      pass_over(newest, str(error))


def latest_meta(workdir: epath.PathLike) -> dict[str, Any]:
  """The meta of the newest sound step.

  Raises:
    NoCheckpoint: there is none.
    UserError: what is said of the arrays is not what `Checkpoints` writes.
  """
  return _newest(workdir, None, _meta)


def peek(workdir: epath.PathLike) -> dict[str, Any] | None:
  """Meta of the newest step, as it stands there; None if it is not to be read.

  Of it "leaves" and the shape of the data are checked. Nothing here asks jax, which would
  have its devices then: `latest_meta` asks how many processes there are.
  """
  root = disk.folder(workdir)
  try:
    meta = disk.read_meta(root / str(step_folder.present(root)[-1]))
  except Exception:  # it may hold anything: whoever restores it says what is wrong
    return None
  return None if forms.misfit(meta, LEAVES | DATA) else meta


def restore_subset(
  workdir: epath.PathLike, abstract: Any | Callable, step: int | None = None
) -> tuple[int, Any, dict[str, Any]]:
  """Some of the arrays of a checkpoint; nothing else is read or held.

  Args:
    workdir: of the training.
    abstract: nested dicts of jax.ShapeDtypeStruct, such as {"ema": {"slow":
      {"gen": ...}}}; or a function from meta to them, such as
      `lambda meta: abstract_leaves(meta, ["ema/slow", "stats", "step"])`.
    step: which checkpoint. If None, the newest sound one: damaged ones are
      passed over with a warning.

  Returns:
    (step, arrays shaped like `abstract`, meta).
  """

  def read(path):
    meta = _meta(path)
    return disk.load(path, abstract(meta) if callable(abstract) else abstract)

  state, meta = _newest(workdir, step, read)
  return meta["step"], state, meta


def abstract_leaves(meta: dict[str, Any], prefixes: Sequence[str]) -> dict:
  """Nested dicts of jax.ShapeDtypeStruct of all that is below the prefixes.

  Meta tells names, shapes and dtypes, so weights can be read without building
  the model. Lists and tuples come as dicts with keys "0", "1", ...
  """
  nest = lambda: collections.defaultdict(nest)
  tree = nest()
  for name, leaf in meta["leaves"].items():
    if any(f"{name}/".startswith(f"{prefix}/") for prefix in prefixes):
      *parents, last = name.split("/")
      node = tree
      for parent in parents:
        node = node[parent]
      node[last] = jax.ShapeDtypeStruct(leaf["shape"], _dtype(leaf["dtype"]))
  return _plain(tree)


def _meta(path):
  """Of a step's folder, with what it says of the arrays checked."""
  meta = disk.agreed_meta(path)
  if why := forms.misfit(meta, LEAVES):
    raise UserError(f"{path}/meta is not what a checkpoint says: {why}")
  return meta


def _dtype(name):
  """Inverse of str(dtype), typed keys included."""
  keys = [jax.random.key(0, impl=impl).dtype for impl in ("threefry2x32", "rbg", "unsafe_rbg")]
  try:
    return {str(key): key for key in keys}.get(name) or jnp.dtype(name)
  except TypeError:
    raise UserError(f"a leaf of the checkpoint is {name!r}: there is no such dtype") from None


def _plain(tree):
  if isinstance(tree, dict):
    return {key: _plain(value) for key, value in tree.items()}
  return tree


def _newest(workdir, step, read):
  """read(folder) of this step, or of the newest one that can be read."""
  root, damaged = disk.folder(workdir), set()

  def warn(step, why):
    damaged.add(step)
    if why not in (disk.UNFINISHED, disk.FOREIGN):
      line = f"checkpoint {root / str(step)} is passed over: {why}"
      warnings.warn(line, RuntimeWarning, stacklevel=5)  # who called a public function

  result = newest_sound(root, read, warn, step)
  if result is None:
    raise NoCheckpoint(_nothing(workdir, step, damaged))
  return result


def _nothing(workdir, step, damaged):
  if not files.path(workdir).is_dir():
    return f"there is no folder {workdir}: give the workdir of a training"
  if step is not None and not damaged:
    return f"no checkpoint {step} in {workdir}: there are {disk.steps(workdir) or 'none at all'}"
  if damaged:
    return (
      f"no checkpoint in {workdir} can be read: tried {sorted(damaged)}; train on to make a new one"
    )
  return (
    f"no checkpoint in {workdir}: train first, with `jaxgen train --workdir={workdir} --config=...`"
  )
