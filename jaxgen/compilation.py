"""Compiled programs: kept on disk between runs, and the train step's own."""
import hashlib
import pathlib
import platform
import re
import time
from collections.abc import Callable

import jax

from jaxgen import core, files, sharding
from jaxgen.experiment import Experiment

PROGRAM = re.compile(r".+-[0-9a-f]{64}-cache")  # as jax names its files
DAMAGED = "Error reading persistent compilation cache entry"


def keep_programs() -> None:
  """Lets jax keep what it compiles, where JAX_COMPILATION_CACHE_DIR says.

  By default that is a folder in the user's own cache: programs on disk are
  trusted like code. Where none can be made, programs are not kept.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  folder = own_folder()
  try:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
  except OSError:
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))


def own_folder() -> pathlib.Path:
  """One for each kind of machine, for homes are shared and CPUs differ.

  Jax does not look at the CPU: a program for one may crash on another, or give
  other bits.
  """
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = [platform.processor()]
  tell = ("model name", "flags", "Features", "CPU ")  # x86 and ARM
  kind = sorted({line for line in lines if line.startswith(tell)} or lines)
  digest = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:8]
  return files.cache() / "xla" / f"{platform.machine()}-{digest}"


def forget_damaged(message: str) -> bool:
  """Whether a warning was of a torn program, which is mended here.

  Jax writes programs in place, so a kill may tear one; it then compiles anew,
  but never overwrites. Our own folder is emptied: all in it can be remade.
  """
  if not message.startswith(DAMAGED):
    return False
  folder = own_folder()
  if jax.config.jax_compilation_cache_dir == str(folder):
    for file in folder.iterdir():
      if PROGRAM.fullmatch(file.name) and file.is_file():
        file.unlink(missing_ok=True)
  return True


class Compiled:
  """The train step, compiled once for every turn that players take.

  States go in and come out where `sharding.shardings` wants them: the same
  program takes what it gave, in the same memory.
  """

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh):
    self.model, self.config = experiment.model, experiment.config
    self.mesh, self.step = mesh, experiment.step_in(sharding.layout(mesh))
    self.jitted: Callable | None = None  # with the first compilation
    self.programs: dict[tuple[int, ...], Callable] = {}
    self.facts = {"compile_seconds": 0., "peak_bytes": 0}

  def __call__(self, i: int, state: core.State, batch: core.Batch,
               seed: core.Key) -> tuple[core.State, core.Metrics]:
    turn = core.turn(self.model, i)
    if turn not in self.programs:
      self.compile(turn, state, batch, seed)
    return self.programs[turn](state, batch, seed)

  def lower(self, turn: tuple[int, ...], state: core.State,
            batch: core.Batch, seed: core.Key) -> jax.stages.Lowered:
    """The step of a turn, for arrays or their shapes; nothing is compiled."""
    if self.jitted is None:
      state_at = sharding.shardings(state, self.mesh)
      whole = sharding.replicated(self.mesh)
      self.jitted = jax.jit(
          self.step, static_argnums=0, donate_argnums=1,
          in_shardings=(state_at, sharding.batched(self.mesh), whole),
          out_shardings=(state_at, whole))
    return self.jitted.lower(turn, state, batch, seed)

  def compile(self, turn: tuple[int, ...], *args) -> None:
    """Compiles ahead, and notes how long it took and what memory it takes."""
    begun = time.perf_counter()
    program = self.lower(turn, *args).compile()
    self.programs[turn] = program
    self.facts["compile_seconds"] += time.perf_counter() - begun
    self.facts["peak_bytes"] = max(self.facts["peak_bytes"], memory(program))


def memory(program: jax.stages.Compiled) -> int:
  """Bytes per device that a program needs: arguments, results, scratch."""
  m = program.memory_analysis()
  if m is None:
    return 0
  return (m.argument_size_in_bytes + m.output_size_in_bytes
          + m.temp_size_in_bytes - m.alias_size_in_bytes)
