"""References, and files of statistics: means and covariances of features.

Whoever wrote them: .npz of mu and sigma (ADM's with mu_s and sigma_s, pytorch-fid's, EDM's,
clean-fid's, our own), and EDM2's .pkl.
"""

import dataclasses
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import arrayfile
from jaxgen.errors import UserError
from jaxgen.evaluation.images import Images
from jaxgen.evaluation.protocols import Protocol
from jaxgen.interop import gaussians, tensor_files
from jaxgen.metrics.distances import Gaussian

WIDTHS = {64: "64", 192: "192", 768: "768"}  # else those of the main tap
IN_PICKLES = {"inception": "fid", "dinov2": "fd_dinov2"}
LONGEST = 1 << 22  # letters of the info of our own
FEATURES = ("pool_3", "feats", "real_feats", "features", "activations")


@dataclasses.dataclass
class Reference:
  """Statistics by tap ("" is the main one), and images where there are any.

  Attributes:
    card: what it is; "sha256" or "fingerprint" identifies it.
    statistics: of a file of them; empty: they are to be made of the images.
    images: to look at.
    info: how a statistics file of ours says that it was made.
    path: of the file of statistics.
  """

  card: dict[str, Any]
  statistics: dict[str, Gaussian]
  images: Images | None = None
  info: dict[str, Any] | None = None
  path: Path | None = None

  @classmethod
  def of(cls, images: Images) -> "Reference":
    """Images, to make statistics of."""
    return cls(images.card, {}, images)


def is_pickle(path: Path) -> bool:
  """Whether a file begins as pickles do."""
  if not path.is_file():
    return False
  with path.open("rb") as file:
    return file.read(1) == b"\x80"


def holds(path: Path) -> bool:
  """Whether a file is of statistics alone, without images."""
  if is_pickle(path):
    return path.suffix in (".pkl", ".pickle")
  if not path.is_file() or path.suffix != ".npz":
    return False
  names = arrayfile.names(path)
  return "arr_0" not in names and bool({"mu", "sigma"} & set(names))


def load(path: Path, protocol: Protocol, features: str = "inception") -> Reference:
  """Reads a file of statistics.

  Args:
    path: Of an .npz or .pkl.
    protocol: With which they are to be compared.
    features: Of which network they are wanted, where a file has several.

  Raises:
    UserError: It holds none, or of images that were resized in another way.
  """
  if is_pickle(path):
    return _of_pickle(path, features)
  names = arrayfile.names(path)
  arrays = {
    n: arrayfile.stored(path, n)
    for n in ("mu", "sigma", "mu_s", "sigma_s", "info", "count")
    if n in names
  }
  info = _read_info(path, arrays.get("info"))
  check_origin(path, names, protocol, info)
  n, of = _read_count(arrays.get("count")), {}
  for tap, end in ("", ""), ("spatial", "_s"):
    pair = [arrays.get(f"{k}{end}") for k in ("mu", "sigma")]
    if any(pair):
      gaussian = check_gaussian(path, *pair, n, end)
      of[tap or WIDTHS.get(len(gaussian.mu), "")] = gaussian
  if not of:
    raise UserError(advice(path, names))
  # What it was made of is what it is.
  card = info["reference"] | {"statistics": path.name} if info else card_of(path, n)
  return Reference(card, of, None, info, path)


def card_of(path: Path, n: int) -> dict[str, Any]:
  """The card of a file of somebody else: of n images, 0: nobody says so."""
  sha256 = tensor_files.sha256(path)
  return {"kind": "statistics", "name": path.name, "sha256": sha256, "images": n or None}


def _of_pickle(path: Path, features: str) -> Reference:
  """EDM2's."""
  named, n = gaussians.read(path)
  name = IN_PICKLES.get(features, "fid")
  if name not in named:
    raise UserError(
      f"{path} has no statistics '{name}', as --features="
      f"{features} wants, but {', '.join(map(repr, named))}"
    )
  gaussian = check_gaussian(path, *named[name].values(), n)
  return Reference(card_of(path, n) | {"of": name}, {"": gaussian}, path=path)


def _read_count(stored: arrayfile.Stored | None) -> int:
  """How many images there were; 0: nobody says so."""
  if stored is None or stored.shape or stored.dtype.kind not in "iu":
    return 0
  return max(int(stored.whole()), 0)


def _read_info(path: Path, stored: arrayfile.Stored | None) -> dict[str, Any] | None:
  """What a file of ours says of itself; None: it is of somebody else."""
  if stored is None or stored.shape or stored.dtype.kind != "U":
    return None
  if stored.nbytes > 4 * LONGEST:
    raise UserError(f"info of {path} is too long")
  try:
    info = json.loads(str(stored.whole()))
  except (ValueError, RecursionError):
    return None
  parts = {"protocol": ("resize",), "features": ("sha256", "name"), "reference": ("name",)}
  if not isinstance(info, dict) or not parts.keys() <= info.keys():
    return None
  for part, fields in parts.items():
    if not isinstance(info[part], dict) or any(type(info[part].get(f)) is not str for f in fields):
      raise UserError(
        f"info of {path} is damaged: it lacks {part}."
        f"{' or '.join(fields)}; make it anew with --save_ref"
      )
  return info


def check_origin(
  path: Path, names: Collection[str], protocol: Protocol, info: dict[str, Any] | None = None
) -> None:
  """UserError if a file says that its images were resized in another way."""
  match = re.search("_(clean|legacy_tensorflow|legacy_pytorch)_", path.name)
  resizes = {"clean": "clean", "legacy_tensorflow": "tf", "legacy_pytorch": "half_pixel"}
  resize = resizes[match[1]] if match else None
  if "mu_s" in names:  # ADM's alone have them
    resize = resize or "tf"
  if resize and resize != protocol.resize and not info:
    raise UserError(
      f"{path.name} is of images resized as '{resize}', and protocol "
      f"{protocol.name} resizes as '{protocol.resize}': these cannot be "
      "compared"
    )


def check_gaussian(path: Path, mu: Any, sigma: Any, n: int, end: str = "") -> Gaussian:
  """A mean and a covariance, as stored or in memory; UserError if not."""
  if mu is None or sigma is None:
    raise UserError(f"{path} holds one of mu{end} and sigma{end}, not both")
  if len(mu.shape) != 1 or sigma.shape != mu.shape * 2 or not mu.shape[0]:
    raise UserError(
      f"mu{end} of {path} is {list(mu.shape)} and sigma{end} "
      f"{list(sigma.shape)}: want [D] and [D, D]"
    )
  if mu.dtype.kind not in "fiu" or sigma.dtype.kind not in "fiu":
    raise UserError(f"mu{end} of {path} is {mu.dtype} and sigma{end} {sigma.dtype}: want floats")
  mu, sigma = (
    np.asarray(a if isinstance(a, np.ndarray) else a.whole(), np.float64) for a in (mu, sigma)
  )
  if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
    raise UserError(f"mu{end} or sigma{end} of {path} is not finite")
  scale = np.sqrt(np.abs(np.diag(sigma)).max() + 1e-30)
  if np.abs(sigma - sigma.T).max() > 1e-3 * scale**2 or (np.diag(sigma).min() < -1e-6 * scale**2):
    raise UserError(
      f"sigma{end} of {path} is no covariance: it is not symmetric, or has negative variances"
    )
  return Gaussian(mu, sigma, n)


def advice(path: Path, names: Collection[str]) -> str:
  """What to say of a file that has neither statistics nor images."""
  contents = ", ".join(list(names)[:8]) or "nothing"
  line = (
    f"{path} holds {contents}: a reference is mu [D] and sigma [D, D], or "
    "images arr_0, uint8 [N, H, W, 3]"
  )
  lower = {n.lower() for n in names}
  if rows := lower & set(FEATURES):
    return (
      f"{line}; of features f save np.savez(file, mu=f.mean(0), "
      f"sigma=np.cov(f, rowvar=False)), f being its {min(rows)}"
    )
  if len(names) == 2 or any(n.startswith(("mean", "cov")) for n in lower):
    return f"{line}; save a mean as mu and a covariance as sigma"
  return line
