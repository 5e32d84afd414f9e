"""Kill a training again and again: does it end with the same bits?

  python tests/helpers/kill.py --config configs/digits_vae.py:debug --kills 10 \
      --set steps=200 --set checkpoint.every=10

Trains twice by the same command: once in peace, and once with SIGKILL at
random moments, in turn while it starts, while it trains, and within
milliseconds after a checkpoint's folder has appeared. Then compares the
SHA-256 of every leaf of the final states, and the logs. Status 1 if any
differs.
"""

import argparse
import hashlib
import logging
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxgen.checkpoint import disk
from jaxgen.monitor.log import read_jsonl

PATIENCE = 600  # seconds that any life may last


def main() -> int:
  """Returns the exit status."""
  args = arguments()
  home = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="jaxgen-kill-"))
  command = [
    sys.executable,
    "-m",
    "jaxgen",
    "train",
    f"--config={args.config}",
    *(f"--config.{s}" for s in args.set),
  ]
  chance = random.Random(args.seed)

  begun = time.monotonic()
  peace = home / "peace"
  finish(command, peace)
  print(f"{args.config}: in peace {time.monotonic() - begun:.1f} s, in {home}")
  print(f"{'life':>4}  {'killed':24} {'after':>7}  checkpoints left")
  war = home / "war"
  for life in range(args.kills):
    moment, lived = kill(command, war, life % 3, chance)
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


def arguments() -> argparse.Namespace:
  """What the command line says."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--config", required=True)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="A.B=X",
    help="changes the config, in both trainings",
  )
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument("--folder", help="for the workdirs; default: temporary")
  return parser.parse_args()


def start(command: list[str], workdir: pathlib.Path) -> subprocess.Popen:
  """A training in a process of its own; what it says goes to a file."""
  workdir.parent.mkdir(parents=True, exist_ok=True)
  with open(f"{workdir}.log", "ab") as log:
    return subprocess.Popen([*command, f"--workdir={workdir}"], stdout=log, stderr=log)


def finish(command: list[str], workdir: pathlib.Path) -> None:
  """Trains to the end; what went wrong ends this script, too."""
  status = start(command, workdir).wait(PATIENCE)
  if status:
    text = pathlib.Path(f"{workdir}.log").read_text(errors="replace")
    sys.exit(f"status {status} of {' '.join(command)}\n{text[-2000:]}")


def kill(
  command: list[str], workdir: pathlib.Path, kind: int, chance: random.Random
) -> tuple[str, float]:
  """One life, ended by SIGKILL: -> the moment, seconds lived."""
  log, saves = workdir / "metrics.jsonl", workdir / "checkpoints"
  old = names(saves), size(log)
  begun = time.monotonic()
  life = start(command, workdir)
  if kind == 0:
    await_it(lambda: names(saves) - old[0], life)
    pause, moment = chance.uniform(0, 0.02), "while saving, +{:.1f} ms"
  elif kind == 1:
    await_it(lambda: size(log) > old[1], life)
    pause, moment = chance.uniform(0, 2), "while training, +{:.0f} ms"
  else:
    pause, moment = chance.uniform(0, 4), "while starting, +{:.0f} ms"
  try:
    life.wait(pause)
  except subprocess.TimeoutExpired:
    life.kill()
  status = life.wait()
  if status > 0:
    finish(command, workdir)  # ends with what it has to say
  moment = "too late: had ended" if status == 0 else moment.format(1e3 * pause)
  return moment, time.monotonic() - begun


def await_it(it: Callable[[], object], life: subprocess.Popen) -> None:
  """Looks every millisecond until it is so, or the process has ended."""
  end = time.monotonic() + PATIENCE
  while not it() and life.poll() is None and time.monotonic() < end:
    time.sleep(0.001)


def names(folder: pathlib.Path) -> set[str]:
  """What a folder holds; nothing if it is not there."""
  return {p.name for p in folder.iterdir()} if folder.exists() else set()


def size(file: pathlib.Path) -> int:
  """Bytes; 0 if it is not there."""
  return file.stat().st_size if file.exists() else 0


def hashes(workdir: pathlib.Path) -> dict[str, str]:
  """SHA-256 of each leaf of the last state, as Orbax alone reads it."""
  logging.getLogger("absl").setLevel(logging.ERROR)  # "no metadata file"
  last = workdir.absolute() / "checkpoints" / str(disk.steps(workdir)[-1])
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
