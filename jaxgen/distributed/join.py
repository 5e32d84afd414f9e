"""Many processes as one: joining, meeting and parting.

Started as one of several processes, a verb joins the others before it touches
a device. Started alone, nothing here does anything, and no port is opened. Who
started this process, and which of how many it is, the environment says:

  launcher         read
  ours             JAXGEN_COORDINATOR=host:port of process 0, JAXGEN_PROCESSES,
                   JAXGEN_PROCESS_ID from 0; each comes before all others
  Open MPI         OMPI_COMM_WORLD_SIZE and _RANK; from version 5 on, which does
                   not tell where process 0 is, with JAXGEN_COORDINATOR
  SLURM (srun)     SLURM_NTASKS, SLURM_PROCID, SLURM_STEP_NODELIST
  TPU pods         GKE's variables or GCE's metadata, and MEGASCALE's
  Kubernetes       JOB_COMPLETION_INDEX, with JAXGEN_COORDINATOR and
                   JAXGEN_PROCESSES; or with jax[k8s] alone

What is not here jax finds out: ASK stands for it. And how patient they are:

  JAXGEN_JOIN_SECONDS       300: who has not come by then is not waited for;
                            who came and died ends all at once, see `lobby`
  JAXGEN_HEARTBEAT_SECONDS  30: who is silent for so long is dead
  JAXGEN_STALL_SECONDS      45: a step that takes so long, and 10 times the
                            mean, hangs; all else may take 40 times that
"""

import atexit
import contextlib
import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax

from jaxgen.distributed import lobby, watchdog
from jaxgen.errors import UserError

COORDINATOR, COUNT, INDEX = ("JAXGEN_COORDINATOR", "JAXGEN_PROCESSES", "JAXGEN_PROCESS_ID")
ASK = "jax"
TPU = "TPU_ML_PLATFORM"  # jax sets it when it is imported on a machine with TPUs
ALONE = (
  "this is done by one process, and this is one of several: "
  f"start it on one machine, or with {COUNT}=1"
)


class Place(NamedTuple):
  """Which of how many processes this is, and where they meet."""

  processes: int | str | None = None
  index: int | str | None = None
  coordinator: str | None = None  # host:port
  devices: Sequence[int] | None = None  # None: jax's choice; (): all it sees


def place_from_env(env: Mapping[str, str], tpu: bool = False) -> Place | None:
  """This process's place among others; None if there are no others.

  Args:
    env: The environment.
    tpu: Whether this machine has TPUs.

  Raises:
    UserError: The environment says half of what it takes.
  """
  launchers = (openmpi, slurm, *([pod] if tpu else []), kubernetes)
  theirs = next((p for p in (launcher(env) for launcher in launchers) if p), Place())
  ours = Place(number(env, COUNT), number(env, INDEX), env.get(COORDINATOR) or None)
  place = Place(*(theirs[i] if mine is None else mine for i, mine in enumerate(ours)))
  if place[:3] == (None,) * 3 or place.processes == 1:
    return None
  names = COUNT, INDEX, COORDINATOR
  lacking = [n for n, value in zip(names, place, strict=False) if value is None]
  if lacking:
    raise UserError(
      f"one of several processes, but without {' and '.join(lacking)}: set "
      f"{COORDINATOR}=host:port of process 0, {COUNT}, and {INDEX} from 0; "
      f"or {COUNT}=1 for this one alone"
    )
  if ASK not in place[:2] and not 0 <= place.index < place.processes:
    raise UserError(
      f"process {place.index} of {place.processes}: {INDEX} runs from 0 to {place.processes - 1}"
    )
  return place


def number(env: Mapping[str, str], name: str) -> int | None:
  """A whole number; None if there is none. UserError for anything else."""
  text = env.get(name)
  if text and not text.isdecimal():
    raise UserError(f"{name}={text}: want a whole number")
  return int(text) if text else None


def openmpi(env: Mapping[str, str]) -> Place | None:
  """A rank of mpirun; also within SLURM, whose numbers are not its own."""
  if "OMPI_COMM_WORLD_RANK" not in env:
    return None
  where = ASK if "OMPI_MCA_orte_hnp_uri" in env else None
  return Place(number(env, "OMPI_COMM_WORLD_SIZE"), number(env, "OMPI_COMM_WORLD_RANK"), where)


def slurm(env: Mapping[str, str]) -> Place | None:
  """A task of srun; the script of a job is none, it has no step."""
  if not {"SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= set(env):
    return None
  # Jax gives each task the GPU of its local number. That leaves seven of eight
  # idle if it is the node's only one, and fails if it sees no more than its
  # own.
  tasks = max(
    int(n) for n in re.findall(r"(\d+)(?:\(x\d+\))?", env.get("SLURM_STEP_TASKS_PER_NODE") or "1")
  )
  gpus = env.get("CUDA_VISIBLE_DEVICES", "")
  own = tasks == 1 or (gpus and len(gpus.split(",")) < tasks)
  return Place(number(env, "SLURM_NTASKS"), number(env, "SLURM_PROCID"), ASK, () if own else None)


def pod(env: Mapping[str, str]) -> Place | None:
  """A host of a TPU pod."""
  if "tpu" not in (env.get("JAX_PLATFORMS") or "tpu"):
    return None
  hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
  if not hosts:  # not GKE: only the metadata know
    return None if "TPU_SKIP_MDS_QUERY" in env else Place(ASK, ASK, ASK)
  hosts = len(hosts.split(","))
  before = (number(env, "MEGASCALE_SLICE_ID") or 0) * hosts
  return Place(
    hosts * (number(env, "MEGASCALE_NUM_SLICES") or 1),
    before + (number(env, "TPU_WORKER_ID") or 0),
    ASK,
  )


def kubernetes(env: Mapping[str, str]) -> Place | None:
  """A pod of an indexed job, such as JobSet makes them."""
  if not {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(env):
    return None
  ask = ASK if importlib.util.find_spec("kubernetes") else None
  return Place(ask, number(env, "JOB_COMPLETION_INDEX"), ask)


COME = 300  # seconds until all have to be there, unless JAXGEN_JOIN_SECONDS says it
# Of SLURM below 32768, from where systems hand out ports (and Kubernetes from 30000);
# of TPUs beside jax's own, 8476.
LOBBY_PORTS, TPU_PORT = 24576, 8475
MEET = 600  # seconds that one may be later than another
END = 7 * 86400  # the same at the end: process 0 may write for long, and deaths are seen anyway

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


def join() -> None:
  """Joins the other processes, if there are any; call before all of jax.

  UserError if the environment says half of what it takes.
  """
  global _guard
  place = place_from_env(os.environ, tpu=TPU in os.environ)
  if place is None:
    return
  silence, come = patience("JAXGEN_HEARTBEAT_SECONDS", 30), patience("JAXGEN_JOIN_SECONDS", COME)
  if address := lobby_address(place, os.environ):
    lobby.enter(address, place.index, place.processes, come, silence)
  lobby.wait()
  processes, index, coordinator, devices = (None if part == ASK else part for part in place)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  watchdog.catch_abort()
  atexit.register(_at_exit)
  jax.distributed.initialize(
    coordinator,
    processes,
    index,
    devices,
    cluster_detection_method=None if ASK in place else "deactivate",
    initialization_timeout=come,
    heartbeat_timeout_seconds=2 * silence,
  )
  # A backend holds up the guard until all have one: only where it must be asked.
  processes = jax.process_count() if processes is None else processes
  index = jax.process_index() if index is None else index
  if processes == 1:  # a TPU machine of its own
    return jax.distributed.shutdown()
  # What jax keeps to itself, Orbax hands out.
  from orbax.checkpoint import multihost

  store = watchdog.Store(multihost.get_jax_distributed_client())
  _guard = watchdog.Guard(index, processes, store, silence)
  _guard.start()
  lobby.leave()


def check_alone() -> None:
  """UserError if this is one of several processes, and its verb is for one."""
  try:
    place = place_from_env(os.environ, tpu=TPU in os.environ)
  except UserError:
    return  # a task of an array of jobs, say, which have nothing to do with each other
  if place is not None and place.processes != ASK:
    raise UserError(ALONE)


def lobby_address(place: Place, env: Mapping[str, str]) -> str | None:
  """Where processes meet before they join; None where jax alone knows the hosts."""
  if ASK in place[:2]:
    return None
  if place.coordinator != ASK:
    return place.coordinator
  if "SLURM_STEP_NODELIST" in env:  # a port beside jax's, which is by the job's number too
    port = LOBBY_PORTS + (number(env, "SLURM_JOB_ID") or 0) % 4096
    return f"{first_host(env['SLURM_STEP_NODELIST'])}:{port}"
  hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
  if not hosts:
    return None
  first = env.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts.split(",")[0]
  return f"{first.split(':')[0]}:{TPU_PORT}"


def first_host(nodes: str) -> str:
  """ "gpu[07-08,11],b1" -> "gpu07", as SLURM shortens lists of hosts."""
  name, numbers = re.match(r"([^,\[]*)(?:\[([^,\-\]]*))?", nodes).groups()
  return name + (numbers or "")


def is_main_process() -> bool:
  """Whether this is process 0, who writes and speaks for all."""
  if _guard is not None:
    return _guard.index == 0
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def follow(report: Callable[[], watchdog.Beat]) -> None:
  """Lets the guard know what the main thread is at, from now on."""
  if _guard is not None:
    _guard.report = report


@contextlib.contextmanager
def watching(report: Callable[[], watchdog.Beat]) -> Iterator[None]:
  """Within, the guard hears of `report`; what comes after may take as long as it likes."""
  follow(report)
  try:
    yield
  finally:
    follow(watchdog.Beat)


def barrier(name: str, seconds: float = MEET) -> None:
  """Waits for all others to come here too; ends the run if they do not.

  Args:
    name: Of the occasion.
    seconds: For how long.
  """
  if _guard is None:
    return
  _guard.meetings += 1  # the same number for all
  try:
    _guard.store.client.wait_at_barrier(f"jaxgen/{_guard.meetings} {name}", int(1e3 * seconds))
  except jax.errors.JaxRuntimeError as e:
    late = sorted(map(int, re.findall(r"^(\d+)$", str(e), re.MULTILINE)))
    who = watchdog.named(late) if late else "not everybody"
    _guard.leave(
      watchdog.LOST,
      f"{who} did not come to {name} within {seconds:.0f} s; start all {_guard.count} again",
    )


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
  barrier("compare notes")
  if _guard.index == 0:
    texts = {int(i): text for i, text in store.all(key).items()}
    store.put(f"{key}-answer/0", judge(texts))
  barrier("hear the answer", END)
  return store.all(f"{key}-answer")["0"]


def share(make: Callable[[], Any]) -> Any:
  """What process 0 makes, on all alike: JSON of any kind, made there alone.

  What depends on clocks, or on files that process 0 writes, is decided so. Called by
  all; alone it is `make()`.

  Raises:
    UserError: On all, if `make` raised one.
  """
  if _guard is None:
    return make()

  def answer(_: dict[int, str]) -> str:
    try:
      return json.dumps([make(), ""])
    except UserError as e:
      return json.dumps([None, str(e)])

  value, why = json.loads(consult("", answer))
  if why:
    raise UserError(why)
  return value


def abort(status: int, line: str) -> NoReturn:
  """Ends all processes, this one among several, with one line."""
  _guard.leave(status, line)


def abort_with(error: BaseException) -> NoReturn:
  """Ends a process of several on an error that nobody expected.

  What comes from jax may be the fault of another process that died, and then
  that one is named. Never returns to where it happened: what is on the way out
  would wait for others, who wait for us.
  """
  # (Gloo's errors come as ValueErrors if an array is read.)
  if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
    _guard.blame(f"{' '.join(str(error).split())[:300]}")
  traceback.print_exception(error)
  _guard.leave(1, f"process {_guard.index}: {type(error).__name__}: {error}")


def joined() -> bool:
  """Whether there are others."""
  return _guard is not None


def shutdown() -> None:
  """The end of a verb that went well: waits for all others, then lets go."""
  if _guard is None:
    return
  sys.stdout.flush()
  barrier("the end", END)
  _stop_guard()
  jax.distributed.shutdown()
  watchdog.restore_abort()


def _at_exit() -> None:
  """The end of whoever never said `shutdown`: the guard sees to others' deaths until all are here.

  But no longer: Python's end aborts what has threads within jax.
  """
  if _guard is None:
    return
  with contextlib.suppress(Exception):
    jax.distributed.shutdown()
  _stop_guard()
  watchdog.restore_abort()


def _stop_guard() -> None:
  global _guard
  _guard.stop()
  _guard = None
