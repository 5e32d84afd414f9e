"""Judge samples: of a trained model, or of a file.

  jaxgen evaluate --workdir W --num 1000 --out scores.json
  jaxgen evaluate --samples x.npz --data digits

See judge.py for what is measured. How real test data score is the floor:
nothing beats it but by luck or by copying.
"""
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from jaxgen import checkpoint, cli, sample
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.judge import means, open_judge, spreads, table


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model to judge")
  flag("samples", None, "or a file of samples: x.npz with arr_0, arr_1")
  flag("data", None, "what the samples of a file imitate, such as digits")
  flag("judge", None, "folder of the judge; default: in the user's cache")
  flag("out", None, "x.json gets the scores")
  flag("ema", None, "profile of averaged weights")
  flag("sampler", None, "in place of the config's")
  flags.DEFINE_integer("num", None, "samples to draw; default: as many as the "
                       "training split has", flag_values=values)
  flags.DEFINE_integer("seed", 0, "of the samples", flag_values=values)
  for name in sample.KNOBS:
    flags.DEFINE_float(name, None, "knob of the sampler, where it has it",
                       flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if bool(values.workdir) == bool(values.samples):
    raise UserError("evaluate wants one of --workdir=W and --samples=x.npz")
  if values.samples:
    if not values.data:
      raise UserError("--samples wants --data: what do they imitate?")
    source = open_source(f"npz:{values.samples}")
    data = ConfigDict(dict(source=values.data, split="train"))
    judge = open_judge(data, values.judge)
    x, y = source.arrays()
    made = {"samples": values.samples, "fingerprint": source.fingerprint}
  else:
    model = sample.load(values.workdir, ema=values.ema, sampler=values.sampler)
    data = ConfigDict(checkpoint.latest_meta(values.workdir)["config"]["data"])
    judge = open_judge(data, values.judge)
    n = values.num or judge.count
    knobs = {k: values[k].value for k in sample.KNOBS
             if values[k].value is not None}
    y = model.labels(n, None)
    x = model.sample(values.seed, n, y, **knobs)
    made = model.card | {"seed": values.seed, "num": n,
                         "knobs": sample.told(model.settings(knobs))}
  scores, floor = judge.scores(x, y), judge.floor()
  print(table(scores, floor))
  if values.out:
    save_json(values.out, {
        "made": made, "judge": judge.card, "scores": means(scores),
        "spread": spreads(scores), "floor": means(floor)})


def save_json(path: str | os.PathLike, result: Mapping[str, Any]) -> None:
  """Writes JSON whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f".{path.name}.{os.getpid()}")
  draft.write_text(json.dumps(checkpoint.as_json(result), indent=1))
  draft.replace(path)


if __name__ == "__main__":
  cli.run("jaxgen.evaluate")
