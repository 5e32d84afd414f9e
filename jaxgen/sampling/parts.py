"""What a trained model is made of: weights, nets, noise; and what it lacks.

`Parts` is what `surface.Surface`, and so a `Sampler`, rests on.
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
from jaxgen.diffusion.process import Flow
from jaxgen.errors import UserError, nearest
from jaxgen.keys import example_keys
from jaxgen.models.anogan_encoder import AnoGANEncoder
from jaxgen.models.cascade import Cascade, stage_state
from jaxgen.models.codec import KL, Autoencoder
from jaxgen.models.control_encoder import ControlEncoder
from jaxgen.models.denoising_gan import DenoisingGAN
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.gan import GAN
from jaxgen.models.guided import Guided
from jaxgen.models.latent import Latent
from jaxgen.models.mean_flow import MeanFlow
from jaxgen.models.vae import VAE
from jaxgen.sampling.trained import sampling_state

Params = dict[str, dict[str, Any]]  # group -> linen's variables
Labels = Any  # None, a class, or one for each example; names or (traced) numbers
FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16)


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


class Parts:
  """A model with its weights, as those see it who build on it."""

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
  def stages(self) -> tuple["Parts", ...]:
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

  @property
  def noise_shape(self) -> tuple[int, ...] | None:
    """Shape of the `noise` that one sample begins with; None where there is none.

    Of diffusion models that of x_T (of latents: of these), of GANs and VAEs
    that of z.
    """
    latent = isinstance(self.model, Latent)
    model = self._inner if latent else self._game
    if isinstance(model, GAN):
      return (model.z_dim,)
    if isinstance(model, VAE):
      return (model.net.z_dim,)
    if isinstance(model, Autoencoder) and isinstance(model.latents, KL):
      return self.latent_shape
    if not isinstance(model, Diffusion | Guided | MeanFlow | DenoisingGAN | Cascade):
      return None
    return self.latent_shape if latent else self.shape

  def check_noise(self, shape: tuple[int, ...]) -> None:
    """UserError for an array of noise that samples cannot begin with."""
    if (want := self.noise_shape) is None:
      raise self._lacks("noise to begin with: leave it")
    if shape[1:] != want or not shape[0]:
      raise UserError(f"noise is {list(shape)}: want [n, {', '.join(map(str, want))}]")

  def as_data(self, x: Array) -> Array:
    """x in [-1, 1] -> the data's own: uint8 images, int16 sound, float32 points."""
    return core.as_data(x, self.dtype)

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

  def _disc(self, params: Params | None, group: str = "disc") -> dict[str, Any]:
    """The discriminator's variables."""
    if params is None:
      return self.variables(group)
    if group not in params:
      more = f'{{"{group}": m.variables("{group}")}}'
      raise UserError(f'params has no group "{group}": give m.params | {more}')
    return params[group]

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

  @property
  def _game(self) -> Any:
    """The model, or the GAN for which it learns an encoder."""
    if isinstance(self.model, AnoGANEncoder):
      return self.model.gan
    return self.model.generator if isinstance(self.model, ControlEncoder) else self.model

  def _check_gan(self, what: str) -> GAN:
    if not isinstance(self._game, GAN):
      raise self._lacks(what)
    return self._game

  def _check_styles(self) -> GAN:
    gan = self._check_gan("mapping")
    if not trait(gan.gen, "map"):
      raise UserError(f"{type(gan.gen).__name__} has no `map`: it takes z, and no styles")
    return gan

  def _check_codec(self, what: str) -> Any:
    codec = self.model.codec if isinstance(self.model, Latent) else self.model
    if trait(codec, "encode") is None or trait(codec, "decode") is None:
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

  def _as_input(self, x: Array) -> Array:
    """x float32 in [-1, 1] of this model's shape; UserError for another one."""
    x = jnp.asarray(x)
    if x.shape[1:] != self.shape or x.dtype != self.dtype and x.dtype not in FLOATS:
      raise UserError(
        f"x is {x.dtype} {list(x.shape)}: want [n, {', '.join(map(str, self.shape))}], "
        f"float32 in [-1, 1]" + f" or {self.dtype}" * (self.dtype != np.float32)
      )
    return core.on_device({"x": x})["x"].astype(jnp.float32)
