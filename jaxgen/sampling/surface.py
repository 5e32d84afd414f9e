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

import jax
import jax.numpy as jnp

from jaxgen import core
from jaxgen.core import Array, Key, trait
from jaxgen.diffusion.denoiser import Denoise, mean
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError
from jaxgen.keys import fold
from jaxgen.models.anogan_encoder import critic
from jaxgen.models.codec import Autoencoder
from jaxgen.models.cycle_gan import CycleGAN
from jaxgen.models.denoising_gan import DenoisingGAN
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.gan import GAN, noise_keys
from jaxgen.models.guided import Guided
from jaxgen.models.latent import Latent
from jaxgen.models.mean_flow import MeanFlow
from jaxgen.models.palette import Palette
from jaxgen.models.pix2pix import Pix2Pix
from jaxgen.models.vocoder_gan import VocoderGAN
from jaxgen.sampling.parts import Labels, Params, Parts, key_of, keys_of, state_of

LEVELS = ("sigma", "t", "noise")
GUIDING = ("guidance", "lo", "hi", "scale", "auto", "omega", "t_min", "t_max")


class Surface(Parts):
  """What a `Sampler` offers to those who build on a model; see above."""

  @functools.cached_property
  def latent_shape(self) -> Any:
    """Shape of one example's latents, or a dict of them (VQ-VAE-2); see `encode`."""
    x = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
    y = jax.ShapeDtypeStruct((1,), jnp.int32) if self._codec_labels else None
    z = jax.eval_shape(lambda p, x, y: self.encode(x, y, params=p), self.params, x, y)
    return jax.tree.map(lambda z: z.shape[1:], z)

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
        `low_res` has noise of `level` [] already, and Palette's `source` has it
        in its hole, outside of which D keeps what is known.

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

    Of a vocoder z are spectrograms [B, frames, mels]; of translators sources [B,
    H, W, C], bytes or float32. A denoising diffusion GAN takes `x_t` [B, *shape],
    with noise of t + 1 steps, and `t`, int [] or [B], too, and guesses x_0.

    Args:
      z: See above; Z is `noise_shape[0]`.
      labels: One for all, or one each; or weights of classes, float32 [B, classes].
      key: Of noise inside the net, a key or seed, or keys [B]; None: without.
      params: In place of the model's weights.
      **options: The generator's knobs, such as psi.
    """
    model, z, keys = self._game, jnp.asarray(z), keys_of(key, len(z))
    if not isinstance(model, GAN | DenoisingGAN | VocoderGAN | Pix2Pix | CycleGAN):
      raise self._lacks("generator")
    state = self._state(params)
    if isinstance(model, VocoderGAN):
      return model.gen.apply(state.variables("gen"), z)
    if isinstance(model, Pix2Pix | CycleGAN):
      self._check_names(options, model.knobs, "generator")
      source = core.on_device({"x": z})["x"]
      return model.sample(state, {"x": source, "source": source}, keys, **options)
    y = self._label(labels, len(z), trait(model, "classes"))
    if isinstance(model, DenoisingGAN):
      x_t, t = (self._take(options, name, "generator") for name in ("x_t", "t"))
      return model.G(state, y)(x_t, jnp.broadcast_to(t, (len(z),)), z)
    self._check_names(options, trait(model.gen, "knobs"), "generator")
    noise = {} if keys is None else noise_keys(model.gen, keys)
    return model.gen.apply(state.variables("gen"), z, **y, **noise, **options)

  def mapping(
    self, z: Array, labels: Labels = None, *, params: Params | None = None, **options: Any
  ) -> Array:
    """A style generator's first half: z [B, Z] -> styles w [B, layers, D]."""
    gan = self._check_styles()
    y = self._label(labels, len(z), gan.classes)
    self._check_names(options, trait(gan.gen, "knobs"), "mapping")
    variables = self._state(params).variables("gen")
    return gan.gen.apply(variables, z, method="map", **y, **options)

  def synthesis(
    self, w: Array, *, key: int | Key | None = None, params: Params | None = None
  ) -> Array:
    """A style generator's second half: w [B, layers, D] -> x [B, *shape]."""
    gan, variables = self._check_styles(), self._state(params).variables("gen")
    noise = {} if key is None else noise_keys(gan.gen, keys_of(key, len(w)))
    return gan.gen.apply(variables, w, method="synthesize", **noise)

  def discriminator(
    self, x: Array, labels: Labels = None, *, params: Params | None = None, **options: Any
  ) -> Any:
    """Logits [B] of x [B, *shape], high for what it takes for real.

    Of patches [B, h, w], where it judges these; a list of them, where there are
    several discriminators. As it is by now, not averaged, without augmentation
    and with fixed statistics; one with minibatch deviation compares x of a
    batch. Some are told more, by options:

      denoising diffusion GANs   x is x_t; `x_next` [B, *shape], with one step of
                                 noise more, and `t`, int [] or [B]
      pix2pix                    `source` [B, H, W, C'], as x, if it looks at pairs
      CycleGAN                   `kind`, "b" or "a": which discriminator; default: "b"

    Args:
      x: float32 in [-1, 1], or the data's own.
      labels: As in `generator`.
      params: In place of the model's weights, with a group "disc", see `variables`.
      **options: See above.
    """
    model, x = self._game, self._as_input(x)
    if trait(model, "disc") is None:
      raise self._lacks("discriminator")
    if isinstance(model, CycleGAN):
      if (kind := options.pop("kind", "b")) not in ("a", "b"):
        raise UserError(f"kind={kind}: want a or b")
      self._check_names(options, {}, "discriminator")
      return model.disc.apply(self._disc(params, f"disc_{kind}"), x)
    variables = self._disc(params)
    if isinstance(model, VocoderGAN):
      return model.disc.apply(variables, x)[0]
    if isinstance(model, Pix2Pix):
      source = self._take(options, "source", "discriminator") if model.sees_source else x
      return model.disc.apply(variables, model.pair(core.on_device({"x": source})["x"], x))
    y = self._label(labels, len(x), trait(model, "classes"))
    if isinstance(model, DenoisingGAN):
      x_next, t = (self._take(options, name, "discriminator") for name in ("x_next", "t"))
      return model.disc.apply(variables, x, jnp.broadcast_to(t, (len(x),)), x_next, **y)
    self._check_names(options, {}, "discriminator")
    return model.disc.apply(variables, x, **({} if isinstance(model, Autoencoder) else y))

  def features(self, x: Array, labels: Labels = None, *, params: Params | None = None) -> Array:
    """What a GAN's discriminator has of x before its last layer, [B, D]."""
    gan, x = self._check_gan("features"), self._as_input(x)
    y = self._label(labels, len(x), gan.classes).get("y")
    disc = state_of({"disc": self._disc(params)})
    return critic(gan, disc, y)(x)

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
        self.check_noise(jnp.shape(options["noise"]))
        inputs["noise"] = options.pop("noise")
      self._check_names(options, fixed, "sampler")
      x = {"x": jnp.zeros((batch, *self.shape))} | self._label(labels, batch, self.classes, True)
      x |= core.on_device({k: _rows(v, batch) for k, v in inputs.items()})
      keys = key_of(key)
      keys = keys if jnp.ndim(keys) else fold(jnp.broadcast_to(keys, i.shape), i)
      return self.model.sample(state_of(params), x, keys, **fixed | options)

    return sample

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
  D = model.guided(state, batch, knobs)
  if isinstance(model, Palette) and model.hole is not None:
    keep = (batch["keep"] > 0).astype(jnp.float32)
    return model.within(D, batch["source"], keep, jnp.inf)
  return D


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
