"""Several models side by side: train what is missing, sample, judge, report.

  jaxgen compare --configs digits_diffusion,digits_gan,digits_vae --out demo
  jaxgen compare --workdirs W1,W2 --out report
  jaxgen compare --cards a.json,b.json      (cards of `jaxgen eval --protocol`)

Writes OUT/report.html (one file, no network) and OUT/report.json; models that
had to be trained lie in OUT/NAME and go on from there next time. With --seeds
every config is trained so often, and numbers are means over the trainings.
"""

import dataclasses
import datetime
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.bench.device import machine
from jaxgen.checkpoint import meta
from jaxgen.compare.page import render
from jaxgen.data.sources import open_split
from jaxgen.data.summary import introduce
from jaxgen.errors import UserError, printable
from jaxgen.evaluation import cards
from jaxgen.evaluation.judge import Judge, means, open_judge, spreads
from jaxgen.experiment import Experiment, check_samples
from jaxgen.monitor import health, pictures
from jaxgen.monitor.log import read_jsonl
from jaxgen.monitor.results import check_report
from jaxgen.sampling import stages
from jaxgen.sampling.sampler import Sampler, load

STEPS = (4, 8, 16, 32)  # of the diffusion model, for quality against cost


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flags.DEFINE_list("configs", [], "to train first where need be", flag_values=values)
  flags.DEFINE_list("workdirs", [], "already trained", flag_values=values)
  flags.DEFINE_list("cards", [], "of evaluations, to be ranked", flag_values=values)
  flags.DEFINE_string("out", None, "folder of the report", flag_values=values)
  flags.DEFINE_integer(
    "seeds",
    1,
    "trainings of each config, with seeds 0, 1, .. and the spread between them",
    flag_values=values,
  )


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if values.cards:
    print(cards.rank({path: cards.load(path) for path in values.cards}))
    return
  if not values.out or not values.configs + values.workdirs:
    raise UserError("compare needs --out=FOLDER and --configs=a.py,b.py or --workdirs=V,W")
  if values.seeds < 1:
    raise UserError(f"seeds={values.seeds}: want at least 1")
  compare(values.configs, values.workdirs, values.out, values.seeds)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row to be: a trained model."""

  name: str
  workdir: pathlib.Path
  commands: tuple[str, ...]
  config: ConfigDict
  twins: tuple[pathlib.Path, ...] = ()  # the same with other seeds


def compare(
  configs: Sequence[str], workdirs: Sequence[str], out: str, seeds: int = 1
) -> pathlib.Path:
  """Trains, samples, judges -> the path of the report."""
  home = pathlib.Path(out)
  entries = trained(configs, workdirs, home, seeds)
  data = entries[0].config.data
  tell(f"judge: features and floor of {data.source}")
  judge = open_judge(data, str(home / "judge"))
  images = {"real": portrait(*real_samples(data))}
  rows = []
  for entry in entries:
    tell(f"{entry.name}: sampling and judging")
    again = command("evaluate", workdir=entry.workdir, judge=home / "judge")
    rows.append(row(entry, judge, images) | {"commands": [*entry.commands, again]})
  results = {
    "dataset": data.source,
    "features": judge.features,
    "judge": judge.card,
    "created": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    "machine": machine(),
    "versions": versions(),
    "counts": {"samples": judge.count, "real": judge.count, "seeds": seeds},
    "real": {"grid": "real", "metrics": means(judge.floor())},
    "rows": rows,
  }
  files.write_json(home / "report.json", results)
  for name, picture in images.items():
    files.write_bytes(home / f"{name}.png", picture)
  files.write_text(home / "report.html", render(results, images))
  tell(f"report: {home / 'report.html'}")
  return home / "report.html"


def trained(
  configs: Sequence[str], workdirs: Sequence[str], home: pathlib.Path, seeds: int = 1
) -> list[Entry]:
  """Entries, each trained to its end before the next begins."""
  fresh = [planned(path, home, seeds) for path in configs]
  for workdir in workdirs:
    if stages.read_stages(workdir) is not None:
      raise UserError(f"{workdir} holds a cascade: compare takes its stages")
  done = [
    Entry(w.absolute().name, w, (), meta.settings(meta.latest(w)))
    for w in map(pathlib.Path, workdirs)
  ]
  check_alike(fresh + done)  # before the hours that training takes
  if check_report(
    home,
    "report.json",
    ("report.html", "real.png", *(f"{e.name}.png" for e in fresh + done)),
    ("dataset", "rows"),
  ):
    tell(f"replaces the report in {home}")
  for entry in fresh:
    Experiment.of(entry.config)  # says what is wrong with it, if anything
  for entry in fresh:
    for seed, workdir in enumerate((entry.workdir, *entry.twins)):
      tell(f"{entry.name}: training in {workdir}")
      settings = entry.config.copy_and_resolve_references()
      settings.seed += seed
      train.train(settings, str(workdir))
  return fresh + done


def planned(path: str, home: pathlib.Path, seeds: int = 1) -> Entry:
  """The entry of a config, which need not be trained yet."""
  settings = config.load(path)
  config.check_single(settings, "compare")
  settings.log.pictures = 0  # the report has its own
  name = pathlib.Path(path.partition(":")[0]).stem
  return Entry(
    name,
    home / name,
    (command("train", config=path, workdir=home / name),),
    settings,
    tuple(home / f"{name}-seed{i}" for i in range(1, seeds)),
  )


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


def row(entry: Entry, judge: Judge, images: dict[str, bytes]) -> dict[str, Any]:
  """All that the report says of one model; its picture goes to `images`."""
  model = load(entry.workdir)
  past = meta.latest(entry.workdir)
  n = judge.count
  y = model.labels(n, None)
  x, speed = timed(model, n, y)
  images[entry.name] = portrait(x, model.classes)
  scores = judge.scores(x, y)
  metrics, spread = means(scores), spreads(scores)
  if entry.twins:
    every = [metrics] + [means(judge.scores(load(w).sample(0, n, y), y)) for w in entry.twins]
    both = {k: [m[k] for m in every] for k in metrics}
    metrics = means(both)
    spread = {k: float(np.std(v, ddof=1)) for k, v in both.items()}
  log = read_jsonl(entry.workdir / "metrics.jsonl")
  return {
    "name": entry.name,
    "family": type(model.model).__name__,
    "config": entry.name,
    "workdir": str(entry.workdir),
    "params": sum(x.size for x in jax.tree.leaves(model.state.params)),
    "train_seconds": past.get("seconds"),
    "step": model.card["step"],
    "train_images": model.card["step"] * entry.config.batch,
    "peak_memory": past.get("peak_bytes"),
    "grid": entry.name,
    "settings": {k: v for k, v in model.model.knobs.items() if k in ("steps", "guidance", "eta")},
    "metrics": metrics,
    "spread": spread,
    "samples_per_second": speed,
    "nfe": model.model.nfe(),
    "sampling": sweep(model, judge),
    "curves": curves(log),
    "warnings": [f"Step {f.step:,}: {f.text}" for f in health.replay(log)[1]],
  }


def timed(model: Sampler, n: int, y: np.ndarray | None, **knobs):
  """n samples, and how many of them a second makes once it is compiled."""
  batch = min(n, 256)
  fewest = {"steps": 1} if "steps" in model.model.knobs else {}
  model.sample(0, batch, None if y is None else y[:batch], batch=batch, **fewest)
  begun = time.perf_counter()
  x = model.sample(0, n, y, batch=batch, **knobs)
  return x, n / (time.perf_counter() - begun)


def sweep(model: Sampler, judge: Judge) -> list[dict[str, Any]]:
  """Quality against cost: by number of steps where there is such a knob."""
  n = max(judge.count // 4, 1)
  y = model.labels(n, None)
  stepped = "steps" in model.model.knobs
  knobs = [{"steps": s} for s in STEPS] if stepped else [{}]
  points = []
  for k in knobs:
    x, speed = timed(model, n, y, **k)
    points.append(
      {
        "label": f"{k['steps']} steps" if k else "",
        "knobs": k,
        "nfe": model.model.nfe(**k),
        "samples_per_second": speed,
        "metrics": means(judge.scores(x, y, cas=False)),
      }
    )
  return points


def curves(log: list[dict[str, Any]]) -> dict[str, Any]:
  """The log's scalars by what they tell: losses, and health."""
  kinds = {
    "loss": lambda k: k.endswith("/loss"),
    "health": lambda k: k.endswith(("grad_norm", "accuracy", "diversity")),
  }
  return {
    kind: {
      k: [[r["step"], r[k]] for r in log if k in r]
      for k in sorted({k for r in log for k in r if wanted(k)})
    }
    for kind, wanted in kinds.items()
  }


def real_samples(data: ConfigDict, n: int = 60):
  """Real training examples to look at, labels in turn -> x, classes."""
  source = open_split(data)
  introduce(source, data.split)
  x, y = source.arrays()
  if not source.classes or x.ndim == 2:
    return x[:2000], 0
  each = -(-n // source.classes)
  rows = np.stack([np.flatnonzero(y == c)[:each] for c in range(source.classes)], 1)
  return x[rows.ravel()[:n]], source.classes


def portrait(x: np.ndarray, classes: int = 0, n: int = 60) -> bytes:
  """PNG of samples; a column for every class."""
  if x.ndim == 2:
    return pictures.png(pictures.scatter(x[:2000], limit=1.1))
  return pictures.png(pictures.grid(x[:n], columns=classes if 1 < classes <= 20 else None))


def command(verb: str, **values: str | pathlib.Path) -> str:
  """A command for a shell, which takes names as they are."""
  return " ".join([f"jaxgen {verb}", *(f"--{k} {shlex.quote(str(v))}" for k, v in values.items())])


def versions() -> dict[str, str]:
  """Of what the numbers depend on."""
  from importlib.metadata import version

  return {p: version(p) for p in ("jaxgen", "jax", "jaxlib", "flax", "optax")}


def tell(line: str) -> None:
  """Progress, on stderr."""
  print(f"[compare] {printable(line)}", file=sys.stderr, flush=True)
