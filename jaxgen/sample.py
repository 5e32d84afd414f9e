"""Draw samples from a trained model.

  jaxgen sample --workdir W --num 64 --labels 3 --steps 25 --out grid.png
  jaxgen sample --workdir W --classifier C --scale 2.0 --out guided.png
  jaxgen sample --workdir W --worse V --auto 1.5 --out guided.png
  jaxgen sample --workdir U --low_res small.npz --respacing 250 --out large.npz
  jaxgen sample --workdir U --low_res photos/ --sampler ddim --out large/
  jaxgen sample --workdir BASE,UP --knobs steps_1=10,level_1=0.2 --out x.png
  jaxgen sample --workdir G --truncation 0.5 --standing 16 --out grid.png
  jaxgen sample --workdir G --interpolate 8 --between both --out walk.png
  jaxgen sample --workdir G --psi 0.7 --mix 4 --num 6 --out mixed.png
  jaxgen sample --workdir G --project face.png --out projected.png
  jaxgen sample --workdir V --mel clip.wav --respacing fast --out again.wav
  jaxgen sample --workdir V --mel recordings/ --steps 50 --out again/

`--out` is one picture (x.png), a sample file (x.npz) or a folder. From Python:

  model = jaxgen.load("W")
  x = model.sample(0, 64, labels=3, steps=25, guidance=1.5)
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxgen import cli, files
from jaxgen.core import trait
from jaxgen.data import image
from jaxgen.data.folder import listing
from jaxgen.data.npz import open_npz
from jaxgen.data.sources import open_source
from jaxgen.distributed import join
from jaxgen.errors import UserError, printable
from jaxgen.monitor import results
from jaxgen.monitor.results import kind_of
from jaxgen.sampling import latents, resumable
from jaxgen.sampling.latents import WAYS, interpolate, mix
from jaxgen.sampling.output import json_knobs, part_of, write
from jaxgen.sampling.presets import CHOICES, IN_TIME, KNOBS, SAMPLERS, knobs_from_flags
from jaxgen.sampling.projection import check_images, project
from jaxgen.sampling.sampler import Sampler, key_of, load
from jaxgen.sampling.stages import prepare_devices
from jaxgen.sampling.upscale import enlarge_folder, factor_of
from jaxgen.sampling.vocode import PIECE, Vocoder, check_vocoder, planned_jobs, vocode, vocodes

IN_BUCKETS = (  # flags that take gs://bucket/name
  *("workdir", "classifier", "worse", "out"),
  *("low_res", "mel", "project"),
)


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "x.png (one grid), x.npz (arr_0, arr_1) or a folder")
  flag(
    "labels",
    None,
    "one or several, by number or by name: 3 or nature,1; "
    "-1: any, of models that are guided without a classifier; default: each "
    "in turn",
  )
  flag("sampler", None, "in place of the config's: " + ", ".join(SAMPLERS | IN_TIME))
  flag(
    "respacing",
    None,
    "which times, as ADM says it (250, ddim25, 10,10,20) or by rule: karras, even, ...; fast: "
    "DiffWave's six; 0,22/40: two of Karras' 40 points",
  )
  flag("classifier", None, "workdir of a noisy classifier to guide with")
  flag("worse", None, "workdir of a worse model to keep away from")
  flag(
    "low_res",
    None,
    "x.npz of small images (and labels) to enlarge; or a "
    "folder of images of any size, enlarged into the folder --out",
  )
  flag(
    "mel",
    None,
    "for vocoders: a recording or a spectrogram x.npy (float32 [frames, mels]) to make sound of, "
    "or a folder of them; --out is x.wav or a folder",
  )
  flag("ema", None, "profile of averaged weights, or a width such as 0.1")
  flag("guide_ema", None, "the same of the classifier or the worse model")
  flag("knobs", None, "any others, such as those of a cascade's stages: steps_1=10,level_1=0.2")
  define_gan_flags(values)
  for name, default, text in (
    ("num", None, "how many; default: 64, or all of low_res"),
    ("seed", 0, "of all randomness"),
    ("batch", 256, "samples drawn at once"),
    ("piece", None, f"of --mel: samples of sound at once; default: {PIECE}"),
    ("step", None, "of the checkpoint; default: the last"),
    ("guide_step", None, "of the classifier's or the worse model's"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)
  for name, text in KNOBS.items():
    flags.DEFINE_float(name, None, f"{text} (where the model has this knob)", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("sample needs --workdir=W and --out=x.png, x.npz or folder")
  if values.mel:
    return sound(values)
  if values.piece is not None:
    raise UserError("--piece is for --mel")
  kind = kind_of(values.out)  # before the work, not after it
  special, inputs = requested(values), (values.low_res, values.project)
  if join.joined() and (special or values.low_res):
    raise UserError(
      "only plain samples are drawn by several processes: start this one on one machine"
    )
  old = False  # whether something is replaced
  if kind and join.is_main_process():
    old = results.check_file(values.out)
    if files.path(values.out).resolve() in (files.path(p).resolve() for p in inputs if p):
      raise UserError(f"--out={values.out} would replace what is read: give another name")
  if values.low_res and files.path(values.low_res).is_dir():
    return enlarge(values, kind)
  cond, y, of = small_images(values.low_res)
  if not special:
    at_once = min(values.batch, 64 if values.num is None else values.num)
    prepare_devices([values.workdir, values.classifier, values.worse], at_once)
  model = load(values.workdir, **{k: values[k].value for k in CHOICES})
  if vocodes(model.model):
    raise UserError(
      f"{values.workdir} makes sound from spectrograms: give --mel=clip.wav (or x.npy, or a folder)"
    )
  if kind != ".npz" and len(model.shape) == 3 and model.dtype != np.uint8:
    raise UserError(
      f"{values.workdir} makes latents {list(model.shape)}, which are no images: give --out=x.npz"
    )
  if values.labels is not None or not model.classes:
    y = model.numbers(parse_labels(values.labels))
  knobs = knobs_from_flags(values)
  model = latents.with_standing_stats(model, values.standing, knobs)
  info = model.card | of | {"seed": values.seed, "knobs": json_knobs(model.settings(knobs))}
  labels = None
  if special:
    info |= card(special, values, y)
    make = functools.partial(run, special, values, model, y, knobs)
  else:
    num = len(cond.get("low_res", range(64))) if (values.num is None) else values.num
    model.check_count(num)
    info["num"], labels = num, model.labels(num, y)
    make = functools.partial(plain, model, values, num, labels, knobs, cond)
  if not kind and join.is_main_process():
    old = results.check_folder(
      values.out,
      part_of(info, info.get("num", np.inf), None if labels is None else labels.tolist()),
    )
  drawing = make()
  x = drawing.x
  if model.class_names:
    info["class_names"] = model.class_names
  if join.is_main_process():
    info |= {"num": len(x)} | drawing.info
    write(values.out, x, drawing.labels, info, drawing.columns, drawing.arrays)
    resumable.forget(values.out)
    print(f"{len(x)} samples -> {printable(values.out)}" + " (replaced)" * old)


def plain(
  model: Sampler,
  values: flags.FlagValues,
  num: int,
  labels: np.ndarray | None,
  knobs: Mapping[str, float],
  cond: Mapping[str, np.ndarray],
) -> "Drawing":
  """Samples one by one; of several processes the first has them all.

  One goes on from what several had begun.
  """
  if join.joined() or not cond and resumable.has_parts(values.out):
    x = resumable.draw(
      model, values.seed, num, labels, batch=values.batch, knobs=knobs, out=values.out
    )
  else:
    x = model.sample(values.seed, num, labels, batch=values.batch, **knobs, **cond)
  return Drawing(x, labels)


def sound(values: flags.FlagValues) -> None:
  """Recordings or their spectrograms -> sound; see jaxgen.sampling.vocode."""
  others = [k for k in ("low_res", "num", "standing", *KINDS) if values[k].value is not None]
  if others:
    raise UserError(f"--{others[0]} is not for --mel, which takes all of what it names: leave it")
  if join.joined():
    raise UserError("sound is made from spectrograms by one process: start it on one machine")
  planned_jobs(values.mel, values.out)  # before the weights are read
  labels, key = parse_labels(values.labels), key_of(values.seed)
  model = load(values.workdir, **{k: values[k].value for k in CHOICES})
  check_vocoder(model)
  if labels and len(labels) > 1:
    raise UserError("--labels: give one for all of --mel")
  y = model.labels(1, labels or ([-1] if trait(model.model, "free") else None))
  label = None if y is None else int(y[0])
  knobs = knobs_from_flags(values)
  vocoder = Vocoder(model, key, label, knobs, values.piece or PIECE)
  info = model.card | {"seed": values.seed, "knobs": json_knobs(vocoder.knobs)}
  done = vocode(vocoder, values.mel, values.out, info | ({} if y is None else {"label": label}))
  print(f"{len(done)} recording{'s' * (len(done) > 1)} -> {printable(values.out)}")


def enlarge(values: flags.FlagValues, kind: str) -> None:
  """Images of a folder, of any size -> another folder; see jaxgen.sampling.upscale."""
  labels = parse_labels(values.labels)
  if kind:
    raise UserError(f"--low_res={values.low_res} is a folder: --out must be one, too")
  if values.num is not None or labels and len(labels) > 1:
    raise UserError(
      "all images of a folder are enlarged, with one label for "
      "all: leave --num, and give one --labels"
    )
  key = key_of(values.seed)
  model = load(values.workdir, **{k: values[k].value for k in CHOICES})
  if labels:
    model.labels(1, labels)
  knobs = knobs_from_flags(values)
  report = enlarge_folder(
    model,
    values.low_res,
    values.out,
    factor=factor_of(model),
    key=key,
    batch=values.batch,
    knobs=knobs,
    labels=labels and labels[0],
    info=model.card
    | {"seed": values.seed, "labels": labels, "knobs": json_knobs(model.settings(knobs))},
  )
  print(f"{len(report.done)} images -> {printable(values.out)}")
  report.check()


def small_images(
  path: str | None,
) -> tuple[dict[str, np.ndarray], np.ndarray | None, dict[str, Any]]:
  """What a file holds for an upsampler: conditions, labels, what it was."""
  if path is None:
    return {}, None, {}
  source = open_source(f"npz:{path}")
  x, y = source.arrays()
  return {"low_res": x}, y, {"low_res": {"file": path, "digest": source.fingerprint}}


def parse_labels(text: str | None) -> list[str] | None:
  """ "0,cat,2" -> ["0", "cat", "2"]: numbers or names of classes."""
  return None if text is None else [w.strip() for w in text.split(",")]


if __name__ == "__main__":
  cli.run("jaxgen.sample")

ROWS = 8  # unless --num says it


class Drawing(NamedTuple):
  """Images, and how to show and tell them."""

  x: np.ndarray
  labels: np.ndarray | None
  columns: int | None = None  # of the grid
  info: Mapping[str, Any] = {}
  arrays: Mapping[str, np.ndarray] = {}  # for the sample file, beside images


def define_gan_flags(values: flags.FlagValues) -> None:
  """The flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("between", None, f"--interpolate's ends differ in: {', '.join(WAYS)}")
  flag("project", None, "images to find among the model's: x.npz, a folder or an image")
  for name, text in (
    (
      "standing",
      "batches of 256 that settle batch norm's statistics for "
      "--truncation; default: 0, statistics of training",
    ),
    ("interpolate", "frames of each row that goes from sample to sample; --num rows"),
    ("mix", "layers that take the rows' styles, the others the columns'; --num rows and columns"),
    ("project_steps", "of Adam; default: 500"),
  ):
    flags.DEFINE_integer(name, None, text, flag_values=values)
  flags.DEFINE_float("project_lr", None, "of Adam; default: 0.1", flag_values=values)


def requested(values: flags.FlagValues) -> str | None:
  """Which of KINDS is asked for, if any; UserError for what cannot be."""
  kinds = [name for name in KINDS if values[name].value is not None]
  if len(kinds) > 1:
    raise UserError(" and ".join(f"--{name}" for name in kinds) + ": one at a time")
  for flag, of in (
    ("between", "interpolate"),
    ("project_steps", "project"),
    ("project_lr", "project"),
  ):
    if values[flag].value is not None and of not in kinds:
      raise UserError(f"--{flag} is for --{of}")
  if values.low_res and (kinds or values.standing):
    raise UserError(
      "--low_res is for models that enlarge images, and "
      f"--{(*kinds, 'standing')[0]} is for GANs: leave either"
    )
  return kinds[0] if kinds else None


def card(kind: str, values: flags.FlagValues, labels: list[int] | None) -> dict[str, Any]:
  """What is to be told of it, as far as that is known before the work."""
  n = rows_of(values)
  facts = {
    "interpolate": lambda: {
      "rows": n,
      "frames": values.interpolate,
      "between": values.between or "z",
    },
    "mix": lambda: {"rows": n, "columns": n, "crossover": values.mix},
    "project": lambda: adam(values) | {"images": values.project},
  }
  return {kind: facts[kind](), "labels": labels}


def rows_of(values: flags.FlagValues) -> int:
  """Of walks and mixtures."""
  return ROWS if values.num is None else values.num


def adam(values: flags.FlagValues) -> dict[str, float]:
  """How --project descends."""
  steps, lr = values.project_steps, values.project_lr
  return {"steps": 500 if steps is None else steps, "lr": 0.1 if lr is None else lr}


def run(
  kind: str,
  values: flags.FlagValues,
  model: Sampler,
  labels: list[int] | None,
  knobs: Mapping[str, float],
) -> Drawing:
  """What one of KINDS comes to."""
  return KINDS[kind](values, model, labels, knobs)


def _walks(values, model, labels, knobs):
  rows = rows_of(values)
  frames, between = values.interpolate, values.between or "z"
  x = interpolate(model, values.seed, rows, frames, labels, between, batch=values.batch, **knobs)
  y = model.labels(rows, labels) if between == "z" else None
  return Drawing(x.reshape(-1, *model.shape), None if y is None else np.repeat(y, frames), frames)


def _mixture(values, model, labels, knobs):
  n = rows_of(values)
  x = mix(model, values.seed, n, n, values.mix, labels, batch=values.batch, **knobs)
  return Drawing(x.reshape(-1, *model.shape), None, n + 1)


def _found(values, model, labels, knobs):
  if knobs or values.num is not None:
    raise UserError(
      f"--project finds all images by itself: leave --num and knobs ({', '.join(['num', *knobs])})"
    )
  x, y = targets(values.project, model)
  labels = labels if labels is not None or not model.classes else y
  latents, images, losses = project(
    model, x, seed=values.seed, labels=labels, batch=values.batch, **adam(values)
  )
  info = {
    "project": adam(values)
    | {
      "images": values.project,
      "losses": [[float(f"{v:.4g}") for v in ends] for ends in losses[:, [0, -1]]],
    }
  }
  if kind_of(values.out) == ".png":  # a row: what was given, what was found
    pairs = np.stack([x, images], 1).reshape(-1, *model.shape)
    return Drawing(pairs, None, 2, info)
  y = None if labels is None else model.labels(len(x), labels)
  return Drawing(images, y, None, info, {"latents": latents, "losses": losses, "given": x})


def targets(path: str, model: Sampler) -> tuple[np.ndarray, np.ndarray | None]:
  """Images uint8 [N, H, W, C] that a path names, and labels if it has them."""
  place = files.local(path)
  if place.suffix == ".npz":
    x, y = open_npz(path, "train", None, None).arrays()
    check_images(model, x)
    return x, y
  if len(model.shape) != 3 or model.shape[0] != model.shape[1]:
    raise UserError(
      f"this model makes {list(model.shape)}: to project images takes one of square images"
    )
  if not place.exists():
    raise UserError(f"--project={path}: there is no such file or folder")
  images = []
  for file in [place / n for n in listing(place)] if place.is_dir() else [place]:
    try:
      images.append(image.decode(file, model.shape[0], model.shape[-1]))
    except Exception as e:  # a broken file may fail anywhere in a decoder
      why = (str(e) or type(e).__name__).splitlines()[0]
      raise UserError(f"--project: {file.name} cannot be read: {why}") from e
  return np.stack(images), None


KINDS = {"interpolate": _walks, "mix": _mixture, "project": _found}
