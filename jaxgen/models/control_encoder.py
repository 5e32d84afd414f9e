"""GAN-Control's second phase: from an attribute's value to its slice of w.

Shoshan et al. 2021, Sec. 3.2, over a generator that `models.gan_control` trained.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal
from jaxgen.models.gan import noise_keys
from jaxgen.models.gan_control import GANControl

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class ControlEncoder:
  """Learns the slice of w that gives a sample the attributes that one asks for.

  From samples of the generator: their attributes, as its predictors see them,
  and their w. The published code draws 200,000 samples once; here each batch is
  drawn anew, and of the data's batches nothing is read but labels. Generator
  and predictors are frozen groups, read from the generator's workdir before the
  first step and in every checkpoint from there on.

  Attributes:
    generator: As it was trained; its losses do not matter.
    net: `nets.split_mapping.AttributeEncoder` of the attributes to control.
    generator_workdir: Where the generator was trained.
    standardise: The net reads values less their mean and over their standard
      deviation, by the generator's first samples; else, as published, as they are.
  """

  generator: GANControl
  net: nn.Module
  generator_workdir: str = ""
  standardise: bool = False

  def __post_init__(self):
    known, slices = self.generator.predictors, self.generator.slices
    for name, size in zip(self.net.names, self.net.sizes, strict=True):
      if name not in known:
        raise UserError(
          f"config.model.net.names has {name!r}, of which config.model.generator has no predictor: "
          f"it has {', '.join(known)}"
        )
      start, stop = slices[name]
      if size != stop - start:
        raise UserError(
          f"config.model.net.sizes: {size} for {name}, whose slice of w has {stop - start} numbers"
        )

  @property
  def players(self) -> Sequence[Player]:
    """One: the encoder."""
    return (Player("encoder", "encoder", self.loss),)

  @property
  def sampled(self) -> tuple[str, ...]:
    """The encoder, and the generator's groups."""
    return ("encoder", *self.generator.sampled)

  @property
  def classes(self) -> int:
    """Number of labels that the generator takes."""
    return self.generator.classes

  @property
  def knobs(self) -> dict[str, float]:
    """A value for each attribute (infinite: as it comes), and the generator's `psi`.

    Attributes of several numbers have a knob for each, colour_0 and so on; a
    judge's has the number of the class.
    """
    return dict.fromkeys(self.value_knobs, INF) | {"psi": 1.0}

  @property
  def value_knobs(self) -> dict[str, tuple[str, int]]:
    """Knob -> attribute, and which of its numbers."""
    knobs = {}
    for name in self.net.names:
      count = 1 if self.generator.predictors[name].classes else self.values_of(name)
      for i in range(count):
        knobs[name if count == 1 else f"{name}_{i}"] = (name, i)
    return knobs

  def values_of(self, name: str) -> int:
    """How many values an attribute has: K."""
    gen = self.generator.gen
    predictor = self.generator.predictors[name]
    if predictor.classes:
      return predictor.classes
    x = jax.ShapeDtypeStruct((1, gen.size, gen.size, gen.channels), jnp.float32)
    return jax.eval_shape(lambda x: predictor.value(predictor({}, x)), x).shape[-1]

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats. The generator is as before its own training."""
    k_gen, k_net = jax.random.split(key)
    params, stats = self.generator.init(batch, k_gen)
    values = {name: jnp.zeros((1, self.values_of(name))) for name in self.net.names}
    own = {"encoder": self.net.init(k_net, values)["params"]}
    own |= {g: params[g] for g in self.generator.sampled}
    stats = {g: stats[g] for g in self.generator.sampled if g in stats}
    if self.standardise:
      zeros, ones = (jax.tree.map(f, values) for f in (jnp.zeros_like, jnp.ones_like))
      stats["encoder"] = {"mean": zeros, "var": ones, "batches": jnp.int32(0)}
    return own, stats

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """L1 between slices of w, the sum over attributes: their nets share nothing."""
    w, x = self.draw(state, batch, key)
    values = jax.lax.stop_gradient(self.attributes(state, x))
    slices = self.encode(state, values)
    info = {}
    for name, (start, stop) in self.own_slices.items():
      info[name] = jnp.mean(jnp.abs(slices[name] - w[:, start:stop]))
    return sum(info.values()), (state.stats, info)

  @property
  def own_slices(self) -> dict[str, tuple[int, int]]:
    """Where the slices of the encoder's attributes begin and end."""
    return {name: self.generator.slices[name] for name in self.net.names}

  def draw(
    self, state: State, batch: Batch, key: Key, psi: Array | float = 1.0
  ) -> tuple[Array, Array]:
    """Samples of the generator: w [B, W], x; z is the batch's "z" or "noise", if any."""
    gen, z = self.generator, batch.get("z", batch.get("noise"))
    z = normal(fold(key, 0), (gen.z_dim,)) if z is None else z
    variables = state.variables("gen")
    ws = gen.gen.apply(variables, z, psi=psi, method="map", **gen.conditions(batch))
    return ws[:, 0], self.synthesize(state, ws[:, 0], key)

  def synthesize(self, state: State, w: Array, key: Key) -> Array:
    """w [B, W], one for all layers -> x; of a key the noise is the same."""
    gen = self.generator.gen
    ws = jnp.repeat(w[:, None], gen.num_ws, 1)
    noise = noise_keys(gen, fold(key, 1))
    return gen.apply(state.variables("gen"), ws, method="synthesize", **noise)

  def attributes(self, state: State, x: Array) -> dict[str, Array]:
    """Images -> values of the encoder's attributes, {name: [B, K]}."""
    return {name: self.generator.attribute(state, name, x) for name in self.net.names}

  def encode(self, state: State, values: Mapping[str, Array]) -> dict[str, Array]:
    """Values {name: [B, K]} -> slices of w, {name: [B, size]}."""
    if self.standardise:
      own = state.stats["encoder"]
      scaled = lambda v, mean, var: (v - mean) * jax.lax.rsqrt(var + 1e-8)
      values = {k: scaled(v, own["mean"][k], own["var"][k]) for k, v in values.items()}
    return self.net.apply({"params": state.params["encoder"]}, values)

  def controlled(
    self,
    state: State,
    batch: Batch,
    key: Key,
    wanted: Mapping[str, Array],
    psi: Array | float = 1.0,
  ) -> tuple[Array, Array]:
    """A sample as it comes, and the same with other attributes: x, x.

    Args:
      state: Trained weights.
      batch: Labels, and latents "z" [B, Z] where they are given.
      key: [B].
      wanted: Values {name: [B, K]}; where they are not finite, they stay.
      psi: Truncation, of both.
    """
    w, x = self.draw(state, batch, key, psi)
    own = self.attributes(state, x)
    values = {k: jnp.where(jnp.isfinite(wanted[k]), wanted[k], v) for k, v in own.items()}
    slices = self.encode(state, values)
    for name, (start, stop) in self.own_slices.items():
      asked = jnp.any(jnp.isfinite(wanted[name]), -1, keepdims=True)
      w = w.at[:, start:stop].set(jnp.where(asked, slices[name], w[:, start:stop]))
    return x, self.synthesize(state, w, key)

  def wanted(self, knobs: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Knobs -> values {name: [size, K]}; a class as the certainty of it."""
    values = {}
    for knob, (name, _) in self.value_knobs.items():
      value = jnp.asarray(knobs[knob], jnp.float32)
      if classes := self.generator.predictors[name].classes:
        row = jnp.where(jnp.isfinite(value), jnp.arange(classes) == value, INF)
        values[name] = row
      else:
        values[name] = jnp.append(values.get(name, jnp.zeros(0)), value)
    return {k: jnp.broadcast_to(v, (size, len(v))) for k, v in values.items()}

  def sample(
    self, state: State, batch: Batch, key: Key, *, psi: Array | float = 1.0, **knobs: Array | float
  ) -> Array:
    """Keys [B] -> x with these attributes, see `knobs`."""
    knobs = self.knobs | knobs
    wanted = self.wanted({k: knobs[k] for k in self.value_knobs}, len(batch["x"]))
    return self.controlled(state, batch, key, wanted, psi)[1]

  def nfe(self, **knobs) -> int:
    """Two passes of the generator: one looks at what comes."""
    del knobs
    return 2

  @property
  def measure(self) -> Callable[[State, Batch, Key], Groups] | None:
    """Of what looks at the generator's samples before the first step, see `moments`."""
    return self.moments if self.standardise else None

  def moments(self, state: State, batch: Batch, key: Key) -> Groups:
    """Stats in which mean and variance of values are also those of these samples."""
    own = state.stats["encoder"]
    values = self.attributes(state, self.draw(state, batch, key)[1])
    n = own["batches"] + 1
    mean, var = {}, {}
    for name, v in values.items():
      gap = jnp.mean(v, 0, keepdims=True) - own["mean"][name]
      mean[name] = own["mean"][name] + gap / n
      spread = (1 - 1 / n) * own["var"][name] + jnp.var(v, 0, keepdims=True) / n
      var[name] = spread + (1 / n) * (1 - 1 / n) * gap**2
    return state.stats | {"encoder": {"mean": mean, "var": var, "batches": n}}
