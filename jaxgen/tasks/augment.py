"""Does generated data train a better classifier, and whose data?

  jaxgen augment --data digits --workdirs W1,W2 --out report
  jaxgen augment --data digits --configs digits_diffusion,digits_gan \
    --real 20,50,200,all --steps 600 --out report
  jaxgen augment --data digits --workdirs W --save folder --out report

A small classifier is trained on real images alone, on samples alone (as many, with
the same labels: the classification accuracy score), and on real images with 25, 50,
100 and 200% of samples; for few and many real images a class; with several seeds,
which draw weights, order and samples anew. It is tested on the real test split.

A generator that was trained on more real images than the classifier brings their
knowledge along: the page says where that is so. --configs trains a generator for
each number of real images on these alone, as data `digits:first=20` have them; so
does any workdir that was trained on such a part, which is used at its number only.

Writes report/augment.json (which a killed run goes on from), augment.html and
augment.png; and samples in report/samples, or with --save also as data sets that
others can read: folder (by class), npz or array_record.
"""

import functools
from collections.abc import Sequence

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import config, files
from jaxgen.checkpoint import meta
from jaxgen.data.arrays import Source
from jaxgen.data.labelled_sets import FORMS
from jaxgen.data.sources import open_split
from jaxgen.data.subset import parted
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.sampling.sampler import key_of
from jaxgen.tasks import augment_page, memorisation
from jaxgen.tasks.augment_generators import ALL, Maker, generators, same_source
from jaxgen.tasks.augment_trials import Lab, Plan, read
from jaxgen.tasks.commands import announce, command_of

SHARES = ("25", "50", "100", "200")
FEWEST_TEST = 10
HOLDOUT = 0.2  # share of images, where there is no test split
IN_BUCKETS = ("workdirs", "out", "data")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("data", None, "real, labelled images, as config.data.source; default: of the first workdir")
  flag("out", None, "folder of the report")
  flag("save", None, f"samples also as data sets: {', '.join(FORMS)}")
  lists = functools.partial(flags.DEFINE_list, flag_values=values)
  lists("workdirs", [], "of generators that take labels")
  lists("configs", [], "of generators to train on each number of real images: digits_gan,..")
  lists("real", ["20", "50", "200", ALL], "real images of each class; all: as many as there are")
  lists("shares", list(SHARES), "of samples beside real images, in percent")
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("seeds", 3, "trainings for each number")
  integer("steps", None, "of each generator of --configs; default: the config's")
  integer("classifier_steps", None, "of each classifier; default: those of configs/judge.py")
  integer("batch", 256, "samples drawn at once")
  integer("seed", 0, "of all randomness")
  memorisation.define(values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.out or not (values.workdirs or values.configs):
    raise UserError("augment needs --out=FOLDER, and --workdirs=W,V or --configs=digits_gan")
  if values.configs and not (values.data or values.workdirs):
    raise UserError("--configs are trained on parts of the data: say --data=digits or another")
  key_of(values.seed)
  if values.save not in (None, *FORMS):
    raise UserError(f"--save={values.save}: want {', '.join(FORMS)}")
  sizes = [word if word == ALL else str(whole("real", word)) for word in values.real]
  shares = [whole("shares", word) for word in values.shares]
  home = files.path(values.out)
  check_report(home, "augment.json", ("augment.html", "augment.png"), ("rows", "augment"))
  rows = read(home / "augment.json")
  spec = data_spec(values)
  real = open_split(spec)
  check_labels(real)
  test = open_test(spec, values.workdirs)
  introduce(real, "train")
  introduce(test, "test")
  sizes = possible(sizes, real)
  plan = Plan(
    sizes, shares, values.seeds, values.seed, values.classifier_steps, values.batch, values.save
  )
  makers = generators(values, home, spec, real, sizes)
  looks = looks_of(makers, values.copies)
  made = {"command": command_of("augment", values), "seed": values.seed}
  lab = Lab(home, plan, spec, (real, test), makers, rows)
  results = lab.run(made)
  checks = lab.find_copies(looks)
  lab.save(made, lab.rows)
  picture, page = augment_page.page(results, checks)
  pictures.save_png(home / "augment.png", picture, results["made"])
  files.write_text(home / "augment.html", page)
  print(augment_page.text(results))
  for check in checks:
    print(check.line())


def looks_of(makers: Sequence[Maker], data: str | None) -> dict[str, memorisation.Copies]:
  """By workdir, what looks for copies among a generator's samples; {} where nobody asked."""
  workdirs = {workdir for maker in makers for workdir in maker.workdirs.values()}
  return {w: memorisation.open_copies(data, w) for w in sorted(workdirs)} if data else {}


def whole(flag: str, word: str) -> int:
  """A positive number of a list. UserError for anything else."""
  if not (word.isascii() and word.isdecimal() and 0 < int(word) < 10**9):
    raise UserError(f"--{flag}={word}: want whole numbers above 0" + ", or all" * (flag == "real"))
  return int(word)


def data_spec(values: flags.FlagValues) -> ConfigDict:
  """config.data of all real images: as the first generator sees them, of --data."""
  if values.workdirs:
    own = meta.settings(meta.latest(values.workdirs[0])).data
  else:
    own = config.load(values.configs[0]).data
  spec = ConfigDict(dict(own))
  spec.source, chosen = parted(values.data or own.source)
  if chosen and values.data:
    raise UserError(f"--data={values.data}: name all of the data; --real says how many are used")
  spec.update(split="train", fraction=1.0, flip=False, crop=0.0)
  if not values.workdirs or not same_source(spec.source, own.source):
    spec.holdout = HOLDOUT  # of data without a test split
  return spec


def check_labels(real: Source) -> None:
  """UserError for data without labels, or that are no images."""
  if len(real.shape) != 3 or real.dtype != np.uint8:
    raise UserError(f"{real.name} holds no images: classifiers of images are what is trained here")
  if real.classes < 2:
    raise UserError(f"{real.name} has no labels: a classifier needs two classes or more")


def open_test(spec: ConfigDict, workdirs: Sequence[str]) -> Source:
  """The real images to test on. UserError where there are none, or no generator left any."""
  try:
    test = open_split(spec, "test")
  except UserError as e:
    if not workdirs or spec.get("holdout", 0):
      raise
    raise UserError(
      f"{spec.source} has no test split, and {workdirs[0]} was trained on all of it: train "
      f"generators with --config.data.holdout={HOLDOUT}, so that there are images to test on"
    ) from e
  if len(test) < FEWEST_TEST:
    raise UserError(f"{test.name} has {len(test)} test images: want at least {FEWEST_TEST}")
  return test


def possible(sizes: Sequence[str], real: Source) -> list[str]:
  """Those sizes that the data have, smallest first. UserError where none is left."""
  most = int(np.bincount(real.arrays()[1], minlength=real.classes).min())
  good = {s for s in sizes if s == ALL or int(s) <= most}
  for size in sizes:
    if size not in good:
      announce("augment", f"--real={size} is left out: {real.name} has {most} images of a class")
  if not good:
    raise UserError(f"--real={','.join(sizes)}: {real.name} has {most} images of some class")
  return sorted(good, key=lambda s: np.inf if s == ALL else int(s))


if __name__ == "__main__":
  from jaxgen import cli

  cli.run("jaxgen.tasks.augment")
