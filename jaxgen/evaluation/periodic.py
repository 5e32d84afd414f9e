"""Evaluation while training: the same code, every so many steps.

Of samples; or, of codecs whose samples are none, of what they decode of test
images, beside these: rfid@adm, psnr. Of translators, of what they make of test
images, beside the truths or real images of that kind: fid@adm, psnr, cycle_psnr.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import core, files
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_split
from jaxgen.distributed import join
from jaxgen.errors import UserError
from jaxgen.evaluation import features
from jaxgen.evaluation.codec_images import Reconstructions, held_out, with_names
from jaxgen.evaluation.collect import Extractor
from jaxgen.evaluation.images import Dataset, ModelSamples, choose_labels
from jaxgen.evaluation.learned import learn
from jaxgen.evaluation.protocols import protocol
from jaxgen.evaluation.reference import open_reference
from jaxgen.evaluation.run import Evaluation
from jaxgen.evaluation.scores import check_metric
from jaxgen.evaluation.statistics import Reference
from jaxgen.evaluation.translation_data import of_own_data, translates
from jaxgen.evaluation.translations import Translations
from jaxgen.evaluation.translators import data_of_kind, with_pairs
from jaxgen.files import digest
from jaxgen.monitor.log import card_name
from jaxgen.sampling.presets import stepping
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state

DEFAULTS = dict(
  every=0,
  num=10_000,
  protocol="adm",
  ref="",
  metrics=(),
  features="inception",
  weights="",
  seed=0,
  batch=256,
)


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
  """config.log.eval with defaults; UserError for what means nothing."""
  for name, value in options.items():
    if name not in DEFAULTS:
      raise UserError(f"config.log.eval.{name} means nothing: there are {', '.join(DEFAULTS)}")
    least = int(name in ("num", "batch"))
    if type(DEFAULTS[name]) is int and (type(value) is not int or value < least):
      raise UserError(f"config.log.eval.{name}={value!r}: want a whole number, at least {least}")
  how = DEFAULTS | dict(options)
  for name, default in DEFAULTS.items():
    if isinstance(default, str) and not isinstance(how[name], str):
      raise UserError(f"config.log.eval.{name}={how[name]!r}: want text")
  metrics = how["metrics"]
  if isinstance(metrics, str):
    metrics = tuple(m for m in metrics.split(",") if m)
  if not isinstance(metrics, list | tuple) or not all(isinstance(m, str) for m in metrics):
    raise UserError(f"config.log.eval.metrics={metrics!r}: want names such as ('fid', 'pr')")
  protocol(how["protocol"])
  for metric in metrics:
    check_metric(metric)
  return how | {"metrics": tuple(metrics)}


class Periodic:
  """Judges the averaged weights of a state, as `jaxgen eval` does later.

  Cards go to WORKDIR/evals; the reference is looked at once.
  """

  def __init__(
    self,
    options: Mapping[str, Any],
    config: Mapping[str, Any],
    model: core.Model,
    source: Source,
    workdir: str,
    open_features: Callable[..., Extractor] | None = None,
  ):
    """Opens what is needed, so that mistakes come before the training.

    Args:
      options: config.log.eval, see DEFAULTS.
      config: the whole config as JSON (`checkpoint.as_json`).
      model: what is trained.
      source: what it is trained on; the reference, if `ref` says no other.
      workdir: of the training.
      open_features: (name, weights, resize) -> what looks; default:
        features.open_extractor.

    Raises:
      UserError: something does not fit.
    """
    self.how = settings(options)
    self.config, self.model = config, model
    self.source, self.workdir = source, files.path(workdir)
    self.every, self.samples, self.held, self.inputs = self.how["every"], None, None, None
    if not self.every:
      return
    how = protocol(self.how["protocol"])
    real = Dataset(source, config["data"]["split"])
    if core.trait(model, "wants_prior"):
      self.held = held_out(config["data"], most=self.how["num"])
      self.how["num"], real = len(self.held), Dataset(self.held, "test")
    elif translates(model):
      most = self.how["num"]
      self.inputs = of_own_data(model, source.shape, ConfigDict(config["data"]), most=most)
      self.how["num"], real = len(self.inputs.names), Dataset(self.inputs.real, "test")
    if self.how["ref"]:
      reference = open_reference(self.how["ref"], how, self.how["features"])
    else:
      reference = Reference.of(real)
    extractor = (open_features or self.extractor)(
      self.how["features"], self.how["weights"] or None, how.resize
    )
    self.evaluation = Evaluation(reference, extractor, how, self.how["metrics"] or None)
    classes = 0 if self.inputs else config["data"]["classes"]
    self.evaluation.check(
      self.how["num"], np.arange(classes) if classes else None, [tuple(source.shape[:2])]
    )

  def extractor(self, name: str, weights: str | None, resize: str) -> Extractor:
    """What looks at images: a published network, or the built-in judge's."""
    if name != "judge":
      return features.open_extractor(name, weights, resize)
    if join.joined():
      raise UserError("config.log.eval.features=judge is for one process: want inception or dinov2")
    data, real = ConfigDict(self.config["data"]), self.source
    if self.inputs and self.inputs.others is not None:
      data = data_of_kind(data)
      real = open_split(data)
    return learn(data, real).extractor

  def due(self, done: int) -> bool:
    """Whether it is time, after so many steps."""
    return bool(self.every) and done % self.every == 0

  def run(self, done: int, state: core.State) -> dict[str, float]:
    """Judges -> scores for the log; writes their card.

    What cannot be judged, such as samples that are not finite, ends no
    training: there is a warning, and no score.
    """
    try:
      card = self.card(done, state)
    except UserError as e:
      warnings.warn(f"not judged at step {done}: {e}", RuntimeWarning, stacklevel=2)
      return {}
    kind = self.evaluation.protocol.name + "-reconstructions" * (self.held is not None)
    kind += "-translation" * (self.inputs is not None)
    name = card_name(done, self.evaluation.extractor.name, kind, self.how["num"])
    if join.is_main_process():
      files.write_json(self.workdir / "evals" / name, card)
    return card["scores"]

  def card(self, done: int, state: core.State) -> dict[str, Any]:
    """Judges -> a card."""
    sampler, rule = self.sampler(done, state), self.evaluation.protocol.floats
    if self.samples is not None:
      self.samples = self.samples.of(sampler)
    elif self.held is not None:
      self.samples = Reconstructions(sampler, self.held, seed=self.how["seed"], rule=rule)
    elif self.inputs is not None:
      how = self.how
      self.samples = Translations(sampler, self.inputs, how["seed"], {}, how["batch"], rule)
    else:
      how, n = self.how, self.how["num"]
      labels = choose_labels(sampler, "turn", n, how["seed"])
      self.samples = ModelSamples(sampler, n, how["seed"], labels, "turn", rule, {}, how["batch"])
    card = self.evaluation.run(self.samples)
    if self.inputs is not None:
      return with_pairs(card, self.samples)
    return card if self.held is None else with_names(card, self.samples)

  def sampler(self, done: int, state: core.State) -> Sampler:
    """What `jaxgen.load` would give of this state's checkpoint."""
    config, groups = self.config, self.model.sampled
    profile = next(iter(config["ema"]), "none")
    if profile != "none":
      state = state.averaged(profile)
    own = sampling_state(
      done,
      {g: state.params[g] for g in groups},
      {g: state.stats[g] for g in groups if g in state.stats},
    )
    classes = config["data"]["classes"]
    return Sampler(
      self.model,
      own,
      self.source.shape,
      self.source.dtype,
      classes,
      {
        "workdir": str(self.workdir),
        "config": digest(config),
        "step": done,
        "ema": profile,
        "dataset": self.source.name,
        "sampler": stepping(config["model"]).get("sampler", {}).get("name"),
      },
      self.source.class_names if classes else (),
    )
