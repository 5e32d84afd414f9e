"""Which rules lose modes? Every rule and family on data with known modes.

  jaxgen modes --out modes
  jaxgen modes --out modes --data ring8,stacked --rules wgan_gp,r1,vae --seeds 3

Trains what is missing in OUT/DATA-RULE-SEED (see configs/modes.py and, of models
with nets of their own, ELSEWHERE), and judges it by as many samples as papers do.
Writes OUT/modes.json (which further runs add to, and which a killed one goes on
from), OUT/modes.md and OUT/modes.png.
"""

import collections
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.bench.device import machine
from jaxgen.checkpoint import meta
from jaxgen.compare.rows import Row, announce, damage, draw, read_results
from jaxgen.data import arrayfile
from jaxgen.data.sources import open_source
from jaxgen.errors import Diverged, UserError, nearest
from jaxgen.evaluation.judge import Judge, means, open_judge
from jaxgen.forms import NUMBER, Each, Whole
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.monitor.table import markdown, number
from jaxgen.report.fields import tally
from jaxgen.sampling import output
from jaxgen.sampling.sampler import load

# The names that configs/modes.py and ELSEWHERE know, and what tables call them.
IN_BUCKETS = ("out", "judge")  # flags that take gs://bucket/name
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
  "diffusion_gan": "Diffusion-GAN",
  "ddgan": "denoising diffusion GAN",
  "consistency": "consistency",
  "mean_flow": "MeanFlow",
}
# Rules with nets of their own: configs with the arguments `points` and `stacked`.
ELSEWHERE = ("diffusion_gan", "ddgan", "consistency", "mean_flow")
METRICS = {"modes": "modes", "modes_sure": "for sure", "kl": "KL", "high_quality": "high quality"}
SHOWN = 2000  # samples that are kept for the picture

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
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("out", None, "folder of models and results")
  flag("judge", None, "folder of the judge of digits; default: in the user's cache")
  flags.DEFINE_list("data", list(DATA), "on what", flag_values=values)
  flags.DEFINE_list("rules", list(RULES), "by which rules", flag_values=values)
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("seeds", 1, "trainings for each row")
  integer("num", None, "samples; default: 10,000 points, 25,600 images")
  flags.DEFINE_bool("debug", False, "a few steps each, to see it run", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.out:
    raise UserError("modes needs --out=FOLDER")
  check_names("data", values.data, DATA)
  check_names("rules", values.rules, RULES)
  if values.seeds < 1 or (values.num is not None and values.num < 32):
    raise UserError(f"seeds={values.seeds}, num={values.num}: want at least 1, and at least 32")
  home = files.path(values.out)
  check_report(home, "modes.json", ("modes.md", "modes.png"))
  results = read_modes(home / "modes.json")
  for data in values.data:
    c = load_config(data, values.rules[0], 0, values.debug)
    judge = open_judge(c.data, values.judge)
    judge = dataclasses.replace(judge, count=values.num or judge.count)
    results["judges"][data] = judge.card
    results["floors"][data] = means(judge.floor())
    for seed, rule in itertools.product(range(values.seeds), values.rules):
      c = load_config(data, rule, seed, values.debug)
      spec = {"data": data, "rule": rule, "seed": seed, "num": judge.count}
      spec["config"] = config.as_json(c)
      if is_done(home, spec, results["rows"]):
        continue
      row = spec | play(c, home / name(spec), judge)
      results["rows"] = [*(r for r in results["rows"] if name(r) != name(row)), row]
      scores = [f"{m} {row['scores'][k]:.4g}" for k, m in METRICS.items() if k in row["scores"]]
      announce("modes", f"{name(row)}: {', '.join(scores) or row['diverged']}")
      files.write_json(home / "modes.json", results | {"machine": machine()})
  publish(home, results)


def check_names(flag: str, words: Sequence[str], names: Iterable[str]) -> None:
  """UserError for a word that is not one of `names`, or for none at all."""
  strange = [word for word in words if word not in names]
  if strange or not words:
    raise UserError(
      f"--{flag}={','.join(words)}: want some of "
      f"{','.join(names)}" + "".join(nearest(word, names) for word in strange[:1])
    )


def load_config(data: str, rule: str, seed: int, debug: bool) -> ConfigDict:
  """configs/modes.py, for one training; of a rule ELSEWHERE, its own config."""
  if rule not in ELSEWHERE:
    c = config.load(f"configs/modes.py:{data}-{rule}" + "-debug" * debug)
    c.seed = seed
    return c
  like = config.load(f"configs/modes.py:{data}-diffusion" + "-debug" * debug)
  c = config.load(f"configs/{rule}.py:{'stacked' if data == 'stacked' else 'points'}")
  with c.unlocked():  # as much of the same data, logged and stored alike
    for field in ("data", "steps", "batch", "log", "checkpoint"):
      c[field] = like[field]
  c.seed = seed
  return c


def read_modes(path: pathlib.Path) -> dict[str, Any]:
  """Rows, floors and judges of earlier runs."""
  results = {"floors": {}, "judges": {}} | read_results(path, FORM, "modes")
  for row in results["rows"]:
    if row["data"] not in results["floors"].keys() & results["judges"].keys():
      raise UserError(damage(path, "modes", f"there is no floor or judge of {row['data']}"))
  return {k: results[k] for k in ("rows", "floors", "judges")}


def name(row: Row) -> str:
  """Its folder."""
  return f"{row['data']}-{row['rule']}-{row['seed']}"


def is_done(home: pathlib.Path, spec: Row, rows: Sequence[Row]) -> bool:
  """Whether that very training was judged, and its samples are there."""
  return any(
    spec.items() <= row.items() and ("diverged" in row or read_samples(home, row) is not None)
    for row in rows
  )


def play(c: ConfigDict, workdir: pathlib.Path, judge: Judge) -> Row:
  """Trains unless that is done, samples, judges; writes some samples.

  A training that diverges is a result, too.
  """
  announce("modes", f"{workdir.name}: {c.steps} steps")
  try:
    state = train.train(c, str(workdir), quiet=True)
  except Diverged as e:
    return {"diverged": str(e), "scores": {}}
  if state.step < c.steps:
    raise UserError(
      f"stopped at step {int(state.step)} in {workdir}: the same command goes on from there"
    )
  model = load(str(workdir))
  x, seconds = draw(model, c.seed, judge.count)
  output.write(str(workdir / "samples.npz"), x[:SHOWN], None, model.card)
  return {
    "scores": means(judge.scores(x, None, cas=False)),
    "train_seconds": meta.latest(workdir).get("seconds"),
    "sample_seconds": seconds,
    "nfe": model.model.nfe(),
  }


def read_samples(home: pathlib.Path, row: Row) -> np.ndarray | None:
  """Samples of a row [n, ...]; None where they are gone."""
  try:
    return arrayfile.stored(home / name(row) / "samples.npz", "arr_0").whole()
  except UserError:
    return None


def publish(home: pathlib.Path, results: Mapping[str, Any]) -> None:
  """The table, also on stdout, and the picture."""
  text = table(results)
  files.write_text(home / "modes.md", text)
  pictures.save_png(home / "modes.png", portraits(home, results["rows"]))
  print(text)


def table(results: Mapping[str, Any]) -> str:
  """Rules by data in Markdown, and how the numbers came about."""
  rows, floors, judges = results["rows"], results["floors"], results["judges"]
  columns = [(d, m) for d in among(rows, "data", DATA) for m in METRICS if m in floors[d]]
  lines = [["real test data", *(cell([floors[d][m]], m) for d, m in columns)]]
  for rule in among(rows, "rule", RULES):
    own = [r for r in rows if r["rule"] == rule]
    cells = (cell([r["scores"].get(m) for r in own if r["data"] == d], m) for d, m in columns)
    lines.append([RULES[rule], *cells])
  trainings = collections.Counter((r["data"], r["rule"]) for r in rows)
  notes = [
    f"- {DATA[d]}: {span(r['num'] for r in rows if r['data'] == d)} "
    f"samples by {judges[d]['features']}; {judges[d]['protocol']}."
    for d in among(rows, "data", DATA)
  ]
  return "\n".join(
    [
      markdown(["", *(f"{DATA[d]}: {METRICS[m]}" for d, m in columns)], lines),
      "",
      f"Trainings in a row: {span(trainings.values())}; ± is their standard deviation. "
      "KL is to uniform, in nats.",
      *notes,
      "",
    ]
  )


def cell(values: Sequence[float | None], metric: str) -> str:
  """Mean ± standard deviation over trainings, some of which diverged."""
  finite = [v for v in values if v is not None]
  form = tally if metric == "modes" else number
  text = form(np.mean(finite)) if finite else ""
  if len(finite) > 1:
    text += f" ± {np.std(finite):.2g}"
  if len(finite) < len(values):
    text += f" ({len(values) - len(finite)} diverged)"
  return text.strip()


def span(numbers: Iterable[int]) -> str:
  """One number, or "least to most"."""
  numbers = list(numbers)
  return " to ".join(f"{n:,}" for n in dict.fromkeys((min(numbers), max(numbers))))


def among(rows: Sequence[Row], field: str, names: Iterable[str]) -> list[str]:
  """Those of `names` that rows are of, in this order."""
  return [n for n in names if any(row[field] == n for row in rows)]


def portraits(home: pathlib.Path, rows: Sequence[Row]) -> np.ndarray:
  """Real data and samples of the first training of every row, by data."""
  panels: dict[str, dict[str, np.ndarray]] = {}
  for data in among(rows, "data", DATA):
    own = sorted((r for r in rows if r["data"] == data), key=lambda row: row["seed"])
    real, _ = open_source(own[0]["config"]["data"]["source"], split="test").arrays()
    images = panels[DATA[data]] = {"real": portrait(real, real)}
    for rule in among(own, "rule", RULES):
      x = read_samples(home, next(r for r in own if r["rule"] == rule))
      if x is not None:
        images[RULES[rule]] = portrait(x, real)
  return pictures.panels(panels, ["real", *(RULES[r] for r in among(rows, "rule", RULES))])


def portrait(x: np.ndarray, real: np.ndarray) -> np.ndarray:
  """Samples, beside real ones: uint8 [H, W, 3]."""
  if x.ndim == 2:
    return pictures.scatter(x[:SHOWN], real[:SHOWN], limit=1.1, pixels=320)
  return pictures.grid(x[:25], columns=5, scale=8)
