"""Several models side by side: train what is missing, sample, judge, report.

  jaxgen compare --configs digits_diffusion,digits_gan,digits_vae --out demo
  jaxgen compare --workdirs W1,W2 --out report
  jaxgen compare --cards a.json,b.json      (cards of `jaxgen eval --protocol`)

Writes OUT/report.html (one file, no network) and OUT/report.json; models that
had to be trained lie in OUT/NAME and go on from there next time. With --seeds
every config is trained so often, and numbers are means over the trainings. As
many samples of each are judged as there are examples to train on, or --num.
"""

import functools

from absl import flags

from jaxgen.compare.comparison import SETS, compare
from jaxgen.errors import UserError
from jaxgen.evaluation import cards

FEWEST = 10 * SETS  # samples: sets of ten
IN_BUCKETS = ("workdirs", "cards", "out")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  lists = functools.partial(flags.DEFINE_list, default=[], flag_values=values)
  lists("configs", help="to train first where need be")
  lists("workdirs", help="already trained")
  lists("cards", help="of evaluations, to be ranked")
  flags.DEFINE_string("out", None, "folder of the report", flag_values=values)
  text = "trainings of each config, with seeds 0, 1, .. and the spread between them"
  flags.DEFINE_integer("seeds", 1, text, flag_values=values)
  text = "samples of each to judge; default: as many as there are to train on"
  flags.DEFINE_integer("num", None, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if values.cards:
    print(cards.rank({path: cards.load(path) for path in values.cards}))
    return
  if not values.out or not values.configs + values.workdirs:
    raise UserError("compare needs --out=FOLDER and --configs=a.py,b.py or --workdirs=V,W")
  if values.seeds < 1:
    raise UserError(f"seeds={values.seeds}: want at least 1")
  if values.num is not None and values.num < FEWEST:
    raise UserError(f"--num={values.num}: want at least {FEWEST}")
  compare(values.configs, values.workdirs, values.out, values.seeds, values.num)
