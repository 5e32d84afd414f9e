"""Files as we keep them: whole or not at all, JSON with numbers of any kind."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DRAFT = ".jaxgen-"  # how the names of drafts begin


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
  """Within, a draft is to be written; at the end it becomes the file `path`.

  Until then the file is as it was, and after any failure too: a full disk, a
  signal. No draft is left but by SIGKILL. Folders are made as needed.

  A link is followed, as by a shell's `>`: what it points at is replaced. What
  is no file, such as /dev/stdout or a pipe, is written to and stays what it is.

  Yields:
    The draft's name, in the same folder; nothing is there yet.

  Raises:
    OSError: It cannot be written; the name in it is `path`.
  """
  named, special = Path(path), False
  if os.path.exists(named) and not named.is_dir():
    special = not named.is_file()
  if special:
    with tempfile.TemporaryDirectory(prefix="jaxgen-") as folder:
      yield (draft := Path(folder) / "draft")
      with draft.open("rb") as source, named.open("wb") as target:
        shutil.copyfileobj(source, target)
    return
  target = Path(os.path.realpath(named))
  # Not the file's own name: that may be as long as names can be.
  draft = target.with_name(f"{DRAFT}{os.getpid()}-{secrets.token_hex(4)}.tmp")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    yield draft
    if target.exists():
      shutil.copymode(target, draft)
    draft.replace(target)
  except OSError as e:
    if e.errno and e.filename in (None, str(draft)):
      e.filename, e.filename2 = str(named), None
    raise
  finally:
    with contextlib.suppress(OSError):  # else it would hide what went wrong
      draft.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
  """A file, by `atomic`."""
  with atomic(path) as draft:
    draft.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
  """A file in UTF-8, by `atomic`."""
  write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
  """A file of `plain(value)`, by `atomic`."""
  write_text(path, json.dumps(plain(value), indent=1) + "\n")


def plain(value: Any) -> Any:
  """Nested values as JSON can say them; what is not finite becomes "inf"."""
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [plain(v) for v in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not np.isfinite(value):
    return str(value)
  return value


def digest(value: Any) -> str:
  """Sixteen hex digits that identify a value of JSON."""
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache() -> Path:
  """Our folder below $XDG_CACHE_HOME, or below ~/.cache; may not exist."""
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return Path(home).expanduser().absolute() / "jaxgen"
