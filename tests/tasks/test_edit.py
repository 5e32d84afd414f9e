"""Editing: what every method promises, the verb from end to end, and what it refuses."""

import dataclasses
import functools
import json
import sys

import jax
import numpy as np
import PIL.Image
import pytest
from editing import SHAPE, game, images, loaded, sampler
from games import on_four_devices

from jaxgen.config import build
from jaxgen.diffusion import degrade
from jaxgen.errors import UserError
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.latent import Latent
from jaxgen.monitor import pictures
from jaxgen.tasks import edit, memorisation
from jaxgen.tasks.edit_methods import METHODS
from jaxgen.tasks.editor import Editor, operator_of
from jaxgen.tasks.memorisation import CopyCheck

KEEP = degrade.centre(8, 8)


@functools.cache
def editor(how, text=None, classes=0):
  to = sampler() if METHODS[how].wants == "model" else None
  return Editor(sampler(classes), how, operator_of(text, SHAPE) if text else None, to)


def run(how, text=None, x=None, classes=0, **kw):
  e = editor(how, text, classes)
  x = images() if x is None else x
  if text == "mask":
    kw["keep"] = KEEP
  if METHODS[how].wants == "image":
    kw |= {"second": x[::-1], "share": np.linspace(0, 1, len(x))}
  return e(e.known(x, KEEP), **kw)


CASES = [(how, "mask" if "mask" in m.operators else None) for how, m in METHODS.items()]
CASES += [("pigdm", "grey"), ("moments", "blur:1.5"), ("replacement", "downsample:2")]


@pytest.mark.parametrize("how, text", CASES)
def test_every_method_edits_and_turns_without_compiling(how, text):
  x = images()
  made = run(how, text, x)
  assert made.shape == x.shape and made.dtype == np.uint8
  if text == "mask":
    np.testing.assert_array_equal(made[:, KEEP[0, ..., 0] == 1], x[:, KEEP[0, ..., 0] == 1])
    assert not np.array_equal(made, x)
  for knob, value in {"steps": 7, **METHODS[how].knobs}.items():
    other = 2 if knob == "iterations" else value / 2 if value <= 1 else value // 2
    assert run(how, text, images(seed=1), **{knob: other}).shape == x.shape
  assert editor(how, text, 0).program._cache_size() == 1
  # Result i is of the seed, i and its image alone; one more batch is no other program.
  np.testing.assert_array_equal(run(how, text, x, batch=4), made)
  if METHODS[how].wants != "image":
    again = run(how, text, np.concatenate([x, images(seed=2)]), batch=4)
    np.testing.assert_array_equal(again[:4], made)


def test_costs_are_counted_as_the_net_is_called(monkeypatch):
  """Forwards; a gradient counts as two more."""
  calls, plain = [], Diffusion.D

  def counted(*args, **kwargs):
    jax.debug.callback(lambda: calls.append(1))
    return plain(*args, **kwargs)

  monkeypatch.setattr(Diffusion, "D", counted)
  for how, text in (("repaint", "mask"), ("sdedit", None)):
    e, knobs = Editor(sampler(), how, text and operator_of(text, SHAPE)), {"steps": 7.0}
    knobs |= {"jump_length": 2, "jump_n_sample": 3} if how == "repaint" else {}
    calls.clear()
    e(images(1), keep=KEEP, **knobs)
    jax.effects_barrier()
    assert len(calls) == e.cost(knobs) > 1, how
  base = Editor(sampler(), "replacement", operator_of("mask", SHAPE)).cost({"steps": 10})
  assert editor("dps", "mask").cost({"steps": 10}) == 3 * base == 30
  assert editor("moments", "mask").cost({"steps": 10, "iterations": 3}) == 9 * base
  assert editor("repaint", "mask").cost({"steps": 250}) == 2410


def test_labels_and_their_own_count_where_images_are_encoded():
  x = images()
  same = run("ddim", None, x, classes=4, source=2, labels=2, steps=100)
  other = run("ddim", None, x, classes=4, source=2, labels=3, steps=100)
  distance = lambda a: np.abs(a.astype(float) - x).mean()
  assert distance(same) < 0.5 * distance(other)
  with pytest.raises(UserError, match="does not ask what label images have"):
    run("dps", "mask", x, classes=4, source=2)


def test_a_way_between_images_ends_at_both():
  x, e = images(2), editor("interpolate")
  a, b = np.repeat(x[:1], 3, 0), np.repeat(x[1:], 3, 0)
  way = e(a, second=b, share=np.array([0, 0.5, 1]))
  np.testing.assert_allclose(way[[0, 2]].astype(int), run("ddim", None, x).astype(int), atol=1)
  assert not np.array_equal(way[1], way[0]) and not np.array_equal(way[1], way[2])


def test_a_bridge_to_itself_is_ddim():
  np.testing.assert_array_equal(run("bridge"), run("ddim"))


@functools.cache
def latent_sampler():
  codec = build(
    dict(
      name="models.vae.VAE", net=dict(name="nets.convs.Codec", size=8, channels=3, z_dim=4, width=4)
    )
  )
  inner = dataclasses.replace(game(), net=build(dict(name="nets.mlp.Denoiser", width=8, depth=1)))
  return loaded(Latent(codec, inner, scale=1.0))


def test_latents_are_edited_through_their_codec():
  x, model = images(), latent_sampler()
  e = Editor(model, "sdedit")
  weak, strong = (e(x, strength=s) for s in (0.0, 1.0))
  assert weak.shape == x.shape and not np.array_equal(weak, strong)
  with pytest.raises(
    UserError, match="W is a model of latents: --operator=mask is of pixels alone"
  ):
    Editor(model, "sdedit", operator_of("mask", SHAPE))
  with pytest.raises(UserError, match="a bridge is between models of one shape"):
    Editor(model, "bridge", None, sampler())


def record():
  """What a model of several devices makes, or of one."""
  x = images(6)
  return {how: run(how, "mask", x) for how in ("repaint", "pigdm")}


def test_four_devices_make_what_one_does(tmp_path):
  four, one = on_four_devices(__file__, tmp_path), record()
  for how, x in one.items():
    np.testing.assert_allclose(four[how].astype(int), x.astype(int), atol=1)


# The verb.


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder with images and a mask; workdirs W, C (classes), L (latents), G (a GAN)."""
  (tmp_path / "in").mkdir()
  for i, x in enumerate(images(3)):
    PIL.Image.fromarray(x).save(tmp_path / "in" / f"{i}.png")
  PIL.Image.fromarray(images(1, shape=(20, 30, 3))[0]).save(tmp_path / "wide.png")
  mask(tmp_path / "m.png", 8, 8)
  mask(tmp_path / "small.png", 4, 4)
  mask(tmp_path / "white.png", 8, 8, hole=0)
  (tmp_path / "torn.png").write_bytes((tmp_path / "wide.png").read_bytes()[:300])
  gan = build(
    dict(
      name="models.gan.GAN",
      gen=dict(name="nets.mlp.Generator", width=4, depth=1),
      disc=dict(name="nets.mlp.Discriminator", width=4, depth=1),
      rule=dict(name="adversarial.losses.nonsaturating"),
    )
  )
  kinds = {
    "W": sampler,
    "C": lambda: sampler(4, label_drop=0.0),
    "L": latent_sampler,
    "G": lambda: dataclasses.replace(sampler(), model=gan, card={"workdir": "G"}),
  }
  monkeypatch.setattr(
    edit, "editor_of", functools.partial(edit.editor_of, load_model=lambda w, **_: kinds[w]())
  )
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_copies_are_on_the_page_and_in_the_file(place, verb, monkeypatch):
  pairs = np.stack([images(2), images(2, seed=1)])
  check = CopyCheck(
    "results", "digits", "pixels", 3, 1, 0.04, 0.0, np.array([2, 0]), np.array([7, 9]),
    np.array([0.5, 1.5]), pairs,
  )  # fmt: skip
  asked = []
  look = lambda x, before, what: asked.append((x.shape, before.shape, what)) or check
  monkeypatch.setattr(memorisation, "open_copies", lambda data, workdir: look)
  words = ["edit", "--workdir=W", "--image=in", "--how=sdedit", "--copies=own"]
  status, out, _ = verb(*words, "--out=new")
  assert status == 0 and "copies: 1 of 3 results" in out
  assert asked == [((3, 8, 8, 3), (3, 8, 8, 3), "results of sdedit")]
  assert json.loads((place / "new.json").read_text())["copies"]["share"] == 1 / 3
  assert "Copies of training images" in (place / "new.html").read_text()
  assert verb(*words, "--out=new.npz")[0] == 0  # there is no page
  info = json.loads(str(np.load(place / "new.npz")["info"]))
  assert info["copies"]["nearest"][0]["training_image"] == 7


def mask(path, height, width, hole=4):
  x = np.full((height, width), 255, np.uint8)
  x[2 : 2 + hole, 2 : 2 + hole] = 0
  PIL.Image.fromarray(x).save(path)


def read(path):
  return np.asarray(PIL.Image.open(path))


def test_the_verb_fills_a_folder_and_says_how(place, verb):
  words = [
    "edit",
    "--workdir=W",
    "--image=in",
    "--mask=m.png",
    "--num=2",
    "--how=dps",
    "--zeta=0.5",
  ]
  status, out, err = verb(*words, "--out=filled")
  assert (status, err) == (0, []) and "6 images -> filled" in out
  names = sorted(p.name for p in (place / "filled").iterdir())
  assert names == [f"{i}_{k}.png" for i in range(3) for k in range(2)]
  whole = read(place / "in" / "1.png")
  a, b = (read(place / "filled" / f"1_{k}.png") for k in range(2))
  hole = np.zeros((8, 8), bool)
  hole[2:6, 2:6] = True
  for x in (a, b):
    np.testing.assert_array_equal(x[~hole], whole[~hole])
  assert not np.array_equal(a[hole], b[hole])
  info = pictures.read_info(place / "filled" / "1_0.png")
  assert info["edited"] and info["how"] == "dps" and info["knobs"]["zeta"] == 0.5
  assert info["source"] == "1.png" and len(info["sha256"]) == len(info["mask_sha256"]) == 64
  assert "--zeta=0.5" in info["command"] and info["workdir"] == "W"
  page = (place / "filled.html").read_text()
  assert page.index("<img") < page.index("PSNR in the hole") and "no evidence" in page
  card = json.loads((place / "filled.json").read_text())
  assert set(card["images"]) == {"0.png", "1.png", "2.png"} and card["evaluations"] == 15
  before = (place / "filled" / "2_1.png").read_bytes()
  assert verb(*words, "--out=filled")[0] == 0  # the same again, in its place
  assert (place / "filled" / "2_1.png").read_bytes() == before


def test_the_verb_resizes_and_restores_what_is_left_of_images(place, verb):
  status, out, _ = verb(
    "edit", "--workdir=W", "--image=wide.png", "--operator=downsample:2", "--out=x.png"
  )  # fmt: skip
  assert status == 0 and "wide.png: 30x20 -> 4x4, its middle square, resized" in out
  assert read(place / "x.png").shape == (8, 8, 3)
  status, out, _ = verb(
    "edit", "--workdir=W", "--image=in", "--operator=grey", "--original", "--how=pigdm",
    "--out=y.npz", "--page=y.html",
  )  # fmt: skip
  assert status == 0
  scores = json.loads((place / "y.json").read_text())["scores"]
  assert set(scores) == {"PSNR", "PSNR of what is known"}
  file = np.load(place / "y.npz")
  assert file["arr_0"].shape == (3, 8, 8, 3)
  assert len(json.loads(str(file["info"]))["sources"]) == 3
  status, out, _ = verb(
    "edit", "--workdir=W", "--image=in/0.png,in/1.png", "--how=interpolate", "--frames=4",
    "--out=way",
  )  # fmt: skip
  assert status == 0 and len(list((place / "way").iterdir())) == 4
  info = pictures.read_info(place / "way" / "002.png")
  assert (info["source"], info["to_image"]["source"]) == ("0.png", "1.png")


REFUSED = [
  ("--mask=small.png", "--mask=small.png is 4x4, and 0.png is 8x8: a mask has the size of"),
  ("--mask=white.png", "--mask=white.png has nothing black, which is what is filled"),
  ("--mask=none.png", "--mask=none.png: there is no such file or folder"),
  ("--mask=in --image=m.png", "--mask=in: there is no mask of m.png"),
  ("--mask=m.png --no_resize --image=wide.png", "--image=wide.png is 30x20, and 8x8 is wanted"),
  ("--mask=m.png --image=torn.png", "--image=torn.png: "),
  ("--mask=m.png --image=none.png", "there is no file none.png"),
  ("--mask=m.png --labels=3", "--labels: this model was trained without labels"),
  ("--mask=m.png --workdir=C", "this model always had labels: give --labels"),
  ("--mask=m.png --workdir=C --labels=7", "--labels: labels run from 0 to 3, got 7"),
  ("--how=sdedit --workdir=G", "G holds a GAN: --how=sdedit edits by a diffusion model"),
  ("--mask=m.png --workdir=L --how=sdedit", "W is a model of latents: --operator=mask is of"),
  ("--how=repaint", "--how=repaint wants to know what is known: give --mask=m.png"),
  ("--how=repant", "--how=repant: there is no such method; did you mean 'repaint'?"),
  ("--how=repaint --operator=grey", "--how=repaint takes no grey: replacement, dps"),
  ("--how=dps --mask=m.png --jump_length=3", "--how=dps has no knob 'jump_length'; repaint have"),
  ("--how=repaint --mask=m.png --jump_length=1.5", "jump_length=1.5: want a whole number from 1"),
  ("--how=sdedit --scale=2", "--scale is of a classifier: give --classifier=WORKDIR"),
  ("--operator=blur", "--operator=blur: want blur:pixels, more than 0"),
  ("--operator=downsample:3", "8x8 cannot be cut into boxes of 3x3"),
  ("--operator=sharpen", "--operator=sharpen: want mask, grey, blur:2 or downsample:4"),
  ("--how=bridge", "--how=bridge: give --to=WORKDIR"),
  ("--how=sdedit --to=W", "--to is for --how=bridge, not sdedit"),
  ("--how=interpolate", "--how=interpolate goes from image to image: give --image=a.png,b.png"),
  ("--how=sdedit --source=1", "--how=sdedit does not ask what label images have: leave --source"),
  ("", "edit needs --how: repaint, "),
  ("--hows=dps --how=sdedit", "--hows is for --measure"),
  ("--how=sdedit --out=in/0.png", "--out=in/0.png is there, and is none that jaxgen would"),
]


@pytest.mark.parametrize("words, says", REFUSED)
def test_the_verb_refuses_in_one_line(place, verb, words, says):
  argv = {"--workdir": "W", "--image": "in/0.png", "--out": "x.png"}
  argv |= dict(w.split("=", 1) if "=" in w else (w, None) for w in words.split())
  argv = [k if v is None else f"{k}={v}" for k, v in argv.items()]
  status, _, err = verb("edit", *argv)
  assert status == 2 and len(err) == 1 and says in err[0], err
  assert not (place / "x.png").exists()


if __name__ == "__main__":
  np.savez(sys.argv[1], **record())
