"""Who started this process, and which of how many it is.

A pure function of the environment:

  launcher         read
  ours             JAXGEN_COORDINATOR=host:port of process 0, JAXGEN_PROCESSES,
                   JAXGEN_PROCESS_ID from 0; each comes before all others
  Open MPI         OMPI_COMM_WORLD_SIZE and _RANK; from version 5 on, which does
                   not tell where process 0 is, with JAXGEN_COORDINATOR
  SLURM (srun)     SLURM_NTASKS, SLURM_PROCID, SLURM_STEP_NODELIST
  TPU pods         GKE's variables or GCE's metadata, and MEGASCALE's
  Kubernetes       JOB_COMPLETION_INDEX, with JAXGEN_COORDINATOR and
                   JAXGEN_PROCESSES; or with jax[k8s] alone

What is not here jax finds out: ASK stands for it.
"""
import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxgen.errors import UserError

COORDINATOR, COUNT, INDEX = (
    "JAXGEN_COORDINATOR", "JAXGEN_PROCESSES", "JAXGEN_PROCESS_ID")
ASK = "jax"


class Place(NamedTuple):
  """Which of how many processes this is, and where they meet."""
  processes: int | str | None = None
  index: int | str | None = None
  coordinator: str | None = None  # host:port
  devices: Sequence[int] | None = None  # None: jax's choice; (): all it sees


def found(env: Mapping[str, str], tpu: bool = False) -> Place | None:
  """This process's place among others; None if there are no others.

  Args:
    env: The environment.
    tpu: Whether this machine has TPUs.

  Raises:
    UserError: The environment says half of what it takes.
  """
  asked = (openmpi, slurm, *([pod] if tpu else []), kubernetes)
  theirs = next((p for p in (who(env) for who in asked) if p), Place())
  ours = Place(number(env, COUNT), number(env, INDEX),
               env.get(COORDINATOR) or None)
  place = Place(*(theirs[i] if mine is None else mine
                  for i, mine in enumerate(ours)))
  if place[:3] == (None,) * 3 or place.processes == 1:
    return None
  names = COUNT, INDEX, COORDINATOR
  lacking = [n for n, value in zip(names, place, strict=False) if value is None]
  if lacking:
    raise UserError(
        f"one of several processes, but without {' and '.join(lacking)}: set "
        f"{COORDINATOR}=host:port of process 0, {COUNT}, and {INDEX} from 0; "
        f"or {COUNT}=1 for this one alone")
  if ASK not in place[:2] and not 0 <= place.index < place.processes:
    raise UserError(f"process {place.index} of {place.processes}: {INDEX} runs "
                    f"from 0 to {place.processes - 1}")
  return place


def number(env: Mapping[str, str], name: str) -> int | None:
  """A whole number; None if there is none. UserError for anything else."""
  text = env.get(name)
  if text and not text.isdigit():
    raise UserError(f"{name}={text}: want a whole number")
  return int(text) if text else None


def openmpi(env: Mapping[str, str]) -> Place | None:
  """A rank of mpirun; also within SLURM, whose numbers are not its own."""
  if "OMPI_COMM_WORLD_RANK" not in env:
    return None
  where = ASK if "OMPI_MCA_orte_hnp_uri" in env else None
  return Place(number(env, "OMPI_COMM_WORLD_SIZE"),
               number(env, "OMPI_COMM_WORLD_RANK"), where)


def slurm(env: Mapping[str, str]) -> Place | None:
  """A task of srun; the script of a job is none, it has no step."""
  if not {"SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= set(env):
    return None
  # Jax gives each task the GPU of its local number. That leaves seven of eight
  # idle if it is the node's only one, and fails if it sees no more than its
  # own.
  tasks = max(int(n) for n in re.findall(
      r"(\d+)(?:\(x\d+\))?", env.get("SLURM_STEP_TASKS_PER_NODE") or "1"))
  seen = env.get("CUDA_VISIBLE_DEVICES", "")
  own = tasks == 1 or (seen and len(seen.split(",")) < tasks)
  return Place(number(env, "SLURM_NTASKS"), number(env, "SLURM_PROCID"), ASK,
               () if own else None)


def pod(env: Mapping[str, str]) -> Place | None:
  """A host of a TPU pod."""
  if "tpu" not in (env.get("JAX_PLATFORMS") or "tpu"):
    return None
  hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
  if not hosts:  # not GKE: only the metadata know
    return None if "TPU_SKIP_MDS_QUERY" in env else Place(ASK, ASK, ASK)
  hosts = len(hosts.split(","))
  before = (number(env, "MEGASCALE_SLICE_ID") or 0) * hosts
  return Place(hosts * (number(env, "MEGASCALE_NUM_SLICES") or 1),
               before + (number(env, "TPU_WORKER_ID") or 0), ASK)


def kubernetes(env: Mapping[str, str]) -> Place | None:
  """A pod of an indexed job, such as JobSet makes them."""
  if not {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(env):
    return None
  rest = ASK if importlib.util.find_spec("kubernetes") else None
  return Place(rest, number(env, "JOB_COMPLETION_INDEX"), rest)
