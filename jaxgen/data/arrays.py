"""A data set that lies in memory, or in a file mapped into it."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from jaxgen.data import image
from jaxgen.errors import UserError

Example = dict[str, np.ndarray]
Cut = Callable[[int, Image.Image], Image.Image]  # (k, image) -> of x's size


class Source(Protocol):
  """Random access to examples {"x": an array, "y": its label, int32}.

  `x` is any array, such as an image uint8 [H, W, C] or a point float32 [2];
  `y` is absent where there are no labels, and `classes` is 0 then.
  """

  name: str
  classes: int
  shape: tuple[int, ...]  # of one x
  dtype: np.dtype  # of x
  fingerprint: str  # the same if and only if the examples are
  class_names: tuple[str, ...]  # in their order; () where they have none
  skipped: tuple[str, ...]  # "file: why" for what could not be read
  notes: tuple[str, ...]  # what else a user should know, such as "3 images .."
  in_memory: bool  # reading costs next to nothing: needs no threads

  def __len__(self) -> int: ...
  def __getitem__(self, i: int) -> Example: ...

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    """The examples at `indices`, stacked: a copy the caller may change.

    With `cut`, for images alone, x is made by it of the k-th as it is stored.
    """

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    """All examples, (x, y), not to be written to; y is None without labels."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Arrays:
  """The source whose examples are the rows of x [N, ...] and y [N]."""

  name: str
  x: np.ndarray
  y: np.ndarray | None = None
  classes: int = 0
  skipped: tuple[str, ...] = ()
  folder: Path | None = None  # where x is mapped from
  stored_fingerprint: str = ""
  original: Callable[[int], Image.Image] | None = None  # what x[i] was cropped from
  class_names: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()

  @property
  def shape(self) -> tuple[int, ...]:
    return self.x.shape[1:]

  @property
  def dtype(self) -> np.dtype:
    return self.x.dtype

  @property
  def in_memory(self) -> bool:
    """Whether reading waits for no disk: all of it, or little, is mapped."""
    return self.folder is None or self.x.nbytes < 2**30

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hex digits of the examples' values and their order."""
    return self.stored_fingerprint or digest(self.x, self.y)

  def __len__(self) -> int:
    return len(self.x)

  def __getitem__(self, i: int) -> Example:
    example = {"x": np.array(self.x[i])}
    if self.y is not None:
      example["y"] = np.int32(self.y[i])
    return example

  def read(self, indices: np.ndarray, cut: Cut | None = None) -> Example:
    if cut is None:
      batch = {"x": self.x[indices]}
    else:
      original = self.original or image.Stack(self.x, self.shape[-1])
      batch = {"x": np.stack([image.pixels(cut(k, original(i))) for k, i in enumerate(indices)])}
    if self.y is not None:
      batch["y"] = self.y[indices]
    return batch

  def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
    return self.x, self.y

  def __getstate__(self):  # to a worker process goes the file's name, not it
    return vars(self) | ({"x": None, "y": None} if self.folder else {})

  def __setstate__(self, state):
    if state["folder"]:
      source = mapped(state["folder"], state["name"])
      state |= {"x": source.x, "y": source.y}
    vars(self).update(state)


def digest(x: np.ndarray, y: np.ndarray | None) -> str:
  """Sixteen hex digits that identify the examples, in their order."""
  h = hashlib.blake2b(digest_size=8)
  for a in (x, y):
    if a is not None:
      h.update(f"{a.shape}{a.dtype.str}".encode())
      h.update(np.ascontiguousarray(a).data)
  return h.hexdigest()


def mapped(folder: Path, name: str) -> Arrays:
  """The packed data set in `folder` (see pack.py), mapped into memory."""
  try:
    meta = json.loads((folder / "meta.json").read_text())
    shape = (meta["count"], *meta["shape"])
    x = np.memmap(folder / "x.bin", np.uint8, "r", shape=shape)
    y = np.fromfile(folder / "y.bin", np.int32) if meta["classes"] else None
    if x.nbytes != (folder / "x.bin").stat().st_size or (y is not None and len(y) != len(x)):
      raise ValueError("sizes disagree")
  except (OSError, ValueError, KeyError) as e:
    raise UserError(
      f"the packed copy of {name} in {folder} is damaged ({e}); delete that"
      " folder and it will be made again"
    ) from e
  return Arrays(
    name,
    np.asarray(x),
    y,
    meta["classes"],
    skipped=tuple(meta["skipped"]),
    folder=folder,
    stored_fingerprint=meta["fingerprint"],
    class_names=tuple(meta.get("class_names", ())),
  )
