"""Translate images by a trained pix2pix, Palette or CycleGAN.

  jaxgen translate --workdir W --data FOLDER --out DIR
  jaxgen translate --workdir W --data FOLDER --truth FOLDER --out DIR --page x.html
  jaxgen translate --workdir W --data photos --degrade --out DIR
  jaxgen translate --workdir J --data photos --degrade --quality 10 --out DIR  (of JPEGs)
  jaxgen translate --workdir W --data photos --masks masks --out DIR   (white is kept)
  jaxgen translate --workdir C --data zebras --direction ba --out DIR
  jaxgen translate --workdir W1,W2 --out DIR --num 200 --page x.html
  jaxgen translate --workdir W --copies own --out DIR   (copies of training images)

Without --data it takes test images of the model's own data. Every file says what made
it, of which image, by which command. Where the truth is known, results are compared
with it: PSNR, SSIM, distances by networks, Fréchet distances; and where classes are,
whether a judge still sees them: --judge, or of the model's own data the built-in one.
Several workdirs stand side by side; those that are seeds of one config in one row.
Images of another shape than the model's lose all but the middle square and are
resized (--fit middle), are stretched, or are refused.
"""

import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxgen import files
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.core import trait
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError, printable
from jaxgen.evaluation import perceptual
from jaxgen.evaluation import translation_scores as scoring
from jaxgen.evaluation.judge import open_judge
from jaxgen.evaluation.translation_data import (
  Inputs,
  check_translator,
  goes_back,
  of_own_data,
  source_shape,
)
from jaxgen.evaluation.translation_scores import Judges, Look
from jaxgen.evaluation.translations import Translations
from jaxgen.evaluation.translators import data_of_kind, judge_of
from jaxgen.models.translation import same_maker
from jaxgen.monitor.pictures import save_png
from jaxgen.monitor.results import check_report
from jaxgen.sampling import presets
from jaxgen.sampling.output import json_knobs
from jaxgen.sampling.presets import knobs_from_flags
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.tasks import memorisation, translation_page
from jaxgen.tasks.commands import command_of
from jaxgen.tasks.translation_inputs import FITS, Folders, check_out, of_folders
from jaxgen.tasks.translation_seeds import config_key, with_seeds

KNOBS = ("steps", "eta", "guidance")
DIRECTIONS = ("ab", "ba")
LOADED = ("ema", "step", "sampler", "respacing")
IN_BUCKETS = (  # flags that take gs://bucket/name
  *("workdir", "judge", "lpips_net", "lpips_lin"),
  *("data", "truth", "masks", "out", "page"),
)


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model, or of several with commas: side by side")
  flag("data", None, "folder of images to translate; default: test images of its own data")
  flag("out", None, "folder for the results, a PNG for each image")
  flag("truth", None, "folder of what they should become, files of the same names")
  flag("masks", None, "folder of masks of the same names: white is kept, black is filled")
  flag("direction", "ab", "of CycleGAN: ab or ba")
  flag("fit", "middle", "images of another shape: " + ", ".join(FITS))
  flag("page", None, "x.html gets pictures and numbers, x.json the numbers")
  text = "workdir of a classifier, whose features and classes judge; default: the built-in one, of "
  flag("judge", None, text + "own data with classes; none: nothing")
  flag("lpips_net", None, "AlexNet's or VGG16's weights, for LPIPS")
  flag("lpips_lin", None, "LPIPS' linear weights for that network")
  memorisation.define(values)
  flag("ema", None, "profile of averaged weights")
  flag("sampler", None, "of Palette, in place of the config's")
  flag("respacing", None, "of Palette: which levels to visit")
  flag("knobs", None, "any others: image_stats=0,dropout=0")
  text = "make sources of --data as in training, which is then the truth"
  flags.DEFINE_bool("degrade", False, text, flag_values=values)
  for name, default, text in (
    ("num", None, "how many of its own data; default: all"),
    ("seed", 0, "of all randomness"),
    ("quality", None, "of JPEGs that sources are made as, 1 to 100; default: the config's"),
    ("batch", 64, "images translated at once"),
    ("step", None, "of the checkpoint; default: the last"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)
  for name in KNOBS:
    flags.DEFINE_float(name, None, presets.KNOBS[name], flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("translate needs --workdir=W and --out=FOLDER")
  check_flags(values)
  command, out = command_of("translate", values), files.path(values.out)
  page = translation_page.check_page(values.page) if values.page else None
  if page:
    json_name = page.with_suffix(".json").name
    check_report(page.parent, json_name, [page.name], ("made", "scores"))
  models, keys = open_models(values)
  first = next(iter(models.values()))
  copies = {name: open_copies(values, model) for name, model in models.items()}
  networks, inputs = open_networks(values, first.shape), inputs_of(values, first)
  results = {
    name: Translations(model, inputs, values.seed, knobs_of(values, model), values.batch)
    for name, model in models.items()
  }
  infos = {name: info_of(values, own, command) for name, own in results.items()}
  homes = {name: out / name if len(models) > 1 else out for name in models}
  for name in models:
    check_out(homes[name], inputs, infos[name])
  report_inputs(inputs)
  for name, own in results.items():
    write(homes[name], own.x, inputs, infos[name])
    print(f"{len(inputs.names)} images -> {printable(homes[name])}")
  judges = with_builtin(networks, values, len(inputs.names))
  card = with_seeds(scoring.card_of(inputs, results, judges), keys) | {"command": command}
  checks = [
    look(results[name].x, what=f"results of {name}") for name, look in copies.items() if look
  ]
  card |= {"copies": {c.what: c.card for c in checks}} if checks else {}
  for line in scoring.doubts(judges):
    print(f"jaxgen: {line}", file=sys.stderr)
  if text := scoring.table(card):
    print(text)
  for check in checks:
    print(check.line())
  if page:
    images = {name: own.x for name, own in results.items()}
    html = translation_page.page(inputs, images, card, infos, command, checks)
    translation_page.write_page(page, html, card)
    print(f"pictures and numbers -> {printable(page)}")
  if inputs.skipped:
    name, why = next(iter(inputs.skipped.items()))
    total = len(inputs.skipped) + len(inputs.names)
    raise UserError(f"{len(inputs.skipped)} of {total} images were skipped, such as {name}: {why}")


def check_flags(values: flags.FlagValues) -> None:
  """UserError for flags that do not go together."""
  if values.direction not in DIRECTIONS:
    raise UserError(f"--direction={values.direction}: want ab or ba")
  if values.quality is not None and not 1 <= values.quality <= 100:
    raise UserError(f"--quality={values.quality}: want 1 to 100")
  if values.quality is not None and values.data and not values.degrade:
    raise UserError("--quality is of sources that are made of --data: say --degrade, too")
  if values.data is None:
    for name in ("truth", "masks", "degrade"):
      if values[name].value:
        raise UserError(f"--{name} is for images of --data: give that, too")
  elif values.num is not None:
    raise UserError("--num is of a model's own data, and all images of --data are taken: leave it")


def open_models(values: flags.FlagValues) -> tuple[dict[str, Sampler], dict[str, str]]:
  """The models by name, all of the same shapes; and keys, alike for seeds of one config."""
  models, keys = {}, {}
  for workdir in values.workdir.split(","):
    model = load(workdir, **{k: values[k].value for k in LOADED})
    check_translator(model.model, model.shape, workdir)
    if values.direction == "ba" and not goes_back(model.model):
      raise UserError(f"--direction=ba: {workdir} holds no CycleGAN, and goes one way")
    name = files.path(workdir).resolve().name
    name = name if name not in models else f"{name}-{len(models)}"
    models[name], keys[name] = model, config_key(workdir, model.card["step"])
  shapes = {name: shapes_of(model) for name, model in models.items()}
  if len(set(shapes.values())) > 1:
    raise UserError(
      f"--workdir={values.workdir}: models side by side translate images of one shape, and "
      + ", ".join(f"{name} {list(shape[0])}" for name, shape in shapes.items())
    )
  if values.data is None or values.degrade:
    check_sources(models)
  return models, keys


def open_networks(values: flags.FlagValues, shape: Sequence[int]) -> Judges:
  """What looks at results [H, W, C], as flags and the environment say."""
  nets, look = [], None
  if values.judge and values.judge != "none":
    classifier = load(values.judge, samples=False)
    nets.append(perceptual.of_classifier(classifier))
    look = Look.of_classifier(classifier)
  if values.lpips_net or values.lpips_lin or perceptual.is_in_environment():
    nets.append(perceptual.open_lpips(values.lpips_net, values.lpips_lin))
  chosen = bool(look or values.lpips_net or values.lpips_lin)
  return Judges(scoring.fitting(nets, shape, chosen), look)


def with_builtin(judges: Judges, values: flags.FlagValues, count: int) -> Judges:
  """With the built-in judge of the model's own data, where nobody chose and classes are."""
  if values.judge or values.data is not None:
    return judges
  data, backwards = own_data(values), values.direction == "ba"
  kind = data_of_kind(data, backwards)
  if kind is None or open_split(kind).classes < 2:
    return judges
  return judges._replace(look=judge_of(data, count, None, backwards))


def open_copies(values: flags.FlagValues, model: Sampler) -> memorisation.Copies | None:
  """What looks for copies of training images of the kind that is made, where that is asked for."""
  workdir = str(model.card["workdir"])
  if values.copies != memorisation.OWN:
    return memorisation.open_copies(values.copies, workdir)
  kind = data_of_kind(settings(latest(workdir)).data, values.direction == "ba")
  if kind is None:
    raise UserError("--copies=own: name the training images of that kind: --copies=folder:PATH")
  return memorisation.Copies(open_judge(kind))


def own_data(values: flags.FlagValues) -> ConfigDict:
  """config.data of the first model."""
  return settings(latest(values.workdir.split(",")[0])).data


def info_of(values: flags.FlagValues, own: Translations, command: str) -> dict[str, Any]:
  """How results were made, for their files."""
  more = {} if values.quality is None else {"quality": values.quality}
  return (
    own.sampler.card
    | {"seed": values.seed, "direction": values.direction, "command": command}
    | {"knobs": json_knobs(own.sampler.settings(dict(own.knobs)))}
    | more
  )


def check_sources(models: dict[str, Sampler]) -> None:
  """UserError for models side by side whose sources are made in several ways."""
  makers = {name: model.model.cond["source"] for name, model in models.items()}
  first, *others = makers
  for name in others:
    if not same_maker(makers[first], makers[name]):
      raise UserError(
        f"{first} and {name} translate other sources: side by side they take the same, of a folder "
        "--data without --degrade"
      )


def shapes_of(model: Sampler) -> tuple[Any, ...]:
  """Of the source and of what is made; and whether there is a hole."""
  return (
    source_shape(model.model, model.shape),
    tuple(model.shape),
    "keep" in trait(model.model, "cond"),
  )


def knobs_of(values: flags.FlagValues, model: Sampler) -> dict[str, float]:
  """Those of the flags that a model has; of several models each takes its own."""
  knobs = knobs_from_flags(values)
  own = model.model.knobs
  if "," in values.workdir:
    knobs = {k: v for k, v in knobs.items() if k in own}
  if "backwards" in own:
    knobs = {"backwards": float(values.direction == "ba")} | knobs
  model.settings(knobs)  # says what is wrong with them
  return knobs


def inputs_of(values: flags.FlagValues, model: Sampler) -> Inputs:
  """What is to be translated."""
  game, options = model.model, {} if values.quality is None else {"quality": float(values.quality)}
  if values.data is None:
    backwards = values.direction == "ba"
    return of_own_data(
      game, model.shape, own_data(values), values.num, backwards=backwards, options=options
    )
  folders = Folders(values.data, values.truth, values.masks, values.fit, values.degrade, options)
  return of_folders(model, folders)


def report_inputs(inputs: Inputs) -> None:
  """Lines on stderr on what was left out, or changed."""
  for name, why in inputs.skipped.items():
    print(f"jaxgen: {printable(name)} is skipped: {why}", file=sys.stderr)
  if inputs.resized:
    height, width = inputs.source.shape[1:3]
    print(
      f"jaxgen: {inputs.resized} of {len(inputs.names)} images were resized to {width}x{height}",
      file=sys.stderr,
    )


def write(home: pathlib.Path, x: np.ndarray, inputs: Inputs, info: dict[str, Any]) -> None:
  """A PNG for each image, with how it was made in it."""
  for image, name, origin in zip(x, inputs.names, inputs.origins, strict=True):
    rgb = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
    save_png(home / f"{name}.png", rgb, info | origin)
