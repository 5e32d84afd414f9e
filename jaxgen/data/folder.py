"""A folder or a .zip of image files, of all kinds and sizes, some broken."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data import image, pack, zipped
from jaxgen.data.arrays import Arrays
from jaxgen.data.image import SUFFIXES
from jaxgen.errors import UserError

# Folders of these names are splits, where all beside them are, too.
SPLITS = {
  "train": "train", "training": "train", "test": "test", "testing": "test",
  "val": "val", "valid": "val", "validation": "val", "dev": "val",
  "eval": "eval", "extra": "extra", "unlabeled": "unlabeled",
  "unlabelled": "unlabeled",
}  # fmt: skip
# As StyleGAN2's dataset_tool.py names images: these folders are no classes.
SHARD = re.compile(r"\d{5}/img\d{8}\.\w+")

LOOKS = 64  # images at which one looks before a word on all


class Pictures(NamedTuple):
  """The image files of one split.

  Attributes:
    base: the folder of the split, "train/", or "".
    names: of files below it, sorted.
    classes: names of folders that are classes, in their order; [] if there
      are none.
    labels: of each file; None: it lies in no class.
    notes: what a user should know of what was left out, or is ambiguous.
  """

  base: str
  names: list[str]
  classes: list[str]
  labels: list[int | None]
  notes: list[str]


def open_folder(
  path: str, split: str, size: int | None, channels: int | None, root: Path
) -> Arrays:
  """The images below `path`, cropped to `size`, packed on first use.

  Subfolders are classes, numbered in the natural order of their names (2 is
  before 10), in all splits as in the training split; a folder without
  subfolders is unlabelled. A dataset.json, as StyleGAN2 and EDM write it, says
  more than subfolders do. Where all subfolders have the names of splits, one
  of them is read; without any, everything is "train". The packed copy takes
  size * size * channels bytes an image.

  Args:
    path: of a folder, or of a .zip.
    split: "train" or another.
    size: height and width.
    channels: 1 or 3; 0: grey if all images are; None: 3.
    root: where the packed copy goes.

  Raises:
    UserError: for a missing or empty folder, or no size.
  """
  place = Path(path).expanduser()
  name = f"{'zip' if place.is_file() else 'folder'}:{path}"
  if size is None:
    raise UserError(
      f"{name} needs a size, as images of files vary in theirs:"
      " --config.data.size=32, or --size=32 where there is no config"
    )
  files = _archive(place) if place.is_file() else _folder(place)
  base, names, classes, labels, notes = choose(path, files.names, split)
  told = files.labels(base, names)
  if told is not None:
    classes, labels = [], told.tolist()
  elif classes and None in labels:
    raise UserError(
      f"{place / base} holds both images and subfolders with images: images"
      f" next to the subfolders have no class, e.g."
      f" {names[labels.index(None)]}"
    )
  count = len(classes) if told is None else int(told.max()) + 1
  read = lambda name: files.read(base + name)
  if channels == 0:
    channels = stored_channels(map(read, names))
  channels = channels or 3

  def load(i: int):
    try:
      return image.decode(read(names[i]), size, channels), labels[i]
    except Exception as e:  # a broken file may fail anywhere in a decoder
      raise pack.Unreadable(f"{names[i]}: {_why(e)}") from e

  key = hashlib.blake2b(digest_size=6)
  for name_, stamp in zip(names, files.stamps(base, names), strict=True):
    key.update(os.fsencode(name_) + f"\0{stamp}\0".encode())
  if told is not None:
    key.update(told.data)
  elif classes != sorted(classes):  # by plain order, they were always so
    key.update(os.fsencode("/".join(classes)))
  top = (place / base).name.encode("utf-8", "replace")[:80]
  label = f"{top.decode('utf-8', 'ignore')}-{size}x{channels}-v{pack.VERSION}-{key.hexdigest()}"
  source = pack.packed(name, root / "packed" / label, len(names), load, count, classes)
  kept = tuple(names[i] for i in pack.kept(names, source.skipped))
  if oblong(map(read, names[:LOOKS])):
    notes = [*notes, image.SQUARES]
  whole = files.whole(base, kept, channels)
  return dataclasses.replace(source, whole=whole, class_names=tuple(classes), notes=tuple(notes))


class Place(NamedTuple):
  """Where image files lie: in a folder or in a .zip.

  Attributes:
    names: of all of them.
    read: name -> what can be opened.
    labels: (base, names below it) -> what a dataset.json says, or None.
    stamps: the same -> what changes when a file does.
    whole: (base, names, channels) -> images by number.
  """

  names: list[str]
  read: Callable[[str], Any]
  labels: Callable[[str, Sequence[str]], np.ndarray | None]
  stamps: Callable[[str, Sequence[str]], Sequence[str]]
  whole: Callable[[str, Sequence[str], int], Callable]


def _folder(top: Path) -> Place:
  if not top.is_dir():
    raise UserError(f"there is no folder {top}")

  def stamps(base, names):
    stats = (os.stat(top / base / name) for name in names)
    return [f"{s.st_size}\0{s.st_mtime_ns}" for s in stats]

  return Place(
    listing(top),
    lambda name: top / name,
    lambda base, names: labels_beside(top / base, names),
    stamps,
    lambda base, names, channels: image.Files(top / base, names, channels),
  )


def _archive(path: Path) -> Place:
  if not zipped.is_archive(path):
    raise UserError(f"{path} is a file; folder:PATH wants a folder of images, or a .zip of them")

  def stamps(base, names):
    told = zipped.stamps(path)
    return [told[base + name] for name in names]

  return Place(
    zipped.listing(path),
    lambda name: zipped.member(path, name),
    lambda base, names: zipped.labels_in(path, names, base),
    stamps,
    lambda base, names, channels: zipped.Members(path, base, names, channels),
  )


def labels_beside(top: Path, names: Sequence[str]) -> np.ndarray | None:
  """Labels int32 [N] of images below a folder, if a dataset.json has them."""
  told = top / zipped.LABELS
  if not told.is_file():
    return None
  return zipped.labels_of(told.read_bytes(), names, str(told))


def listing(top: Path) -> list[str]:
  """Image files below `top`, relative, sorted; links are followed once.

  Raises:
    UserError: there are none, or a folder cannot be looked into.
  """
  names = []
  known = {os.path.realpath(top)}
  try:
    entries = os.listdir(top)
  except OSError as e:
    raise UserError(f"cannot look into {top}: {e.strerror}") from e
  for entry in entries:
    path = os.path.join(top, entry)
    if _hidden(entry):
      continue
    if not os.path.isdir(path):
      names += [entry] if _is_image(path) else []
    else:  # each by itself: two that are links to one are two
      names += [f"{entry}/{name}" for name in _below(path, known)]
  if not names:
    raise UserError(f"there are no images in {top} (looked for {' '.join(sorted(SUFFIXES))})")
  return sorted(names)


def _below(top: str, known: set[str]) -> list[str]:
  """Image files below a folder; those in `known` are not gone into."""
  names, seen = [], set(known)

  def refuse(e: OSError):
    raise UserError(f"cannot look into {e.filename}: {e.strerror}") from e

  for folder, below, files in os.walk(top, onerror=refuse, followlinks=True):
    real = os.path.realpath(folder)
    below[:] = sorted(d for d in below if not _hidden(d))
    if real in seen:
      below.clear()
      continue
    seen.add(real)
    start = "" if folder == top else f"{os.path.relpath(folder, top)}/"
    names += [
      f"{start}{file}" for file in files
      if not _hidden(file) and _is_image(os.path.join(folder, file))
    ]  # fmt: skip
  return names


def _hidden(name: str) -> bool:
  return name.startswith((".", "__MACOSX"))


def _is_image(path: str) -> bool:
  end = os.path.splitext(path)[1].lower()
  return end in SUFFIXES and os.path.isfile(path)


def choose(where: object, names: Sequence[str], split: str) -> Pictures:
  """The images of a split among all below a folder, and what classes there are.

  Args:
    where: of what these are the files, for messages.
    names: of image files, with / between folders.
    split: which is wanted.

  Raises:
    UserError: there is no such split, or it has a class that the training
      split lacks.
  """
  tops = sorted({n.partition("/")[0] for n in names if "/" in n}, key=natural)
  known = [t for t in tops if t.lower() in SPLITS]
  divided, notes = bool(tops) and known == tops, []
  if not divided and split in tops and split not in SPLITS:
    divided = True  # of a name that only a user can have meant
  if not divided:
    if split != "train":
      taken = split in tops and f": it is a class beside {_few(tops, split)}"
      raise UserError(f"{where} has no subfolder '{split}' to be that split{taken or ''}")
    if known:
      rest = [t for t in tops if t not in known]
      notes.append(
        f"{_few(known)} {'is a class' if len(known) == 1 else 'are classes'},"
        f" no split, as {_few(rest)} {'is' if len(rest) == 1 else 'are'} none"
      )
    names = sorted(names)
    return Pictures("", names, *classes_of(names), notes)
  own = _of_split(where, tops, split)
  if loose := [n for n in names if "/" not in n]:
    notes.append(f"{len(loose)} images beside {_few(tops)}, e.g. {loose[0]}")
  below = lambda top: sorted(n.partition("/")[2] for n in names if n.startswith(f"{top}/"))
  chosen = below(own)
  classes, labels = classes_of(chosen)
  first = _among(tops, "train")
  if first not in (None, own):
    known, _ = classes_of(below(first))
    if strange := [c for c in classes if known and c not in known]:
      raise UserError(
        f"{where} has a class {strange[0]!r} in {own} that {first} lacks: it knows {_few(known)}"
      )
    if known and classes:
      numbers = {name: i for i, name in enumerate(known)}
      labels = [None if i is None else numbers[classes[i]] for i in labels]
      classes = known
  return Pictures(f"{own}/", chosen, classes, labels, notes)


def _of_split(where: object, tops: list[str], split: str) -> str:
  own = _among(tops, split)
  if own is None:
    raise UserError(f"{where} has no subfolder '{split}' to be that split: there are {_few(tops)}")
  return own


def _among(tops: list[str], split: str) -> str | None:
  """The folder of a split: of its name, or the only one of its meaning."""
  if split in tops:
    return split
  meant = SPLITS.get(split.lower(), split)
  found = [t for t in tops if SPLITS.get(t.lower()) == meant]
  return found[0] if len(found) == 1 else None


def classes_of(names: Sequence[str]) -> tuple[list[str], list[int | None]]:
  """Classes in natural order, and the class of each image; None: of none.

  The first folder on the way to an image is its class, however deep it lies.
  """
  if all(SHARD.fullmatch(name) for name in names):
    return [], [None] * len(names)
  firsts = [name.partition("/")[0] if "/" in name else None for name in names]
  classes = sorted({f for f in firsts if f is not None}, key=natural)
  numbers = {name: i for i, name in enumerate(classes)}
  return classes, [None if f is None else numbers[f] for f in firsts]


def natural(name: str) -> tuple[list[Any], str]:
  """What sorts 2 before 10."""
  parts = re.split(r"([0-9]+)", name)
  parts[1::2] = [(len(n.lstrip("0")), n.lstrip("0")) for n in parts[1::2]]
  return parts, name


def stored_channels(files: Iterable[Any]) -> int:
  """1 if all of these image files are grey, by their heads; else 3."""
  grey = 0
  for file in files:
    try:
      with image.open_image(file) as opened:
        if opened.mode not in image.GREY:
          return 3
        grey += 1
    except Exception:  # it is named when it is to be read
      continue
  return 1 if grey else 3


def oblong(files: Iterable[Any]) -> bool:
  """Whether any of these image files is no square, by their heads."""
  for file in files:
    try:
      with image.open_image(file) as opened:
        if opened.width != opened.height:
          return True
    except Exception:  # it is named when it is to be read
      continue
  return False


def _few(names: Sequence[str], without: str | None = None) -> str:
  shown = [n for n in names if n != without]
  return ", ".join(shown[:8]) + (", .." if len(shown) > 8 else "")


def _why(e: Exception) -> str:
  """The first line of what the decoder says, without a path."""
  text = str(e) or type(e).__name__
  return text.splitlines()[0].split(" '/")[0][:120]
