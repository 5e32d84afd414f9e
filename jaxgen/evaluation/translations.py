"""What a translator makes of images: drawn once, and a killed process goes on."""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen import sharding
from jaxgen.core import trait
from jaxgen.errors import UserError
from jaxgen.evaluation.cards import key_of as key_of_card
from jaxgen.evaluation.collect import Plan, collect, forget
from jaxgen.evaluation.images import quantise, three, weights_hash
from jaxgen.evaluation.translation_data import Inputs, goes_back
from jaxgen.files import plain
from jaxgen.monitor.progress import Bars
from jaxgen.sampling.output import json_knobs
from jaxgen.sampling.sampler import Sampler, key_of

PIXELS = "pixels"


@dataclasses.dataclass(frozen=True)
class Pixels:
  """An extractor (see `collect`) whose features are the images' own bytes."""

  channels: int

  name, sha256, taps, batch, shape = PIXELS, "", (PIXELS,), 1, None
  card = {"network": "none"}

  def features(self, images: Iterator[np.ndarray], taps: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Batches uint8 [n, H, W, 3] -> uint8 [N, H W C]."""
    x = [batch[..., : self.channels].reshape(len(batch), -1) for batch in images]
    return {tap: np.concatenate(x) for tap in taps}


@dataclasses.dataclass(eq=False)
class Translations:
  """Results of all inputs: see `images.Images`.

  Result i depends on its input, the seed, i and the knobs alone.

  Attributes:
    sampler: The translator.
    inputs: What it translates.
    seed: Of all randomness.
    knobs: Those that are set; the others have their defaults.
    batch: Images at a time.
    rule: How floats become bytes, see `images.quantise`.
    folder: For what is done so far; None: a killed process begins anew.
    bars: Where progress goes.
  """

  sampler: Sampler
  inputs: Inputs
  seed: int = 0
  knobs: Mapping[str, float] = dataclasses.field(default_factory=dict)
  batch: int = 64
  rule: str = "round"
  folder: Path | None = None
  bars: Bars = dataclasses.field(default_factory=Bars)
  warnings: list[str] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    self._settings = self.sampler.settings(dict(self.knobs))
    self._conditions = self.sampler.conditions(self.inputs.conditions)
    if self.sampler.classes:
      if not trait(self.sampler.model, "free"):
        raise UserError("this model wants labels, and images to translate have none")
      self._conditions["y"] = self.sampler.labels(self.count, -1)
    # What as_data would round, we get as floats.
    self._floats = dataclasses.replace(self.sampler, dtype=np.dtype("float32"))
    self.weights = weights_hash(self.sampler.state)

  def of(self, sampler: Sampler) -> "Translations":
    """The same by other weights, without compiling anything again."""
    other = copy.copy(self)
    other.sampler, other.weights = sampler, weights_hash(sampler.state)
    other.__dict__.pop("x", None)
    return other

  def back(self) -> "Translations":
    """Of the results, made what they are made of again: the way back of a cycle."""
    if not goes_back(self.sampler.model):
      raise ValueError("this model goes one way")
    inputs = dataclasses.replace(self.inputs, source=self.x)
    other = copy.copy(self)
    other.__dict__.pop("x")
    other.folder = self.folder and self.folder.with_name(f"{self.folder.name}-back")
    other.inputs = inputs
    other._conditions = self.sampler.conditions(inputs.conditions)
    other._settings = self._settings | {"backwards": 1 - self._settings["backwards"]}
    return other

  @property
  def count(self) -> int:
    return len(self.inputs.names)

  @property
  def sizes(self) -> list[tuple[int, int]]:
    return [tuple(self.sampler.shape[:2])]

  @property
  def class_names(self) -> tuple[str, ...]:
    real = self.inputs.real
    return real.class_names if real is not None else ()

  @property
  def labels(self) -> np.ndarray | None:
    return self.inputs.labels

  @property
  def card(self) -> dict[str, Any]:
    """Where they come from; weights and inputs are identified by their contents."""
    return {
      "kind": "translations",
      "name": str(self.sampler.card["workdir"]),
      "weights": self.weights,
      "of": self.inputs.fingerprint,
      "seed": self.seed,
      "images": self.count,
      "knobs": json_knobs(self._settings),
      **{k: v for k, v in sorted(self.sampler.card.items()) if k != "workdir"},
    }

  @functools.cached_property
  def x(self) -> np.ndarray:
    """All of them, uint8 [N, H, W, C]."""
    shape, tick = self.sampler.shape, self.bars.of("images", self.count)
    self.sampler.check_count(self.count)
    if self.folder is None or self.count < 2:
      parts = []
      for part in self.draw(0, self.count):
        parts.append(part)
        tick(sum(map(len, parts)))
      return np.concatenate(parts)
    collected = collect(
      Draws(self),
      Pixels(shape[-1]),
      Plan((), (PIXELS,)),
      key=key_of_card(plain(self.card | {"rule": self.rule})),
      folder=self.folder,
      tick=tick,
    )
    return collected.rows[PIXELS].reshape(-1, *shape)

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images."""
    for i in range(start, stop, 256):
      yield three(self.x[i : min(i + 256, stop)])

  def draw(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """Those `start` to `stop`, made anew: uint8 [n, H, W, C] at a time.

    Raises:
      UserError: They are not finite.
    """
    key, batch = key_of(self.seed), min(self.batch, self.count)
    stream = self._floats.stream(
      key, range(start, stop), batch, self._conditions, self._settings, self.sampler.state
    )
    for x in stream:
      x = sharding.fetch(x)[: stop - start]
      if not np.isfinite(x).all():
        raise UserError(
          f"results {start} to {start + len(x)} of {self.card['name']} hold NaN or infinity: the "
          "weights are ill, or the knobs too far from their defaults"
        )
      yield quantise(x, self.rule)
      start += len(x)

  def forget(self) -> None:
    """Removes what was done so far from its folder."""
    for folder in (self.folder, self.folder and self.folder.with_name(f"{self.folder.name}-back")):
      if folder:
        forget(folder)
    with contextlib.suppress(OSError):  # of others, or gone
      if self.folder:
        self.folder.parent.rmdir()


@dataclasses.dataclass(frozen=True)
class Draws:
  """Translations as `collect` reads them: drawn as they come."""

  of: Translations

  @property
  def count(self) -> int:
    return self.of.count

  @property
  def card(self) -> dict[str, Any]:
    return self.of.card

  def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
    """See Images."""
    for x in self.of.draw(start, stop):
      yield three(x)
