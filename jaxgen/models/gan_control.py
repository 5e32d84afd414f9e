"""GAN-Control: a GAN whose latents have a slice for every attribute (Shoshan et al. 2021).

The first of two phases; the second is `models.control_encoder`.
"""

import dataclasses
import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial import contrastive
from jaxgen.adversarial.attribute_pairs import fixed_pairs, random_pairs, share_slice
from jaxgen.adversarial.diagnostics import singular_values
from jaxgen.core import Array, Batch, Groups, Key, Metrics, State
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal
from jaxgen.models.gan import GAN

VARIABLE = "JAXGEN_PREDICTORS"  # modules of the user's own that configs may name


@dataclasses.dataclass(frozen=True)
class Statistic:
  """A predictor without weights.

  Attributes:
    function: Images [B, H, W, C] in about [-1, 1] -> features [B, ...], such as
      those of `adversarial.predictors`.
  """

  function: Callable[[Array], Array]

  classes = 0

  def check(self) -> None:
    """UserError if it cannot be used."""

  def init(self, x: Array) -> dict[str, Any]:
    """It has no weights."""
    del x
    return {}

  def __call__(self, params: Any, x: Array) -> Array:
    """Images -> features."""
    del params
    return self.function(x)

  def value(self, features: Array) -> Array:
    """Features [B, ...] -> values [B, K], as a person sets them."""
    return features.reshape(len(features), -1)


@dataclasses.dataclass(frozen=True)
class UserFunction(Statistic):
  """A predictor of the user's own module, by its name.

  A config may come with a stranger's checkpoint, so the user says in the
  environment which modules it may import: JAXGEN_PREDICTORS=module,other.

  Attributes:
    function: "module.function": images [B, H, W, C] in about [-1, 1], jax
      arrays, -> features [B, ...].
  """

  function: str

  def check(self) -> None:
    """UserError if there is no such function, or its module was not allowed."""
    self.imported()

  def __call__(self, params: Any, x: Array) -> Array:
    """Images -> features."""
    del params
    return self.imported()(x)

  def imported(self) -> Callable[[Array], Array]:
    """The function. UserError: it is not there, or its module was not allowed."""
    return user_function(self.function, tuple(os.environ.get(VARIABLE, "").split(",")))


@dataclasses.dataclass(frozen=True)
class Judge:
  """A predictor of classes: a classifier that was trained in a workdir.

  Its features are logits, for they still have a slope where it is sure; its
  values are probabilities.

  Attributes:
    net: As it was trained, see configs/judge.py. Its weights are frozen.
    workdir: Where; by default `judge_workdir` of the model.
  """

  net: nn.Module
  workdir: str = ""

  @property
  def classes(self) -> int:
    """Number of classes."""
    return self.net.classes

  def check(self) -> None:
    """Nothing beside its weights can be wrong."""

  def init(self, x: Array) -> dict[str, Any]:
    """Zeros in the shapes of its weights for images like x."""
    shapes = jax.eval_shape(self.net.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def __call__(self, params: Any, x: Array) -> Array:
    """Images -> logits [B, classes]."""
    return self.net.apply({"params": params}, jnp.clip(x, -1, 1))

  def value(self, features: Array) -> Array:
    """Logits -> probabilities, [B, classes]."""
    return jax.nn.softmax(features)


@dataclasses.dataclass(frozen=True)
class Group:
  """A slice of z, and the attribute that it is to decide.

  Attributes:
    attribute: Its name.
    size: Length of the slice.
    predictor: Of the attribute; None: of all that nobody names, as "other".
    distance: Features [B, ...] -> distances [B, B], see `adversarial.contrastive`.
    lo: Distance up to which pairs count as same.
    hi: Distance from which others count as different.
    weight: Of the attribute's loss.
    counts: Least and most places of 16 that share the slice, drawn anew for each
      batch; of a batch of another size as large a part of it.
    places: In place of that, the first and the last place; both even.
  """

  attribute: str
  size: int
  predictor: Any = None
  distance: Callable[[Array], Array] = contrastive.mean_absolute
  lo: float = 0.0
  hi: float = 1.0
  weight: float = 1.0
  counts: Sequence[int] = (2, 12)
  places: Sequence[int] | None = None

  def pairs(self, key: Key, size: int) -> Array:
    """Pairs of a batch of `size` that share the slice, bool [size / 2]; a key []."""
    if self.places is not None:
      return jnp.asarray(fixed_pairs(size, self.places))
    return random_pairs(key, size, [max(2 * round(n * size / 32), 2) for n in self.counts])


@dataclasses.dataclass(frozen=True)
class GANControl(GAN):
  """A GAN that learns to give each attribute a slice of z of its own.

  In the batch that the generator learns from, pairs share slices; predictors
  say whether they also share attributes, and others do not (Eqs. 1-3). The
  discriminator, its penalty and path lengths see plain draws. As published
  there is no mixing of styles. Where a batch is differentiated in parts, pairs
  are those of each part.

  Attributes:
    groups: In the order of their slices, which add up to z.
    judge_workdir: Where the classifier of a `Judge` among predictors was trained.
  """

  groups: Sequence[Group] = ()
  judge_workdir: str = ""

  def __post_init__(self):
    super().__post_init__()
    sizes = [g.size for g in self.groups]
    if sum(sizes) != self.z_dim:
      raise UserError(
        f"config.model.groups have slices of {' + '.join(map(str, sizes))} = {sum(sizes)} numbers, "
        f"and config.model.z_dim={self.z_dim}: make them equal"
      )
    if self.mixing:
      raise UserError(
        f"config.model.mixing={self.mixing}: mixed styles would mix attributes: set it to 0"
      )

  @property
  def sampled(self) -> tuple[str, ...]:
    """The generator, and what judges its attributes where that has weights."""
    return ("gen", "predictors") if self.learned else ("gen",)

  @property
  def predictors(self) -> dict[str, Any]:
    """Those there are, by attribute."""
    return {g.attribute: g.predictor for g in self.groups if g.predictor is not None}

  @property
  def learned(self) -> bool:
    """Whether a predictor has weights."""
    return any(p.classes for p in self.predictors.values())

  @property
  def slices(self) -> dict[str, tuple[int, int]]:
    """Where each attribute's numbers of z, and of w, begin and end."""
    ends = [0]
    for group in self.groups:
      ends.append(ends[-1] + group.size)
    return {g.attribute: ends[i : i + 2] for i, g in enumerate(self.groups)}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats. Weights of predictors are zeros for now."""
    params, stats = super().init(batch, key)
    weights = {name: p.init(batch["x"]) for name, p in self.predictors.items()}
    weights = {name: w for name, w in weights.items() if w}
    return params | ({"predictors": weights} if weights else {}), stats

  def gen_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly D is fooled, and how badly slices decide attributes."""
    pairs = self.pairs(fold(key, 3))
    z = self.paired(normal(fold(key, 0), (self.z_dim,)), pairs)
    fake, stats = self.generate(state, batch, fold(key, 0), z)
    loss, info = self.fooling(state, batch, fake, fold(key, 2))
    for name, (same, rest) in self.contrasts(state, fake, pairs).items():
      group = next(g for g in self.groups if g.attribute == name)
      loss += group.weight * (same + rest)
      info |= {f"{name}_same": same, f"{name}_rest": rest}
    return loss, (stats, info | singular_values(stats["gen"]))

  def pairs(self, key: Key) -> dict[str, Array]:
    """Keys [B] -> which pairs share each slice, {attribute: bool [B / 2]}."""
    try:
      # One draw for the batch, by its first example's key.
      return {
        g.attribute: g.pairs(jax.random.fold_in(key[0], i), len(key))
        for i, g in enumerate(self.groups)
      }
    except ValueError as e:
      raise UserError(f"config.model.groups and config.batch: {e}") from e

  def paired(self, z: Array, pairs: Mapping[str, Array]) -> Array:
    """z [B, Z] in which pairs share slices."""
    for name, (start, stop) in self.slices.items():
      z = share_slice(z, pairs[name], start, stop)
    return z

  def contrasts(
    self, state: State, x: Array, pairs: Mapping[str, Array]
  ) -> dict[str, tuple[Array, Array]]:
    """Images -> by attribute, how far its pairs are apart, and all others together."""
    return {
      g.attribute: contrastive.contrast(
        g.distance(self.attribute_features(state, g.attribute, x)), pairs[g.attribute], g.lo, g.hi
      )
      for g in self.groups
      if g.predictor is not None
    }

  def attribute(self, state: State, name: str, x: Array) -> Array:
    """Images [B, H, W, C] in about [-1, 1] -> an attribute's values, [B, K]."""
    return self.predictors[name].value(self.attribute_features(state, name, x))

  def attribute_features(self, state: State, name: str, x: Array) -> Array:
    """Images -> what the attribute's predictor finds, [B, ...]."""
    weights = state.params.get("predictors", {}).get(name, {})
    return self.predictors[name](jax.lax.stop_gradient(weights), x)


@functools.cache
def user_function(path: str, allowed: tuple[str, ...] | None = None) -> Callable[[Array], Array]:
  """The function "module.function"; of `allowed` modules, None: of any.

  Raises:
    UserError: It is not allowed, or not there.
  """
  module, _, name = path.rpartition(".")
  if not module or not name:
    raise UserError(f'a predictor {path!r}: want "module.function"')
  if allowed is not None and module not in allowed:
    raise UserError(
      f"this model asks to import {module}, for its predictor {path}: if that is your own, say so "
      f"with ${VARIABLE}={module}"
    )
  try:
    function = getattr(importlib.import_module(module), name, None)
  except ImportError as e:
    raise UserError(f"the predictor {path}: {e}") from e
  if not callable(function):
    raise UserError(f"the predictor {path}: {module} has no function {name!r}")
  return function
