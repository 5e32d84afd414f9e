"""Quality, diversity and speed at once: every model at every number of steps.

  jaxgen trilemma --workdirs ddpm-0,ddpm-1,gan,vae --out T
  jaxgen trilemma --workdirs ddpm,gan --samplers heun,ddim --nfe 1,2,4,8,25 \
    --truncation 0.5,1 --metrics precision,recall --out T

Models that step are sampled with each of the samplers at each number of network
evaluations, the others at each truncation; all are judged by one judge, with
the same seeds, and timed. Workdirs whose configs differ in the seed alone are
one model: its numbers are means, with the range over its trainings. Writes
T/trilemma.html, a page that says who is good, diverse and fast, T/trilemma.png
and T/trilemma.json (which a killed run goes on from). Several processes draw
together, and the first of them tells the time.
"""

import functools
import importlib.metadata
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from jaxgen import files
from jaxgen.bench import device
from jaxgen.checkpoint import meta
from jaxgen.compare import curve_settings, rows
from jaxgen.compare.comparison import PACKAGES
from jaxgen.compare.costs import title, training_cost
from jaxgen.compare.knobs import choose_metrics, numbers
from jaxgen.compare.measure import BATCH, Entry, command, draw_warm, labels
from jaxgen.compare.rows import Row, announce
from jaxgen.compare.twins import Group, entries_of, grouped
from jaxgen.data.sources import images_of
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import FEWEST, Judge, means, open_judge, spreads
from jaxgen.forms import NUMBER, Each, Whole
from jaxgen.monitor import pictures
from jaxgen.monitor.results import check_report
from jaxgen.report import trilemma_page, trilemma_picture
from jaxgen.report.fields import either
from jaxgen.sampling import latents, presets
from jaxgen.sampling.sampler import Sampler, key_of, load

TIMES = {"size": Whole(1), "median": float, "min": float, "max": float}
PAID = {"train_seconds?": float, "train_images?": float, "flops?": float}
PART = {"workdir": str, "role": {"codec", "teacher"}}
FORM = {
  "rows": [
    {
      "told": {"workdir": str, "sampler?": str, "knobs": Each(float), "judge": str, "device": str},
      "family": str,
      "nfe": Whole(0),
      "params": Whole(0),
      "scores": Each(NUMBER),
      "spread": Each(NUMBER),
      "batch": TIMES,
      "single": TIMES,
    }
  ],
  "costs": Each(PAID | {"told": {"config": str, "step": Whole(0)}, "upstream": [PAID | PART]}),
}
FEWEST_CALLS, MOST_CALLS, SECONDS = 3, 30, 1.0  # of single samples, that are timed
STANDING = 16  # batches that settle batch norm's statistics for a truncation
# Of samples in large batches, a second; of one sample, in seconds; of its network.
SPEED_NAMES = {"rate": "samples_per_second", "latency": "latency", "evaluations": "nfe"}
IN_BUCKETS = ("workdirs", "out", "judge")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("out", None, "folder of the results")
  flag("judge", None, "folder of the judge; default: in the user's cache")
  flag("speed", "rate", f"what is fast: {', '.join(SPEED_NAMES)}")
  lists = functools.partial(flags.DEFINE_list, flag_values=values)
  lists("workdirs", [], "of trained models")
  lists("samplers", [], "by name; default: each model's own, ddim and dpmpp_2m")
  lists(
    "nfe", [f"{n:g}" for n in curve_settings.NFE], "network evaluations of a sample, at the most"
  )
  lists("truncation", [], "of models without steps: psi, truncation or temperature")
  lists("metrics", [], "that judge quality and diversity, such as precision,recall")
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("num", None, "samples of each point; default: as many as the judge likes to see")
  integer("seed", 0, "of the samples")


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdirs or not values.out:
    raise UserError("trilemma needs --workdirs=V,W and --out=FOLDER")
  key_of(values.seed)
  if values.num is not None and values.num < FEWEST:
    raise UserError(f"--num={values.num}: want at least {FEWEST}")
  nfe, truncation = numbers("nfe", values.nfe), numbers("truncation", values.truncation)
  if nfe and not min(nfe) >= 1:
    raise UserError(f"--nfe={min(nfe):g}: want at least 1")
  if values.speed not in SPEED_NAMES:
    raise UserError(f"--speed={values.speed}: want {either(list(SPEED_NAMES))}")
  for name in values.samplers:
    presets.check_sampler(name)
  home = files.path(values.out)
  join.share(lambda: check_report(home, "trilemma.json", ("trilemma.html", "trilemma.png")))
  results = read(home / "trilemma.json")
  entries = entries_of(values.workdirs)
  groups = grouped(entries)
  plans = [curve_settings.curves(g.config, values.samplers, nfe, truncation) for g in groups]
  folder = rows.judge_folder(values.judge, home)
  judge = open_judge(images_of(entries[0].config.data), folder)
  floor = means(judge.floor())
  chosen = choose_metrics(values.metrics, floor)
  lab = Lab(home, judge, values.num or judge.count, values.seed, results)
  points = [
    point | {"model": group.name}
    for group, plan in zip(groups, plans, strict=True)
    for curve in plan
    for point in lab.points(group, curve)
  ]
  models = [lab.model(group) for group in groups]
  facts = about(entries[0], judge, floor, lab, command_of(values))
  if join.is_main_process():
    publish(home, results, facts | {"models": models, "points": points}, chosen, values.speed)


def read(path: pathlib.Path) -> dict[str, Any]:
  """Rows and costs of earlier runs."""
  stored = {"costs": {}} | rows.read_results(path, FORM, "a trilemma")
  for row in stored["rows"]:
    if not min(row[part][k] for part in ("batch", "single") for k in ("median", "min", "max")) > 0:
      raise UserError(rows.damage(path, "a trilemma", "times that are not above 0"))
  return {k: stored[k] for k in ("rows", "costs")}


def command_of(values: flags.FlagValues) -> str:
  """The command that makes the page again."""
  names = ("workdirs", "samplers", "nfe", "truncation", "metrics", "num", "seed", "speed", "judge")
  told = {
    k: ",".join(v) if isinstance(v := values[k].value, list) else v
    for k in (*names, "out")
    if values[k].present and values[k].value is not None
  }
  return command("trilemma", **told)


class Lab:
  """Measures what was not measured yet, and writes it down at once."""

  def __init__(
    self, home: pathlib.Path, judge: Judge, num: int, seed: int, results: dict[str, Any]
  ):
    self.home, self.judge, self.num, self.seed = home, judge, num, seed
    self.results = results
    facts = device.machine()
    self.device = f"{facts['devices']} x {facts['device_kind']}, {facts['cpu']}, {facts['cores']}"
    self.ruler = files.digest(judge.card | {"seed": seed})

  def points(self, group: Group, curve: curve_settings.Curve) -> list[Row]:
    """A curve's points: means over the trainings of a model, and their range."""
    trainings, first = [], None
    for entry in group.entries:
      model, own, card = None, [], meta.latest(entry.workdir)
      for knobs in curve.knobs:
        told = self.told(entry, card, curve, knobs)
        row = next((r for r in self.results["rows"] if r["told"] == told), None)
        if row is None:
          if model is None:
            reload = functools.partial(first.reload if first else load, entry.workdir)
            model = reload(sampler=curve.sampler)
            first = first or model
          row = self.measure(model, told)
          self.keep(group, curve, row)
        own.append(row)
      trainings.append(own)
    return [point(curve, same) for same in zip(*trainings, strict=True)]

  def told(
    self, entry: Entry, card: Row, curve: curve_settings.Curve, knobs: Mapping[str, float]
  ) -> Row:
    """All that a row depends on; `card` is the checkpoint's, see `checkpoint.meta`."""
    return {
      "workdir": str(entry.workdir),
      "config": files.digest(card["config"]),
      "step": card["step"],
      "sampler": curve.sampler,
      "knobs": dict(knobs),
      "num": self.num,
      "judge": self.ruler,
      "device": self.device,
    }

  def measure(self, model: Sampler, told: Row) -> Row:
    """Samples at one setting, judged and timed."""
    knobs, n = told["knobs"], told["num"]
    if "truncation" in knobs and has_batch_stats(model):
      model = latents.settle(model, knobs["truncation"], STANDING)
    y = labels(model, self.judge, n)
    times: list[float] = []
    x, _ = draw_warm(model, n, y, self.seed, times=times, **knobs)
    scores = self.judge.scores(x, y, cas=False)
    return {
      "told": told,
      "family": title(model),
      "nfe": model.model.nfe(**knobs),
      "params": sum(leaf.size for leaf in jax.tree.leaves(model.state.params)),
      "scores": means(scores),
      "spread": spreads(scores),
      "batch": seconds_of(model, min(n, BATCH), times),
      "single": seconds_of(model, 1, calls(model, knobs)),
    }

  def keep(self, group: Group, curve: curve_settings.Curve, row: Row) -> None:
    """A row into the file, whatever comes next; and a line on stderr."""
    self.results["rows"].append(row)
    self.write()
    (metric, score), *_ = row["scores"].items()
    announce(
      "trilemma",
      f"{group.name} {setting(curve, row)}: {metric} {score:.4g}, {rate(row):,.4g} samples/s, "
      f"one in {1e3 * row['single']['median']:.3g} ms",
    )

  def model(self, group: Group) -> Row:
    """What a model is, and what its training took: means over its trainings."""
    costs = [self.cost(entry) for entry in group.entries]
    own = [r for r in self.results["rows"] if r["told"]["workdir"] == str(group.entries[0].workdir)]
    return {
      "name": group.name,
      "family": own[-1]["family"],
      "params": own[-1]["params"],
      "workdirs": [str(e.workdir) for e in group.entries],
      **{k: over([c.get(k) for c in costs]) for k in ("train_seconds", "train_images", "flops")},
      "upstream": costs[0]["upstream"],
    }

  def cost(self, entry: Entry) -> Row:
    """See `training_cost`; counted once, for counting takes seconds."""
    card = meta.latest(entry.workdir)
    told = {"config": files.digest(card["config"]), "step": card["step"]}
    known = self.results["costs"].get(str(entry.workdir))
    if not known or known["told"] != told:
      announce("trilemma", f"{entry.name}: counting operations of its training")
      known = {"told": told} | training_cost(entry.config, str(entry.workdir))
      self.results["costs"][str(entry.workdir)] = known
      self.write()
    return known

  def write(self) -> None:
    """What is known so far, by the first of several processes."""
    if join.is_main_process():
      files.write_json(self.home / "trilemma.json", self.results)


def seconds_of(model: Sampler, batch: int, times: Sequence[float]) -> Row:
  """{median, min, max} of batches, and their size: as large as there are devices, at least."""
  return {"size": batch + -batch % model.mesh.size, **device.median_min_max(times)}


def calls(model: Sampler, knobs: Mapping[str, float]) -> list[float]:
  """Seconds of each of some calls for a single sample, once they are compiled."""
  y = model.labels(1, None)
  conditions = {} if y is None else {"y": y}
  args = next(model.inputs(key_of(0), range(1), 1, conditions, model.settings(dict(knobs))))
  run = functools.partial(model.program, *args)
  times = device.time_calls(run, FEWEST_CALLS, float("inf"))
  if join.share(lambda: sum(times) < SECONDS):
    times += device.time_calls(run, MOST_CALLS, SECONDS - sum(times))
  return times


def has_batch_stats(model: Sampler) -> bool:
  """Whether its generator has statistics of batch norm, which depend on truncation."""
  return bool(model.state.stats.get("gen", {}).get("batch_stats"))


def rate(row: Row, which: str = "median") -> float:
  """Samples a second, in batches."""
  return row["batch"]["size"] / row["batch"][which]


def setting(curve: curve_settings.Curve, row: Row) -> str:
  """A row's place on its curve, in words."""
  knobs = row["told"]["knobs"]
  if curve.axis == "steps" and knobs:
    return f"{curve.name} {row['nfe']:g}".strip()
  return ", ".join(f"{k} {v:g}" for k, v in knobs.items())


def over(values: Sequence[float | None]) -> dict[str, float] | None:
  """Mean and range of numbers; None where one is not known."""
  if any(v is None for v in values):
    return None
  return {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}


def point(curve: curve_settings.Curve, same: Sequence[Row]) -> Row:
  """One setting of a model, of rows of all its trainings: means and ranges.

  Of one training alone the range of times is that over calls.
  """
  keys = [k for k in same[0]["scores"] if all(k in r["scores"] for r in same)]
  scores = {k: over([r["scores"][k] for r in same]) for k in keys}
  speed = over([rate(r) for r in same])
  latency = over([r["single"]["median"] for r in same])
  if len(same) == 1:
    speed |= {"low": rate(same[0], "max"), "high": rate(same[0], "min")}
    latency |= {"low": same[0]["single"]["min"], "high": same[0]["single"]["max"]}
  nfe = same[0]["nfe"]
  return {
    "sampler": curve.name,
    "axis": curve.axis,
    "knobs": same[0]["told"]["knobs"],
    "nfe": nfe,
    "scores": scores | {"samples_per_second": speed, "latency": latency, "nfe": over([nfe])},
    "spread": same[0]["spread"] if len(same) == 1 else {},
    "trainings": len(same),
  }


def about(
  entry: Entry, judge: Judge, floor: Mapping[str, float], lab: Lab, again: str
) -> dict[str, Any]:
  """What the page says of data, judge and machine."""
  return {
    "dataset": images_of(entry.config.data)["source"],
    "features": judge.features,
    "judge": judge.card,
    "real": {"metrics": floor},
    "num": lab.num,
    "machine": device.machine(),
    "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
    "command": again,
  }


def publish(
  home: pathlib.Path,
  results: dict[str, Any],
  facts: dict[str, Any],
  chosen: Sequence[str],
  speed: str,
) -> None:
  """The page, the picture, and in the file what they show."""
  told = trilemma_page.judged(facts, chosen, SPEED_NAMES[speed])
  files.write_json(home / "trilemma.json", results | told)
  pictures.save_png(home / "trilemma.png", trilemma_picture.png(told))
  files.write_text(home / "trilemma.html", trilemma_page.render(told))
  print("\n".join(told["verdict"]))
  announce("trilemma", f"page: {home / 'trilemma.html'}")
