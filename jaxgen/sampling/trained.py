"""A trained model with the weights that sampling reads, and no others."""

import dataclasses
import itertools
from collections.abc import Callable, Sized
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import core
from jaxgen.checkpoint.averaged import weights
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.config import build
from jaxgen.errors import UserError, guarding
from jaxgen.files import digest
from jaxgen.models.classifier import Classifier
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.guided import Guided
from jaxgen.models.latent import Latent
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
  steps = presets.stepping(config.model)
  if any_kind and "sampler" not in steps:
    sampler = respacing = None
  if sampler:
    steps = presets.with_sampler(steps, sampler)
  if respacing:
    steps = presets.with_respacing(steps, respacing)
  config.model = presets.with_stepping(config.model, steps)
  shapes = core.batch_shapes(data["shape"], data["dtype"], data["classes"])
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
    "sampler": (steps.get("sampler") or {}).get("name"),
    "dataset": data["name"],
  }
  card |= {"respacing": respacing} if respacing else {}
  card |= {"rate": data["rate"]} if "rate" in data else {}
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
  if role == "worse" and isinstance(ours.model, Latent):
    check_same_codec(ours, guide, source)
    inner = guided(*(part._replace(model=part.model.model) for part in (ours, guide)), role)
    return inner._replace(model=dataclasses.replace(ours.model, model=inner.model))
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


def check_same_codec(ours: Trained, guide: Trained, source: str) -> None:
  """UserError unless a guide is of latents, too, and of the very same ones."""
  if not isinstance(guide.model, Latent):
    raise UserError(f"{source} is a {type(guide.model).__name__}, but the model is of latents")
  mine, theirs = (
    [part.params["codec"], part.stats.get("codec", {}), part.model.scale, part.model.mean]
    for part in (ours, guide)
  )
  alike = jax.tree.structure(mine) == jax.tree.structure(theirs)
  if not alike or not all(jax.tree.leaves(jax.tree.map(np.array_equal, mine, theirs))):
    raise UserError(f"{source} is of other latents than the model: of another codec, or scale")


def abstract_state(config: ConfigDict, model: core.Model, shapes) -> core.State:
  """Shapes of a state, without its arrays."""
  moved = {p.moves for p in model.players}
  tx = {g: build(s)(steps=config.steps) for g, s in config.optim.items() if g in moved}
  init = core.make_init(model, tx, tuple(config.ema))
  return jax.eval_shape(init, shapes, jax.random.key(0))
