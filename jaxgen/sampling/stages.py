"""Cascades on disk: which workdirs are the stages, and how they are trained.

A cascade's config lists its stages, each by a config or by the workdir of what
is trained already:

  c.stages = (dict(config="configs/photos.py:16"), dict(workdir="/runs/up64"))

Its workdir holds that list, and in WORKDIR/0, WORKDIR/1, .. the stages that it
trained. A workdir may also be a list, "BASE,UP": those workdirs in turn.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import config, core, files, forms
from jaxgen.checkpoint import meta, restore
from jaxgen.distributed import cores
from jaxgen.errors import UserError
from jaxgen.models.cascade import Cascade
from jaxgen.sampling.trained import Trained, check_samples, condition_shape

LIST = "cascade.json"
SAMPLED = "params/", "stats/"  # leaves that samplers read, or averages of these
FORM = {"stages": [({"stage": str}, {"workdir": str})]}


def is_cascade(settings: ConfigDict) -> bool:
  """Whether a config lists stages."""
  return "stages" in settings


def planned_stages(settings: ConfigDict, workdir: str) -> list[tuple[str, Any]]:
  """The stages of a config: where each lies, and its own config or None.

  Raises:
    UserError: A stage is not given by either of config and workdir.
  """
  stages = []
  for i, stage in enumerate(settings.stages):
    if set(stage) == {"workdir"}:
      stages.append((str(stage["workdir"]), None))
    elif set(stage) == {"config"}:
      own = config.load(str(stage["config"]))
      if is_cascade(own):
        raise UserError(f"stage {i}, {stage['config']}, is a cascade itself: list its stages here")
      check_samples(config.find(own.model.name), f"stage {i}, {stage['config']}, is")
      stages.append((files.join(workdir, str(i)), own))
    else:
      raise UserError(f"stage {i} is {dict(stage)}: want dict(config=...) or dict(workdir=...)")
  if not stages:
    raise UserError("config.stages is empty: a cascade has at least one")
  return stages


def write_stages(settings: ConfigDict, workdir: str) -> None:
  """Writes the list of a cascade's stages into its workdir."""
  stages = [
    {"workdir": folder} if own is None else {"stage": str(i)}
    for i, (folder, own) in enumerate(planned_stages(settings, workdir))
  ]
  if read_stages(workdir) not in (None, stages):
    raise UserError(f"{workdir} holds a cascade of other stages: take a new --workdir")
  files.write_json(files.path(workdir) / LIST, {"stages": stages})


def stages_of(workdir: str | Sequence[str]) -> list[str]:
  """The workdirs of a cascade's stages, or the one of a single model.

  Args:
    workdir: Of a model or a cascade; or several, in a list or with commas.
  """
  if not isinstance(workdir, str | os.PathLike):
    return [str(w) for w in workdir]
  path, stages = files.path(workdir), read_stages(workdir)
  if stages is not None:
    return [str(path / s["stage"] if "stage" in s else s["workdir"]) for s in stages]
  if "," in str(workdir) and not path.exists():
    names = [w for w in str(workdir).split(",") if w]
    if not names:
      raise UserError(f"workdir={workdir}: want one, or several with commas between")
    return names
  return [str(workdir)]


def read_stages(workdir: str | os.PathLike) -> list[dict[str, str]] | None:
  """The list of stages in a cascade's workdir; None if there is no list."""
  path = files.path(workdir) / LIST
  damage = lambda why: (
    f"{path} is damaged ({why}): the command that trained "
    "the cascade writes it again once it is gone"
  )
  try:
    stages = forms.read(path, FORM, damage)["stages"]
  except OSError:
    return None
  for i, stage in enumerate(stages):
    if "stage" in stage and stage["stage"] != str(i):
      raise UserError(damage(f"stages[{i}].stage is {stage['stage']!r}"))
    if (files.path(stage.get("workdir", path / "none")) / LIST).exists():
      raise UserError(
        f"{path}: stage {i}, {stage['workdir']}, is a cascade itself: list its stages there"
      )
  if not stages:
    raise UserError(damage("there are no stages"))
  return stages


def prepare_devices(workdirs: Sequence[str | None], batch: int = 256) -> None:
  """Before jax has devices: those of a CPU on which all of these sample, see `cores`.

  One, where not all make images: points are too small, and vocoders draw clips one by one.

  Args:
    workdirs: Of models, and None for those that nobody wants.
    batch: Images drawn at once.

  Raises:
    UserError: A cascade's list is damaged, or as of `cores.make_devices`.
  """
  metas = [restore.peek(stage) for w in workdirs if w for stage in stages_of(w)]
  if all(m is not None and len(m["data"]["shape"]) == 3 for m in metas):
    shapes = [
      leaf["shape"] for m in metas for k, leaf in m["leaves"].items() if k.startswith(SAMPLED)
    ]
    cores.make_devices([batch], 4 * sum(map(math.prod, shapes)))


def data_of(workdir: str | Sequence[str]) -> ConfigDict:
  """config.data of a trained model; of a cascade, that of its last stage."""
  return meta.settings(meta.latest(stages_of(workdir)[-1])).data


def build_cascade(parts: Sequence[Trained]) -> Trained:
  """Trained stages -> the cascade that they are.

  Raises:
    UserError: They do not fit on each other.
  """
  for below, stage in zip(parts[:-1], parts[1:], strict=True):
    check_fit(below, stage)
  counts = {p.data["classes"] for p in parts} - {0}
  if len(counts) > 1:
    raise UserError(
      f"the stages know {sorted(counts)} classes: they were trained on different data"
    )
  names = {tuple(p.data.get("class_names") or ()) for p in parts} - {()}
  if len(names) > 1:
    raise UserError("the stages' classes have different names: they were trained on different data")
  last = parts[-1]
  cascade = Cascade(
    tuple(p.model for p in parts),
    tuple(tuple(p.data["shape"]) for p in parts),
    tuple(p.data["classes"] for p in parts),
    np.dtype(last.data["dtype"]),
  )
  card = {
    "workdir": ",".join(p.card["workdir"] for p in parts),
    "step": last.step,
    "ema": last.card["ema"],
    "sampler": None,
    "dataset": last.data["name"],
    "stages": [p.card for p in parts],
  }
  return Trained(
    cascade,
    {f"{i}.{g}": v for i, p in enumerate(parts) for g, v in p.params.items()},
    {f"{i}.{g}": v for i, p in enumerate(parts) for g, v in p.stats.items()},
    last.step,
    last.data | {"classes": max(counts, default=0), "class_names": max(names, default=())},
    card,
  )


def check_fit(below: Trained, stage: Trained) -> None:
  """UserError unless `stage` enlarges what `below` makes."""
  where, cond = stage.card["workdir"], core.trait(stage.model, "cond")
  make = cond.get("low_res")
  if set(cond) != {"low_res"} or make is None:
    raise UserError(
      f"{where} is no upsampler: it does not make x from low_res "
      "alone, and only the first stage may do so"
    )
  want, got = condition_shape(make, stage.data["shape"]), tuple(below.data["shape"])
  if want != got:
    raise UserError(
      f"{where} enlarges images of {'x'.join(map(str, want))}, but "
      f"{below.card['workdir']} makes {'x'.join(map(str, got))}"
    )
