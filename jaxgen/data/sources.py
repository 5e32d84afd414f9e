"""Data sets by name: "digits", "points:ring8", "folder:/my/images", ..

A name may choose a part: "digits:without=3", "folder:/my/images:first=20"; see
subset.py.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.data import cache
from jaxgen.data.arrays import Source
from jaxgen.data.clips import open_clips
from jaxgen.data.folder import open_folder
from jaxgen.data.holdout import open_side, some
from jaxgen.data.image_pairs import open_pairs, open_sides
from jaxgen.data.latent_rows import Latents, open_latents
from jaxgen.data.npz import open_npz
from jaxgen.data.photos import open_photos
from jaxgen.data.points import open_points
from jaxgen.data.range_rows import open_packed
from jaxgen.data.subset import parted, subset
from jaxgen.data.unpaired import alter, open_unpaired
from jaxgen.errors import UserError

NAMES = (
  "digits", "stacked_digits", "spoken_digits", "photos", "points:ring8", "points:grid25",
  "tfds:NAME", "array_record:PATH", "folder:PATH", "zip:PATH", "npz:PATH", "npy:PATH",
  "packed:PATH", "latents:PATH", "pairs:A,B", "sides:PATH", "unpaired:A,B",
)  # fmt: skip
ALTERED = ("digits", "photos")  # data sets that `unpaired` can alter
# Kinds that may hold it.
SOUND = ("folder", "spoken_digits", "tfds", "array_record", "mel", "latents")


def open_source(
  name: str,
  split: str = "train",
  size: int | None = None,
  data_dir: str | None = None,
  channels: int | None = None,
  rate: int = 0,
) -> Source:
  """Opens a data set, preparing on first use what needs no download.

  Args:
    name: One of NAMES, perhaps with what `parted` knows of.
    split: "train" or "test" where the data set has them.
    size: Images are resized and cropped to size x size (see image.crop); by
      default as stored. Folders need one. Digits at 4 and photos at 32 or 16
      are box means of those as stored, so cascades can be made of them.
    data_dir: where prepared data lies; by default $JAXGEN_DATA, or else
      jaxgen/data in $XDG_CACHE_HOME or ~/.cache.
    channels: 1 or 3; 0: as stored, where a folder of files is grey if all of
      its images are. By default as stored, and 3 for folders.
    rate: Samples a second of sound, of which `size` are a clip: of a folder of
      recordings, of TFDS's audio, or of spoken digits. 0: of images.

  Raises:
    UserError: for what cannot be opened: a line that says what to do.
  """
  if channels not in (None, 0, 1, 3) or size is not None and size < 1:
    raise UserError(
      f"images have 1 or 3 channels (0: as stored) and a positive size, not {channels} and {size}"
    )
  base, options = parted(name)
  if options:
    source = open_source(base, split, size, data_dir, channels, rate)
    return subset(source, options, split, name)
  kind, _, argument = name.partition(":")
  root, fixed_channels = cache.root(data_dir), channels or None
  if rate and kind not in SOUND:
    raise UserError(f"{name} holds no sound: leave out --config.data.rate")
  if channels and (rate or kind == "spoken_digits"):
    raise UserError(
      f"{name} is sound of one channel, the mean of those it has: leave out --config.data.channels"
    )
  base, dash, how = kind.rpartition("-")
  if dash and not argument and base in ALTERED:
    return alter(open_source(base, split, size, data_dir, channels), how)
  match kind, bool(argument):  # importing TFDS takes half a second: where it is needed
    case "folder", True if rate:
      return open_clips(argument, split, size, rate, root)
    case "mel", True:
      from jaxgen.data.mel_images import open_mel_images

      return open_mel_images(open_source(argument, split, size, data_dir, channels, rate))
    case "spoken_digits", False:
      from jaxgen.data.spoken import open_spoken

      return open_spoken(split, size, rate, root)
    case "points", True:
      if size or channels:
        raise UserError(f"{name} are points: leave out size and channels")
      return open_points(argument, split)
    case "folder" | "zip" | "npz" | "npy", True:
      if holds_arrays(kind, argument):
        return open_npz(argument, split, size, fixed_channels)
      return open_folder(argument, split, size, channels, root)
    case "packed", True:
      return open_packed(argument, split, size, fixed_channels)
    case "digits" | "stacked_digits", False:
      from jaxgen.data import digits, stacked

      opener = digits.open_digits if kind == "digits" else stacked.open_stacked
      return opener(split, size, fixed_channels, root)
    case "pairs" | "sides", True:
      opener = open_pairs if kind == "pairs" else open_sides
      return opener(argument, split, size, channels, root)
    case "unpaired", True:
      one = lambda part: open_source(part, split, size, data_dir, channels)
      return open_unpaired(argument, split, one)
    case "photos", False:
      return open_photos(split, size, fixed_channels)
    case "latents", True:
      raise UserError(f"{name} holds latents: only a model of latents can be trained on them")
    case "tfds" | "array_record", True:
      from jaxgen.data import catalogue

      opener = catalogue.open_tfds if kind == "tfds" else catalogue.open_array_record
      return opener(argument, split, size, fixed_channels, root, rate)
  raise UserError(f"there is no data set '{name}'; {_guess(name)}There are {', '.join(NAMES)}")


def holds_arrays(kind: str, path: str) -> bool:
  """Whether a path is an .npz or .npy, which its name tells better than `kind`."""
  suffix = Path(path).suffix
  return (suffix if suffix in (".zip", ".npz", ".npy") else f".{kind}") in (".npz", ".npy")


def open_split(data: Mapping[str, Any], split: str | None = None) -> Source:
  """What config.data describes: as it is trained on, or another split of it.

  With data.holdout, a share, images without a split called "test" get one. With
  data.fraction, the split that is trained on has so many of its examples. Of
  latents, these are the images that they were written of: see `open_training`.

  Raises:
    UserError: There are no such data, or a part of them would hold nothing.
  """
  data = images_of(data)
  size, split = data.get("size") or None, split or data["split"]
  base, options = parted(data["source"])
  opener = lambda part: open_source(
    base, part, size, channels=channels_of(data), rate=data.get("rate", 0)
  )
  share = data.get("holdout", 0.0)
  source = open_side(opener, split, share, cache.root()) if share else opener(split)
  source = subset(source, options, split, data["source"])
  if split == data["split"] and (fraction := data.get("fraction", 1.0)) < 1:
    return some(source, fraction)
  return source


def open_training(data: Mapping[str, Any]) -> Source | Latents:
  """What config.data describes, as it is trained on: images, or their latents."""
  if not is_latents(data):
    return open_split(data)
  parts = data.get("holdout") or data.get("fraction", 1.0) < 1 or parted(data["source"])[1]
  if parts:
    raise UserError(
      "config.data.holdout and fraction choose images: set them where latents are written, of a "
      "workdir's own data, and not beside data.source=latents:.."
    )
  return open_latents(data["source"].partition(":")[2])


def images_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
  """config.data of the images themselves, where it is of their latents."""
  if not is_latents(data):
    return data
  return open_latents(data["source"].partition(":")[2]).images


def is_latents(data: Mapping[str, Any]) -> bool:
  """Whether config.data is of latents that were written by `jaxgen encode`."""
  return data["source"].startswith("latents:")


def channels_of(data: Mapping[str, Any]) -> int:
  """config.data.channels; older configs lack it, and took folders as RGB."""
  of_images = data["source"].startswith("folder:") and not data.get("rate")
  return data.get("channels", 3 if of_images else 0)


def _guess(name: str) -> str:
  """ "did you mean NAME? ", or nothing."""
  path = Path(name).expanduser()
  if path.is_dir():
    return f"did you mean folder:{name}? "
  if path.is_file():
    kind = path.suffix[1:] if path.suffix in (".zip", ".npy") else "npz"
    return f"did you mean {kind}:{name}? "
  by_kind = {full.split(":")[0]: full for full in NAMES}
  by_kind |= {"ring8": "points:ring8", "grid25": "points:grid25"}
  close = difflib.get_close_matches(name, NAMES, 1)
  near = difflib.get_close_matches(name.split(":")[0], by_kind, 1)
  guess = close or [by_kind[kind] for kind in near]
  return f"did you mean {guess[0]}? " if guess else ""
