"""Judge samples: of a trained model, of a file, or of a folder.

  jaxgen eval --workdir W --num 1000         (or --samples x.npz --data digits)
  jaxgen eval --workdir W --protocol adm --ref VIRTUAL_imagenet64_labeled.npz
  jaxgen eval --samples folder --protocol clean-fid --ref tfds:cifar10
  jaxgen eval --samples a.npz --ref b.pkl --protocol edm  (of two statistics)
  jaxgen eval --samples clips.npz --data spoken_digits  (or a folder of WAVs)
  jaxgen eval --workdir W --features vggish --weights vggish-10086976.pth  (of clips)
  jaxgen eval --card a.json --against b.json
  jaxgen eval --workdir U --picture u.png  (U enlarges images: restoration.py)
  jaxgen eval --workdir K --picture k.png  (K is a codec: reconstruction.py)
  jaxgen eval --workdir T --picture t.png  (T translates images: translators.py)
  jaxgen eval --workdir V --num 64         (V is a vocoder: vocoding.py)

Without --protocol the built-in judge does it, by features that are learned from
the data: see evaluation/judge.py.
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

from jaxgen import cli, files
from jaxgen.core import trait
from jaxgen.data.sources import open_source, open_split
from jaxgen.data.summary import introduce
from jaxgen.distributed import cores, join
from jaxgen.errors import UserError, printable
from jaxgen.evaluation import (
  audio_distance,
  cards,
  features,
  reconstruction,
  restoration,
  statistics,
  vocoding,
  weights,
)
from jaxgen.evaluation.clip_samples import open_clip_samples
from jaxgen.evaluation.codec_images import MOST, Reconstructions, held_out, is_codec, with_names
from jaxgen.evaluation.collect import Extractor
from jaxgen.evaluation.fid_of_statistics import StatisticsPair
from jaxgen.evaluation.images import SPANS, Dataset, Images, ModelSamples, choose_labels
from jaxgen.evaluation.judge import ImageJudge, Judge, check_like, check_samples, open_judge, report
from jaxgen.evaluation.modes_judge import has_known_modes
from jaxgen.evaluation.protocols import PROTOCOLS, Protocol, protocol
from jaxgen.evaluation.reference import open_images, open_reference, save_statistics
from jaxgen.evaluation.run import Evaluation
from jaxgen.evaluation.scores import METRICS, check_metric
from jaxgen.evaluation.statistics import Reference
from jaxgen.evaluation.translation_data import translates
from jaxgen.evaluation.translations import Translations
from jaxgen.evaluation.translators import evaluate_translator, own_translations, with_pairs
from jaxgen.monitor import results
from jaxgen.monitor.log import append, card_name
from jaxgen.sampling import output, presets, sampler
from jaxgen.sampling.sampler import Sampler, key_of
from jaxgen.sampling.stages import data_of, prepare_devices
from jaxgen.sampling.vocode import vocodes

TEXTS = {  # flags that take text -> default, help
  "workdir": (None, "of the trained model to judge"),
  "samples": (
    None,
    "or x.npz (arr_0, arr_1), x.npy, a folder or .zip of images, a folder of recordings, a data "
    "set; or statistics, see --ref",
  ),
  "data": (None, "what samples imitate, such as digits"),
  "judge": (None, "folder of the judge; default: in the user's cache"),
  "out": (None, "x.json gets the scores; default: in WORKDIR/evals"),
  "protocol": (None, ", ".join(PROTOCOLS) + "; default: the judge's own"),
  "ref": (
    None,
    "statistics x.npz (mu, sigma) or EDM2's x.pkl, samples x.npz or x.npy, a folder or .zip "
    "of images, a data set such as tfds:cifar10; default: what the model was trained on",
  ),
  "ref_split": ("train", "of a data set"),
  "features": (
    "inception",
    "inception, dinov2, or judge: what that looks through; without --protocol vggish, of clips",
  ),
  "inception": (None, "file of Inception's weights"),
  "dinov2": (None, "file of DINOv2's weights"),
  "weights": (None, "file of VGGish's weights"),
  "floats": (None, "what floats of a file mean: signed [-1, 1], unit [0, 1] or bytes 0 .. 255"),
  "labels": ("turn", "of the samples: turn, random, or 0,1,2"),
  "card": (None, "in place of judging: a card that is there"),
  "save_ref": (None, "x.npz gets the statistics of the reference"),
}
NUMBERS = {
  "num": (None, "samples; default: the protocol's, the training split's"),
  "size": (None, "crop and resize images of a data set --ref to this; samples of a clip"),
  "rate": (None, "samples a second of clips of --data=folder:.."),
  "kid_size": (None, "images in a subset of KID, in place of 1000"),
  "seed": (0, "of the samples"),
  "batch": (256, "samples drawn at once"),
}
IN_BUCKETS = (  # flags that take gs://bucket/name
  *("workdir", "samples", "data", "ref", "card", "against", "out"),
  *("classifier", "worse", "perceptual", "judge"),
  *("inception", "dinov2", "weights", "lpips_net", "lpips_lin"),
  *("save_ref", "picture"),
)
LEAST = {"rate": 1, "num": 2, "batch": 1, "kid_size": 2, "size": 1, "seed": 0}


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  text = functools.partial(flags.DEFINE_string, flag_values=values)
  number = functools.partial(flags.DEFINE_integer, flag_values=values)
  names = functools.partial(flags.DEFINE_list, flag_values=values)
  for name, (default, about) in TEXTS.items():
    text(name, default, about)
  for name, (default, about) in NUMBERS.items():
    number(name, default, about)
  names("metrics", None, "in place of the protocol's own: " + ", ".join((*METRICS, "cas")))
  names("against", [], "cards to be ranked with this one")
  flags.DEFINE_bool(
    "reconstructions",
    False,
    "of a VAE, with --protocol: judge what it decodes of test images, as of other codecs",
    flag_values=values,
  )
  flags.DEFINE_bool(
    "convert",
    False,
    "make grey and transparent images RGB; clips of another rate or length like the data",
    flag_values=values,
  )
  restoration.define(values)
  for name in presets.CHOICES:
    (number if "step" in name else text)(name, None, "as in `jaxgen sample`")
  text("knobs", None, "as in `jaxgen sample`")
  for name, about in presets.KNOBS.items():
    flags.DEFINE_float(name, None, f"{about} (where the model has this knob)", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  check_flags(values)
  if values.card or values.samples or values.protocol:
    restoration.check_flags(values)
  if not values.card:
    make_devices(values)
  key_of(values.seed)
  if join.is_main_process():
    check_outputs(values)
  against = {path: cards.load(path) for path in values.against}
  learned = not values.protocol or values.features == "judge" or "cas" in (values.metrics or ())
  if join.joined() and learned and not (values.judge or values.card):
    raise UserError(
      "several processes share a judge that learns: say --judge=FOLDER, which all of them see, or "
      "--protocol with --features=inception or dinov2"
    )
  if values.card:
    if join.is_main_process():
      print(cards.rank({values.card: cards.load(values.card)} | against))
  elif bool(values.workdir) == bool(values.samples):
    raise UserError("evaluate wants one of --workdir=W and --samples=x.npz")
  elif values.protocol:
    evaluate_by_protocol(values, against)
  elif against or values.ref or values.metrics:
    raise UserError("--against, --ref and --metrics want a --protocol: " + ", ".join(PROTOCOLS))
  else:
    text, card = evaluate_with_judge(values)
    if not join.is_main_process():
      return
    print(text)
    if values.out:
      files.write_json(values.out, card)


def make_devices(values: flags.FlagValues) -> None:
  """Before jax has devices: those of a CPU, see `cores`; one for DINOv2, whose layers are wide."""
  if values.protocol and values.features == "dinov2":
    return
  if values.workdir:
    models = values.workdir, values.classifier, values.worse
    prepare_devices(models, min(values.batch, values.num or values.batch))
  elif values.protocol:
    cores.make_devices([])  # batches are as large as devices like
  # Examples of a file may be clips or points.


def check_flags(values: flags.FlagValues) -> None:
  """UserError for what is wrong with flags by themselves."""
  if values.floats not in (None, *SPANS):
    raise UserError(f"--floats={values.floats}: want one of " + ", ".join(SPANS))
  for name, least in LEAST.items():
    if values[name].value is not None and values[name].value < least:
      raise UserError(f"--{name}={values[name].value}: want at least {least}")
  for metric in values.metrics or ():
    if metric != "cas":
      check_metric(metric)
  for name, ends in (("out", ".json"), ("save_ref", ".npz")):
    path = values[name].value
    if path and not path.endswith(ends):
      raise UserError(f"--{name}={path}: want x{ends}")


def check_outputs(values: flags.FlagValues) -> None:
  """UserError for files that may not be written."""
  if values.out:
    results.check_file(values.out)
    if "copies" in (values.metrics or ()):  # they are shown beside it
      results.check_file(files.path(values.out).with_suffix(".png"))
  if values.save_ref:
    results.check_file(values.save_ref, "--save_ref", "mu")
  if values.picture:
    results.check_picture(values.picture, "--picture")


def open_model(values: flags.FlagValues) -> tuple[Sampler, dict[str, float]]:
  """The model of --workdir, and the knobs that flags set."""
  model = sampler.load(values.workdir, **{k: values[k].value for k in presets.CHOICES})
  return model, presets.knobs_from_flags(values)


def imitated(values: flags.FlagValues) -> ConfigDict | None:
  """The config of --data."""
  if not values.data:
    return None
  return ConfigDict(
    dict(source=values.data, split="train", size=values.size or 0, rate=values.rate or 0)
  )


def evaluate_with_judge(values: flags.FlagValues) -> tuple[str, dict[str, Any]]:
  """By the built-in judge of what samples imitate: text, and a card."""
  if values.samples:
    data = imitated(values)
    if not data:
      raise UserError(
        "--samples wants --data, or --protocol and --ref: what are they compared with?"
      )
    x, y, origin = samples_like(data, values)
    check_samples(data, x.shape, x.dtype, y)  # before a judge is trained
    return judged(data, x, y, origin, values)
  model, knobs = open_model(values)
  data = data_of(values.workdir)
  if join.joined() and wants_pairs(model):
    raise UserError(join.ALONE)
  if restoration.enlarges(model.model):
    return restoration.evaluate_upsampler(model, data, knobs, values)
  if translates(model.model):
    return evaluate_translator(model, data, knobs, values)
  if vocodes(model.model):
    return vocoding.evaluate_vocoder(model, data, knobs, values)
  if is_codec(model) and trait(model.model, "wants_prior"):
    return reconstruction.evaluate_codec(model, data, values)
  if values.num is not None:
    check_samples(data, (values.num, *model.shape), model.dtype)
  if not is_codec(model):
    restoration.check_flags(values)
    return judge_model(model, data, knobs, values)
  judge = open_judge(data, values.judge)
  text, card = reconstruction.evaluate_codec(model, data, values, judge)
  own, of_samples = judge_samples(model, judge, knobs, values)
  return f"{text}\n\nsamples:\n{own}", of_samples | {"reconstructions": card}


def wants_pairs(model: Sampler) -> bool:
  """Whether it is judged by what becomes of test examples, and not by samples alone."""
  kinds = (restoration.enlarges, translates, vocodes)
  return is_codec(model) or any(kind(model.model) for kind in kinds)


def samples_like(
  data: ConfigDict, values: flags.FlagValues
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
  """--samples that imitate some data: examples, labels, and what they are."""
  if holds_clips(data):
    return open_clip_samples(values.samples, open_split(data), values.convert, values.num)
  source = open_source(f"npz:{values.samples}")
  return *source.arrays(), {"samples": values.samples, "fingerprint": source.fingerprint}


def holds_clips(data: ConfigDict) -> bool:
  """Whether a config's data are sound."""
  return not has_known_modes(data.source) and bool(trait(open_split(data), "rate"))


def judged(
  data: ConfigDict,
  x: np.ndarray,
  y: np.ndarray | None,
  origin: dict[str, Any],
  values: flags.FlagValues,
) -> tuple[str, dict[str, Any]]:
  """Text, and a card, of examples that imitate some data."""
  if values.features != "vggish":
    return report(open_judge(data, values.judge), x, y, origin)
  if not holds_clips(data):
    raise UserError(f"--features=vggish hears clips, and {data.source} has none")
  real, test = open_split(data), open_split(data, "test")
  return audio_distance.evaluate_clips(x, y, real, test, origin, values.weights)


def judge_model(
  model: Sampler, data: ConfigDict, knobs: dict[str, float], values: flags.FlagValues
) -> tuple[str, dict[str, Any]]:
  """Of a model's samples, by the judge of its data or by VGGish."""
  if values.features != "vggish":
    return judge_samples(model, open_judge(data, values.judge), knobs, values)
  if not holds_clips(data):
    raise UserError(f"--features=vggish hears clips, and {data.source} has none")
  weights.vggish(values.weights)  # mistakes come before the sampling
  n = values.num or len(open_split(data, "test"))
  x, y, origin = draw(model, n, knobs, values)
  return judged(data, x, y, origin, values)


def draw(
  model: Sampler, n: int, knobs: dict[str, float], values: flags.FlagValues
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
  """n samples, their labels, and how they were made."""
  y = model.labels(n, None)
  x = model.sample(values.seed, n, y, **knobs)
  settings = output.json_knobs(model.settings(knobs))
  return x, y, model.card | {"seed": values.seed, "num": n, "knobs": settings}


def judge_samples(
  model: Sampler, judge: Judge, knobs: dict[str, float], values: flags.FlagValues
) -> tuple[str, dict[str, Any]]:
  """Draws samples, and has them judged: text, and a card."""
  return report(judge, *draw(model, values.num or judge.count, knobs, values))


def evaluate_by_protocol(values: flags.FlagValues, against: dict[str, Any]) -> None:
  """As a reference evaluator does."""
  how, metrics = protocol(values.protocol), values.metrics
  if values.kid_size:
    how = dataclasses.replace(how, kid_size=values.kid_size)
  if metrics == ["cas"]:
    raise UserError("cas comes with other metrics: --metrics=fid,cas")
  out = values.out and files.path(values.out)
  if values.samples and statistics.holds(files.local(values.samples)):
    card = compare_statistics(values, how, against)
    if not join.is_main_process():
      return
    if out:
      files.write_json(out, card)
    return show(card, out, against)
  images, data = open_samples(values, how)
  judge = open_accuracy(values, images, data) if "cas" in (metrics or ()) else None
  evaluation = Evaluation(
    open_real(values, how, data, images),
    open_features(values, how, data),
    how,
    tuple(m for m in metrics if m != "cas") if metrics else None,
  )
  if values.save_ref and not evaluation.plan_real.moments:
    raise UserError("--save_ref wants a metric of statistics, such as fid")
  # Before the hours that it takes:
  evaluation.check(images.count, images.labels, images.sizes, images.class_names)
  cards.check_alike({"this evaluation": evaluation.head(images)} | against)
  of_codec, of_translator = isinstance(images, Reconstructions), isinstance(images, Translations)
  if not out and values.workdir:
    kind = how.name + "-reconstructions" * of_codec + "-translation" * of_translator
    name = card_name(images.card["step"], evaluation.extractor.name, kind, images.count)
    out = files.path(values.workdir) / "evals" / name
  if of_translator:
    images.folder = files.scratch(out.with_suffix(".partial")) / "translations"
  card = evaluation.run(
    images,
    out and out.with_suffix(".partial"),
    out and "copies" in evaluation.possible and out.with_suffix(".png"),
  )
  card = with_names(card, images) if of_codec else card
  card = with_pairs(card, images) if of_translator else card
  if judge:
    if out and join.is_main_process():
      files.write_json(out, card)  # should what follows fail
    card = with_accuracy(card, judge, images)
  if not join.is_main_process():
    return
  if out:
    files.write_json(out, card)
  if of_translator:
    images.forget()
  if values.save_ref:
    save_statistics(values.save_ref, evaluation.measure().moments, evaluation.main, card)
  if values.workdir:
    append(values.workdir, images.card["step"], {f"eval/{k}": v for k, v in card["scores"].items()})
  show(card, out, against)


def show(card: dict[str, Any], out: pathlib.Path | None, against: dict[str, Any]) -> None:
  """A card, and how it ranks among others."""
  for line in card["warnings"]:
    print(f"jaxgen: {printable(line)}", file=sys.stderr)
  print(cards.table(card))
  if against:
    print("\n" + cards.rank({str(out or "this evaluation"): card} | against))


def compare_statistics(
  values: flags.FlagValues, how: Protocol, against: dict[str, Any]
) -> dict[str, Any]:
  """The card of two files of statistics, without images and networks."""
  own, ref = (v and files.local(v) for v in (values.samples, values.ref))
  if values.num is not None or values.save_ref:
    raise UserError(f"{own} is statistics of all its images: leave --num and --save_ref")
  if values.features not in statistics.IN_PICKLES:
    raise UserError(
      f"{own} is statistics, of inception or dinov2: not of --features={values.features}"
    )
  if not ref or not statistics.holds(ref):
    raise UserError(
      f"{own} is statistics: --ref must be statistics, too, such "
      "as --save_ref=x.npz writes of images"
    )
  pair = StatisticsPair.open(own, ref, how, values.features, values.metrics)
  cards.check_alike({"this evaluation": pair.head()} | against)
  return pair.card()


def open_samples(values: flags.FlagValues, how: Protocol) -> tuple[Images, ConfigDict | None]:
  """What is judged, and the config of what it imitates, if that is known."""
  if values.samples:
    if values.reconstructions:
      raise UserError("--reconstructions is for a --workdir of a codec")
    images = open_images(
      values.samples,
      how,
      size=values.size,
      span=values.floats,
      convert=values.convert,
      num=values.num,
    )
    return images, imitated(values)
  model, knobs = open_model(values)
  if values.reconstructions and not is_codec(model):
    raise UserError(f"--reconstructions: {values.workdir} is of no codec of images")
  if values.reconstructions or is_codec(model) and trait(model.model, "wants_prior"):
    data = reconstruction.data_for(model, data_of(values.workdir), values)
    source = held_out(data, values.num)
    most = min(values.batch, MOST)
    return Reconstructions(model, source, seed=values.seed, rule=how.floats, most=most), data
  if translates(model.model):
    data = data_of(values.workdir)
    return own_translations(model, data, knobs, values, how.floats), data
  n = how.images if values.num is None else values.num
  labels = choose_labels(model, values.labels, n, values.seed)
  samples = ModelSamples(
    model, n, values.seed, labels, values.labels, how.floats, knobs, values.batch
  )
  return samples, data_of(values.workdir)


def open_real(
  values: flags.FlagValues, how: Protocol, data: ConfigDict | None, images: Images
) -> Reference:
  """What it is compared with; reconstructions with their originals."""
  if values.ref:
    return open_reference(
      values.ref,
      how,
      values.features,
      split=values.ref_split,
      size=values.size,
      span=values.floats,
      convert=values.convert,
    )
  if data is None:
    raise UserError("--protocol wants --ref: what are samples compared with?")
  source, split = open_split(data), data.split
  if isinstance(images, Reconstructions):
    source, split = images.source, images.split
  elif isinstance(images, Translations):
    source, split = images.inputs.real, "test"
  if join.is_main_process():
    introduce(source, split)
  return Reference.of(Dataset(source, split))


def open_features(values: flags.FlagValues, how: Protocol, data: ConfigDict | None) -> Extractor:
  """What looks at images."""
  if values.features != "judge":
    file = values.dinov2 if values.features == "dinov2" else values.inception
    return features.open_extractor(values.features, weights=file, resize=how.resize)
  if data is None:
    raise UserError("--features=judge is a network that learns from --data: name that")
  judge = open_judge(data, values.judge)
  if not isinstance(judge, ImageJudge):
    raise UserError("the judge of points has no features: leave --protocol")
  return dataclasses.replace(judge.extractor, batch=features.batch_size(None))


def open_accuracy(values: flags.FlagValues, images: Images, data: ConfigDict | None) -> ImageJudge:
  """The judge whose classification accuracy score is wanted."""
  if data is None or images.labels is None:
    raise UserError("cas wants labelled samples, and --data that they imitate")
  if has_known_modes(data.source):
    raise UserError(f"cas is of images with one label each: {data.source} is judged by its modes")
  check_samples(data, (images.count, *images.sizes[0], None), np.uint8, images.labels)
  if open_split(data).classes < 2:
    raise UserError(f"cas wants classes, and {data.source} has none")
  return open_judge(data, values.judge)


def with_accuracy(card: dict[str, Any], judge: ImageJudge, images: Images) -> dict[str, Any]:
  """The card, with the classification accuracy score of judge.py."""
  x = np.concatenate([x[..., : judge.real.shape[-1]] for x in images.read(0, images.count)])
  check_like(judge.real, x.shape, x.dtype)
  name = f"cas@{judge.features}"
  return card | {
    "scores": card["scores"] | {name: judge.cas(x, images.labels)},
    "cas": judge.card | {"by_class": judge.cas_by_class(x, images.labels)},
  }


if __name__ == "__main__":
  cli.run("jaxgen.evaluate")
