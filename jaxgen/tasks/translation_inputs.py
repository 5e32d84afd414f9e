"""Images of folders that `jaxgen translate` makes others of, and what they should become."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxgen import files
from jaxgen.data import image
from jaxgen.data.folder import listing
from jaxgen.errors import UserError
from jaxgen.evaluation.translation_data import Inputs, condition_of, source_shape, with_keep
from jaxgen.monitor.results import check_folder
from jaxgen.sampling.sampler import Sampler

FITS = ("middle", "stretch", "refuse")
SHOWN = 4  # names that a message spells out


class Folders(NamedTuple):
  """Where a user's images lie.

  Attributes:
    data: To be translated.
    truth: What they should become, files of the same names; None: not known.
    masks: Of holes, likewise: white is kept, black is filled.
    fit: One of FITS: what becomes of images of another shape than the model's.
    degrade: Whether `data` holds the truth, of which sources are made as in training.
    options: Arguments of what makes these, in place of the config's.
  """

  data: str
  truth: str | None = None
  masks: str | None = None
  fit: str = "middle"
  degrade: bool = False
  options: Mapping[str, Any] | None = None


def of_folders(model: Sampler, folders: Folders) -> Inputs:
  """A user's images.

  Raises:
    UserError: A folder is missing, names do not pair (they are listed), none can be
      read, or one is of another shape and that is refused.
  """
  if folders.fit not in FITS:
    raise UserError(f"--fit={folders.fit}: want {', '.join(FITS)}")
  if folders.degrade and folders.truth:
    raise UserError("--degrade: --data is the truth already: leave --truth")
  game = model.model
  if folders.masks and "keep" not in game.cond:
    raise UserError("--masks is for models that fill holes, and this one was trained without any")
  top = files.local(folders.data)
  if not top.is_dir():
    raise UserError(f"--data={folders.data}: there is no such folder")
  names = listing(top)
  shape = model.shape if folders.degrade else source_shape(game, model.shape)
  others = {
    flag: (place := files.local(path), partners(top, names, place, flag), size)
    for flag, path, size in (
      ("truth", folders.truth, model.shape),
      ("masks", folders.masks, (*model.shape[:2], 1)),
    )
    if path
  }
  read = read_all(top, names, shape, others, folders.fit)
  stack = lambda flag: np.stack([m[flag] for m in read.more]) if flag in others else None
  x, truth, keep = np.stack(read.x), stack("truth"), stack("masks")
  if keep is not None:
    keep = np.where(keep > 127, 255, 0).astype(np.uint8)
  if folders.degrade:
    x, truth = condition_of(game, "source", x, folders.options), x
  origins = [{"source": name, "sha256": digest(top / name)} for name in read.names]
  more = {"skipped": read.skipped, "resized": read.resized}
  inputs = Inputs(unique_stems(read.names), origins, x, keep, truth, **more)
  return with_keep(game, model.shape, inputs)


class Read(NamedTuple):
  """Files as arrays: names, images, what goes with each, what could not be read."""

  names: list[str]
  x: list[np.ndarray]
  more: list[dict[str, np.ndarray]]
  skipped: dict[str, str]
  resized: int


def read_all(
  top: Path,
  names: list[str],
  shape: tuple[int, int, int],
  others: dict[str, tuple[Path, dict[str, str], tuple[int, int, int]]],
  fit: str,
) -> Read:
  """Files below `top`, with their partners in other folders: {flag: (folder, names, shape)}.

  Raises:
    UserError: None can be read, or one is of another shape and that is refused.
  """
  rows, skipped, resized = [], {}, 0
  for name in names:
    try:
      x, changed = pixels(top / name, shape, fit)
      more = {
        flag: pixels(place / own[name], size, fit)[0] for flag, (place, own, size) in others.items()
      }
    except UserError:
      raise
    except Exception as e:  # a broken file may fail anywhere in a decoder
      skipped[name] = image.reason(e)
      continue
    rows.append((name, x, more))
    resized += changed
  if not rows:
    name, why = next(iter(skipped.items()))
    raise UserError(f"{top}: none of its images can be read, such as {name}: {why}")
  return Read(*map(list, zip(*rows, strict=True)), skipped, resized)


def digest(path: Path) -> str:
  """SHA-256 of a file, in hex."""
  return hashlib.sha256(path.read_bytes()).hexdigest()


def unique_stems(names: list[str]) -> list[str]:
  """a.jpg -> a; beside an a.png, a.jpg."""
  stems = [name.rpartition(".")[0] for name in names]
  return [s if stems.count(s) == 1 else n for s, n in zip(stems, names, strict=True)]


def partners(top: Path, names: list[str], other: Path, flag: str) -> dict[str, str]:
  """{name: the file of that name in another folder, whatever its ending}.

  Raises:
    UserError: Some have none: they are listed.
  """
  if not other.is_dir():
    raise UserError(f"--{flag}={other}: there is no such folder")
  theirs = {name.rpartition(".")[0]: name for name in listing(other)}
  missing = [name for name in names if name.rpartition(".")[0] not in theirs]
  if missing:
    listed = ", ".join(missing[:SHOWN]) + (", .." if len(missing) > SHOWN else "")
    raise UserError(
      f"--{flag}={other} has no partner of {len(missing)} of {len(names)} images in {top}: {listed}"
    )
  return {name: theirs[name.rpartition(".")[0]] for name in names}


def pixels(path: Path, shape: tuple[int, int, int], fit: str) -> tuple[np.ndarray, bool]:
  """A file as uint8 of this shape, and whether it was of another.

  Raises:
    UserError: It was, and that is refused.
    ValueError, OSError, or what else a broken file may do to the decoder.
  """
  height, width, channels = shape
  opened = image.upright(path.read_bytes(), channels)
  if opened.size == (width, height):
    return image.pixels(opened), False
  if fit == "refuse":
    raise UserError(
      f"{path} is {opened.size[0]}x{opened.size[1]}, and this model takes {width}x{height}: resize "
      "it, or say --fit=middle or --fit=stretch"
    )
  if fit == "middle" and height == width:
    return image.pixels(image.crop(opened, height)), True
  return image.pixels(opened.resize((width, height), Image.Resampling.BICUBIC)), True


def check_out(out: Path, inputs: Inputs, info: dict[str, Any]) -> bool:
  """Whether a folder holds results that are written again; UserError for others' files."""
  infos = {f"{n}.png": info | o for n, o in zip(inputs.names, inputs.origins, strict=True)}
  return check_folder(out, infos.get)
