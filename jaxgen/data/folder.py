"""A folder or a .zip of image files, of all kinds and sizes, some broken."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data import image, pack, recordings, zipped
from jaxgen.data.arrays import Arrays
from jaxgen.data.image import SUFFIXES
from jaxgen.errors import UserError
from jaxgen.files import local

# Folders of these names are splits, where all beside them are, too.
SPLITS = {
  "train": "train", "training": "train", "test": "test", "testing": "test",
  "val": "val", "valid": "val", "validation": "val", "dev": "val",
  "eval": "eval", "extra": "extra", "unlabeled": "unlabeled",
  "unlabelled": "unlabeled",
}  # fmt: skip
# As StyleGAN2's dataset_tool.py names images: these folders are no classes.
SHARD = re.compile(r"\d{5}/img\d{8}\.\w+")
LOOKS = 64  # images whose shape is looked at, before a word on all


class Pictures(NamedTuple):
  """The image files of one split.

  Attributes:
    base: The folder of the split, "train/", or "".
    names: Files below it, sorted.
    classes: Names of folders that are classes, in their order; [] if there
      are none.
    labels: The class of each file; None: it lies in no class.
    notes: What a user should know of what was left out, or is ambiguous.
  """

  base: str
  names: list[str]
  classes: list[str]
  labels: list[int | None]
  notes: list[str]


class Place(NamedTuple):
  """Where image files lie: in a folder or in a .zip.

  Attributes:
    names: All of them.
    open: name -> what image.open_image takes; can be pickled.
    labels: (base, names below it) -> labels by a dataset.json, or None.
    stamps: names -> a string for each that changes when the file does.
  """

  names: list[str]
  open: Callable[[str], Any]
  labels: Callable[[str, Sequence[str]], np.ndarray | None]
  stamps: Callable[[Sequence[str]], Iterable[str]]


def open_folder(
  path: str, split: str, size: int | None, channels: int | None, root: Path
) -> Arrays:
  """The images of a folder or a .zip, cropped to `size`, packed on first use.

  Subfolders are classes, numbered in the natural order of their names (2 is
  before 10), in all splits as in the training split; a folder without
  subfolders is unlabelled. A dataset.json, as StyleGAN2 and EDM write it, says
  more than subfolders do. Where all subfolders have the names of splits, one
  of them is read; without any, everything is "train". The packed copy, below
  `root`, takes size * size * channels bytes an image.

  Args:
    channels: 1 or 3; 0: grey if all images are; None: 3.

  Raises:
    UserError: for a missing or empty folder, or no size.
  """
  top = local(path)
  name = f"{'zip' if top.is_file() else 'folder'}:{path}"
  if size is None:
    raise UserError(
      f"{name} needs a size, as images of files vary in theirs:"
      " --config.data.size=32, or --size=32 where there is no config"
    )
  place, pictures, files = open_files(path, split, channels or 3)
  base, names, notes = pictures.base, pictures.names, pictures.notes
  json_labels = place.labels(base, names)
  classes, labels, count = _labels(top / base, pictures, json_labels)
  if channels == 0:
    files = dataclasses.replace(files, channels=stored_channels(files))

  def load(i: int):
    try:
      return image.decode(files.open(files.names[i]), size, files.channels), labels[i]
    except Exception as e:  # a broken file may fail anywhere in a decoder
      raise pack.Unreadable(f"{names[i]}: {image.reason(e)}") from e

  stem = (top / base).name.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")
  key = _pack_key(names, place.stamps(files.names), classes, json_labels)
  target = root / "packed" / f"{stem}-{size}x{files.channels}-v{pack.VERSION}-{key}"
  source = pack.packed(name, target, len(names), load, count, classes)
  if any(width != height for _, (width, height) in heads(files, LOOKS)):
    notes = [*notes, image.SQUARES]
  rows = pack.readable_rows(names, source.skipped)
  original = dataclasses.replace(files, names=tuple(files.names[i] for i in rows))
  names = tuple(classes)
  return dataclasses.replace(source, original=original, class_names=names, notes=tuple(notes))


def open_files(path: str, split: str, channels: int = 3) -> tuple[Place, Pictures, image.Files]:
  """The image files of a split of a folder or a .zip, none of them read.

  Raises:
    UserError: for a missing or empty folder, or a split that is not there.
  """
  top = local(path)
  place = _archive(top) if top.is_file() else _folder(top)
  pictures = choose(path, place.names, split)
  return (
    place,
    pictures,
    image.Files(place.open, [pictures.base + n for n in pictures.names], channels),
  )


def _labels(
  folder: Path, pictures: Pictures, json_labels: np.ndarray | None
) -> tuple[list[str], list[int | None], int]:
  """Names of classes, the label of each image, and how many classes there are."""
  if json_labels is not None:
    return [], json_labels.tolist(), int(json_labels.max()) + 1
  if pictures.classes and None in pictures.labels:
    first = pictures.names[pictures.labels.index(None)]
    raise UserError(
      f"{folder} holds both images and subfolders with images: images"
      f" next to the subfolders have no class, e.g. {first}"
    )
  return pictures.classes, pictures.labels, len(pictures.classes)


def _pack_key(
  names: Sequence[str],
  stamps: Iterable[str],
  classes: Sequence[str],
  json_labels: np.ndarray | None,
) -> str:
  """Hex digits that change with the files, and with their labels."""
  key = hashlib.blake2b(digest_size=6)
  for name, stamp in zip(names, stamps, strict=True):
    key.update(os.fsencode(name) + f"\0{stamp}\0".encode())
  if json_labels is not None:
    key.update(json_labels.data)
  elif classes != sorted(classes):  # by plain order, they were always so
    key.update(os.fsencode("/".join(classes)))
  return key.hexdigest()


def _folder(top: Path) -> Place:
  if not top.is_dir():
    raise UserError(f"there is no folder {top}")

  def stamps(names):
    stats = (os.stat(top / name) for name in names)
    return (f"{s.st_size}\0{s.st_mtime_ns}" for s in stats)

  return Place(
    listing(top), top.joinpath, lambda base, names: labels_beside(top / base, names), stamps
  )


def _archive(path: Path) -> Place:
  if not zipped.is_archive(path):
    raise UserError(f"{path} is a file; folder:PATH wants a folder of images, or a .zip of them")
  return Place(
    zipped.listing(path),
    functools.partial(zipped.member, path),
    lambda base, names: zipped.labels_in(path, names, base),
    lambda names: map(zipped.stamps(path).get, names),
  )


def labels_beside(top: Path, names: Sequence[str]) -> np.ndarray | None:
  """Labels int32 [N] of images below a folder, if a dataset.json has them."""
  path = top / zipped.LABELS
  return zipped.labels_of(path.read_bytes(), names, str(path)) if path.is_file() else None


def listing(
  top: Path, suffixes: Set[str] = SUFFIXES, kind: str = "images", hints: bool = True
) -> list[str]:
  """Files of these suffixes below `top`, relative, sorted; links are followed once.

  Args:
    top: The folder.
    suffixes: In lower case.
    kind: What they are, for messages: "images" or "recordings".
    hints: Whether the error says that there are files of the other kind.

  Raises:
    UserError: there are none, or a folder cannot be looked into.
  """
  names = []
  parents = {os.path.realpath(top)}
  try:
    entries = os.listdir(top)
  except OSError as e:
    raise UserError(f"cannot look into {top}: {e.strerror}") from e
  for entry in entries:
    path = os.path.join(top, entry)
    if _hidden(entry):
      continue
    if not os.path.isdir(path):
      names += [entry] if _is_one(path, suffixes) else []
    else:  # each by itself: two that are links to one are two
      names += [f"{entry}/{name}" for name in _below(path, parents, suffixes)]
  if not names:
    hint = hints and _of_another_kind(top, kind)
    raise UserError(
      hint or f"there are no {kind} in {top} (looked for {' '.join(sorted(suffixes))})"
    )
  return sorted(names)


def _of_another_kind(top: Path, kind: str) -> str:
  """What to do with a folder that holds sound in place of images, or the other way."""
  other, suffixes = "images", SUFFIXES
  if kind == other:
    other, suffixes = "recordings", recordings.SUFFIXES
  try:
    count = len(listing(top, suffixes, other, hints=False))
  except UserError:
    return ""
  if other == "images":
    return f"{top} holds {count:,} images and no recordings: leave out --config.data.rate"
  return (
    f"{top} holds sound, {count:,} recordings: say samples a second and of a clip, "
    "--config.data.rate=16000 --config.data.size=16000, and take a config of sound"
  )


def _below(top: str, parents: set[str], suffixes: Set[str]) -> list[str]:
  """Files of these suffixes below a folder; none of `parents` is entered again."""
  names, visited = [], set(parents)

  def refuse(e: OSError):
    raise UserError(f"cannot look into {e.filename}: {e.strerror}") from e

  for folder, below, files in os.walk(top, onerror=refuse, followlinks=True):
    real = os.path.realpath(folder)
    below[:] = sorted(d for d in below if not _hidden(d))
    if real in visited:
      below.clear()
      continue
    visited.add(real)
    start = "" if folder == top else f"{os.path.relpath(folder, top)}/"
    files = [f for f in files if not _hidden(f) and _is_one(os.path.join(folder, f), suffixes)]
    names += [start + file for file in files]
  return names


def _hidden(name: str) -> bool:
  return name.startswith((".", "__MACOSX"))


def _is_one(path: str, suffixes: Set[str]) -> bool:
  return os.path.splitext(path)[1].lower() in suffixes and os.path.isfile(path)


def choose(path: object, names: Sequence[str], split: str) -> Pictures:
  """The images of a split among all below a folder, and what classes there are.

  Args:
    path: Of the folder, for messages.
    names: Image files, with / between folders.
    split: "train" or another.

  Raises:
    UserError: there is no such split, or it has a class that the training
      split lacks.
  """
  tops = sorted({n.partition("/")[0] for n in names if "/" in n}, key=natural)
  # A split of a user's own is one by its name alone.
  if (tops and all(t.lower() in SPLITS for t in tops)) or (split in tops and split not in SPLITS):
    return _choose_divided(path, names, tops, split)
  if split != "train":
    beside = f": it is a class beside {_few(tops, split)}" if split in tops else ""
    raise UserError(f"{path} has no subfolder '{split}' to be that split{beside}")
  notes = []
  if splits := [t for t in tops if t.lower() in SPLITS]:
    others = [t for t in tops if t not in splits]
    notes.append(
      f"{_few(splits)} {'is a class' if len(splits) == 1 else 'are classes'},"
      f" no split, as {_few(others)} {'is' if len(others) == 1 else 'are'} none"
    )
  names = sorted(names)
  return Pictures("", names, *classes_of(names), notes)


def _choose_divided(path: object, names: Sequence[str], tops: list[str], split: str) -> Pictures:
  """`choose` where the folders `tops` are splits."""
  top = _top_of(tops, split)
  if top is None:
    raise UserError(f"{path} has no subfolder '{split}' to be that split: there are {_few(tops)}")
  below = lambda top: sorted(n.partition("/")[2] for n in names if n.startswith(f"{top}/"))
  images = below(top)
  classes, labels = classes_of(images)
  train = _top_of(tops, "train")
  if classes and train not in (None, top) and (train_classes := classes_of(below(train))[0]):
    if unknown := [c for c in classes if c not in train_classes]:
      raise UserError(
        f"{path} has a class {unknown[0]!r} in {top} that {train} lacks: it knows"
        f" {_few(train_classes)}"
      )
    numbers = {name: i for i, name in enumerate(train_classes)}
    labels = [None if i is None else numbers[classes[i]] for i in labels]
    classes = train_classes
  loose = [n for n in names if "/" not in n]
  notes = [f"{len(loose)} images beside {_few(tops)}, e.g. {loose[0]}"] if loose else []
  return Pictures(f"{top}/", images, classes, labels, notes)


def _top_of(tops: list[str], split: str) -> str | None:
  """The folder of a split: of its name, or the only one of its meaning."""
  if split in tops:
    return split
  meaning = SPLITS.get(split.lower(), split)
  alike = [t for t in tops if SPLITS.get(t.lower()) == meaning]
  return alike[0] if len(alike) == 1 else None


def classes_of(names: Sequence[str]) -> tuple[list[str], list[int | None]]:
  """Classes in natural order, and the class of each image; None: of none.

  The first folder on the way to an image is its class, however deep it lies.
  """
  if all(SHARD.fullmatch(name) for name in names):
    return [], [None] * len(names)
  folders = [name.partition("/")[0] if "/" in name else None for name in names]
  classes = sorted({f for f in folders if f is not None}, key=natural)
  numbers = {name: i for i, name in enumerate(classes)}
  return classes, [numbers.get(f) for f in folders]


def natural(name: str) -> tuple[list[Any], str]:
  """Sort key that puts 2 before 10."""
  parts = re.split(r"([0-9]+)", name)
  parts[1::2] = [(len(n.lstrip("0")), n.lstrip("0")) for n in parts[1::2]]
  return parts, name


def heads(files: image.Files, limit: int | None = None) -> Iterator[tuple[str, tuple[int, int]]]:
  """Mode and (width, height) of the first files that can be read."""
  for name in files.names[:limit]:
    try:
      with image.open_image(files.open(name)) as opened:
        head = opened.mode, opened.size
    except Exception:  # it is named when it is to be read
      continue
    yield head


def stored_channels(files: image.Files) -> int:
  """1 if all of these image files are grey, by their heads; else 3."""
  channels = 3
  for mode, _ in heads(files):
    if mode not in image.GREY:
      return 3
    channels = 1
  return channels


def _few(names: Sequence[str], without: str | None = None) -> str:
  shown = [n for n in names if n != without]
  return ", ".join(shown[:8]) + (", .." if len(shown) > 8 else "")
