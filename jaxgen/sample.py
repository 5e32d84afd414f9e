"""Draw samples from a trained model.

  jaxgen sample --workdir W --num 64 --labels 3 --steps 25 --out grid.png

`--out` is one picture (x.png), a sample file (x.npz) or a folder. From Python:

  model = jaxgen.load("W")
  x = model.sample(0, 64, labels=3, steps=25, guidance=1.5)
"""
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
from absl import flags

from jaxgen import cli, pictures
from jaxgen.errors import UserError
from jaxgen.sampler import SAMPLERS, Sampler, load

__all__ = ["Sampler", "digest_of", "load", "portrait", "told", "write"]

KNOBS = ("steps", "guidance", "eta", "churn", "temperature", "noise")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained model")
  flag("out", None, "x.png (one grid), x.npz (arr_0, arr_1) or a folder")
  flag("labels", None, "one or several: 3 or 0,1,2; default: each in turn")
  flag("sampler", None, "in place of the config's: " + ", ".join(SAMPLERS))
  flag("ema", None, "profile of averaged weights, or a width such as 0.1")
  for name, text in (("num", "how many"), ("seed", "of all randomness"),
                     ("batch", "samples drawn at once"),
                     ("step", "of the checkpoint; default: the last")):
    default = {"num": 64, "seed": 0, "batch": 256, "step": None}[name]
    flags.DEFINE_integer(name, default, text, flag_values=values)
  for name in KNOBS:
    flags.DEFINE_float(name, None, "knob of the sampler, where it has it",
                       flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("sample needs --workdir=W and --out=x.png, x.npz or folder")
  kind_of(values.out)  # before the work, not after it
  model = load(values.workdir, ema=values.ema, step=values.step,
               sampler=values.sampler)
  knobs = {k: values[k].value for k in KNOBS if values[k].value is not None}
  labels = model.labels(values.num, parse_labels(values.labels))
  x = model.sample(values.seed, values.num, labels, batch=values.batch, **knobs)
  info = model.card | {"seed": values.seed, "num": values.num,
                       "knobs": told(model.settings(knobs))}
  write(values.out, x, labels, info)
  print(f"{len(x)} samples -> {values.out}")


def parse_labels(text: str | None) -> list[int] | None:
  """"0,1,2" -> [0, 1, 2]."""
  if text is None:
    return None
  try:
    return [int(word) for word in text.split(",")]
  except ValueError:
    raise UserError(f"--labels={text}: want numbers, such as 3 or 0,1,2"
                    ) from None


def told(settings: dict[str, float]) -> dict[str, float | None]:
  """Knobs as JSON can say them: what is unbounded is None."""
  return {k: v if np.isfinite(v) else None for k, v in settings.items()}


def digest_of(*arrays: np.ndarray) -> str:
  """Sixteen hex digits of the contents of arrays."""
  h = hashlib.sha256()
  for a in arrays:
    h.update(f"{a.shape}{a.dtype}".encode() + np.ascontiguousarray(a).tobytes())
  return h.hexdigest()[:16]


def portrait(x: np.ndarray, path: pathlib.Path, info: dict[str, Any]
             ) -> np.ndarray:
  """One picture of samples, written to `path` with how it was made."""
  image = pictures.scatter(x) if x.ndim == 2 else pictures.grid(x)
  path.parent.mkdir(parents=True, exist_ok=True)
  pictures.save_png(path, image, info)
  return image


def write(out: str, x: np.ndarray, labels: np.ndarray | None,
          info: dict[str, Any]) -> None:
  """Samples as one grid, a sample file or a folder of pictures."""
  path, kind = pathlib.Path(out), kind_of(out)
  try:
    if kind == ".png":
      portrait(x, path, info)
    elif kind == ".npz":
      path.parent.mkdir(parents=True, exist_ok=True)
      arrays = [x] if labels is None else [x, labels]
      partial = path.with_suffix(".tmp.npz")
      np.savez(partial, *arrays, info=json.dumps(info))
      partial.replace(path)
    else:
      for i, image in enumerate(x):
        portrait(image[None], path / f"{i:06d}.png", info | {
            "index": i, "label": None if labels is None else int(labels[i])})
  except OSError as e:
    raise UserError(f"cannot write {e.filename or out}: {e.strerror or e}"
                    ) from e


def kind_of(out: str) -> str:
  """".png", ".npz" or "", for a folder; UserError for anything else."""
  kind = pathlib.Path(out).suffix
  if kind not in ("", ".png", ".npz"):
    raise UserError(f"--out={out}: want x.png, x.npz or a folder")
  return kind


if __name__ == "__main__":
  cli.run("jaxgen.sample")
