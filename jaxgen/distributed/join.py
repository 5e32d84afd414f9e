"""Many processes as one: joining, meeting and parting.

Started as one of several processes, a verb joins the others before it touches
a device, see `launchers`. Started alone, nothing here does anything, and no
port is opened. Environment variables say how patient the processes are:

  JAXGEN_HEARTBEAT_SECONDS  30: who is silent for so long is dead
  JAXGEN_STALL_SECONDS      45: a step that takes so long, and 10 times the
                            mean, hangs; all else may take 40 times that
"""
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax

from jaxgen.distributed import watchdog
from jaxgen.distributed.launchers import ASK, COUNT, Place, found
from jaxgen.errors import UserError

COME = 300  # seconds until all have to be there
MEET = 600  # seconds that one may be later than another

_guard: watchdog.Guard | None = None  # of this process, if there are others


def patience(name: str, default: int) -> int:
  """Seconds, from the environment."""
  text = os.environ.get(name) or str(default)
  if not text.isdigit() or text == "0":
    raise UserError(f"{name}={text}: want a whole number of seconds")
  return int(text)


def stall() -> int:
  """Seconds after which a step is taken to hang."""
  return patience("JAXGEN_STALL_SECONDS", 45)


def join(alone: bool = False) -> None:
  """Joins the other processes, if there are any; call before all of jax.

  Raises:
    UserError: The environment says half of what it takes; or there are others
      and this must be done `alone`.
  """
  global _guard
  from jax._src import cloud_tpu_init, distributed

  place = found(os.environ, cloud_tpu_init.running_in_cloud_tpu_vm)
  if place is None or counted(place) == 1:
    return
  if alone:
    raise UserError("this is done by one process, and this is one of several: "
                    f"start it on one machine, or with {COUNT}=1")
  silence = patience("JAXGEN_HEARTBEAT_SECONDS", 30)
  known = [None if part == ASK else part for part in place]
  processes, index, coordinator, devices = known
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  watchdog.catch_abort()
  jax.distributed.initialize(
      coordinator, processes, index, devices,
      cluster_detection_method=None if ASK in place else "deactivate",
      initialization_timeout=COME, heartbeat_timeout_seconds=2 * silence)
  # No backend yet: that would hold up the guard until all have one.
  state = distributed.global_state
  _guard = watchdog.Guard(state.process_id, state.num_processes,
                       watchdog.Store(state.client), silence)
  _guard.start()


def counted(place: Place) -> int:
  """How many processes there are; jax is asked where only it knows."""
  if place.processes != ASK:
    return place.processes
  from jax._src.clusters import ClusterEnv
  known = (c for c in ClusterEnv._cluster_types if not c.opt_in_only_method)
  cluster = next((c for c in known if c.is_env_present()), None)
  return cluster.get_process_count() if cluster else 1


def lead() -> bool:
  """Whether this is process 0, who writes and speaks for all."""
  return _guard is None or _guard.index == 0


def follow(report: Callable[[], watchdog.Beat]) -> None:
  """Lets the guard know what the main thread is at, from now on."""
  if _guard is not None:
    _guard.report = report


def meet(name: str, seconds: float = MEET) -> None:
  """Waits for all others to come here too; ends the run if they do not.

  Args:
    name: Of the occasion.
    seconds: For how long.
  """
  if _guard is None:
    return
  _guard.meetings += 1  # the same number for all
  try:
    _guard.store.client.wait_at_barrier(
        f"jaxgen/{_guard.meetings} {name}", int(1e3 * seconds))
  except jax.errors.JaxRuntimeError as e:
    late = sorted(map(int, re.findall(r"^(\d+)$", str(e), re.MULTILINE)))
    who = watchdog.named(late) if late else "not everybody"
    _guard.leave(watchdog.LOST, f"{who} did not come to {name} within "
                 f"{seconds:.0f} s; start all {_guard.count} again")


def consult(mine: str, judge: Callable[[dict[int, str]], str]) -> str:
  """Everybody says something: -> what process 0 makes of it, on all alike.

  Args:
    mine: Text of any length.
    judge: Given the text of every process. Asked of process 0 alone.
  """
  if _guard is None:
    return judge({0: mine})
  store, key = _guard.store, f"consult/{_guard.meetings}"
  store.put(f"{key}/{_guard.index}", mine)
  meet("compare notes")
  if _guard.index == 0:
    told = {int(i): text for i, text in store.all(key).items()}
    store.put(f"{key}-answer/0", judge(told))
  meet("hear the answer")
  return store.all(f"{key}-answer")["0"]


def leave(status: int, line: str) -> NoReturn:
  """Ends all processes, this one among several, with one line."""
  _guard.leave(status, line)


def broken(error: BaseException) -> NoReturn:
  """Ends a process of several on an error that nobody expected.

  What comes from jax may be the fault of another process that died, and then
  that one is named. Never returns to where it happened: what is on the way out
  would wait for others, who wait for us.
  """
  # (Gloo's errors come as ValueErrors if an array is read.)
  if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
    _guard.ask(f"{' '.join(str(error).split())[:300]}")
  traceback.print_exception(error)
  _guard.leave(1, f"process {_guard.index}: {type(error).__name__}: {error}")


def joined() -> bool:
  """Whether there are others."""
  return _guard is not None


def part() -> None:
  """The end of a verb that went well: waits for all others, then lets go."""
  global _guard
  if _guard is None:
    return
  sys.stdout.flush()
  meet("the end")
  _guard.over.set()
  _guard = None
  jax.distributed.shutdown()
