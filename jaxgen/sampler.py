"""A trained model, ready to sample: from a checkpoint to a jitted function."""
import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen import checkpoint, core, sharding
from jaxgen import ema as averages
from jaxgen.build import build, nearest
from jaxgen.errors import UserError
from jaxgen.models.diffusion import LONGEST

SAMPLERS = ("ancestral", "dpmpp_2m", "euler", "heun")


def load(workdir: str, *, ema: str | None = None, step: int | None = None,
         sampler: str | None = None) -> "Sampler":
  """A trained model, ready to sample: reads the averaged weights alone.

  Args:
    workdir: Where it was trained.
    ema: A profile of the config (default: the first), "none" for the weights
      themselves, or a relative width such as "0.1", put together from all kept
      checkpoints' power profiles.
    step: Of the checkpoint; default: the last good one.
    sampler: One of SAMPLERS, in place of the config's; with its own defaults.

  Raises:
    UserError: No checkpoint, no such profile, no such sampler.
  """
  meta = checkpoint.latest_meta(workdir)
  config = ConfigDict(meta["config"])
  if sampler:
    config.model = with_sampler(config.model, sampler)
  model = build(config.model)
  data = meta["data"]
  shapes = {"x": jax.ShapeDtypeStruct((1, *data["shape"]),
                                      np.dtype(data["dtype"]))}
  if data["classes"]:
    shapes["y"] = jax.ShapeDtypeStruct((1,), jnp.int32)
  params, stats, step = weights(workdir, config, model, shapes, ema, step)
  state = core.State(step=jnp.int32(step), params=params, stats=stats, opt={},
                     ema={}, skips=jnp.zeros(2, jnp.int32))
  state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
  digest = hashlib.sha256(
      json.dumps(meta["config"], sort_keys=True).encode()).hexdigest()[:16]
  return Sampler(model, state, tuple(data["shape"]), np.dtype(data["dtype"]),
                 data["classes"],
                 {"workdir": str(workdir), "config": digest, "step": step,
                  "ema": ema or next(iter(config.ema), "none"),
                  "sampler": config.model.get("sampler", {}).get("name"),
                  "dataset": data["name"]})


def with_sampler(model: ConfigDict, name: str) -> ConfigDict:
  """A model's config with another sampler."""
  if "sampler" not in model:
    raise UserError(f"{model.name} does not sample in steps: leave --sampler")
  if name not in SAMPLERS:
    raise UserError(f"there is no sampler {name!r}" + nearest(name, SAMPLERS))
  return ConfigDict(model.to_dict() | {
      "sampler": {"name": f"diffusion.samplers.{name}"}})


def weights(workdir, config, model, shapes, profile, step):
  """What sampling reads, and no more: -> params, stats, step."""
  abstract = abstract_state(config, model, shapes)
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


def read(workdir, subset, step):
  """Like checkpoint.restore_subset, which wants no empty subtrees."""
  full = {k: v for k, v in subset.items() if jax.tree.leaves(v)}
  step, tree, meta = checkpoint.restore_subset(workdir, full, step)
  return step, {"params": {}, "stats": subset["stats"], "ema": {}} | tree, meta


def abstract_state(config: ConfigDict, model: core.Model, shapes) -> core.State:
  """The shapes of a state, without making one."""
  moved = {p.moves for p in model.players}
  tx = {g: build(s)(steps=config.steps) for g, s in config.optim.items()
        if g in moved}
  init = core.make_init(model, tx, tuple(config.ema))
  return jax.eval_shape(init, shapes, jax.random.key(0))


def _post_hoc(workdir, config, subset, abstract, width, last):
  """Averaged weights of any width, from all checkpoints until `last`."""
  profiles = {p: s["width"] for p, s in config.ema.items()
              if s["name"] == "ema.power"}
  try:
    wanted = float(width)
  except ValueError:
    raise UserError(f"ema={width!r}: no such profile"
                    + nearest(width, [*config.ema, "none"])) from None
  if not profiles:
    raise UserError(f"ema={width}: the config has no profile of ema.power to "
                    "put a new width together from")
  snapshots, tree = {}, None
  kept = checkpoint.steps(workdir)
  if last is not None and last not in kept:
    raise UserError(f"no checkpoint {last} in {workdir}: there are {kept}")
  for step in [s for s in kept if last is None or s <= last]:
    want = subset | {"ema": {p: abstract.ema[p] for p in profiles}}
    step, tree, _ = read(workdir, want, step)
    for p, own in profiles.items():
      snapshots[step, own] = jax.device_get(tree["ema"][p])
  mixed = averages.combine(snapshots, wanted)
  return tree["params"] | mixed, tree["stats"], step


def draw(model: core.Model, profile: str | None, shapes, classes: int,
         state: core.State, key: core.Key) -> jax.Array:
  """Samples of `shapes` with default knobs, one key [], labels in turn."""
  n = shapes["x"].shape[0]
  batch = {"x": jnp.zeros(shapes["x"].shape)}
  if "y" in shapes:
    batch["y"] = jnp.arange(n, dtype=jnp.int32) % classes
  state = state.averaged(profile) if profile else state
  return as_data(model.sample(state, batch, core.example_keys(key, n)),
                 shapes["x"].dtype)


def as_data(x: jax.Array, dtype: np.dtype) -> jax.Array:
  """What a model makes, in the data's own units: [-1, 1] -> rounded bytes."""
  if dtype != np.uint8:
    return x
  return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
  """A trained model with its weights: call `sample`.

  Attributes:
    model: The game.
    state: With averaged weights in place of the trained ones.
    shape: Of one sample.
    dtype: uint8 for images, float32 for points.
    classes: Number of labels, or 0.
    card: Where the weights came from.
  """
  model: core.Model
  state: core.State
  shape: tuple[int, ...]
  dtype: np.dtype
  classes: int
  card: dict[str, Any]

  def sample(self, key: int | core.Key, num: int,
             labels: int | Sequence[int] | None = None, *, batch: int = 256,
             **knobs: float) -> np.ndarray:
    """Draws samples: uint8 [num, H, W, C], or float32 for points.

    One program is compiled for each `batch`; no knob or label makes another.
    Sample i depends on the key, i, its label and the knobs alone.

    Args:
      key: A seed, or a key [].
      num: How many.
      labels: One for all, or one each; None: every class in turn. -1 asks a
        guided diffusion model for "any".
      batch: How many to draw at once.
      **knobs: Such as steps, guidance, eta; see `model.knobs`.
    """
    if batch < 1:
      raise UserError(f"batch={batch}: want at least 1")
    if isinstance(key, int | np.integer):
      if key < 0:
        raise UserError(f"seed={key}: want a whole number, at least 0")
      key = jax.random.key(key)
    settings = {k: jnp.float32(v) for k, v in self.settings(knobs).items()}
    labels = self.labels(num, labels)
    batch = min(batch, num)
    batch += -batch % self.mesh.size
    parts = []
    for first in range(0, num, batch):
      i = np.arange(first, first + batch)
      given = {"i": i.astype(np.int32)}
      if labels is not None:
        given["y"] = labels[np.minimum(i, num - 1)]
      given = sharding.place(given, self.mesh)
      parts.append(self.program(self.state, given, key, settings))
    return np.concatenate(jax.device_get(parts))[:num]

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """All devices: samples are cut along its `data`."""
    return sharding.make_mesh()

  @functools.cached_property
  def program(self):
    """The one jitted function: (state, {"i", "y"} [B], key, knobs) -> x."""
    def run(state, given, key, knobs):
      batch = {"x": jnp.zeros((len(given["i"]), *self.shape)), **given}
      keys = core.fold(
          jnp.broadcast_to(key, given["i"].shape), batch.pop("i"))
      return as_data(self.model.sample(state, batch, keys, **knobs), self.dtype)
    return jax.jit(run, out_shardings=sharding.batched(self.mesh))

  def settings(self, knobs: dict[str, float]) -> dict[str, float]:
    """All knobs, those given and the defaults; UserError for a strange one."""
    for name in knobs:
      if name not in self.model.knobs:
        raise UserError(
            f"a {type(self.model).__name__} has no knob {name!r}"
            + nearest(name, self.model.knobs))
    settings = self.model.knobs | {k: float(v) for k, v in knobs.items()}
    if not all(np.isfinite(float(v)) for v in knobs.values()):
      raise UserError(f"knobs must be finite numbers, got {knobs}")
    if not 1 <= settings.get("steps", 1) <= LONGEST:
      raise UserError(f"steps={settings['steps']}: want 1 to {LONGEST}")
    return settings

  def labels(self, num: int, labels: int | Sequence[int] | None
             ) -> np.ndarray | None:
    """One label for each sample, [num] int32; None without classes."""
    if num < 1:
      raise UserError(f"num={num}: want at least 1")
    if not self.classes:
      if labels is not None:
        raise UserError("this model was trained without labels")
      return None
    if labels is None:
      return np.arange(num, dtype=np.int32) % self.classes
    y = np.asarray(labels, np.int32).reshape(-1)
    if len(y) not in (1, num):
      y = np.resize(y, num)  # a few labels, in turn
    least = -1 if "guidance" in self.model.knobs else 0
    strange = y[(y < least) | (y >= self.classes)]
    if len(strange):
      raise UserError(f"labels run from 0 to {self.classes - 1}, "
                      f"got {strange[0]}")
    return np.broadcast_to(y, (num,))
