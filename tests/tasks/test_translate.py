"""`jaxgen translate`: images in, images out, numbers where the truth is known."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from pixel_judge import pixel_judge
from scipy import stats
from translators import DISC, RESNET, UNET, workdir
from verbs import call, finish, start, tree

from jaxgen import config
from jaxgen.config import build
from jaxgen.data.arrays import Arrays
from jaxgen.data.unpaired import Unpaired
from jaxgen.errors import UserError
from jaxgen.evaluation.translation_data import Inputs
from jaxgen.evaluation.translation_scores import Judges, columns, measure
from jaxgen.experiment import check_conditions
from jaxgen.metrics import image_quality
from jaxgen.monitor.pictures import read_info
from jaxgen.sampling.preview import sources
from jaxgen.tasks import translate

pytestmark = pytest.mark.usefixtures("unoptimised")


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  top = tmp_path_factory.mktemp("w")
  jpeg = dict(name="diffusion.degrade.jpeg", quality=10.0)
  return {
    "pix": workdir(top / "pix", "pix2pix", gen=UNET, disc=DISC),
    "hole": workdir(top / "hole", "palette", steps=2),
    "jpeg": workdir(top / "jpeg", "palette", steps=2, hole=None, cond=dict(source=jpeg)),
    "cycle": workdir(top / "cycle", "cycle_gan", gen=RESNET, disc=DISC),
  }


@pytest.fixture
def images(tmp_path):
  """Three photographs of 8x8 and one that is wider."""
  rng = np.random.default_rng(0)
  (tmp_path / "in").mkdir()
  for i, width in enumerate((8, 8, 8, 12)):
    x = rng.integers(0, 256, (8, width, 3), np.uint8)
    Image.fromarray(x).save(tmp_path / "in" / f"{i}.png")
  return tmp_path / "in"


def read(path):
  return np.asarray(Image.open(path))


def test_photographs_made_grey_and_coloured_again(workdirs, images, tmp_path, capsys, monkeypatch):
  out, page = tmp_path / "out", tmp_path / "page" / "x.html"
  argv = ("translate", f"--workdir={workdirs['pix']}", f"--data={images}", "--degrade")
  argv += (f"--out={out}", f"--page={page}")
  status, said, errors = call(capsys, monkeypatch, *argv)
  assert status == 0, errors
  assert "1 of 4 images were resized to 8x8" in errors[-1]
  assert sorted(p.name for p in out.iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
  info = read_info(out / "1.png")
  assert info["source"] == "1.png" and len(info["sha256"]) == 64 and info["step"] == 0
  assert info["command"].startswith("jaxgen translate --data=") and info["seed"] == 0
  card = json.loads(page.with_suffix(".json").read_text())
  psnr = [image_quality.psnr(read(out / f"{i}.png")[None], read(images / f"{i}.png")[None])
          for i in range(3)]  # fmt: skip
  assert set(card["scores"]) == {"source", "pix"}
  assert abs(card["scores"]["pix"]["psnr"] * 4 - np.sum(psnr)) < 40  # and the fourth's
  assert "ssim@uniform7" in card["scores"]["pix"] and "4 images" in said
  assert page.read_text().startswith("<!doctype html>") or "<html" in page.read_text()
  # Once more: the same bits; and nobody else's folder.
  before = tree(out)
  assert call(capsys, monkeypatch, *argv)[0] == 0
  assert tree(out) == before
  status, _, errors = call(capsys, monkeypatch, *argv[:-2], f"--out={images}")
  assert status == 2 and "that this command does not write" in errors[-1]


def test_a_broken_image_and_a_truth_that_is_missing(
  workdirs, images, tmp_path, capsys, monkeypatch
):
  (images / "2.png").write_bytes(b"no image")
  grey = ("translate", f"--workdir={workdirs['pix']}", f"--data={images}", f"--out={tmp_path}/out")
  status, _, errors = call(capsys, monkeypatch, *grey)
  assert status == 2 and "1 of 4 images were skipped, such as 2.png" in errors[-1]
  assert len(list((tmp_path / "out").iterdir())) == 3
  (tmp_path / "truth").mkdir()
  (images / "0.png").rename(tmp_path / "truth" / "0.png")
  for flags, says in (
    ([f"--truth={tmp_path}/truth"], "no partner of 3 of 3 images in .*: 1.png, 2.png, 3.png"),
    ([f"--truth={tmp_path}/none"], "there is no such folder"),
    (["--fit=refuse"], "3.png is 12x8, and this model takes 8x8"),
    (["--fit=some"], "want middle, stretch, refuse"),
    (["--masks=m"], "trained without any"),
    (["--direction=ba"], "holds no CycleGAN, and goes one way"),
    (["--direction=b"], "want ab or ba"),
    (["--num=3"], "--num is of a model's own data"),
    (["--knobs=image_stats=2"], "want 0 to 1"),
    (["--page=x.png"], "want x.html"),
    (["--quality=101", "--degrade"], "want 1 to 100"),
    (["--quality=5"], "say --degrade, too"),
    (["--quality=5", "--degrade"], "what makes this model's sources takes none"),
  ):
    status, _, errors = call(capsys, monkeypatch, *grey[:-1], f"--out={tmp_path}/o", *flags)
    assert status == 2 and len(errors) == 1, (flags, errors)
    assert re.search(says, errors[0]), errors
  assert not (tmp_path / "o").exists()


def test_holes_are_filled_and_all_else_stays(workdirs, images, tmp_path, capsys, monkeypatch):
  (images / "3.png").unlink()
  (tmp_path / "masks").mkdir()
  keep = np.full((8, 8), 255, np.uint8)
  keep[2:5, 1:4] = 0
  for i in range(3):
    Image.fromarray(keep).save(tmp_path / "masks" / f"{i}.png")
  argv = ("translate", f"--workdir={workdirs['hole']}", f"--data={images}", f"--out={tmp_path}/out")
  for more in ((f"--masks={tmp_path}/masks",), ()):
    assert call(capsys, monkeypatch, *argv, *more)[0] == 0
    x, y = read(images / "1.png"), read(tmp_path / "out" / "1.png")
    changed = (x != y).any(-1)
    if more:
      assert changed[keep == 0].all() and not changed[keep > 0].any()
      for p in (tmp_path / "out").iterdir():
        p.unlink()
    else:  # the model's own: the middle
      assert changed[2:6, 2:6].all() and changed.sum() == 16


def test_both_ways_of_a_cycle_on_its_own_data(workdirs, tmp_path, capsys, monkeypatch):
  """The truth is known there, as one kind is made of the other; and so are classes."""
  calls = []

  def judge_of(data, count, folder, backwards):
    calls.append((data.source, count, folder, backwards))
    return None

  monkeypatch.setattr(translate, "judge_of", judge_of)
  base = ("translate", f"--workdir={workdirs['cycle']}", "--num=6")
  outs = {}
  for way in ("ab", "ba"):
    out = tmp_path / way
    status, said, _ = call(capsys, monkeypatch, *base, f"--out={out}", f"--direction={way}")
    assert status == 0 and "psnr" in said and "cycle_psnr" in said
    outs[way] = np.stack([read(p) for p in sorted(out.iterdir())])
    assert read_info(next(out.iterdir()))["split"] == "test"
  source = "unpaired:digits,digits-inverted"
  assert calls == [(source, 6, None, False), (source, 6, None, True)]
  assert outs["ab"].shape == (6, 8, 8, 3) and (outs["ab"] != outs["ba"]).any()


def test_a_quality_of_jpegs(workdirs, images, tmp_path, capsys, monkeypatch):
  """Sources are JPEGs of it, nearer to the truth the higher it is."""
  argv = ("translate", f"--workdir={workdirs['jpeg']}", f"--data={images}", "--degrade")
  psnr = {}
  for quality in (5, 90, None):
    out = tmp_path / f"{quality}"
    more = [] if quality is None else [f"--quality={quality}"]
    argv_ = (*argv, f"--out={out}", f"--page={out}.html", *more)
    assert call(capsys, monkeypatch, *argv_)[0] == 0
    psnr[quality] = json.loads((tmp_path / f"{quality}.json").read_text())["scores"]["source"][
      "psnr"
    ]
    assert read_info(out / "0.png").get("quality") == quality
  assert psnr[5] < psnr[None] < psnr[90] and psnr[90] > 20


def test_seeds_of_one_config_share_a_row(workdirs, tmp_path, capsys, monkeypatch):
  seeds = [workdir(tmp_path / f"pix-{i}", "pix2pix", seed=i, gen=UNET, disc=DISC) for i in (1, 2)]
  other = dict(name="diffusion.degrade.grey")
  third = workdir(
    tmp_path / "far", "pix2pix", l1_weight=1.0, gen=UNET, disc=DISC, cond=dict(source=other)
  )
  words = f"--workdir={','.join(map(str, [*seeds, third]))}"
  page = tmp_path / "x.html"
  status, said, errors = call(
    capsys, monkeypatch, "translate", words, "--num=3", f"--out={tmp_path}/o", f"--page={page}"
  )
  assert status == 0, errors
  assert "pix (2 seeds)" in said and "far" in said and "mean and range" in said
  card = json.loads(page.with_suffix(".json").read_text())
  assert card["seeds"] == {"pix (2 seeds)": ["pix-1", "pix-2"]}
  card["scores"]["pix-1"]["psnr"], card["scores"]["pix-2"]["psnr"] = 10.0, 14.0
  own = columns(card)
  assert list(own) == ["source", "far", "pix (2 seeds)"]
  assert own["pix (2 seeds)"].scores["psnr"] == 12
  assert own["pix (2 seeds)"].intervals["psnr"] == (10, 14)


def test_results_do_not_depend_on_devices(workdirs, tmp_path):
  """Nor on how many images are translated at once."""
  argv = ("translate", f"--workdir={workdirs['jpeg']}", "--num=6")
  one = start(*argv, "--batch=6", f"--out={tmp_path}/one", devices=1)
  four = start(*argv, "--batch=4", f"--out={tmp_path}/four", devices=4)
  for process in (one, four):
    status, _, errors = finish(process)
    assert status == 0, errors
  names = sorted(p.name for p in (tmp_path / "one").iterdir())
  assert len(names) == 6
  for name in names:
    a, b = (read(tmp_path / k / name).astype(int) for k in ("one", "four"))
    assert np.abs(a - b).max() <= 1 and (a != b).mean() < 0.01  # sums in another order


def test_copies_are_looked_for_among_the_kind_that_is_made(workdirs, tmp_path, capsys, monkeypatch):
  sources = []

  def open_judge(data):
    sources.append(data.source)
    return pixel_judge()

  monkeypatch.setattr(translate, "judge_of", lambda *args: None)
  monkeypatch.setattr(translate, "open_judge", open_judge)
  base = ("translate", f"--workdir={workdirs['cycle']}", "--num=6", "--copies=own")
  for way in ("ab", "ba"):
    page = tmp_path / f"{way}.html"
    argv = (*base, f"--direction={way}", f"--out={tmp_path}/{way}", f"--page={page}")
    status, said, errors = call(capsys, monkeypatch, *argv)
    assert status == 0 and "of 6 results of cycle" in said, errors
    card = json.loads(page.with_suffix(".json").read_text())
    assert card["copies"]["results of cycle"]["count"] == 6
    assert "Copies of training images" in page.read_text()
  assert sources == ["digits-inverted", "digits"]


def test_models_side_by_side_want_one_shape(workdirs, tmp_path, capsys, monkeypatch):
  pair = f"--workdir={workdirs['pix']},{workdirs['cycle']}"
  status, _, errors = call(capsys, monkeypatch, "translate", pair, f"--out={tmp_path}/o")
  assert status == 2 and "models side by side translate images of one shape" in errors[-1]
  edges = dict(source=dict(name="diffusion.degrade.edges"))
  other = workdir(tmp_path / "edges", "pix2pix", gen=UNET, disc=DISC, cond=edges)
  pair = f"--workdir={workdirs['pix']},{other}"
  status, _, errors = call(capsys, monkeypatch, "translate", pair, f"--out={tmp_path}/o")
  assert status == 2 and "pix and edges translate other sources" in errors[-1]


def test_scores_know_what_is_better():
  truth = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
  near = np.clip(truth.astype(int) + 3, 0, 255).astype(np.uint8)
  inputs = Inputs(list("abcde"), [{}] * 5, truth[..., :1], truth=truth)
  scores, intervals = measure(near, inputs, Judges())
  assert scores["psnr"] == pytest.approx(20 * np.log10(255 / 3), abs=0.2)
  assert 0.99 < scores["ssim@gauss11"] < 1 and scores["frechet@textures"] < 1
  far, _ = measure(255 - truth, inputs, Judges())
  assert far["psnr"] < scores["psnr"] and far["ssim@gauss11"] < scores["ssim@gauss11"]
  # The textbook's interval, by scipy's own t-test.
  psnr = image_quality.psnr(near, truth)
  theirs = stats.ttest_1samp(psnr, 0).confidence_interval(0.95)
  assert intervals["psnr"] == pytest.approx(tuple(theirs))
  assert set(intervals) == {"psnr", "ssim@gauss11", "ssim@uniform7"}


def test_data_without_sources_are_refused_where_none_are_made():
  """Before a training begins; data that bring them are not."""
  source = Arrays("mine", np.zeros((4, 8, 8, 3), np.uint8))
  wants = build(config.load("configs/pix2pix.py:128").model)
  makes = build(config.load("configs/pix2pix.py:photos-grey").model)
  check_conditions(makes, source)
  with pytest.raises(UserError, match="Pix2Pix learns x from source, and mine holds x alone: take"):
    check_conditions(wants, source)
  check_conditions(wants, Unpaired("two", source, source))


def test_pictures_of_a_training_show_what_goes_in():
  """Grey in grey, holes in grey, and what the data bring."""
  x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
  grey = sources(build(config.load("configs/pix2pix.py:photos-grey").model), {"x": x})
  luma = x @ np.array([0.299, 0.587, 0.114])
  assert grey.shape == x.shape and np.abs(grey - luma[..., None]).max() <= 1
  hole = sources(build(config.load("configs/palette.py:inpaint").model), {"x": x})
  assert (hole[:, 2:6, 2:6] == 128).all() and (hole != x).any(-1).sum() == 32
  pairs = build(config.load("configs/pix2pix.py:128").model)
  np.testing.assert_array_equal(sources(pairs, {"x": x, "source": x[::-1]}), x[::-1])
