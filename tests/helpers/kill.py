"""Kill a training again and again: does it end with the same bits?

  python tests/helpers/kill.py --config configs/digits_vae.py:debug --kills 10 \
      --set steps=200 --set checkpoint.every=10
  python tests/helpers/kill.py --config configs/points_gan.py:debug --bucket s3 --harm 0.05

Trains twice by the same command: once in peace, and once with SIGKILL at
random moments, in turn while it starts, while it trains, and within
milliseconds after a checkpoint's folder has appeared. Then compares the
SHA-256 of every leaf of the final states, and the logs. Status 1 if any
differs.
"""

import argparse
import contextlib
import hashlib
import logging
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxgen import files
from jaxgen.checkpoint import disk
from jaxgen.monitor.log import read_jsonl

PATIENCE = 600  # seconds that any life may last
TALK = tempfile.TemporaryDirectory(prefix="jaxgen-kill-")


def main() -> int:
  """Returns the exit status."""
  args = parser(__doc__, kills=10).parse_args()
  with place(args) as (home, _):
    return war_and_peace(args, home)


@contextlib.contextmanager
def place(args: argparse.Namespace) -> Iterator[tuple[pathlib.Path, Any]]:
  """Where the workdirs go: -> (folder or address, the `Bucket` that it is in or None)."""
  if not args.bucket:
    yield pathlib.Path(args.folder or tempfile.mkdtemp(prefix="jaxgen-kill-")), None
    return
  from bucket_server import Bucket  # here, for others of this file have no server

  with Bucket(seed=args.seed, kind=args.bucket) as bucket:
    bucket.faults.throttle = bucket.faults.drop = args.harm
    yield files.path(f"{bucket.address}/kill"), bucket
    print(f"answers: {dict(bucket.answers)}")


def war_and_peace(args: argparse.Namespace, home: pathlib.Path) -> int:
  """Trains below a folder, twice; returns the exit status."""
  command = [
    sys.executable,
    "-m",
    "jaxgen",
    "train",
    f"--config={args.config}",
    *(f"--config.{s}" for s in args.set),
  ]
  chance = random.Random(args.seed)

  start_time = time.monotonic()
  peace = home / "peace"
  finish(command, peace)
  took = time.monotonic() - start_time
  print(f"{args.config}: in peace {took:.1f} s, in {home}")
  print(f"{'life':>4}  {'killed':24} {'after':>7}  checkpoints left")
  war = home / "war"
  for life in range(args.kills):
    moment, lived = kill(command, war, life % 3, chance, took / 2)
    print(f"{life + 1:4}  {moment:24} {lived:6.2f}s  {disk.steps(war) or 'none'}", flush=True)
  finish(command, war)

  differ = compare(peace, war)
  print(
    f"{args.kills} kills, {len(hashes(war))} leaves",
    f"{len(differ)} DIFFER" if differ else "all the same, bit by bit",
    sep=": ",
  )
  return 1 if differ else 0


def compare(peace: pathlib.Path, war: pathlib.Path) -> list[str]:
  """What differs between two workdirs; told as well."""
  before, after = hashes(peace), hashes(war)
  differ = sorted(k for k in before | after if before.get(k) != after.get(k))
  for name in differ:
    print(f"DIFFERS: {name}")
  logs = [
    [
      {k: v for k, v in row.items() if k != "time" and not k.startswith("goodput/")}
      for row in read_jsonl(w / "metrics.jsonl")
    ]
    for w in (peace, war)
  ]
  if logs[0] != logs[1]:
    differ.append("metrics.jsonl")
    print("DIFFERS: metrics.jsonl")
  return differ


def parser(text: str, kills: int) -> argparse.ArgumentParser:
  """Flags of this script, of `storm` and `week`; `kills` is the default number."""
  parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--config", required=True)
  parser.add_argument("--kills", type=int, default=kills)
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="A.B=X",
    help="changes the config, in both trainings",
  )
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument("--folder", help="for the workdirs; default: temporary")
  parser.add_argument(
    "--bucket", nargs="?", const="gs", choices=("gs", "s3"), help="on a server here, no folder"
  )
  parser.add_argument(
    "--harm", type=float, default=0, help="share of its requests that are throttled, and cut"
  )
  return parser


def start(command: list[str], workdir: pathlib.Path, flag: str = "workdir") -> subprocess.Popen:
  """A training in a process of its own; what it says goes to a file."""
  workdir.parent.mkdir(parents=True, exist_ok=True)
  with open(log_of(workdir), "ab") as log:
    return subprocess.Popen([*command, f"--{flag}={workdir}"], stdout=log, stderr=log)


def log_of(workdir: pathlib.Path) -> str:
  """Where what a training says goes: beside its workdir, if that is a folder."""
  return files.choose(workdir, f"{workdir}.log", f"{TALK.name}/{workdir.name}.log")


def finish(
  command: list[str], workdir: pathlib.Path, flag: str = "workdir", patience: float = PATIENCE
) -> None:
  """Trains to the end; what went wrong ends this script, too."""
  process = start(command, workdir, flag)
  try:
    status = process.wait(patience)
  finally:
    process.kill()  # nothing of one that has ended
  if status:
    text = pathlib.Path(log_of(workdir)).read_text(errors="replace")
    sys.exit(f"status {status} of {' '.join(command)}\n{text[-2000:]}")


def kill(
  command: list[str], workdir: pathlib.Path, kind: int, chance: random.Random, most: float
) -> tuple[str, float]:
  """One life, ended by SIGKILL: -> the moment, seconds lived.

  It starts, or trains, for at most so many seconds: enough to have saved by then.
  """
  before = progress(workdir)
  start_time = time.monotonic()
  life = start(command, workdir)
  moment, pause = await_moment(kind, workdir, before, life, chance, most, most / 2)
  try:
    life.wait(pause)
  except subprocess.TimeoutExpired:
    life.kill()
  status = life.wait()
  if status > 0:
    finish(command, workdir)  # ends with what it has to say
  moment = "too late: had ended" if status == 0 else f"{moment} +{1e3 * pause:.1f} ms"
  return moment, time.monotonic() - start_time


def await_moment(
  kind: int,
  workdir: pathlib.Path,
  before: tuple[set[str], int],
  process: subprocess.Popen,
  chance: random.Random,
  starting: float,
  training: float = 2,
) -> tuple[str, float]:
  """Waits until a training saves (kind 0), or trains (1), or not at all.

  `before` is its `progress` before the process began; `starting` the most
  seconds to pause of kind 2, `training` of kind 1. Returns (the kind's name,
  seconds to pause).
  """
  pause = files.choose(workdir, 0.001, 0.02)  # a server has others to answer
  if kind == 0:
    await_it(lambda: progress(workdir)[0] - before[0], process, pause)
    return "saving", chance.uniform(0, 0.02)
  if kind == 1:
    await_it(lambda: progress(workdir)[1] > before[1], process, pause)
    return "training", chance.uniform(0, training)
  return "starting", chance.uniform(0, starting)


def await_it(it: Callable[[], object], life: subprocess.Popen, pause: float) -> None:
  """Looks again after each pause until it is so, or the process has ended."""
  end = time.monotonic() + PATIENCE
  while not it() and life.poll() is None and time.monotonic() < end:
    time.sleep(pause)


def progress(workdir: pathlib.Path) -> tuple[set[str], int]:
  """Names of checkpoints, and bytes of the log."""
  log, saves = workdir / "metrics.jsonl", workdir / "checkpoints"
  return (
    set(files.names(saves)) if saves.exists() else set(),
    len(log.read_bytes()) if log.exists() else 0,
  )


def hashes(workdir: pathlib.Path) -> dict[str, str]:
  """SHA-256 of each leaf of the last state, as Orbax alone reads it."""
  logging.getLogger("absl").setLevel(logging.ERROR)  # "no metadata file"
  last = disk.folder(workdir) / str(disk.steps(workdir)[-1])
  disk.enable_arrays(last)
  raw = ocp.PyTreeCheckpointer()
  kind = ocp.RestoreArgs(restore_type=np.ndarray)
  state = raw.restore(
    last / "state",
    restore_args=jax.tree.map(lambda _: kind, raw.metadata(last / "state").item_metadata.tree),
  )
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {
    jax.tree_util.keystr(path): hashlib.sha256(
      f"{x.dtype}{x.shape}".encode() + x.tobytes()
    ).hexdigest()
    for path, x in leaves
  }


if __name__ == "__main__":
  sys.exit(main())
