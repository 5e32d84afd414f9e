"""Models side by side: train what is missing, sample, judge, write the report."""

import dataclasses
import datetime
import functools
import importlib.metadata
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.bench.device import machine
from jaxgen.checkpoint import meta
from jaxgen.compare import rows
from jaxgen.compare.page import render
from jaxgen.data.sources import open_split
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import FEWEST, Judge, means, open_judge, spreads
from jaxgen.experiment import Experiment, check_samples
from jaxgen.monitor import health, pictures
from jaxgen.monitor.log import read_jsonl
from jaxgen.monitor.results import check_report
from jaxgen.sampling import stages
from jaxgen.sampling.sampler import Sampler, load

STEPS = (4, 8, 16, 32)  # of the diffusion model, for quality against cost
PACKAGES = ("jaxgen", "jax", "jaxlib", "flax", "optax")  # on which numbers depend
CURVES = {"loss": ("/loss",), "health": ("grad_norm", "accuracy", "diversity")}  # ends of keys

announce = functools.partial(rows.announce, "compare")


@dataclasses.dataclass(frozen=True)
class Entry:
  """A model of the report."""

  name: str
  workdir: pathlib.Path
  commands: tuple[str, ...]  # that train it
  config: ConfigDict
  twins: tuple[pathlib.Path, ...] = ()  # the same with other seeds


def compare(
  configs: Sequence[str], workdirs: Sequence[str], out: str, seeds: int = 1
) -> pathlib.Path:
  """Trains, samples, judges -> the path of the report."""
  home = pathlib.Path(out)
  entries = train_entries(configs, workdirs, home, seeds)
  data = entries[0].config.data
  announce(f"judge: features and floor of {data.source}")
  judge = open_judge(data, str(home / "judge"))
  images, models = {"real": portrait(*real_samples(data))}, []
  for entry in entries:
    announce(f"{entry.name}: sampling and judging")
    again = command("evaluate", workdir=entry.workdir, judge=home / "judge")
    row, images[entry.name] = measure(entry, judge)
    models.append(row | {"commands": [*entry.commands, again]})
  results = {
    "dataset": data.source,
    "features": judge.features,
    "judge": judge.card,
    "created": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    "machine": machine(),
    "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
    "counts": {"samples": judge.count, "real": judge.count, "seeds": seeds},
    "real": {"grid": "real", "metrics": means(judge.floor())},
    "rows": models,
  }
  files.write_json(home / "report.json", results)
  for name, picture in images.items():
    files.write_bytes(home / f"{name}.png", picture)
  files.write_text(home / "report.html", render(results, images))
  announce(f"report: {home / 'report.html'}")
  return home / "report.html"


def train_entries(
  configs: Sequence[str], workdirs: Sequence[str], home: pathlib.Path, seeds: int = 1
) -> list[Entry]:
  """Entries, each trained to its end before the next begins."""
  fresh = [entry_of(path, home, seeds) for path in configs]
  for workdir in workdirs:
    if stages.read_stages(workdir) is not None:
      raise UserError(f"{workdir} holds a cascade: compare takes its stages")
  entries = fresh + [
    Entry(w.absolute().name, w, (), meta.settings(meta.latest(w)))
    for w in map(pathlib.Path, workdirs)
  ]
  check_alike(entries)  # before the hours that training takes
  outputs = ("report.html", "real.png", *(f"{e.name}.png" for e in entries))
  if check_report(home, "report.json", outputs, ("dataset", "rows")):
    announce(f"replaces the report in {home}")
  for entry in fresh:
    Experiment.of(entry.config)  # says what is wrong with it, if anything
  for entry in fresh:
    for seed, workdir in enumerate((entry.workdir, *entry.twins)):
      announce(f"{entry.name}: training in {workdir}")
      settings = entry.config.copy_and_resolve_references()
      settings.seed += seed
      train.train(settings, str(workdir))
  return entries


def entry_of(path: str, home: pathlib.Path, seeds: int = 1) -> Entry:
  """The entry of a config, which need not be trained yet."""
  settings = config.load(path)
  config.check_single(settings, "compare")
  settings.log.pictures = 0  # the report has its own
  name = pathlib.Path(path.partition(":")[0]).stem
  twins = tuple(home / f"{name}-seed{i}" for i in range(1, seeds))
  commands = (command("train", config=path, workdir=home / name),)
  return Entry(name, home / name, commands, settings, twins)


def check_alike(entries: Sequence[Entry]) -> None:
  """UserError unless models have names of their own and the same data."""
  names = [e.name for e in entries]
  first = entries[0]
  for entry in entries:
    check_samples(entry.config, entry.name)
    if entry.name in ("", "..", "real"):  # the report's own is called so
      raise UserError(f"a model cannot be called {entry.name!r} in a report: rename its workdir")
    if names.count(entry.name) > 1:
      raise UserError(
        f"two models are called {entry.name!r}: rename one, or compare them in two reports"
      )
    if entry.config.data.source != first.config.data.source:
      raise UserError(
        f"{entry.name} is of {entry.config.data.source}, but {first.name} "
        f"of {first.config.data.source}: only like can be compared"
      )


def measure(entry: Entry, judge: Judge) -> tuple[rows.Row, bytes]:
  """The report's row of one model, and a picture of its samples."""
  model = load(entry.workdir)
  card, log = meta.latest(entry.workdir), read_jsonl(entry.workdir / "metrics.jsonl")
  n = judge.count
  y = model.labels(n, None)
  x, speed = draw_warm(model, n, y)
  scores = judge.scores(x, y)
  metrics, spread = means(scores), spreads(scores)
  if entry.twins:
    twins = [means(judge.scores(load(w).sample(0, n, y), y)) for w in entry.twins]
    by_seed = {k: [m[k] for m in (metrics, *twins)] for k in metrics}
    metrics = means(by_seed)
    spread = {k: float(np.std(v, ddof=1)) for k, v in by_seed.items()}
  return {
    "name": entry.name,
    "family": type(model.model).__name__,
    "config": entry.name,
    "workdir": str(entry.workdir),
    "params": sum(x.size for x in jax.tree.leaves(model.state.params)),
    "train_seconds": card.get("seconds"),
    "step": model.card["step"],
    "train_images": model.card["step"] * entry.config.batch,
    "peak_memory": card.get("peak_bytes"),
    "grid": entry.name,
    "settings": {k: v for k, v in model.model.knobs.items() if k in ("steps", "guidance", "eta")},
    "metrics": metrics,
    "spread": spread,
    "samples_per_second": speed,
    "nfe": model.model.nfe(),
    "sampling": quality_by_cost(model, judge),
    "curves": curves(log),
    "warnings": [f"Step {f.step:,}: {f.text}" for f in health.replay(log)[1]],
  }, portrait(x, model.classes)


def draw_warm(
  model: Sampler, n: int, y: np.ndarray | None, **knobs: float
) -> tuple[np.ndarray, float]:
  """n samples, and how many of them a second makes once it is compiled."""
  batch = min(n, 256)
  fewest = {"steps": 1} if "steps" in model.model.knobs else {}
  model.sample(0, batch, None if y is None else y[:batch], batch=batch, **fewest)
  x, seconds = rows.draw(model, 0, n, y, batch=batch, **knobs)
  return x, n / seconds


def quality_by_cost(model: Sampler, judge: Judge) -> list[dict[str, Any]]:
  """Scores and speed by number of steps; once for what takes no steps."""
  n = max(judge.count // 4, FEWEST)
  y = model.labels(n, None)
  points = []
  for knobs in [{"steps": s} for s in STEPS] if "steps" in model.model.knobs else [{}]:
    x, speed = draw_warm(model, n, y, **knobs)
    points.append(
      {
        "label": f"{knobs['steps']} steps" if knobs else "",
        "knobs": knobs,
        "nfe": model.model.nfe(**knobs),
        "samples_per_second": speed,
        "metrics": means(judge.scores(x, y, cas=False)),
      }
    )
  return points


def curves(log: list[dict[str, Any]]) -> dict[str, dict[str, list[list[float]]]]:
  """The log's scalars over steps, by kind (see CURVES) and key."""
  keys = sorted({k for row in log for k in row})
  return {
    kind: {k: [[r["step"], r[k]] for r in log if k in r] for k in keys if k.endswith(ends)}
    for kind, ends in CURVES.items()
  }


def real_samples(data: ConfigDict, n: int = 60) -> tuple[np.ndarray, int]:
  """Real training examples to look at, labels in turn, and their classes."""
  source = open_split(data)
  introduce(source, data.split)
  x, y = source.arrays()
  if not source.classes or x.ndim == 2:
    return x[:2000], 0
  each = -(-n // source.classes)
  order = np.stack([np.flatnonzero(y == c)[:each] for c in range(source.classes)], 1)
  return x[order.ravel()[:n]], source.classes


def portrait(x: np.ndarray, classes: int = 0, n: int = 60) -> bytes:
  """PNG of samples; a column for every class."""
  if x.ndim == 2:
    return pictures.png(pictures.scatter(x[:2000], limit=1.1))
  return pictures.png(pictures.grid(x[:n], columns=classes if 1 < classes <= 20 else None))


def command(verb: str, **values: str | pathlib.Path) -> str:
  """A command for a shell, which takes names as they are."""
  return " ".join([f"jaxgen {verb}", *(f"--{k} {shlex.quote(str(v))}" for k, v in values.items())])
