"""Images from anywhere: the same bytes in order, or a line that says why."""

import hashlib
import io
import json
import os
import types
import zipfile

import looks
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxgen.errors import UserError
from jaxgen.evaluation.images import Folder, ModelSamples, Zip, choose_labels, quantise
from jaxgen.evaluation.protocols import PROTOCOLS
from jaxgen.evaluation.reference import open_images
from jaxgen.evaluation.samplefile import SampleFile
from jaxgen.monitor import pictures

ADM = PROTOCOLS["adm"]


def everything(images, start=0, stop=None):
  stop = images.count if stop is None else stop
  return np.concatenate(list(images.read(start, stop)))


def opened(path):
  return Folder.open(str(path), mixed=False, convert=False)


def save_folder(path, x, kind="png"):
  path.mkdir(parents=True, exist_ok=True)
  for i, a in enumerate(x):
    Image.fromarray(a).save(path / f"{i:04}.{kind}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_sample_file_is_streamed_from_anywhere(save, tmp_path, monkeypatch):
  x, y = looks.pictures(50), np.arange(50) % 4
  save(tmp_path / "x.npz", x, y)
  images = SampleFile.open(str(tmp_path / "x.npz"), "round")
  np.testing.assert_array_equal(images.labels, y)
  for start, stop in ((0, 50), (17, 50), (3, 9), (49, 50)):
    np.testing.assert_array_equal(everything(images, start, stop), x[start:stop])
  few = list(images.stored.rows(0, 50, most=5 * x[0].nbytes))
  assert [len(a) for a in few] == [5] * 10
  np.testing.assert_array_equal(np.concatenate(few), x)
  assert SampleFile.open(str(tmp_path / "x.npz"), "round", num=7).count == 7


def test_a_folder_is_read_in_order_of_names(tmp_path):
  x = looks.pictures(30)
  save_folder(tmp_path / "f", x[::-1])
  images = opened(tmp_path / "f")
  np.testing.assert_array_equal(everything(images), x[::-1])
  np.testing.assert_array_equal(everything(images, 28, 30), x[1::-1])
  assert images.labels is None
  before = images.card["sha256"]
  save_folder(tmp_path / "f", x[:1])
  again = opened(tmp_path / "f")
  assert again.card["sha256"] != before


def test_folders_of_classes_are_labelled(tmp_path):
  x = looks.pictures(5)
  save_folder(tmp_path / "f" / "cat", x[:2])
  save_folder(tmp_path / "f" / "ant", x[2:])
  images = opened(tmp_path / "f")
  assert images.labels.tolist() == [0, 0, 0, 1, 1]
  np.testing.assert_array_equal(everything(images), x[[2, 3, 4, 0, 1]])


def test_sizes_may_differ_where_the_protocol_resizes_each(tmp_path):
  save_folder(tmp_path, looks.pictures(3))
  Image.fromarray(looks.pictures(1, size=12)[0]).save(tmp_path / "0001.png")
  clean = open_images(str(tmp_path), PROTOCOLS["clean-fid"])
  assert [x.shape for x in clean.read(0, 3)] == [(1, 8, 8, 3), (1, 12, 12, 3), (1, 8, 8, 3)]
  with pytest.raises(UserError, match="0001.png is 12x12, others are 8x8"):
    everything(open_images(str(tmp_path), ADM))


def test_what_references_convert_is_converted_if_asked(tmp_path):
  rgb = looks.pictures(1)[0]
  for name, image in {
    "a": Image.fromarray(rgb[..., 0]),
    "b": Image.fromarray(np.dstack([rgb, rgb[..., :1]])),
    "c": Image.fromarray(rgb).quantize(256),
  }.items():
    image.save(tmp_path / f"{name}.png")
  with pytest.raises(UserError, match=r"a.png is grey \(L\).*--convert"):
    everything(opened(tmp_path))
  x = everything(Folder.open(str(tmp_path), False, True))
  np.testing.assert_array_equal(x[0], rgb[..., :1].repeat(3, -1))
  np.testing.assert_array_equal(x[1], rgb)  # alpha dropped, not composited
  (tmp_path / "a.png").unlink()
  with pytest.raises(UserError, match=r"b.png is transparent \(RGBA\)"):
    everything(opened(tmp_path))
  (tmp_path / "b.png").unlink()
  opened(tmp_path)  # a palette of colours is RGB


def test_jpeg_is_told_of(tmp_path):
  save_folder(tmp_path, looks.pictures(2), "jpg")
  images = opened(tmp_path)
  assert "compression" in images.warnings[0] and len(everything(images)) == 2
  # It is the file that counts, not its name.
  save_folder(tmp_path / "png", looks.pictures(2))
  for path in (tmp_path / "png").iterdir():
    path.rename(path.with_suffix(".jpeg"))
  assert not opened(tmp_path / "png").warnings
  (tmp_path / "0000.jpg").rename(tmp_path / "png" / "x.png")
  assert opened(tmp_path / "png").warnings


@pytest.mark.parametrize("cut", [0, 20, 60, -1])
def test_a_truncated_picture_is_named(cut, tmp_path):
  save_folder(tmp_path, looks.pictures(3))
  data = (tmp_path / "0001.png").read_bytes()
  cut = len(data) - 30 if cut < 0 else cut
  (tmp_path / "0001.png").write_bytes(data[:cut])
  with pytest.raises(UserError, match="0001.png cannot be read"):
    everything(opened(tmp_path))


def test_bytes_are_made_of_floats_as_the_references_do():
  x = np.linspace(-1.2, 1.2, 4001).astype(np.float32)
  # guided-diffusion: ((x + 1) * 127.5).clamp(0, 255).to(uint8)
  want = np.clip((x + np.float32(1)) * np.float32(127.5), 0, 255)
  np.testing.assert_array_equal(quantise(x, "truncate"), np.floor(want))
  # EDM: (x * 127.5 + 128).clip(0, 255).to(uint8)
  want = np.clip(x * np.float32(127.5) + np.float32(128), 0, 255)
  np.testing.assert_array_equal(quantise(x, "round"), np.floor(want))
  # torchvision's save_image: mul(255).add(0.5).clamp(0, 255), of [0, 1].
  u = np.linspace(0, 1, 511, dtype=np.float32)
  np.testing.assert_array_equal(quantise(u, "round", "unit"), np.floor(u * 255 + 0.5))
  every = np.arange(256)
  for rule in ("round", "truncate"):  # bytes come back as they were
    np.testing.assert_array_equal(quantise(every.astype(np.float32), rule, "bytes"), every)
  assert (quantise(every / 127.5 - 1, "round") == every).all()
  assert quantise(np.array([-9.0, 9.0]), "round").tolist() == [0, 255]


@pytest.mark.parametrize(
  ("span", "scale", "shift"), [("signed", 1 / 127.5, -1), ("unit", 1 / 255, 0), ("bytes", 1, 0)]
)
def test_floats_need_to_be_told_apart(span, scale, shift, tmp_path):
  x = looks.pictures(9)
  np.savez(tmp_path / "x.npz", (x * scale + shift).astype(np.float32))
  with pytest.raises(UserError, match=f"looks like.*--floats={span}"):
    SampleFile.open(str(tmp_path / "x.npz"), "round")
  images = SampleFile.open(str(tmp_path / "x.npz"), "round", span)
  np.testing.assert_array_equal(everything(images), x)
  assert images.card["floats"] == span
  if span == "bytes":
    with pytest.raises(UserError, match="--floats=unit cannot be"):
      SampleFile.open(str(tmp_path / "x.npz"), "round", "unit")


RANGES = {  # least, most, --floats -> what is said; None: nothing
  "signed": (-1, 1, "signed", None),
  "signed, a little beyond": (-1.02, 1.01, "signed", None),
  "unit": (0, 1, "unit", None),
  "unit, a little beyond": (-0.005, 1.004, "unit", None),
  "bytes": (0, 255, "bytes", None),
  "dark for unit": (-1, 0, "unit", "which is not [0, 1]"),
  "signed for unit": (-1, 1, "unit", "it looks like --floats=signed"),
  "half signed for unit": (-0.5, 0.5, "unit", "cannot be"),
  "unit for signed": (0, 1, "signed", "it looks like --floats=unit"),
  "half for signed": (-0.5, 0.5, "signed", "a small part of [-1, 1]"),
  "dim for unit": (0, 0.4, "unit", "a small part of [0, 1]"),
  "dark for signed": (-1, 0, "signed", "a small part of [-1, 1]"),
  "far for signed": (-3, 3, "signed", "cannot be"),
  "overshoot for signed": (-1.06, 1.06, "signed", "and was clipped"),
  "normal for signed": (-1.9, 1.9, "signed", "cannot be"),
  "unit for bytes": (0, 1, "bytes", "it looks like --floats=unit"),
  "signed for bytes": (-1, 1, "bytes", "it looks like --floats=signed"),
  "centred for bytes": (-128, 127, "bytes", "cannot be"),
  "16 bits for bytes": (0, 65535, "bytes", "cannot be"),
  "dim for bytes": (0, 60, "bytes", "a small part of 0 .. 255"),
  "bytes for unit": (0, 255, "unit", "it looks like --floats=bytes"),
  "bytes for signed": (0, 255, "signed", "it looks like --floats=bytes"),
}


@pytest.mark.parametrize("case", RANGES)
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
def test_floats_of_another_range(case, dtype, tmp_path):
  least, most, span, message = RANGES[case]
  x = np.random.default_rng(0).uniform(least, most, (200, 4, 4, 3))
  x.flat[:2] = least, most
  if least < most - 60000:
    dtype = "f4"
  np.savez(tmp_path / "x.npz", x.astype(dtype))
  path = str(tmp_path / "x.npz")
  try:
    said_of_it = SampleFile.open(path, "round", span).warnings
  except UserError as e:
    assert message and "cannot be" in str(e)
    said_of_it = [str(e)]
  assert bool(message) == bool(said_of_it), said_of_it
  if message:
    assert message in said_of_it[0]


@pytest.mark.parametrize("span", ["signed", "unit"])
def test_the_last_images_count_as_the_first(span, tmp_path):
  x = np.random.default_rng(0).uniform(0, 1, (200, 4, 4, 3))
  x[150:] = -5
  np.save(tmp_path / "x.npy", x)
  with pytest.raises(UserError, match="from -5 to 1"):
    SampleFile.open(str(tmp_path / "x.npy"), "round", span)
  SampleFile.open(str(tmp_path / "x.npy"), "round", "unit", num=150)
  x[199, 3, 3, 2] = np.nan
  np.save(tmp_path / "x.npy", x)
  with pytest.raises(UserError, match="NaN or infinity"):
    SampleFile.open(str(tmp_path / "x.npy"), "round", span)


def test_a_span_that_is_none():
  with pytest.raises(ValueError, match="signed, unit, bytes"):
    quantise(np.zeros(3), "round", "sined")


def test_a_plain_array_is_a_sample_file(tmp_path):
  x = looks.pictures(20)
  np.save(tmp_path / "x.npy", x)
  images = open_images(str(tmp_path / "x.npy"), ADM)
  np.testing.assert_array_equal(everything(images), x)
  assert images.labels is None and images.sizes == [(8, 8)]


def pickled(path, x):
  np.savez(path, np.array([{"x": 1}], object))


def torn(path, x):
  np.savez(path, x)
  path.write_bytes(path.read_bytes()[:-200])


def short(path, x):
  """A header that promises more than there is."""
  data = io.BytesIO()
  np.save(data, x)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("arr_0.npy", data.getvalue()[:-50])


def flipped(path, x):
  np.savez(path, x)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


SAVED = {
  "pickles": (pickled, "pickled Python objects"),
  "torn": (torn, "cannot be read"),
  "short": (short, r"1,728 bytes, and there are 1,678"),
  "a flipped bit": (flipped, "CRC"),
  "no file": (lambda p, x: None, "there is no file"),
  "other arrays": (lambda p, x: np.savez(p, images=x), "arr_0, but images"),
  "text": (lambda p, x: p.write_text("hello"), "cannot be read"),
  "float64": (lambda p, x: np.savez(p, x / 255.0), "float64, not uint8"),
  "int64": (lambda p, x: np.savez(p, x.astype(int)), "wanted are bytes"),
  "NCHW": (lambda p, x: np.savez(p, x.transpose(0, 3, 1, 2)), "channels come first"),
  "grey": (lambda p, x: np.savez(p, x[..., :1]), "grey, not RGB; --convert"),
  "RGBA": (lambda p, x: np.savez(p, x[..., [0, 1, 2, 0]]), "transparent"),
  "flat": (lambda p, x: np.savez(p, x[0]), "wanted are images"),
  "none": (lambda p, x: np.savez(p, x[:0]), "wanted are images"),
  "Fortran": (lambda p, x: np.savez(p, np.asfortranarray(x)), "Fortran"),
  "NaN": (lambda p, x: np.savez(p, np.where(x > 200, np.nan, x / 255.0)), "NaN"),
  "labels": (lambda p, x: np.savez(p, x, np.arange(3)), "labels of its 9"),
}


@pytest.mark.parametrize("case", SAVED)
def test_files_that_are_not_samples(case, tmp_path):
  save, message = SAVED[case]
  path = tmp_path / "x.npz"
  save(path, looks.pictures(9))
  with pytest.raises(UserError, match=message) as error:
    everything(SampleFile.open(str(path), "round"))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("{}/x.pkl", "may be a pickle"),
    ("{}/x.pt", "may be a pickle"),
    ("{}/none", "no file, folder or data set"),
    ("{}", "there are no images"),
    ("tfsd:cifar10", "tfds:NAME"),
  ],
)
def test_names_of_nothing(name, message, tmp_path):
  with pytest.raises(UserError, match=message):
    open_images(name.format(tmp_path), ADM)


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
  folder = opened(tmp_path / "f")
  np.testing.assert_array_equal(everything(folder), x)
  if y is not None:  # the folders 00000 and 00001 are no classes
    np.testing.assert_array_equal(folder.labels, y)
  few = open_images(str(tmp_path / "x.zip"), ADM, num=3)
  np.testing.assert_array_equal(everything(few), x[:3])
  os.rename(tmp_path / "x.zip", tmp_path / "data")
  assert isinstance(open_images(str(tmp_path / "data"), ADM), Zip)


def halved(data):
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
  "broken picture": ({"a.png": PNG, "b.png": halved(PNG)}, "b.png cannot be"),
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
  entries, message = ARCHIVES[case]
  pack(tmp_path / "x.zip", entries)
  with pytest.raises(UserError, match=message) as error:
    everything(open_images(str(tmp_path / "x.zip"), ADM))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "change",
  [
    halved,
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


def origin(i, num=4, **change):
  return json.dumps(
    {"workdir": "W", "step": 5, "seed": 0, "num": num, "knobs": {"steps": 9}}
    | change
    | {"index": i, "label": i % 3}
  )


ORIGINS = {  # what pictures say -> what is warned of
  "one making": ([origin(i) for i in range(4)], None),
  "none say": ([None] * 4, None),
  "two steps": (
    [origin(i) for i in range(3)] + [origin(3, step=8)],
    "several makings: 3 of W, step 5, seed 0; 1 of W, step 8",
  ),
  "two seeds": ([origin(0), origin(1), origin(2, seed=1)], "several makings"),
  "two models": ([origin(0), origin(1, workdir="V")], "several makings"),
  "two numbers": (
    [origin(i) for i in range(4)] + [origin(i, num=9) for i in range(4, 9)],
    "several",
  ),
  "knobs": ([origin(0), origin(1, knobs={"steps": 3})], "several makings"),
  "some say": ([origin(0), origin(1), None], "1 of unknown origin"),
  "many": ([origin(0, seed=i) for i in range(9)], "and 6 more"),
  "a part": ([origin(i, num=90) for i in range(4)], "which were 90"),
  "nonsense": (["{", "[]", "3", '"x"', "[" * 99999, "null"], None),
  "odd fields": ([origin(i, num="x", step=[1], workdir=None) for i in range(4)], None),
}


@pytest.mark.parametrize("case", ORIGINS)
@pytest.mark.parametrize("archive", [False, True])
def test_pictures_of_several_makings_are_warned_of(case, archive, tmp_path):
  infos, message = ORIGINS[case]
  folder(tmp_path / "f", infos)
  name = tmp_path / "f"
  if archive:
    pack(tmp_path / "x.zip", {p.name: p.read_bytes() for p in name.iterdir()})
    name = tmp_path / "x.zip"
  warnings = open_images(str(name), ADM).warnings
  assert len(warnings) == (message is not None)
  if message:
    assert message in warnings[0]


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
  (tmp_path / "x.png").write_bytes(halved(PNG))
  os.rename(tmp_path / "x.png", top + b"/\xff/0\x80.png")
  with pytest.raises(UserError, match="cannot be read"):
    everything(open_images(os.fsdecode(top), ADM))


def test_a_tree_of_pictures_keeps_its_checksum(tmp_path):
  # Lines "name sha256", as ever: cards of old stay comparable.
  (tmp_path / "f").mkdir()
  (tmp_path / "f" / "ä.png").write_bytes(PNG)
  line = f"ä.png {hashlib.sha256(PNG).hexdigest()}\n".encode()
  assert open_images(str(tmp_path / "f"), ADM).card["sha256"] == (hashlib.sha256(line).hexdigest())


class Sampler:
  classes, shape, dtype, class_names = 4, (8, 8, 3), np.dtype("uint8"), ()
  model = types.SimpleNamespace(cond={})

  def labels(self, num, labels):
    return np.resize(np.arange(4) if labels is None else labels, num)


def test_labels_are_in_turn_or_at_random_or_given():
  assert choose_labels(Sampler(), "turn", 6, 0).tolist() == [0, 1, 2, 3, 0, 1]
  drawn = choose_labels(Sampler(), "random", 4000, 1)
  np.testing.assert_allclose(np.bincount(drawn) / 4000, 0.25, atol=0.03)
  assert (drawn == choose_labels(Sampler(), "random", 4000, 1)).all()
  assert (drawn != choose_labels(Sampler(), "random", 4000, 2)).any()
  assert choose_labels(Sampler(), "3,1", 3, 0).tolist() == [3, 1, 3]
  with pytest.raises(UserError, match="want turn, random"):
    choose_labels(Sampler(), "some", 3, 0)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(shape=(2,)), "makes points"),
    (dict(dtype=np.dtype("float32")), "makes points"),
    (dict(model=types.SimpleNamespace(cond={"low_res": None})), "low_res"),
  ],
)
def test_models_that_cannot_be_drawn_from(change, message):
  sampler = Sampler()
  for name, value in change.items():
    setattr(sampler, name, value)
  with pytest.raises(UserError, match=message):
    ModelSamples(sampler, 5, 0, None, "turn", "round", {})
