"""One program for an edit: images in, images out, whatever the knobs and the image."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, sharding
from jaxgen.core import Array, State, trait
from jaxgen.diffusion import linear
from jaxgen.diffusion.linear import Linear
from jaxgen.errors import UserError, guarding, refusing
from jaxgen.keys import fold
from jaxgen.models.consistency import Consistency
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.guided import Guided
from jaxgen.models.latent import Latent
from jaxgen.sampling.sampler import Labels, Sampler, key_of
from jaxgen.tasks.edit_methods import LINEAR, Method, Scene, Side, method_of, own_knobs

Rows = Mapping[str, np.ndarray]
# Arguments of `load` that are flags of an edit.
LOAD = ("ema", "step", "sampler", "respacing", "classifier", "guide_ema", "guide_step")


class Operator(NamedTuple):
  """What is known of images, as a user says it: "mask", "grey", "blur:2", "downsample:4"."""

  name: str
  value: float = 1.0

  @property
  def text(self) -> str:
    """As a user says it."""
    return self.name if self.name in ("mask", "grey") else f"{self.name}:{self.value:g}"

  def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
    """Of what is known of an image of this shape [H, W, C]."""
    height, width, channels = shape
    if self.name == "downsample":
      return height // int(self.value), width // int(self.value), channels
    return (height, width, 1) if self.name == "grey" else (height, width, channels)

  def linear(self, shape: Sequence[int], rows: Mapping[str, Array]) -> Linear:
    """For images of this shape; `rows` has the mask, "keep", or the blur's "width"."""
    make: dict[str, Callable[[], Linear]] = {
      "mask": lambda: linear.mask(rows["keep"]),
      "grey": lambda: linear.grey(shape[-1]),
      "blur": lambda: linear.blur(tuple(shape), rows["width"]),
      "downsample": lambda: linear.downsample(tuple(shape), int(self.value)),
    }
    return make[self.name]()


def operator_of(text: str, shape: Sequence[int]) -> Operator:
  """ "blur:2" -> Operator("blur", 2.0); UserError for what no image of the shape can lose."""
  name, colon, value = text.partition(":")
  if name not in LINEAR:
    raise UserError(f"--operator={text}: want mask, grey, blur:2 or downsample:4")
  if name in ("mask", "grey"):
    if colon:
      raise UserError(f"--operator={text}: {name} has no strength")
    if name == "grey" and shape[-1] == 1:
      raise UserError(f"--operator={text}: this model makes grey images")
    return Operator(name)
  try:
    strength = float(value)
  except ValueError:
    strength = -1.0
  if not 0 < strength <= max(shape) or name == "downsample" and strength % 1:
    what = "a whole number, 2 or more" if name == "downsample" else "pixels, more than 0"
    raise UserError(f"--operator={text}: want {name}:{what}")
  if name == "downsample":
    with refusing(f"--operator={text}"):
      linear.downsample(tuple(shape), int(strength))
  return Operator(name, strength)


def game_of(sampler: Sampler, how: str, method: Method) -> Diffusion:
  """The diffusion model that walks; UserError where a model is none, or takes conditions."""
  model, workdir = sampler.model, sampler.card.get("workdir", "this model")
  game = inner_of(model)
  game = game.diffusion if isinstance(game, Guided) else game
  if not isinstance(game, method.kind) or isinstance(game, Consistency):
    raise UserError(
      f"{workdir} holds a {type(model).__name__}: --how={how} edits by a diffusion model"
    )
  if len(sampler.shape) != 3 or sampler.dtype != np.uint8:
    raise UserError(f"{workdir} makes {sampler.dtype} {list(sampler.shape)}: to edit takes images")
  if trait(game, "cond"):
    raise UserError(
      f"{workdir} makes x from {', '.join(game.cond)}: to edit takes a model of images alone"
    )
  return game


def inner_of(model: core.Model) -> core.Model:
  """Of a model of latents the one within, which may be guided by a classifier."""
  return model.model if isinstance(model, Latent) else model


@dataclasses.dataclass(frozen=True, eq=False)
class Editor:
  """A model and what is to be done with it: call it on images.

  Attributes:
    sampler: The model; one that a classifier guides pushes edits towards their labels.
    how: A name of METHODS.
    operator: What is known of the images, if not all.
    to: The second model, of a bridge.
  """

  sampler: Sampler
  how: str
  operator: Operator | None = None
  to: Sampler | None = None

  def __post_init__(self):
    method = self.method
    game_of(self.sampler, self.how, method)
    latent = isinstance(self.sampler.model, Latent)
    if latent and (not method.latent or self.operator):
      what = f"--operator={self.operator.text}" if self.operator else f"--how={self.how}"
      raise UserError(
        f"{self.sampler.card.get('workdir', 'this model')} is a model of latents: {what} is of "
        "pixels alone; sdedit, ddim, interpolate and bridge work on latents, without a mask"
      )
    if self.has_classifier and method.wants == "model":
      raise UserError(f"--how={self.how} is between two models: leave --classifier")
    if (method.wants == "model") != (self.to is not None):
      raise UserError(f"--how={self.how}: " + ("leave --to" if self.to else "give --to=WORKDIR"))
    if self.to is not None:
      game_of(self.to, self.how, method)
      mine, theirs = (s.noise_shape for s in (self.sampler, self.to))
      if mine != theirs or self.to.shape != self.sampler.shape:
        raise UserError(
          f"--to: its noise is {list(theirs)}, and the first model's {list(mine)}: a bridge is "
          "between models of one shape"
        )

  @functools.cached_property
  def method(self) -> Method:
    """The row of METHODS."""
    return method_of(self.how, self.operator and self.operator.name)

  @functools.cached_property
  def game(self) -> Diffusion:
    """The diffusion model within."""
    return game_of(self.sampler, self.how, self.method)

  @property
  def has_classifier(self) -> bool:
    """Whether a classifier pushes towards the wanted label."""
    return isinstance(inner_of(self.sampler.model), Guided)

  def settings(self, knobs: Mapping[str, float]) -> dict[str, float]:
    """All knobs, the model's and the method's; UserError for a misfit."""
    models = self.sampler.model.knobs
    own = own_knobs(self.how, knobs, models)
    return self.sampler.settings({k: v for k, v in knobs.items() if k in models}) | own

  def cost(self, knobs: Mapping[str, float]) -> float:
    """Evaluations of a net for one image, see `Method.cost`."""
    return float(self.method.cost(self.game, self.settings(knobs)))

  def known(self, images: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """What the operator leaves of whole images, uint8 [N, ...]: as it is measured."""
    if self.operator is None or self.operator.name == "mask":
      return images
    shape, width = self.sampler.shape, jnp.float32(self.operator.value)

    def apply(x: np.ndarray) -> Array:
      A = self.operator.linear(shape, {"width": width, "keep": keep})
      return core.as_data(A.apply(core.on_device(x)), np.uint8)

    return np.asarray(jax.jit(apply)(images))

  def __call__(
    self,
    images: np.ndarray,
    *,
    keep: np.ndarray | None = None,
    second: np.ndarray | None = None,
    share: np.ndarray | None = None,
    labels: Labels = None,
    source: Labels = None,
    seed: int | core.Key = 0,
    batch: int = 64,
    times: list[float] | None = None,
    **knobs: float,
  ) -> np.ndarray:
    """Edits images -> uint8 [N, H, W, C] of the model's shape.

    One program for each `batch`; no image, mask, label or knob makes another. Result i
    depends on the seed, i, its image and the knobs alone.

    Args:
      images: uint8 [N, ...]: with an operator but "mask", what is known, see `known`.
      keep: Of a mask: 1 where pixels are known, else 0, [N or 1, H, W, 1]. Known pixels
        are put in again at the end, and so come out as they are.
      second: Of "interpolate", images to go to.
      share: Likewise: [N] in [0, 1], how far.
      labels: Wanted: one for all, or in turn; None: any, or of a bridge `source`.
      source: That the images have, likewise.
      seed: Or a key [].
      batch: Images at once.
      times: Here the seconds of each batch are added.
      **knobs: The model's and the method's.
    """
    settings, n = self.settings(knobs), len(images)
    rows: dict[str, np.ndarray] = {"i": np.arange(n, dtype=np.int32), "x": self.checked(images)}
    if self.operator and self.operator.name == "mask":
      keep = np.broadcast_to(np.asarray(keep, np.float32), (n, *self.sampler.shape[:2], 1))
      rows["keep"] = keep
    if second is not None:
      rows |= {"second": self.checked(second), "share": np.asarray(share, np.float32)}
    rows |= self.label_rows(n, labels, source)
    x = self._run(rows, settings, key_of(seed), batch, times)
    return np.where(rows["keep"] == 1, images, x) if "keep" in rows else x

  def checked(self, images: np.ndarray) -> np.ndarray:
    """The images; UserError for those of another shape."""
    shape = self.operator.shape(self.sampler.shape) if self.operator else self.sampler.shape
    if images.dtype != np.uint8 or images.shape[1:] != tuple(shape) or not len(images):
      raise UserError(
        f"images to edit are {images.dtype} {list(images.shape)}: want uint8 "
        f"[n, {', '.join(map(str, shape))}]"
      )
    return images

  def label_rows(self, n: int, labels: Labels, source: Labels) -> Rows:
    """Labels [n] each: "y", wanted; "source", of the images; "to", wanted of a bridge's end."""
    if source is not None and not self.method.encodes:
      raise UserError(f"--how={self.how} does not ask what label images have: leave --source")
    if source is not None and not self.game.classes:
      raise UserError("--source: the diffusion model was trained without labels: leave it")
    if self.has_classifier and labels is None:
      raise UserError("a classifier pushes towards a label: give --labels, or leave --classifier")
    rows = {"source": labels_of(self.sampler, n, source, "source")} if self.method.encodes else {}
    if self.to is None:
      rows["y"] = labels_of(self.sampler, n, labels, "labels")
    else:
      rows |= {"y": rows["source"], "to": labels_of(self.to, n, labels, "labels")}
    return {k: y for k, y in rows.items() if y is not None}

  def _run(self, rows, settings, key, batch, times):
    n, parts, finite = len(rows["i"]), [], []
    mesh = self.sampler.mesh
    batch = min(batch, n)
    batch += -batch % mesh.size
    for first in range(0, n, batch):
      index = np.arange(first, first + batch) % n
      start = time.perf_counter()
      part = sharding.shard_batch({k: v[index] for k, v in rows.items()}, mesh)
      x, ok = self.program(self.states, part, key, self.arguments(settings))
      if times is not None:
        jax.block_until_ready((x, ok))
        times.append(time.perf_counter() - start)
      parts.append(x)
      finite.append(ok)
    if not all(jax.device_get(finite)):
      raise UserError(
        f"--how={self.how} made NaN or infinity: take more steps, or less guidance "
        f"({', '.join(f'{k}={v:g}' for k, v in settings.items())})"
      )
    return np.concatenate([sharding.fetch(x) for x in parts])[:n]

  def arguments(self, settings: Mapping[str, float]) -> dict[str, Any]:
    """Knobs of both models as the program takes them, and a blur's width."""
    numbers = lambda knobs: {k: jnp.float32(v) for k, v in knobs.items()}
    width = self.operator.value if self.operator else 0.0
    theirs = {}
    if self.to is not None:
      theirs = {k: settings.get(k, v) for k, v in self.to.model.knobs.items()}
    return {"own": numbers(settings), "to": numbers(theirs), "width": jnp.float32(width)}

  @functools.cached_property
  def states(self) -> tuple[State, ...]:
    """Weights of one model or two, on all devices."""
    whole = sharding.replicated(self.sampler.mesh)
    models = [self.sampler, *([self.to] if self.to is not None else [])]
    return tuple(jax.device_put(m.state, whole) for m in models)

  @functools.cached_property
  def program(self) -> Callable:
    """The jitted function: (states, rows, key, arguments) -> bytes, whether all is finite."""

    def run(states, rows, key, arguments):
      keys = fold(jnp.broadcast_to(key, rows["i"].shape), rows["i"])
      with guarding(f"--how={self.how}"):
        model, scene = self.scene(states, core.on_device(dict(rows)), keys, arguments)
        x = from_latents(*model, self.method.run(scene), rows)
      return core.as_data(x, np.uint8), jnp.isfinite(x).all()

    mesh = self.sampler.mesh
    return jax.jit(run, out_shardings=(sharding.batched(mesh), sharding.replicated(mesh)))

  def scene(self, states: tuple, rows: dict, key: Array, arguments: Mapping) -> tuple[tuple, Scene]:
    """The model that the result is decoded by, its state and label; and what to edit."""
    sampler, shape = self.sampler, self.sampler.shape
    blank = jnp.zeros((len(rows["i"]), *shape))
    z = functools.partial(to_latents, sampler.model, states[0])
    A = self.operator and self.operator.linear(shape, rows | {"width": arguments["width"]})
    whole = self.operator is None or self.operator.name == "mask"
    x = z(rows["x"], rows.get("source")) if whole else blank
    scene = Scene(
      side_of(self.sampler, self.game, states[0], x, rows, arguments["own"]),
      key,
      x,
      rows["x"] if A is None else A.apply(rows["x"]) if whole else rows["x"],
      A,
      rows.get("keep"),
    )
    if "second" in rows:
      scene = scene._replace(other=(z(rows["second"], rows.get("source")), rows["share"]))
    if self.to is None:
      return (sampler.model, states[0], "y"), scene
    game = game_of(self.to, self.how, self.method)
    labels = {"y": rows["to"]} if "to" in rows else {}
    theirs = side_of(self.to, game, states[1], x, labels, arguments["to"])
    return (self.to.model, states[1], "to"), scene._replace(to=theirs)


def side_of(
  sampler: Sampler, game: Diffusion, state: State, x: Array, rows: Mapping, knobs: Mapping
) -> Side:
  """A model with its labels and knobs, for images or latents like x.

  A classifier moves estimates of x_0 (Dhariwal & Nichol 2021, Alg. 2), whatever the sampler:
  what a method makes of estimates, gradients and all, it makes of those.
  """
  like = {"x": jnp.zeros(x.shape)}
  labels = {"y": rows["y"]} if "y" in rows else {}
  source = {"y": rows["source"]} if "source" in rows else labels
  path, n = game.path_points(knobs)
  D = inner_of(sampler.model).guided(state, like | labels, knobs)
  return Side(game, D, game.denoiser(state, like | source), path, n, knobs)


def to_latents(model: core.Model, state: State, x: Array, y: Array | None) -> Array:
  """Images as a model of latents sees them; else x itself."""
  if not isinstance(model, Latent):
    return x
  return model.scaled(state, model.latents_of(state, {"x": x} | ({} if y is None else {"y": y})))


def from_latents(model: core.Model, state: State, label: str, z: Array, rows: Mapping) -> Array:
  """The images of latents; else z itself."""
  return model.images(state, z, rows.get(label)) if isinstance(model, Latent) else z


def labels_of(sampler: Sampler, n: int, labels: Labels, flag: str) -> np.ndarray | None:
  """[n] int32, -1 is any; None without classes. UserError for labels where there are none."""
  if labels is None and sampler.classes:
    if not trait(sampler.model, "free"):
      raise UserError(f"this model always had labels: give --{flag}")
    return np.full(n, -1, np.int32)
  try:
    return sampler.labels(n, labels)
  except UserError as e:
    raise UserError(f"--{flag}: {e}") from e
