"""Addresses in a bucket as pathlib and `etils.epath` have paths.

There are no folders: one is there while an object is below it, so that making
one does nothing. Nothing can be renamed; `BucketPath.rename` copies, then
removes. Orbax, which asks `epath` for its files, gets these.
"""

import errno
import io
import os
import posixpath
import re
import time
from collections.abc import Iterator
from typing import IO

from etils import epath
from etils.epath import backend, gpath, stat_utils

from jaxgen.bucket.objects import (
  MISSING,
  copy_tree,
  generation,
  names_below,
  read,
  remove,
  split,
  write,
)


class _Upload(io.BytesIO):
  """What is written to it becomes the object when it is closed in order."""

  def __init__(self, address):
    super().__init__()
    self.address = address

  def __exit__(self, kind, *rest):
    if kind:
      super().close()
    else:
      self.close()

  def close(self):
    if not self.closed:
      content = self.getvalue()
      super().close()
      write(self.address, content)


class _Objects(backend.Backend):
  """The calls by which `epath` reaches a place; addresses are texts."""

  def open(self, path: epath.PathLike, mode: str) -> IO:
    if mode not in ("r", "rb", "w", "wb"):
      raise OSError(errno.ENOTSUP, f"objects cannot be opened by {mode!r}", os.fspath(path))
    file = _Upload(path) if "w" in mode else io.BytesIO(read(path))
    return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

  def exists(self, path: epath.PathLike) -> bool:
    return self.isfile(path) or self.isdir(path)

  def isfile(self, path: epath.PathLike) -> bool:
    key = split(path)[2]
    return bool(key) and generation(path) != MISSING

  def isdir(self, path: epath.PathLike) -> bool:
    return not split(path)[2] or bool(names_below(path))

  def listdir(self, path: epath.PathLike) -> list[str]:
    """Nothing, too, of what is not there: any folder could have been made."""
    return sorted({name.partition("/")[0] for name in names_below(path)})

  def glob(self, path: epath.PathLike) -> list[str]:
    top = re.split(r"/[^/]*[*?\[]", os.fspath(path), maxsplit=1)[0]
    parts = len(epath.Path(path).parts)
    below = (epath.Path(f"{top}/{name}") for name in names_below(top))
    heads = {os.fspath(p) for b in below for p in (b, *b.parents) if len(p.parts) == parts}
    return sorted(p for p in heads if epath.Path(p).match(os.fspath(path).partition("://")[2]))

  def walk(self, top, *, top_down=True, on_error=None) -> Iterator:
    tree = {os.fspath(top): (set(), set())}
    for name in names_below(top):
      *folders, file = name.split("/")
      place = os.fspath(top)
      for folder in folders:
        tree[place][0].add(folder)
        place = posixpath.join(place, folder)
        tree.setdefault(place, (set(), set()))
      tree[place][1].add(file)
    for place in sorted(tree, reverse=not top_down):
      yield place, *(sorted(names) for names in tree[place])

  def makedirs(self, path, *, exist_ok=False, mode=None) -> None:
    self.mkdir(path, exist_ok=exist_ok)

  def mkdir(self, path, *, exist_ok=False, mode=None) -> None:
    if not exist_ok and self.exists(path):
      raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))

  def rmtree(self, path: epath.PathLike) -> None:
    remove(f"{os.fspath(path)}/{name}" for name in names_below(path))

  def remove(self, path: epath.PathLike) -> None:
    if not self.isfile(path):
      raise FileNotFoundError(errno.ENOENT, "there is no such object", os.fspath(path))
    remove([os.fspath(path)])

  def rename(self, path: epath.PathLike, dst: epath.PathLike) -> None:
    path, dst = os.fspath(path), os.fspath(dst)
    if self.isfile(path):
      write(dst, read(path))
      return remove([path])
    copy_tree(path, dst)
    self.rmtree(path)

  replace = rename

  def copy(self, path: epath.PathLike, dst: epath.PathLike, overwrite: bool) -> None:
    if write(dst, read(path), None if overwrite else MISSING) is None:
      raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(dst))

  def stat(self, path: epath.PathLike) -> stat_utils.StatResult:
    """Of a file its size, for which it is read: no store tells."""
    is_file = self.isfile(path)
    if not is_file and not self.isdir(path):
      raise FileNotFoundError(errno.ENOENT, "there is no such object", os.fspath(path))
    size = len(read(path)) if is_file else 0
    return stat_utils.StatResult(is_directory=not is_file, length=size, mtime=int(time.time()))


@epath.register_path_cls(("gs://", "s3://"))
class BucketPath(gpath.PosixGPath):
  """An address in a bucket, as pathlib has paths."""

  _backend = _Objects()  # epath's own would be fsspec, or TensorFlow if it is there

  def is_file(self) -> bool:
    return self._backend.isfile(os.fspath(self))

  def is_symlink(self) -> bool:
    return False

  def absolute(self) -> "BucketPath":
    return self

  def resolve(self, strict: bool = False) -> "BucketPath":
    return self

  def expanduser(self) -> "BucketPath":
    return self

  def copy_tree(self, target: "BucketPath") -> None:
    """Copies all that is in this folder to another."""
    copy_tree(self, target)

  def rmdir(self) -> None:
    """Nothing: a folder goes with the last object in it."""
