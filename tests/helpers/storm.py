"""Kill one of several processes again and again: the same bits in the end?

  python tests/helpers/storm.py --config configs/points_gan.py:debug --kills 20 \
      --set steps=400 --set checkpoint.every=10

Trains twice on `--processes` processes: once in peace, and once with SIGKILL or
SIGTERM to one of them at random moments, in turn within milliseconds after a
checkpoint's folder has appeared, while it trains, and while it starts. Those
who are left have to say who is missing, and to end, also before all have joined;
then all are started again. Compares the SHA-256 of every leaf of the final
states, and the logs. Status 1 if any differs, or if somebody did not end by
itself.
"""

import argparse
import collections
import pathlib
import random
import signal
import sys
import time
from typing import NamedTuple

import kill
import pod
import xla

from jaxgen.checkpoint import disk


class Life(NamedTuple):
  """How one life of all processes went."""

  harm: signal.Signals | None  # None: it had ended before
  victim: int
  moment: str
  seconds: float  # from the harm to the end of all
  done: list[pod.Done]

  @property
  def stuck(self) -> bool:
    """Whether somebody had to be killed."""
    return any(d.status is None for d in self.done)


def main() -> int:
  """Returns the exit status."""
  args = arguments()
  with kill.place(args) as (home, _):
    return storm_and_peace(args, home)


def storm_and_peace(args: argparse.Namespace, home: pathlib.Path) -> int:
  """Trains below a folder, twice; returns the exit status."""
  words, env = command(args), environment(args)
  chance, start_time = random.Random(args.seed), time.monotonic()
  peace, storm = home / "peace", home / "storm"
  finish(words, peace, args, env)
  print(
    f"{args.config}, {args.processes} processes: in peace "
    f"{time.monotonic() - start_time:.1f} s, in {home}",
    flush=True,
  )
  start_time, lives = time.monotonic(), []
  for life in range(args.kills):
    lives.append(live(words, storm, args, env, life % 3, chance))
    report(life + 1, lives[-1], storm)
  finish(words, storm, args, env)
  stuck = sum(life.stuck for life in lives)
  differ = kill.compare(peace, storm)
  kinds = collections.Counter(life.harm.name for life in lives if life.harm)
  print(
    f"{dict(kinds)} in {time.monotonic() - start_time:.1f} s, "
    f"{args.kills + 1} lives, {stuck} did not end by themselves; "
    + (f"{len(differ)} DIFFER" if differ else "all the same, bit by bit")
  )
  return 1 if differ or stuck else 0


def command(args: argparse.Namespace) -> list[str]:
  """What is run, but for the workdir."""
  return ["train", f"--config={args.config}", *(f"--config.{s}" for s in args.set)]


def environment(args: argparse.Namespace) -> dict[str, str]:
  """Of each process."""
  return {
    "JAXGEN_HEARTBEAT_SECONDS": str(args.patience),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles sooner
    "XLA_FLAGS": xla.devices(args.devices),
  }


def arguments() -> argparse.Namespace:
  """What the command line says."""
  return parser(__doc__, kills=20).parse_args()


def parser(text: str, kills: int) -> argparse.ArgumentParser:
  """Flags of this script, and of `week`."""
  parser = kill.parser(text, kills)
  parser.add_argument("--processes", type=int, default=2)
  parser.add_argument("--devices", type=int, default=1, help="of each")
  parser.add_argument("--patience", type=int, default=30, help="seconds of silence that mean death")
  return parser


def finish(
  words: list[str], workdir: pathlib.Path, args: argparse.Namespace, env: dict[str, str]
) -> None:
  """Trains to the end; what went wrong ends this script, too."""
  done = pod.run(
    args.processes, args.devices, [*words, f"--workdir={workdir}"], env=env, timeout=kill.PATIENCE
  )
  if any(d.status for d in done):
    sys.exit("\n".join(f"{d.status}: {d.stderr[-2000:]}" for d in done))


def live(
  words: list[str],
  workdir: pathlib.Path,
  args: argparse.Namespace,
  env: dict[str, str],
  kind: int,
  chance: random.Random,
) -> Life:
  """One life, until somebody is harmed."""
  before = kill.progress(workdir)
  victim = chance.randrange(args.processes)
  harm = chance.choice([signal.SIGKILL, signal.SIGTERM])
  with pod.started(args.processes, args.devices, [*words, f"--workdir={workdir}"], env=env) as them:
    moment, pause = kill.await_moment(kind, workdir, before, them[victim], chance, starting=10)
    time.sleep(pause)
    if them[victim].poll() is not None:
      harm = None
    else:
      them[victim].send_signal(harm)
    start_time = time.monotonic()
    done = pod.finish(them, kill.PATIENCE)
  return Life(harm, victim, f"{moment} +{1e3 * pause:.0f} ms", time.monotonic() - start_time, done)


def report(number: int, life: Life, workdir: pathlib.Path) -> None:
  """Prints a line: how a life went, and what the others printed last."""
  what = life.harm.name if life.harm else "too late"
  last_lines = [
    d.stderr.strip().rsplit("\n", 1)[-1][:70] for i, d in enumerate(life.done) if i != life.victim
  ]
  print(
    f"{number:3} {what} to {life.victim} {life.moment:20} ends after "
    f"{life.seconds:5.1f} s: {[d.status for d in life.done]}, "
    f"{disk.steps(workdir) or 'none'} {last_lines}",
    flush=True,
  )


if __name__ == "__main__":
  sys.exit(main())
