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
evaluations, what is swept over first is drawn to the right. Several processes
draw together.
"""

import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxgen import files
from jaxgen.bench.device import machine
from jaxgen.compare.knobs import choose_metrics, most_steps, numbers
from jaxgen.compare.rows import Row, announce, draw, judge_folder, read_results
from jaxgen.distributed import join
from jaxgen.errors import UserError, printable
from jaxgen.evaluation import restoration
from jaxgen.evaluation.judge import Judge, means, open_judge, spreads
from jaxgen.forms import NUMBER, Each
from jaxgen.monitor import pictures, table
from jaxgen.monitor.results import check_report
from jaxgen.sampling import latents
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.stages import data_of, prepare_devices

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
IN_BUCKETS = ("workdir", "classifier", "out", "judge")  # flags that take gs://bucket/name


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
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("num", None, "samples for each row; default: as many as the training split has")
  integer("seed", 0, "of the samples")
  integer(
    "standing",
    None,
    "GANs: batches of 256 that settle batch norm's statistics anew for every truncation",
  )


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("sweep needs --workdir=W and --out=FOLDER")
  prepare_devices([values.workdir, values.classifier])
  key_of(values.seed)
  home = files.path(values.out)
  join.share(lambda: check_report(home, "sweep.json", ("sweep.md", "sweep.png")))
  nfes, over = numbers("nfe", values.nfe), dict(map(parse, values.over))
  data, judge = data_of(values.workdir), None
  rows = read_rows(home / "sweep.json")
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
      metrics = choose_metrics(values.metrics, floor) or list(floor)[:1]
    for knobs in combinations(model, nfes, over):
      settled = latents.with_standing_stats(model, values.standing, knobs)
      card = settled.card | {"family": type(model.model).__name__}
      spec = {"card": card, "knobs": knobs, "seed": values.seed, "num": values.num or judge.count}
      if any(row["told"] == spec for row in rows):
        continue
      row = measure(settled, judge, spec)
      rows.append(row)
      metric, score = next(iter(row["scores"].items()))
      cost = f"{row['nfe']} evaluations: {metric} {score:.4g} in {row['seconds']:.0f} s"
      announce("sweep", f"{label(row)} {cost}")
      card = {"machine": machine(), "judge": judge.card, "floor": floor, "rows": rows}
      if join.is_main_process():
        files.write_json(home / "sweep.json", card)
  if join.is_main_process():
    publish(home, rows, floor, metrics, judge)


def judge_of(model: Sampler, data: Any, values: flags.FlagValues) -> Judge:
  """Of samples; or of what becomes of small test images."""
  if restoration.enlarges(model.model):
    return restoration.Pairs.of(model, data, values)
  restoration.check_flags(values)
  return open_judge(data, judge_folder(values.judge, files.path(values.out)))


def read_rows(path: pathlib.Path) -> list[Row]:
  """The rows of earlier runs."""
  return read_results(path, FORM, "a sweep")["rows"]


def parse(text: str) -> tuple[str, list[float]]:
  """ "eta=0,1" -> ("eta", [0., 1.])."""
  name, equals, values = text.partition("=")
  if not equals:
    raise UserError(f"--over={text}: want knob=value,value")
  return name, numbers(f"over={name}", values.split(","))


def combinations(
  model: Sampler, nfes: Sequence[float], over: dict[str, Sequence[float]]
) -> list[dict[str, float]]:
  """Every combination of knobs, checked before the first is sampled."""
  if nfes:
    if "steps" not in model.model.knobs:
      raise UserError(f"a {type(model.model).__name__} does not sample in steps: leave --nfe")
    over = over | {"steps": [steps_for(model, n) for n in nfes]}
  every = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
  for knobs in every:
    model.settings(knobs)
  return every


def steps_for(model: Sampler, nfe: float) -> float:
  """See `most_steps`; UserError where a single step takes more."""
  steps = most_steps(model.model, nfe)
  if steps is None:
    raise UserError(f"--nfe={nfe:g}: this sampler takes more for a single step")
  return steps


def measure(model: Sampler, judge: Judge, spec: dict[str, Any]) -> Row:
  """Samples by a row's `spec`, and their scores."""
  n, conditions = spec["num"], {}
  y = model.labels(n, None)
  if isinstance(judge, restoration.Pairs):
    y, conditions = judge.conditions(model, n)
  x, seconds = draw(model, spec["seed"], n, y, **spec["knobs"], **conditions)
  scores = judge.scores(x, y, cas=False)
  return {
    "told": spec,
    "nfe": model.model.nfe(**spec["knobs"]),
    "seconds": seconds,
    "scores": means(scores),
    "spread": spreads(scores),
  }


def label(row: Row, axis: str = "steps") -> str:
  """What a row has in common with the others of its curve."""
  card, knobs = row["told"]["card"], row["told"]["knobs"]
  words = [str(card.get("sampler") or card["family"]).rpartition(".")[2]]
  words += [w for w in (card.get("respacing"), "classifier" if card.get("classifier") else "") if w]
  words += [f"{k}={v:g}" for k, v in knobs.items() if k not in ("steps", axis)]
  return printable(" ".join(words))


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
  axis, names = axis_of(rows), ", ".join(metrics)
  cells: dict[str, dict[float, str]] = {}
  points: dict[str, list[tuple[float, float]]] = {}
  for row, metric in itertools.product(rows, metrics):
    x = row["nfe"] if axis == "steps" else row["told"]["knobs"].get(axis)
    if x is None or metric not in row["scores"]:
      continue
    y, spread = row["scores"][metric], row["spread"].get(metric)
    curve = label(row, axis) + (f" {metric}" if len(metrics) > 1 else "")
    points.setdefault(curve, []).append((x, y))
    cells.setdefault(curve, {})[x] = f"{y:.3g}" + (f" ± {spread:.1g}" if spread else "")
  title = judge.floor_name if isinstance(judge, restoration.Pairs) else "real test data"
  real = ", ".join(f"{m} {floor[m]:.3g}" for m in metrics)
  text = f"{names} ({title}: {real})\n\n{table_of(cells, axis)}\n"
  files.write_text(home / "sweep.md", text)
  pictures.save_png(
    home / "sweep.png",
    pictures.curves(
      points,
      x="network evaluations" if axis == "steps" else axis,
      y=names,
      floor=floor[metrics[0]] if len(metrics) == 1 else None,
      floor_name=title,
      shares=all(m.partition("@")[0] in SHARES for m in metrics),
    ),
  )
  print(text)


def table_of(cells: dict[str, dict[float, str]], axis: str) -> str:
  """{curve: {x: cell}} in Markdown; curves may share a column (`columns_of`)."""
  columns = {x: x for curve in cells.values() for x in curve}
  if axis == "steps":
    columns = columns_of(set(columns))
  order = sorted(set(columns.values()))
  lines = []
  for name, curve in cells.items():
    by_column = {columns[x]: text for x, text in curve.items()}
    lines.append([name, *(by_column.get(n, "") for n in order)])
  head = ["evaluations" if axis == "steps" else axis, *(f"{n:g}" for n in order)]
  return table.markdown(head, lines)


def columns_of(numbers: set[float]) -> dict[float, float]:
  """{n: its column}: Heun's 49 evaluations stand in the column of 50."""
  columns: dict[float, float] = {}
  for n in sorted(numbers, reverse=True):
    last = min(columns.values(), default=0)
    columns[n] = last if n >= 0.95 * last > 0 else n
  return columns
