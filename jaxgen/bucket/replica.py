"""Copies of what lies in a bucket, on this machine, for what is searched or mapped.

They lie below $XDG_CACHE_HOME/jaxgen/copies, one folder for each address:

  name/...    the object, or all objects below the folder of that name
  copy.json   {"address": ..., "objects": {name: generation}}

An object that was written anew is copied anew; names are listed once each time
a data set is opened. The least recently used copies go when all together would
take more than JAXGEN_COPIES_GB (100).
"""

import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterator

from jaxgen.bucket import objects
from jaxgen.errors import UserError

FACTS = "copy.json"
DAY = 24 * 3600.0
AT_ONCE = 64  # requests under way
LIMIT = "JAXGEN_COPIES_GB"

_addresses: dict[str, str] = {}  # of the copies that this process opened


def of(address: str | os.PathLike, root: pathlib.Path) -> pathlib.Path:
  """The copy of an object or a folder in `root`, made or brought up to date first.

  Raises:
    UserError: nothing is there, or more than all copies may take.
    OSError: it cannot be read, or there is no room.
  """
  address = os.fspath(address).rstrip("/")
  key = hashlib.sha256(address.encode()).hexdigest()[:16]
  home, name = root / key, address.rpartition("/")[2]
  before = _facts(home)
  draft = home.with_name(f".{key}-{secrets.token_hex(4)}.tmp")
  try:
    generations = _fetch(address, before, home / name, draft / name)
    if not generations:
      raise UserError(f"there is no object {address}, and none below it")
    if generations != before:
      _replace(home, draft, {"address": address, "objects": generations})
  finally:
    shutil.rmtree(draft, ignore_errors=True)
  now = time.time_ns()  # finer than what the system itself would take
  os.utime(home / FACTS, ns=(now, now))  # when it was last used
  _addresses[str(home / name)] = address
  return home / name


def with_addresses(text: str) -> str:
  """A message in which copies go by the addresses that people know them by."""
  for place, address in _addresses.items():
    text = text.replace(place, address)
  return text


def _facts(home):
  """{name: generation} of a copy; {} if there is none."""
  try:
    return json.loads((home / FACTS).read_bytes())["objects"]
  except (OSError, ValueError, KeyError):
    return {}


def _fetch(address, before, old, new):
  """Puts what is at the address below `new` unless `before` has it all.

  Returns {name: generation}; the name of an object alone is "".
  """
  names = objects.names_below(address) or [""]
  names = [n for n in names if not n.endswith("/")]  # what consoles make of folders
  for name in names:
    if {".", ".."} & set(name.split("/")):
      raise UserError(f"{address}/{name} would be copied elsewhere: call it otherwise")
  generations, room = {}, limit()
  for name, content, generation in _changed(address, names, before):
    if generation is None:
      continue  # there is none
    generations[name] = generation
    if content is None:
      continue
    room -= len(content)
    if room < 0:
      raise UserError(
        f"{address} takes more than the {limit() / 1e9:g} GB that copies may: set {LIMIT}"
      )
    _write(new / name if name else new, content, generation)
  if new.exists() or generations.keys() != before.keys():
    for name in generations:
      target, source = (p / name if name else p for p in (new, old))
      if not target.exists():  # it has not changed
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
  return generations


def _changed(address, names, before) -> Iterator[tuple[str, bytes | None, str | None]]:
  """(name, content or None if it is as before, generation or None if not there)."""
  scheme, bucket, key = objects.split(address)
  store = objects.store(scheme, bucket)
  for i in range(0, len(names), AT_ONCE):
    part = names[i : i + AT_ONCE]
    under_way = [
      store.read(
        f"{key}/{name}" if name else key,
        if_not_equal=bytes.fromhex(before[name]) if name in before else None,
      )
      for name in part
    ]
    for name, future in zip(part, under_way, strict=True):
      try:
        result = future.result()
      except ValueError as e:
        raise objects.failure(e, f"{address}/{name}") from e
      if result.state == "missing":
        yield name, None, None
      elif result.state == "value":
        yield name, bytes(result.value), result.stamp.generation.hex()
      else:
        yield name, None, before[name]


def _write(target, content, generation):
  """A file whose time of change says which generation it is of."""
  target.parent.mkdir(parents=True, exist_ok=True)
  target.write_bytes(content)
  moment = int(hashlib.sha256(generation.encode()).hexdigest()[:15], 16)
  os.utime(target, ns=(moment, moment))


def _replace(home, draft, facts):
  """Puts a finished draft into the place of what was there."""
  draft.mkdir(parents=True, exist_ok=True)
  (draft / FACTS).write_text(json.dumps(facts))
  _make_room(_size(draft), home)
  old = home.with_name(f".{home.name}-{secrets.token_hex(4)}.tmp")
  if home.exists():
    home.rename(old)  # whoever maps its files keeps them
  try:
    draft.rename(home)
  except OSError:
    if not (home / FACTS).exists():  # else another process was faster: as good
      raise
  shutil.rmtree(old, ignore_errors=True)


def limit() -> float:
  """Bytes that all copies may take together."""
  text = os.environ.get(LIMIT) or "100"
  try:
    size = float(text)
  except ValueError:
    size = -1.0
  if not size > 0:
    raise UserError(f"{LIMIT}={text}: want a number of gigabytes, above 0")
  return size * 1e9


def _make_room(size, but):
  """Removes copies, the least recently used first, until one more fits."""
  root = but.parent
  for draft in root.glob(".*.tmp"):
    if time.time() - draft.stat().st_mtime > DAY:  # of somebody who was killed
      shutil.rmtree(draft, ignore_errors=True)
  homes = [p for p in root.glob("[!.]*") if (p / FACTS).exists() and p != but]
  homes.sort(key=lambda p: (p / FACTS).stat().st_mtime)
  total = size + sum(_size(p) for p in homes)
  for home in homes:
    if total <= limit():
      return
    total -= _size(home)
    shutil.rmtree(home, ignore_errors=True)


def _size(folder):
  return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
