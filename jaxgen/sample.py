"""Draw samples from a trained model.

  jaxgen sample --workdir W --num 64 --labels 3 --steps 25 --out grid.png
  jaxgen sample --workdir W --classifier C --scale 2.0 --out guided.png
  jaxgen sample --workdir W --worse V --auto 1.5 --out guided.png
  jaxgen sample --workdir U --low_res small.npz --respacing 250 --out large.npz
  jaxgen sample --workdir U --low_res photos/ --sampler ddim --out large/
  jaxgen sample --workdir BASE,UP --knobs steps_1=10,level_1=0.2 --out x.png
  jaxgen sample --workdir G --truncation 0.5 --interpolate 8 --out walk.png

`--out` is one picture (x.png), a sample file (x.npz) or a folder. Walks, mixed
styles and found latents of GANs: see jaxgen/controls.py. From Python:

  model = jaxgen.load("W")
  x = model.sample(0, 64, labels=3, steps=25, guidance=1.5)
"""
import functools
import pathlib
from typing import Any

import numpy as np
from absl import flags

from jaxgen import cli, controls
from jaxgen.data.sources import open_source
from jaxgen.distributed import join
from jaxgen.errors import UserError, printable
from jaxgen.monitor import results
from jaxgen.monitor.results import kind_of
from jaxgen.sampling.output import json_knobs, part_of, write
from jaxgen.sampling.presets import SAMPLERS
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.upscale import enlarge_folder, factor_of

__all__ = ["Sampler", "digest_of", "load", "portrait", "told", "write"]

# What `load` is told by flags.
CHOICES = ("ema", "step", "sampler", "respacing", "classifier", "worse",
           "guide_ema", "guide_step")
KNOBS = {
    "steps": "points of the path",
    "guidance": "weight of guidance without a classifier; 1: none",
    "scale": "weight of the classifier's gradient; 0: none",
    "auto": "weight of guidance away from the worse model; 1: none",
    "lo": "guide above this sigma / alpha",
    "hi": "guide up to this sigma / alpha",
    "eta": "share of fresh noise: 0 DDIM's, 1 DDPM's",
    "frac": "DDPM's variance: 0 fixed small, 1 fixed large",
    "churn": "Heun's fresh noise", "s_min": "churn above this sigma / alpha",
    "s_max": "churn below this sigma / alpha", "s_noise": "churn's noise",
    "snr": "of the corrector's Langevin steps",
    "cap": "of a Langevin step, as a share of sigma^2; default: none",
    "level": "an upsampler's noise on its small images, 0 to 1",
    "first": "noisiest time of --respacing warped",
    "bend": "its power: above 1 there are more points at low noise",
    "temperature": "of z", "noise": "share of a VAE's own noise",
    **controls.KNOBS}


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "x.png (one grid), x.npz (arr_0, arr_1) or a folder")
  flag("labels", None, "one or several, by number or by name: 3 or nature,1; "
       "-1: any, of models that are guided without a classifier; default: each "
       "in turn")
  flag("sampler", None, "in place of the config's: " + ", ".join(SAMPLERS))
  flag("respacing", None, "which times, as ADM says it (250, ddim25, 10,10,20) "
       "or by rule: karras, even, ...")
  flag("classifier", None, "workdir of a noisy classifier to guide with")
  flag("worse", None, "workdir of a worse model to keep away from")
  flag("low_res", None, "x.npz of small images (and labels) to enlarge; or a "
       "folder of images of any size, enlarged into the folder --out")
  flag("ema", None, "profile of averaged weights, or a width such as 0.1")
  flag("guide_ema", None, "the same of the classifier or the worse model")
  flag("knobs", None, "any others, such as those of a cascade's stages: "
       "steps_1=10,level_1=0.2")
  controls.define(values)
  for name, default, text in (
      ("num", None, "how many; default: 64, or all of low_res"),
      ("seed", 0, "of all randomness"), ("batch", 256, "samples drawn at once"),
      ("step", None, "of the checkpoint; default: the last"),
      ("guide_step", None, "of the classifier's or the worse model's")):
    flags.DEFINE_integer(name, default, text, flag_values=values)
  for name, text in KNOBS.items():
    flags.DEFINE_float(name, None, f"{text} (where the model has this knob)",
                       flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("sample needs --workdir=W and --out=x.png, x.npz or folder")
  kind = kind_of(values.out)  # before the work, not after it
  asked, inputs = controls.asked(values), (values.low_res, values.project)
  if join.joined() and (asked or values.low_res):
    raise UserError("only plain samples are drawn by several processes: start "
                    "this one on one machine")
  old = False  # whether something is replaced
  if kind and join.lead():
    old = results.check_file(values.out)
    if pathlib.Path(values.out).resolve() in (
        pathlib.Path(p).expanduser().resolve() for p in inputs if p):
      raise UserError(f"--out={values.out} would replace what is read: give "
                      "another name")
  if values.low_res and pathlib.Path(values.low_res).expanduser().is_dir():
    return enlarge(values, kind)
  cond, y, of = small_images(values.low_res)
  model = load(values.workdir, **{k: values[k].value for k in CHOICES})
  if values.labels is not None or not model.classes:
    y = model.numbers(parse_labels(values.labels))
  knobs = turned(values)
  model = controls.settled(model, values.standing, knobs)
  info = model.card | of | {"seed": values.seed,
                            "knobs": json_knobs(model.settings(knobs))}
  labels = None
  if asked:
    info |= controls.card(asked, values, y)
    make = functools.partial(controls.made, asked, values, model, y, knobs)
  else:
    num = len(cond.get("low_res", range(64))) if (
        values.num is None) else values.num
    model.check_count(num)
    info["num"], labels = num, model.labels(num, y)
    make = lambda: controls.Made(model.sample(
        values.seed, num, labels, batch=values.batch, **knobs, **cond), labels)
  if not kind and join.lead():
    old = results.check_folder(values.out, part_of(
        info, info.get("num", np.inf),
        None if labels is None else labels.tolist()))
  made = make()
  x = made.x
  if model.class_names:
    info["class_names"] = model.class_names
  if join.lead():
    write(values.out, x, made.labels, info | {"num": len(x)} | made.info,
          made.columns, made.arrays)
    print(f"{len(x)} samples -> {printable(values.out)}" + " (replaced)" * old)


def enlarge(values: flags.FlagValues, kind: str) -> None:
  """Images of a folder, of any size -> another folder; see jaxgen.sampling.upscale."""
  labels = parse_labels(values.labels)
  if kind:
    raise UserError(f"--low_res={values.low_res} is a folder: --out must be "
                    "one, too")
  if values.num is not None or labels and len(labels) > 1:
    raise UserError("all images of a folder are enlarged, with one label for "
                    "all: leave --num, and give one --labels")
  key = key_of(values.seed)
  model = load(values.workdir, **{k: values[k].value for k in CHOICES})
  if labels:
    model.labels(1, labels)
  knobs = turned(values)
  report = enlarge_folder(
      model, values.low_res, values.out, factor=factor_of(model),
      key=key, batch=values.batch, knobs=knobs,
      labels=labels and labels[0], info=model.card | {
          "seed": values.seed, "labels": labels,
          "knobs": json_knobs(model.settings(knobs))})
  print(f"{len(report.done)} images -> {printable(values.out)}")
  report.check()


def turned(values: flags.FlagValues) -> dict[str, float]:
  """The knobs that were given, by flags of their own and in --knobs."""
  knobs = {k: values[k].value for k in KNOBS if values[k].value is not None}
  for word in (values.knobs or "").split(",") if values.knobs else ():
    name, _, value = word.partition("=")
    try:
      knobs[name] = float(value)
    except ValueError:
      raise UserError(f"--knobs={word}: want knob=number, with commas between"
                      ) from None
  return knobs


def small_images(path: str | None) -> tuple[
    dict[str, np.ndarray], np.ndarray | None, dict[str, Any]]:
  """What a file holds for an upsampler: conditions, labels, what it was."""
  if path is None:
    return {}, None, {}
  source = open_source(f"npz:{path}")
  x, y = source.arrays()
  return {"low_res": x}, y, {
      "low_res": {"file": path, "digest": source.fingerprint}}


def parse_labels(text: str | None) -> list[str] | None:
  """"0,cat,2" -> ["0", "cat", "2"]: numbers or names of classes."""
  return None if text is None else [w.strip() for w in text.split(",")]


if __name__ == "__main__":
  cli.run("jaxgen.sample")
