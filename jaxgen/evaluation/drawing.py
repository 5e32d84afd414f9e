"""Images that a trained model draws while they are judged."""
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgen import core, sharding
from jaxgen.checkpoint.fingerprint import fingerprint
from jaxgen.errors import UserError
from jaxgen.evaluation.images import quantise, three
from jaxgen.files import digest
from jaxgen.sampling.sampler import Sampler, number_of


@dataclasses.dataclass(eq=False)
class Drawn:
  """The samples 0 .. count - 1 of a seed, made when they are read.

  They are those of `jaxgen sample --seed` but for how floats become bytes,
  which is the protocol's to say (`rule`, see `images.quantise`). Sample i
  depends on the seed, i, its label and the knobs alone.
  """
  sampler: Sampler
  count: int
  seed: int
  labels: np.ndarray | None
  how: str  # labels were chosen
  rule: str
  knobs: Mapping[str, float]
  batch: int = 256
  warnings: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    if self.sampler.dtype != np.uint8 or len(self.sampler.shape) != 3:
      raise UserError("this model makes points: FID and its relatives are of "
                      "images; leave --protocol")
    if cond := getattr(self.sampler.model, "cond", None):
      raise UserError(f"this model makes x from {', '.join(cond)}: draw with "
                      "`jaxgen sample`, and judge the file by --samples")
    if self.batch < 1 or self.seed < 0 or self.count < 2:
      raise UserError(f"batch={self.batch}, seed={self.seed}, num={self.count}"
                      ": want at least 1, 0 and 2")
    self._settings = self.sampler.settings(dict(self.knobs))
    # What as_data would round, we get as floats.
    self._floats = dataclasses.replace(self.sampler, dtype=np.dtype("float32"))
    self.weights = weights_hash(self.sampler.state)
    self.sizes = [tuple(self.sampler.shape[:2])]

  def of(self, sampler: Sampler) -> "Drawn":
    """The same of other weights, without compiling anything again."""
    other = copy.copy(self)
    other.sampler, other.weights = sampler, weights_hash(sampler.state)
    return other

  @property
  def class_names(self) -> tuple[str, ...]:
    """Those that the model knows."""
    return self.sampler.class_names

  @property
  def card(self) -> dict[str, Any]:
    """Where they come from; the weights are told by what they are."""
    return {"kind": "model", "name": str(self.sampler.card["workdir"]),
            "weights": self.weights, "seed": self.seed, "labels": self.how,
            "images": self.count, "knobs": {
                k: v if np.isfinite(v) else None
                for k, v in self._settings.items()},
            **{k: v for k, v in sorted(self.sampler.card.items())
               if k != "workdir"}}

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images."""
    key = jax.random.key(self.seed)
    given = {} if self.labels is None else {"y": self.labels}
    first = start
    for x in self._floats.stream(
        key, range(start, stop), min(self.batch, self.count), given,
        self._settings, self.sampler.state):
      x = sharding.fetch(x)[:stop - first]
      if not np.isfinite(x).all():
        raise UserError(f"samples {first} to {first + len(x)} of "
                        f"{self.card['name']} hold NaN or infinity")
      yield three(quantise(x, self.rule))
      first += len(x)


def weights_hash(state: core.State) -> str:
  """Sixteen hex digits of the weights that are sampled from."""
  leaves, _ = fingerprint({"params": state.params, "stats": state.stats})
  return digest(leaves)


def choose_labels(sampler: Sampler, how: str, count: int, seed: int
                  ) -> np.ndarray | None:
  """Labels int32 [count] of samples.

  Args:
    sampler: which knows how many classes there are.
    how: "turn", each class in turn; "random", each as likely; or "0,1,2",
      numbers or names.
    count: how many.
    seed: of random ones.
  """
  if not sampler.classes or how == "turn":
    return sampler.labels(count, None)
  if how == "random":
    drawn = np.random.default_rng(seed).integers(sampler.classes, size=count)
    return drawn.astype(np.int32)
  names = getattr(sampler, "class_names", ())
  return sampler.labels(count, [
      number_of(word.strip(), names, "turn, random, or ")
      for word in how.split(",")])
