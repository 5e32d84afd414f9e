"""Quality against cost: one trained model under many settings.

  jaxgen sweep --workdir W --out sweep
  jaxgen sweep --workdir W --samplers heun,unipc --nfe 50,25 --out sweep
  jaxgen sweep --workdir W --over guidance=1,1.5,2 --over eta=0,1 --out sweep
  jaxgen sweep --workdir G --over truncation=0.3,0.6,1,2 --standing 16 \
    --metrics precision,recall --out sweep
  jaxgen sweep --workdir U --respacing warped --nfe 8 --over bend=1,2,3 --out s

Every sampler at every number of network evaluations and every value that is
swept over, judged alike; a model that enlarges images, on small test images
(restoration.py). Writes OUT/sweep.json (which further runs add to, and which a
killed one goes on from), OUT/sweep.md and OUT/sweep.png. Where all take as many
evaluations, what is swept over first is drawn to the right.
"""

import functools
import itertools
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags

from jaxgen import files, forms
from jaxgen.bench.device import machine
from jaxgen.errors import UserError, nearest, printable
from jaxgen.evaluation import restoration
from jaxgen.evaluation.judge import Judge, means, open_judge, spreads
from jaxgen.forms import NUMBER, Each
from jaxgen.monitor import pictures, results
from jaxgen.sampling import latents
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.stages import data_of

Row = dict[str, Any]
FORM = {
  "rows": [
    {
      "told": {"card": {"family": str, "sampler?": str, "respacing?": str}, "knobs": Each(float)},
      "nfe": float,
      "scores": Each(NUMBER),
      "spread": Each(NUMBER),
    }
  ]
}
SHARES = ("precision", "recall", "coverage", "cas", "high_quality")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "folder of the results")
  flag("classifier", None, "workdir of a noisy classifier to guide with")
  flag("respacing", None, "times to visit: karras, ddim, ..., see sample")
  flag("judge", None, "folder of the judge; default: in the user's cache")
  flag("ema", None, "profile of averaged weights")
  restoration.define(values, picture=False)
  lists = functools.partial(flags.DEFINE_list, flag_values=values)
  lists("metrics", [], "to show, such as precision,recall; default: the first")
  lists("samplers", [], "by name; default: the config's")
  lists("nfe", [], "network evaluations of an unguided sample, at the most")
  flags.DEFINE_multi_string("over", [], "knob=value,value,...; repeatable", flag_values=values)
  flags.DEFINE_integer(
    "num",
    None,
    "samples for each row; default: as many as the training split has",
    flag_values=values,
  )
  flags.DEFINE_integer("seed", 0, "of the samples", flag_values=values)
  flags.DEFINE_integer(
    "standing",
    None,
    "GANs: batches of 256 that settle batch norm's statistics anew for every truncation",
    flag_values=values,
  )


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("sweep needs --workdir=W and --out=FOLDER")
  key_of(values.seed)
  home = pathlib.Path(values.out)
  results.check_report(home, "sweep.json", ("sweep.md", "sweep.png"))
  nfes, over = numbers("nfe", values.nfe), dict(map(parse, values.over))
  data, judge = data_of(values.workdir), None
  rows = known(home / "sweep.json")
  for sampler in values.samplers or [None]:
    model = load(
      values.workdir,
      ema=values.ema,
      sampler=sampler,
      respacing=values.respacing,
      classifier=values.classifier,
    )
    if judge is None:
      judge = judge_of(model, data, values)
      floor = means(judge.floor())
      metrics = chosen(values.metrics, floor)
    for knobs in settings(model, nfes, over):
      settled = latents.with_standing_stats(model, values.standing, knobs)
      card = settled.card | {"family": type(model.model).__name__}
      told = {"card": card, "knobs": knobs, "seed": values.seed, "num": values.num or judge.count}
      if any(row["told"] == told for row in rows):
        continue
      rows.append({"told": told} | judged(settled, judge, told))
      tell(rows[-1])
      files.write_json(
        home / "sweep.json",
        {"machine": machine(), "judge": judge.card, "floor": floor, "rows": rows},
      )
  publish(home, rows, floor, metrics, judge)


def judge_of(model: Sampler, data: Any, values: flags.FlagValues) -> Judge:
  """Of samples; or of what becomes of small test images."""
  if restoration.enlarges(model.model):
    return restoration.Pairs.of(model, data, values)
  restoration.check_flags(values)
  return open_judge(data, values.judge)


def chosen(wanted: Sequence[str], known: Iterable[str]) -> list[str]:
  """Metrics by name, or by the part of it before "@"; the first by default."""
  known = list(known)
  found = [next((k for k in known if w in (k, k.partition("@")[0])), None) for w in wanted]
  for name, metric in zip(wanted, found, strict=True):
    if metric is None:
      raise UserError(f"--metrics={name}: there is no such metric here" + nearest(name, known))
  return found or known[:1]


def known(path: pathlib.Path) -> list[Row]:
  """The rows that are there already."""
  try:
    rows = forms.read(
      path, FORM, lambda why: f"{path} is no result of a sweep ({why}): move it away"
    )["rows"]
  except FileNotFoundError:
    return []
  return [
    row | {k: {m: forms.number(v) for m, v in row[k].items()} for k in ("scores", "spread")}
    for row in rows
  ]


def parse(text: str) -> tuple[str, list[float]]:
  """ "eta=0,1" -> ("eta", [0., 1.])."""
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


def settings(
  model: Sampler, nfes: Sequence[float], over: dict[str, Sequence[float]]
) -> Iterator[dict[str, float]]:
  """Every combination of knobs, checked before the first is sampled."""
  plain = {"guidance": 1.0, "scale": 0.0}  # what leaves a model unguided
  plain = {k: v for k, v in plain.items() if k in model.model.knobs}
  if nfes:
    if "steps" not in model.model.knobs:
      raise UserError(f"a {type(model.model).__name__} does not sample in steps: leave --nfe")
    over = over | {"steps": [longest(model, n, plain) for n in nfes]}
  combinations = [
    dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())
  ]
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
  given, n = {}, told["num"]
  y = model.labels(n, None)
  if isinstance(judge, restoration.Pairs):
    y, given = judge.conditions(model, n)
  begun = time.perf_counter()
  x = model.sample(told["seed"], n, y, **told["knobs"], **given)
  took = time.perf_counter() - begun
  scores = judge.scores(x, y, cas=False)
  return {
    "nfe": model.model.nfe(**told["knobs"]),
    "seconds": took,
    "scores": means(scores),
    "spread": spreads(scores),
  }


def tell(row: Row) -> None:
  """Progress, on stderr."""
  first = next(iter(row["scores"]))
  print(
    f"[sweep] {label(row)} {row['nfe']} evaluations: {first} "
    f"{row['scores'][first]:.4g} in {row['seconds']:.0f} s",
    file=sys.stderr,
    flush=True,
  )


def label(row: Row, axis: str = "steps") -> str:
  """What a row has in common with the others of its curve."""
  card, knobs = row["told"]["card"], row["told"]["knobs"]
  words = [str(card.get("sampler") or card["family"]).rpartition(".")[2]]
  words += [w for w in (card.get("respacing"), "classifier" if card.get("classifier") else "") if w]
  return printable(
    " ".join(words + [f"{k}={v:g}" for k, v in knobs.items() if k not in ("steps", axis)])
  )


def axis_of(rows: Sequence[Row]) -> str:
  """What is drawn to the right: "steps", as evaluations, or another knob."""
  if len({row["nfe"] for row in rows}) > 1:
    return "steps"
  for knob in rows[0]["told"]["knobs"]:
    if len({row["told"]["knobs"].get(knob) for row in rows} - {None}) > 1:
      return knob
  return "steps"


def publish(
  home: pathlib.Path,
  rows: Sequence[Row],
  floor: dict[str, float],
  metrics: Sequence[str],
  judge: Judge,
) -> None:
  """The table, also on stdout, and the plot."""
  axis = axis_of(rows)
  right = "evaluations" if axis == "steps" else axis
  curves: dict[str, dict[float, str]] = {}
  points: dict[str, list[tuple[float, float]]] = {}
  for row, metric in itertools.product(rows, metrics):
    at = row["nfe"] if axis == "steps" else row["told"]["knobs"].get(axis)
    if at is None or metric not in row["scores"]:
      continue
    spread = row["spread"].get(metric)
    text = f"{row['scores'][metric]:.3g}" + (f" ± {spread:.1g}" if spread else "")
    name = label(row, axis) + (f" {metric}" if len(metrics) > 1 else "")
    curves.setdefault(name, {})[at] = text
    points.setdefault(name, []).append((at, row["scores"][metric]))
  columns = {n: n for curve in curves.values() for n in curve}
  if axis == "steps":
    columns = rounded(set(columns))
  order = sorted({*columns.values()})
  lines = [[right, *(f"{n:g}" for n in order)], ["---", *["---:"] * len(order)]]
  for name, curve in curves.items():
    cells = {columns[n]: text for n, text in curve.items()}
    lines.append([name, *(cells.get(n, "") for n in order)])
  text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
  named = getattr(judge, "floor_name", "real test data")
  real = ", ".join(f"{m} {floor[m]:.3g}" for m in metrics)
  text = f"{', '.join(metrics)} ({named}: {real})\n\n{text}\n"
  files.write_text(home / "sweep.md", text)
  pictures.save_png(
    home / "sweep.png",
    pictures.curves(
      points,
      x="network evaluations" if axis == "steps" else axis,
      y=", ".join(metrics),
      floor=floor[metrics[0]] if len(metrics) == 1 else None,
      floor_name=named,
      shares=all(m.partition("@")[0] in SHARES for m in metrics),
    ),
  )
  print(text)


def rounded(numbers: set[float]) -> dict[float, float]:
  """{n: its column}: Heun's 49 evaluations stand in the column of 50."""
  columns: dict[float, float] = {}
  for n in sorted(numbers, reverse=True):
    last = min(columns.values(), default=0)
    columns[n] = last if n >= 0.95 * last > 0 else n
  return columns
