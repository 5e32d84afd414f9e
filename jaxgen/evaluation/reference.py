"""What samples are compared with: statistics, or images to make them of."""
import dataclasses
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.images import Dataset, Folder, Images
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.samplefile import SampleFile, refuse
from jaxgen.files import atomic
from jaxgen.interop import files
from jaxgen.metrics.distances import Gaussian

WIDTHS = {64: "64", 192: "192", 768: "768"}  # else those of the main tap
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".npy")


@dataclasses.dataclass
class Reference:
  """Statistics by tap ("" is the main one), and images where there are any.

  Attributes:
    card: what it is; "sha256" or "fingerprint" identifies it.
    statistics: of a file of them; empty: they are to be made of the images.
    images: to look at.
    made: how a statistics file of ours says that it was made.
  """
  card: dict[str, Any]
  statistics: dict[str, Gaussian]
  images: Images | None
  made: dict[str, Any] | None = None


def open_images(name: str, protocol: Protocol, *, split: str = "train",
                size: int | None = None, span: str | None = None,
                convert: bool = False, num: int | None = None) -> Images:
  """Images by what they are called.

  Args:
    name: a folder, a sample file x.npz, or a data set such as tfds:cifar10.
    protocol: says how floats become bytes, and whether sizes may differ.
    split, size: of a data set.
    span: what floats of a sample file mean, see samplefile.SPANS.
    convert: whether grey and transparent images become RGB.
    num: the first so many; None: all.

  Raises:
    UserError: there is no such thing, or it is not fit.
  """
  path = Path(name).expanduser()
  if path.is_dir():
    return Folder.open(name, protocol.mixed, convert, num)
  if path.suffix in PICKLES:
    raise UserError(f"{name} may be a pickle, which could run any program: "
                    "save its arrays with np.savez")
  if path.is_file() or path.suffix == ".npz" and ":" not in name:
    return SampleFile.open(name, protocol.floats, span, convert, num)
  if ":" not in name and name != "digits":
    raise UserError(f"there is no file, folder or data set {name!r}")
  return Dataset(open_source(name, split=split, size=size), split, num)


def open_reference(name: str, protocol: Protocol, **how: Any) -> Reference:
  """A reference by its name; `how` as in `open_images`.

  Raises:
    UserError: also for statistics that another protocol made.
  """
  path = Path(name).expanduser()
  if path.suffix == ".npz" and path.is_file():
    with refuse(path), zipfile.ZipFile(path) as archive:
      entries = {n.removesuffix(".npy") for n in archive.namelist()}
    if "mu" in entries or "sigma" in entries:
      return _statistics(path, entries, protocol, how)
  images = open_images(name, protocol, **how)
  return Reference(images.card, {}, images)


def _statistics(path: Path, entries: set[str], protocol: Protocol,
                how: dict[str, Any]) -> Reference:
  """ADM's files, pytorch-fid's, EDM's, clean-fid's, and our own."""
  names = [n for n in ("mu", "sigma", "mu_s", "sigma_s", "info", "count")
           if n in entries]
  with refuse(path), np.load(path, allow_pickle=False) as file:
    arrays = {n: file[n] for n in names}
  made = json.loads(str(arrays["info"])) if "info" in arrays else None
  check_origin(path, entries, protocol)
  n = int(arrays.get("count", 0))
  statistics = {}
  for tap, end in ("", ""), ("spatial", "_s"):
    pair = [arrays.get(f"{k}{end}") for k in ("mu", "sigma")]
    if all(a is None for a in pair):
      continue
    check_gaussian(path, *pair, end)
    mu, sigma = (np.asarray(a, np.float64) for a in pair)
    statistics[tap or WIDTHS.get(len(mu), "")] = Gaussian(mu, sigma, n)
  images, card = None, {"kind": "statistics", "name": path.name,
                        "sha256": files.sha256(path), "images": n or None}
  if "arr_0" in entries:
    how = {k: how[k] for k in ("span", "convert") if k in how}
    images = SampleFile.open(str(path), protocol.floats, **how)
    card["arr_0"] = images.count
  if made:  # what it was made of is what it is
    card = made["reference"] | {"statistics": path.name}
  return Reference(card, statistics, images, made)


def check_origin(path: Path, entries: set[str], protocol: Protocol) -> None:
  """UserError if a file tells that its images were resized in another way."""
  said = re.search("_(clean|legacy_tensorflow|legacy_pytorch)_", path.name)
  told = {"clean": "clean", "legacy_tensorflow": "tf",
          "legacy_pytorch": "half_pixel"}.get(said and said[1])
  if "mu_s" in entries:  # ADM's alone have them
    told = told or "tf"
  if told and told != protocol.resize and "info" not in entries:
    raise UserError(
        f"{path.name} is of images resized as '{told}', and protocol "
        f"{protocol.name} resizes as '{protocol.resize}': these cannot be "
        "compared")


def check_gaussian(path: Path, mu: np.ndarray | None, sigma: np.ndarray | None,
                   end: str) -> None:
  """UserError unless these are a mean and a covariance."""
  if mu is None or sigma is None:
    raise UserError(f"{path} holds one of mu{end} and sigma{end}, not both")
  if mu.ndim != 1 or sigma.shape != (len(mu),) * 2:
    raise UserError(f"mu{end} of {path} is {list(mu.shape)} and sigma{end} "
                    f"{list(sigma.shape)}: want [D] and [D, D]")
  if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
    raise UserError(f"mu{end} or sigma{end} of {path} is not finite")
  scale = np.sqrt(np.abs(np.diag(sigma)).max() + 1e-30)
  if np.abs(sigma - sigma.T).max() > 1e-3 * scale**2 or (
      np.diag(sigma).min() < -1e-6 * scale**2):
    raise UserError(f"sigma{end} of {path} is no covariance: it is not "
                    "symmetric, or has negative variances")


def save_statistics(path: str | os.PathLike, moments: dict[str, Gaussian],
                    main: str, card: dict[str, Any]) -> None:
  """Statistics of a reference, for next time: mu, sigma, mu_s, sigma_s.

  Of the `card` of an evaluation goes with them what says how they were made.
  """
  info = {k: card[k] for k in ("protocol", "features", "reference")}
  arrays = {"info": np.array(json.dumps(info)),
            "count": np.int64(moments[main].n),
            "mu": moments[main].mu, "sigma": moments[main].sigma}
  if "spatial" in moments:
    arrays |= {"mu_s": moments["spatial"].mu,
               "sigma_s": moments["spatial"].sigma}
  with atomic(path) as draft, draft.open("wb") as file:
    np.savez(file, **arrays)
