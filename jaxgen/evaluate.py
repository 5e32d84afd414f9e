"""Judge samples: of a trained model, of a file, or of a folder.

  jaxgen eval --workdir W --num 1000         (or --samples x.npz --data digits)
  jaxgen eval --workdir W --protocol adm --ref VIRTUAL_imagenet64_labeled.npz
  jaxgen eval --samples folder --protocol clean-fid --ref tfds:cifar10
  jaxgen eval --card a.json --against b.json
  jaxgen eval --workdir U --picture u.png  (U enlarges images: restoration.py)

Without --protocol the built-in judge does it, for small data: see judge.py.
How real test data score is the floor: nothing beats it but by luck or copying.
With one, numbers are those of a reference evaluator, on a card that says how
they were made; only cards that were made alike are ranked.
"""
import dataclasses
import functools
import pathlib
import sys
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import cli, jsonfile, processes, restoration, sample
from jaxgen.chain import data_of
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError, printable
from jaxgen.evaluation import cards
from jaxgen.evaluation.collect import Extractor
from jaxgen.evaluation.drawing import Drawn, choose_labels
from jaxgen.evaluation.images import Dataset, Images
from jaxgen.evaluation.logs import append, card_name
from jaxgen.evaluation.protocols import PROTOCOLS, Protocol, protocol
from jaxgen.evaluation.reference import (
  Reference,
  open_images,
  open_reference,
  save_statistics,
)
from jaxgen.evaluation.run import Evaluation
from jaxgen.evaluation.scores import METRICS
from jaxgen.judge import means, open_judge, spreads, table


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  number = functools.partial(flags.DEFINE_integer, flag_values=values)
  flag("workdir", None, "of the trained model to judge")
  flag("samples", None, "or x.npz (arr_0, arr_1), a folder, a data set")
  flag("data", None, "what samples imitate, such as digits")
  flag("judge", None, "folder of the judge; default: in the user's cache")
  flag("out", None, "x.json gets the scores; default: in WORKDIR/evals")
  flag("protocol", None, ", ".join(PROTOCOLS) + "; default: the judge's own")
  flag("ref", None, "statistics or samples x.npz, a folder, a data set such "
       "as tfds:cifar10; default: what the model was trained on")
  flag("ref_split", "train", "of a data set")
  flags.DEFINE_list("metrics", None, "in place of the protocol's own: "
                    + ", ".join((*METRICS, "cas")), flag_values=values)
  flag("features", "inception", "inception, dinov2, or judge: the classifier")
  flag("inception", None, "file of Inception's weights")
  flag("dinov2", None, "file of DINOv2's weights")
  flag("floats", None, "what floats of a file mean: signed [-1, 1], unit "
       "[0, 1] or bytes 0 .. 255")
  flag("labels", "turn", "of the samples: turn, random, or 0,1,2")
  flag("card", None, "in place of judging: a card that is there")
  flag("save_ref", None, "x.npz gets the statistics of the reference")
  flags.DEFINE_list("against", [], "cards to be ranked with this one",
                    flag_values=values)
  flags.DEFINE_bool("convert", False, "make grey and transparent images RGB",
                    flag_values=values)
  number("num", None, "samples; default: the protocol's, the training split's")
  number("size", None, "crop and resize images of a data set --ref to this")
  number("kid_size", None, "images in a subset of KID, in place of 1000")
  number("seed", 0, "of the samples")
  number("batch", 256, "samples drawn at once")
  restoration.define(values)
  for name in sample.CHOICES:
    (number if "step" in name else flag)(name, None, "as in `jaxgen sample`")
  flag("knobs", None, "as in `jaxgen sample`")
  for name, text in sample.KNOBS.items():
    flags.DEFINE_float(name, None, f"{text} (where the model has this knob)",
                       flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if values.card or values.samples or values.protocol:
    restoration.check_flags(values)
  against = {path: cards.load(path) for path in values.against}
  if processes.joined() and (
      not values.protocol or values.features == "judge"
      or "cas" in (values.metrics or ())):
    raise UserError("several processes judge by a --protocol, with inception "
                    "or dinov2: start this on one machine")
  if values.card:
    print(cards.rank({values.card: cards.load(values.card)} | against))
  elif bool(values.workdir) == bool(values.samples):
    raise UserError("evaluate wants one of --workdir=W and --samples=x.npz")
  elif values.protocol:
    judge_by_protocol(values, against)
  elif against or values.ref or values.metrics:
    raise UserError("--against, --ref and --metrics want a --protocol: "
                    + ", ".join(PROTOCOLS))
  else:
    judge_as_ever(values)


def open_model(values: flags.FlagValues):
  """The model of --workdir, and the knobs that were given."""
  model = sample.load(values.workdir, **{
      k: values[k].value for k in sample.CHOICES})
  return model, sample.turned(values)


def judge_as_ever(values: flags.FlagValues) -> None:
  """By the built-in judge."""
  if values.samples:
    if not values.data:
      raise UserError("--samples wants --data, or --protocol and --ref: what "
                      "are they compared with?")
    source = open_source(f"npz:{values.samples}")
    judge = open_judge(ConfigDict(dict(source=values.data, split="train")),
                       values.judge)
    x, y = source.arrays()
    made = {"samples": values.samples, "fingerprint": source.fingerprint}
  else:
    model, knobs = open_model(values)
    data = data_of(values.workdir)
    if restoration.enlarges(model.model):
      return restoration.judge(values, model, knobs, data)
    restoration.check_flags(values)
    judge = open_judge(data, values.judge)
    n = values.num or judge.count
    y = model.labels(n, None)
    x = model.sample(values.seed, n, y, **knobs)
    made = model.card | {"seed": values.seed, "num": n,
                         "knobs": sample.told(model.settings(knobs))}
  scores, floor = judge.scores(x, y), judge.floor()
  print(table(scores, floor))
  if values.out:
    jsonfile.write(values.out, {
        "made": made, "judge": judge.card, "scores": means(scores),
        "spread": spreads(scores), "floor": means(floor)})


def judge_by_protocol(values: flags.FlagValues, against: dict[str, Any]
                      ) -> None:
  """As a reference evaluator does."""
  how, metrics = protocol(values.protocol), values.metrics
  if values.kid_size:
    how = dataclasses.replace(how, kid_size=values.kid_size)
  if values.out and not values.out.endswith(".json"):
    raise UserError(f"--out={values.out}: want x.json")
  if metrics == ["cas"]:
    raise UserError("cas comes with other metrics: --metrics=fid,cas")
  images, data = open_samples(values, how)
  evaluation = Evaluation(
      open_real(values, how, data), open_features(values, how, data), how,
      tuple(m for m in metrics if m != "cas") if metrics else None)
  if values.save_ref and not evaluation.plan_real.moments:
    raise UserError("--save_ref wants a metric of statistics, such as fid")
  head = evaluation.head(images)  # before the hours that it takes
  cards.check_alike({"this evaluation": head} | against)
  out = values.out and pathlib.Path(values.out)
  if not out and values.workdir:
    out = pathlib.Path(values.workdir) / "evals" / card_name(
        images.card["step"], evaluation.extractor.name, how.name, images.count)
  card = evaluation.run(
      images, out and out.with_suffix(".partial"),
      out and "copies" in evaluation.wanted and out.with_suffix(".png"))
  if "cas" in (metrics or ()):
    card = with_accuracy(card, values, images, data)
  if not processes.lead():
    return
  if out:
    jsonfile.write(out, card)
  if values.save_ref:
    save_statistics(values.save_ref, evaluation.measure().moments,
                    evaluation.main, card)
  if values.workdir:
    append(values.workdir, images.card["step"], {
        f"eval/{k}": v for k, v in card["scores"].items()})
  for line in card["warnings"]:
    print(f"jaxgen: {printable(line)}", file=sys.stderr)
  print(cards.table(card))
  if against:
    print("\n" + cards.rank({str(out or "this evaluation"): card} | against))


def open_samples(values: flags.FlagValues, how: Protocol
                 ) -> tuple[Images, ConfigDict | None]:
  """What is judged, and the config of what it imitates, if that is known."""
  if values.samples:
    data = values.data and ConfigDict(dict(source=values.data, split="train"))
    return open_images(values.samples, how, size=values.size,
                       span=values.floats, convert=values.convert,
                       num=values.num), data
  model, knobs = open_model(values)
  n = how.images if values.num is None else values.num
  labels = choose_labels(model, values.labels, n, values.seed)
  return Drawn(
      model, n, values.seed, labels, values.labels, how.floats, knobs,
      values.batch), data_of(values.workdir)


def open_real(values: flags.FlagValues, how: Protocol,
              data: ConfigDict | None) -> Reference:
  """What it is compared with."""
  if values.ref:
    return open_reference(values.ref, how, split=values.ref_split,
                          size=values.size, span=values.floats,
                          convert=values.convert)
  if data is None:
    raise UserError("--protocol wants --ref: what are samples compared with?")
  images = Dataset(open_source(data.source, split=data.split,
                               size=data.get("size") or None), data.split)
  return Reference(images.card, {}, images)


def open_features(values: flags.FlagValues, how: Protocol,
                  data: ConfigDict | None) -> Extractor:
  """What looks at images."""
  from jaxgen.evaluation import extract, judging  # networks: not for all
  if values.features != "judge":
    return extract.open_extractor(
        values.features, weights=values.dinov2 if values.features == "dinov2"
        else values.inception, resize=how.resize)
  if data is None:
    raise UserError("--features=judge is a classifier of --data: name that")
  judge = open_judge(data, values.judge)
  if not hasattr(judge, "classifier"):
    raise UserError("the judge of points has no features: leave --protocol")
  return judging.JudgeFeatures(judge.features, judge.classifier)


def with_accuracy(card: dict[str, Any], values: flags.FlagValues,
                  images: Images, data: ConfigDict | None) -> dict[str, Any]:
  """The card, with the classification accuracy score of judge.py."""
  if data is None or images.labels is None:
    raise UserError("cas wants labelled samples, and --data that they imitate")
  judge = open_judge(data, values.judge)
  if not hasattr(judge, "cas"):
    raise UserError(f"cas is of images with one label each: {data.source} is "
                    "judged by its modes")
  x = np.concatenate([x[..., :judge.real.shape[-1]] for x in images.read(
      0, images.count)])
  judge.check(x)
  name = f"cas@{judge.features}"
  return card | {"scores": card["scores"] | {name: judge.cas(x, images.labels)},
                 "cas": judge.card}


if __name__ == "__main__":
  cli.run("jaxgen.evaluate")
