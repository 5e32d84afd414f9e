"""The images that `jaxgen translate` makes others of, and what they should become."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxgen import core
from jaxgen.core import trait
from jaxgen.data import image
from jaxgen.data.folder import listing
from jaxgen.data.sources import open_split
from jaxgen.data.unpaired import Unpaired
from jaxgen.errors import UserError
from jaxgen.monitor.results import check_folder
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import condition_shape

FITS = ("middle", "stretch", "refuse")
SHOWN = 4  # names that a message spells out
PART = 64  # images at a time


class Folders(NamedTuple):
  """Where a user's images lie.

  Attributes:
    data: To be translated.
    truth: What they should become, files of the same names; None: not known.
    masks: Of holes, likewise: white is kept, black is filled.
    fit: One of FITS: what becomes of images of another shape than the model's.
    degrade: Whether `data` holds the truth, of which sources are made as in training.
  """

  data: str
  truth: str | None = None
  masks: str | None = None
  fit: str = "middle"
  degrade: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
  """Images to translate, all of a model's size.

  Attributes:
    names: Of the results, without an ending.
    origins: Where each is from, for its file: {"source", "sha256"} or {"data", ..}.
    source: uint8 [N, H, W, C'].
    keep: uint8 [N, H, W, 1], 255 where a hole is not; None: the model's own.
    truth: uint8 [N, H, W, C], or None.
    labels: Their classes [N], or None.
    skipped: {name: why} of what could not be read.
    resized: How many were of another shape.
  """

  names: list[str]
  origins: list[dict[str, Any]]
  source: np.ndarray
  keep: np.ndarray | None = None
  truth: np.ndarray | None = None
  labels: np.ndarray | None = None
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)
  resized: int = 0

  @property
  def conditions(self) -> dict[str, np.ndarray]:
    """For `Sampler.sample`."""
    return {"source": self.source} | ({} if self.keep is None else {"keep": self.keep})


def check_translator(model: Sampler, where: str) -> None:
  """UserError unless a model makes images of images, of the same size."""
  cond = trait(model.model, "cond")
  if "low_res" in cond:
    raise UserError(f"{where} enlarges images: jaxgen sample --workdir={where} --low_res=FOLDER")
  if "source" not in cond or len(model.shape) != 3:
    raise UserError(
      f"{where} holds a {type(model.model).__name__}, which makes no images of images: want "
      "Pix2Pix, Palette or CycleGAN"
    )


def source_shape(model: Sampler) -> tuple[int, int, int]:
  """[H, W, C'] of what a model translates."""
  return condition_shape(model.model.cond["source"], model.shape)


def condition_of(model: Sampler, name: str, x: np.ndarray) -> np.ndarray:
  """A condition of images uint8 [N, H, W, C], as in training and rounded to bytes."""
  make = model.model.cond[name]
  program = jax.jit(lambda x: core.as_data(make(core.on_device(x)), np.uint8))
  return np.concatenate([np.asarray(program(x[i : i + PART])) for i in range(0, len(x), PART)])


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
  if folders.masks and "keep" not in model.model.cond:
    raise UserError("--masks is for models that fill holes, and this one was trained without any")
  top = Path(folders.data).expanduser()
  if not top.is_dir():
    raise UserError(f"--data={folders.data}: there is no such folder")
  names = listing(top)
  shape = model.shape if folders.degrade else source_shape(model)
  others = {
    flag: (path, partners(top, names, path, flag), size)
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
    x, truth = condition_of(model, "source", x), x
  origins = [{"source": name, "sha256": digest(top / name)} for name in read.names]
  stems = unique_stems(read.names)
  return with_keep(model, Inputs(stems, origins, x, keep, truth, None, read.skipped, read.resized))


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
  others: dict[str, tuple[str, dict[str, str], tuple[int, int, int]]],
  fit: str,
) -> Read:
  """Files below `top`, with their partners in other folders: {flag: (path, names, shape)}.

  Raises:
    UserError: None can be read, or one is of another shape and that is refused.
  """
  rows, skipped, resized = [], {}, 0
  for name in names:
    try:
      x, changed = pixels(top / name, shape, fit)
      more = {
        flag: pixels(Path(path).expanduser() / own[name], size, fit)[0]
        for flag, (path, own, size) in others.items()
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


def with_keep(model: Sampler, inputs: Inputs) -> Inputs:
  """The inputs with the hole that a model has by itself, where they bring none."""
  if "keep" not in model.model.cond or inputs.keep is not None:
    return inputs
  x = np.zeros((len(inputs.names), *model.shape), np.uint8)
  return dataclasses.replace(inputs, keep=condition_of(model, "keep", x))


def unique_stems(names: list[str]) -> list[str]:
  """a.jpg -> a; beside an a.png, a.jpg."""
  stems = [name.rpartition(".")[0] for name in names]
  return [s if stems.count(s) == 1 else n for s, n in zip(stems, names, strict=True)]


def partners(top: Path, names: list[str], other: str, flag: str) -> dict[str, str]:
  """{name: the file of that name in another folder, whatever its ending}.

  Raises:
    UserError: Some have none: they are listed.
  """
  place = Path(other).expanduser()
  if not place.is_dir():
    raise UserError(f"--{flag}={other}: there is no such folder")
  theirs = {name.rpartition(".")[0]: name for name in listing(place)}
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


def of_own_data(model: Sampler, data: ConfigDict, num: int | None, backwards: bool) -> Inputs:
  """Test images of a model's own data, `num` of them at even distances.

  Raises:
    UserError: There are fewer, or none.
  """
  test = open_split(data, "test")
  total = len(test)
  n = total if num is None else num
  if not 1 <= n <= total:
    raise UserError(f"num={n}: want 1 to {total}, as many as the test split of {test.name} has")
  rows = np.arange(n) * total // n
  names = [f"{i:06d}" for i in rows]
  origins = [{"data": test.name, "split": "test", "index": int(i)} for i in rows]
  if isinstance(test, Unpaired):
    return of_unpaired(test, names, origins, rows, backwards)
  batch = test.read(rows)
  x = batch["x"]
  if tuple(x.shape[1:]) != tuple(model.shape):
    raise UserError(f"{test.name} holds {list(x.shape[1:])}, and this model makes {model.shape}")
  source = batch["source"] if "source" in batch else condition_of(model, "source", x)
  source, x = (x, source) if backwards else (source, x)
  inputs = Inputs(names, origins, source, None, x, batch.get("y"))
  return with_keep(model, inputs)


def of_unpaired(
  test: Unpaired, names: list[str], origins: list[dict[str, Any]], rows: np.ndarray, backwards: bool
) -> Inputs:
  """Images of one kind; the truth is known where the other kind is made of them."""
  kind = test.b if backwards else test.a
  rows = rows % len(kind)
  batch, truth = kind.read(rows), None
  if test.base is not None:
    truth = test.a.read(rows)["x"] if backwards else test.base[rows]
  return Inputs(names, origins, batch["x"], None, truth, batch.get("y"))


def check_out(out: Path, inputs: Inputs, info: dict[str, Any]) -> bool:
  """Whether a folder holds results that are written again; UserError for others' files."""
  infos = {f"{n}.png": info | o for n, o in zip(inputs.names, inputs.origins, strict=True)}
  return check_folder(out, infos.get)
