"""A week on a preemptible pod, played in minutes: the same bits, and is goodput as predicted?

  python tests/helpers/week.py --config configs/points_gan.py:debug --bucket s3 \
      --day 75 --set steps=4000 --set checkpoint.every=100

Several processes train in a bucket on this machine, and are all started again
when they end, until there is nothing left to do. For seven days of `--day`
seconds harm is done to them, by a seed:

  preemption    SIGKILL to all, `--preemptions` times a day on average
  maintenance   SIGTERM to all, as a notice comes; on the 2nd and 6th day
  slow host     SIGSTOP to one of them for `--pause` seconds; on the 3rd
  outage        nobody answers in the bucket for `--pause` seconds; on the 4th
  corruption    SIGKILL to all, and one bit flips in the newest checkpoint; on the 5th

The same is trained in peace before, in a folder. At the end the SHA-256 of every
leaf and all rows of the logs are compared: status 1 if any differs, or if what
was corrupted is not in the quarantine.

Goodput is the share of wall time spent on steps that count. It is predicted by
Daly's formula for the time that a piece of work of t seconds takes, if it costs
C to save it, R to start again, and failures come at random, M seconds apart:

  T = M exp(R / M) (exp((t + C) / M) - 1),   goodput = t / T

(J. T. Daly, A higher order estimate of the optimum checkpoint interval, 2006,
eq. 13; to first order T is least at Young's t = sqrt(2 C M)). That is the mean over
all weeks; beside it stands what the same costs say of this very week, harm by harm.
A slow host's pause is added; an outage costs nothing in it, for steps go on. Both
are told twice, by the costs of the peaceful training and by the week's own: a
machine that does other things is not the same for long.
"""

import argparse
import contextlib
import math
import pathlib
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import kill
import pod
import storm

from jaxgen import files
from jaxgen.checkpoint import disk, restore

DAYS = 7
OTHERS = {2: "maintenance", 3: "slow host", 4: "outage", 5: "corruption", 6: "maintenance"}
ENDING = ("preemption", "maintenance", "corruption")  # what ends all processes
FINAL = (2, 3)  # statuses after which nobody starts again


class Harm(NamedTuple):
  """One of them, and when, in seconds from the start."""

  at: float
  kind: str


class Costs(NamedTuple):
  """Seconds: of a step, of saving, and of a start before the first step."""

  step: float
  save: float
  start: float


class Week(NamedTuple):
  """How it went: what happened, seconds of each start that came to a step, and in all."""

  done: list[Harm]
  starts: list[float]
  seconds: float


def main() -> int:
  """Returns the exit status."""
  flags = storm.parser(__doc__, kills=0)
  flags.add_argument("--day", type=float, default=75, help="seconds")
  flags.add_argument("--preemptions", type=float, default=2, help="a day, on average")
  flags.add_argument("--pause", type=float, default=5, help="seconds of a slow host, an outage")
  args = flags.parse_args()
  args.bucket = args.bucket or "gs"
  peace = pathlib.Path(tempfile.mkdtemp(prefix="jaxgen-week-")) / "peace"
  with kill.place(args) as (home, bucket):
    costs = live_in_peace(args, peace)
    harms = schedule(args, random.Random(args.seed))
    week = play(args, home / "week", bucket, harms)
    differ = kill.compare(peace, home / "week")
    lost = corrupted(home / "week", week.done)
    report(args, home / "week", costs, week)
  print(f"{len(differ)} DIFFER" if differ else "all the same, bit by bit, and all rows are there")
  return 1 if differ or lost else 0


def live_in_peace(args: argparse.Namespace, workdir: pathlib.Path) -> Costs:
  """Trains without harm. Compiled programs are kept: of two calls the second starts sooner."""
  words = [*storm.command(args), f"--workdir={workdir}"]
  with pod.started(args.processes, args.devices, words, env=storm.environment(args)) as processes:
    start = time.monotonic()
    while not stepping(processes) and processes[0].poll() is None:
      time.sleep(0.02)
    start = time.monotonic() - start
    if any(d.status for d in pod.finish(processes, kill.PATIENCE)):
      sys.exit(f"no peace: {[d.stderr[-2000:] for d in pod.finish(processes, 0)]}")
  return costs_of(restore.latest_meta(workdir), start)


def stepping(processes: Sequence[pod.Process]) -> bool:
  """Whether the first process has said that it took a step."""
  return bool(re.search(rb"^\d+/\d+", processes[0].err.read_bytes(), re.MULTILINE))


def costs_of(meta: Mapping[str, Any], start: float) -> Costs:
  """By the last checkpoint of a training, and seconds of a start."""
  spent, saves = meta["goodput"]["seconds"], meta["step"] / meta["config"]["checkpoint"]["every"]
  step = (spent["step"] + spent.get("data", 0.0)) / meta["step"]
  return Costs(step, spent.get("checkpoint", 0.0) / math.ceil(saves), start)


def schedule(args: argparse.Namespace, chance: random.Random) -> list[Harm]:
  """What happens in the week, in order."""
  harms, at = [Harm((d - 1 + chance.random()) * args.day, k) for d, k in OTHERS.items()], 0.0
  while (at := at + chance.expovariate(args.preemptions / args.day)) < DAYS * args.day:
    harms.append(Harm(at, "preemption"))
  return sorted(harms)


def play(
  args: argparse.Namespace, workdir: pathlib.Path, bucket: Any, harms: Sequence[Harm]
) -> Week:
  """Trains to the end through all that happens."""
  start_time, chance, due = time.monotonic(), random.Random(args.seed), [*harms]
  done, starts = [], []
  now = lambda: time.monotonic() - start_time
  words = [*storm.command(args), f"--workdir={workdir}"]
  while True:
    with pod.started(args.processes, args.devices, words, env=storm.environment(args)) as processes:
      born, ready = now(), False
      while any(p.poll() is None for p in processes):
        if due and due[0].at <= now():
          harm = due.pop(0)
          done.append(Harm(now(), do(harm.kind, processes, args, workdir, bucket, chance)))
        if not ready and (ready := stepping(processes)):
          starts.append(now() - born)
        time.sleep(0.02)
        if now() > DAYS * args.day + kill.PATIENCE:
          sys.exit(f"nothing goes on: {[d.stderr[-500:] for d in pod.finish(processes, 0)]}")
      ends = pod.finish(processes, 0)
    statuses = [d.status for d in ends]
    what = ([""] + [h.kind for h in done if h.kind in ENDING and h.at > born])[-1]
    print(f"{now():6.1f} s  {what:12} {statuses}  {last_line(ends)}", flush=True)
    if set(statuses) == {0}:
      return Week(done, starts, now())
    if set(statuses) & {*FINAL}:
      sys.exit(f"status {statuses}\n" + "\n".join(d.stderr[-2000:] for d in ends))


def last_line(ends: Sequence[pod.Done]) -> str:
  """What the first process printed last."""
  return ends[0].stderr.strip().rsplit("\n", 1)[-1][:70]


def do(
  kind: str,
  processes: Sequence[pod.Process],
  args: argparse.Namespace,
  workdir: pathlib.Path,
  bucket: Any,
  chance: random.Random,
) -> str:
  """One harm -> its kind, when it is over."""
  if kind == "slow host":
    slow = chance.choice(processes)
    slow.send_signal(signal.SIGSTOP)
    time.sleep(args.pause)
    slow.send_signal(signal.SIGCONT)
  elif kind == "outage":
    with bucket.outage():
      time.sleep(args.pause)
  else:
    for process in processes:
      process.send_signal(signal.SIGTERM if kind == "maintenance" else signal.SIGKILL)
  if kind == "corruption":
    for process in processes:
      process.wait()
    return kind if flip(workdir) else "preemption"
  return kind


def flip(workdir: pathlib.Path) -> bool:
  """Changes one bit of the newest checkpoint's largest object of arrays, if there is one."""
  steps = disk.steps(workdir)
  if not steps:
    return False
  state = disk.folder(workdir) / str(steps[-1]) / "state"
  objects = {n: (state / n).read_bytes() for n in files.sizes(state) if "/d/" in f"/{n}"}
  name = max(objects, key=lambda n: len(objects[n]))
  content = bytearray(objects[name])
  content[len(content) // 2] ^= 1
  (state / name).write_bytes(bytes(content))
  print(f"          a bit flips in checkpoint {steps[-1]}")
  return True


def corrupted(workdir: pathlib.Path, done: Sequence[Harm]) -> bool:
  """Whether a corruption was not noticed."""
  with contextlib.suppress(FileNotFoundError):
    if files.names(workdir / "quarantine"):
      return False
  return any(harm.kind == "corruption" for harm in done)


def predicted(work: float, costs: Costs, failures: float) -> float:
  """Seconds by Daly's formula for `work` seconds of steps that are then saved.

  `failures`: mean seconds between them.
  """
  again = math.exp(costs.start / failures)
  return failures * again * math.expm1((work + costs.save) / failures)


def replayed(args: argparse.Namespace, costs: Costs, done: Sequence[Harm], meta: Any) -> float:
  """Seconds that all takes at such costs if this happens at these moments."""
  every, steps = meta["config"]["checkpoint"]["every"], meta["step"]
  lost = lambda kind: args.pause if kind == "slow host" else 0.0
  now, at, before, pause, stepping_since = 0.0, 0, 0, 0.0, costs.start
  reach = lambda until: at + steps_in(max(0.0, until - stepping_since - pause), costs, every)
  for harm in done:
    pause += lost(harm.kind) if harm.at > stepping_since else 0.0
    if harm.kind not in ENDING or harm.at < now or reach(harm.at) >= steps:
      continue
    reached = reach(harm.at)
    if harm.kind != "maintenance":
      reached = max(at, reached // every * every)
    before, at = (max(at, reached - every), reached) if reached > at else (before, at)
    at = before if harm.kind == "corruption" else at
    now, pause, stepping_since = harm.at, 0.0, harm.at + costs.start
  return stepping_since + pause + (steps - at) * (costs.step + costs.save / every)


def steps_in(seconds: float, costs: Costs, every: int) -> int:
  """How many steps are taken in some time, with a save after each `every`."""
  return int(seconds / (costs.step + costs.save / every))


def report(args: argparse.Namespace, workdir: pathlib.Path, peace: Costs, week: Week) -> None:
  """Prints what happened, and goodput as it was predicted and as it was."""
  meta = restore.latest_meta(workdir)
  kinds = Counter(harm.kind for harm in week.done)
  spent, every = meta["goodput"]["seconds"], meta["config"]["checkpoint"]["every"]
  mean = week.seconds / max(sum(kinds[k] for k in ENDING), 1)
  print(f"{dict(kinds)} in {week.seconds:.0f} s, {mean:.1f} s between those that end all")
  print("spent: " + ", ".join(f"{k} {v:.1f} s" for k, v in sorted(spent.items()) if v >= 0.05))
  own = costs_of(meta, sum(week.starts) / len(week.starts))
  for name, costs in (("in peace", peace), ("in the week", own)):
    work, useful = costs.step * every, costs.step * meta["step"]
    daly = predicted(work, costs, mean) * useful / work + args.pause * kinds["slow host"]
    again = replayed(args, costs, week.done, meta)
    print(
      f"costs {name}: step {1e3 * costs.step:.0f} ms, save {costs.save:.2f} s, start "
      f"{costs.start:.1f} s; a save every {work:.1f} s, best by Young "
      f"{math.sqrt(2 * costs.save * mean):.1f} s; goodput by Daly {useful / daly:.1%}, "
      f"harm by harm {useful / again:.1%}"
    )
  measured = (spent["step"] + spent.get("data", 0.0)) / week.seconds
  print(f"goodput measured {measured:.1%} of the wall time")


if __name__ == "__main__":
  sys.exit(main())
