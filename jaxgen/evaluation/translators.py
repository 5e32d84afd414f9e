"""Judging translators: what they make of test images that they have not seen.

  jaxgen eval --workdir T --num 200 --picture t.png
  jaxgen eval --workdir T --protocol adm        (by Inception: FID, and more)

Where data are pairs, or sources are made of x, results are compared with their
truths. Where kinds are unpaired (CycleGAN) they are compared with real images of
the other kind, both ways, and sources with what comes back. Sources themselves,
taken for results, are what has to be beaten. Numbers are those of `jaxgen translate`.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import files
from jaxgen.data.sources import open_split
from jaxgen.data.unpaired import Unpaired
from jaxgen.evaluation import restoration
from jaxgen.evaluation import translation_scores as scoring
from jaxgen.evaluation.judge import FEWEST, ImageJudge, open_judge
from jaxgen.evaluation.modes_judge import has_known_modes
from jaxgen.evaluation.translation_data import check_translator, goes_back, of_own_data
from jaxgen.evaluation.translation_scores import Judges, Look
from jaxgen.evaluation.translations import Translations
from jaxgen.monitor import pictures
from jaxgen.monitor.log import append
from jaxgen.sampling.sampler import Sampler


def data_of_kind(data: ConfigDict, backwards: bool = False) -> ConfigDict | None:
  """config.data of what a translator makes, as a data set by itself.

  None for the sources of a folder of two kinds, which has no name of its own.
  """
  real = open_split(data)
  if not isinstance(real, Unpaired):
    return data
  parts = data.source.partition(":")[2].split(",")
  if len(parts) == 1:
    return None if backwards else data
  kind = real.a if backwards else real.b
  return ConfigDict(dict(data) | {"source": kind.name})


def judge_of(data: ConfigDict, count: int, folder: str | None, backwards: bool) -> Look | None:
  """The built-in judge of what a translator makes; None where there is none of it."""
  if count < FEWEST or has_known_modes(data.source):
    return None
  kind = data_of_kind(data, backwards)
  judge = kind and open_judge(kind, folder)
  return Look.of_judge(judge) if isinstance(judge, ImageJudge) else None


def ways_of(model: Sampler, knobs: Mapping[str, float]) -> dict[str, bool]:
  """Ways to judge, by name, and whether they are backwards: both, unless a knob says one."""
  if not goes_back(model.model):
    return {"forth": False}
  if "backwards" in knobs:
    backwards = knobs["backwards"] > 0.5
    return {"back" if backwards else "forth": backwards}
  return {"forth": False, "back": True}


def evaluate_translator(
  model: Sampler, data: ConfigDict, knobs: Mapping[str, float], values: flags.FlagValues
) -> tuple[str, dict[str, Any]]:
  """What `evaluate` says of a translator: text, and a card.

  Also goes to WORKDIR/evals, with a picture, and as a line into its log. What a
  killed evaluation has drawn lies there, too. The way back of a CycleGAN is
  `backwards` of the card; each way has its judge, --judge/forth and --judge/back.

  Raises:
    UserError: There are no such test images, or flags do not fit.
  """
  check_translator(model.model, model.shape, values.workdir)
  chosen = bool(values.perceptual or values.lpips_net or values.lpips_lin)
  networks = scoring.fitting(restoration.open_networks(values), model.shape, chosen)
  own, rows, translations = {}, [], []
  for way, backwards in ways_of(model, knobs).items():
    inputs = of_own_data(model.model, model.shape, data, values.num, backwards=backwards)
    folder = values.judge and str(
      pathlib.Path(values.judge) / (way if goes_back(model.model) else "")
    )
    judges = Judges(networks, judge_of(data, len(inputs.names), folder, backwards))
    place = place_of(values.workdir, model.card["step"], len(inputs.names))
    results = Translations(
      model,
      inputs,
      values.seed,
      dict(knobs) | ({"backwards": float(backwards)} if goes_back(model.model) else {}),
      values.batch,
      folder=files.scratch(place.with_suffix(".partial")) / way,
    )
    own[way] = scoring.card_of(inputs, {"model": results}, judges)
    rows.append(scoring.picture(inputs, {"model": results.x}))
    translations.append(results)
  card = next(iter(own.values())) | ({"backwards": own["back"]} if len(own) > 1 else {})
  files.write_json(place.with_suffix(".json"), card)
  picture = values.picture or place.with_suffix(".png")
  pictures.save_png(picture, below(rows), {"card": card})
  append(values.workdir, model.card["step"], logged(own))
  for results in translations:
    results.forget()
  for line in scoring.doubts(judges):
    print(f"jaxgen: {line}", file=sys.stderr)
  tables = [f"{way}:\n" * (len(own) > 1) + scoring.table(c) for way, c in own.items()]
  return "\n\n".join(tables) + f"\npicture: {picture}", card


def place_of(workdir: str, step: int, count: int) -> pathlib.Path:
  """Of a card and its picture, without an ending."""
  return files.path(workdir) / "evals" / f"{step:08d}-translation-{count}"


def logged(own: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """What a training's log gets: scores of each way."""
  return {
    f"eval/{'back/' * (way == 'back')}{k}": float(v)
    for way, card in own.items()
    for k, v in card["scores"]["model"].items()
  }


def below(images: list[np.ndarray]) -> np.ndarray:
  """Pictures uint8 [H, W, 3] one below the other, on white."""
  width = max(x.shape[1] for x in images)
  pad = lambda x: np.pad(x, ((0, 0), (0, width - x.shape[1]), (0, 0)), constant_values=255)
  return np.concatenate([pad(x) for x in images])


def own_translations(
  model: Sampler, data: ConfigDict, knobs: Mapping[str, float], values: flags.FlagValues, rule: str
) -> Translations:
  """What a translator makes of its own test images, for a protocol; `rule`: of bytes."""
  check_translator(model.model, model.shape, values.workdir)
  backwards = knobs.get("backwards", 0) > 0.5
  inputs = of_own_data(model.model, model.shape, data, values.num, backwards=backwards)
  return Translations(model, inputs, values.seed, knobs, values.batch, rule)


def with_pairs(card: Mapping[str, Any], results: Translations) -> dict[str, Any]:
  """A card of `run.Evaluation`, with scores by pairs before those of sets."""
  numbers = scoring.by_pairs(results)
  intervals = {**card.get("intervals", {}), **numbers.intervals}
  return files.plain({**card, "scores": numbers.scores | card["scores"], "intervals": intervals})
