"""What `jaxgen sample` can do with GANs beyond samples: its flags.

  jaxgen sample --workdir W --truncation 0.5 --standing 16 --out grid.png
  jaxgen sample --workdir W --interpolate 8 --between both --out walk.png
  jaxgen sample --workdir W --psi 0.7 --mix 4 --num 6 --out mixed.png
  jaxgen sample --workdir W --project face.png --out found.png
"""
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxgen.data import image
from jaxgen.data.folder import listing
from jaxgen.data.npz import open_npz
from jaxgen.errors import UserError
from jaxgen.monitor.results import kind_of
from jaxgen.sampling.latents import WAYS, interpolate, mix, settle
from jaxgen.sampling.projection import checked, project
from jaxgen.sampling.sampler import Sampler

KNOBS = {
    "truncation": "bound of z; the less, the more typical and the more alike",
    "psi": "styles' distance from their mean; 1: as they are",
    "cutoff": "psi is for so many of the first layers"}
ROWS = 8  # unless --num says it


class Made(NamedTuple):
  """Images, and how to show and tell them."""
  x: np.ndarray
  labels: np.ndarray | None
  columns: int | None = None  # of the grid
  info: Mapping[str, Any] = {}
  arrays: Mapping[str, np.ndarray] = {}  # for the sample file, beside images


def define(values: flags.FlagValues) -> None:
  """The flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("between", None, f"--interpolate's ends differ in: {', '.join(WAYS)}")
  flag("project", None, "images to find among the model's: x.npz, a folder or "
       "an image")
  for name, text in (
      ("standing", "batches of 256 that settle batch norm's statistics for "
       "--truncation; default: 0, statistics of training"),
      ("interpolate", "frames of each row that goes from sample to sample; "
       "--num rows"),
      ("mix", "layers that take the rows' styles, the others the columns'; "
       "--num rows and columns"),
      ("project_steps", "of Adam; default: 500")):
    flags.DEFINE_integer(name, None, text, flag_values=values)
  flags.DEFINE_float("project_lr", None, "of Adam; default: 0.1",
                     flag_values=values)


def settled(model: Sampler, batches: int | None, knobs: Mapping[str, float]
            ) -> Sampler:
  """With standing statistics for these knobs, if there shall be batches."""
  if not batches:
    return model
  return settle(model, knobs.get("truncation", np.inf), batches)


def asked(values: flags.FlagValues) -> str | None:
  """Which of KINDS is asked for, if any; UserError for what cannot be."""
  found = [name for name in KINDS if values[name].value is not None]
  if len(found) > 1:
    raise UserError(" and ".join(f"--{name}" for name in found)
                    + ": one at a time")
  for flag, of in (("between", "interpolate"), ("project_steps", "project"),
                   ("project_lr", "project")):
    if values[flag].value is not None and of not in found:
      raise UserError(f"--{flag} is for --{of}")
  if values.low_res and (found or values.standing):
    raise UserError("--low_res is for models that enlarge images, and "
                    f"--{(*found, 'standing')[0]} is for GANs: leave either")
  return found[0] if found else None


def card(kind: str, values: flags.FlagValues, labels: list[int] | None
         ) -> dict[str, Any]:
  """What is to be told of it, as far as that is known before the work."""
  n = rows_of(values)
  told = {"interpolate": lambda: {"rows": n, "frames": values.interpolate,
                                  "between": values.between or "z"},
          "mix": lambda: {"rows": n, "columns": n, "crossover": values.mix},
          "project": lambda: adam(values) | {"images": values.project}}
  return {kind: told[kind](), "labels": labels}


def rows_of(values: flags.FlagValues) -> int:
  """Of walks and mixtures."""
  return ROWS if values.num is None else values.num


def adam(values: flags.FlagValues) -> dict[str, float]:
  """How --project descends."""
  steps, lr = values.project_steps, values.project_lr
  return {"steps": 500 if steps is None else steps,
          "lr": 0.1 if lr is None else lr}


def made(kind: str, values: flags.FlagValues, model: Sampler,
         labels: list[int] | None, knobs: Mapping[str, float]) -> Made:
  """What one of KINDS comes to."""
  return KINDS[kind](values, model, labels, knobs)


def _walks(values, model, labels, knobs):
  rows = rows_of(values)
  frames, between = values.interpolate, values.between or "z"
  x = interpolate(model, values.seed, rows, frames, labels, between,
                  batch=values.batch, **knobs)
  y = model.labels(rows, labels) if between == "z" else None
  return Made(x.reshape(-1, *model.shape),
              None if y is None else np.repeat(y, frames), frames)


def _mixture(values, model, labels, knobs):
  n = rows_of(values)
  x = mix(model, values.seed, n, n, values.mix, labels, batch=values.batch,
          **knobs)
  return Made(x.reshape(-1, *model.shape), None, n + 1)


def _found(values, model, labels, knobs):
  if knobs or values.num is not None:
    raise UserError("--project finds all images by itself: leave --num and "
                    f"knobs ({', '.join(['num', *knobs])})")
  x, y = targets(values.project, model)
  labels = labels if labels is not None or not model.classes else y
  latents, images, losses = project(
      model, x, seed=values.seed, labels=labels, batch=values.batch,
      **adam(values))
  info = {"project": adam(values) | {"images": values.project, "losses": [
      [float(f"{v:.4g}") for v in ends] for ends in losses[:, [0, -1]]]}}
  if kind_of(values.out) == ".png":  # a row: what was given, what was found
    pairs = np.stack([x, images], 1).reshape(-1, *model.shape)
    return Made(pairs, None, 2, info)
  y = None if labels is None else model.labels(len(x), labels)
  return Made(images, y, None, info,
              {"latents": latents, "losses": losses, "given": x})


def targets(path: str, model: Sampler) -> tuple[np.ndarray, np.ndarray | None]:
  """Images uint8 [N, H, W, C] that a path names, and labels if it has them."""
  place = pathlib.Path(path).expanduser()
  if place.suffix == ".npz":
    x, y = open_npz(path, "train", None, None).arrays()
    return checked(model, x), y
  if len(model.shape) != 3 or model.shape[0] != model.shape[1]:
    raise UserError(f"this model makes {list(model.shape)}: to project images "
                    "takes one of square images")
  if not place.exists():
    raise UserError(f"--project={path}: there is no such file or folder")
  files = [place / n for n in listing(place)] if place.is_dir() else [place]
  found = []
  for file in files:
    try:
      found.append(image.decode(file, model.shape[0], model.shape[-1]))
    except Exception as e:  # a broken file may fail anywhere in a decoder
      why = (str(e) or type(e).__name__).splitlines()[0]
      raise UserError(f"--project: {file.name} cannot be read: {why}") from e
  return np.stack(found), None


KINDS = {"interpolate": _walks, "mix": _mixture, "project": _found}
