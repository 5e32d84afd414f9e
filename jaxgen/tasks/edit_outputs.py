"""Where edited images go: a picture, a sample file or a folder, and a page beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError, printable
from jaxgen.monitor import pictures, results
from jaxgen.monitor.results import kind_of
from jaxgen.tasks.edit_inputs import Original


def page_of(out: str, page: str | None) -> Path | None:
  """The page: as said, or beside a folder; UserError for what is no x.html."""
  if page is None:
    return None if kind_of(out) else files.path(out).with_name(f"{files.path(out).name}.html")
  if files.path(page).suffix != ".html":
    raise UserError(f"--page={page}: want x.html")
  return files.path(page)


def names_of(originals: Sequence[Original], num: int = 1) -> list[str]:
  """Names of `num` results of each image, all different."""
  stems = [o.path.stem for o in originals]
  if len(set(stems)) < len(stems):
    stems = [f"{i:03d}_{s}" for i, s in enumerate(stems)]
  return [f"{s}_{k}.png" if num > 1 else f"{s}.png" for s in stems for k in range(num)]


def check(
  out: str,
  page: Path | None,
  names: Sequence[str],
  infos: Sequence[Mapping[str, Any]],
  read: Sequence[Original],
) -> None:
  """UserError where results would replace what was read, or files of others."""
  if kind_of(out):
    results.check_file(out)
    sources = [files.with_addresses(str(o.path.resolve())) for o in read]
    if str(files.path(out).resolve()) in sources:
      raise UserError(f"--out={out} would replace what is read: give another name")
  else:
    results.check_folder(out, dict(zip(names, infos, strict=True)).get)
  if page:
    results.check_report(page.parent, f"{page.stem}.json", (page.name,), ("made", "scores"))


def shared(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """What a file of all results says: of which images they are."""
  own = ("source", "sha256", "mask_sha256")
  sources = [{k: i[k] for k in own if k in i} for i in infos]
  unique = [s for i, s in enumerate(sources) if s not in sources[:i]]
  common = {k: v for k, v in infos[0].items() if k not in (*own, "index", "label")}
  return common | {"sources": unique}


def write(
  out: str,
  names: Sequence[str],
  x: np.ndarray,
  infos: Sequence[Mapping[str, Any]],
  columns: int | None = None,
) -> None:
  """Results uint8 [N, H, W, C], each with how it was made; `columns` of one picture of all."""
  kind, flat = kind_of(out), lambda image: image[..., 0] if image.shape[-1] == 1 else image
  if kind == ".png":
    image = x[0] if len(x) == 1 else pictures.grid(x, columns)
    pictures.save_png(files.path(out), flat(image), infos[0] if len(x) == 1 else shared(infos))
  elif kind == ".npz":
    with files.atomic(out) as draft, draft.open("wb") as file:
      np.savez(file, arr_0=x, info=json.dumps(files.plain(shared(infos))))
  else:
    for name, image, info in zip(names, x, infos, strict=True):
      pictures.save_png(files.path(out) / name, flat(image), info)
  print(f"{len(x)} image{'s' * (len(x) > 1)} -> {printable(out)}")


def write_page(page: Path, text: str, card: Mapping[str, Any]) -> None:
  """The page, and its numbers as JSON beside it."""
  files.write_json(page.with_suffix(".json"), card)
  files.write_text(page, text)
  print(f"page: {printable(page)}")
