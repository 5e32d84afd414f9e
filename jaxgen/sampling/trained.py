"""A trained model with the weights that sampling reads, and no others."""

import itertools
from collections.abc import Callable, Sized
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core
from jaxgen import ema as averages
from jaxgen.checkpoint import disk, restore
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.config import build
from jaxgen.errors import UserError, guarding, nearest
from jaxgen.files import digest
from jaxgen.models.classifier import Classifier
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.guided import Guided
from jaxgen.sampling import presets

CALLS = 10  # of parts of a net, for each leaf of a checkpoint


class Trained(NamedTuple):
  """A workdir's model and the weights that it samples with."""

  model: core.Model
  params: core.Groups
  stats: core.Groups
  step: int
  data: dict[str, Any]  # what it was trained on
  card: dict[str, Any]  # where all this comes from


def load_trained(
  workdir: str,
  ema: str | None = None,
  step: int | None = None,
  sampler: str | None = None,
  respacing: str | None = None,
  any_kind: bool = False,
) -> Trained:
  """Builds a workdir's model and reads its averaged weights.

  See `sampling.sampler.load`. With `any_kind`, a model that does not sample in
  steps ignores sampler and respacing.
  """
  meta = latest(workdir)
  config, data = settings(meta), meta["data"]
  if any_kind and "sampler" not in config.model:
    sampler = respacing = None
  if sampler:
    config.model = presets.with_sampler(config.model, sampler)
  if respacing:
    config.model = presets.with_respacing(config.model, respacing)
  shapes = {"x": jax.ShapeDtypeStruct((1, *data["shape"]), np.dtype(data["dtype"]))}
  if data["classes"]:
    shapes["y"] = jax.ShapeDtypeStruct((1,), jnp.int32)
  what = f"{workdir}: the checkpoint's config is of no model"
  with guarding(what), nn.intercept_methods(counting(what, meta["leaves"])):
    model = build(config.model)
    abstract = abstract_state(config, model, shapes)
    if core.trait(model, "sample"):
      model.nfe(**model.knobs)
  params, stats, step = weights(workdir, config, model, abstract, ema, step)
  card = {
    "workdir": str(workdir),
    "config": digest(meta["config"]),
    "step": step,
    "ema": ema or next(iter(config.ema), "none"),
    "sampler": (config.model.get("sampler") or {}).get("name"),
    "dataset": data["name"],
  }
  card |= {"respacing": respacing} if respacing else {}
  return Trained(model, params, stats, step, data, card)


def counting(what: str, leaves: Sized) -> Callable:
  """An interceptor for linen that stops endless nets: UserError.

  A net of so many leaves calls few more of its parts; a stranger's depth may
  be any number.
  """
  calls_left = itertools.count(CALLS * (len(leaves) + 10), -1)

  def intercept(call, args, kwargs, context):
    if not next(calls_left):
      raise UserError(f"{what}: it has far more parts than the checkpoint's {len(leaves)} leaves")
    return call(*args, **kwargs)

  return intercept


def sampling_state(step: int, params: core.Groups, stats: core.Groups) -> core.State:
  """A state of what sampling reads, and nothing of training."""
  return core.State(
    step=jnp.int32(step), params=params, stats=stats, opt={}, ema={}, skips=jnp.zeros(2, jnp.int32)
  )


def check_samples(kind: type, whose: str) -> None:
  """UserError, which begins with `whose`, for models that make no samples."""
  if not core.trait(kind, "sample"):
    raise UserError(f"{whose} a {kind.__name__}: it makes no samples")


def condition_shape(make: Callable, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Shape of one example's condition, which `make` makes of an x of `shape`."""
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(make, x).shape[1:]


def guided(ours: Trained, guide: Trained, role: str) -> Trained:
  """A diffusion model and its guide, a "classifier" or a "worse" one."""
  kind = Classifier if role == "classifier" else Diffusion
  source = f"{role}={guide.card['workdir']}"
  for name, part, want in (("the model", ours, Diffusion), (source, guide, kind)):
    if not isinstance(part.model, want):
      raise UserError(f"{name} is a {type(part.model).__name__}: to guide takes a {want.__name__}")
  mine, theirs = ours.data["classes"], guide.data["classes"]
  if guide.data["shape"] != ours.data["shape"]:
    raise UserError(
      f"{source} was trained on {guide.data['shape']}, the model on {ours.data['shape']}"
    )
  if mine != theirs and (mine if kind is Classifier else theirs):
    raise UserError(f"{source} knows {theirs} classes, the model {mine}")
  names, others = (tuple(m.data.get("class_names") or ()) for m in (ours, guide))
  if names and others and names != others:
    raise UserError(f"the classes of {source} have other names than the model's")
  return Trained(
    Guided(ours.model, guide.model),
    ours.params | {"guide": guide.params["net"]},
    ours.stats | {"guide": guide.stats.get("net", {})},
    ours.step,
    ours.data | {"classes": mine or theirs, "class_names": names or others},
    ours.card | {role: guide.card},
  )


def weights(workdir, config, model, abstract, profile, step):
  """Reads what sampling needs, and no more: -> params, stats, step."""
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
  nonempty = {k: v for k, v in subset.items() if jax.tree.leaves(v)}
  step, tree, meta = restore.restore_subset(workdir, nonempty, step)
  return step, {"params": {}, "stats": subset["stats"], "ema": {}} | tree, meta


def abstract_state(config: ConfigDict, model: core.Model, shapes) -> core.State:
  """Shapes of a state, without its arrays."""
  moved = {p.moves for p in model.players}
  tx = {g: build(s)(steps=config.steps) for g, s in config.optim.items() if g in moved}
  init = core.make_init(model, tx, tuple(config.ema))
  return jax.eval_shape(init, shapes, jax.random.key(0))


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
