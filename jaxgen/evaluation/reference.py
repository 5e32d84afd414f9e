"""What samples are compared with: statistics, or images to make them of."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.data import arrayfile
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import statistics
from jaxgen.evaluation.images import Dataset, Folder, Images, Zip
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.samplefile import SampleFile
from jaxgen.evaluation.statistics import Reference
from jaxgen.files import atomic
from jaxgen.metrics.distances import Gaussian

PICKLES = (".pkl", ".pickle", ".pt", ".pth")


def open_images(
  name: str,
  protocol: Protocol,
  *,
  split: str | None = None,
  size: int | None = None,
  span: str | None = None,
  convert: bool = False,
  num: int | None = None,
) -> Images:
  """Images by what they are called.

  Args:
    name: a folder, a .zip of images, a sample file x.npz or x.npy, or a data
      set such as tfds:cifar10.
    protocol: says how floats become bytes, and whether sizes may differ.
    split: of a data set, by default "train"; of a folder or .zip that is
      divided into splits, by default all of it.
    size: of a data set.
    span: what floats of a sample file mean, see images.SPANS.
    convert: whether grey and transparent images become RGB.
    num: the first so many; None: all.

  Raises:
    UserError: there is no such thing, or it is not fit.
  """
  path = files.local(name)
  if path.is_dir():
    return Folder.open(name, protocol.mixed, convert, num, split)
  if path.suffix in PICKLES or statistics.is_pickle(path):
    raise UserError(
      f"{name} may be a pickle, which could run any program: save its arrays with np.savez"
    )
  if path.suffix == ".zip" or path.is_file() and of_pictures(path):
    return Zip.open(name, protocol.mixed, convert, num, split)
  if path.is_file() or path.suffix in (".npz", ".npy") and ":" not in name:
    return SampleFile.open(name, protocol.floats, span, convert, num)
  if ":" not in name and name != "digits":
    raise UserError(f"there is no file, folder or data set {name!r}")
  split = split or "train"
  return Dataset(open_source(name, split=split, size=size), split, num)


def of_pictures(path: Path) -> bool:
  """Whether a .zip by another name holds images, and no arrays."""
  return zipfile.is_zipfile(path) and path.suffix != ".npz" and not arrayfile.names(path)


def open_reference(
  name: str, protocol: Protocol, features: str = "inception", **how: Any
) -> Reference:
  """A reference by its name; `how` as in `open_images`, but of one split.

  Raises:
    UserError: also for statistics that another protocol made.
  """
  path, how = files.local(name), {"split": "train"} | how
  if path.suffix in PICKLES and statistics.holds(path):
    return statistics.load(path, protocol, features)
  if path.suffix == ".npz" and path.is_file():
    names = arrayfile.names(path)
    if {"mu", "sigma"} & set(names):
      reference = statistics.load(path, protocol, features)
      if "arr_0" in names:
        how = {k: how[k] for k in ("span", "convert") if k in how}
        reference.images = SampleFile.open(str(path), protocol.floats, **how)
        reference.card["arr_0"] = reference.images.count
      return reference
    if "arr_0" not in names:
      raise UserError(statistics.advice(path, names))
  return Reference.of(open_images(name, protocol, **how))


def save_statistics(
  path: str | os.PathLike, moments: dict[str, Gaussian], main: str, card: dict[str, Any]
) -> None:
  """Statistics of a reference, for next time: mu, sigma, mu_s, sigma_s.

  Of the `card` of an evaluation goes with them what says how they were made.
  """
  info = {k: card[k] for k in ("protocol", "features", "reference")}
  arrays = {
    "info": np.array(json.dumps(info)),
    "count": np.int64(moments[main].n),
    "mu": moments[main].mu,
    "sigma": moments[main].sigma,
  }
  if "spatial" in moments:
    arrays |= {"mu_s": moments["spatial"].mu, "sigma_s": moments["spatial"].sigma}
  with atomic(path) as draft, draft.open("wb") as file:
    np.savez(file, **arrays)
