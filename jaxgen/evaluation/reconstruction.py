"""Judging codecs: how near what they decode comes to images they have not seen.

  jaxgen evaluate --workdir K --num 1000 --out k.json --picture k.png
  jaxgen evaluate --workdir K --protocol adm       (by Inception: rFID, and more)

Test images are encoded and decoded again, as bytes. Where latents are drawn from
a distribution q(z | x), `mode` decodes its mode and `sample` one draw. Fréchet
distances look through the built-in judge (see judge.py) or, with a protocol, a
published network: rfrechet and rfid are of reconstructions from the originals
that they are of, so that a codec without loss has 0; frechet is from training
images, as samples are judged, and the originals' own is the floor.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import files
from jaxgen.core import trait
from jaxgen.data.arrays import Source
from jaxgen.evaluation import cards, pair_scores, perceptual, restoration
from jaxgen.evaluation.codec_images import (
  MOST,
  LatentStatistics,
  Reconstructions,
  held_out,
  is_random,
)
from jaxgen.evaluation.images import quantise, weights_hash
from jaxgen.evaluation.judge import FEWEST, ImageJudge, Judge, collected, open_judge
from jaxgen.evaluation.learned import short_name
from jaxgen.evaluation.modes_judge import has_known_modes
from jaxgen.evaluation.pair_scores import windows
from jaxgen.evaluation.perceptual import Perceptual
from jaxgen.files import plain
from jaxgen.metrics.distances import frechet
from jaxgen.monitor import pictures
from jaxgen.monitor.log import append
from jaxgen.sampling.sampler import Sampler, load

KIND = "jaxgen reconstruction 1"
SHOWN = 16  # images of the picture


@dataclasses.dataclass(eq=False)
class Originals:
  """Test images, and all that reconstructions of them are compared by.

  Attributes:
    x: The images, uint8 [N, H, W, C].
    judge: Whose features Fréchet distances compare; None: there are none.
    networks: Through which images are compared one by one, beside their pixels.
  """

  x: np.ndarray
  judge: ImageJudge | None
  networks: list[Perceptual]

  def by_image(self, x: np.ndarray) -> dict[str, np.ndarray]:
    """How near reconstructions come, [N] each."""
    return pair_scores.by_image(x, self.x, self.networks)

  @functools.cached_property
  def features(self) -> Any:
    """Of the originals."""
    return self._features(self.x)

  def _features(self, x: np.ndarray) -> Any:
    return collected(self.judge.embed(x), self.judge.directions)

  def of_sets(self, x: np.ndarray | None = None) -> dict[str, float]:
    """Fréchet distances of reconstructions; of originals, that are the floor."""
    if self.judge is None:
      return {}
    own = self.features if x is None else self._features(x)

    def distance(other: Any) -> float:
      a, b = (side.moments["features"] for side in (own, other))
      return frechet(a.mu, a.sigma, b.mu, b.sigma)

    near = 0.0 if x is None else distance(self.features)
    name = self.judge.features
    return {f"rfrechet@{name}": near, f"frechet@{name}": distance(self.judge.reference)}

  @property
  def protocol(self) -> dict[str, str]:
    """How numbers come about, by the beginnings of their names."""
    how = {"errors": "standard errors over images, taken for independent"}
    names = ("psnr", *(f"ssim@{name}" for name in windows(self.x.shape[1:])))
    how |= {k: pair_scores.METRICS[k] for k in names}
    for net in self.networks:
      how[net.name] = f"channels of unit length, squared difference; {net.card['network']}"
    if self.judge:
      name, network = self.judge.features, self.judge.card["network"] + self.judge.shrinking
      how |= {
        f"rfrechet@{name}": f"of reconstructions from their originals; features: {network}",
        f"frechet@{name}": f"of them from {self.judge.card['reference']}",
      }
    return how


class Column(NamedTuple):
  """What became of the images in one way."""

  x: np.ndarray  # uint8 [N, H, W, C]
  latents: LatentStatistics
  by_image: dict[str, np.ndarray]
  of_sets: dict[str, float]

  @classmethod
  def of(cls, images: Reconstructions, originals: Originals) -> "Column":
    """Encodes and decodes all of them, and compares."""
    latents, parts = LatentStatistics(images.sampler), []
    for part in images.parts(0, images.count):
      latents.add(part.z)
      parts.append(quantise(part.x_hat, images.rule))
    x = np.concatenate(parts)
    return cls(x, latents, originals.by_image(x), originals.of_sets(x))

  @property
  def scores(self) -> dict[str, float]:
    """Means over images, and distances of sets."""
    return {k: np.mean(v) for k, v in self.by_image.items()} | self.of_sets

  @property
  def errors(self) -> dict[str, float]:
    """Standard errors of the former."""
    finite = {k: v for k, v in self.by_image.items() if np.isfinite(v).all()}
    return {k: np.std(v, ddof=1) / len(v) ** 0.5 for k, v in finite.items()}


def data_for(model: Sampler, data: ConfigDict, values: flags.FlagValues) -> ConfigDict:
  """What a codec is judged on: its own data, or those of --data."""
  if not values.data:
    return data
  height, _, channels = model.shape
  return ConfigDict(dict(source=values.data, split="train", size=height, channels=channels))


def evaluate_codec(
  model: Sampler, data: ConfigDict, values: flags.FlagValues, judge: Judge | None = None
) -> tuple[str, dict[str, Any]]:
  """What `evaluate` says of a codec: text, and a card.

  Also goes to WORKDIR/evals, with a picture, and a line into its log. `judge`
  is that of its data, if it is there already.

  Raises:
    UserError: There are no test images, or others than it reads.
  """
  data, num = data_for(model, data, values), values.num
  # Where samples are judged, too, it says how many of these there are.
  strict = trait(model.model, "wants_prior")
  source = held_out(data, num) if strict else held_out(data, most=num)
  images = Reconstructions(model, source, seed=values.seed, most=min(values.batch, MOST))
  model.check_count(2 * len(source))
  originals = open_originals(source, data, values, None if values.data else judge)
  columns = {"mode": Column.of(images, originals)}
  if is_random(model):
    columns["sample"] = Column.of(dataclasses.replace(images, drawn=True), originals)
  card = card_of(model, source, originals, columns, values.seed)
  steps, n = model.card["step"], len(source)
  place = files.path(values.workdir) / "evals" / f"{steps:08d}-reconstructions-{n}"
  files.write_json(place.with_suffix(".json"), card)
  picture = values.picture or place.with_suffix(".png")
  shown = above(originals.x, columns["mode"].x)
  pictures.save_png(picture, shown, {"rows": "originals, their reconstructions", "card": card})
  if not values.data:
    append(values.workdir, steps, {f"eval/{k}": v for k, v in logged(card).items()})
  return f"{table(card)}\npicture: {picture}", card


def open_originals(
  source: Source, data: ConfigDict, values: flags.FlagValues, judge: Judge | None
) -> Originals:
  """By the judge of the data, and by LPIPS where its weights are at hand.

  Where they are not, or images are too small for it, the judge's own features
  measure perceptual distances, too.
  """
  networks = restoration.open_networks(values)
  if not (values.perceptual or values.lpips_net or values.lpips_lin):  # of the environment
    networks = [net for net in networks if not net.fit(source.shape)]
  if has_known_modes(data.source) or len(source) < FEWEST:
    judge = None
  else:
    judge = judge or open_judge(data, values.judge)
  if judge and not networks:
    name = f"{short_name(judge.real)}-{judge.network.kind}"
    classifier = load(judge.network.home, samples=False)
    networks = [perceptual.of_classifier(classifier, name, source.shape)]
  return Originals(source.read(np.arange(len(source)))["x"], judge, networks)


def card_of(
  model: Sampler, source: Source, originals: Originals, columns: Mapping[str, Column], seed: int
) -> dict[str, Any]:
  """All numbers and how they were made, as JSON."""
  return plain(
    {
      "kind": KIND,
      "data": {
        "name": source.name,
        "fingerprint": source.fingerprint,
        "images": len(source),
        "shape": source.shape,
        "split": "test",
      },
      "protocol": originals.protocol,
      "perceptual": {net.name: net.card for net in originals.networks},
      "judge": originals.judge.card if originals.judge else None,
      "scores": {k: c.scores for k, c in columns.items()},
      "errors": {k: c.errors for k, c in columns.items()},
      "floor": originals.of_sets(),
      "latents": {k: c.latents.card for k, c in columns.items()},
      "codes": {
        k: use._asdict() | {"dead_share": use.dead / use.codes}
        for k, use in columns["mode"].latents.use.items()
      },
      "versions": cards.versions(),
      "made": model.card | {"weights": weights_hash(model.state), "seed": seed},
    }
  )


def logged(card: Mapping[str, Any]) -> dict[str, float]:
  """What a training's log gets: scores of modes, and how codes are used."""
  use = {f"{n}_{k}": c[n] for k, c in card["codes"].items() for n in ("perplexity", "dead")}
  return {k: float(v) for k, v in (card["scores"]["mode"] | use).items()}


def table(card: Mapping[str, Any]) -> str:
  """The numbers of a card, as text."""
  scores, errors, floor = card["scores"], card["errors"], card["floor"]

  def cell(name: str, metric: str) -> str:
    error = errors[name].get(metric)
    return f"{float(scores[name][metric]):.4g}" + ("" if error is None else f" ± {error:.2g}")

  rows = [["", *scores, "originals"]]
  for metric in scores["mode"]:
    own = f"{floor[metric]:.4g}" if metric in floor else "-"
    rows.append([metric, *(cell(name, metric) for name in scores), own])
  n, data = card["data"]["images"], card["data"]["name"]
  lines = [cards.columns(rows), f"{n:,} test images of {data}; ±: standard errors"]
  for name, z in card["latents"].items():
    if "std" in z:
      lines.append(
        f"latents, {name}: {shape(z)}, mean {z['mean']:.3g}, std {z['std']:.3g} "
        f"(1 / std: {float(z['scale']):.4g})"
      )
  for name, use in card["codes"].items():
    lines.append(
      f"{name}: perplexity {use['perplexity']:.1f} of {use['codes']}; "
      f"{use['dead']} ({use['dead_share']:.1%}) are dead: no latent of these images chose them"
    )
  return "\n".join(lines)


def shape(z: Mapping[str, Any]) -> str:
  """Of latents, in words: 4x4x4."""
  shapes = z["shape"]
  return "x".join(map(str, shapes)) if isinstance(shapes, list) else str(shapes)


def above(x: np.ndarray, x_hat: np.ndarray) -> np.ndarray:
  """Originals, and below each its reconstruction: one picture."""
  n, columns = min(SHOWN, len(x)), min(SHOWN // 2, len(x))
  i = np.arange(n // columns * columns) * len(x) // n
  rows = [part for row in i.reshape(-1, columns) for part in (x[row], x_hat[row])]
  return pictures.grid(np.concatenate(rows), columns)
