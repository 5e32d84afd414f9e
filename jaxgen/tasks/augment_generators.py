"""The generators whose samples augment data: trained already, or for each part."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from jaxgen import config, files, train
from jaxgen.checkpoint import meta
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.data.subset import parted
from jaxgen.errors import UserError
from jaxgen.tasks.commands import announce

ALL = "all"


class Maker(NamedTuple):
  """A generator, at the numbers of real images that it is used for.

  Attributes:
    name: On the page.
    workdirs: {size: where it was trained}.
    examples: {size: real images that it was trained on}.
    notes: {size: what a reader should know}.
  """

  name: str
  workdirs: dict[str, str]
  examples: dict[str, int]
  notes: dict[str, str]


def generators(
  values: flags.FlagValues, home: pathlib.Path, spec: ConfigDict, real: Source, sizes: Sequence[str]
) -> list[Maker]:
  """All of them, checked; those of --configs are trained unless they are."""
  names = [files.path(w).absolute().name for w in values.workdirs]
  makers = []
  for name, workdir in zip(names, values.workdirs, strict=True):
    name = name if names.count(name) == 1 else str(workdir)
    makers.append(workdir_maker(name, workdir, spec, real, sizes))
  makers += [config_maker(path, values, home, spec, real, sizes) for path in values.configs]
  if len({m.name for m in makers}) < len(makers):
    raise UserError("two generators have the same name: give each once")
  return makers


def workdir_maker(
  name: str, workdir: str, spec: ConfigDict, real: Source, sizes: Sequence[str]
) -> Maker:
  """One that is trained already."""
  card = meta.latest(workdir)
  check_generator(workdir, card["data"], real)
  own = meta.settings(card).data
  first = parted(own.source)[1].get("first")
  if first and first[0] not in sizes:
    raise UserError(
      f"{workdir} was trained on {own.source}: want --real={first[0]} among the numbers"
    )
  used = [s for s in sizes if not first or s == first[0]]
  examples = examples_of(card)
  notes, held = {}, spec.get("holdout", 0.0)
  for size in used:
    part = part_of(spec, size)
    if not same_source(own.source, spec.source):
      notes[size] = f"trained on other data, {own.source}"
    elif held and own.get("holdout", 0.0) != held:
      notes[size] = "may have seen images of the test split, which it did not hold out alike"
    elif examples > len(part):
      notes[size] = f"saw {examples:,} real images, the classifier {len(part):,}"
    elif card["data"].get("fingerprint") != part.fingerprint:
      notes[size] = f"saw {examples:,} real images, other ones than the classifier's"
  return Maker(name, dict.fromkeys(used, workdir), dict.fromkeys(used, examples), notes)


def config_maker(
  path: str,
  values: flags.FlagValues,
  home: pathlib.Path,
  spec: ConfigDict,
  real: Source,
  sizes: Sequence[str],
) -> Maker:
  """One that is trained on each number of real images."""
  name, workdirs, examples = pathlib.Path(path.partition(":")[0]).stem, {}, {}
  name += path.partition(":")[2] and f"-{path.partition(':')[2]}"
  for size in sizes:
    c = config.load(path)
    with c.unlocked():
      c.data.update({k: spec[k] for k in ("holdout", "size", "channels") if k in spec and spec[k]})
      c.data.source = spec.source if size == ALL else f"{spec.source}:first={size}"
      c.data.classes = real.classes
      c.steps, c.seed = values.steps or c.steps, values.seed
      c.log.pictures = 0
      c.checkpoint.every = max(c.steps // 2, 1)
    if c.model.get("classes", real.classes) != real.classes:
      raise UserError(f"{path} is of {c.model.classes} classes, {real.name} of {real.classes}")
    workdir = home / "models" / f"{name}-{size}"
    announce("augment", f"{name}, {size} real images of a class: {c.steps} steps in {workdir}")
    state = train.train(c, str(workdir), quiet=True)
    if int(state.step) < c.steps:
      raise UserError(f"stopped in {workdir}: the same command goes on from there")
    card = meta.latest(workdir)
    check_generator(str(workdir), card["data"], real)
    workdirs[size], examples[size] = str(workdir), examples_of(card)
  return Maker(name, workdirs, examples, {})


def check_generator(workdir: str, data: Mapping[str, Any], real: Source) -> None:
  """UserError unless a workdir's model makes such images, by such labels."""
  if not data["classes"]:
    raise UserError(
      f"{workdir} was trained without labels: a classifier needs samples of a known class, so "
      f"train it with --config.data.classes={real.classes}"
    )
  if data["classes"] != real.classes:
    raise UserError(f"{workdir} has {data['classes']} classes, and {real.name} {real.classes}")
  names = [tuple(n) for n in (data.get("class_names") or (), real.class_names)]
  if all(names) and names[0] != names[1]:
    raise UserError(f"the classes of {workdir} have other names than those of {real.name}")
  if tuple(data["shape"]) != tuple(real.shape):
    raise UserError(
      f"{workdir} makes images {list(data['shape'])}, and {real.name} holds {list(real.shape)}: "
      "open the data at that size"
    )


def examples_of(card: Mapping[str, Any]) -> int:
  """How many real images a training had; 0 where its card does not say."""
  count = card["data"].get("examples")
  return count if type(count) is int else 0


def part_of(spec: ConfigDict, size: str) -> Source:
  """The real images of a number."""
  name = spec.source if size == ALL else f"{spec.source}:first={size}"
  return open_split(ConfigDict(dict(spec) | {"source": name}))


def same_source(a: str, b: str) -> bool:
  """Whether two names are of one data set, whatever part of it."""
  return parted(a)[0] == parted(b)[0]
