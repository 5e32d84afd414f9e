"""Launch scripts: what they would run, when they start again, when they stop.

Whatever they call is a stub on the PATH that notes its words in `calls`.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = sorted(p.name for k in ("*.sh", "*.sbatch") for p in (ROOT / "launch").glob(k))
FLAGS = ["--config", "configs/a b.py", "--workdir", '/share/it\'s "W" & $(HOME) *']
FLAGS += ["--config.x=`id`;|\\n", "--config.y="]
POD = dict(NAME="adm64", ZONE="z-1", TYPE="v5litepod-32", BUCKET="b", SHARE="nfs:/x")
GKE = dict(
  NAME="adm64", ACCELERATOR="tpu-v6e-slice", TOPOLOGY="4x8", IMAGE="r/p/jaxgen:1", CLAIM="share"
)
# One after the other, or words of two calls at once would lie in between.
NOTE = """#!/usr/bin/env bash
exec 9>>"$HOME/lock"
flock 9
printf '%s\\0' "${0##*/}" "$@" $'\\n' >>"$HOME/calls"
exec 9>&-
"""
# Ends as the file `ends` says, a line for each life of a process.
PYTHON = (
  NOTE
  + """
echo "$JAXGEN_PROCESS_ID $JAXGEN_PROCESSES $JAXGEN_COORDINATOR $XLA_FLAGS" \
  >>"$HOME/places"
ends=$HOME/ends$JAXGEN_PROCESS_ID
read -r end <"$ends"
sed -i 1d "$ends"
if [ "$end" = wait ]; then
  trap 'exit 143' TERM
  trap 'exit 130' INT
  touch "$HOME/waits"
  while :; do sleep 0.05; done
fi
exit "$end"
"""
)


@pytest.fixture
def place(tmp_path):
  """A checkout and stubs, at paths with spaces."""
  (tmp_path / "my bin").mkdir()
  shutil.copytree(ROOT / "launch", tmp_path / "a checkout" / "launch")
  for name in ("gcloud", "git", "kubectl", "srun", "scancel", "scontrol"):
    stub(tmp_path, name, NOTE)
  stub(tmp_path, "python", PYTHON)
  return tmp_path


def stub(place, name, text):
  file = place / "my bin" / name
  file.write_text(text)
  file.chmod(0o755)


def ends(place, *statuses, process=""):
  (place / f"ends{process}").write_text("".join(f"{s}\n" for s in statuses))


def start(place, script, *flags, **env):
  path = f"{place / 'my bin'}:{os.environ['PATH']}"
  return subprocess.Popen(
    ["bash", f"launch/{script}", *flags],
    cwd=place / "a checkout",
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env={"HOME": str(place), "PATH": path, "WAIT": "0"} | env,
  )


def finish(process):
  out, err = process.communicate(timeout=60)
  return process.returncode, out, err


def calls(place):
  """The words of each call."""
  file = place / "calls"
  text = file.read_text() if file.exists() else ""
  return [call.split("\0") for call in text.split("\0\n\0")[:-1]]


def words(line):
  """What bash makes of a printed command."""
  out = subprocess.run(
    ["bash", "-c", f"printf '%s\\0' {line}"], check=True, capture_output=True, text=True
  ).stdout
  return out.split("\0")[:-1]


def wait_for(it):
  end = time.monotonic() + 60
  while not it():
    assert time.monotonic() < end
    time.sleep(0.01)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
  tool = pathlib.Path(sys.executable).parent / "shellcheck"
  said = subprocess.run([tool, ROOT / "launch" / script], text=True, capture_output=True)
  assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_every_script_says_how_it_is_used():
  for script in SCRIPTS:
    top = (ROOT / "launch" / script).read_text().split("\nset ")[0]
    assert all(x[0] == "#" for x in top.splitlines())
    if script != "tpu_host.sh":
      assert f"launch/{script} " in top and "DRY_RUN=1" in top


@pytest.mark.parametrize(
  "script, env",
  [
    ("machine.sh", {}),
    ("local.sh", {"PORT": "7"}),
    ("slurm.sbatch", {}),
    ("tpu_pod.sh", POD),
    ("gke.sh", GKE),
  ],
  ids=lambda x: x and str(x)[:9],
)
def test_a_dry_run_prints_it_all_and_does_nothing(place, script, env):
  before = sorted(place.rglob("*"))
  status, out, err = finish(start(place, script, *FLAGS, DRY_RUN="1", **env))
  assert (status, err) == (0, "")
  assert not calls(place)
  assert sorted(place.rglob("*")) == before
  if script == "gke.sh":
    container = pod(out)["containers"][0]
    assert container["command"] == ["python", "-m", "jaxgen", "train"]
    # Kubernetes reads $$(X) as $(X).
    assert [a.replace("$$(", "$(") for a in container["args"]] == FLAGS
  elif script == "tpu_pod.sh":
    (line,) = [x for x in out.splitlines() if x.startswith("set --")]
    assert words(line)[2:] == FLAGS
    (line,) = [x for x in out.splitlines() if " create " in x]
    want = "adm64 --zone=z-1 --accelerator-type=v5litepod-32"
    want += " --runtime-version=v2-alpha-tpuv5-lite --node-id=adm64"
    assert words(line)[5:10] == want.split()
  else:
    lines = out.splitlines() if script == "local.sh" else [out]
    assert len(lines) == (2 if script == "local.sh" else 1)
    for line in lines:
      assert words(line)[-len(FLAGS) :] == FLAGS


@pytest.mark.parametrize(
  "lives", [[0], [2], [3], [130], [1, 75, 76, 137, 139, 143, 0], [75, 2]], ids=str
)
def test_what_is_started_again(place, lives):
  ends(place, *lives)
  status, _, err = finish(start(place, "machine.sh", *FLAGS))
  assert status == lives[-1]
  assert calls(place) == [["python", "-m", "jaxgen", "train", *FLAGS]] * len(lives)
  assert [x.split(";")[0] for x in err.splitlines()] == [
    f"ended with status {s}" for s in lives[:-1]
  ]


def test_tries_are_counted_until_it_goes_well(place):
  ends(place, *[1] * 9)
  assert finish(start(place, "machine.sh", TRIES="3"))[0] == 1
  assert len(calls(place)) == 3
  # A life of STEADY seconds, here of any length, begins the count anew.
  ends(place, *[1] * 9, 0)
  assert finish(start(place, "machine.sh", TRIES="2", STEADY="0"))[0] == 0


@pytest.mark.parametrize("how, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_final(place, how, status):
  ends(place, "wait")
  process = start(place, "machine.sh")
  wait_for((place / "waits").exists)
  process.send_signal(how)
  assert finish(process)[0] == status
  assert len(calls(place)) == 1


def test_a_signal_between_lives_is_final(place):
  ends(place, 1, 0)
  process = start(place, "machine.sh", WAIT="300")
  wait_for(lambda: calls(place))
  time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  assert finish(process)[0] == 143
  assert len(calls(place)) == 1


def test_no_python_is_a_mistake_not_a_crash(place):
  status, _, err = finish(start(place, "machine.sh", PYTHON="no such"))
  assert status == 2 and "no such" in err


def test_local_processes_know_their_places(place):
  ends(place, 75, 0, process=0)
  ends(place, 137, 75, 0, process=1)
  flags = "--processes", "2", "--devices=4", *FLAGS
  status, _, err = finish(start(place, "local.sh", *flags, PORT="7", XLA_FLAGS="--mine"))
  assert status == 0, err
  flag = "--mine --xla_force_host_platform_device_count=4"
  assert (
    sorted((place / "places").read_text().splitlines())
    == [f"0 2 127.0.0.1:7 {flag}"] * 2 + [f"1 2 127.0.0.1:7 {flag}"] * 3
  )
  assert calls(place)[0] == ["python", "-m", "jaxgen", "train", *FLAGS]
  assert "process 1 ended with status 137; life 2" in err


def test_when_a_local_process_ends_for_good_all_do(place):
  ends(place, "wait", process=0)
  ends(place, 75, 3, process=1)
  assert finish(start(place, "local.sh", PORT="7", WAIT="1"))[0] == 3
  ends(place, "wait", process=0)
  ends(place, "wait", process=1)
  (place / "waits").unlink()
  process = start(place, "local.sh", PORT="7")
  wait_for((place / "waits").exists)
  time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  assert finish(process)[0] == 143


def test_a_process_for_each_gpu_of_a_machine(place):
  """Each sees the GPU of its number, among those that the machine lets through."""
  flags = "--processes", "8", *FLAGS
  status, out, err = finish(start(place, "machine.sh", *flags, DRY_RUN="1", PORT="7"))
  assert (status, err) == (0, "") and not calls(place)
  for i, line in enumerate(out.splitlines()):
    own = f"JAXGEN_PROCESS_ID={i}", f"JAX_LOCAL_DEVICE_IDS={i}"
    where = ["env", "JAXGEN_COORDINATOR=127.0.0.1:7", "JAXGEN_PROCESSES=8", *own]
    assert words(line) == [*where, "bash", "launch/machine.sh", *FLAGS]
  assert i == 7


def test_one_process_of_a_machine_has_all_gpus(place):
  status, out, _ = finish(start(place, "machine.sh", "--processes=1", *FLAGS, DRY_RUN="1"))
  assert status == 0 and words(out) == ["python", "-m", "jaxgen", "train", *FLAGS]


@pytest.mark.parametrize("flags", [["--processes"], ["--processes=0"], ["--processes", "x"]])
def test_a_machine_wants_a_number_of_processes(place, flags):
  status, _, err = finish(start(place, "machine.sh", *flags))
  assert status == 2 and "--processes wants a number" in err and not calls(place)


@pytest.mark.parametrize("script", ["machine.sh", "local.sh", "slurm.sbatch"])
def test_other_verbs_are_started_alike(place, script):
  status, out, _ = finish(start(place, script, "--out=o", DRY_RUN="1", VERB="compare", PORT="7"))
  assert status == 0
  if script == "local.sh":  # its loops run machine.sh, which reads VERB
    assert all(words(line)[-3:-1] == ["bash", "launch/machine.sh"] for line in out.splitlines())
  else:
    assert words(out)[-4:] == ["-m", "jaxgen", "compare", "--out=o"]


@pytest.mark.parametrize(
  "flags", [["--processes"], ["--processes", "two"], ["--devices=0"]], ids=str
)
def test_local_wants_numbers(place, flags):
  status, _, err = finish(start(place, "local.sh", *flags))
  assert status == 2 and "numbers" in err


SLURM = {"SLURM_JOB_ID": "4097", "SLURM_CPUS_PER_TASK": "16"}
SRUN = (
  NOTE
  + """
shift 2
tasks=()
for ((i = 0; i < TASKS; i++)); do
  JAXGEN_PROCESS_ID=$i "$@" &
  tasks+=($!)
done
worst=0
for t in "${tasks[@]}"; do
  wait "$t"
  s=$?
  if ((s > worst)); then worst=$s; fi
done
exit "$worst"
"""
)


@pytest.fixture
def slurm(place):
  """srun runs tasks here; scancel signals them."""
  stub(place, "srun", SRUN)
  stub(place, "scancel", NOTE + 'pkill -TERM -P "$(pgrep -P $PPID -f srun)"')
  return place


def test_slurm_starts_all_tasks_again(slurm):
  ends(slurm, 75, 0, process=0)
  ends(slurm, 137, 0, process=1)
  status, _, err = finish(start(slurm, "slurm.sbatch", *FLAGS, **SLURM, TASKS="2"))
  assert status == 0 and "ended with status 137; life 2" in err
  train = ["python", "-m", "jaxgen", "train", *FLAGS]
  done = calls(slurm)
  assert [c for c in done if c[0] == "python"] == [train] * 4
  assert [c for c in done if c[0] != "python"] == [
    ["srun", "--wait=300", "--cpus-per-task=16", *train]
  ] * 2


def test_slurm_saves_and_queues_again_when_time_is_up(slurm):
  for i in range(2):
    ends(slurm, "wait", process=i)
  process = start(slurm, "slurm.sbatch", **SLURM, TASKS="2")
  wait_for(lambda: sum(c[0] == "python" for c in calls(slurm)) == 2)
  time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  status, _, err = finish(process)
  assert status == 143, err
  assert calls(slurm)[-2:] == [
    ["scancel", "--signal=TERM", "4097"],
    ["scontrol", "requeue", "4097"],
  ]


@pytest.mark.parametrize("status", [0, 2, 3, 130])
def test_slurm_does_not_queue_again_what_has_ended(slurm, status):
  ends(slurm, status, process=0)
  assert finish(start(slurm, "slurm.sbatch", **SLURM, TASKS="1"))[0] == status
  assert "requeue" not in str(calls(slurm))


GCLOUD = (
  NOTE
  + """
case "$*" in
  *" list "*)
    read -r state <"$HOME/states"
    sed -i 1d "$HOME/states"
    [ "$state" != offline ] || exit 1
    [ "$state" = absent ] || echo "$state"
    ;;
  *" cat "*) grep -q . "$HOME/states" && exit 1; echo 3 ;;
  *" create "*)
    for word in "$@"; do
      case $word in
        *=startup-script=*) cp "${word##*=}" "$HOME/startup.sh" || exit ;;
      esac
    done
    ;;
esac
"""
)


@pytest.fixture
def cloud(place):
  """A cloud in which requests go through `states`; then all has ended."""
  stub(place, "gcloud", GCLOUD)
  return place


def test_a_pod_that_is_taken_away_is_asked_for_again(cloud):
  states = "absent WAITING_FOR_RESOURCES ACTIVE ACTIVE offline SUSPENDED absent ACTIVE".split()
  (cloud / "states").write_text("\n".join([*states, ""]))
  status, _, err = finish(
    start(cloud, "tpu_pod.sh", *FLAGS, **POD, SLICES="2", SPOT="1", FLAGS="--reserved --network=n")
  )
  assert status == 3, err
  told = "absent WAITING_FOR_RESOURCES ACTIVE SUSPENDED absent ACTIVE".split()
  assert [line.split()[2] for line in err.splitlines()[:-1]] == told
  verbs = [c[4] if c[1] == "compute" else c[2] for c in calls(cloud) if c[0] == "gcloud"]
  changes = [v for v in verbs if v not in ("list", "cat")]
  assert changes == "cp rm create delete create delete".split()
  create = next(c for c in calls(cloud) if "create" in c)
  flags = "--node-count=2 --node-prefix=adm64 --spot --reserved --network=n"
  assert set(flags.split()) < set(create)


def test_a_watch_taken_up_again_sends_nothing(cloud):
  (cloud / "states").write_text("ACTIVE\n")
  assert finish(start(cloud, "tpu_pod.sh", *FLAGS, **POD))[0] == 3
  assert not {"create", "cp", "rm"} & {w for c in calls(cloud) for w in c}


@pytest.mark.parametrize(
  "script, env, share", [("tpu_pod.sh", POD, "SHARE"), ("gke.sh", GKE, "CLAIM")], ids=["tpu", "gke"]
)
def test_a_workdir_that_not_all_hosts_see_is_refused(place, script, env, share):
  for workdir, value in (("/w", "share"), ("/share/w", ""), ("s3://b/w", "share")):
    status, _, err = finish(start(place, script, f"--workdir={workdir}", **env | {share: value}))
    assert status == 2 and "gs://BUCKET/NAME" in err and share in err and not calls(place)
  for flag in ("--workdir=gs://b/w", "--workdir gs://b/w"):
    words = [*flag.split(" "), "--config=c"]
    assert finish(start(place, script, *words, **env | {share: "", "DRY_RUN": "1"}))[0] == 0


def test_a_jobset_of_a_bucket_mounts_nothing(place):
  words = ["--config", "c", "--workdir", "gs://my-bucket/w"]
  status, out, _ = finish(start(place, "gke.sh", *words, DRY_RUN="1", **GKE | {"CLAIM": ""}))
  (container,) = pod(out)["containers"]
  assert status == 0 and "volumes" not in pod(out) and "volumeMounts" not in container
  (cache,) = container["env"]
  assert cache == {"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://my-bucket/jaxgen-xla"}
  assert container["args"] == words and "@" not in out


def test_what_cannot_be_created_is_not_asked_for_again(cloud):
  stub(cloud, "gcloud", GCLOUD.replace("for word", "exit 1; for word"))
  (cloud / "states").write_text("absent\n" * 9)
  assert finish(start(cloud, "tpu_pod.sh", *FLAGS, **POD))[0] == 1


def test_what_the_hosts_of_a_pod_run(cloud):
  """Their script, with folders of this test for those of a machine."""
  (cloud / "states").write_text("absent\n")
  assert finish(start(cloud, "tpu_pod.sh", *FLAGS, **POD))[0] == 3
  home = cloud / "a checkout"
  for name in ("mountpoint", "mount.nfs", "tar", "uv", "systemctl", "systemd-run"):
    stub(cloud, name, NOTE)
  text = (
    (cloud / "startup.sh")
    .read_text()
    .replace("/opt/jaxgen", str(cloud / "home"))
    .replace("mkdir -p /share", ":")
  )
  (cloud / "home").symlink_to(home)
  (home / "launch" / "startup.sh").write_text(text.replace("HOME=/root", "HOME=$HOME"))
  (cloud / "calls").unlink()
  status, _, err = finish(start(cloud, "startup.sh"))
  assert status == 0, err
  done = [c[0] for c in calls(cloud)]
  assert done == ["mountpoint", "gcloud", "tar", "uv", "uv", "systemctl", "systemd-run"]
  run = home / "run.sh"
  assert [words(x)[2:] for x in run.read_text().splitlines() if "machine.sh" in x] == [FLAGS]


def pod(text):
  """The specification of a pod in a JobSet."""
  (jobs,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
  return jobs["template"]["spec"]["template"]["spec"]


def test_a_jobset_has_a_pod_for_each_host(place):
  status, out, _ = finish(start(place, "gke.sh", *FLAGS, DRY_RUN="1", **GKE | {"SLICES": "2"}))
  (jobs,) = yaml.safe_load(out)["spec"]["replicatedJobs"]
  job = jobs["template"]["spec"]
  assert status == 0 and jobs["replicas"] == 2
  assert job["parallelism"] == job["completions"] == 8
  assert job["backoffLimit"] == 0
  assert pod(out)["restartPolicy"] == "Never"
  assert pod(out)["containers"][0]["resources"] == {"limits": {"google.com/tpu": 4}}
  (rule,) = job["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"]["values"] == [2, 3, 130]
  assert "@" not in out


@pytest.mark.parametrize(
  "env, tells",
  [
    ({"TOPOLOGY": "3x3"}, "9 chips"),
    ({"NAME": "a: b"}, "letters"),
    ({"CLAIM": "x\ny: z"}, "letters"),
    ({"TOPOLOGY": "4x4;"}, "letters"),
  ],
  ids=str,
)
def test_a_jobset_of_nonsense_is_refused(place, env, tells):
  status, _, err = finish(start(place, "gke.sh", *FLAGS, **GKE | env))
  assert status == 2 and tells in err and not calls(place)


def test_a_jobset_is_sent(place):
  stub(place, "kubectl", NOTE + 'cat >"$HOME/sent"')
  assert finish(start(place, "gke.sh", *FLAGS, **GKE))[0] == 0
  assert calls(place) == [["kubectl", "apply", "-f", "-"]]
  assert pod((place / "sent").read_text())["containers"][0]["image"] == GKE["IMAGE"]
