"""Which rules lose modes? Every rule and family on data with known modes.

  jaxgen modes --out modes
  jaxgen modes --out modes --data ring8,stacked --rules wgan_gp,r1,vae --seeds 3

Trains what is missing in OUT/DATA-RULE-SEED (see configs/modes.py), and judges
it by as many samples as papers do. Writes OUT/modes.json (which further runs
add to, and which a killed one goes on from), OUT/modes.md and OUT/modes.png.
"""

import dataclasses
import itertools
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import config, files, forms, train
from jaxgen.bench.device import machine
from jaxgen.bench.tables import number
from jaxgen.checkpoint import meta
from jaxgen.data import arrayfile
from jaxgen.data.sources import open_source
from jaxgen.errors import Diverged, UserError, nearest, printable
from jaxgen.evaluation.judge import Judge, means, open_judge
from jaxgen.forms import NUMBER, Each, Whole
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.sampling import output
from jaxgen.sampling.sampler import load

# The names that configs/modes.py knows, and what tables call them.
DATA = {"ring8": "ring of 8", "grid25": "grid of 25", "stacked": "stacked digits, 1,000"}
RULES = {
  "minimax": "minimax",
  "nonsaturating": "non-saturating",
  "least_squares": "least squares",
  "hinge": "hinge",
  "wgan": "WGAN, clipped",
  "wgan_gp": "WGAN-GP",
  "r1": "non-saturating, R1",
  "relativistic": "relativistic, R1 + R2",
  "diffusion": "diffusion",
  "vae": "VAE",
}
METRICS = {"modes": "modes", "modes_sure": "for sure", "kl": "KL", "high_quality": "high quality"}
SHOWN = 2000  # samples that are kept for the picture

Row = dict[str, Any]
FORM = {
  "rows": [
    {
      "data": set(DATA),
      "rule": set(RULES),
      "seed": Whole(0),
      "num": Whole(1),
      "scores": Each(NUMBER),
      "diverged?": str,
      "config": {"data": {"source": str}},
    }
  ],
  "floors": Each(Each(NUMBER)),
  "judges": Each({"features": str, "protocol": str}),
}


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_string("out", None, "folder of models and results", flag_values=values)
  flags.DEFINE_string(
    "judge", None, "folder of the judge of digits; default: in the user's cache", flag_values=values
  )
  flags.DEFINE_list("data", list(DATA), "on what", flag_values=values)
  flags.DEFINE_list("rules", list(RULES), "by which rules", flag_values=values)
  flags.DEFINE_integer("seeds", 1, "trainings for each row", flag_values=values)
  flags.DEFINE_integer(
    "num", None, "samples; default: 10,000 points, 25,600 images", flag_values=values
  )
  flags.DEFINE_bool("debug", False, "a few steps each, to see it run", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.out:
    raise UserError("modes needs --out=FOLDER")
  check("data", values.data, DATA)
  check("rules", values.rules, RULES)
  if values.seeds < 1 or (values.num is not None and values.num < 32):
    raise UserError(f"seeds={values.seeds}, num={values.num}: want at least 1, and at least 32")
  home = pathlib.Path(values.out)
  check_report(home, "modes.json", ("modes.md", "modes.png"))
  results = earlier(home / "modes.json")
  for data in values.data:
    c = configured(data, values.rules[0], 0, values.debug)
    judge = open_judge(c.data, values.judge)
    judge = dataclasses.replace(judge, count=values.num or judge.count)
    results["judges"][data] = judge.card
    results["floors"][data] = means(judge.floor())
    for seed, rule in itertools.product(range(values.seeds), values.rules):
      c = configured(data, rule, seed, values.debug)
      told = {
        "data": data,
        "rule": rule,
        "seed": seed,
        "num": judge.count,
        "config": config.as_json(c),
      }
      if not done(home, told, results["rows"]):
        row = told | played(c, home / name(told), judge)
        results["rows"] = [*(r for r in results["rows"] if name(r) != name(row)), row]
        tell(row)
        files.write_json(home / "modes.json", results | {"machine": machine()})
  publish(home, results)


def check(flag: str, given: Sequence[str], names: Iterable[str]) -> None:
  """UserError for a name that is not one of `names`, or for none at all."""
  strange = [word for word in given if word not in names]
  if strange or not given:
    raise UserError(
      f"--{flag}={','.join(given)}: want some of "
      f"{','.join(names)}" + "".join(nearest(word, names) for word in strange[:1])
    )


def configured(data: str, rule: str, seed: int, debug: bool) -> ConfigDict:
  """configs/modes.py, for one training."""
  c = config.load(f"configs/modes.py:{data}-{rule}" + "-debug" * debug)
  c.seed = seed
  return c


def earlier(path: pathlib.Path) -> dict[str, Any]:
  """What is there already: rows, floors and judges."""
  damage = lambda why: f"{path} is no result of modes ({why}): move it away"
  try:
    found = forms.read(path, FORM, damage)
  except FileNotFoundError:
    return {"rows": [], "floors": {}, "judges": {}}
  for row in found["rows"]:
    if row["data"] not in found["floors"].keys() & found["judges"].keys():
      raise UserError(damage(f"there is no floor or judge of {row['data']}"))
    row["scores"] = {k: forms.number(v) for k, v in row["scores"].items()}
  return {k: found[k] for k in ("rows", "floors", "judges")}


def name(row: Row) -> str:
  """Its folder."""
  return f"{row['data']}-{row['rule']}-{row['seed']}"


def done(home: pathlib.Path, told: Row, rows: Sequence[Row]) -> bool:
  """Whether that very training was judged, and its samples are kept."""
  return any(
    told.items() <= row.items() and ("diverged" in row or kept(home, row) is not None)
    for row in rows
  )


def played(c: ConfigDict, workdir: pathlib.Path, judge: Judge) -> Row:
  """Trains unless that is done, samples, judges; keeps some samples.

  A training that diverges is a result, too.
  """
  print(f"[modes] {printable(workdir.name)}: {c.steps} steps", file=sys.stderr, flush=True)
  try:
    state = train.train(c, str(workdir), quiet=True)
  except Diverged as e:
    return {"diverged": str(e), "scores": {}}
  if state.step < c.steps:
    raise UserError(
      f"stopped at step {int(state.step)} in {workdir}: the same command goes on from there"
    )
  model, begun = load(str(workdir)), time.perf_counter()
  x = model.sample(c.seed, judge.count)
  took = time.perf_counter() - begun
  output.write(str(workdir / "samples.npz"), x[:SHOWN], None, model.card)
  return {
    "scores": means(judge.scores(x, None, cas=False)),
    "train_seconds": meta.latest(workdir).get("seconds"),
    "sample_seconds": took,
    "nfe": model.model.nfe(),
  }


def kept(home: pathlib.Path, row: Row) -> np.ndarray | None:
  """Samples of a row [n, ...]; None where they are gone."""
  try:
    return arrayfile.stored(home / name(row) / "samples.npz", "arr_0").whole()
  except UserError:
    return None


def tell(row: Row) -> None:
  """Progress, on stderr."""
  scores = ", ".join(f"{METRICS[k]} {row['scores'][k]:.4g}" for k in METRICS if k in row["scores"])
  print(f"[modes] {name(row)}: {scores or printable(row['diverged'])}", file=sys.stderr, flush=True)


def publish(home: pathlib.Path, results: Mapping[str, Any]) -> None:
  """The table, also on stdout, and the picture."""
  text = table(results)
  files.write_text(home / "modes.md", text)
  pictures.save_png(home / "modes.png", portraits(home, results["rows"]))
  print(text)


def table(results: Mapping[str, Any]) -> str:
  """Rules by data in Markdown, and how the numbers came about."""
  rows, floors = results["rows"], results["floors"]
  columns = [(d, m) for d in among(rows, "data", DATA) for m in METRICS if m in floors[d]]
  lines = [
    ["", *(f"{DATA[d]}: {METRICS[m]}" for d, m in columns)],
    ["---", *["---:"] * len(columns)],
    ["real test data", *(number(floors[d][m]) for d, m in columns)],
  ]
  for rule in among(rows, "rule", RULES):
    own = [r for r in rows if r["rule"] == rule]
    lines.append(
      [
        RULES[rule],
        *(cell([r["scores"].get(m) for r in own if r["data"] == d]) for d, m in columns),
      ]
    )
  notes = [
    f"- {DATA[d]}: {said(r['num'] for r in rows if r['data'] == d)} "
    f"samples by {results['judges'][d]['features']}; "
    f"{results['judges'][d]['protocol']}."
    for d in among(rows, "data", DATA)
  ]
  seeds = said(
    len([r for r in rows if (r["data"], r["rule"]) == pair])
    for pair in {(r["data"], r["rule"]) for r in rows}
  )
  return "\n".join(
    [
      *("| " + " | ".join(line) + " |" for line in lines),
      "",
      f"Trainings in a row: {seeds}; ± is their standard deviation. KL is to uniform, in nats.",
      *notes,
      "",
    ]
  )


def cell(values: Sequence[float | None]) -> str:
  """Mean ± standard deviation over trainings, some of which diverged."""
  fine = [v for v in values if v is not None]
  text = number(np.mean(fine)) if fine else ""
  if len(fine) > 1:
    text += f" ± {np.std(fine):.2g}"
  if len(fine) < len(values):
    text += f" ({len(values) - len(fine)} diverged)"
  return text.strip()


def said(numbers: Iterable[int]) -> str:
  """One number, or from which to which."""
  found = sorted(set(numbers))
  return " to ".join(f"{n:,}" for n in dict.fromkeys((found[0], found[-1])))


def among(rows: Sequence[Row], field: str, names: Iterable[str]) -> list[str]:
  """Those of `names` that rows are of, in this order."""
  return [n for n in names if any(row[field] == n for row in rows)]


def portraits(home: pathlib.Path, rows: Sequence[Row]) -> np.ndarray:
  """Real data and samples of the first training of every row, by data."""
  pictured: dict[str, dict[str, np.ndarray]] = {}
  for data in among(rows, "data", DATA):
    own = sorted((r for r in rows if r["data"] == data), key=lambda row: row["seed"])
    real, _ = open_source(own[0]["config"]["data"]["source"], split="test").arrays()
    panels = {"real": portrait(real, real)}
    for rule in among(own, "rule", RULES):
      x = kept(home, next(r for r in own if r["rule"] == rule))
      if x is not None:
        panels[RULES[rule]] = portrait(x, real)
    pictured[DATA[data]] = panels
  titles = ["real", *(RULES[rule] for rule in among(rows, "rule", RULES))]
  return pictures.panels(pictured, titles)


def portrait(x: np.ndarray, real: np.ndarray) -> np.ndarray:
  """Samples, beside real ones: uint8 [H, W, 3]."""
  if x.ndim == 2:
    return pictures.scatter(x[:SHOWN], real[:SHOWN], limit=1.1, pixels=320)
  return pictures.grid(x[:25], columns=5, scale=8)
