"""Which folders are splits, which are classes, and which number each has."""

import copy
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import folder
from jaxgen.data.sources import open_source, open_split
from jaxgen.data.summary import introduce, summary
from jaxgen.errors import UserError
from jaxgen.evaluation.protocols import PROTOCOLS
from jaxgen.evaluation.reference import open_images

rng = np.random.default_rng(0)


def fill(top, names, mode="RGB", size=(6, 6)):
  """A picture at each place, and random ones: no two are the same."""
  for name in names:
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    x = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(x).convert(mode).save(path)


def pack(path, top):
  """The same as a .zip, in another order."""
  with zipfile.ZipFile(path, "w") as archive:
    for file in sorted(top.rglob("*"), reverse=True):
      if file.is_file():
        archive.write(file, file.relative_to(top).as_posix())


def opened(tmp_path, kind="folder", **options):
  """The source of tmp_path/d, or of a .zip of it."""
  if kind == "zip":
    pack(tmp_path / "d.zip", tmp_path / "d")
  path = tmp_path / {"folder": "d", "zip": "d.zip"}[kind]
  return open_source(f"{kind}:{path}", **{"size": 6, "data_dir": str(tmp_path)} | options)


def names(*folders, n=2):
  return [f"{f}/{i}.png" if f else f"{i}.png" for f in folders
          for i in range(n)]  # fmt: skip


# Folders -> split: (images, classes, labels), or an error.
LAYOUTS = {
  "a class called train": (("bus", "car", "train"), {
    "train": (6, ["bus", "car", "train"], [0, 0, 1, 1, 2, 2]),
    "test": "no subfolder 'test'"}),
  "a class called test": (("bus", "test"), {
    "train": (4, ["bus", "test"], [0, 0, 1, 1]),
    "test": "it is a class beside bus"}),
  "train and test beside a class": (("bus", "test", "train"), {
    "train": (6, ["bus", "test", "train"], [0, 0, 1, 1, 2, 2]),
    "test": "it is a class beside bus, train"}),
  "train alone": (("train",), {
    "train": (2, [], [None] * 2), "test": "no subfolder 'test'"}),
  "test alone": (("test",), {
    "train": "no subfolder 'train' to be that split: there are test",
    "test": (2, [], [None] * 2)}),
  "splits": (("train", "val", "test"), {
    "train": (2, [], [None] * 2), "test": (2, [], [None] * 2),
    "val": (2, [], [None] * 2), "extra": "no subfolder 'extra'"}),
  "splits by other names": (("Training", "Validation", "TEST"), {
    "train": (2, [], [None] * 2), "test": (2, [], [None] * 2),
    "val": (2, [], [None] * 2)}),
  "two of one meaning": (("train", "val", "valid"), {
    "valid": (2, [], [None] * 2), "validation": "no subfolder 'validation'"}),
  "a split of a user's own": (("fold1", "fold2"), {
    "fold2": (2, [], [None] * 2),
    "train": (4, ["fold1", "fold2"], [0, 0, 1, 1])}),
  "classes": (("train/b", "train/a", "test/a", "test/b"), {
    "train": (4, ["a", "b"], [0, 0, 1, 1]),
    "test": (4, ["a", "b"], [0, 0, 1, 1])}),
  "a class that test lacks": (("train/a", "train/b", "train/c", "test/b",
                               "test/c"), {
    "train": (6, ["a", "b", "c"], [0, 0, 1, 1, 2, 2]),
    "test": (4, ["a", "b", "c"], [1, 1, 2, 2])}),
  "a class that train lacks": (("train/a", "test/a", "test/b"), {
    "train": (2, ["a"], [0, 0]),
    "test": "class 'b' in test that train lacks: it knows a"}),
  "a test split without labels": (("train/a", "train/b", "test"), {
    "test": (2, [], [None] * 2)}),
  "numbers": (("10", "9", "2", "x10", "x9"), {
    "train": (10, ["2", "9", "10", "x9", "x10"],
              [2, 2, 0, 0, 1, 1, 4, 4, 3, 3])}),
  "zeros and long numbers": (("007", "7", "08", "1" * 50, "2" * 49), {
    "train": (10, ["007", "7", "08", "2" * 49, "1" * 50],
              [0, 0, 2, 2, 4, 4, 3, 3, 1, 1])}),
  "deeper": (("a/x", "a/y", "b/x"), {
    "train": (6, ["a", "b"], [0, 0, 0, 0, 1, 1])}),
  "train within a class": (("a/train", "b/train"), {
    "train": (4, ["a", "b"], [0, 0, 1, 1])}),
  "as StyleGAN2 packs them": (("00000",), {
    "train": (2, ["00000"], [0, 0])}),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_splits_and_classes(case, kind, tmp_path):
  folders, splits = LAYOUTS[case]
  fill(tmp_path / "d", names(*folders))
  (tmp_path / "d/labels").mkdir()  # without images: says nothing
  (tmp_path / "d/labels/notes.txt").write_text("1")
  for split, want in splits.items():
    if isinstance(want, str):
      with pytest.raises(UserError, match=want):
        opened(tmp_path, kind, split=split)
      continue
    source = opened(tmp_path, kind, split=split)
    path = tmp_path / ("d" if kind == "folder" else "d.zip")
    count, classes, labels = want
    assert (len(source), source.class_names) == (count, tuple(classes))
    assert source.classes == len(classes)
    y = source.arrays()[1]
    assert (y is None and not classes) or y.tolist() == labels
    images = open_images(str(path), PROTOCOLS["adm"], split=split)
    x = np.concatenate(list(images.read(0, images.count)))
    np.testing.assert_array_equal(x, source.arrays()[0])
    if len(classes) > 1:  # as a reference it means the same
      assert images.class_names == tuple(classes)
      assert images.labels.tolist() == labels


def test_what_is_left_out_is_said_once(tmp_path, capsys):
  fill(tmp_path / "d", names("train/a", "train/b", "test/a", ""))
  (tmp_path / "d/train/a/bad.png").write_bytes(b"")
  source = opened(tmp_path)
  capsys.readouterr()
  for _ in range(2):
    introduce(source, "train")
  (line,) = capsys.readouterr().err.splitlines()
  parts = "4 images of 6x6x3", "2 classes: a (2), b (2)", "1 left out", "a/bad.png"
  assert all(part in line for part in (*parts, "2 images beside test, train"))
  fill(tmp_path / "e", names("bus", "train"))
  source = open_source(f"folder:{tmp_path}/e", size=6, data_dir=str(tmp_path / "c"))
  line = summary(source, "train")
  assert "train is a class, no split, as bus is none" in line


def test_many_classes_are_not_all_said(tmp_path):
  fill(tmp_path, names(*(f"c{i}" for i in range(20)), n=1))
  fill(tmp_path, names("c7", n=3))
  source = open_source(f"folder:{tmp_path}", size=6, data_dir=str(tmp_path))
  line = summary(source, "train")
  assert "20 classes of 1 to 3: c0 (1)" in line and line.endswith("c19 (1)")
  assert len(line) < 400


def test_terminals_are_not_commanded(tmp_path):
  fill(tmp_path / "d", names("\x1b[2Jcat", "dog"))
  source = opened(tmp_path)
  assert "\\x1b[2Jcat (2)" in summary(source, "train")


LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("places", [
  [f"{LATIN}/0.png", "tea/0.png"], [f"{LATIN}.png"],
  [f"train/{LATIN}/{LATIN}.png", "test/" + LATIN + "/0.png"],
])  # fmt: skip
def test_names_that_are_no_utf8(places, tmp_path):
  top = tmp_path / LATIN
  fill(top, places)
  (top / places[0]).with_name(f"{LATIN}bad.png").write_bytes(b"")
  source = open_source(f"folder:{top}", size=6, data_dir=str(tmp_path))
  assert len(source) == len([p for p in places if "test/" not in p])
  assert len(source.skipped) == 1
  again = open_source(f"folder:{top}", size=6, data_dir=str(tmp_path))
  assert again.class_names == source.class_names
  summary(source, "train").encode()
  json.dumps(list(source.class_names)).encode()


def test_links_to_one_folder_are_each_looked_into(tmp_path):
  fill(tmp_path / "d/train", names("a"))
  (tmp_path / "d/test").symlink_to(tmp_path / "d/train")
  (tmp_path / "d/train/a/up").symlink_to(tmp_path / "d")
  for split in ("train", "test"):
    assert len(opened(tmp_path, split=split)) == 2


def test_packed_as_ever_where_numbers_stay(tmp_path):
  """Folders whose classes sort as before are not packed anew."""
  fill(tmp_path / "d", names("a", "b"))
  opened(tmp_path)
  meta = next((tmp_path / "packed").glob("*/meta.json"))
  fields = json.loads(meta.read_text())
  assert fields.pop("class_names") == ["a", "b"]
  meta.write_text(json.dumps(fields))  # as it was written before
  source = opened(tmp_path)
  assert source.class_names == ("a", "b")
  assert len(list((tmp_path / "packed").glob("*/meta.json"))) == 1


# As StyleGAN2's and EDM's dataset_tool.py pack images.
LABELS = {
  "labels": ([3, 0, 1], 4), "null": (None, 0), "nothing": ("", 0),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_labels_of_a_dataset_json(case, kind, tmp_path):
  labels, classes = LABELS[case]
  places = [f"0000{i}/img0000000{i}.png" for i in range(3)]
  fill(tmp_path / "d", places)
  if labels != "":
    pairs = labels and [list(pair) for pair in zip(places, labels, strict=True)]
    (tmp_path / "d/dataset.json").write_text(json.dumps({"labels": pairs}))
  source = opened(tmp_path, kind)
  assert source.classes == classes
  y = source.arrays()[1]
  assert (None if y is None else y.tolist()) == (labels or None)
  if classes:  # other labels are other data
    pairs[0][1] = 2
    (tmp_path / "d/dataset.json").write_text(json.dumps({"labels": pairs}))
    assert opened(tmp_path, kind).arrays()[1].tolist() == [2, 0, 1]


@pytest.mark.parametrize("text", [
  "", "[]", "3", '{"labels": [["0.png", "cat"]]}', '{"labels": [["0.png"]]}',
  '{"labels": [["1.png", 0]]}', '{"labels": {"0.png": 0}}', "[" * 9000,
  '{"labels": [["0.png", -1], ["1.png", 0]]}', '{"labels": [[["0"], 1]]}',
])  # fmt: skip
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_dataset_json_that_is_none(text, kind, tmp_path):
  fill(tmp_path / "d", names(""))
  (tmp_path / "d/dataset.json").write_text(text)
  with pytest.raises(UserError, match="dataset.json"):
    opened(tmp_path, kind)


def test_archives_are_cropped_from_all_of_the_image(tmp_path):
  fill(tmp_path / "d", names("train/a", "test/a"), size=(9, 7))
  source = opened(tmp_path, "zip", split="test")
  other = pickle.loads(pickle.dumps(copy.copy(source)))
  cut = lambda k, image: image.crop((0, 0, 6, 6))
  for one in (source, other):
    x = one.read(np.array([1]), cut)["x"]
    stored = np.asarray(Image.open(tmp_path / "d/test/a/1.png"))
    np.testing.assert_array_equal(x[0], stored[:6, :6])


@pytest.mark.parametrize("name", ["zip:x.zip", "folder:x.zip", "npz:x.zip"])
def test_an_archive_by_any_name(name, tmp_path, monkeypatch):
  fill(tmp_path / "d", names("a", "b"))
  pack(tmp_path / "x.zip", tmp_path / "d")
  monkeypatch.chdir(tmp_path)
  assert len(open_source(name, size=6, data_dir=str(tmp_path))) == 4


@pytest.mark.parametrize("name", ["npy:x.npy", "npz:x.npy", "folder:x.npy"])
def test_an_array_by_any_name(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  x = rng.integers(0, 256, (5, 6, 6, 1), np.uint8)
  np.save("x.npy", x)
  source = open_source(name)
  np.testing.assert_array_equal(source.arrays()[0], x)
  assert source.classes == 0
  np.save("x.npy", np.array([{}]), allow_pickle=True)
  with pytest.raises(UserError, match="pickle"):
    open_source(name)


@pytest.mark.parametrize("mode, stored", [
  ("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3),
])  # fmt: skip
@pytest.mark.parametrize("channels", [0, 1, 3, None])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_channels(mode, stored, channels, kind, tmp_path):
  fill(tmp_path / "d", names(""), mode)
  (tmp_path / "d/bad.png").write_bytes(b"")
  source = opened(tmp_path, kind, channels=channels)
  want = 3 if channels is None else channels or stored
  assert source.shape == (6, 6, want)
  with Image.open(tmp_path / "d/0.png") as image:
    truth = np.asarray(image.convert("RGB" if want == 3 else "L"))
  np.testing.assert_array_equal(source.arrays()[0][0], truth.reshape(6, 6, want))


def test_one_colour_image_makes_a_folder_one_of_colours(tmp_path):
  fill(tmp_path / "d", names("a"), "L")
  fill(tmp_path / "d", names("b"), "RGB")
  source = opened(tmp_path, channels=0)
  assert source.shape == (6, 6, 3)


@pytest.mark.parametrize("source, data, shape", [
  ("folder", {}, (6, 6, 3)), ("folder", {"channels": 0}, (6, 6, 1)),
  ("folder", {"channels": 1}, (6, 6, 1)),
  ("folder", {"channels": 3}, (6, 6, 3)),
  ("digits", {}, (6, 6, 1)), ("digits", {"channels": 3}, (6, 6, 3)),
])  # fmt: skip
def test_older_configs_took_folders_as_rgb(source, data, shape, tmp_path, monkeypatch):
  monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
  fill(tmp_path / "d", names("train", "test"), "L")
  name = f"folder:{tmp_path}/d" if source == "folder" else source
  data = {"source": name, "split": "train", "size": 6} | data
  for split in (None, "test"):
    assert open_split(data, split).shape == shape


@pytest.mark.parametrize("channels", [2, 4, -1])
def test_channels_that_no_image_has(channels):
  with pytest.raises(UserError, match="1 or 3 channels"):
    open_source("digits", channels=channels)


def test_sorting_never_fails():
  odd = ["", "1", "a1", "1a", "１", "²", "a", "1.5", "-1", "0", "00", LATIN]
  assert sorted(odd, key=folder.natural) == sorted(reversed(odd), key=folder.natural)


@pytest.mark.parametrize("size, noted", [((6, 6), False), ((9, 6), True), ((6, 7), True)])
def test_what_is_no_square_is_said_to_be_cropped(size, noted, tmp_path):
  fill(tmp_path / "d", names(""), size=size)
  pack(tmp_path / "d.zip", tmp_path / "d")
  np.savez(tmp_path / "x.npz", np.zeros((3, *size[::-1], 3), np.uint8))
  for name in ("folder:{}/d", "zip:{}/d.zip", "npz:{}/x.npz"):
    source = open_source(name.format(tmp_path), size=6, data_dir=str(tmp_path))
    assert ("cropped to its middle" in summary(source, "train")) == noted
    assert source.shape == (6, 6, 3)
