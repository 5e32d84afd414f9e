"""Images decoded once into a file of raw uint8 that is mapped from then on.

Decoding is what limits a data pipeline: reading 64x64 pixels from a map
costs a few microseconds, decoding a PNG of that size some 300.
A packed data set is a folder with x.bin (uint8 [N, H, W, C]), y.bin (int32
[N]) if there are labels, and meta.json.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxgen.data import cache
from jaxgen.data.arrays import Arrays, mapped
from jaxgen.data.image import ahead
from jaxgen.errors import UserError, printable

VERSION = 1  # of how files become pixels: raise it and all is packed anew


class Unreadable(Exception):
  """What load(i) raises to have example i left out: "name: why"."""


def packed(
  name: str,
  target: Path,
  count: int,
  load: Callable[[int], tuple[np.ndarray, int | None]],
  classes: int,
  class_names: Sequence[str] = (),
) -> Arrays:
  """The examples load(0..count-1), packed in `target` on first use.

  What cannot be read is left out, named on stderr and in `skipped`.

  Raises:
    UserError: if nothing can be read, or nothing can be written.
  """
  fresh = not target.exists()
  if fresh:
    make = lambda tmp: _pack(name, tmp / target.name, count, load, classes, class_names)
    cache.once(target, make)
  source = mapped(target, name)
  if fresh and source.skipped:
    shown = "; ".join(source.skipped[:5])
    more = ", .." if len(source.skipped) > 5 else ""
    _report(f"{name}: {len(source.skipped)} of {count} left out: {shown}{more}")
  return source


def readable_rows(names: Sequence[str], skipped: Sequence[str]) -> Sequence[int]:
  """Which of `names` (all, in order) a packed data set holds: not `skipped`."""
  if not skipped:
    return range(len(names))
  rows, missing = [], list(reversed(skipped))
  for i, name in enumerate(names):
    if missing and missing[-1].startswith(f"{name}: "):
      missing.pop()
    else:
      rows.append(i)
  return rows


def _pack(name, folder, count, load, classes, class_names) -> None:
  def attempt(i):
    try:
      return load(i)
    except Unreadable as e:
      return e

  folder.mkdir()
  labels, skipped, shape, h = [], [], None, hashlib.blake2b(digest_size=8)
  reported = time.monotonic()
  with open(folder / "x.bin", "wb") as file:
    threads = os.cpu_count() or 1  # decoders let go of the interpreter's lock
    for i, result in enumerate(ahead(attempt, range(count), threads, 8 * threads)):
      if isinstance(result, Unreadable):
        skipped.append(str(result))
        continue
      x, y = result
      if shape is None:
        shape = x.shape
        _check_room(name, folder, count * x.nbytes)
      if x.shape != shape:
        raise UserError(f"{name} has images of several sizes: give a size")
      file.write(x.data)
      h.update(x.data)
      labels.append(y)
      if time.monotonic() > reported + 10:
        reported = time.monotonic()
        _report(f"packing {name}: {i + 1} of {count}")
    os.fsync(file.fileno())
  if not labels:
    raise UserError(f"{name}: none of {count} images can be read, e.g. {skipped[0]}")
  if classes:
    y = np.array(labels, np.int32)
    y.tofile(folder / "y.bin")
    h.update(y.data)
  h.update(f"{shape}{classes}".encode())
  meta = {
    "count": len(labels),
    "shape": shape,
    "classes": classes,
    "class_names": list(class_names),
    "fingerprint": h.hexdigest(),
    "skipped": skipped,
  }
  (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _check_room(name: str, folder: Path, needed: int) -> None:
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f"packing {name} needs {needed / 2**30:.1f} GiB and there are"
      f" {free / 2**30:.1f} in {folder.parents[1]}; $JAXGEN_DATA names a"
      " folder to use instead"
    )


def _report(line: str) -> None:
  print(f"jaxgen: {printable(line)}", file=sys.stderr, flush=True)
