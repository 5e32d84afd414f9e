"""The parts of a trained model, as functions that others build on.

All are methods of what `jaxgen.load` returns. They compute in float32, x in
[-1, 1] as models see it, and are pure: they can be called under `jit`, `vmap`
and `grad`. What reads x also takes the data's own bytes (uint8) or samples
(int16), and scales them; `m.as_data(x)` rounds x to these again.

Weights are those that were loaded, or `params=`, shaped like `m.params`: give
them to functions that are compiled, in which weights would be constants else.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core
from jaxgen.checkpoint import restore
from jaxgen.config import SEEDS
from jaxgen.core import Array, Key, trait
from jaxgen.diffusion.denoiser import Denoise, mean
from jaxgen.diffusion.process import Flow, Noise
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError, nearest
from jaxgen.keys import example_keys, fold
from jaxgen.models.cascade import Cascade, stage_state
from jaxgen.models.codec import Autoencoder
from jaxgen.models.denoising_gan import DenoisingGAN
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.gan import GAN, noise_keys
from jaxgen.models.guided import Guided
from jaxgen.models.latent import Latent
from jaxgen.models.mean_flow import MeanFlow
from jaxgen.models.vae import VAE
from jaxgen.models.vocoder_gan import VocoderGAN
from jaxgen.sampling.trained import sampling_state

Params = dict[str, dict[str, Any]]  # group -> linen's variables
Labels = Any  # None, a class, or one for each example; names or (traced) numbers
LEVELS = ("sigma", "t", "noise")


def key_of(seed: int | Key) -> Key:
  """A seed, or a key [] as it is. UserError for a seed out of range."""
  if not isinstance(seed, int | np.integer):
    return seed
  if not 0 <= seed < SEEDS:  # of larger ones jax takes the last 32 bits
    raise UserError(f"seed={seed}: want 0 to {SEEDS - 1}")
  return jax.random.key(seed)


def keys_of(key: int | Key | None, n: int) -> Key | None:
  """A seed, a key [] or keys [n] -> keys [n]; None stays."""
  if key is None:
    return None
  key = key_of(key)
  return example_keys(key, n) if not jnp.ndim(key) else key


def variables_of(state: core.State) -> Params:
  """The groups of a state as linen's variables: {"params": .., "batch_stats": ..} each."""
  return {g: {"params": p, **state.stats.get(g, {})} for g, p in state.params.items()}


def state_of(params: Params) -> core.State:
  """The inverse of `variables_of`."""
  own = {g: v["params"] for g, v in params.items()}
  stats = {g: {k: v for k, v in tree.items() if k != "params"} for g, tree in params.items()}
  return sampling_state(0, own, stats)


class Surface:
  """What a `Sampler` offers to those who build on a model; see there."""

  model: core.Model
  state: core.State
  shape: tuple[int, ...]
  dtype: np.dtype
  classes: int
  card: dict[str, Any]
  numbers: Callable

  @functools.cached_property
  def params(self) -> Params:
    """Weights by group, each as linen's `apply` takes them: what `params=` wants.

    {"net": {"params": ..}} of a diffusion model or a VAE; {"gen": ..} of a GAN;
    {"net": .., "codec": ..} of a model of latents; {"0.net": ..} of a cascade.
    A group may have statistics beside its "params", such as "batch_stats".
    """
    return variables_of(self.state)

  def variables(self, group: str) -> dict[str, Any]:
    """linen's variables of one group, also of those that sampling does not read.

    Such as "disc": they are read from the checkpoint when first asked for, as
    they were last (only what samples is averaged).

    Raises:
      UserError: The checkpoint has no such group.
    """
    if group in self.params:
      return self.params[group]
    others = vars(self).setdefault("others", {})
    if group not in others:
      with jax.ensure_compile_time_eval():  # whoever traces is given arrays
        others[group] = jax.tree.map(jnp.asarray, self._read(group))
    return others[group]

  @property
  def net(self) -> nn.Module:
    """The one linen module of a model that has one; its weights are `params["net"]`.

    Of a diffusion model F(c_in x_t, c_noise [B], y=[B]), where label `classes`
    is "none"; of a VAE encoder and decoder. Of latents, that of what learns
    these. A GAN's two are `model.gen` and `model.disc`.
    """
    net = trait(self._inner, "net")
    if net is None:
      raise self._lacks("net", self._hint_of_nets())
    return net

  @property
  def process(self) -> Callable:
    """t -> Noise(t, alpha, sigma), x_t = alpha x_0 + sigma eps, of a diffusion model.

    t runs from 0 (data) to 1 (noise), or is sigma itself (EDM).
    """
    model = self._diffuser("process")
    return Flow() if isinstance(model, MeanFlow) else self._plain(model).process

  @property
  def stages(self) -> tuple["Surface", ...]:
    """Of a cascade, its stages as models of their own; else ()."""
    if not isinstance(self.model, Cascade):
      return ()
    parts = zip(self.model.stages, self.model.shapes, self.model.classes, strict=True)
    cards = self.card.get("stages") or [{}] * len(self.model.stages)
    return tuple(
      type(self)(
        model, stage_state(self.state, i), shape, self.dtype, classes, cards[i], self.class_names
      )
      for i, (model, shape, classes) in enumerate(parts)
    )

  @functools.cached_property
  def latent_shape(self) -> Any:
    """Shape of one example's latents, or a dict of them (VQ-VAE-2); see `encode`."""
    x = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
    y = jax.ShapeDtypeStruct((1,), jnp.int32) if self._codec_labels else None
    z = jax.eval_shape(lambda p, x, y: self.encode(x, y, params=p), self.params, x, y)
    return jax.tree.map(lambda z: z.shape[1:], z)

  @property
  def noise_shape(self) -> tuple[int, ...] | None:
    """Shape of the `noise` that one sample begins with; None where there is none.

    Of diffusion models that of x_T (of latents: of these), of GANs and VAEs
    that of z.
    """
    model = self.model
    if isinstance(model, Latent):
      return self.latent_shape if isinstance(self.latent_shape, tuple) else None
    if isinstance(model, GAN):
      return (model.z_dim,)
    if isinstance(model, VAE):
      return (model.net.z_dim,)
    kinds = Diffusion | Guided | MeanFlow | DenoisingGAN | Cascade
    return self.shape if isinstance(model, kinds) else None

  def as_data(self, x: Array) -> Array:
    """x in [-1, 1] -> the data's own: uint8 images, int16 sound, float32 points."""
    return core.as_data(x, self.dtype)

  def denoiser(
    self, labels: Labels = None, *, by: str = "sigma", params: Params | None = None, **options: Any
  ) -> Callable[[Array, Any], Array]:
    """D(x_t, level) -> an estimate of x_0, float32 [B, ...].

    x_t is [B, *shape], or [B, *latent_shape] of a model of latents, whose x_0
    `encode` makes and `decode` reads. The level is [] or [B], and may be
    traced, as all options may:

      by="sigma"   x = x_0 + sigma eps, sigma > 0, as in k-diffusion and EDM,
                   whatever the model's own process. One in discrete time
                   takes a sigma beyond its ends for its end.
      by="t"       x_t = alpha x_0 + sigma eps, with `process(t)`'s alpha, sigma.
      by="noise"   The same, and the level is a `Noise`: what the house's own
                   samplers take. A learned variance comes along, as `Estimate`.

    Of a consistency model D is where the ODE leads; of MeanFlow it is x_t - t v,
    by the velocity v = u(x_t, t, t); else the posterior mean of x_0, as guided.

    Args:
      labels: One for all, or one each; None or -1: "any", where the model knows it.
      by: See above.
      params: In place of the model's weights.
      **options: Knobs of guidance (guidance, lo, hi; scale; auto; omega, ..) and
        conditions [B, ...] beside labels, see `model.cond`. An upsampler's
        `low_res` has noise of `level` [] already.

    Raises:
      UserError: The model has no denoiser, or no such option.
    """
    model = self._diffuser("denoiser")
    if by not in LEVELS:
      raise UserError(f"by={by}: want one of {', '.join(LEVELS)}")
    knobs, conditions = self._options(model, options)
    state = self._state(params)

    def at(x_t: Array, t: Noise) -> Any:
      batch = {"x": x_t} | {k: _rows(v, len(x_t)) for k, v in conditions.items()}
      batch |= self._label(labels, len(x_t), trait(model, "classes"), trait(model, "free"))
      return _denoise(model, state, batch, knobs)(x_t, t)

    return at if by == "noise" else _with_levels(at, self.process, by)

  def path(self, **knobs: float) -> Noise:
    """Noise levels that the model's sampler visits, arrays [steps] from the noisiest on.

    With `denoiser(by="noise")` and `len(path.t)` what the house's samplers take.

    Args:
      **knobs: `steps`, and those of the path, see `model.knobs`.
    """
    model = self._plain(self._diffuser("path"))
    knobs = model.knobs | knobs
    points, n = model.path_points(knobs | {"steps": int(knobs["steps"])})
    return jax.tree.map(lambda a: a[:n], points)

  def generator(
    self,
    z: Array,
    labels: Labels = None,
    *,
    key: int | Key | None = None,
    params: Params | None = None,
    **options: Any,
  ) -> Array:
    """A GAN's generator: z ~ N(0, 1), float32 [B, Z] -> x float32 [B, *shape].

    Of a vocoder z are spectrograms [B, frames, mels]. A denoising diffusion GAN
    takes `x_t` [B, *shape], with noise of t + 1 steps, and `t`, int [] or [B],
    too, and guesses x_0.

    Args:
      z: See above; Z is `noise_shape[0]`.
      labels: One for all, or one each; or weights of classes, float32 [B, classes].
      key: Of noise inside the net, a key or seed, or keys [B]; None: without.
      params: In place of the model's weights.
      **options: The generator's knobs, such as psi.
    """
    model, z = self.model, jnp.asarray(z)
    if not isinstance(model, GAN | DenoisingGAN | VocoderGAN):
      raise self._lacks("generator")
    state = self._state(params)
    if isinstance(model, VocoderGAN):
      return model.gen.apply(state.variables("gen"), z)
    y = self._label(labels, len(z), trait(model, "classes"))
    if isinstance(model, DenoisingGAN):
      x_t, t = (self._take(options, name, "generator") for name in ("x_t", "t"))
      return model.G(state, y)(x_t, jnp.broadcast_to(t, (len(z),)), z)
    self._check_names(options, trait(model.gen, "knobs"), "generator")
    return model.gen.apply(state.variables("gen"), z, **y, **self._noise(key, len(z)), **options)

  def mapping(
    self, z: Array, labels: Labels = None, *, params: Params | None = None, **options: Any
  ) -> Array:
    """A style generator's first half: z [B, Z] -> styles w [B, layers, D]."""
    gan, y = self._check_styles(), self._label(labels, len(z), self.model.classes)
    self._check_names(options, trait(gan.gen, "knobs"), "mapping")
    variables = self._state(params).variables("gen")
    return gan.gen.apply(variables, z, method="map", **y, **options)

  def synthesis(
    self, w: Array, *, key: int | Key | None = None, params: Params | None = None
  ) -> Array:
    """A style generator's second half: w [B, layers, D] -> x [B, *shape]."""
    gan, variables = self._check_styles(), self._state(params).variables("gen")
    return gan.gen.apply(variables, w, method="synthesize", **self._noise(key, len(w)))

  def discriminator(
    self, x: Array, labels: Labels = None, *, params: Params | None = None, **options: Any
  ) -> Any:
    """Logits [B] of x [B, *shape], high for what it takes for real.

    Of patches [B, h, w], where it judges these; a list of them, where there are
    several discriminators. As it is by now, not averaged, without augmentation
    and with fixed statistics; one with minibatch deviation compares x of a
    batch. Of a denoising diffusion GAN x is x_t, and `x_next` [B, *shape], with
    one step of noise more, and `t`, int [] or [B], are told, too.

    Args:
      x: float32 in [-1, 1], or the data's own.
      labels: As in `generator`.
      params: In place of the model's weights, with a group "disc", see `variables`.
      **options: See above.
    """
    model, x = self.model, self._as_input(x)
    if trait(model, "disc") is None:
      raise self._lacks("discriminator")
    variables = self._disc(params)
    if isinstance(model, VocoderGAN):
      return model.disc.apply(variables, x)[0]
    y = self._label(labels, len(x), trait(model, "classes"))
    if isinstance(model, DenoisingGAN):
      x_next, t = (self._take(options, name, "discriminator") for name in ("x_next", "t"))
      return model.disc.apply(variables, x, jnp.broadcast_to(t, (len(x),)), x_next, **y)
    self._check_names(options, {}, "discriminator")
    return model.disc.apply(variables, x, **({} if isinstance(model, Autoencoder) else y))

  def features(self, x: Array, labels: Labels = None, *, params: Params | None = None) -> Array:
    """What a GAN's discriminator has of x before its last layer, [B, D]."""
    gan = self._check_gan("features")
    if not trait(gan.disc, "embed"):
      raise UserError(f"{type(gan.disc).__name__} has no `embed`: it tells no features")
    x = self._as_input(x)
    y = self._label(labels, len(x), gan.classes)
    return gan.disc.apply(self._disc(params), x, method="embed", **y)

  def encode(
    self,
    x: Array,
    labels: Labels = None,
    *,
    key: int | Key | None = None,
    params: Params | None = None,
  ) -> Any:
    """A codec's latents of x: [B, *latent_shape], or a dict of them.

    Of a VAE z [B, Z]; of an autoencoder [B, h, w, C]; codes, int32 {"top":
    [B, h, w], ..} of VQ-VAE-2. A model of latents gives them as it learns them
    and its `denoiser` sees them: shifted and scaled to about unit variance.

    Args:
      x: [B, *shape], float32 in [-1, 1], or the data's own.
      labels: As in `generator`, where the codec reads them (a VAE's may).
      key: A key or seed, or keys [B]: a sample of q(z | x); None: its mode.
      params: In place of the model's weights.

    Raises:
      UserError: The model has no encoder.
    """
    codec = self._check_codec("encode")
    x = self._as_input(x)
    y = self._codec_label(labels, len(x))
    state, keys = self._state(params), keys_of(key, len(x))
    if isinstance(self.model, Latent):
      batch = {"x": x} | ({} if y is None else {"y": y})
      return self.model.scaled(state, self.model.latents_of(state, batch, keys))
    return codec.encode(state, x, keys, y)

  def decode(self, z: Any, labels: Labels = None, *, params: Params | None = None) -> Array:
    """Latents, as `encode` gives them -> x float32 [B, *shape], about in [-1, 1]."""
    codec = self._check_codec("decode")
    n = len(jax.tree.leaves(z)[0])
    y = self._codec_label(labels, n)
    if isinstance(self.model, Latent):
      return self.model.images(self._state(params), z, y)
    return codec.decode(self._state(params), z, y)

  def sample_fn(self, batch: int, **knobs: float) -> Callable[..., Array]:
    """A pure function (params, key, conditions) -> x, float32 [batch, *shape] in [-1, 1].

    For `jit`, `vmap` (over keys, say), `grad` and `jax.export`. Its i-th sample
    is the i-th of `sample(key, batch)`, before it is rounded by `as_data`.

      params      shaped like `m.params`
      key         a key [], or keys [batch], one for each sample
      conditions  {} or what `sample` takes beside: "labels", int32 [batch]
                  (default: every class in turn); "noise", float32 [batch,
                  *noise_shape]; conditions of the model; "i", int32 [batch],
                  numbers of the samples in place of 0 .. batch - 1; and knobs,
                  as scalars that go before those of this call

    Knobs of this call are constants, so that `steps` among them makes a loop of
    known length, which `grad` wants. Knobs among the conditions are traced:
    turning them compiles nothing, but reverse-mode differentiation then refuses
    `steps` (`jax.jvp` does not).

    Args:
      batch: Number of samples at once.
      **knobs: As in `sample`; defaults: the model's own.
    """
    if batch < 1:
      raise UserError(f"batch={batch}: want at least 1")
    fixed = self.settings(knobs)
    fixed |= {k: int(v) for k, v in fixed.items() if k.partition("_")[0] == "steps"}
    names = set(trait(self.model, "cond"))

    def sample(params: Params, key: Key, conditions: Mapping[str, Any] | None = None) -> Array:
      options = dict(conditions or {})
      i = jnp.asarray(options.pop("i", jnp.arange(batch)), jnp.int32)
      labels = options.pop("labels", i % self.classes if self.classes else None)
      inputs = {k: options.pop(k) for k in names & set(options)}
      if jnp.ndim(options.get("noise", 0)):
        inputs["noise"] = options.pop("noise")
      self._check_names(options, fixed, "sampler")
      x = {"x": jnp.zeros((batch, *self.shape))} | self._label(labels, batch, self.classes, True)
      x |= core.on_device({k: _rows(v, batch) for k, v in inputs.items()})
      keys = key_of(key)
      keys = keys if jnp.ndim(keys) else fold(jnp.broadcast_to(keys, i.shape), i)
      return self.model.sample(state_of(params), x, keys, **fixed | options)

    return sample

  @property
  def _inner(self) -> core.Model:
    """What learns: of latents, the model of these."""
    return self.model.model if isinstance(self.model, Latent) else self.model

  @property
  def _codec_labels(self) -> int:
    """Number of labels that the codec reads."""
    codec = self.model.codec if isinstance(self.model, Latent) else self.model
    return trait(codec, "classes") if trait(codec, "decode") else 0

  def _plain(self, model: Any) -> Diffusion:
    """A diffusion model without its guide."""
    return model.diffusion if isinstance(model, Guided) else model

  def _state(self, params: Params | None) -> core.State:
    return self.state if params is None else state_of(params)

  def _disc(self, params: Params | None) -> dict[str, Any]:
    """The discriminator's variables."""
    if params is None:
      return self.variables("disc")
    if "disc" not in params:
      raise UserError('params has no group "disc": give m.params | {"disc": m.variables("disc")}')
    return params["disc"]

  def _read(self, group: str) -> dict[str, Any]:
    """A group from the checkpoint that the rest is from."""
    workdir = self.card.get("workdir")
    if workdir is None or isinstance(self.model, Cascade):
      raise UserError(f"this model has no group {group!r}" + nearest(group, self.params))

    def leaves(meta: dict[str, Any]) -> dict[str, Any]:
      tree = restore.abstract_leaves(meta, [f"params/{group}", f"stats/{group}"])
      if group not in tree.get("params", {}):
        raise UserError(f"{workdir} has no weights of a group {group!r}")
      return tree

    _, tree, _ = restore.restore_subset(workdir, leaves, self.card["step"])
    return {"params": tree["params"][group], **tree.get("stats", {}).get(group, {})}

  def _lacks(self, what: str, hint: str = "") -> UserError:
    name = type(self.model).__name__
    article = "an" if name[0] in "AEIO" else "a"
    return UserError(f"{article} {name} has no {what}{hint}")

  def _hint_of_nets(self) -> str:
    if isinstance(self.model, Cascade):
      return " of its own: look at m.stages[0].net and so on"
    return ": look at m.model.gen and m.model.disc" if trait(self._inner, "gen") else ""

  def _diffuser(self, what: str) -> Any:
    """The diffusion model, guided or not; UserError for others."""
    model = self._inner
    if isinstance(model, Diffusion | Guided | MeanFlow):
      return model
    hint = ""
    if isinstance(model, Cascade):
      hint = f" of its own: each stage has one, m.stages[0].{what}"
    elif isinstance(model, DenoisingGAN):
      hint = ", for its guess of x_0 depends on z: take m.generator"
    raise self._lacks(what, hint)

  def _check_gan(self, what: str) -> GAN:
    if not isinstance(self.model, GAN):
      raise self._lacks(what)
    return self.model

  def _check_styles(self) -> GAN:
    gan = self._check_gan("mapping")
    if not trait(gan.gen, "map"):
      raise UserError(f"{type(gan.gen).__name__} has no `map`: it takes z, and no styles")
    return gan

  def _check_codec(self, what: str) -> Any:
    codec = self.model.codec if isinstance(self.model, Latent) else self.model
    if trait(codec, what) is None:
      hint = ""
      if isinstance(codec, GAN):
        hint = ": jaxgen.sampling.projection finds latents of images"
      elif isinstance(codec, Diffusion | Guided | MeanFlow):
        hint = ": it has no latents but x itself"
      raise self._lacks(f"`{what}`", hint)
    return codec

  def _check_names(self, options: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    """UserError for an option that is not known."""
    for name in options:
      if name not in known:
        hint = nearest(name, known) if known else ": it takes none"
        raise UserError(f"the {what} has no option {name!r}{hint}")

  def _take(self, options: Mapping[str, Any], name: str, what: str) -> Array:
    if name not in options:
      raise UserError(f"the {what} of a {type(self.model).__name__} takes {name}, too: give it")
    return jnp.asarray(options[name])

  def _options(self, model: Any, options: Mapping[str, Any]) -> tuple[dict, dict]:
    """Of a denoiser: all knobs that it reads, and its conditions beside labels."""
    names = set(trait(model, "cond"))
    for name in sorted(names - set(options)):
      raise UserError(f"this model makes x from {name}: give it")
    conditions = core.on_device({k: jnp.asarray(options[k]) for k in names})
    knobs = {k: v for k, v in options.items() if k not in names}
    if trait(self._plain(model), "augment"):
      conditions["level"] = jnp.asarray(knobs.pop("level", 0.0), jnp.float32)
    known = {k: v for k, v in model.knobs.items() if k in GUIDING or k in _of_guide(model)}
    self._check_names(knobs, known, "denoiser")
    return known | knobs, conditions

  def _label(self, labels: Labels, n: int, classes: int, free: bool = False) -> dict[str, Array]:
    """{"y": [n]} for a model with classes; UserError for labels it cannot take."""
    if not classes:
      if labels is not None:
        raise UserError("this model was trained without labels")
      return {}
    if labels is None:
      if not free:
        raise UserError(f"this model knows {classes} classes: give labels")
      return {"y": jnp.full(n, -1)}
    y = jnp.asarray(labels if isinstance(labels, jax.Array) else np.asarray(self.numbers(labels)))
    if y.ndim > 1:  # weights of classes
      return {"y": y}
    if y.ndim and len(y) != n:
      raise UserError(f"{len(y)} labels for {n} examples: give one for all, or one each")
    if not isinstance(y, jax.core.Tracer):
      least = -1 if free else 0
      for label in np.ravel(y).tolist():
        if not least <= label < classes:
          raise UserError(f"labels run from 0 to {classes - 1}, got {label}")
    return {"y": jnp.broadcast_to(y.astype(jnp.int32), (n,))}

  def _codec_label(self, labels: Labels, n: int) -> Array | None:
    """Labels [n] where the codec reads them; else None, whatever they are."""
    own = self._codec_labels
    return self._label(labels, n, own)["y"] if own else None

  def _noise(self, key: int | Key | None, n: int) -> dict[str, Key]:
    """Keys of noise within the generator, where one is given and taken."""
    return {} if key is None else noise_keys(self.model.gen, keys_of(key, n))

  def _as_input(self, x: Array) -> Array:
    """x float32 in [-1, 1] of this model's shape; UserError for another one."""
    x = jnp.asarray(x)
    if x.shape[1:] != self.shape or x.dtype != self.dtype and x.dtype not in FLOATS:
      raise UserError(
        f"x is {x.dtype} {list(x.shape)}: want [n, {', '.join(map(str, self.shape))}], "
        f"float32 in [-1, 1]" + f" or {self.dtype}" * (self.dtype != np.float32)
      )
    return core.on_device({"x": x})["x"].astype(jnp.float32)


FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16)
GUIDING = ("guidance", "lo", "hi", "scale", "auto", "omega", "t_min", "t_max")


def _of_guide(model: Any) -> Mapping[str, float]:
  """Knobs of the rule of guidance of a diffusion model."""
  plain = model.diffusion if isinstance(model, Guided) else model
  return traits(plain.guide).knobs if isinstance(plain, Diffusion) else {}


def _rows(value: Array, n: int) -> Array:
  """A condition for n examples: as it is, or one for all."""
  value = jnp.asarray(value)
  if value.ndim and len(value) == n:
    return value
  return jnp.broadcast_to(value[0] if value.ndim else value, (n, *value.shape[1:]))


def _denoise(model: Any, state: core.State, batch: core.Batch, knobs: Mapping[str, Any]) -> Denoise:
  """The house's own denoiser, for one batch."""
  if isinstance(model, MeanFlow):
    return model.denoiser(state, batch, **knobs)
  return model.guided(state, batch, knobs)


def _with_levels(at: Denoise, process: Callable, by: str) -> Callable[[Array, Any], Array]:
  """(x_t, level) -> x_0, with levels as `Surface.denoiser` says."""

  def denoise(x_t: Array, level: Any) -> Array:
    x_t, level = jnp.asarray(x_t, jnp.float32), jnp.asarray(level, jnp.float32)
    if level.ndim:
      level = level.reshape(-1, *[1] * (x_t.ndim - 1))
    if by == "t":
      return mean(at(x_t, process(level)))
    t = process(process.inverse(-2 * jnp.log(level)))
    return mean(at(t.alpha * x_t, t))

  return denoise
