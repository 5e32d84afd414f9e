"""Kill a choice again and again: the same trainings and the same verdict?

  python tests/helpers/kill_choice.py --data photos --budget 24kimg --kills 6 --seed 1

Chooses twice by the same command: once in peace, and once with SIGKILL at
random moments of the time that the former took. Then compares the SHA-256 of
every leaf of each training's last state, all that rounds have measured, and the
verdict. Status 1 if any differs. Budgets of time cannot be compared like that.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from kill import finish, hashes, start

PATIENCE = 3600  # seconds
TIMES = (
  *("created", "workdir", "commands", "next", "samples_per_second", "train_seconds", "seconds"),
  *("judge_seconds", "speed", "changes", "peak_memory"),  # "changes" say who is too close to call
)


def timeless(value):
  """Results without what the clock, the machine or the folder says."""
  if isinstance(value, dict):
    return {k: timeless(v) for k, v in value.items() if k not in TIMES}
  return [timeless(v) for v in value] if isinstance(value, list) else value


def main() -> int:
  """Returns the exit status."""
  args, flags = parser().parse_known_args()
  home = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="jaxgen-kill-"))
  command = [sys.executable, "-m", "jaxgen", "choose", *flags]
  peace, war = home / "peace", home / "war"
  start_time = time.monotonic()
  finish(command, peace, "out", PATIENCE)
  seconds = time.monotonic() - start_time
  print(f"in peace {seconds:.0f} s, in {home}", flush=True)
  chance, kills = random.Random(args.seed), 0
  for life in range(args.kills):
    pause = chance.uniform(0, 2 * seconds / args.kills)
    process = start(command, war, "out")
    try:
      process.wait(pause)
    except subprocess.TimeoutExpired:
      process.kill()
    kills += process.wait() < 0
    rounds = len(list((war / "rounds").glob("*.json")))
    status = f"status {process.wait()}, {rounds} judgements are there"
    print(f"life {life + 1}: after {pause:.1f} s {status}", flush=True)
  finish(command, war, "out", PATIENCE)
  differ = compare(peace, war)
  print(f"{kills} kills:", differ or "the same bits, numbers and verdict")
  return 1 if differ else 0


def compare(peace: pathlib.Path, war: pathlib.Path) -> list[str]:
  """What differs between two choices."""
  trainings = sorted(p.parent.name for p in peace.glob("*/checkpoints"))
  print(f"{len(trainings)} trainings: {', '.join(trainings)}")
  differ = [name for name in trainings if hashes(peace / name) != hashes(war / name)]
  names = sorted(p.name for p in (peace / "rounds").glob("*.json"))
  read = lambda path: timeless(json.loads(path.read_text().replace(str(war), str(peace))))
  differ += [n for n in names if read(peace / "rounds" / n) != read(war / "rounds" / n)]
  if read(peace / "choice.json") != read(war / "choice.json"):
    differ.append("choice.json")
  return differ


def parser() -> argparse.ArgumentParser:
  """Flags of this script; others are those of `jaxgen choose`."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
  )
  parser.add_argument("--kills", type=int, default=6)
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument("--folder", help="for both; default: temporary")
  return parser


if __name__ == "__main__":
  sys.exit(main())
