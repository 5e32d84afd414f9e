"""Models side by side: train what is missing, sample, judge, write the report."""

import datetime
import functools
import importlib.metadata
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxgen import config, files, sharding, train
from jaxgen.bench.device import machine
from jaxgen.checkpoint import meta
from jaxgen.compare import rows
from jaxgen.compare.costs import charge, codec_cost, training_flops
from jaxgen.compare.measure import Entry, command, file_name, measure, real_data
from jaxgen.compare.sound import names_of
from jaxgen.data.sources import images_of
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import Judge, means, open_judge
from jaxgen.experiment import Compiled, Experiment, check_samples, prepare_devices
from jaxgen.monitor.results import check_report
from jaxgen.report.page import render
from jaxgen.sampling import stages

SETS = 5  # of samples: the fewest that give intervals of use
PACKAGES = ("jaxgen", "jax", "jaxlib", "flax", "optax")  # on which numbers depend

announce = functools.partial(rows.announce, "compare")


def compare(
  configs: Sequence[str], workdirs: Sequence[str], out: str, seeds: int = 1, num: int | None = None
) -> pathlib.Path:
  """Trains, samples, judges -> the path of the report.

  Several processes train each model together, one after the other, and sample
  together: what fits no single machine is compared, too. The first one reports.

  Args:
    configs: To train first.
    workdirs: Already trained.
    out: Folder of the report.
    seeds: Trainings of each config.
    num: Samples of each, of which SETS sets are made; None: see `open_judge`.
  """
  home = files.path(out)
  entries = train_entries(configs, workdirs, home, seeds)
  data = ConfigDict(dict(images_of(entries[0].config.data)))
  announce(f"judge: features and floor of {data.source}")
  some = {} if num is None else {"sets": SETS, "most": num // SETS}
  judge = open_judge(data, str(home / "judge"), **some)
  results = results_of(data, judge, means(judge.floor()), seeds)
  images, results["real"] = real_data(data, results["real"])
  models = []
  for entry in entries:
    announce(f"{entry.name}: sampling and judging")
    again = command("evaluate", workdir=entry.workdir, judge=home / "judge")
    row, own = measure(entry, judge)
    images |= own
    row |= {"flops": training_flops(entry.config, row["step"])}
    row = charge(row, codec_cost(entry.config))
    models.append(row | {"commands": [*entry.commands, again]})
  results |= {"rows": models}
  if join.is_main_process():
    publish(home, results, images)
  return home / "report.html"


def publish(home: pathlib.Path, results: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
  """Writes the report, with its pictures."""
  files.write_json(home / "report.json", results)
  for name, picture in images.items():
    files.write_bytes(home / file_name(name), picture)
  files.write_text(home / "report.html", render(results, images))
  announce(f"report: {home / 'report.html'}")


def results_of(
  data: Mapping[str, Any], judge: Judge, floor: Mapping[str, float], seeds: int
) -> dict[str, Any]:
  """What a report says of data, judge and machine; it still lacks its rows."""
  return {
    "dataset": data["source"],
    "noun": "clips" if data.get("rate") else "images",
    "features": judge.features,
    "judge": judge.card,
    "created": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    "machine": machine(),
    "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
    "counts": {"samples": judge.count, "real": judge.count, "seeds": seeds},
    "real": {"grid": "real", "metrics": floor},
  }


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
    for w in map(files.path, workdirs)
  ]
  check_alike(entries)  # before the hours that training takes
  prepare_devices([entry.config for entry in fresh])
  outputs = ["report.html", "real.png", *(f"{e.name}.png" for e in entries)]
  if entries[0].config.data.get("rate"):
    outputs += names_of(["real", *(e.name for e in entries)])
  if join.share(lambda: check_report(home, "report.json", outputs, ("dataset", "rows"))):
    announce(f"replaces the report in {home}")
  for entry in fresh:
    Experiment.of(entry.config)  # says what is wrong with it, if anything
    if entry.config.model.get("teacher_workdir") == "":
      raise UserError(
        f"{entry.name} learns from a teacher: train that, then it with "
        "--config.model.teacher_workdir=W, and say where it is with --workdirs"
      )
    if entry.config.model.get("codec_workdir") == "":
      raise UserError(
        f"{entry.name} is a model of latents: train its codec, then it with "
        "--config.model.codec_workdir=W, and say where it is with --workdirs"
      )
  for entry in fresh:
    train_seeds(entry)
  return entries


def train_seeds(entry: Entry) -> None:
  """Trains an entry and its twins, whose steps are one program."""
  mesh = sharding.make_mesh(entry.config.mesh)
  step = Compiled(Experiment.of(entry.config), mesh)
  for seed, workdir in enumerate(entry.workdirs):
    announce(f"{entry.name}: training in {workdir}")
    settings = entry.config.copy_and_resolve_references()
    settings.seed += seed
    train.train(settings, str(workdir), step=step)


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
  sources = [images_of(e.config.data)["source"] for e in entries]
  for entry, source in zip(entries, sources, strict=True):
    check_samples(entry.config, entry.name)
    if entry.name in ("", "..", "real"):  # the report's own is called so
      raise UserError(f"a model cannot be called {entry.name!r} in a report: rename its workdir")
    if names.count(entry.name) > 1:
      raise UserError(
        f"two models are called {entry.name!r}: rename one's workdir, or train configs of one file "
        "apart and say where they are with --workdirs"
      )
    if source != sources[0]:
      raise UserError(
        f"{entry.name} is of {source}, but {names[0]} of {sources[0]}: only like can be compared"
      )
