"""Weights of a workdir as sampling reads them, and no others."""

from typing import Any

import jax
from ml_collections import ConfigDict

from jaxgen import core
from jaxgen import ema as averages
from jaxgen.checkpoint import disk, restore
from jaxgen.errors import UserError, nearest


def weights(
  workdir: str,
  config: ConfigDict,
  model: core.Model,
  abstract: core.State,
  profile: str | None = None,
  step: int | None = None,
) -> tuple[core.Groups, core.Groups, int]:
  """Reads what sampling needs, and no more: -> params, stats, step.

  Args:
    workdir: Of the training.
    config: Of the training.
    model: Its `sampled` groups are read.
    abstract: Shapes of its state.
    profile: Of the averages: default, the first; or "none", or a width.
    step: Of the checkpoint; default: the last good one.

  Raises:
    UserError: There is no such profile, or no checkpoint of such a model.
  """
  moved = [g for g in model.sampled if g in abstract.opt]
  frozen = {g: abstract.params[g] for g in model.sampled if g not in moved}
  stats = {g: abstract.stats[g] for g in model.sampled if g in abstract.stats}
  profile = profile or next(iter(config.ema), "none")
  subset = {"params": frozen, "stats": stats}
  if profile == "none":
    subset["params"] = {g: abstract.params[g] for g in model.sampled}
  elif profile in config.ema:
    subset["ema"] = {profile: abstract.ema[profile]}
  else:
    return _post_hoc(workdir, config, subset, abstract, profile, step)
  step, tree, _ = read(workdir, subset, step)
  return tree["params"] | tree["ema"].get(profile, {}), tree["stats"], step


def read(
  workdir: str, subset: dict[str, Any], step: int | None
) -> tuple[int, dict[str, Any], dict[str, Any]]:
  """Like checkpoint.restore_subset, which wants no empty subtrees."""
  full = lambda tree: {k: v for k, v in tree.items() if jax.tree.leaves(v)}
  nonempty = full({k: full(v) for k, v in subset.items()})
  step, tree, meta = restore.restore_subset(workdir, nonempty, step)
  stats = subset["stats"] | tree.get("stats", {})
  return step, {"params": {}, "ema": {}} | tree | {"stats": stats}, meta


def _post_hoc(workdir, config, subset, abstract, width, last):
  """Averaged weights of any width, from all checkpoints until `last`."""
  profiles = {p: s["width"] for p, s in config.ema.items() if s["name"] == "ema.power"}
  try:
    target = float(width)
  except ValueError:
    raise UserError(
      f"ema={width!r}: no such profile" + nearest(width, [*config.ema, "none"])
    ) from None
  if not profiles:
    raise UserError(
      f"ema={width}: the config has no profile of ema.power to put a new width together from"
    )
  snapshots, tree = {}, None
  steps = disk.steps(workdir)
  if last is not None and last not in steps:
    raise UserError(f"no checkpoint {last} in {workdir}: there are {steps}")
  subset |= {"ema": {p: abstract.ema[p] for p in profiles}}
  for step in [s for s in steps if last is None or s <= last]:
    step, tree, _ = read(workdir, subset, step)
    for p, own in profiles.items():
      snapshots[step, own] = jax.device_get(tree["ema"][p])
  return tree["params"] | averages.combine(snapshots, target), tree["stats"], step
