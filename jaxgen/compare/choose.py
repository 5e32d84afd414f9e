"""Which kind of model for my data? All families under one budget.

  jaxgen choose --data folder:/my/images --budget 30m --out choice
  jaxgen choose --data digits --budget 500kimg --seeds 3 --out choice
  jaxgen choose --data folder:/my/wavs --rate 16000 --budget 2h --out choice
  jaxgen choose --data npz:x.npz --budget 3e15flop --contenders a.py,b.py --out c

Looks at the data, times the contenders, says what it is going to do (--dry_run
ends there), trains all of them in turn and judges them after each round, so
that OUT/report.html and OUT/choice.json hold an answer early. Budgets are of
time on this machine (30m, 1h30m), of training images (500kimg) or of operations
(3e15flop), in equal parts. Whatever stops it, the same command goes on.

Preparing (looking, training a judge, compiling, timing) is outside of a budget
of time, and its seconds are told before anything is trained. Training and
judging, with all that they load and write, are inside.
"""

import functools
import json
import time
from typing import Any

import jax
from absl import flags

from jaxgen import config, files
from jaxgen.checkpoint import lock
from jaxgen.compare import budget as budgets
from jaxgen.compare import rows
from jaxgen.compare.agenda import HALF, open_agenda
from jaxgen.compare.contenders import default_paths, load_contenders, make_devices
from jaxgen.compare.preparation import plan_lines, prepare
from jaxgen.data.clip_survey import check_images, survey_clips
from jaxgen.data.points import is_points
from jaxgen.data.sources import open_split
from jaxgen.data.survey import SIZES, survey
from jaxgen.distributed import join
from jaxgen.distributed.preemption import STOPPED, stop_signal
from jaxgen.errors import UserError
from jaxgen.evaluation.learned import published_weights
from jaxgen.monitor.results import check_report
from jaxgen.report import verdict

HOLDOUT = 0.2  # of data that have no test split of their own
FEWEST_PIXELS, CPU_PIXELS = 32, 32  # of a side, for any of our configs, and for CPUs
CPU_SAMPLES = 4096  # of a clip, for CPUs
DATA = ("source", "size", "channels", "classes", "holdout", "rate")  # of a config
IN_BUCKETS = ("data", "out")  # flags that take gs://bucket/name

announce = functools.partial(rows.announce, "choose")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("data", None, "folder:/my/images, npz:x.npz, tfds:cifar10, digits, spoken_digits, ...")
  flag("budget", None, "of the whole choice: 30m, 1h30m, 500kimg, 50kclips, 3e15flop")
  flag("out", None, "folder of trainings and report")
  flag("features", None, "inception or dinov2, if weights are at hand; default: learned here")
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("size", None, "height and width, or samples of a clip; default: by the data")
  integer("rate", None, "of a folder of recordings: samples a second at which to work")
  integer("seeds", 1, "trainings of each contender")
  integer("num", None, "samples to judge; default: as the budget allows")
  text = "configs; default: one of each family"
  flags.DEFINE_list("contenders", [], text, flag_values=values)
  text = "also train each on half of the data, for half as long"
  flags.DEFINE_bool("halves", False, text, flag_values=values)
  flags.DEFINE_bool("dry_run", False, "end with the plan", flag_values=values)


def main(values: flags.FlagValues) -> int:
  """The verb; answers 0, or STOPPED if somebody asked for an early end."""
  if not values.data or not values.budget or not values.out:
    raise UserError("choose needs --data=SOURCE, --budget=30m and --out=FOLDER")
  start, budget, home = time.perf_counter(), budgets.parse(values.budget), files.path(values.out)
  if values.features:
    published_weights(values.features)  # or says what is missing
  if values.rate is not None and values.rate < 1:
    raise UserError(f"--rate={values.rate}: want samples a second, such as 16000")
  join.share(lambda: check_report(home, "plan.json", ("choice.json", "report.html", "rounds")))
  make_devices(values.contenders, values.data, is_sound(values))
  data, lines = look(values)
  tell("\n".join(lines))
  paths = values.contenders or default_paths(data["source"], data["size"], data.get("rate", 0))
  entries = load_contenders(paths, data, home, values.seeds)
  if budget.kind == "img":  # before anything is timed
    costs = {e.name: float(e.config.batch) for e in entries}
    budgets.split(budget, costs, len(entries) * (values.seeds + HALF * values.halves))
  spec = {
    "data": data,
    "contenders": {e.name: config.as_json(e.config) for e in entries},
    "seeds": values.seeds,
    "halves": values.halves,
    "features": values.features or "",
    "num": values.num or 0,
  }
  try:
    with lock.exclusive(home), stop_signal() as stopped:
      agenda = open_agenda(home / "plan.json", spec, budget)
      rounds = prepare(home, entries, agenda, lines)
      tell("\n".join(plan_lines(rounds, time.perf_counter() - start)))
      if stopped() or not (values.dry_run or rounds.run(stopped)):
        announce("stopped by a signal: the same command goes on from here")
        return STOPPED
  except OSError as e:  # a full disk, or data that went away
    why = f"{e.strerror or e}: {e.filename or home}"
    raise UserError(f"{why}; what is done is there, and the same command goes on") from e
  if not values.dry_run and join.is_main_process():
    tell(verdict.sentence(json.loads((home / "choice.json").read_text())))
    tell(str(home / "report.html"))
  return 0


def tell(text: str) -> None:
  """A line on stdout, of several processes by the first."""
  if join.is_main_process():
    print(text, flush=True)


def is_sound(values: flags.FlagValues) -> bool:
  """Whether --data are clips: whoever has recordings says their --rate."""
  return bool(values.rate or values.data == "spoken_digits")


def look(values: flags.FlagValues) -> tuple[dict[str, Any], list[str]]:
  """What config.data is to be, and what is to be said of the data."""
  data = {"source": values.data, "size": values.size or 0, "holdout": HOLDOUT}
  if is_points(values.data):
    points, held = open_split(data | {"split": "train"}), open_split(data | {"split": "test"})
    line = f"{points.name}: {len(points):,} points to train on, {len(held):,} to judge by"
    return data | {"channels": 0, "classes": 0}, [line]
  if is_sound(values):
    on_cpu = jax.default_backend() == "cpu"
    seen = survey_clips(data | {"rate": values.rate or 0}, CPU_SAMPLES if on_cpu else None)
    return {k: seen.data[k] for k in DATA if k in seen.data}, seen.lines()
  check_images(values.data)
  seen = survey(data, most_pixels())
  if not values.size and values.data != "digits" and seen.data["size"] < FEWEST_PIXELS:
    seen = survey(data | {"size": FEWEST_PIXELS}, FEWEST_PIXELS)
  return {k: seen.data[k] for k in DATA if k in seen.data}, seen.lines()


def most_pixels() -> int:
  """Of the side of an image, where nobody says how large it is to be."""
  return CPU_PIXELS if jax.default_backend() == "cpu" else SIZES[0]
