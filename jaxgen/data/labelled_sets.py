"""Images and their labels written as a data set that any program can read.

  folder        FOLDER/CLASS/000000.png, provenance in each and in FOLDER/made.json
  npz           x.npz: arr_0 uint8 [N, H, W, C], arr_1 labels, info as JSON text
  array_record  TensorFlow Datasets' layout: tfds.builder_from_directory(FOLDER/1.0.0)

All three are read here, too: as folder:FOLDER, npz:x.npz, array_record:FOLDER.
"""

import contextlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxgen import files
from jaxgen.data import cache
from jaxgen.errors import UserError

FORMS = ("folder", "npz", "array_record")
KEY = "jaxgen"  # of a PNG's text chunk, as everywhere
MADE = "made.json"


def write_set(
  out: Path, form: str, x: np.ndarray, y: np.ndarray, class_names: Sequence[str], info: Mapping
) -> Path:
  """Writes a data set, whole or not at all -> where it is.

  Args:
    out: Folder, or of "npz" a file's name, to which .npz is added where it lacks it.
    form: One of FORMS.
    x: uint8 [N, H, W, 1 or 3].
    y: Labels [N], 0 to the number of classes - 1.
    class_names: In their order; () for "0", "1", ..
    info: How the images were made, as JSON.

  Raises:
    UserError: There is no such form, or something else is there already.
  """
  if form not in FORMS:
    raise UserError(f"a data set is written as {', '.join(FORMS)}, not as {form!r}")
  names = safe_names(class_names or [str(i) for i in range(int(y.max()) + 1)])
  info = dict(info) | {"num": len(x), "class_names": list(names)}
  if form == "npz":
    out = out if out.suffix == ".npz" else out.with_name(f"{out.name}.npz")
    if out.exists() and not _our_npz(out):
      raise UserError(f"{out} is there, and is no data set that jaxgen wrote: give another name")
    with files.atomic(out) as draft, draft.open("wb") as file:
      np.savez(file, x, y.astype(np.int32), info=json.dumps(files.plain(info)))
    return out
  if out.exists() and not _ours(out):
    raise UserError(f"{out} is there, and is no data set that jaxgen wrote: give another name")

  def make(tmp: Path) -> None:
    target = tmp / out.name
    target.mkdir()
    if form == "folder":
      _write_images(target, x, y, names, info)
    else:
      _write_records(tmp, target, x, y, names)
    files.write_json(target / MADE, info)

  if out.exists():
    shutil.rmtree(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  cache.once(out, make)
  return out


def safe_names(names: Sequence[str]) -> list[str]:
  """Names of classes as names of folders, all different and visible."""
  safe = []
  for i, name in enumerate(names):
    plain = re.sub(r"[^\w .-]", "_", name).strip(". ") or str(i)
    safe.append(f"{plain}-{i}" if plain in safe else plain)
  return safe


def _ours(out: Path) -> bool:
  """Whether a folder is a data set of ours, and holds nothing but that."""
  try:
    info = json.loads((out / MADE).read_bytes())
    names, num = info["class_names"], info["num"]
  except (OSError, ValueError, KeyError, TypeError):
    return False
  if out.is_symlink() or not isinstance(names, list) or not isinstance(num, int):
    return False
  wrote = re.compile(
    rf"{MADE}|1\.0\.0/(samples-train\.array_record-\S+|\w+\.labels\.txt|\w+\.json)|"
    rf"({'|'.join(re.escape(str(n)) for n in names)})/\d{{6,}}\.png"
  )
  return not any(
    p.is_symlink() or p.is_file() and not wrote.fullmatch(p.relative_to(out).as_posix())
    for p in out.rglob("*")
  )


def _our_npz(path: Path) -> bool:
  """Whether a file is a data set, or samples, of ours."""
  try:
    with zipfile.ZipFile(path) as file:
      return {"arr_0.npy", "info.npy"} <= set(file.namelist())
  except (OSError, zipfile.BadZipFile):
    return False


def _write_images(folder: Path, x, y, names, info) -> None:
  for name in names:
    (folder / name).mkdir()
  common = {k: v for k, v in info.items() if k != "class_names"}
  for i, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
    chunks = PngInfo()
    own = files.plain(common | {"index": i, "label": label, "class": names[label]})
    chunks.add_itxt(KEY, json.dumps(own, ensure_ascii=False))
    _picture(image).save(folder / names[label] / f"{i:06d}.png", "PNG", pnginfo=chunks)


def _picture(image: np.ndarray) -> Image.Image:
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _write_records(tmp: Path, target: Path, x, y, names) -> None:
  """By TFDS, into tmp/NAME/1.0.0, which then is moved to `target`."""
  import tensorflow_datasets as tfds  # half a second

  with tfds.core.registered.skip_registration():  # there may be another set

    class Samples(tfds.core.GeneratorBasedBuilder):
      """Images with labels, as they are given."""

      VERSION = tfds.core.Version("1.0.0")
      url_infos = {}
      name = "samples"

      def _info(self) -> tfds.core.DatasetInfo:
        features = {
          "image": tfds.features.Image(shape=x.shape[1:]),
          "label": tfds.features.ClassLabel(names=list(names)),
        }
        return tfds.core.DatasetInfo(
          builder=self,
          description="Samples of a generative model; made.json says of which.",
          features=tfds.features.FeaturesDict(features),
          supervised_keys=("image", "label"),
          disable_shuffling=True,
        )

      def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

      def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
          file = io.BytesIO()  # bytes: TFDS would encode an array by TensorFlow
          _picture(image).save(file, "PNG")
          file.seek(0)
          yield i, {"image": file, "label": label}

  tfds.disable_progress_bar()
  place = tmp / "tfds"
  builder = Samples(data_dir=place, file_format="array_record")
  offline = tfds.download.DownloadConfig(try_download_gcs=False)
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_config=offline)
  shutil.move(place / "samples" / "1.0.0", target / "1.0.0")
