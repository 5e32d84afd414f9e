"""Translate images by a trained pix2pix, Palette or CycleGAN.

  jaxgen translate --workdir W --data FOLDER --out DIR
  jaxgen translate --workdir W --data FOLDER --truth FOLDER --out DIR --page x.html
  jaxgen translate --workdir W --data photos --degrade --out DIR
  jaxgen translate --workdir W --data photos --masks masks --out DIR   (white is kept)
  jaxgen translate --workdir C --data zebras --direction ba --out DIR
  jaxgen translate --workdir W1,W2 --out DIR --num 200 --page x.html

Without --data it takes test images of the model's own data. Every file says what made
it, of which image, by which command. Where the truth is known, results are compared
with it: PSNR, SSIM, distances by networks, Fréchet distances; and where classes are,
whether a judge still sees them. Images of another shape than the model's lose all but
the middle square and are resized (--fit middle), are stretched, or are refused.
"""

import functools
import pathlib
import shlex
import sys
from typing import Any

import numpy as np
from absl import flags

from jaxgen.checkpoint.meta import latest, settings
from jaxgen.core import trait
from jaxgen.errors import UserError, printable
from jaxgen.monitor.pictures import save_png
from jaxgen.monitor.results import check_report
from jaxgen.sampling import presets
from jaxgen.sampling.output import json_knobs
from jaxgen.sampling.presets import knobs_from_flags
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.tasks import translation_scores as scoring
from jaxgen.tasks.translation_inputs import (
  FITS,
  Folders,
  Inputs,
  check_out,
  check_translator,
  of_folders,
  of_own_data,
  source_shape,
)

KNOBS = ("steps", "eta", "guidance")
DIRECTIONS = ("ab", "ba")
LOADED = ("ema", "step", "sampler", "respacing")


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
  flag("judge", None, "workdir of a classifier, whose features and classes judge")
  flag("lpips_net", None, "AlexNet's or VGG16's weights, for LPIPS")
  flag("lpips_lin", None, "LPIPS' linear weights for that network")
  flag("ema", None, "profile of averaged weights")
  flag("sampler", None, "of Palette, in place of the config's")
  flag("respacing", None, "of Palette: which levels to visit")
  flag("knobs", None, "any others: image_stats=0,dropout=0")
  text = "make sources of --data as in training, which is then the truth"
  flags.DEFINE_bool("degrade", False, text, flag_values=values)
  for name, default, text in (
    ("num", None, "how many of its own data; default: all"),
    ("seed", 0, "of all randomness"),
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
  command, out = command_of(values), pathlib.Path(values.out).expanduser()
  page = scoring.check_page(values.page) if values.page else None
  if page:
    json_name = page.with_suffix(".json").name
    check_report(page.parent, json_name, [page.name], ("made", "scores"))
  models = open_models(values)
  judges = scoring.open_judges(values.judge, values.lpips_net, values.lpips_lin)
  knobs = {name: knobs_of(values, model) for name, model in models.items()}
  inputs = inputs_of(values, next(iter(models.values())))
  infos = {
    name: model.card
    | {"seed": values.seed, "direction": values.direction, "command": command}
    | {"knobs": json_knobs(model.settings(knobs[name]))}
    for name, model in models.items()
  }
  homes = {name: out / name if len(models) > 1 else out for name in models}
  for name in models:
    check_out(homes[name], inputs, infos[name])
  report_inputs(inputs)
  results = {}
  for name, model in models.items():
    results[name] = translate(model, inputs, values.seed, values.batch, knobs[name])
    write(homes[name], results[name], inputs, infos[name])
    print(f"{len(inputs.names)} images -> {printable(homes[name])}")
  card = scoring.card_of(inputs, results, judges, infos)
  if text := scoring.table(card):
    print(text)
  if page:
    scoring.write_page(page, scoring.page(inputs, results, card, infos, command), card)
    print(f"pictures and numbers -> {printable(page)}")
  if inputs.skipped:
    name, why = next(iter(inputs.skipped.items()))
    total = len(inputs.skipped) + len(inputs.names)
    raise UserError(f"{len(inputs.skipped)} of {total} images were skipped, such as {name}: {why}")


def check_flags(values: flags.FlagValues) -> None:
  """UserError for flags that do not go together."""
  if values.direction not in DIRECTIONS:
    raise UserError(f"--direction={values.direction}: want ab or ba")
  if values.data is None:
    for name in ("truth", "masks", "degrade"):
      if values[name].value:
        raise UserError(f"--{name} is for images of --data: give that, too")
  elif values.num is not None:
    raise UserError("--num is of a model's own data, and all images of --data are taken: leave it")


def open_models(values: flags.FlagValues) -> dict[str, Sampler]:
  """The models by name, all of the same shapes."""
  models = {}
  for workdir in values.workdir.split(","):
    model = load(workdir, **{k: values[k].value for k in LOADED})
    check_translator(model, workdir)
    if values.direction == "ba" and "backwards" not in model.model.knobs:
      raise UserError(f"--direction=ba: {workdir} holds no CycleGAN, and goes one way")
    name = pathlib.Path(workdir).resolve().name
    models[name if name not in models else f"{name}-{len(models)}"] = model
  shapes = {name: shapes_of(model) for name, model in models.items()}
  if len(set(shapes.values())) > 1:
    raise UserError(
      f"--workdir={values.workdir}: models side by side translate images of one shape, and "
      + ", ".join(f"{name} {list(shape[0])}" for name, shape in shapes.items())
    )
  return models


def shapes_of(model: Sampler) -> tuple[Any, ...]:
  """Of the source and of what is made; and whether there is a hole."""
  return source_shape(model), tuple(model.shape), "keep" in trait(model.model, "cond")


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
  backwards = values.direction == "ba"
  if values.data is None:
    data = settings(latest(values.workdir.split(",")[0])).data
    return of_own_data(model, data, values.num, backwards)
  return of_folders(
    model, Folders(values.data, values.truth, values.masks, values.fit, values.degrade)
  )


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


def translate(
  model: Sampler, inputs: Inputs, seed: int, batch: int, knobs: dict[str, float]
) -> np.ndarray:
  """Results uint8 [N, H, W, C]; image i depends on its source, the seed, i and knobs alone."""
  labels = None
  if model.classes:
    if not trait(model.model, "free"):
      raise UserError("this model wants labels, and images of folders have none")
    labels = -1
  n = len(inputs.names)
  return model.sample(seed, n, labels, batch=batch, **inputs.conditions, **knobs)


def write(home: pathlib.Path, x: np.ndarray, inputs: Inputs, info: dict[str, Any]) -> None:
  """A PNG for each image, with how it was made in it."""
  for image, name, origin in zip(x, inputs.names, inputs.origins, strict=True):
    rgb = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
    save_png(home / f"{name}.png", rgb, info | origin)


def command_of(values: flags.FlagValues) -> str:
  """The command as it was given, its flags in order of their names."""
  words = ["jaxgen", "translate"]
  for name in sorted(values):
    if values[name].present and name not in ("help", "h"):
      words.append(f"--{name}={values[name].value}")
  return shlex.join(words)
