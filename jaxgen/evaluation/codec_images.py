"""What codecs decode of images that they have not seen, and their latents."""

import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import core, sharding
from jaxgen.core import trait
from jaxgen.data.arrays import Source
from jaxgen.data.holdout import Rows
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError
from jaxgen.evaluation.images import quantise, three, weights_hash
from jaxgen.evaluation.scores import FRECHET
from jaxgen.files import plain
from jaxgen.keys import fold
from jaxgen.metrics import image_quality
from jaxgen.sampling.sampler import Sampler, key_of

MOST = 32  # images at a time on each device: of large ones more fill its memory


class Use(NamedTuple):
  """How the codes of one codebook are used by a set of images."""

  codes: int
  perplexity: float  # exp of the entropy of their shares, 1 to `codes`
  dead: int  # chosen by no latent

  @classmethod
  def of(cls, occupancy: np.ndarray) -> "Use":
    """How often each code was chosen, [K]."""
    p = occupancy[occupancy > 0] / occupancy.sum()
    perplexity = float(np.exp(-np.sum(p * np.log(p))))
    return cls(len(occupancy), perplexity, int(np.sum(occupancy == 0)))


class Part(NamedTuple):
  """A few images, float reconstructions in about [-1, 1], and their latents."""

  x: np.ndarray
  x_hat: np.ndarray
  z: Any


@dataclasses.dataclass(eq=False)
class Reconstructions:
  """What a codec decodes of the latents of images: see `images.Images`.

  Attributes:
    sampler: The codec.
    source: The images.
    split: Of the data, that they are.
    drawn: Whether latents are drawn from q(z | x); else they are its mode.
    seed: Of the draws. Image i's depends on the seed and i alone.
    rule: How floats become bytes, see `images.quantise`.
    most: Images at a time.
  """

  sampler: Sampler
  source: Source
  split: str = "test"
  drawn: bool = False
  seed: int = 0
  rule: str = "round"
  most: int = MOST
  warnings: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    check_codec(self.sampler, self.source)
    self.psnr = np.full(self.count, np.nan)  # of what was read

  def of(self, sampler: Sampler) -> "Reconstructions":
    """The same of other weights, without compiling anything again."""
    other = copy.copy(self)
    other.sampler = sampler
    return other

  @property
  def count(self) -> int:
    return len(self.source)

  @property
  def sizes(self) -> list[tuple[int, int]]:
    return [tuple(self.source.shape[:2])]

  @property
  def class_names(self) -> tuple[str, ...]:
    return self.source.class_names

  @property
  def labels(self) -> np.ndarray | None:
    return self.source.arrays()[1]

  @property
  def card(self) -> dict[str, Any]:
    """Where they come from; weights are identified by their contents."""
    return {
      "kind": "reconstructions",
      "name": str(self.sampler.card["workdir"]),
      "weights": weights_hash(self.sampler.state),
      "of": self.source.name,
      "split": self.split,
      "fingerprint": self.source.fingerprint,
      "latents": f"samples, seed {self.seed}" if self.drawn else "modes",
      "images": self.count,
      **{k: v for k, v in sorted(self.sampler.card.items()) if k != "workdir"},
    }

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images; notes the psnr of each."""
    for part in self.parts(start, stop):
      x, end = quantise(part.x_hat, self.rule), start + len(part.x)
      self.psnr[start:end] = image_quality.psnr(x, part.x)
      start = end
      yield three(x)

  def parts(self, start: int, stop: int) -> Iterator[Part]:
    """The images `start` to `stop` and what becomes of them.

    Raises:
      UserError: Reconstructions are not finite.
    """
    mesh, key = self.sampler.mesh, key_of(self.seed)
    state = jax.device_put(self.sampler.state, sharding.replicated(mesh))
    size = min(self.most * mesh.size, self.count + -self.count % mesh.size)
    for first in range(start, stop, size):
      i = np.arange(first, min(first + size, stop))
      padded = np.resize(i, size).astype(np.int32)
      batch = {
        k: v for k, v in self.source.read(padded).items() if k == "x" or self.sampler.classes
      }
      rows = sharding.shard_batch(sharding.local_rows(batch | {"i": padded}), mesh)
      cut = functools.partial(lambda n, a: sharding.fetch(a)[:n], len(i))
      x_hat, z = jax.tree.map(cut, self._run(state, rows, key))
      if not np.isfinite(x_hat).all():
        raise UserError(
          f"reconstructions {first} to {first + len(i)} by {self.card['name']} hold NaN or infinity"
        )
      yield Part(batch["x"][: len(i)], x_hat, z)

  @functools.cached_property
  def _run(self):
    model = self.sampler.model

    def run(state, rows, key):
      batch = core.on_device(rows)
      i, x, y = batch["i"], batch["x"], batch.get("y")
      keys = fold(jnp.broadcast_to(key, i.shape), i) if self.drawn else None
      z = model.encode(state, x, keys, y)
      return model.decode(state, z, y).astype(jnp.float32), z

    return jax.jit(run, out_shardings=sharding.batched(self.sampler.mesh))


@dataclasses.dataclass(eq=False)
class LatentStatistics:
  """What is known of all latents of a set of images."""

  sampler: Sampler
  shapes: Any = None  # of one example's, as a tree
  count: int = 0  # numbers
  total: float = 0.0
  square: float = 0.0
  occupancy: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def add(self, z: Any) -> None:
    """Takes in those of a few images."""
    self.shapes = jax.tree.map(lambda a: list(a.shape[1:]), z)
    for leaf in map(np.asarray, jax.tree.leaves(z)):
      if not np.issubdtype(leaf.dtype, np.integer):
        leaf = leaf.astype(np.float64)
        self.count += leaf.size
        self.total += leaf.sum()
        self.square += np.sum(leaf**2)
    for name, new in jax.device_get(self._choices(self.sampler.state, z)).items():
      self.occupancy[name] = self.occupancy.get(name, 0) + new.astype(np.float64)

  @functools.cached_property
  def _choices(self):
    return jax.jit(trait(self.sampler.model, "occupancy") or (lambda state, z: {}))

  @property
  def card(self) -> dict[str, Any]:
    """Mean, standard deviation and what makes that 1, where they are numbers."""
    card = {"shape": self.shapes}
    if self.count:
      mean = self.total / self.count
      std = math.sqrt(max(self.square / self.count - mean**2, 0.0))
      card |= {"mean": mean, "std": std, "scale": 1 / std if std else math.inf}
    return card

  @property
  def use(self) -> dict[str, Use]:
    """Of each codebook."""
    return {name: Use.of(counts) for name, counts in self.occupancy.items()}


def is_codec(model: Sampler) -> bool:
  """Whether a model writes images as latents, and reads them."""
  encodes = trait(model.model, "encode") and trait(model.model, "decode")
  return bool(encodes) and len(model.shape) == 3 and model.dtype == np.uint8


def is_random(model: Sampler) -> bool:
  """Whether latents can be drawn of q(z | x), or are all that it says."""
  return trait(model.model, "moments") is not None


def check_codec(model: Sampler, source: Source) -> None:
  """UserError unless the codec reads such images."""
  if source.shape != tuple(model.shape) or source.dtype != model.dtype:
    raise UserError(
      f"this codec reads {list(model.shape)}, but {source.name} holds "
      f"{source.dtype} {list(source.shape)}"
    )
  if model.classes and source.classes != model.classes:
    raise UserError(
      f"this codec decodes by {model.classes} labels, and {source.name} has {source.classes}"
    )


def held_out(data: Mapping[str, Any], num: int | None = None, most: int | None = None) -> Source:
  """The test split of a config's data, or `num` of its images, far apart.

  Raises:
    UserError: There is none, or it has fewer images; not if they are `most`.
  """
  test = open_split(data, "test")
  n = min(len(test), most or len(test)) if num is None else num
  if not 2 <= n <= len(test):
    raise UserError(f"num={n}: want 2 to {len(test)}, as many as this split of {test.name} has")
  return test if n == len(test) else Rows(test, np.arange(n) * len(test) // n)


def with_names(card: Mapping[str, Any], images: Reconstructions) -> dict[str, Any]:
  """A card of `run.Evaluation` whose Fréchet distances say what of: rfid@adm.

  With psnr, where all images were read.
  """
  name = lambda scores: {f"r{k}" if k.startswith(FRECHET) else k: v for k, v in scores.items()}
  psnr = float(np.mean(images.psnr))
  own = {} if math.isnan(psnr) else {"psnr": psnr}
  return plain({**card, "scores": own | name(card["scores"]), "spread": name(card["spread"])})
