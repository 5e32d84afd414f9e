"""Environments as launchers really make them: which of how many is this?"""

import pod
import pytest

from jaxgen.distributed.join import ASK, Place, place_from_env
from jaxgen.errors import UserError

OURS = {"JAXGEN_COORDINATOR": "10.0.0.1:8476", "JAXGEN_PROCESSES": "4", "JAXGEN_PROCESS_ID": "3"}


def env(text):
  """Variables as `env` prints them."""
  return dict(word.split("=", 1) for word in text.split())


# The script of a job of two nodes: no step, nobody to join.
SBATCH = env("""
  SLURM_JOB_ID=4242 SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODELIST=gpu[07-08]
""")
SRUN = SBATCH | env("""
  SLURM_PROCID=1 SLURM_STEP_NODELIST=gpu[07-08] SLURM_STEP_NUM_NODES=2
  SLURM_STEP_TASKS_PER_NODE=1(x2) CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
""")
EIGHT = SRUN | env("""
  SLURM_NTASKS=16 SLURM_PROCID=9 SLURM_LOCALID=1 SLURM_STEP_TASKS_PER_NODE=8(x2)
""")
MPI4 = env("""
  OMPI_MCA_orte_hnp_uri=1531576320.0;tcp://10.96.0.1:34911 OMPI_COMM_WORLD_SIZE=2
  OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_RANK=0
""")
MPI5 = {k: v for k, v in MPI4.items() if "MCA" not in k}
MPI5 |= env("PMIX_RANK=1 PMIX_NAMESPACE=prterun-host-77@1")
KUBERNETES = env("KUBERNETES_SERVICE_HOST=10.0.0.1")
GKE = KUBERNETES | env("""
  TPU_WORKER_HOSTNAMES=w-0.w,w-1.w,w-2.w,w-3.w TPU_WORKER_ID=2 JOB_COMPLETION_INDEX=2
""")
SLICES = GKE | env("""
  MEGASCALE_NUM_SLICES=2 MEGASCALE_SLICE_ID=1 MEGASCALE_COORDINATOR_ADDRESS=w-0.w
""")
JOBSET = KUBERNETES | env("""
  JOB_COMPLETION_INDEX=1 JAXGEN_PROCESSES=2 JAXGEN_COORDINATOR=train-workers-0-0.train:8476
""")

KNOWN = {
  "a shell": ({}, False, None),
  "a Kubernetes pod of no job": (KUBERNETES, False, None),
  "ours": (OURS, False, Place(4, 3, "10.0.0.1:8476")),
  "ours, alone": (OURS | {"JAXGEN_PROCESSES": "1"}, False, None),
  "sbatch without srun": (SBATCH, False, None),
  "srun, one task a node": (SRUN, False, Place(2, 1, ASK, ())),
  "srun, a task for each GPU": (EIGHT, False, Place(16, 9, ASK)),
  "srun, one GPU bound to each": (
    EIGHT | env("CUDA_VISIBLE_DEVICES=1"),
    False,
    Place(16, 9, ASK, ()),
  ),
  "srun, uneven": (EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "8(x1),4"}, False, Place(16, 9, ASK)),
  "srun of one": (SRUN | {"SLURM_NTASKS": "1"}, False, None),
  "srun with ours": (SRUN | {"JAXGEN_COORDINATOR": "a:1"}, False, Place(2, 1, "a:1", ())),
  "mpirun 4": (MPI4, False, Place(2, 1, ASK)),
  "mpirun 4 in SLURM": (SRUN | MPI4 | {"OMPI_COMM_WORLD_RANK": "0"}, False, Place(2, 0, ASK)),
  "mpirun 5": (MPI5 | {"JAXGEN_COORDINATOR": "a:1"}, False, Place(2, 1, "a:1")),
  "GKE, a pod slice": (GKE, True, Place(4, 2, ASK)),
  "GKE, two slices": (SLICES, True, Place(8, 6, ASK)),
  "GKE, one host": ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, True, None),
  "GCE": ({}, True, Place(ASK, ASK, ASK)),
  "GCE, no metadata": ({"TPU_SKIP_MDS_QUERY": "1"}, True, None),
  "TPU machine, run on its CPU": ({"JAX_PLATFORMS": "cpu"}, True, None),
  "AOT for TPUs": (env("TPU_WORKER_HOSTNAMES=localhost TPU_SKIP_MDS_QUERY=1"), False, None),
  "JobSet": (JOBSET, False, Place(2, 1, "train-workers-0-0.train:8476")),
}


@pytest.mark.parametrize("env, tpu, place", KNOWN.values(), ids=KNOWN)
def test_known_launchers(env, tpu, place):
  assert place_from_env(env, tpu) == place


@pytest.mark.parametrize(
  "env, lacks",
  [
    ({"JAXGEN_PROCESSES": "2"}, "without JAXGEN_PROCESS_ID and JAXGEN_COORD"),
    ({"JAXGEN_COORDINATOR": "a:1"}, "without JAXGEN_PROCESSES and JAXGEN_PROC"),
    (MPI5, "without JAXGEN_COORDINATOR:"),
    (OURS | {"JAXGEN_PROCESS_ID": "4"}, "process 4 of 4: .* from 0 to 3"),
    (OURS | {"JAXGEN_PROCESSES": "many"}, "JAXGEN_PROCESSES=many: want a"),
  ],
)
def test_half_a_place_is_a_mistake(env, lacks):
  with pytest.raises(UserError, match=lacks):
    place_from_env(env)


def test_an_indexed_pod_alone_says_so(monkeypatch):
  """Or all pods of a job would train in one workdir, each on its own."""
  pod = {k: v for k, v in JOBSET.items() if "JAXGEN" not in k}
  for package, answer in ((None, None), (object(), Place(ASK, 1, ASK))):
    monkeypatch.setattr("importlib.util.find_spec", lambda _, p=package: p)
    if answer:
      assert place_from_env(pod) == answer
      continue
    with pytest.raises(UserError, match="or JAXGEN_PROCESSES=1"):
      place_from_env(pod)
  assert place_from_env(pod | {"JAXGEN_PROCESSES": "1"}) is None


@pytest.mark.parametrize(
  "launcher",
  [
    SRUN | {"SLURM_PROCID": "{i}", "SLURM_STEP_NODELIST": "127.0.0.1"},
    MPI4 | {"OMPI_COMM_WORLD_RANK": "{i}", "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1"},
  ],
  ids=["slurm", "openmpi"],
)
def test_what_is_left_to_jax_it_finds(launcher):
  """Two processes meet through jax's own detection."""
  ours = dict.fromkeys(("JAXGEN_COORDINATOR", "JAXGEN_PROCESSES", "JAXGEN_PROCESS_ID"))
  env = launcher | ours | {"JAX_COORDINATOR_PORT": str(pod.free_port())}
  if "SLURM_JOB_ID" in env:  # by which the lobby's port is chosen
    env["SLURM_JOB_ID"] = str(pod.free_port())
  code = "print(jax.process_index(), jax.process_count(), processes.is_main_process())"
  done = pod.run(2, 1, code, env=env)
  assert [(d.status, d.stdout) for d in done] == [(0, "0 2 True\n"), (0, "1 2 False\n")], done
