"""What a bucket costs a training: time for a save, and of the steps while it saves.

  python tests/helpers/bucket_cost.py --config configs/points_gan.py:debug --bucket gs \
      --pairs 3 --devices 4 --set steps=60 --set checkpoint.every=10

Several processes train by the same command in a folder and in a bucket on this
machine, in turn, so that what else the machine does falls on both. Prints of
each the seconds for which a save keeps the loop from stepping, those of a step,
and the ratios of each pair. The bucket's server has the last core to itself, as a
bucket's servers are other machines; both trainings run on the others.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import kill
import storm

from jaxgen.checkpoint import restore


class Seconds(NamedTuple):
  """Of one training: for a save, and for a step."""

  save: float
  step: float


def main() -> int:
  """Returns the exit status."""
  flags = storm.parser(__doc__, kills=0)
  flags.add_argument("--pairs", type=int, default=3)
  args = flags.parse_args()
  args.bucket = args.bucket or "gs"
  folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxgen-cost-"))
  here, there = [], []
  *cores, servers = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {servers})  # of this thread, and of what it starts
  with kill.place(args) as (bucket, _):
    os.sched_setaffinity(0, cores or {servers})
    for i in range(args.pairs):
      pair = [(folder / str(i), here), (bucket / str(i), there)]
      for workdir, results in pair if i % 2 else pair[::-1]:
        results.append(spent(args, workdir))
        print(f"{workdir}: {results[-1]}", flush=True)
  say("a save, folder", [s.save for s in here], "s")
  say("a save, bucket", [s.save for s in there], "s")
  say("steps a second in the bucket", [a.step / b.step for a, b in zip(here, there, strict=True)])
  return 0


def spent(args: argparse.Namespace, workdir: pathlib.Path) -> Seconds:
  """Trains to the end."""
  storm.finish(storm.command(args), workdir, args, storm.environment(args))
  meta = restore.latest_meta(workdir)
  seconds, every = meta["goodput"]["seconds"], meta["config"]["checkpoint"]["every"]
  steps = seconds["step"] + seconds.get("data", 0.0)
  return Seconds(seconds.get("checkpoint", 0.0) / -(-meta["step"] // every), steps / meta["step"])


def say(what: str, values: Sequence[float], unit: str = "of those in the folder") -> None:
  """Prints the median, and from where to where."""
  median = statistics.median(values)
  print(f"{what}: {median:.3f} {unit} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
  sys.exit(main())
