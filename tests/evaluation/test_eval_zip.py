"""Archives and folders of pictures: read alike, and refused before the work."""

import io
import json
import os
import zipfile

import looks
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxgen.errors import UserError
from jaxgen.evaluation.images import Folder, Zip
from jaxgen.evaluation.protocols import PROTOCOLS
from jaxgen.evaluation.reference import open_images
from jaxgen.monitor import pictures

ADM = PROTOCOLS["adm"]


def everything(images):
  return np.concatenate(list(images.read(0, images.count)))


def png(x, info=None):
  file, text = io.BytesIO(), PngInfo()
  if info is not None:
    text.add_itxt(pictures.KEY, info)
  Image.fromarray(x).save(file, "PNG", pnginfo=text)
  return file.getvalue()


def pack(path, entries, kind=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", kind) as archive:
    for name, data in entries.items():
      archive.writestr(name, data)


def stylegan(path, x, y=None, **more):
  """As StyleGAN2's and EDM's dataset_tool.py packs images."""
  names = [f"{i // 4:05}/img{i:08}.png" for i in range(len(x))]
  labels = None if y is None else [[n, int(v)] for n, v in zip(names, y, strict=True)]
  entries = dict(zip(names, map(png, x), strict=True))
  pack(path, entries | {"dataset.json": json.dumps({"labels": labels})} | more)
  return names


@pytest.mark.parametrize("y", [None, np.array([3, 0, 1, 1, 2, 3, 0, 0, 9, 1])])
def test_an_archive_is_read_as_the_folder_of_its_files(y, tmp_path):
  x = looks.pictures(10)
  stylegan(tmp_path / "x.zip", x, y, **{"__MACOSX/00000/._img.png": b"", "notes.txt": b"hello"})
  images = open_images(str(tmp_path / "x.zip"), ADM)
  np.testing.assert_array_equal(everything(images), x)
  assert images.labels is None if y is None else (images.labels == y).all()
  assert images.card["kind"] == "zip" and images.card["images"] == 10
  assert images.sizes == [(8, 8)]
  with zipfile.ZipFile(tmp_path / "x.zip") as archive:
    archive.extractall(tmp_path / "f")
  folder = Folder.open(str(tmp_path / "f"), False, False)
  np.testing.assert_array_equal(everything(folder), x)
  if y is not None:  # the folders 00000 and 00001 are no classes
    np.testing.assert_array_equal(folder.labels, y)
  few = open_images(str(tmp_path / "x.zip"), ADM, num=3)
  np.testing.assert_array_equal(everything(few), x[:3])
  os.rename(tmp_path / "x.zip", tmp_path / "data")
  assert isinstance(open_images(str(tmp_path / "data"), ADM), Zip)


def cut(data):
  return data[: len(data) // 2]


def length(data, size):
  """Another length in the directory for the first entry."""
  at = data.index(b"PK\1\2") + 24
  return data[:at] + size.to_bytes(4, "little") + data[at + 4 :]


PNG = png(looks.pictures(1)[0])
LABELS = '{"labels": [["a.png", 0], ["b.png", 1]]}'
ARCHIVES = {
  "nothing": ({}, "no images"),
  "text": ({"a.txt": b"hello"}, "no images"),
  "hidden": ({"x/.a.png": PNG}, "no images"),
  "broken picture": ({"a.png": PNG, "b.png": cut(PNG)}, "b.png cannot be"),
  "no picture": ({"a.png": b"hello", "b.png": PNG}, "a.png cannot be read"),
  "mixed sizes": (
    {"a.png": PNG, "b.png": png(looks.pictures(1, size=9)[0])},
    "b.png is 9x9, others are 8x8",
  ),
  "grey": ({"a.png": png(looks.pictures(1)[0][..., 0])}, r"grey \(L\)"),
  "labels missing": ({"a.png": PNG, "c.png": PNG, "dataset.json": LABELS}, "no label of c.png"),
  **{
    f"labels {t[:30]}": ({"a.png": PNG, "dataset.json": t}, "dataset.json")
    for t in (
      "",
      "[]",
      "{}",
      '{"labels": 3}',
      '{"labels": ["a.png"]}',
      '{"labels": [["a.png", -1]]}',
      '{"labels": [["a.png", 1.5]]}',
      '{"labels": [["a.png", [1, 0]]]}',
      "[" * 99999,
      '{"labels": [[["a.png"], 1]]}',
      '{"labels": {"a.png": 1}}',
      '{"labels": [["a.png", ' + "9" * 5000 + "]]}",
    )
  },
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_are_refused(case, tmp_path):
  entries, said = ARCHIVES[case]
  pack(tmp_path / "x.zip", entries)
  with pytest.raises(UserError, match=said) as error:
    everything(open_images(str(tmp_path / "x.zip"), ADM))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "change",
  [
    cut,
    lambda d: b"",
    lambda d: b"hello",
    lambda d: length(d, 2**31),
    lambda d: length(d, 1),
    lambda d: d[:50] + bytes([d[50] ^ 9]) + d[51:],
  ],
)
def test_damaged_archives(change, tmp_path):
  pack(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG})
  data = (tmp_path / "x.zip").read_bytes()
  (tmp_path / "x.zip").write_bytes(change(data))
  with pytest.raises(UserError, match="x.zip"):
    everything(open_images(str(tmp_path / "x.zip"), ADM))


def test_a_bomb_is_not_unpacked(tmp_path):
  pack(tmp_path / "x.zip", {"a.png": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match="larger than any image"):
    open_images(str(tmp_path / "x.zip"), ADM)


def folder(path, infos):
  path.mkdir()
  for i, info in enumerate(infos):
    data = png(looks.pictures(1, i)[0], info)
    (path / f"{i:03}.png").write_bytes(data)


def made(i, num=4, **change):
  return json.dumps(
    {"workdir": "W", "step": 5, "seed": 0, "num": num, "knobs": {"steps": 9}}
    | change
    | {"index": i, "label": i % 3}
  )


ORIGINS = {  # what pictures say -> what is warned of
  "one making": ([made(i) for i in range(4)], None),
  "none say": ([None] * 4, None),
  "two steps": (
    [made(i) for i in range(3)] + [made(3, step=8)],
    "several makings: 3 of W, step 5, seed 0; 1 of W, step 8",
  ),
  "two seeds": ([made(0), made(1), made(2, seed=1)], "several makings"),
  "two models": ([made(0), made(1, workdir="V")], "several makings"),
  "two numbers": ([made(i) for i in range(4)] + [made(i, num=9) for i in range(4, 9)], "several"),
  "knobs": ([made(0), made(1, knobs={"steps": 3})], "several makings"),
  "some say": ([made(0), made(1), None], "1 of unknown origin"),
  "many": ([made(0, seed=i) for i in range(9)], "and 6 more"),
  "a part": ([made(i, num=90) for i in range(4)], "which were 90"),
  "nonsense": (["{", "[]", "3", '"x"', "[" * 99999, "null"], None),
  "odd fields": ([made(i, num="x", step=[1], workdir=None) for i in range(4)], None),
}


@pytest.mark.parametrize("case", ORIGINS)
@pytest.mark.parametrize("archive", [False, True])
def test_pictures_of_several_makings_are_warned_of(case, archive, tmp_path):
  infos, said = ORIGINS[case]
  folder(tmp_path / "f", infos)
  name = tmp_path / "f"
  if archive:
    pack(tmp_path / "x.zip", {p.name: p.read_bytes() for p in name.iterdir()})
    name = tmp_path / "x.zip"
  warnings = open_images(str(name), ADM).warnings
  assert len(warnings) == (said is not None)
  if said:
    assert said in warnings[0]


def test_names_that_are_not_utf8(tmp_path):
  top = os.fsencode(tmp_path) + b"/caf\xe9"
  for name in (b"\xff", b"b\xe9"):
    os.makedirs(top + b"/" + name)
    for i in range(2):
      with open(top + b"/" + name + b"/%d\x80.png" % i, "wb") as file:
        file.write(png(looks.pictures(1, i)[0]))
  images = open_images(os.fsdecode(top), ADM)
  assert images.count == 4 and images.labels.tolist() == [0, 0, 1, 1]
  card = images.card
  assert json.loads(json.dumps(card)) == card and len(card["sha256"]) == 64
  (tmp_path / "x.png").write_bytes(cut(PNG))
  os.rename(tmp_path / "x.png", top + b"/\xff/0\x80.png")
  with pytest.raises(UserError, match="cannot be read"):
    everything(open_images(os.fsdecode(top), ADM))


def test_a_tree_of_pictures_keeps_its_checksum(tmp_path):
  # Lines "name sha256", as ever: cards of old stay comparable.
  import hashlib

  (tmp_path / "f").mkdir()
  (tmp_path / "f" / "ä.png").write_bytes(PNG)
  line = f"ä.png {hashlib.sha256(PNG).hexdigest()}\n".encode()
  assert open_images(str(tmp_path / "f"), ADM).card["sha256"] == (hashlib.sha256(line).hexdigest())
