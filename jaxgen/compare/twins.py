"""Trained models in groups: trainings of one config with other seeds are one model."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import files
from jaxgen.checkpoint import meta
from jaxgen.compare.comparison import check_alike
from jaxgen.compare.costs import fingerprint
from jaxgen.compare.measure import Entry
from jaxgen.core import trait
from jaxgen.errors import UserError
from jaxgen.sampling.stages import stages_of

ENDING = re.compile(r"[-_.]?(seed|s)?[-_.]?\d*$")  # of a name, which counts seeds


@dataclasses.dataclass(frozen=True)
class Group:
  """A model, trained once or more often.

  Attributes:
    name: Of its workdir; of several what their names begin with.
    entries: Its trainings, in the order given.
  """

  name: str
  entries: tuple[Entry, ...]

  @property
  def config(self) -> ConfigDict:
    """Of the first training."""
    return self.entries[0].config


def entries_of(workdirs: Sequence[str]) -> list[Entry]:
  """What was trained in these workdirs.

  Raises:
    UserError: One is named twice, is of other data or cannot be sampled from
      nothing but noise and labels.
  """
  paths = [files.path(w) for w in workdirs]
  seen: dict[pathlib.Path, pathlib.Path] = {}
  for path in paths:
    if (other := seen.setdefault(path.resolve(), path)) is not path:
      raise UserError(f"--workdirs: {path} is named twice" + f", as {other}" * (other != path))
  for path in paths:
    if stages_of(path) != [str(path)]:
      raise UserError(f"{path} holds a cascade: name its first stage, which draws whole images")
  entries = [Entry(p.absolute().name, p, (), meta.settings(meta.latest(p))) for p in paths]
  check_alike(entries)
  for entry in entries:
    check_free(entry)
  return entries


def check_free(entry: Entry) -> None:
  """UserError for what draws nothing by itself: codecs, upsamplers, vocoders."""
  model = configs.build(entry.config.model)
  kind = type(model).__name__
  if trait(model, "wants_prior"):
    raise UserError(
      f"{entry.name} is a {kind}, a codec: its samples want a model of its latents, name that"
    )
  if cond := trait(model, "cond"):
    raise UserError(f"{entry.name} is a {kind} that makes x from {', '.join(cond)}: leave it out")


def grouped(entries: Sequence[Entry]) -> list[Group]:
  """Entries by model, in the order of their first trainings."""
  by_config: dict[str, list[Entry]] = {}
  for entry in entries:
    by_config.setdefault(fingerprint(entry.config), []).append(entry)
  groups = [Group(common_name([e.name for e in own]), tuple(own)) for own in by_config.values()]
  names = [g.name for g in groups]
  # Where two models would be called alike, they are called as their first trainings are.
  return [
    g if names.count(g.name) == 1 else dataclasses.replace(g, name=g.entries[0].name)
    for g in groups
  ]


def common_name(names: Sequence[str]) -> str:
  """ddpm-0, ddpm-1 -> ddpm; the first name where they have nothing in common."""
  if len(names) == 1:
    return names[0]
  return ENDING.sub("", os.path.commonprefix(names)) or names[0]
