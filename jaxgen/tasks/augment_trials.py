"""All trainings that a report of augmentation compares, each done once."""

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxgen import config, files
from jaxgen.checkpoint import meta
from jaxgen.data.arrays import Source
from jaxgen.data.labelled_sets import write_set
from jaxgen.errors import printable
from jaxgen.evaluation.learned import judge_config
from jaxgen.forms import Whole
from jaxgen.monitor.progress import duration
from jaxgen.monitor.results import check_file
from jaxgen.sampling.output import write
from jaxgen.sampling.sampler import load
from jaxgen.tasks import ledger
from jaxgen.tasks.augment_generators import Maker, part_of
from jaxgen.tasks.classifier_trials import Trials
from jaxgen.tasks.commands import announce
from jaxgen.tasks.memorisation import Copies, CopyCheck

APART = 1000  # between the seeds of trainings
ROW = {
  "size": str,
  "model": str,
  "real": bool,
  "share": Whole(0),
  "seed": Whole(0),
  "spec": str,
  "accuracy": float,
  "count": Whole(1),
}
FORM = {"rows": [ROW], "augment": object, "models": object, "made": object}
PLACE = ("size", "model", "real", "share", "seed")  # what a row is of
Job = dict[str, Any]


def read(path: pathlib.Path) -> list[Job]:
  """Rows of an earlier run; [] if there is none."""
  report = ledger.read(path, FORM, "report of augmentation")
  return report["rows"] if report else []


class Plan(NamedTuple):
  """What is to be trained.

  Attributes:
    sizes: Real images of a class, smallest first; "all" are as many as there are.
    shares: Of samples beside real images, in percent.
    seeds: Trainings for each number.
    seed: Of all randomness.
    steps: Of each classifier; None: as in configs/judge.py.
    batch: Samples drawn at once.
    form: Of data sets that samples are also written as; None: none.
  """

  sizes: Sequence[str]
  shares: Sequence[int]
  seeds: int
  seed: int
  steps: int | None
  batch: int
  form: str | None

  def jobs(self, makers: Sequence[Maker]) -> list[Job]:
    """All trainings, by number of real images, then by generator and seed."""
    kinds = [(False, 100), *((True, share) for share in self.shares)]
    jobs = []
    for size in self.sizes:
      jobs += [
        {"size": size, "model": "", "real": True, "share": 0, "seed": seed}
        for seed in range(self.seeds)
      ]
      jobs += [
        {"size": size, "model": maker.name, "real": real, "share": share, "seed": seed}
        for maker in makers
        if size in maker.workdirs
        for seed in range(self.seeds)
        for real, share in kinds
      ]
    return jobs


class Lab:
  """Trains the classifiers that were not yet, and writes each down at once."""

  def __init__(
    self,
    home: pathlib.Path,
    plan: Plan,
    spec: ConfigDict,
    data: tuple[Source, Source],
    makers: Sequence[Maker],
    rows: list[Job],
  ):
    self.home, self.plan, self.rows = home, plan, rows
    self.real, self.test = data
    self.makers = {maker.name: maker for maker in makers}
    self.parts = {size: part_of(spec, size).arrays() for size in plan.sizes}
    self.settings = judge_config(spec, self.real, self.real.classes)
    if plan.steps:
      self.settings.steps = plan.steps
    most = max(len(x) for x, _ in self.parts.values())
    capacity = most + round(most * max(plan.shares, default=100) / 100) + self.real.classes
    capacity = max(capacity, self.settings.batch)
    self.trials = Trials(self.settings, capacity, self.test.arrays())
    self.pool_of: tuple[Any, Any] = (None, None)  # whose samples are in memory, and these
    self.copies: dict[str, Any] = {}  # cards of `find_copies`, by workdir

  def run(self, made: Mapping[str, Any]) -> dict[str, Any]:
    """All trainings -> results; `made` says of what the report is made."""
    jobs, start, done, place = self.plan.jobs(list(self.makers.values())), time.monotonic(), 0, None
    jobs = [job | {"spec": self.spec(job["size"], job["model"])} for job in jobs]
    for i, job in enumerate(jobs):
      if ledger.find(self.rows, job, PLACE):
        continue
      if place != (job["size"], job["model"]):
        place, spent = (job["size"], job["model"]), time.monotonic() - start
        left = f", about {duration(spent / done * (len(jobs) - i))} left" if done else ""
        name = f"samples of {job['model']}" if job["model"] else "real images alone"
        announce("augment", f"{i}/{len(jobs)}: {job['size']} of a class, {name}{left}")
      x, y = self.examples(job)
      right = self.trials(x, y, self.plan.seed + APART * job["seed"])
      row = job | {"accuracy": float(right.mean()), "count": len(x)}
      self.rows = ledger.put(self.rows, [row], PLACE)
      self.save(made, self.rows)
      done += 1
    shown = [ledger.find(self.rows, job, PLACE) for job in jobs]
    return self.save(made, self.rows) | {"rows": shown}

  def spec(self, size: str, model: str) -> str:
    """Digits that tell whether a training would be the same."""
    facts = [config.as_json(self.settings), self.real.fingerprint, self.test.fingerprint]
    if model:
      card = meta.latest(self.makers[model].workdirs[size])
      facts += [card["config"], card["step"]]
    return files.digest([*facts, self.plan.seed])

  def examples(self, job: Job) -> tuple[np.ndarray, np.ndarray]:
    """What a training learns from: real images, samples, or both."""
    x, y = self.parts[job["size"]]
    if not job["share"]:
      return x, y
    counts = np.bincount(y, minlength=self.real.classes) * job["share"] / 100
    made, labels = self.pool(job["model"], job["size"], job["seed"])
    rows = np.concatenate(
      [np.flatnonzero(labels == c)[: max(round(n), 1)] for c, n in enumerate(counts)]
    )
    if not job["real"]:
      return made[rows], labels[rows]
    return np.concatenate([x, made[rows]]), np.concatenate([y, labels[rows]])

  def pool(self, model: str, size: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a generator, as many of each class as any training wants."""
    which = (self.makers[model].workdirs[size], seed)
    if self.pool_of[0] != which:
      self.pool_of = which, self.drawn(self.makers[model], size, seed)
    return self.pool_of[1]

  def drawn(self, maker: Maker, size: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same from a file, or drawn now."""
    workdir = maker.workdirs[size]
    sizes = [s for s, other in maker.workdirs.items() if other == workdir]
    most = max(int(np.bincount(self.parts[s][1]).max()) for s in sizes)
    each = max(-(-most * max([100, *self.plan.shares]) // 100), 1)
    y = np.repeat(np.arange(self.real.classes, dtype=np.int32), each)
    name = maker.name.replace("/", "_") + f"-{size}" * (len(set(maker.workdirs.values())) > 1)
    file = self.home / "samples" / f"{name}-{seed}.npz"
    draw = self.plan.seed + APART * seed
    made = {"workdir": workdir, "step": meta.latest(workdir)["step"], "seed": draw, "num": len(y)}
    pool = ledger.stored(file, made)
    if pool and pool[1] is not None:
      return pool
    announce("augment", f"{len(y):,} samples of {maker.name} -> {file}")
    sampler = load(workdir)
    x = sampler.sample(draw, len(y), y, batch=self.plan.batch)
    info = sampler.card | made | {"class_names": list(self.real.class_names)}
    check_file(file, "--out")
    write(str(file), x, y, info)
    if self.plan.form:
      target = self.home / "sets" / f"{name}-{seed}"
      where = write_set(target, self.plan.form, x, y, self.real.class_names, info)
      announce("augment", f"data set -> {printable(where)}")
    return x, y

  def find_copies(self, looks: Mapping[str, Copies]) -> list[CopyCheck]:
    """Copies of training images among samples of the first seed, of each workdir looked at."""
    checks = {}
    for maker in self.makers.values():
      several = len(set(maker.workdirs.values())) > 1
      for size, workdir in maker.workdirs.items():
        if workdir in looks and workdir not in checks:
          what = f"samples of {maker.name}" + f", {size} of a class" * several
          checks[workdir] = looks[workdir](self.pool(maker.name, size, 0)[0], what=what)
    self.copies = {workdir: check.card for workdir, check in checks.items()}
    return list(checks.values())

  def save(self, made: Mapping[str, Any], rows: Sequence[Job]) -> dict[str, Any]:
    """Writes rows, and what the page says of data and models."""
    results = {
      "augment": {
        "data": self.real.name,
        "fingerprint": self.real.fingerprint,
        "classes": self.real.classes,
        "sizes": {s: len(x) for s, (x, _) in self.parts.items()},
        "shares": list(self.plan.shares),
        "seeds": self.plan.seeds,
        "test": len(self.test),
        "steps": self.settings.steps,
        "batch": self.settings.batch,
      },
      "models": {
        name: {"workdirs": m.workdirs, "examples": m.examples, "notes": m.notes}
        for name, m in self.makers.items()
      },
      "made": dict(made),
      "rows": list(rows),
      **({"copies": self.copies} if self.copies else {}),
    }
    files.write_json(self.home / "augment.json", results)
    return results
