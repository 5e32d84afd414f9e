"""Checkpoints that can be trusted: kill, fill the disk, flip a bit.

Orbax writes in the background, and its commit file makes a save atomic. On top
of that: a seal with the size of every file, a fingerprint of every leaf, older
steps to fall back on (see `restore`), and failures that are told when they
happen. Meta, JSON beside the arrays, is whatever the caller passes and

    step, versions, leaves: {path: {dtype, shape, sum}}, digest (of meta)

of which a leaf that no file holds also has "implied", see there.

All processes call `save` and `restore` alike. No signal is handled here.
"""

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import options as ocp_options

from jaxgen import files
from jaxgen.checkpoint import disk, implied, step_folder
from jaxgen.checkpoint.disk import silence_orbax, steps
from jaxgen.checkpoint.fingerprint import fingerprint
from jaxgen.checkpoint.restore import newest_sound
from jaxgen.config import as_json
from jaxgen.distributed import join
from jaxgen.errors import UserError

SAVE_FAILED = 76  # exit code: this process could not save, restart them all


class Checkpoints:
  """The checkpoints of one training, in `workdir/checkpoints`."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    every: int,
    keep: int = 3,
    keep_every: int | None = None,
    log: Callable[[str], None] = print,
    gigabytes: int | None = None,
  ):
    """Touches nothing but the folder.

    Args:
      workdir: on a file system that all processes share.
      every: steps between two saves.
      keep: how many of the newest are kept, at least 2.
      keep_every: multiples of this are kept for ever.
      log: gets one line per event, also from the thread that saves.
      gigabytes: memory that arrays on their way to files may take; `save` then waits
        for those that it has no room for. None: all are copied at once.
    """
    if every < 1 or (keep_every is not None and keep_every % every):
      raise UserError(
        f"checkpoint.every = {every} must be positive and divide keep_every = {keep_every}"
      )
    if keep < 2:
      raise UserError(
        f"checkpoint.keep = {keep}: keep at least 2, for if the "
        "newest turns out bad, the one before is all there is"
      )
    self.every, self.keep, self.keep_every = every, keep, keep_every
    self.log, self._stuck = log, set()  # damaged, and could not be moved
    self._gigabytes = gigabytes
    self.root = disk.folder(workdir)
    self.quarantine = self.root.parent / "quarantine"
    self._options = ocp.CheckpointManagerOptions(
      # Orbax removes nothing: it takes whatever is there for its own.
      max_to_keep=None,
      cleanup_tmp_directories=False,
      lightweight_initialize=True,
      step_name_format=_Steps(),
      temporary_path_class=_Folder,
      atomicity_options=ocp_options.AtomicityOptions(mode=ocp_options.AtomicityMode.COMMIT_FILE),
      async_options=ocp.AsyncOptions(  # or failed saves leave threads behind
        timeout_secs=1800, create_directories_asynchronously=False
      ),
    )
    self._manager = self._watcher = self._failure = None
    self._strangers: list[str] = []
    disk.check_writable(self.root)
    disk.enable_arrays(self.root)
    silence_orbax()

  def save(self, step: int, state: Any, meta: dict[str, Any], force: bool = False) -> bool:
    """Starts to save in the background, if it is time to or forced.

    Waits for the save before. The state may be donated as soon as this
    returns; leaves may be `implied.Implied`. A save that fails, here or later,
    is logged at once, and is what `check` answers; all older checkpoints stay,
    and any later save, of this step too, may succeed.

    Returns:
      Whether a save was started.

    Raises:
      UserError: the state holds NaN or infinity.
    """
    if not (force or step % self.every == 0):
      return False
    self._settle()
    if disk.broadcast_step(step if self._is_saved(step) else None) is not None:
      return False
    why = disk.first_error(self._obstacle(step) if jax.process_index() == 0 else "")
    state, absent = implied.split(state)
    leaves, bad = fingerprint(state)
    if bad:
      raise UserError(
        f"step {step} is not saved, for {bad[0]} holds NaN or "
        f"infinity: go on from step {self._newest_whole()} with "
        "a smaller learning rate"
      )
    leaves |= implied.summaries(absent, leaves)
    meta = disk.complete_meta(as_json(meta, "meta"), int(step), leaves)
    if why:
      self._note_failure(step, why)
      return False
    try:
      if self._manager is None:
        self._manager = _Manager(
          self.root, options=self._options, item_handlers=_handlers(self._gigabytes)
        )
      elif step in self._manager.all_steps():
        self._manager.reload()  # it is gone since
      self._manager.save(
        step,
        force=True,
        args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta)),
      )
    except Exception as error:
      self._fail(step, error)
      return False
    self._watcher = threading.Thread(
      target=self._watch, args=(step,), daemon=True, name="checkpoint"
    )
    self._watcher.start()
    return True

  def _is_saved(self, step):
    """Whether this step lies there, whole as far as is known."""
    path = self.root / str(step)
    try:
      there = files.lexists(path) and step_folder.ours(path) and step_folder.committed(path)
    except OSError:  # `_obstacle` says why
      return False
    return there and step not in self._stuck

  def _obstacle(self, step):
    """Why a step cannot be saved; makes room where what is there is ours."""
    path = self.root / str(step)
    try:
      if self._manager is None:
        self._remove(step_folder.clear, self.root)
      if not files.lexists(path):
        return ""
      if step_folder.ours(path) and step_folder.committed(path):
        pass  # damaged, and it could not be moved aside
      elif step_folder.removable(path):
        step_folder.remove(path)
        return ""
      elif step_folder.empty(path):
        path.rmdir()
        return ""
    except OSError as error:
      return disk.first_line(error)
    return f"move away what is there and not ours to remove: {path}"

  def check(self) -> str | None:
    """Why the newest save failed, from then until a later one succeeds."""
    return self._failure

  def wait(self) -> str | None:
    """Blocks until nothing is being saved; answers like `check`."""
    self._settle()
    return self._failure

  def close(self) -> None:
    """Waits. UserError if the last save failed: the work since is not safe."""
    self._settle()
    self._shut()
    if self._failure:
      raise UserError(self._failure)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, error, trace) -> None:
    if error and jax.process_count() > 1:
      return  # others may be gone, and a save waits for them
    with contextlib.suppress(UserError) if error else contextlib.nullcontext():
      self.close()

  def restore(self, abstract: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest sound checkpoint, the same on every process.

    Damaged ones are moved to `workdir/quarantine`, and reported; how it falls
    back says `restore.newest_sound`.

    Args:
      abstract: the state as jax.ShapeDtypeStruct with shardings.

    Returns:
      (step, state, meta); None if there is nothing sound to go on from.

    Raises:
      UserError: the checkpoint is sound, but of another model.
    """
    self._settle()
    self._shut()
    passed = {}  # step: what is wrong with it

    def pass_over(step, why):
      if why == disk.UNFINISHED:
        passed[step] = why  # removed before the next save
      elif why != disk.FOREIGN:
        passed[step] = why + self._put_aside(step)

    def read(path):
      if why := disk.first_error("" if path.exists() else "no such folder"):
        raise UserError(
          f"{path}: {why}; the workdir must lie on a file system that all processes share"
        )
      try:
        return disk.load(path, abstract, complete=True)
      except UserError:
        self._report(passed, path.name)
        raise

    if jax.process_index() == 0:
      self._name_strangers()
    result = newest_sound(self.root, read, pass_over)
    if result is None:
      self._report(passed, None)
      return None
    state, meta = result
    self._report(passed, meta["step"])
    return meta["step"], state, meta

  def _name_strangers(self):
    """Once: what lies in our folder and will be left alone."""
    names = step_folder.strangers(self.root)
    if names and names != self._strangers:
      steps = [n for n in names if step_folder.number(n) is not None]
      self.log(
        f"{self.root} also holds {step_folder.named(names)}, not "
        "checkpoints of ours: left alone"
        + (
          f"; move {step_folder.named(steps)} away before that step is to be saved" if steps else ""
        )
      )
    self._strangers = names

  def _put_aside(self, step):
    """Moves a damaged step to the quarantine -> what became of it."""
    if jax.process_index() != 0:
      return ""
    path = self.root / str(step)
    if not step_folder.ours(path):
      return "; not ours to move"
    try:
      self.quarantine.mkdir(exist_ok=True)
      places = (self.quarantine / f"{step}-{n}" for n in itertools.count(1))
      place = next(place for place in places if not files.lexists(place))
      files.move(path, place, last=step_folder.MARK)
    except OSError as error:
      self._stuck.add(step)
      return f"; it cannot be moved: {disk.first_line(error)}"
    return f"; moved to {self.quarantine}"

  def _report(self, passed, used):
    if jax.process_index() != 0:
      return
    instead = (
      f"going on from checkpoint {used}"
      if used is not None
      else "there is none before it, starting anew"
    )
    for step, why in passed.items():
      self.log(f"checkpoint {step} is not used: {why}; {instead}")

  def _watch(self, step):
    """In a thread: sees a save through, and tells at once if it fails."""
    try:
      self._manager.wait_until_finished()
      if jax.process_index() == 0:
        self._keep_house()
      self._failure = None
    except BaseException as error:
      self._fail(step, error)

  def _keep_house(self):
    """After a save: seals what is whole, removes what is old."""
    for step in step_folder.present(self.root):
      if step_folder.ours(self.root / str(step)):
        disk.seal(self.root / str(step))
    self._remove(step_folder.prune, self.root, self.keep, self.keep_every)

  def _remove(self, remove, *args):
    """What cannot be removed takes room, and does no harm."""
    try:
      remove(*args)
    except OSError as error:
      self.log(f"an old checkpoint cannot be removed: {error}")

  def _note_failure(self, step, why):
    self._failure = f"checkpoint {step} could not be saved: {why}"
    self.log(f"{self._failure}; the newest is {self._newest_whole()}")

  def _fail(self, step, error):
    half, alone = self.root / str(step), not join.joined() and jax.process_count() == 1
    if alone:
      self._shut()  # a manager forgets neither errors nor steps that failed
    with contextlib.suppress(OSError):
      if not step_folder.committed(half) and step_folder.removable(half):
        step_folder.vacate(half)  # a full disk needs the room
    self._note_failure(step, disk.first_line(error))
    # Of several processes, the others wait for us in Orbax's barriers.
    if join.joined():
      join.abort(SAVE_FAILED, self._failure)
    if jax.process_count() > 1:  # somebody else made them one
      os._exit(SAVE_FAILED)

  def _newest_whole(self):
    try:
      return max(steps(self.root.parent), default="none")
    except OSError:
      return "not known"

  def _settle(self):
    if self._watcher is not None:
      self._watcher.join()
      self._watcher = None

  def _shut(self):
    manager, self._manager = self._manager, None
    if manager is not None:
      with contextlib.suppress(Exception):  # once more what was just reported
        manager.close()


class _Folder(ocp.path.atomicity.CommitFileTemporaryPath):
  """A step's folder, which carries our mark before anything is in it.

  It counts as saved once the log has arrived, too.
  """

  async def create(self):
    if step_folder.number(self.get().name) is None:
      return await super().create()  # of an item, in a step's folder
    step_folder.begin(self.get())
    return self.get()

  async def finalize(self):
    if step_folder.number(self.get().name) is not None:
      await asyncio.to_thread(files.settle)  # no row of a saved step is lost
    await super().finalize()


class _Steps(ocp.path.step.NameFormat):
  """How steps are named, and which are there: in any kind of bucket, too.

  Orbax' own asks Google's client library, which nothing else here wants.
  """

  def build_name(self, step):
    return str(step)

  def find_all(self, base_path):
    for step in step_folder.present(base_path):
      path = epath.Path(base_path) / str(step)
      if step_folder.committed(path):
        yield ocp.path.step.Metadata(step=step, path=path)

  def find_step(self, base_path, step):
    for metadata in self.find_all(base_path):
      if metadata.step == step:
        return metadata
    raise ValueError(f"no step {step} in {base_path}")


def _handlers(gigabytes):
  limits = dict(save_concurrent_gb=gigabytes, save_device_host_concurrent_gb=gigabytes)
  return {"state": ocp.PyTreeCheckpointHandler(**limits), "meta": ocp.JsonCheckpointHandler()}


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step):
    return False  # nor may it ask: whoever does counts, see `preemption`
