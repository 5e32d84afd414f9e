"""Models of latents: any model, over what a frozen codec writes of x.

With `models.diffusion` inside, latent diffusion (Rombach et al. 2022, Sec. 3.2).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import Array, Batch, Codec, Groups, Key, Loss, Metrics, Model, Player, State, trait
from jaxgen.errors import UserError
from jaxgen.keys import fold, normal

ENCODE = 1000  # of keys: no model folds this number into its own


@dataclasses.dataclass(frozen=True)
class Latent:
  """A model whose x are the latents of a codec that was trained before.

  The codec is the frozen group "codec": its averaged weights are read from its
  workdir before the first step, and are in every checkpoint. So neither a
  resumed training nor a sampler looks for that workdir. Batches of images are
  encoded within the train step; of latents that were written before ("z", see
  `write`) samples are drawn. Labels and conditions pass through as they are, and
  conditions that are made from x are made from the images.

  Where latents are numbers, the model sees scale * (z - mean), and what it samples
  is taken back before it is decoded. Codes are not scaled.

  Attributes:
    codec: Writes latents, see `core.Codec`. Of its config, what encode and
      decode read has to be as it was trained; losses do not matter.
    model: What learns them. Its groups, knobs and nfe are those of the whole.
    codec_workdir: Where the codec was trained.
    scale: None: 1 / std of z, over all its numbers, in the first batches; fixed
      from the first step on. (LDM's `scale_by_std` looks at one batch.) Of all
      channels, or a tuple of each one's.
    mean: Likewise.
    mode: Learn the mode of q(z | x), in place of samples of it.
  """

  codec: Codec
  model: Model
  codec_workdir: str = ""
  scale: float | Sequence[float] | None = None
  mode: bool = False
  mean: float | Sequence[float] = 0.0

  def __post_init__(self):
    if trait(self.codec, "encode") is None or trait(self.codec, "decode") is None:
      raise UserError(
        f"config.model.codec is a {type(self.codec).__name__}, which is no codec: want a model "
        "that encodes and decodes, such as models.vae.VAE"
      )
    ours, theirs = trait(self.codec, "classes"), trait(self.model, "classes")
    if ours and ours != theirs:
      raise UserError(
        f"config.model.codec.classes={ours}, but config.model.model.classes={theirs}: the codec "
        "decodes by the label, so make them equal"
      )

    if trait(self.model, "teacher"):
      raise UserError(
        "config.model.model.teacher: a model of latents takes no teacher yet, whose weights would "
        "not be read; train it without one"
      )

  @property
  def players(self) -> Sequence[Player]:
    """Those of the model, who see latents."""
    return tuple(p._replace(loss=functools.partial(self.loss, p.loss)) for p in self.model.players)

  @property
  def sampled(self) -> tuple[str, ...]:
    """Groups of the model, and the codec."""
    return (*self.model.sampled, "codec")

  @property
  def knobs(self) -> dict[str, float]:
    """Those of the model."""
    return self.model.knobs

  @property
  def expand(self) -> Callable | None:
    """That of the model."""
    return trait(self.model, "expand")

  @property
  def free(self) -> bool:
    """Whether model and codec can do without a label."""
    return trait(self.model, "free") and not trait(self.codec, "classes")

  @property
  def cond(self) -> Mapping[str, Callable | None]:
    """Conditions of the model; they are made from images."""
    return trait(self.model, "cond")

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats. The codec is as before its own training."""
    k_codec, k_model = jax.random.split(key)
    params, stats = self.codec.init(batch, k_codec)
    params = {g: params[g] for g in self.codec.sampled}
    stats = {g: stats[g] for g in self.codec.sampled if stats.get(g)}
    if self.scale is None:
      stats["latents"] = {"mean": jnp.float32(0), "var": jnp.float32(1), "batches": jnp.int32(0)}
    codec = State(jnp.int32(0), {"codec": params}, {"codec": stats}, {}, {}, jnp.zeros(2))
    own = self.model.init(self.blank(codec, batch), k_model)
    return own[0] | {"codec": params}, own[1] | {"codec": stats}

  def loss(
    self, inner: Loss, state: State, batch: Batch, key: Key
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """The loss of one of the model's players, of the latents of a batch."""
    return inner(state, self.encoded(state, batch, key), key)

  def encoded(self, state: State, batch: Batch, key: Key) -> Batch:
    """A batch as the model sees it; keys [B]."""
    z = self.scaled(state, self.latents_of(state, batch, key))
    rest = {k: v for k, v in self.conditioned(batch).items() if k != "z"}
    return rest | {"x": z}

  def scaled(self, state: State, z: Any) -> Any:
    """Latents of the codec as the model sees them; codes stay."""
    factor = self.factor(state)
    return jax.tree.map(lambda z: factor * self.shifted(z, -1) if is_number(z) else z, z)

  def images(self, state: State, z: Any, y: Array | None = None) -> Array:
    """Latents as the model sees them -> x in [-1, 1] or a little beyond."""
    factor = self.factor(state)
    z = jax.tree.map(lambda z: self.shifted(z / factor, 1) if is_number(z) else z, z)
    return self.codec.decode(codec_state(state), z, y)

  def latents_of(self, state: State, batch: Batch, key: Key | None = None) -> Any:
    """The latents of a batch, not scaled: float32, or codes.

    With keys [B], and unless `mode` is set, samples of them.
    """
    key = None if self.mode or key is None else fold(key, ENCODE)
    if "z" in batch:
      z = read(batch["z"], key)
    else:
      z = self.codec.encode(codec_state(state), batch["x"], key, batch.get("y"))
    return jax.tree.map(lambda z: z.astype(jnp.float32 if is_number(z) else jnp.int32), z)

  def stored(self, state: State, batch: Batch) -> dict[str, Array]:
    """What is stored of a batch of images, see `write`."""
    return write(self.codec, codec_state(state), batch["x"], batch.get("y"))

  def conditioned(self, batch: Batch) -> Batch:
    """The batch with what the model is conditioned on beside labels."""
    absent = {k: make for k, make in self.cond.items() if make and k not in batch}
    return batch | {k: make(batch["x"]) for k, make in absent.items()}

  def blank(self, state: State, batch: Batch) -> Batch:
    """The batch with zeros for x, shaped like its latents."""
    latents = jax.eval_shape(lambda x: self.latents_of(state, batch | {"x": x}), batch["x"])
    zeros = jax.tree.map(lambda z: jnp.zeros(z.shape, z.dtype), latents)
    return self.conditioned(batch) | {"x": zeros}

  def factor(self, state: State) -> Array | float:
    """The scale: by how much z is multiplied; [channels] where that differs."""
    if self.scale is not None:
      return jnp.float32(self.scale) if isinstance(self.scale, tuple) else self.scale
    return jax.lax.rsqrt(jnp.maximum(state.stats["codec"]["latents"]["var"], 1e-12))

  def shifted(self, z: Array, sign: int) -> Array:
    """z + sign * mean; z itself, where the mean is zero."""
    return z + sign * jnp.float32(self.mean) if np.any(self.mean) else z

  @property
  def measure(self) -> Callable[[State, Batch, Key], Groups] | None:
    """Of what looks at data before the first step, see `moments`."""
    return self.moments if self.scale is None else None

  def moments(self, state: State, batch: Batch, key: Key) -> Groups:
    """Stats in which mean and variance of z are also those of this batch.

    All batches count alike; keys [B].
    """
    latents = jax.tree.leaves(self.latents_of(state, batch, key))
    numbers = [jnp.ravel(z) for z in latents if is_number(z)]
    if not numbers:
      return state.stats
    z = jnp.concatenate(numbers)
    own = state.stats["codec"]["latents"]
    n, gap = own["batches"] + 1, jnp.mean(z) - own["mean"]
    share = 1 / n
    latents = {
      "mean": own["mean"] + share * gap,
      "var": (1 - share) * own["var"] + share * jnp.var(z) + share * (1 - share) * gap**2,
      "batches": n,
    }
    return state.stats | {"codec": state.stats["codec"] | {"latents": latents}}

  def sample(self, state: State, batch: Batch, key: Key, **knobs: Array | float) -> Array:
    """Keys [B] -> x in [-1, 1] or a little beyond: a sample of the model, decoded.

    A batch with "noise" ~ N(0, 1), shaped like latents, begins there.
    """
    z = self.model.sample(state, self.blank(state, batch), key, **knobs)
    return self.images(state, z, batch.get("y"))

  def nfe(self, **knobs) -> int:
    """That of the model: the decoder's one pass is not counted."""
    return self.model.nfe(**knobs)

  @property
  def probe(self) -> Callable | None:
    """That of the model, which sees latents."""
    return self.probe_latents if trait(self.model, "probe") else None

  def probe_latents(self, state: State, batch: Batch, held: Batch, key: Key) -> Metrics:
    """What the model says of itself beside latents of held data; keys [B]."""
    batch, held = (self.encoded(state, b, key) for b in (batch, held))
    return self.model.probe(state, batch, held, key)


def write(codec: Codec, state: State, x: Array, y: Array | None = None) -> dict[str, Array]:
  """Of images, what is stored of their latents: arrays by name.

  The moments of q(z | x) as "mean" and "std", where it is a Gaussian; else "z",
  or an array for each level of codes.
  """
  if moments := trait(codec, "moments"):
    return dict(zip(("mean", "std"), moments(state, x, y), strict=True))
  z = codec.encode(state, x, None, y)
  return z if isinstance(z, dict) else {"z": z}


def row_dtype(z: Any, dtype: str = "float16") -> str:
  """Of what is stored of an array that `write` writes: `dtype`, of codes "uint16"."""
  return dtype if is_number(z) else "uint16"


def read(z: dict[str, Array], key: Key | None = None) -> Any:
  """Latents of what `write` wrote: with keys [B] samples, where there are moments."""
  if "std" not in z:
    return z.get("z", z)
  mean, std = (z[name].astype(jnp.float32) for name in ("mean", "std"))
  return mean if key is None else mean + std * normal(key, mean.shape[1:])


def codec_state(state: State) -> State:
  """The codec's part of a state, under its own names."""
  return state.replace(params=state.params["codec"], stats=state.stats["codec"])


def is_number(z: Array) -> bool:
  """Whether latents are numbers; else they are codes."""
  return jnp.issubdtype(z.dtype, jnp.floating)
