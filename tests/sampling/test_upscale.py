"""Images of any size through tiles of one: against the untiled result."""

import functools
import os
import tracemalloc
import types

import jax
import numpy as np
import pytest
from games import filled
from PIL import Image
from verbs import call, tree

import jaxgen
from jaxgen import config, sharding
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.monitor.pictures import read_info
from jaxgen.sampling.tiles import Canvas, blend_weights, tile_noise, tile_starts
from jaxgen.sampling.upscale import enlarge_folder, factor_of

KEY = jax.random.key(3)
NOISE = jax.random.fold_in(KEY, 0)  # what enlarge_folder makes of it


class Fake:
  """Enlarges by repeating, and adds six times the noise, or an offset."""

  model = types.SimpleNamespace(free=False)

  def __init__(self, s=8, factor=4, channels=3, classes=0, offset=0):
    self.shape = (s * factor, s * factor, channels)
    self.factor, self.classes, self.offset = factor, classes, offset
    self.calls = []

  def sample(self, key, num, labels=None, *, batch, low_res, noise, **knobs):
    assert low_res.dtype == np.uint8 and noise.dtype == np.float32
    assert len(low_res) == num == batch and noise.shape == (num, *self.shape)
    self.calls.append((low_res, noise, labels, knobs))
    x = enlarged(low_res, self.factor, noise * (not self.offset))
    bright = self.offset * (np.arange(num) % 2)[:, None, None, None]
    return np.clip(x + bright, 0, 255).astype(np.uint8)


def enlarged(x, factor, noise):
  """Nearest, with noise: what each pixel gives whatever tile it lies in."""
  x = x.repeat(factor, -3).repeat(factor, -2)
  return np.clip(np.rint(x + 6 * np.asarray(noise)), 0, 255).astype(np.uint8)


@functools.cache
def large_noise(channels):
  """Of one tile as large as the largest result."""
  shape = 400, 132, channels
  return np.asarray(tile_noise(NOISE, np.zeros((1, 2), int), shape))[0]


def untiled(x):
  """The whole image at once."""
  h, w, channels = x.shape
  return enlarged(x, 4, large_noise(channels)[: 4 * h, : 4 * w])


def image(h, w, c=3, seed=0):
  return np.random.default_rng(seed).integers(20, 236, (h, w, c), np.uint8)


def run(src, out, model=None, **more):
  given = {"factor": 4, "key": KEY, "batch": 3} | more
  return enlarge_folder(model or Fake(), str(src), str(out), **given)


def read(path):
  with Image.open(path) as opened:
    opened.load()
    return opened


@pytest.fixture
def src(tmp_path):
  (tmp_path / "src").mkdir()
  return tmp_path / "src"


@pytest.mark.parametrize("overlap", [None, 0, 5, 7])
def test_tiles_make_what_the_whole_makes(overlap, src, tmp_path):
  tall = (100, 33) if overlap != 7 else (33, 17)  # of as few as 7 by 4 tiles, or 26 by 10
  sizes = [(1, 1), (7, 13), (8, 8), tall, (9, 31)]
  (src / "deep" / "er").mkdir(parents=True)
  wants = {}
  for i, (h, w) in enumerate(sizes):
    name = f"deep/er/{i}.png" if i % 2 else f"{i}.bmp"
    Image.fromarray(image(h, w, seed=i)).save(src / name)
    wants[name.rpartition(".")[0] + ".png"] = untiled(image(h, w, seed=i))
  model = Fake()
  report = run(src, tmp_path / "out", model, overlap=overlap)
  assert len(report.done) == 5 and not report.skipped and report.check() is None
  out = {k.as_posix(): v for k, v in tree(tmp_path / "out").items() if v}
  assert set(out) == set(wants)
  for name, want in wants.items():
    np.testing.assert_array_equal(np.asarray(read(tmp_path / "out" / name)), want, name)
  # One program's worth of shapes: small images share their draws.
  assert {low.shape for low, *_ in model.calls} == {(3, 8, 8, 3)}
  assert read_info(tmp_path / "out" / "0.png") == {"source": "0.bmp"}


def test_noise_is_a_function_of_the_place():
  corners = np.array([[0, 0], [5, 3], [70_000, 0]])
  a, b, far = np.asarray(tile_noise(KEY, corners, (16, 16, 3)))
  np.testing.assert_array_equal(a[5:, 3:], b[:-5, :-3])
  whole = np.asarray(tile_noise(KEY, corners[:1], (64, 96, 3)))[0]
  np.testing.assert_array_equal(whole[5:21, 3:19], b)
  assert abs(whole.mean()) < 0.03 and abs(whole.std() - 1) < 0.03
  # White: no two places, nor channels, have anything in common.
  here, below, beside = whole[:-1, :-1], whole[1:, :-1], whole[:-1, 1:]
  flat = np.stack([here[..., 0], below[..., 0], beside[..., 0], here[..., 1]]).reshape(4, -1)
  assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.05
  assert np.abs(far - a).min() > 0


@pytest.mark.parametrize(
  ("n", "s", "overlap"), [(8, 8, 2), (9, 8, 2), (100, 8, 7), (33, 16, 4), (64, 16, 0)]
)
def test_tiles_cover_and_their_weights_sum_to_one(n, s, overlap):
  begin = tile_starts(n, s, overlap)
  assert begin[0] == 0 and begin[-1] == n - s
  assert (np.diff(begin) > 0).all() and (np.diff(begin) <= s - overlap).all()
  # No more of them than it takes.
  assert len(begin) == 1 or (len(begin) - 2) * (s - overlap) < n - s
  total = np.zeros(n)
  for b, w in zip(begin, blend_weights(begin, s, overlap), strict=True):
    assert (w > 0).all()
    total[b : b + s] += w
  np.testing.assert_allclose(total, 1, atol=1e-6)


def test_no_seams_where_tiles_differ(src, tmp_path):
  """Every other tile comes out brighter by 40: it must fade, not step."""
  Image.fromarray(np.full((8, 80, 3), 100, np.uint8)).save(src / "x.png")
  steps = {}
  for overlap in (0, 4):
    model = Fake(offset=40)
    run(src, tmp_path / "out", model, overlap=overlap, batch=2)
    x = np.asarray(read(tmp_path / "out" / "x.png")).astype(int)
    assert x.max() - x.min() > 30
    steps[overlap] = np.abs(np.diff(x, axis=1)).max()
  assert steps[0] == 40 and steps[4] <= 3  # 40 over 16 pixels or more


def test_kinds_of_images(src, tmp_path):
  x = image(12, 20)
  rgb, grey = Image.fromarray(x), Image.fromarray(x[..., 0])
  alpha = Image.fromarray(np.tile(np.arange(20, dtype=np.uint8) * 12, (12, 1)))
  rgb.save(src / "rgb.png", icc_profile=b"a profile")
  grey.save(src / "grey.png")
  Image.fromarray(x[..., 0].astype(np.uint16) * 257).save(src / "deep.png")
  both = rgb.copy()
  both.putalpha(alpha)
  both.save(src / "alpha.png")
  shade = grey.copy()
  shade.putalpha(alpha)
  shade.save(src / "shade.png")
  palette = rgb.quantize(16)
  palette.save(src / "palette.png")
  palette.save(src / "clear.gif", transparency=3)
  rgb.convert("CMYK").save(src / "cmyk.tif")
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned by 90 degrees
  rgb.save(src / "turned.png", exif=exif)
  report = run(src, tmp_path / "out")
  assert not report.skipped
  got = {p.stem: read(p) for p in (tmp_path / "out").iterdir()}
  colours = dict.fromkeys(("rgb", "palette", "cmyk", "turned"), "RGB")
  modes = colours | dict(grey="L", deep="L", shade="LA", alpha="RGBA", clear="RGBA")
  assert {k: v.mode for k, v in got.items()} == modes
  want = untiled(x)
  np.testing.assert_array_equal(np.asarray(got["rgb"]), want)
  assert got["rgb"].info["icc_profile"] == b"a profile"
  np.testing.assert_array_equal(np.asarray(got["turned"]), untiled(np.rot90(x, -1)))
  flat = untiled(np.asarray(palette.convert("RGB")))
  np.testing.assert_array_equal(np.asarray(got["palette"]), flat)
  three = untiled(np.repeat(x[..., :1], 3, -1))
  for name in ("grey", "deep"):
    grey = np.asarray(Image.fromarray(three).convert("L"))
    np.testing.assert_array_equal(np.asarray(got[name]), grey)
  large = np.asarray(alpha.resize((80, 48), Image.Resampling.BICUBIC))
  for name in ("alpha", "shade"):
    np.testing.assert_array_equal(np.asarray(got[name])[..., -1], large)
  np.testing.assert_array_equal(np.asarray(got["alpha"])[..., :3], want)
  assert set(np.unique(np.asarray(got["clear"])[..., 3])) >= {0, 255}


def test_what_is_broken_is_named_and_the_others_come_out(src, tmp_path, capsys):
  good = Image.fromarray(image(9, 9))
  good.save(src / "good.png")
  whole = (src / "good.png").read_bytes()
  (src / "cut.png").write_bytes(whole[: len(whole) // 2])
  (src / "text.jpg").write_text("not an image")
  good.save(src / "moving.gif", save_all=True, append_images=[Image.fromarray(image(9, 9, seed=1))])
  Image.fromarray(np.ones((9, 9), np.float32)).save(src / "float.tif")
  report = run(src, tmp_path / "out")
  assert report.done == ["good.png"]
  assert set(report.skipped) == {"cut.png", "text.jpg", "moving.gif", "float.tif"}
  assert "holds 2 pictures" in report.skipped["moving.gif"]
  assert "no known range" in report.skipped["float.tif"]
  said = capsys.readouterr().err
  assert all(f"{name} is skipped" in said for name in report.skipped)
  with pytest.raises(UserError, match="4 of 5 images were skipped, such as"):
    report.check()
  assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_names_that_clash_are_kept_apart(src, tmp_path):
  for name in ("a.png", "a.bmp", "b.bmp"):
    Image.fromarray(image(3, 3)).save(src / name)
  run(src, tmp_path / "out")
  assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png.png", "a.bmp.png", "b.png"}


def test_names_that_are_no_utf8(src, tmp_path):
  name = os.fsdecode(b"caf\xe9.png")
  Image.fromarray(image(3, 3)).save(src / name)
  assert run(src, tmp_path / "out").done == [name]
  assert read_info(tmp_path / "out" / name)["source"] == "caf\\xe9.png"


def test_no_image_is_overwritten(src, tmp_path):
  Image.fromarray(image(3, 3)).save(src / "a.png")
  (src / "deep").mkdir()
  Image.fromarray(image(3, 3)).save(src / "deep" / "b.png")
  (tmp_path / "link").symlink_to(src)
  (tmp_path / "odd").mkdir()
  (tmp_path / "odd" / "a.png").symlink_to(src / "deep" / "b.png")
  (tmp_path / "file").write_text("mine")
  before = tree(tmp_path)
  wrong = dict.fromkeys(("src", "src/deep", "link"), "would mix")
  for out, said in (wrong | {"odd": "overwrite", "file": "is a file"}).items():
    with pytest.raises(UserError, match=said):
      run(src, tmp_path / out)
  assert tree(tmp_path) == before


def test_nothing_is_left_half_written(src, tmp_path, monkeypatch):
  for name in "abc":
    Image.fromarray(image(9, 9)).save(src / f"{name}.png")
  real, calls = Image.Image.save, []

  def full(self, path, *rest, **more):
    calls.append(path)
    real(self, path, *rest, **more)
    if len(calls) == 2:
      path.write_bytes(path.read_bytes()[:20])
      raise OSError(28, "No space left on device")

  monkeypatch.setattr(Image.Image, "save", full)
  with pytest.raises(UserError, match="b.png: No space left"):
    run(src, tmp_path / "out", batch=1)
  assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
  ("model", "more", "said"),
  [
    (Fake(), {"factor": 3}, "factor=3"),
    (Fake(), {"overlap": 8}, "0 to 7"),
    (Fake(), {"batch": 0}, "batch=0"),
    (Fake(classes=9), {}, "wants a label"),
    (Fake(channels=2), {}, "grey or RGB"),
  ],
)
def test_mistakes(model, more, said, src, tmp_path):
  Image.fromarray(image(3, 3)).save(src / "a.png")
  with pytest.raises(UserError, match=said):
    run(src, tmp_path / "out", model, **more)
  assert not (tmp_path / "out").exists() and not model.calls


def test_empty_and_missing_folders(src, tmp_path):
  with pytest.raises(UserError, match="no images in"):
    run(src, tmp_path / "out")
  with pytest.raises(UserError, match="no folder"):
    run(tmp_path / "none", tmp_path / "out")


def test_labels_and_knobs_reach_the_model(src, tmp_path):
  Image.fromarray(image(3, 3)).save(src / "a.png")
  model = Fake(classes=9)
  run(src, tmp_path / "out", model, labels=4, knobs={"steps": 7})
  assert [c[2:] for c in model.calls] == [(4, {"steps": 7})]
  model.model = types.SimpleNamespace(free=True)
  run(src, tmp_path / "out", model)
  assert model.calls[-1][2] == -1


def test_a_grey_model_takes_grey_images_alone(src, tmp_path):
  x = image(9, 12, 1)
  Image.fromarray(x[..., 0]).save(src / "grey.png")
  Image.fromarray(image(9, 12)).save(src / "colour.png")
  report = run(src, tmp_path / "out", Fake(channels=1))
  assert "colour" in report.skipped["colour.png"]
  np.testing.assert_array_equal(np.asarray(read(tmp_path / "out" / "grey.png")), untiled(x)[..., 0])


@pytest.mark.parametrize("shape", [(4000, 64, 3), (64, 4000, 3)])
def test_memory_of_a_large_image(shape):
  """Bytes of the result, a band of floats, and little else."""
  x, s, factor = image(*shape), 16, 4
  result = x.nbytes * factor**2
  tracemalloc.start()
  canvas = Canvas(x, s, factor, 4)
  for tile, _ in canvas.tiles():
    last = canvas.add(tile.repeat(factor, 0).repeat(factor, 1))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert last
  band = canvas.band.nbytes
  assert band == s * factor * shape[1] * factor * 3 * 4
  # NumPy moves the band through a copy.
  assert peak < result + 2.1 * band + 2**20
  np.testing.assert_array_equal(canvas.image, x.repeat(factor, 0).repeat(factor, 1))


@pytest.fixture(scope="module")
def upsampler(tmp_path_factory):
  """4x4 grey to 8x8, with labels; its weights away from zero."""
  folder = tmp_path_factory.mktemp("up")
  c = config.load("configs/adm_upsample256.py:debug")
  with c.unlocked():
    c.model.net.update(width=8, mults=(1,), head=8)
    c.model.steps = 3
  source = open_data(c)
  state = filled(Experiment.of(c).abstract(source, sharding.make_mesh()))
  with Checkpoints(str(folder), every=1, keep=3) as checkpoints:
    checkpoints.save(0, state, describe(c, source), force=True)
  return folder


def test_the_verb_enlarges_a_folder(upsampler, src, tmp_path, capsys, monkeypatch):
  """By a diffusion model: alike whatever else is there, even broken files."""
  sizes = {"a": (4, 4), "b": (3, 9), "c": (11, 6)}
  for i, (name, (h, w)) in enumerate(sizes.items()):
    Image.fromarray(image(h, w, 1, seed=i)[..., 0]).save(src / f"{name}.png")
  argv = ["sample", f"--workdir={upsampler}", f"--low_res={src}"]
  argv += "--seed=1 --sampler=ddim --labels=3 --batch=2".split()
  out = tmp_path / "out"
  status, said, lines = call(capsys, monkeypatch, *argv, f"--out={out}")
  assert (status, said) == (0, f"3 images -> {out}\n"), lines
  x = {name: np.asarray(read(out / f"{name}.png")) for name in sizes}
  assert {k: v.shape for k, v in x.items()} == {"a": (8, 8), "b": (6, 18), "c": (22, 12)}
  info = read_info(out / "b.png")
  assert info["source"] == "b.png" and info["seed"] == 1
  assert info["workdir"] == str(upsampler)
  # One tile alone is what the model makes of it.
  model = jaxgen.load(str(upsampler), sampler="ddim")
  noise = tile_noise(jax.random.fold_in(jax.random.key(1), 0), np.zeros((1, 2), int), (8, 8, 1))
  want = model.sample(0, 2, 3, low_res=image(4, 4, 1)[None], noise=np.asarray(noise))
  np.testing.assert_array_equal(x["a"], want[0, ..., 0])
  (src / "bad.png").write_bytes(b"broken")
  (src / "0.png").write_bytes((src / "b.png").read_bytes())  # moves the others
  status, said, lines = call(capsys, monkeypatch, *argv, f"--out={out}")
  assert status == 2 and said == f"4 images -> {out}\n"
  assert any("bad.png is skipped" in line for line in lines)
  assert "1 of 5 images were skipped, such as bad.png" in lines[-1]
  for name in "abc":
    np.testing.assert_array_equal(np.asarray(read(out / f"{name}.png")), x[name])
  for more, said in (
    (["--out=x.npz"], "must be one, too"),
    (["--num=3"], "leave --num"),
    (["--labels=1,2"], "one"),
    (["--seed=-1"], "seed=-1"),
    ([f"--out={src}"], "mix"),
    (["--labels=10"], "0 to 9"),
    (["--eta=nan"], "finite"),
  ):
    status, _, lines = call(capsys, monkeypatch, *argv, f"--out={out}", *more)
    assert (status, len(lines)) == (2, 1) and said in lines[0], lines


def test_only_an_upsampler_enlarges():
  with pytest.raises(UserError, match="want an upsampler"):
    factor_of(Fake())
