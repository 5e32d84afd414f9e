"""Folders of images: the crop rule, all kinds of files, broken ones."""

import ast
import copy
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import folder, image, pack
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.images import Folder
from jaxgen.monitor import pictures
from jaxgen.sampling import upscale
from jaxgen.study import pairs

rng = np.random.default_rng(0)


def picture(width, height, mode="RGB"):
  """Smooth colours, so that resizing and JPEG change them little."""
  small = rng.integers(0, 256, (4, 4, 3), np.uint8)
  x = Image.fromarray(small).resize((width, height), Image.BICUBIC)
  return x.convert(mode)


def reference_resize(pil_image, side):
  """openai/guided-diffusion's rule, in its own order: the short side is `side`."""
  while min(*pil_image.size) >= 2 * side:
    half = tuple(x // 2 for x in pil_image.size)
    pil_image = pil_image.resize(half, resample=Image.BOX)
  scale = side / min(*pil_image.size)
  new_size = tuple(round(x * scale) for x in pil_image.size)
  return np.array(pil_image.resize(new_size, resample=Image.BICUBIC))


def reference_crop(pil_image, image_size):
  """The same for training images."""
  arr = reference_resize(pil_image, image_size)
  crop_y = (arr.shape[0] - image_size) // 2
  crop_x = (arr.shape[1] - image_size) // 2
  return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]


SIDES = [(16, 16), (31, 33), (32, 32), (33, 47), (100, 64), (5, 9), (257, 70)]


@pytest.mark.parametrize("width, height", SIDES)
def test_crop_rule(width, height):
  noise = rng.integers(0, 256, (height, width, 3), np.uint8)
  got = image.pixels(image.crop(Image.fromarray(noise), 16))
  np.testing.assert_array_equal(got, reference_crop(Image.fromarray(noise), 16))


def decoded(picture, kind="PNG", size=None, channels=3, **options):
  file = io.BytesIO()
  picture.save(file, kind, **options)
  return image.decode(file.getvalue(), size, channels)


def test_grey_becomes_three_equal_channels():
  grey = picture(8, 8, "L")
  x = decoded(grey)
  assert x.shape == (8, 8, 3)
  assert (x == np.asarray(grey)[..., None]).all()
  np.testing.assert_array_equal(decoded(grey, channels=1), np.asarray(grey)[..., None])


def test_alpha_is_dropped_not_composited():
  rgba = rng.integers(0, 256, (8, 8, 4), np.uint8)
  rgba[0, 0] = 10, 20, 30, 0  # invisible, and still there
  got = decoded(Image.fromarray(rgba))
  np.testing.assert_array_equal(got, rgba[..., :3])


@pytest.mark.filterwarnings("error")  # PIL warns if not converted in two steps
def test_palette_with_transparency():
  paletted = picture(8, 8).quantize(16)
  truth = np.asarray(paletted.convert("RGB"))
  np.testing.assert_array_equal(decoded(paletted), truth)
  got = decoded(paletted, transparency=bytes(range(16)))
  np.testing.assert_array_equal(got, truth)


def test_sixteen_bits_are_scaled_not_clipped():
  deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
  got = decoded(Image.fromarray(deep), channels=1)
  np.testing.assert_array_equal(got.ravel(), np.arange(256))


def test_cmyk():
  rgb = picture(16, 16)
  got = decoded(rgb.convert("CMYK"), "JPEG", quality=95)
  assert abs(got.astype(int) - np.asarray(rgb)).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(kind):
  rgb = picture(16, 16)
  got = decoded(rgb, kind)
  assert got.shape == (16, 16, 3)
  assert abs(got.astype(int) - np.asarray(rgb)).mean() < 12


@pytest.mark.parametrize("tag, turn", [(3, 2), (6, 3), (8, 1)])
def test_exif_rotation(tag, turn):
  upright = np.asarray(picture(8, 12))
  exif = Image.Exif()
  exif[0x0112] = tag
  stored = Image.fromarray(np.rot90(upright, -turn).copy())
  got = decoded(stored, exif=exif)
  np.testing.assert_array_equal(got, upright)


def test_first_frame_of_an_animation():
  frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
  got = decoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
  assert (got == [255, 0, 0]).all()


def test_bombs_are_refused_before_decoding():
  bomb = io.BytesIO()
  Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
  with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match="pixels"):
    image.decode(bomb.getvalue(), 8, 3)
  with pytest.raises(ValueError, match="narrow"):
    decoded(Image.new("L", (100_000, 1)), size=64)


def write(path, content, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    content.save(path, **options)


def test_folder_with_classes_and_broken_files(tmp_path, capfd):
  top, cache = tmp_path / "images", str(tmp_path / "cache")
  pictures = [picture(20 + i, 30 - i) for i in range(6)]
  for i, one in enumerate(pictures):
    write(top / ["cat", "ant", "dog"][i % 3] / f"{i}.png", one)
  content = (top / "cat/0.png").read_bytes()
  write(top / "cat/deeper/00.PNG", pictures[0])
  write(top / "ant/cut.png", content[: len(content) // 2])
  write(top / "bee/broken.jpg", b"not an image")
  write(top / "bee/empty.png", b"")
  write(top / "dog/notes.txt", b"not looked at")
  write(top / "dog/.hidden.png", b"not looked at")
  source = open_source(f"folder:{top}", size=8, data_dir=cache)
  # ant: 1, 4; bee: none left; cat: 0, 3, deeper/00; dog: 2, 5
  order = [1, 4, 0, 3, 0, 2, 5]
  assert source.classes == 4
  x, y = source.arrays()
  assert y.tolist() == [0, 0, 2, 2, 2, 3, 3]
  truth = np.stack([reference_crop(pictures[i], 8) for i in order])
  np.testing.assert_array_equal(x, truth)
  names = [line.split(":")[0] for line in source.skipped]
  assert names == ["ant/cut.png", "bee/broken.jpg", "bee/empty.png"]
  report = capfd.readouterr().err
  assert "3 of 10 left out" in report and "ant/cut.png" in report
  again = open_source(f"folder:{top}", size=8, data_dir=cache)
  assert again.skipped == source.skipped
  assert again.fingerprint == source.fingerprint
  assert capfd.readouterr().err == ""  # it was packed already
  batch = source.read(np.array([2, 0]))
  np.testing.assert_array_equal(batch["x"], truth[[2, 0]])
  np.testing.assert_array_equal(copy.copy(source).x, x)  # as for a worker
  batch["x"][:] = 0  # a copy: the source is mapped read-only


def test_changed_folder_is_packed_anew(tmp_path):
  top, cache = tmp_path / "images", str(tmp_path / "cache")
  write(top / "a.png", picture(9, 9))
  one = open_source(f"folder:{top}", size=8, data_dir=cache)
  write(top / "b.png", picture(9, 9))
  two = open_source(f"folder:{top}", size=8, data_dir=cache)
  grey = open_source(f"folder:{top}", size=8, data_dir=cache, channels=1)
  assert (len(one), len(two)) == (1, 2)
  assert one.classes == 0 and one[0].keys() == {"x"}
  assert grey.shape == (8, 8, 1)
  assert len({one.fingerprint, two.fingerprint, grey.fingerprint}) == 3


def test_links_in_a_circle(tmp_path):
  write(tmp_path / "a/x.png", picture(8, 8))
  (tmp_path / "a/again").symlink_to(tmp_path / "a")
  (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
  assert folder.listing(tmp_path) == ["a/x.png"]


@pytest.mark.parametrize("length", [0, 7, 8 * 8 * 3 + 1])
def test_damaged_pack_is_named(tmp_path, length):
  write(tmp_path / "images/a.png", picture(8, 8))
  name, cache = f"folder:{tmp_path}/images", tmp_path / "cache"
  open_source(name, size=8, data_dir=str(cache))
  (file,) = cache.glob("packed/*/x.bin")
  file.write_bytes(bytes(length))
  with pytest.raises(UserError, match="damaged"):
    open_source(name, size=8, data_dir=str(cache))


def test_killed_packing_leaves_nothing_behind(tmp_path):
  target = tmp_path / "packed" / "it"

  def die(i):
    if i == 3:
      raise KeyboardInterrupt
    return np.zeros((2, 2, 1), np.uint8), None

  with pytest.raises(KeyboardInterrupt):
    pack.packed("it", target, 9, die, 0)
  assert [p.name for p in target.parent.iterdir()] == [".it.lock"]
  old = target.parent / ".it.tmp-of-somebody-killed"
  old.mkdir()
  load = lambda i: (np.full((2, 2, 1), i, np.uint8), None)
  assert pack.packed("it", target, 200, load, 0).x[:, 0, 0, 0].tolist() == list(range(200))
  assert not old.exists()


def test_full_disk_is_noticed_before_it_is_full(tmp_path, monkeypatch):
  write(tmp_path / "images/a.png", picture(8, 8))
  usage = pack.shutil.disk_usage(tmp_path)._replace(free=100)
  monkeypatch.setattr(pack.shutil, "disk_usage", lambda path: usage)
  with pytest.raises(UserError, match="JAXGEN_DATA"):
    open_source(f"folder:{tmp_path}/images", "train", 8, str(tmp_path / "c"))


def test_folders_that_cannot_be(tmp_path):
  (tmp_path / "empty").mkdir()
  write(tmp_path / "mixed/a.png", picture(8, 8))
  write(tmp_path / "mixed/c/b.png", picture(8, 8))
  write(tmp_path / "bad/a.png", b"nothing")
  options = dict(size=8, data_dir=str(tmp_path / "cache"))
  for name, message in [
    ("missing", "there is no folder"),
    ("empty", "there are no images"),
    ("mixed", "have no class, e.g. a.png"),
    ("mixed/a.png", "is a file"),
    ("bad", "none of 1 images can be read, e.g. a.png"),
  ]:
    with pytest.raises(UserError, match=message):
      open_source(f"folder:{tmp_path}/{name}", **options)
  with pytest.raises(UserError, match="needs a size"):
    open_source(f"folder:{tmp_path}/mixed")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
READERS = {  # whatever opens an image of a user's
  "training": lambda path: image.decode(path, 8, 3),
  "bytes": lambda path: image.decode(path.read_bytes(), 8, 3),
  "originals": lambda path: upscale.open_picture(path, 3),
  "evaluation": lambda path: Folder.open(str(path.parent), False, True),
  "study": pairs.png,
  "provenance": pictures.read_info,
  "tiles": lambda path: 1 / upscale.count(path, 8, 2),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [
  POSTSCRIPT, b"\xc5\xd0\xd3\xc6" + bytes(28) + POSTSCRIPT,
  b"8BPS\0\1" + bytes(40), b"icns" + bytes(40), b"BUFR" + bytes(40),
])  # fmt: skip
def test_no_program_is_started_whatever_a_file_begins_with(reader, content, tmp_path, monkeypatch):
  path = tmp_path / "photo.png"
  path.write_bytes(content)
  start = lambda *args, **kwargs: pytest.fail(f"starts {args}")
  for name in ("Popen", "run", "check_call", "check_output", "call"):
    monkeypatch.setattr(f"subprocess.{name}", start)
  with pytest.raises((UserError, ValueError, ZeroDivisionError), match="none of PNG|not|zero"):
    READERS[reader](path)


def test_pillow_meets_files_in_one_place():
  root, calls = pathlib.Path(image.__file__).parents[1], []
  for path in root.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
        calls.append((path.name, [k.arg for k in node.keywords]))
  assert calls == [("image.py", ["formats"])]
