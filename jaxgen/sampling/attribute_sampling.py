"""Samples with attributes that one asks for: by GAN-Control, or by guided diffusion.

Both give pairs: a sample as it comes, and the one that differs from it in what
was asked for alone, of the same latents or noise. Values are traced: asking
for others compiles nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core
from jaxgen.adversarial.predictors import STATISTICS
from jaxgen.core import Array
from jaxgen.diffusion import guidance
from jaxgen.diffusion.attribute_guidance import towards
from jaxgen.errors import UserError, nearest
from jaxgen.keys import fold
from jaxgen.models.classifier import Classifier
from jaxgen.models.control_encoder import ControlEncoder
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.gan_control import user_function
from jaxgen.sampling.latents import in_batches
from jaxgen.sampling.sampler import Sampler, key_of, load

Wanted = Mapping[str, np.ndarray]  # values [N, K] by attribute; NaN: as it comes


class Attribute(NamedTuple):
  """What can be asked for.

  Attributes:
    name: Of it.
    value: Images [B, H, W, C] in about [-1, 1] -> values [B, K].
    classes: Where values are log probabilities of classes: their number.
  """

  name: str
  value: Callable[[Array], Array]
  classes: int = 0


def attribute_of(word: str) -> Attribute:
  """A predictor by its word.

  A name of `adversarial.predictors.STATISTICS`; "module.function" of the user's
  own; or "judge:W", a classifier's workdir, which makes the attribute "class".
  """
  if word.startswith("judge:"):
    judge = load(word.removeprefix("judge:"), samples=False)
    if not isinstance(judge.model, Classifier):
      raise UserError(f"{word}: a {type(judge.model).__name__} was trained there: no classifier")
    value = lambda x: jax.nn.log_softmax(judge.model.logits(judge.state, {"x": jnp.clip(x, -1, 1)}))
    return Attribute("class", value, judge.classes)
  if word in STATISTICS:
    return Attribute(word, STATISTICS[word])
  if "." in word:
    function = user_function(word)
    return Attribute(word.rpartition(".")[2], lambda x: function(x).reshape(len(x), -1))
  raise UserError(
    f"--predictor={word}: want judge:WORKDIR, a function module.function of yours, or one of "
    + ", ".join(STATISTICS)
    + (nearest(word, STATISTICS) if "did you mean" in nearest(word, STATISTICS) else "")
  )


class Request(NamedTuple):
  """Which samples, and what is asked of them.

  Attributes:
    wanted: Values by attribute, [N, K].
    index: Numbers of the samples [N]: of one number, all else is the same.
    labels: [N], where the model takes labels.
    seed: Of all randomness.
    knobs: Of the model.
    batch: How many to make at once.
  """

  wanted: Wanted
  index: np.ndarray
  labels: np.ndarray | None = None
  seed: int = 0
  knobs: Mapping[str, float] = {}
  batch: int = 64

  def rows(self) -> dict[str, np.ndarray]:
    """What each sample has of its own."""
    rows = {f"want_{k}": np.float32(v) for k, v in self.wanted.items()}
    rows["i"] = np.int32(self.index)
    return rows | ({} if self.labels is None else {"y": np.int32(self.labels)})


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderControl:
  """A `models.control_encoder` that was trained."""

  sampler: Sampler

  how = "GAN-Control"

  @property
  def attributes(self) -> list[Attribute]:
    """Those that the encoder knows."""
    model, state = self.sampler.model, self.sampler.state
    return [
      Attribute(
        name,
        functools.partial(model.generator.attribute, state, name),
        model.generator.predictors[name].classes,
      )
      for name in model.net.names
    ]

  def passes(self, request: Request) -> str:
    """What one sample costs."""
    del request
    return "2 passes of the generator"

  def make(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """-> samples as they come, and as asked for; as the data, [N, H, W, C] each."""
    model, counts = self.sampler.model, self.sampler.model.values_of
    settings = self.sampler.settings(dict(request.knobs))
    wanted = {name: request.wanted.get(name) for name in model.net.names}
    blank = lambda name: np.full((len(request.index), counts(name)), np.nan)
    wanted = {k: blank(k) if v is None else one_hot(v, counts(k)) for k, v in wanted.items()}
    key, psi = key_of(request.seed), jnp.float32(settings["psi"])
    run = functools.partial(self.program, self.sampler.state, key, psi)
    rows = request._replace(wanted=wanted).rows()
    return in_batches(run, rows, request.batch, self.sampler.mesh)

  @functools.cached_property
  def program(self) -> Callable[..., Any]:
    """(state, key, psi, rows) -> two arrays of images."""
    model, dtype = self.sampler.model, self.sampler.dtype

    @jax.jit
    def run(state, key, psi, rows):
      keys = fold(jnp.broadcast_to(key, rows["i"].shape), rows["i"])
      wanted = {name: rows[f"want_{name}"] for name in model.net.names}
      labels = {k: rows[k] for k in ("y",) if k in rows}
      pair = model.controlled(state, labels, keys, wanted, psi)
      return tuple(core.as_data(x, dtype) for x in pair)

    return run


@dataclasses.dataclass(frozen=True, eq=False)
class GuidedControl:
  """A diffusion model, guided by predictors: nothing is trained.

  Attributes:
    sampler: Of a `models.diffusion`.
    attributes: What can be asked for.
    tolerance: How near is near enough, as a share of the `units`.
    units: Of each attribute, such as its standard deviation in data; 1 if
      nothing is said.
    strength: Of guidance; 1 is that of a posterior, see
      `diffusion.attribute_guidance`.
  """

  sampler: Sampler
  attributes: Sequence[Attribute]
  tolerance: float = 0.1
  units: Mapping[str, float] = dataclasses.field(default_factory=dict)
  strength: float = 1.0

  how = "guided diffusion"

  def passes(self, request: Request) -> str:
    """What one sample costs."""
    points = self.sampler.model.nfe(**request.knobs)
    size = {name: 1 if name == "class" else v.shape[-1] for name, v in request.wanted.items()}
    return f"{points} passes of the net, {points * sum(size.values())} backward"

  def make(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """-> samples as they come, and as asked for; as the data, [N, H, W, C] each."""
    known = {a.name: a for a in self.attributes}
    chosen = tuple(known[name] for name in request.wanted)
    settings = {k: jnp.float32(v) for k, v in self.sampler.settings(dict(request.knobs)).items()}
    unit = {name: jnp.float32(self.units.get(name, 1.0)) for name in request.wanted}
    key = key_of(request.seed)
    run = functools.partial(
      self.program(chosen),
      self.sampler.state,
      key,
      settings,
      jax.tree.map(lambda u: self.tolerance * u, unit),
      jnp.float32(self.strength),
    )
    return in_batches(run, request.rows(), request.batch, self.sampler.mesh)

  @functools.cached_property
  def programs(self) -> dict[tuple[str, ...], Callable[..., Any]]:
    """By names of attributes: the programs there are."""
    return {}

  def program(self, chosen: Sequence[Attribute]) -> Callable[..., Any]:
    """(state, key, knobs, tolerances, strength, rows) -> two arrays of images."""
    names = tuple(a.name for a in chosen)
    if names in self.programs:
      return self.programs[names]
    model, dtype, shape = self.sampler.model, self.sampler.dtype, self.sampler.shape

    @jax.jit
    def run(state, key, knobs, tolerance, strength, rows):
      keys = fold(jnp.broadcast_to(key, rows["i"].shape), rows["i"])
      batch = {"x": jnp.zeros((len(keys), *shape))} | {k: rows[k] for k in ("y",) if k in rows}
      predict, target = asked_of(chosen, rows)
      near = [jnp.broadcast_to(tolerance[a.name], rows[f"want_{a.name}"].shape[1:]) for a in chosen]
      D = towards(
        model.guided(state, batch, knobs), predict, target, jnp.concatenate(near), strength
      )
      if model.bound is not None:
        D = guidance.clip(D, -model.bound, model.bound)
      pair = [model.sample(state, batch, keys, denoise=d, **knobs) for d in (None, D)]
      return tuple(core.as_data(x, dtype) for x in pair)

    return self.programs.setdefault(names, run)


def asked_of(
  chosen: Sequence[Attribute], rows: Mapping[str, Array]
) -> tuple[Callable[[Array], Array], Array]:
  """All attributes as one predictor, x -> [B, K], and its targets [B, K].

  Of a judge the log probability of the class, which is to be 0.
  """
  wanted = {a.name: rows[f"want_{a.name}"] for a in chosen}

  def predict(x: Array) -> Array:
    parts = []
    for a in chosen:
      v = a.value(x)
      if a.classes:
        v = jnp.take_along_axis(v, wanted[a.name].astype(jnp.int32), 1)
      parts.append(v)
    return jnp.concatenate(parts, -1)

  targets = [0 * wanted[a.name] if a.classes else wanted[a.name] for a in chosen]
  return predict, jnp.concatenate(targets, -1)


def one_hot(values: np.ndarray, count: int) -> np.ndarray:
  """Numbers of classes [N, 1] -> certainties [N, count]; other values stay."""
  if values.shape[-1] == count:
    return values
  return np.float32(np.arange(count) == values)


def open_control(
  workdir: str, predictors: Sequence[str] = (), **guided: Any
) -> EncoderControl | GuidedControl:
  """What controls the attributes of a workdir's samples.

  Args:
    workdir: Of a control encoder, or of a diffusion model.
    predictors: Words of `attribute_of`, for the latter.
    **guided: Fields of `GuidedControl`.

  Raises:
    UserError: It is of another kind, or takes conditions.
  """
  sampler = load(workdir)
  if isinstance(sampler.model, ControlEncoder):
    return EncoderControl(sampler)
  if type(sampler.model) is not Diffusion:
    raise UserError(
      f"{workdir} holds a {type(sampler.model).__name__}: control takes an encoder of "
      "configs/gan_control.py, or a diffusion model with --predictor"
    )
  if sampler.model.cond:
    raise UserError(
      f"{workdir} makes x from {', '.join(sampler.model.cond)}: control takes a model without "
      "such conditions"
    )
  if not predictors:
    raise UserError(
      f"{workdir} holds a diffusion model: say by what it is to be guided, --predictor=slant or "
      "another; there are " + ", ".join((*STATISTICS, "judge:WORKDIR", "module.function"))
    )
  return GuidedControl(sampler, [attribute_of(word) for word in predictors], **guided)
