"""Quality against cost: one trained model under many settings.

  jaxgen sweep --workdir W --out sweep
  jaxgen sweep --workdir W --samplers heun,unipc --nfe 50,25 --out sweep
  jaxgen sweep --workdir W --over guidance=1,1.5,2 --over eta=0,1 --out sweep

Every sampler at every number of network evaluations and every value that is
swept over, judged alike. Writes OUT/sweep.json (which further runs add to, and
which a killed one goes on from), OUT/sweep.md and OUT/sweep.png.
"""
import functools
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from jaxgen import cli, pictures
from jaxgen.chain import data_of
from jaxgen.device import machine
from jaxgen.errors import UserError
from jaxgen.evaluate import save_json
from jaxgen.judge import Judge, means, open_judge, spreads
from jaxgen.sampler import Sampler, load

Row = dict[str, Any]


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "folder of the results")
  flag("classifier", None, "workdir of a noisy classifier to guide with")
  flag("respacing", None, "times to visit: karras, ddim, ..., see sample")
  flag("judge", None, "folder of the judge; default: in the user's cache")
  flag("ema", None, "profile of averaged weights")
  lists = functools.partial(flags.DEFINE_list, flag_values=values)
  lists("samplers", [], "by name; default: the config's")
  lists("nfe", [], "network evaluations of an unguided sample, at the most")
  flags.DEFINE_multi_string("over", [], "knob=value,value,...; repeatable",
                            flag_values=values)
  flags.DEFINE_integer("num", None, "samples for each row; default: as many as "
                       "the training split has", flag_values=values)
  flags.DEFINE_integer("seed", 0, "of the samples", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("sweep needs --workdir=W and --out=FOLDER")
  nfes, over = numbers("nfe", values.nfe), dict(map(parse, values.over))
  data = data_of(values.workdir)
  judge = open_judge(data, values.judge)
  home = pathlib.Path(values.out)
  rows = known(home / "sweep.json")
  for sampler in values.samplers or [None]:
    model = load(values.workdir, ema=values.ema, sampler=sampler,
                 respacing=values.respacing, classifier=values.classifier)
    for knobs in settings(model, nfes, over):
      card = model.card | {"family": type(model.model).__name__}
      told = {"card": card, "knobs": knobs, "seed": values.seed,
              "num": values.num or judge.count}
      if any(row["told"] == told for row in rows):
        continue
      rows.append({"told": told} | judged(model, judge, told))
      tell(rows[-1])
      save_json(home / "sweep.json", {
          "machine": machine(), "judge": judge.card,
          "floor": means(judge.floor()), "rows": rows})
  publish(home, rows, means(judge.floor()))


def known(path: pathlib.Path) -> list[Row]:
  """The rows that are there already."""
  try:
    return json.loads(path.read_text())["rows"]
  except FileNotFoundError:
    return []
  except (ValueError, KeyError, TypeError) as e:
    raise UserError(f"{path} is no result of a sweep ({e}): move it away"
                    ) from e


def parse(text: str) -> tuple[str, list[float]]:
  """"eta=0,1" -> ("eta", [0., 1.])."""
  name, equals, values = text.partition("=")
  if not equals:
    raise UserError(f"--over={text}: want knob=value,value")
  return name, numbers(f"over={name}", values.split(","))


def numbers(flag: str, words: Sequence[str]) -> list[float]:
  """UserError for a word that is no number."""
  try:
    return [float(w) for w in words]
  except ValueError:
    raise UserError(f"--{flag}={','.join(words)}: want numbers") from None


def settings(model: Sampler, nfes: Sequence[float],
             over: dict[str, Sequence[float]]) -> Iterator[dict[str, float]]:
  """Every combination of knobs, checked before the first is sampled."""
  plain = {"guidance": 1., "scale": 0.}  # what leaves a model unguided
  plain = {k: v for k, v in plain.items() if k in model.model.knobs}
  if nfes:
    if "steps" not in model.model.knobs:
      raise UserError(f"a {type(model.model).__name__} does not sample in "
                      "steps: leave --nfe")
    over = over | {"steps": [longest(model, n, plain) for n in nfes]}
  combinations = [dict(zip(over, values, strict=True))
                  for values in itertools.product(*over.values())]
  for knobs in combinations:
    model.settings(knobs)
  yield from combinations


def longest(model: Sampler, nfe: float, plain: dict[str, float]) -> float:
  """The most steps that evaluate the network `nfe` times at the most."""
  for steps in range(int(nfe), 0, -1):
    if model.model.nfe(**plain | {"steps": steps}) <= nfe:
      return float(steps)
  raise UserError(f"--nfe={nfe:g}: this sampler takes more for a single step")


def judged(model: Sampler, judge: Judge, told: dict[str, Any]) -> Row:
  """Samples and their scores."""
  y = model.labels(told["num"], None)
  begun = time.perf_counter()
  x = model.sample(told["seed"], told["num"], y, **told["knobs"])
  took = time.perf_counter() - begun
  scores = judge.scores(x, y, cas=False)
  return {"nfe": model.model.nfe(**told["knobs"]), "seconds": took,
          "scores": means(scores), "spread": spreads(scores)}


def tell(row: Row) -> None:
  """Progress, on stderr."""
  first = next(iter(row["scores"]))
  print(f"[sweep] {label(row)} {row['nfe']} evaluations: {first} "
        f"{row['scores'][first]:.4g} in {row['seconds']:.0f} s",
        file=sys.stderr, flush=True)


def label(row: Row) -> str:
  """What a row has in common with the others of its curve."""
  card, knobs = row["told"]["card"], row["told"]["knobs"]
  words = [str(card["sampler"] or card["family"]).rpartition(".")[2]]
  words += [w for w in (card.get("respacing"),
                        "classifier" if card.get("classifier") else "") if w]
  return " ".join(words + [f"{k}={v:g}" for k, v in knobs.items()
                           if k != "steps"])


def publish(home: pathlib.Path, rows: Sequence[Row], floor: dict[str, float]
            ) -> None:
  """The table, also on stdout, and the plot."""
  metric = next(iter(floor))
  curves: dict[str, dict[int, str]] = {}
  points: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    spread = row["spread"].get(metric)
    text = f"{row['scores'][metric]:.3g}" + (
        f" ± {spread:.1g}" if spread else "")
    curves.setdefault(label(row), {})[row["nfe"]] = text
    points.setdefault(label(row), []).append(
        (row["nfe"], row["scores"][metric]))
  columns = rounded({n for curve in curves.values() for n in curve})
  lines = [["evaluations", *map(str, sorted({*columns.values()}))],
           ["---", *["---:"] * len({*columns.values()})]]
  for name, curve in curves.items():
    cells = {columns[n]: text for n, text in curve.items()}
    lines.append([name, *(cells.get(n, "")
                          for n in sorted({*columns.values()}))])
  text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
  text = f"{metric} (real test data: {floor[metric]:.3g})\n\n{text}\n"
  (home / "sweep.md").write_text(text)
  pictures.save_png(home / "sweep.png", pictures.curves(
      points, x="network evaluations", y=metric, floor=floor[metric]))
  print(text)


def rounded(numbers: set[int]) -> dict[int, int]:
  """{n: its column}: Heun's 49 evaluations stand in the column of 50."""
  columns: dict[int, int] = {}
  for n in sorted(numbers, reverse=True):
    last = min(columns.values(), default=0)
    columns[n] = last if n >= 0.95 * last > 0 else n
  return columns


if __name__ == "__main__":
  cli.run("jaxgen.sweep")
